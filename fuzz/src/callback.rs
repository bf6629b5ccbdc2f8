//! The checks of a handler's answer, beside a plain reading of its JSON.
//!
//! An input is a character for the interaction, a content type, the end of the line, and a body. A digit is an
//! interaction's type; `a` stands for 1 with a message, `b` for 2, and so on.

use bytes::Bytes;
use serde_json::Value;
use shardless::discord::answer;
use shardless::discord::callback::Question;
use shardless::discord::interaction::Kind;

use super::{assert_is_a_sentence, form, json};

/// Callback type → the interaction types that it may answer; those with a message besides.
const TABLE: [(u64, &[u64], &[u64]); 10] = [
    (1, &[1], &[]),
    (4, &[2, 3, 5], &[]),
    (5, &[2, 3, 5], &[]),
    (6, &[3], &[5]),
    (7, &[3], &[5]),
    (8, &[4], &[]),
    (9, &[2, 3], &[]),
    (10, &[2, 3, 5], &[]),
    (12, &[2, 3, 5], &[]),
    (13, &[6], &[]),
];

/// What is taken is JSON, an object, of a type that answers such an interaction, in limits; and the other way round.
pub fn check(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first() else { return };
    let (number, has_message) = (u64::from(first & 7), first & 0x40 != 0);
    let mut lines = rest.splitn(2, |byte| *byte == b'\n');
    let Ok(content_type) = std::str::from_utf8(lines.next().unwrap_or_default()) else { return };
    let body = Bytes::copy_from_slice(lines.next().unwrap_or_default());
    let question = Question { kind: Kind::from_type(number), has_message };
    let checked = answer::check(content_type, &body, question);
    if let Err(error) = &checked {
        assert_is_a_sentence(&error.to_string());
    }
    let is_json =
        content_type.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json");
    let callback = match &checked {
        Ok(_) => form::read(content_type, &body).callback,
        Err(_) if is_json => body,
        // A form may be broken in more ways than it is worth to say twice.
        Err(_) => return,
    };
    let found = checked.as_ref().ok().map(|checked| checked.callback.number());
    match json::read(&callback) {
        json::Reading::NoJson => assert_eq!(found, None),
        json::Reading::Strange => {}
        json::Reading::Value(value) => {
            let expected = read(&value, number, has_message);
            let kind = expected.map(|(kind, _)| kind);
            assert!(
                found == kind || found.is_none() && json::has_a_key_twice(&callback),
                "{checked:?} {expected:?}"
            );
            if let (Ok(checked), Some((_, broken)), true) = (&checked, expected, is_json) {
                assert_eq!(checked.broken_limits.len(), broken, "{checked:?}");
            }
        }
    }
}

/// The callback's type, and how many limits it breaks.
fn read(value: &Value, number: u64, has_message: bool) -> Option<(u64, usize)> {
    value.as_object()?;
    let kind = value.get("type")?.as_u64()?;
    let (_, answers, with_message) = TABLE.into_iter().find(|(known, ..)| *known == kind)?;
    let is_known = (1..=6).contains(&number);
    if is_known && !answers.contains(&number) && !(has_message && with_message.contains(&number)) {
        return None;
    }
    let Some(data) = value.get("data").filter(|data| !data.is_null()) else { return Some((kind, 0)) };
    data.as_object()?;
    let list = |key: &str| match data.get(key) {
        None | Some(Value::Null) => Some(0),
        Some(list) => Some(list.as_array()?.len()),
    };
    let characters = |key: &str| Some(json::text(data, key)?.map_or(0, |text| text.chars().count()));
    let title = characters("title")?;
    let broken = [
        characters("content")? > 2000,
        list("embeds")? > 10,
        list("attachments")? > 10,
        list("choices")? > 25,
        title > 45 && kind == 9,
    ];
    Some((kind, broken.into_iter().filter(|broken| *broken).count()))
}
