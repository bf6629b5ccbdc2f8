//! What holds of every late answer.

use std::collections::HashMap;

use proptest::prelude::*;
use serde_json::value::RawValue;

use super::*;

fn deferral() -> impl Strategy<Value = Deferral> {
    prop_oneof![Just(PUBLIC), Just(PRIVATE), Just(UPDATE)]
}

/// A message's fields as a handler may write them, in any order, some of them.
fn fields() -> impl Strategy<Value = Vec<(String, String)>> {
    let list = prop::sample::select(vec!["[]", "[ {\"a\" : 1.0e5} ]", "null", "[\"\\u00e9\",\t{}]"]);
    let object = prop::sample::select(vec!["{}", "{ \"parse\" :[ ] }", "null", "7"]);
    let flags = prop_oneof![any::<u64>(), 0..65_536_u64, Just(64)].prop_map(|flags| flags.to_string());
    let own = |name: &str, value: BoxedStrategy<String>| {
        let name = name.to_owned();
        value.prop_map(move |value| (name.clone(), value)).boxed()
    };
    let all = vec![
        own("content", any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()).boxed()),
        own("embeds", list.clone().prop_map_into().boxed()),
        own("components", list.clone().prop_map_into().boxed()),
        own("attachments", list.prop_map_into().boxed()),
        own("poll", object.clone().prop_map_into().boxed()),
        own("allowed_mentions", object.prop_map_into().boxed()),
        own("flags", flags.boxed()),
        own("tts", Just("true".to_owned()).boxed()),
        own("nonce", Just("[1, 2]".to_owned()).boxed()),
    ];
    (all, any::<[bool; 9]>())
        .prop_map(|(all, chosen)| {
            all.into_iter().zip(chosen).filter(|(_, is)| *is).map(|(field, _)| field).collect::<Vec<_>>()
        })
        .prop_shuffle()
}

fn raw_fields(body: &[u8]) -> HashMap<String, Box<RawValue>> {
    serde_json::from_slice(body).unwrap()
}

fn flags_of(fields: &HashMap<String, Box<RawValue>>) -> u64 {
    fields.get("flags").map_or(0, |flags| flags.get().parse().unwrap())
}

proptest! {
    /// Whatever a handler writes: what is private is never shown to others, and what goes along stays as it was.
    #[test]
    fn a_private_answer_never_becomes_public(deferral in deferral(), is_update: bool, fields in fields()) {
        let data: Vec<_> = fields.iter().map(|(name, value)| format!("\"{name}\" : {value}")).collect();
        let data = format!("{{{}}}", data.join(" ,\r\n"));
        let answer = format!(r#"{{"type":{},"data":{data}}}"#, if is_update { 7 } else { 4 });
        let written = raw_fields(data.as_bytes());
        let is_private = flags_of(&written) & EPHEMERAL != 0;
        let Ok(Mapped { late: Late::Deliver(message), note, .. }) = mapped(deferral, &answer) else {
            let shows = ["content", "embeds", "components", "poll"].iter().any(|name| written.contains_key(*name));
            prop_assert!(is_update && deferral != UPDATE || !is_update && !shows);
            return Ok(());
        };
        let sent = raw_fields(&message.body);
        match message.way {
            Way::Edit if is_update => prop_assert_eq!(deferral, UPDATE),
            Way::Edit => prop_assert!(deferral == PRIVATE || deferral == PUBLIC && !is_private),
            Way::Replace => prop_assert!(deferral == PUBLIC && is_private),
            Way::FollowUp => prop_assert_eq!(deferral, UPDATE),
        }
        let allowed = if message.way == Way::Edit { 32_772 } else { 36_932 };
        prop_assert_eq!(flags_of(&sent), flags_of(&written) & allowed);
        prop_assert_eq!(note.is_some(), deferral == PRIVATE && !is_private);
        for (name, value) in &written {
            let is_kept = match name.as_str() {
                "flags" | "nonce" => continue,
                "tts" => message.way != Way::Edit,
                _ => true,
            };
            prop_assert_eq!(sent.get(name).map(|value| value.get()), is_kept.then(|| value.get()));
        }
        prop_assert!(!sent.contains_key("nonce"));
        let order = |name: &&str| sent.contains_key(*name);
        let names: Vec<_> = fields.iter().map(|(name, _)| name.as_str()).filter(order).collect();
        let text = String::from_utf8(message.body.to_vec()).unwrap();
        let expected: Vec<_> = names.iter().map(|name| format!("\"{name}\":{}", sent[*name].get())).collect();
        prop_assert_eq!(text, format!("{{{}}}", expected.join(",")));
    }

    /// The rebuilt form has the same files, whoever reads it.
    #[test]
    fn a_rebuilt_form_has_the_same_files(
        deferral in deferral(),
        files in proptest::collection::vec(any::<Vec<u8>>(), 0..5),
        text: String,
    ) {
        prop_assume!(!files.iter().any(|file| file.windows(5).any(|bytes| bytes == b"--x y")));
        let content = serde_json::to_string(&format!("{text}\r\n--x y\r\n")).unwrap();
        let body = form(&format!("{{\r\n\"type\":4,\r\n\"data\":{{\"content\":\r\n{content}}}}}"), &files);
        let Late::Deliver(message) = map(deferral, FORM, &body, COMPONENT).unwrap().late else { panic!() };
        let is_file = |part: &(String, Bytes)| part.0.contains("files[");
        let (was, mut is) = (parts(FORM, &body), parts(FORM, &message.body));
        let list: Vec<_> = (0..files.len()).map(|number| format!(r#"{{"id":{number}}}"#)).collect();
        let list = match deferral {
            Deferral::Message { .. } if !list.is_empty() => format!(r#","attachments":[{}]"#, list.join(",")),
            _ => String::new(),
        };
        prop_assert_eq!(&is.remove(0).1, &format!(r#"{{"content":{content}{list}}}"#));
        prop_assert_eq!(is, was.into_iter().filter(is_file).collect::<Vec<_>>());
    }

    /// Whatever a handler sends, there is an end to it.
    #[test]
    fn anything_is_mapped_or_refused(deferral in deferral(), content_type in ".{0,40}", body: Vec<u8>, data in ".{0,60}") {
        let callback = format!(r#"{{"type":4,"data":{data}}}"#);
        for body in [body, callback.into_bytes()] {
            for content_type in [content_type.as_str(), FORM, "application/json"] {
                if let Err(error) = map(deferral, content_type, &Bytes::from(body.clone()), COMPONENT) {
                    prop_assert!(error.to_string().chars().count() < 1000);
                }
            }
        }
    }
}
