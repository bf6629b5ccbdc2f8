//! A plain reading of JSON, beside which others are held.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// What a reading into values cannot hold, though it is JSON.
const NO_VALUES: [&str; 4] = [
    "number out of range",
    "recursion limit exceeded",
    "lone leading surrogate in hex escape",
    "unexpected end of hex escape",
];

/// What a text is to a plain reader.
pub enum Reading {
    /// JSON.
    Value(Value),
    /// JSON, of which a plain reader has nothing to say.
    Strange,
    /// Anything else.
    NoJson,
}

pub fn read(bytes: &[u8]) -> Reading {
    match serde_json::from_slice(bytes) {
        Ok(value) => Reading::Value(value),
        Err(error) if NO_VALUES.iter().any(|reason| error.to_string().contains(reason)) => Reading::Strange,
        Err(_) => Reading::NoJson,
    }
}

/// Whether an object in that JSON has a key twice: a plain reader takes the last one.
pub fn has_a_key_twice(json: &[u8]) -> bool {
    serde_json::from_slice::<Unambiguous>(json).is_err()
}

/// The text of that key: nothing where there is none; `None` where it is something else.
pub fn text<'v>(object: &'v Value, key: &str) -> Option<Option<&'v str>> {
    match object.get(key) {
        None | Some(Value::Null) => Some(None),
        Some(Value::String(text)) => Some(Some(text)),
        Some(_) => None,
    }
}

struct Unambiguous;

impl<'de> Deserialize<'de> for Unambiguous {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Unambiguous {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self, A::Error> {
        while list.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self, A::Error> {
        let mut keys = HashSet::new();
        while let Some((key, Self)) = object.next_entry::<String, Self>()? {
            if !keys.insert(key) {
                return Err(A::Error::custom("twice"));
            }
        }
        Ok(self)
    }
}
