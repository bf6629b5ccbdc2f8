//! `[[apps.NAME.routes]]`: reading them, and finding those that cannot be meant.

use std::ops::Range;

use serde_json::Value;
use toml::Spanned;
use toml::de::DeValue;

use super::reader::{FromToml, Notes, Table};
use super::value::{AnswerWithin, HandlerRef, OnSlow};
use super::{Conditions, Handler, Route, Selector, Target};
use crate::discord::callback::{self, CallbackType, Question};
use crate::discord::interaction::Kind;

/// Reads one. `find` knows the handlers.
pub(super) fn read(
    notes: &Notes,
    mut table: Table<'_, '_>,
    find: impl FnOnce(Spanned<HandlerRef>) -> Option<Handler>,
) -> Option<(Range<usize>, Route)> {
    let span = table.span.clone();
    let command = table.optional::<CommandPath>("command");
    let custom_id = table.optional::<Selector>("custom_id");
    let kind = table.optional::<Kind>("kind");
    let guild = table.optional::<Snowflake>("guild");
    let names_condition = ["command", "custom_id", "kind", "guild"].iter().any(|key| table.was_there(key));
    let (names_handler, names_reply) = (table.has("handler"), table.has("reply"));
    let handler = table.optional::<HandlerRef>("handler").and_then(find);
    let reply = table.optional::<Json>("reply");
    let answer_within = table.optional::<AnswerWithin>("answer_within").map(|within| within.into_inner().0);
    let on_slow = table.optional::<OnSlow>("on_slow").map(Spanned::into_inner);
    let ephemeral = table.optional::<bool>("ephemeral").map(Spanned::into_inner);
    table.finish(|_| None);

    if !names_condition {
        let advice =
            "add command, custom_id, kind or guild; what goes everywhere else is the application's `handler`";
        notes.missing(span.clone(), "this route has no condition", advice);
    }
    if names_handler == names_reply {
        let (what, advice) = if names_handler {
            ("this route has a handler and a reply", "keep one of them")
        } else {
            ("this route leads nowhere", "add handler = \"…\", or reply = { … }")
        };
        notes.missing(span.clone(), what, advice);
    }
    if let (Some(command), Some(custom_id)) = (&command, &custom_id) {
        _ = command;
        notes.wrong(custom_id.span(), "nothing has both a command and a custom_id", "make two routes of it");
        return None;
    }
    let selector = match (command, custom_id) {
        (Some(command), _) => Selector::Command(command.into_inner().0),
        (None, Some(custom_id)) => custom_id.into_inner(),
        (None, None) => Selector::Any,
    };
    let (kind_span, kind) = kind.map_or((span.clone(), None), |kind| (kind.span(), Some(kind.into_inner())));
    let conditions = Conditions { selector, kind, guild: guild.map(|guild| guild.into_inner().0) };
    let kinds = kinds_of(&conditions);
    if kinds.is_empty() {
        let advice =
            "a command comes as \"command\" or \"autocomplete\", a custom_id as \"component\" or \"modal\"";
        notes.wrong(kind_span, "no interaction takes this route", advice);
        return None;
    }
    let target = match (handler, reply) {
        (Some(handler), _) => Target::Handler(Box::new(handler)),
        (None, Some(reply)) => {
            let (span, reply) = (reply.span(), reply.into_inner().0.to_string());
            check_reply(notes, span, &reply, &kinds)?;
            Target::Reply(reply.into())
        }
        (None, None) => return None,
    };
    Some((span, Route { conditions, target, answer_within, on_slow, ephemeral }))
}

/// Notes routes that an earlier one leaves nothing for.
pub(super) fn require_reachable(notes: &Notes, routes: &[(Range<usize>, Route)]) {
    for (index, (span, route)) in routes.iter().enumerate() {
        let earlier =
            routes.iter().take(index).find(|(_, earlier)| covers(&earlier.conditions, &route.conditions));
        if let Some((_, earlier)) = earlier {
            let advice = format!("put it before the one for {}, or take it out", earlier.conditions);
            notes.wrong(
                span.clone(),
                "no interaction comes to this route: an earlier one takes them all",
                advice,
            );
        }
    }
}

/// Whether every interaction that `other` holds for is one that `conditions` hold for.
fn covers(conditions: &Conditions, other: &Conditions) -> bool {
    let is_about_all = match (&conditions.selector, &other.selector) {
        (Selector::Any, _) => true,
        (Selector::Command(path), Selector::Command(other)) => {
            other.strip_prefix(path.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
        }
        (Selector::CustomId(id), Selector::CustomId(other)) => id == other,
        (Selector::CustomIdPrefix(text), Selector::CustomId(other) | Selector::CustomIdPrefix(other)) => {
            other.starts_with(text.as_str())
        }
        _ => false,
    };
    let kinds = kinds_of(conditions);
    is_about_all
        && kinds_of(other).iter().all(|kind| kinds.contains(kind))
        && conditions.guild.is_none_or(|guild| other.guild == Some(guild))
}

/// The kinds of interactions that such conditions can hold for.
fn kinds_of(conditions: &Conditions) -> Vec<Kind> {
    let kinds: &[Kind] = match conditions.selector {
        Selector::Any => &[Kind::Command, Kind::Autocomplete, Kind::Component, Kind::Modal],
        Selector::Command(_) => &[Kind::Command, Kind::Autocomplete],
        Selector::CustomId(_) | Selector::CustomIdPrefix(_) => &[Kind::Component, Kind::Modal],
    };
    kinds.iter().copied().filter(|kind| conditions.kind.is_none_or(|only| only == *kind)).collect()
}

/// Notes what Discord would not take of a reply. Suggestions for what is being typed are none beside another reply.
fn check_reply(notes: &Notes, span: Range<usize>, reply: &str, kinds: &[Kind]) -> Option<()> {
    let is_of_others = |kind: &&Kind| **kind != Kind::Autocomplete || kinds.len() == 1;
    for kind in kinds.iter().filter(is_of_others) {
        let wrong = match callback::check(reply.as_bytes(), Question { kind: *kind, has_message: true }) {
            Ok(checked) if checked.callback == CallbackType::Pong => Some("a PONG answers a PING".to_owned()),
            Ok(checked) => checked.broken_limits.into_iter().next(),
            Err(error) => Some(error.to_string()),
        };
        if let Some(wrong) = wrong {
            notes.wrong(span, "Discord would not take this reply", wrong);
            return None;
        }
    }
    Some(())
}

/// A command with its group and subcommand, by their names.
struct CommandPath(String);

impl FromToml for CommandPath {
    const EXPECTED: &'static str =
        "expected a command, or a command with its subcommand: \"music play\", without a slash";

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        let text = value.as_str().ok_or_else(String::new)?;
        let is_path = !text.starts_with('/') && text.split(' ').all(|word| !word.is_empty());
        if is_path { Ok(Self(text.to_owned())) } else { Err(String::new()) }
    }
}

impl FromToml for Selector {
    const EXPECTED: &'static str = "expected a custom_id, or how it begins with * at the end: \"ticket:*\"";

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        let text = value.as_str().filter(|text| (1..=100).contains(&text.chars().count()));
        let text = text.ok_or_else(String::new)?;
        match text.strip_suffix('*') {
            Some(prefix) if !prefix.contains('*') => Ok(Self::CustomIdPrefix(prefix.to_owned())),
            None if !text.contains('*') => Ok(Self::CustomId(text.to_owned())),
            _ => Err("* can stand at the end only".to_owned()),
        }
    }
}

impl FromToml for Kind {
    const EXPECTED: &'static str = "expected \"command\", \"autocomplete\", \"component\" or \"modal\"";

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        let kinds = [Self::Command, Self::Autocomplete, Self::Component, Self::Modal];
        let word = value.as_str().ok_or_else(String::new)?;
        kinds.into_iter().find(|kind| kind.as_str() == word).ok_or_else(String::new)
    }
}

/// The id of a guild.
struct Snowflake(u64);

impl FromToml for Snowflake {
    const EXPECTED: &'static str = "expected an id as Discord shows it, in quotes: \"290926798626357999\"";

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        let digits = value.as_str().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        digits.and_then(|text| text.parse().ok()).map(Self).ok_or_else(String::new)
    }
}

/// A value as JSON has it.
struct Json(Value);

impl FromToml for Json {
    const EXPECTED: &'static str =
        "expected a callback: { type = 4, data = { content = \"Closed.\", flags = 64 } }";

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        if value.is_table() { json(value).map(Self) } else { Err(String::new()) }
    }
}

fn json(value: &DeValue<'_>) -> Result<Value, String> {
    Ok(match value {
        DeValue::String(text) => Value::from(&**text),
        DeValue::Boolean(is_so) => Value::from(*is_so),
        DeValue::Integer(number) => {
            let parsed = i64::from_str_radix(number.as_str(), number.radix());
            Value::from(parsed.map_err(|_| format!("{} is too large a number", number.as_str()))?)
        }
        DeValue::Float(number) => {
            let parsed = number.as_str().parse::<f64>().ok().and_then(serde_json::Number::from_f64);
            Value::Number(parsed.ok_or_else(|| format!("JSON has no such number as {}", number.as_str()))?)
        }
        DeValue::Datetime(_) => return Err("JSON has no dates: write it as a text".to_owned()),
        DeValue::Array(elements) => {
            Value::Array(elements.iter().map(|element| json(element.get_ref())).collect::<Result<_, _>>()?)
        }
        DeValue::Table(table) => {
            let entry = |(key, value): (&Spanned<std::borrow::Cow<'_, str>>, &Spanned<DeValue<'_>>)| {
                Ok::<_, String>((key.get_ref().to_string(), json(value.get_ref())?))
            };
            Value::Object(table.iter().map(entry).collect::<Result<_, _>>()?)
        }
    })
}
