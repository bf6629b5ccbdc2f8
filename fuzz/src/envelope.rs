//! An interaction's envelope, beside a plain reading of the same JSON.

use serde_json::Value;
use shardless::discord::Token;
use shardless::discord::interaction::{Interaction, Kind};

use super::{assert_is_a_sentence, json};

/// What decides of an interaction.
#[derive(Debug, PartialEq)]
struct Deciding {
    id: u64,
    kind: Kind,
    name: Option<String>,
    name_is_whole: bool,
    guild: Option<u64>,
    has_message: bool,
    credentials: Option<(u64, String)>,
}

/// Both readings agree: on whether it is an interaction, and on all that decides.
pub fn check(bytes: &[u8]) {
    let parsed = Interaction::parse(bytes);
    if let Err(error) = &parsed {
        assert_is_a_sentence(&error.to_string());
    }
    let parsed = parsed.ok().map(deciding);
    match json::read(bytes) {
        json::Reading::NoJson => assert_eq!(parsed, None),
        json::Reading::Strange => {}
        json::Reading::Value(value) => {
            let expected = read(&value);
            assert!(
                parsed == expected || parsed.is_none() && json::has_a_key_twice(bytes),
                "{parsed:?} {expected:?}"
            );
        }
    }
}

fn deciding(interaction: Interaction<'_>) -> Deciding {
    let credentials =
        interaction.credentials().map(|(application, token)| (application, token.expose().to_owned()));
    Deciding {
        id: interaction.id,
        kind: interaction.kind,
        name_is_whole: interaction.name_is_whole,
        guild: interaction.guild,
        has_message: interaction.has_message,
        credentials,
        name: interaction.name.map(Into::into),
    }
}

fn read(value: &Value) -> Option<Deciding> {
    value.as_object()?;
    let id = snowflake(value.get("id")?.as_str()?)?;
    let kind = Kind::from_type(value.get("type")?.as_u64()?);
    let (name, name_is_whole) = match value.get("data") {
        None | Some(Value::Null) => (None, false),
        Some(data) => (name(data)?, matches!(number(data, "type")?, Some(2 | 3))),
    };
    let guild = json::text(value, "guild_id")?.and_then(snowflake);
    let application = json::text(value, "application_id")?.and_then(snowflake);
    let token = json::text(value, "token")?.and_then(Token::new).map(|token| token.expose().to_owned());
    let has_message = value.get("message").is_some_and(|message| !message.is_null());
    Some(Deciding { id, kind, name, name_is_whole, guild, has_message, credentials: application.zip(token) })
}

fn snowflake(text: &str) -> Option<u64> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

fn number(object: &Value, key: &str) -> Option<Option<u64>> {
    match object.get(key) {
        None | Some(Value::Null) => Some(None),
        Some(number) => Some(Some(number.as_u64()?)),
    }
}

fn name(data: &Value) -> Option<Option<String>> {
    data.as_object()?;
    let (name, custom_id) = (json::text(data, "name")?, json::text(data, "custom_id")?);
    let options = options(data)?;
    let Some(name) = name else { return Some(custom_id.map(str::to_owned)) };
    let below = options.into_iter().take_while(|(kind, _)| matches!(kind, 1 | 2)).map(|(_, name)| name);
    Some(Some(std::iter::once(name).chain(below).collect::<Vec<_>>().join(" ")))
}

/// The first option, the first one below it, and so on, with their types.
fn options(of: &Value) -> Option<Vec<(u64, &str)>> {
    let first = match of.get("options") {
        None | Some(Value::Null) => None,
        Some(options) => options.as_array()?.first(),
    };
    let Some(option) = first else { return Some(Vec::new()) };
    option.as_object()?;
    let own = (option.get("type")?.as_u64()?, option.get("name")?.as_str()?);
    Some([vec![own], options(option)?].concat())
}
