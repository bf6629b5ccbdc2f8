//! The bare message that a callback holds: what Discord's REST API takes, each field as the handler wrote it.

use std::fmt;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serializer};
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};

use super::{LateError, Way};
use crate::discord::callback::EPHEMERAL;
use crate::discord::describe;

/// Fields that any message may have; a new one `tts` besides.
///
/// Source: Discord's documentation, "Edit Webhook Message" and "Execute Webhook".
const FIELDS: [&str; 8] =
    ["content", "embeds", FLAGS, "allowed_mentions", "components", ATTACHMENTS, "poll", TTS];
/// Fields that show something.
const SHOWN: [&str; 4] = ["content", "embeds", "components", "poll"];
const ATTACHMENTS: &str = "attachments";
const FLAGS: &str = "flags";
const TTS: &str = "tts";

/// SUPPRESS_EMBEDS and IS_COMPONENTS_V2: the flags that an edit may set.
const EDIT_FLAGS: u64 = 1 << 2 | 1 << 15;
/// These, EPHEMERAL and SUPPRESS_NOTIFICATIONS: the flags that a new message may have.
const NEW_FLAGS: u64 = EDIT_FLAGS | EPHEMERAL | 1 << 12;

/// A callback's message, borrowed from it.
pub(super) struct BareMessage<'a> {
    /// In their order; what Discord's REST API does not take is left out.
    fields: Vec<(&'static str, &'a RawValue)>,
    flags: u64,
}

impl<'a> BareMessage<'a> {
    /// Reads a callback that was checked.
    pub(super) fn read(callback: &'a [u8]) -> Result<Self, LateError> {
        #[derive(Deserialize)]
        struct Callback<'a> {
            #[serde(borrow)]
            data: Option<&'a RawValue>,
        }
        let data = |error| LateError::Data(describe(&error));
        let callback: Callback<'a> = serde_json::from_slice(callback).map_err(data)?;
        let Fields { mut fields, twice } = match callback.data {
            Some(value) => serde_json::from_str(value.get()).map_err(data)?,
            None => Fields::default(),
        };
        if let Some(name) = twice {
            return Err(LateError::Twice(name));
        }
        let written = fields.iter().find(|(name, _)| *name == FLAGS);
        let flags: Option<u64> = written
            .map_or(Ok(None), |(_, value)| serde_json::from_str(value.get()))
            .map_err(|_| LateError::Flags)?;
        if flags.is_none() {
            // As a `null`, too.
            fields.retain(|(name, _)| *name != FLAGS);
        }
        Ok(Self { fields, flags: flags.unwrap_or_default() })
    }

    /// Whether it asks to be seen by the user alone.
    pub(super) fn is_private(&self) -> bool {
        self.flags & EPHEMERAL != 0
    }

    /// Whether it shows nothing.
    pub(super) fn is_empty(&self) -> bool {
        !self.fields.iter().any(|(name, _)| SHOWN.contains(name))
    }

    /// The message as JSON, with what can go this way. An edit lists its attachments: those that it lists itself, else
    /// the files of these numbers.
    pub(super) fn write(&self, way: Way, files: &[u64]) -> Result<Vec<u8>, LateError> {
        let is_new = way != Way::Edit;
        let kept = self.flags & if is_new { NEW_FLAGS } else { EDIT_FLAGS };
        let flags = (kept != 0).then(|| to_raw_value(&kept)).transpose();
        let flags = flags.map_err(|_| LateError::Flags)?;
        let fields = self.fields.iter().filter_map(|(name, value)| match *name {
            FLAGS if kept != self.flags => flags.as_deref().map(|flags| (FLAGS, flags)),
            TTS if !is_new => None,
            name => Some((name, *value)),
        });
        let wrong = |error| LateError::Data(describe(&error));
        let is_listed = self.fields.iter().any(|(name, _)| *name == ATTACHMENTS);
        let list: Vec<_> = files.iter().map(|number| json!({ "id": number })).collect();
        let list = (!is_new && !is_listed && !list.is_empty()).then(|| to_raw_value(&list));
        let list = list.transpose().map_err(wrong)?;
        let fields = fields.chain(list.as_deref().map(|list| (ATTACHMENTS, list)));
        let mut body = Vec::new();
        serde_json::Serializer::new(&mut body).collect_map(fields).map_err(wrong)?;
        Ok(body)
    }
}

#[derive(Default)]
struct Fields<'a> {
    fields: Vec<(&'static str, &'a RawValue)>,
    /// One that is there more than once.
    twice: Option<&'static str>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
                let mut found = Fields::default();
                while let Some(key) = object.next_key::<String>()? {
                    let Some(name) = FIELDS.into_iter().find(|name| *name == key) else {
                        object.next_value::<IgnoredAny>()?;
                        continue;
                    };
                    if found.fields.iter().any(|(earlier, _)| *earlier == name) {
                        found.twice = Some(name);
                    }
                    found.fields.push((name, object.next_value()?));
                }
                Ok(found)
            }
        }
        deserializer.deserialize_map(Object)
    }
}
