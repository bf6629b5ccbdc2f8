//! The envelope of an interaction: the few fields that decide what happens to it.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use thiserror::Error;

use super::callback::Question;
use super::object::Object;
use super::{Token, describe};

/// Objects and arrays inside one another. Discord's own payloads stay far below.
const MAX_DEPTH: usize = 128;

/// What an interaction is, by its `type`.
///
/// Source: Discord's documentation, "Interaction Type"; 6 is in its OpenAPI description only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// 1: Discord asks whether the endpoint is alive.
    Ping,
    /// 2: a slash, user or message command, or an activity's entry point.
    Command,
    /// 3: a button or select menu of a message.
    Component,
    /// 4: suggestions for an option that is being typed.
    Autocomplete,
    /// 5: a modal was submitted.
    Modal,
    /// 6: may this user buy that item?
    SkuEligibility,
    /// A type that this version does not know.
    Unknown(u64),
}

impl Kind {
    /// The kind of an interaction whose `type` is `number`.
    pub fn from_type(number: u64) -> Self {
        match number {
            1 => Self::Ping,
            2 => Self::Command,
            3 => Self::Component,
            4 => Self::Autocomplete,
            5 => Self::Modal,
            6 => Self::SkuEligibility,
            other => Self::Unknown(other),
        }
    }

    /// A word for logs and metrics; all unknown types share one, so that labels stay few.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Command => "command",
            Self::Component => "component",
            Self::Autocomplete => "autocomplete",
            Self::Modal => "modal",
            Self::SkuEligibility => "sku_eligibility",
            Self::Unknown(_) => "unknown",
        }
    }
}

/// An interaction, borrowed from its body.
#[derive(Debug)]
pub struct Interaction<'a> {
    /// The snowflake that names this interaction; unique in all of Discord.
    pub id: u64,
    /// What it is.
    pub kind: Kind,
    /// The command with its group and subcommand (`"music play"`), or the `custom_id`.
    pub name: Option<Cow<'a, str>>,
    /// Whether that is one name, whatever spaces it has: of a user or message command.
    pub name_is_whole: bool,
    /// The guild that it comes from, if it comes from one.
    pub guild: Option<u64>,
    /// Whether it comes with the message it was started from: always for components, sometimes for modals.
    pub has_message: bool,
    /// The application that it is for.
    pub application: Option<u64>,
    token: Option<RawToken<'a>>,
}

/// Why signed bytes are not an interaction.
#[derive(Debug, Error)]
pub enum InteractionError {
    /// Not UTF-8, as JSON must be.
    #[error("the body is not UTF-8")]
    NotUtf8,
    /// JSON, perhaps, but not an object.
    #[error("the body is not a JSON object")]
    NotAnObject,
    /// Nested deeper than anything that Discord sends.
    #[error("the body is nested more than {MAX_DEPTH} levels deep")]
    TooDeep,
    /// Not JSON, or a field that decides is missing, twice there, or of another type.
    #[error("the body is not an interaction: {0}")]
    Malformed(String),
    /// The id is not a snowflake.
    #[error("the body is not an interaction: `id` is not a snowflake")]
    Id,
}

impl<'a> Interaction<'a> {
    /// What an answer to it is checked against.
    pub fn question(&self) -> Question {
        Question { kind: self.kind, has_message: self.has_message }
    }

    /// What its late answer takes: the application's id, and the token that stands for a bot's own.
    ///
    /// `None` where one of them is missing or is none; such an interaction cannot be deferred.
    pub fn credentials(&self) -> Option<(u64, Token)> {
        self.application.zip(Token::new(&self.token.as_ref()?.0))
    }

    /// Reads the fields that decide; unknown ones are passed over, as Discord adds some at any time.
    ///
    /// # Errors
    ///
    /// An [`InteractionError`]; it is answered 400.
    pub fn parse(body: &'a [u8]) -> Result<Self, InteractionError> {
        // Checked here, since the JSON parser does not look into strings of fields that it passes over.
        let text = std::str::from_utf8(body).map_err(|_| InteractionError::NotUtf8)?;
        // Likewise: serde takes an array for a struct.
        if !text.trim_ascii_start().starts_with('{') {
            return Err(InteractionError::NotAnObject);
        }
        if is_deeper_than(MAX_DEPTH, body) {
            return Err(InteractionError::TooDeep);
        }
        let envelope: Envelope<'a> =
            serde_json::from_str(text).map_err(|error| InteractionError::Malformed(describe(&error)))?;
        let id = snowflake(&envelope.id).ok_or(InteractionError::Id)?;
        let kind = Kind::from_type(envelope.kind);
        let data = envelope.data.map(|Object(data)| data);
        let name_is_whole = data.as_ref().is_some_and(Data::name_is_whole);
        let name = data.and_then(Data::into_name);
        Ok(Self {
            id,
            kind,
            name,
            name_is_whole,
            guild: envelope.guild_id.and_then(|id| snowflake(&id.0)),
            has_message: envelope.message.is_some(),
            application: envelope.application_id.and_then(|id| snowflake(&id.0)),
            token: envelope.token,
        })
    }
}

/// Digits only: `u64::from_str` would take a leading `+` too.
fn snowflake(text: &str) -> Option<u64> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The parser passes over unknown fields without a bound on depth, so it is counted here. A body with few brackets
/// cannot be deep; only one with many is read in earnest.
fn is_deeper_than(limit: usize, body: &[u8]) -> bool {
    // In pieces that a byte can count, since that way many bytes are looked at in one step.
    let opening = |piece: &[u8]| piece.iter().map(|byte| u8::from(matches!(byte, b'{' | b'['))).sum::<u8>();
    if body.chunks(usize::from(u8::MAX)).map(|piece| usize::from(opening(piece))).sum::<usize>() <= limit {
        return false;
    }
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > limit {
            return true;
        }
    }
    false
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(rename = "type")]
    kind: u64,
    #[serde(borrow)]
    data: Option<Object<Data<'a>>>,
    #[serde(borrow)]
    guild_id: Option<Text<'a>>,
    message: Option<IgnoredAny>,
    #[serde(borrow)]
    application_id: Option<Text<'a>>,
    #[serde(borrow)]
    token: Option<RawToken<'a>>,
}

/// Borrowed, wherever it has no escapes; serde would copy a `Cow` inside an `Option`.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// A token as it came. Every interaction has one, few are deferred: it is copied for those alone.
#[derive(Deserialize)]
struct RawToken<'a>(#[serde(borrow)] Cow<'a, str>);

impl fmt::Debug for RawToken<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RawToken(…)")
    }
}

#[derive(Deserialize)]
struct Data<'a> {
    #[serde(rename = "type")]
    kind: Option<u64>,
    #[serde(borrow)]
    name: Option<Text<'a>>,
    #[serde(borrow)]
    custom_id: Option<Text<'a>>,
    #[serde(borrow, default)]
    options: FirstOption<'a>,
}

impl<'a> Data<'a> {
    fn name_is_whole(&self) -> bool {
        self.kind.is_some_and(|kind| kind == USER || kind == MESSAGE)
    }

    fn into_name(self) -> Option<Cow<'a, str>> {
        let Some(Text(mut name)) = self.name else { return self.custom_id.map(|Text(id)| id) };
        let mut next = self.options.0;
        while let Some(option) = next {
            if option.kind != SUBCOMMAND && option.kind != SUBCOMMAND_GROUP {
                break;
            }
            name = format!("{name} {}", option.name).into();
            next = option.options.0;
        }
        Some(name)
    }
}

/// Source: Discord's documentation, "Application Command Types".
const USER: u64 = 2;
const MESSAGE: u64 = 3;

/// Source: Discord's documentation, "Application Command Option Type".
const SUBCOMMAND: u64 = 1;
const SUBCOMMAND_GROUP: u64 = 2;

/// A subcommand or group is always the first and only option beside it, so the others need not be kept.
#[derive(Default)]
struct FirstOption<'a>(Option<Box<CommandOption<'a>>>);

#[derive(Deserialize)]
struct CommandOption<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(rename = "type")]
    kind: u64,
    #[serde(borrow, default)]
    options: FirstOption<'a>,
}

impl<'de: 'a, 'a> Deserialize<'de> for FirstOption<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct First;
        impl<'de> Visitor<'de> for First {
            type Value = FirstOption<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of options")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut options: A) -> Result<Self::Value, A::Error> {
                let first = options.next_element::<Object<_>>()?;
                while options.next_element::<IgnoredAny>()?.is_some() {}
                Ok(FirstOption(first.map(|Object(option)| option)))
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(FirstOption(None))
            }
        }
        deserializer.deserialize_any(First)
    }
}

#[cfg(test)]
mod tests;
