//! What a late answer becomes, whatever the handler wrote.
//!
//! An input is a character for the deferral (`0` public, `1` private, `2` an update), a content type, the end of the
//! line, and a body.

use std::collections::HashMap;

use bytes::Bytes;
use serde_json::json;
use serde_json::value::RawValue;
use shardless::discord::callback::Question;
use shardless::discord::deferral::Deferral;
use shardless::discord::interaction::Kind;
use shardless::discord::late::{self, Late, Mapped, Message, Note, Way};

use super::{assert_is_a_sentence, form};

const EPHEMERAL: u64 = 64;
/// The flags that an edit may set, and those of a new message.
const EDIT_FLAGS: u64 = 4 | 32_768;
const NEW_FLAGS: u64 = EDIT_FLAGS | EPHEMERAL | 4096;

type Fields = HashMap<String, Box<RawValue>>;

/// What is private is never shown to others, and all else goes along as it was written.
pub fn check(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first() else { return };
    let deferral = match first % 3 {
        0 => Deferral::Message { private: false },
        1 => Deferral::Message { private: true },
        _ => Deferral::Update,
    };
    let mut lines = rest.splitn(2, |byte| *byte == b'\n');
    let Ok(content_type) = std::str::from_utf8(lines.next().unwrap_or_default()) else { return };
    let body = Bytes::copy_from_slice(lines.next().unwrap_or_default());
    // It takes all callbacks of messages.
    let question = Question { kind: Kind::Component, has_message: true };
    let Mapped { late, note, checked } = match late::map(deferral, content_type, &body, question) {
        Ok(mapped) => mapped,
        Err(error) => return assert_is_a_sentence(&error.to_string()),
    };
    assert!(checked.doubt.is_none());
    let found = checked.callback.number();
    match late {
        Late::IsSaid => assert_eq!((deferral, found, note), (Deferral::Update, 6, None)),
        Late::EditsItself => {
            assert!(found == 5 || found == 6 && deferral != Deferral::Update);
            assert_ne!(note, Some(Note::StaysPrivate));
        }
        Late::Deliver(message) => {
            assert!(found == 4 || found == 7 && deferral == Deferral::Update);
            assert_eq!(message.content_type, content_type.trim());
            let written = form::read(content_type, &body);
            if !has_nameless_parts(&written) {
                assert_goes_along(deferral, found, &message, note, &written);
            }
        }
    }
}

/// What is no part of any form, and what reads forms here cannot tell from the next part's headers.
fn has_nameless_parts(written: &form::Answer) -> bool {
    written.others.iter().any(|part| part.headers.is_empty())
}

fn assert_goes_along(
    deferral: Deferral,
    found: u64,
    message: &Message,
    note: Option<Note>,
    written: &form::Answer,
) {
    let sent = form::read(&message.content_type, &message.body);
    assert_eq!(sent.others, written.others);
    let (sent, data) = (fields(&sent.callback), data(&written.callback));
    let is_private = flags(&data) & EPHEMERAL != 0;
    let way = match deferral {
        Deferral::Message { private: false } if is_private => Way::Replace,
        Deferral::Message { .. } => Way::Edit,
        Deferral::Update if found == 7 => Way::Edit,
        Deferral::Update => Way::FollowUp,
    };
    assert_eq!(message.way, way);
    let (stays_private, is_edit) =
        (deferral == Deferral::Message { private: true } && !is_private, way == Way::Edit);
    assert_eq!(note, stays_private.then_some(Note::StaysPrivate));
    assert_eq!(flags(&sent), flags(&data) & if is_edit { EDIT_FLAGS } else { NEW_FLAGS });
    let raw = |fields: &Fields, name: &str| fields.get(name).map(|value| value.get().to_owned());
    for name in ["content", "embeds", "allowed_mentions", "components", "poll", "tts"] {
        let kept = raw(&data, name).filter(|_| name != "tts" || !is_edit);
        assert_eq!(raw(&sent, name), kept, "{name}");
    }
    let numbers = written.others.iter().filter_map(|part| part.number);
    let list: Vec<_> = numbers.map(|id| json!({ "id": id })).collect();
    let listed = (is_edit && found == 4 && !list.is_empty()).then(|| json!(list).to_string());
    assert_eq!(raw(&sent, "attachments"), raw(&data, "attachments").or(listed));
    let known =
        ["content", "embeds", "allowed_mentions", "components", "poll", "tts", "attachments", "flags"];
    assert!(sent.keys().all(|name| known.contains(&&**name)), "{sent:?}");
}

fn fields(json: &[u8]) -> Fields {
    serde_json::from_slice(json).unwrap()
}

fn data(callback: &[u8]) -> Fields {
    let data = fields(callback).remove("data").filter(|data| data.get() != "null");
    data.map(|data| fields(data.get().as_bytes())).unwrap_or_default()
}

fn flags(fields: &Fields) -> u64 {
    let flags = fields.get("flags").filter(|flags| flags.get() != "null");
    flags.map_or(0, |flags| flags.get().parse().unwrap())
}
