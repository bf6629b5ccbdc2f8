//! The envelope of an interaction: the few fields that decide what happens to it.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use thiserror::Error;

use super::callback::Question;
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
        let id = envelope.id.parse().map_err(|_| InteractionError::Id)?;
        let kind = Kind::from_type(envelope.kind);
        let name = envelope.data.and_then(Data::into_name);
        let snowflake = |text: Option<Text<'a>>| text.and_then(|text| text.0.parse().ok());
        Ok(Self {
            id,
            kind,
            name,
            guild: snowflake(envelope.guild_id),
            has_message: envelope.message.is_some(),
            application: snowflake(envelope.application_id),
            token: envelope.token,
        })
    }
}

/// The parser passes over unknown fields without a bound on depth, so it is counted here. A body with few brackets
/// cannot be deep; only one with many is read in earnest.
fn is_deeper_than(limit: usize, body: &[u8]) -> bool {
    let opening = body.iter().filter(|byte| matches!(byte, b'{' | b'[')).count();
    if opening <= limit {
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
    data: Option<Data<'a>>,
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
    #[serde(borrow)]
    name: Option<Text<'a>>,
    #[serde(borrow)]
    custom_id: Option<Text<'a>>,
    #[serde(borrow, default)]
    options: FirstOption<'a>,
}

impl<'a> Data<'a> {
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
                let first = options.next_element()?;
                while options.next_element::<IgnoredAny>()?.is_some() {}
                Ok(FirstOption(first))
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(FirstOption(None))
            }
        }
        deserializer.deserialize_any(First)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn parse(body: &str) -> Result<Interaction<'_>, InteractionError> {
        Interaction::parse(body.as_bytes())
    }

    #[rstest]
    #[case::ping(r#"{"id":"1","type":1}"#, Kind::Ping, None)]
    #[case::command(
        r#"{"id":"1","type":2,"data":{"name":"roll","options":[{"name":"n","type":4,"value":6}]}}"#,
        Kind::Command,
        Some("roll")
    )]
    #[case::subcommand(
        r#"{"id":"1","type":2,"data":{"name":"music","options":[{"name":"play","type":1}]}}"#,
        Kind::Command,
        Some("music play")
    )]
    #[case::group(r#"{"id":"1","type":4,"data":{"name":"a","options":[{"name":"b","type":2,"options":[{"name":"c","type":1,"options":[{"name":"q","type":3}]}]}]}}"#, Kind::Autocomplete, Some("a b c"))]
    #[case::null_options(
        r#"{"id":"1","type":2,"data":{"name":"roll","options":null}}"#,
        Kind::Command,
        Some("roll")
    )]
    #[case::button(
        r#"{"id":"1","type":3,"data":{"custom_id":"x:1"},"message":{"id":"2"}}"#,
        Kind::Component,
        Some("x:1")
    )]
    #[case::escapes(r#"{"id":"1","type":3,"data":{"custom_id":"\u00e9\n"}}"#, Kind::Component, Some("é\n"))]
    #[case::not_known_yet(r#"{"id":"1","type":99,"data":null}"#, Kind::Unknown(99), None)]
    #[case::leading_white_space(" \n\t{\"id\":\"1\",\"type\":1}", Kind::Ping, None)]
    fn the_deciding_fields_are_read(#[case] body: &str, #[case] kind: Kind, #[case] name: Option<&str>) {
        let interaction = parse(body).unwrap();
        assert_eq!((interaction.id, interaction.kind, interaction.name.as_deref()), (1, kind, name));
        assert_eq!(interaction.has_message, body.contains("message"));
    }

    #[rstest]
    #[case::empty("")]
    #[case::array(r#"["1",1]"#)]
    #[case::number("7")]
    #[case::no_fields("{}")]
    #[case::byte_order_mark("\u{feff}{\"id\":\"1\",\"type\":1}")]
    #[case::type_twice(r#"{"id":"1","type":1,"type":2}"#)]
    #[case::type_as_text(r#"{"id":"1","type":"1"}"#)]
    #[case::negative_type(r#"{"id":"1","type":-1}"#)]
    #[case::id_as_number(r#"{"id":1,"type":1}"#)]
    #[case::id_not_a_snowflake(r#"{"id":"one","type":1}"#)]
    #[case::trailing_junk(r#"{"id":"1","type":1}x"#)]
    #[case::second_object(r#"{"id":"1","type":1}{}"#)]
    #[case::token_as_number(r#"{"id":"1","type":1,"token":7}"#)]
    #[case::token_twice(r#"{"id":"1","type":1,"token":"a","token":"b"}"#)]
    #[case::application_as_number(r#"{"id":"1","type":1,"application_id":7}"#)]
    #[case::cut_off(r#"{"id":"1","type":1"#)]
    fn anything_else_is_refused(#[case] body: &str) {
        assert!(parse(body).is_err());
    }

    #[test]
    fn a_refusal_repeats_nothing_of_the_body() {
        for body in [
            r#"{"id":"1","type":2,"data":"TOKEN"}"#,
            r#"{"id":"1","type":"TOKEN"}"#,
            r#"{"TOKEN"}"#,
            r#"{"id":"1","type":1,"token":["TOKEN"]}"#,
            r#"{"id":"1","type":1,"token":"TOKEN","token":"TOKEN"}"#,
            r#"{"id":"1","type":1,"token":"TOKEN","application_id":{"TOKEN":"TOKEN"}}"#,
            r#"{"id":"1","type":1,"token":"TOKEN\x"}"#,
            r#"{"id":"1","token":"TOKEN"}"#,
        ] {
            let text = parse(body).unwrap_err().to_string();
            assert!(!text.contains("TOKEN"), "{text}");
        }
        assert!(parse("{}").unwrap_err().to_string().contains("missing field `id`"));
    }

    #[rstest]
    #[case::both(r#","application_id":"7","token":"aW50ZXJhY3Rpb24_-.="}"#, Some((7, "aW50ZXJhY3Rpb24_-.=")))]
    #[case::escapes(r#","application_id":"\u0037","token":"\u0061b"}"#, Some((7, "ab")))]
    #[case::no_application(r#","token":"ab"}"#, None)]
    #[case::no_token(r#","application_id":"7"}"#, None)]
    #[case::null(r#","application_id":null,"token":null}"#, None)]
    #[case::no_snowflake(r#","application_id":"seven","token":"ab"}"#, None)]
    #[case::empty(r#","application_id":"7","token":""}"#, None)]
    #[case::another_path(r#","application_id":"7","token":"../../users"}"#, None)]
    #[case::parent_folder(r#","application_id":"7","token":".."}"#, None)]
    fn what_a_late_answer_takes_is_kept_if_it_will_do(
        #[case] rest: &str,
        #[case] expected: Option<(u64, &str)>,
    ) {
        let body = format!(r#"{{"id":"1","type":1{rest}"#);
        let credentials = parse(&body).unwrap().credentials();
        let found = credentials.as_ref().map(|(application, token)| (*application, token.expose()));
        assert_eq!(found, expected);
    }

    #[test]
    fn nothing_is_copied_and_the_token_shows_nowhere() {
        let body = r#"{"id":"1","type":3,"data":{"custom_id":"x"},"application_id":"7","token":"TOKEN"}"#;
        let interaction = parse(body).unwrap();
        assert!(matches!(interaction.name, Some(Cow::Borrowed("x"))));
        assert!(matches!(interaction.token, Some(RawToken(Cow::Borrowed("TOKEN")))));
        let shown = format!("{interaction:?} {:?}", interaction.credentials());
        assert!(shown.contains("application: Some(7)") && !shown.contains("TOKEN"), "{shown}");
    }

    #[test]
    fn invalid_utf8_is_refused_in_fields_that_are_passed_over_too() {
        assert!(matches!(
            Interaction::parse(b"{\"id\":\"1\",\"type\":1,\"x\":\"\xff\"}"),
            Err(InteractionError::NotUtf8)
        ));
    }

    #[test]
    fn depth_is_bounded_wherever_it_is() {
        let nested =
            |depth: usize| format!(r#"{{"id":"1","type":1,"x":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
        assert!(parse(&nested(MAX_DEPTH - 1)).is_ok());
        assert!(matches!(parse(&nested(MAX_DEPTH)), Err(InteractionError::TooDeep)));
        assert!(matches!(parse(&nested(100_000)), Err(InteractionError::TooDeep)));
        let options = r#"{"name":"a","type":1,"options":["#.repeat(100_000);
        assert!(parse(&format!(r#"{{"id":"1","type":2,"data":{{"name":"a","options":[{options}"#)).is_err());
        let many_but_flat = format!(r#"{{"id":"1","type":1,"x":[{}"\"[[[["]}}"#, "[],".repeat(1000));
        assert!(parse(&many_but_flat).is_ok());
    }
}
