//! `[[apps.NAME.routes]]`: reading them, and finding those that cannot be meant.

mod reach;

use std::ops::Range;

use serde_json::Value;
use toml::Spanned;
use toml::de::DeValue;

use super::reader::{FromToml, Notes, Table};
use super::value::{AnswerWithin, HandlerRef, OnSlow};
use super::{Conditions, Handler, Route, Selector, Target};
use crate::discord::callback::{self, CallbackType, Checked, Question};
use crate::discord::interaction::Kind;
pub(super) use reach::require_reachable;

/// Reads one. `find` knows the handlers.
pub(super) fn read(
    notes: &Notes,
    mut table: Table<'_, '_>,
    find: impl FnOnce(Spanned<HandlerRef>) -> Option<Handler>,
) -> Option<(Range<usize>, Route)> {
    let span = table.span.clone();
    let conditions = read_conditions(notes, &mut table);
    let (names_handler, names_reply) = (table.has("handler"), table.has("reply"));
    let handler = table.optional::<HandlerRef>("handler").and_then(find);
    let reply = table.optional::<Json>("reply");
    let answer_within = table.optional::<AnswerWithin>("answer_within");
    let on_slow = table.optional::<OnSlow>("on_slow");
    let ephemeral = table.optional::<bool>("ephemeral");
    table.finish(|_| None);

    if names_handler == names_reply {
        let (what, advice) = if names_handler {
            ("this route has a handler and a reply", "keep one of them")
        } else {
            ("this route leads nowhere", "add handler = \"…\", or reply = { … }")
        };
        notes.missing(span.clone(), what, advice);
    } else if names_reply {
        note_idle(notes, "answer_within", answer_within.as_ref());
        note_idle(notes, "on_slow", on_slow.as_ref());
        note_idle(notes, "ephemeral", ephemeral.as_ref());
    }
    let conditions = conditions?;
    let target = match (handler, reply) {
        (Some(handler), _) => Target::Handler(Box::new(handler)),
        (None, Some(reply)) => {
            let (span, reply) = (reply.span(), reply.into_inner().0);
            check_reply(notes, span, &reply, &kinds_of(&conditions))?;
            Target::Reply(reply.to_string().into())
        }
        (None, None) => return None,
    };
    let route = Route {
        conditions,
        target,
        answer_within: answer_within.map(|within| within.into_inner().0),
        on_slow: on_slow.map(Spanned::into_inner),
        ephemeral: ephemeral.map(Spanned::into_inner),
    };
    Some((span, route))
}

fn read_conditions(notes: &Notes, table: &mut Table<'_, '_>) -> Option<Conditions> {
    let span = table.span.clone();
    let command = table.optional::<CommandPath>("command");
    let custom_id = table.optional::<Selector>("custom_id");
    let kind = table.optional::<Kind>("kind");
    let guild = table.optional::<Snowflake>("guild");
    if !["command", "custom_id", "kind", "guild"].iter().any(|key| table.was_there(key)) {
        let advice =
            "add command, custom_id, kind or guild; what goes everywhere else is the application's `handler`";
        notes.missing(span.clone(), "this route has no condition", advice);
    }
    let selector = match (command, custom_id) {
        (Some(_), Some(custom_id)) => {
            let what = "nothing has both a command and a custom_id";
            notes.wrong(custom_id.span(), what, "make two routes of it");
            return None;
        }
        (Some(command), None) => Selector::Command(command.into_inner().0),
        (None, Some(custom_id)) => custom_id.into_inner(),
        (None, None) => Selector::Any,
    };
    let (kind_span, kind) = kind.map_or((span, None), |kind| (kind.span(), Some(kind.into_inner())));
    let conditions = Conditions { selector, kind, guild: guild.map(|guild| guild.into_inner().0) };
    if kinds_of(&conditions).is_empty() {
        let advice =
            "a command comes as \"command\" or \"autocomplete\", a custom_id as \"component\" or \"modal\"";
        notes.wrong(kind_span, "no interaction takes this route", advice);
        return None;
    }
    Some(conditions)
}

/// Notes a key that says how slow handlers are dealt with, where there is none.
fn note_idle<T>(notes: &Notes, key: &str, value: Option<&Spanned<T>>) {
    if let Some(value) = value {
        let what = format!("`{key}` has no effect beside `reply`");
        notes.wrong(
            value.span(),
            what,
            "take it out: a reply is there at once, and says by its flags who sees it",
        );
    }
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
fn check_reply(notes: &Notes, span: Range<usize>, reply: &Value, kinds: &[Kind]) -> Option<()> {
    let is_of_others = |kind: &&Kind| **kind != Kind::Autocomplete || kinds.len() == 1;
    let text = reply.to_string();
    for kind in kinds.iter().filter(is_of_others) {
        let wrong = match callback::check(text.as_bytes(), Question { kind: *kind, has_message: true }) {
            Ok(checked) => wrong_with_ready(&checked, reply),
            Err(error) => Some((NOT_TAKEN, error.to_string())),
        };
        if let Some((what, advice)) = wrong {
            notes.wrong(span, what, advice);
            return None;
        }
    }
    Some(())
}

/// What is wrong with a callback as a ready reply, that nobody adds anything to; and what to do about it.
fn wrong_with_ready(checked: &Checked, reply: &Value) -> Option<(&'static str, String)> {
    let is_said = |what: &str| match reply.get("data").and_then(|data| data.get(what)) {
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(elements)) => !elements.is_empty(),
        Some(value) => value.is_object(),
        None => false,
    };
    let advice = match checked.callback {
        CallbackType::Pong => "a PONG answers a PING".to_owned(),
        // A 6 promises nothing that its user sees: it is how to do nothing at all.
        CallbackType::DeferredChannelMessageWithSource => {
            let advice = "use type 4, or 7 for the message of a component; or a handler instead of `reply`";
            return Some(("this reply promises another one, and nobody gives it", advice.to_owned()));
        }
        CallbackType::ChannelMessageWithSource if !CONTENT.into_iter().any(is_said) => {
            format!("a message is not empty: its `data` needs one of {}", CONTENT.join(", "))
        }
        _ => checked.broken_limits.first()?.clone(),
    };
    Some((NOT_TAKEN, advice))
}

const NOT_TAKEN: &str = "Discord would not take this reply";

/// One of these makes a message.
///
/// Source: Discord's documentation, "Create Message".
const CONTENT: [&str; 6] = ["content", "embeds", "components", "poll", "attachments", "sticker_ids"];

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
