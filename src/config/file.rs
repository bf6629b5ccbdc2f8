//! Every key that exists, with its default: the schema.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeTable;

use super::error::Mistake;
use super::reader::{Notes, Table};
use super::value::{Address, Count, EndpointPath, LogFormat, Size};
use super::{App, Config, Limits, Listen, Log, Replay};
use crate::discord::RESPONSE_DEADLINE;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Keys of an application that people put at the top.
const APP_KEYS: [&str; 6] = ["public_key", "handler", "path", "in_flight", "answer_within", "error_message"];

/// Reads the whole text.
///
/// # Errors
///
/// All mistakes in it.
pub(super) fn parse(text: &str) -> Result<Config, Vec<Mistake>> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let notes = Notes::default();
    let config = read(&notes, document.into_inner(), text.len());
    match config {
        Some(config) if errors.is_empty() && notes.is_clean() => Ok(config),
        _ => Err(with_syntax_errors(text, errors, notes.into_mistakes())),
    }
}

/// Where the syntax is broken, what is said of the same line or of missing keys may be a mere consequence.
fn with_syntax_errors(text: &str, errors: Vec<toml::de::Error>, mistakes: Vec<Mistake>) -> Vec<Mistake> {
    if errors.is_empty() {
        return mistakes;
    }
    let line = |span: &Range<usize>| text.bytes().take(span.start).filter(|byte| *byte == b'\n').count();
    let mut all: Vec<Mistake> = Vec::new();
    for error in errors {
        let span = error.span().unwrap_or_default();
        if all.iter().all(|earlier| line(&earlier.span) != line(&span)) {
            let what = "this is not TOML".to_owned();
            all.push(Mistake { span, what, advice: error.message().to_owned(), is_missing: false });
        }
    }
    let broken: Vec<_> = all.iter().map(|mistake| line(&mistake.span)).collect();
    let sure = |mistake: &Mistake| !mistake.is_missing && !broken.contains(&line(&mistake.span));
    all.extend(mistakes.into_iter().filter(sure));
    all
}

/// `None` only where a mistake was noted.
fn read(notes: &Notes, document: DeTable<'_>, end: usize) -> Option<Config> {
    let mut top = Table::new(notes, String::new(), end..end, document);
    let listen = Listen { address: top.or("address", Address::Localhost), port: top.or("port", 3000) };
    let limits = read_limits(top.table("limits"));
    let replay = read_replay(top.table("replay"));
    let log = read_log(top.table("log"));
    let apps = read_apps(notes, top.table("apps"), &listen);
    top.finish(|key| {
        let belongs_to_an_app = APP_KEYS.contains(&key);
        belongs_to_an_app
            .then(|| format!("put it under [apps.NAME], as in [apps.mybot] with {key} = … below"))
    });
    Some(Config { listen, limits, replay, log, apps: apps? })
}

fn read_limits(mut table: Table<'_, '_>) -> Limits {
    let headers = table.or_fitting("headers", Size(16 * KIB), "expected from \"8KiB\" to \"1MiB\"", |size| {
        (8 * KIB..=MIB).contains(&size.0)
    });
    let body = table.or_fitting("body", Size(MIB), "expected from \"1KiB\" to \"100MiB\"", |size| {
        (KIB..=100 * MIB).contains(&size.0)
    });
    let needed = format!("expected at least limits.body, {}", bytesize::ByteSize(body.0 as u64));
    let limits = Limits {
        headers: headers.0,
        body: body.0,
        buffered: table.or_fitting("buffered", Size(64 * MIB), &needed, |size| size.0 >= body.0).0,
        connections: table.or("connections", Count(4096)).0,
        in_flight: table.or("in_flight", Count(2048)).0,
        deferred: table.or("deferred", Count(10_000)).0,
        read_timeout: table.or("read_timeout", Duration::from_secs(2)),
        write_timeout: table.or("write_timeout", Duration::from_secs(5)),
        idle_timeout: table.or("idle_timeout", Duration::from_secs(75)),
        drain_timeout: table.or("drain_timeout", Duration::from_secs(10)),
    };
    table.finish(|_| None);
    limits
}

fn read_replay(mut table: Table<'_, '_>) -> Replay {
    let window = "expected from \"1s\" to \"1h\"";
    let replay = Replay {
        enabled: table.or("enabled", true),
        window: table.or_fitting("window", Duration::from_secs(5 * 60), window, |window| {
            (Duration::from_secs(1)..=Duration::from_secs(60 * 60)).contains(window)
        }),
    };
    table.finish(|_| None);
    replay
}

fn read_log(mut table: Table<'_, '_>) -> Log {
    let log =
        Log { format: table.or("format", LogFormat::Text), level: table.or("level", tracing::Level::INFO) };
    table.finish(|_| None);
    log
}

fn read_apps(notes: &Notes, table: Table<'_, '_>, listen: &Listen) -> Option<Vec<App>> {
    let span = table.span.clone();
    let is_empty = table.is_empty();
    let tables = table.into_tables();
    if is_empty {
        let advice =
            "add [apps.mybot] with public_key = \"…\" and handler = \"http://127.0.0.1:8080/interactions\"";
        notes.missing(span, "there is no application", advice);
        return None;
    }
    let mut paths = HashMap::new();
    let read = |(name, table)| read_app(notes, name, table, listen, &mut paths);
    // All are read before the first failure counts, so that every mistake is noted.
    let apps: Vec<_> = tables.into_iter().map(read).collect();
    apps.into_iter().collect()
}

fn read_app(
    notes: &Notes,
    name: Spanned<String>,
    mut table: Table<'_, '_>,
    listen: &Listen,
    paths: &mut HashMap<EndpointPath, String>,
) -> Option<App> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if !(1..=64).contains(&name.get_ref().len()) || !name.get_ref().bytes().all(is_plain) {
        let what = format!("an application cannot be named {:?}", name.get_ref());
        notes.wrong(name.span(), what, "expected 1 to 64 letters, digits, - or _");
    }
    let public_key = table.required("public_key", "copy it from the Developer Portal (General Information)");
    let path_is_given = table.has("path");
    let path = table.optional::<EndpointPath>("path");
    let handler = table.required::<super::HandlerUrl>(
        "handler",
        "where your bot listens: handler = \"http://127.0.0.1:8080/…\"",
    );
    let below_deadline =
        "expected from \"100ms\" to \"2900ms\": Discord gives up after 3 s, the way there and back included";
    let in_flight = table.or("in_flight", Count(1024)).0;
    let answer_within =
        table.or_fitting("answer_within", Duration::from_millis(2200), below_deadline, |time| {
            (Duration::from_millis(100)..=RESPONSE_DEADLINE - Duration::from_millis(100)).contains(time)
        });
    let error_message = table.optional::<String>("error_message");
    table.finish(|_| None);

    if let Some(text) =
        error_message.as_ref().filter(|text| !(1..=2000).contains(&text.get_ref().chars().count()))
    {
        let what = format!("`apps.{}.error_message` cannot have this value", name.get_ref());
        notes.wrong(text.span(), what, "expected 1 to 2000 characters, as Discord takes them");
    }
    if let Some(url) = handler.as_ref().filter(|url| url.get_ref().is_at(listen)) {
        let advice = "your bot needs a port of its own, such as 8080";
        notes.wrong(url.span(), format!("`apps.{}.handler` is shardless itself", name.get_ref()), advice);
    }
    let (span, path) = match path {
        Some(path) => (path.span(), path.into_inner()),
        None if path_is_given => return None,
        None => (name.span(), EndpointPath::default()),
    };
    if let Some(other) = paths.insert(path.clone(), name.get_ref().clone()) {
        let what =
            format!("`apps.{}` and `apps.{other}` have the same path {}", name.get_ref(), path.as_str());
        notes.wrong(span, what, format!("give this one its own: path = \"/{}\"", name.get_ref()));
    }
    Some(App {
        name: name.into_inner().into(),
        public_key: public_key?.into_inner(),
        path,
        handler: handler?.into_inner(),
        in_flight,
        answer_within,
        error_message: error_message.map(Spanned::into_inner),
    })
}

#[cfg(test)]
pub(super) fn keys_of(text: &str) -> std::collections::BTreeSet<String> {
    let notes = Notes::default();
    let (document, _) = DeTable::parse_recoverable(text);
    read(&notes, document.into_inner(), text.len());
    notes.keys.into_inner()
}
