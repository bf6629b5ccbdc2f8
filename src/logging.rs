//! The daemon's log: how it is set up, and the lines that requests leave in it.

mod flood;
mod journal;

use std::io::{IsTerminal, Write};
use std::net::IpAddr;

use thiserror::Error;
use tracing::level_filters::LevelFilter;
use tracing::{Level, debug, error, info, warn};
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::Registry;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::reload;

use crate::activity::{End, Outcome, Record};
use crate::config::{Log, LogFormat};
use crate::systemd;
pub use flood::Flood;
use journal::{Journal, JournalSocket};

/// Characters of a message with others' words in it.
const MESSAGE_CHARACTERS: usize = 1000;

/// Lines that may wait for a slow reader of the log; further ones are dropped, so that no request ever waits for it.
const WAITING_LINES: usize = 8192;

/// A log that runs. Dropping it writes what still waits.
pub struct Logging {
    level: LogLevel,
    _writing: WorkerGuard,
}

/// The level of a log, which can be changed.
#[derive(Clone)]
pub struct LogLevel(reload::Handle<Targets, Registry>);

impl Logging {
    /// Its level.
    pub fn level(&self) -> LogLevel {
        self.level.clone()
    }
}

impl LogLevel {
    /// Writes lines from this level on.
    pub fn set(&self, level: Level) {
        // It fails only where the log is gone.
        _ = self.0.reload(ours(level));
    }
}

#[derive(Debug, Error)]
#[error("`log.format` is \"journald\", but systemd's journal cannot be reached: {0}")]
struct NoJournal(std::io::Error);

/// Starts the log, on standard error or in the journal; panics go there too.
///
/// # Errors
///
/// If this process already has a log, or cannot have a socket for the journal.
pub fn start(log: Log) -> Result<Logging, Box<dyn std::error::Error + Send + Sync>> {
    let stderr = std::io::stderr();
    let colours = stderr.is_terminal();
    let (format, journal) = match log.format {
        Some(LogFormat::Journald) => (LogFormat::Journald, Some(JournalSocket::open().map_err(NoJournal)?)),
        Some(format) => (format, None),
        None => match JournalSocket::open() {
            Ok(journal) if systemd::stderr_is_the_journal() => (LogFormat::Journald, Some(journal)),
            _ => (LogFormat::Text, None),
        },
    };
    let (writer, _writing) = match journal {
        Some(journal) => non_blocking(journal),
        None => non_blocking(stderr),
    };
    let (subscriber, level) = subscriber(format, log.level, colours, writer);
    tracing::subscriber::set_global_default(subscriber)?;
    std::panic::set_hook(Box::new(|panic| {
        let at = panic.location().map(tracing::field::display);
        error!(at, "a bug in shardless, please report it: {:?}", panic.payload_as_str().unwrap_or_default());
    }));
    Ok(Logging { level, _writing })
}

fn non_blocking(writer: impl Write + Send + 'static) -> (NonBlocking, WorkerGuard) {
    NonBlockingBuilder::default().buffered_lines_limit(WAITING_LINES).lossy(true).finish(writer)
}

fn subscriber<W>(
    format: LogFormat,
    level: Level,
    colours: bool,
    writer: W,
) -> (impl tracing::Subscriber, LogLevel)
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().with_ansi(colours).with_target(false);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match format {
        LogFormat::Text => lines.with_writer(writer).boxed(),
        LogFormat::Json => {
            lines.with_writer(writer).json().flatten_event(true).with_current_span(false).boxed()
        }
        LogFormat::Journald => Journal(writer).boxed(),
    };
    let (filter, level) = reload::Layer::new(ours(level));
    (tracing_subscriber::registry().with(lines.with_filter(filter)), LogLevel(level))
}

/// Only our own lines are let through: what a library says at `trace` could hold a token.
fn ours(level: Level) -> Targets {
    Targets::new().with_target(env!("CARGO_CRATE_NAME"), LevelFilter::from_level(level))
}

/// A line of what comes after an interaction's own.
macro_rules! late {
    ($level:ident, $record:expr, $elapsed:expr, $($message:tt)+) => {
        $level!(
            app = &*$record.app,
            id = $record.id,
            kind = $record.kind.as_str(),
            name = $record.name.as_deref().map(tracing::field::debug),
            handler = $record.replica.as_deref(),
            ms = milliseconds($elapsed),
            trace = format_args!("{:032x}", $record.trace),
            $($message)+
        )
    };
}

/// The one line of an interaction.
pub fn interaction(record: &Record, end: &End) {
    macro_rules! line {
        ($level:ident, $($message:tt)+) => {
            $level!(
                app = &*record.app,
                id = record.id,
                kind = record.kind.as_str(),
                // Debug, since Discord's users choose these names: it escapes line ends and control characters.
                name = record.name.as_deref().map(tracing::field::debug),
                route = record.route.as_deref(),
                handler = record.replica.as_deref(),
                outcome = end.outcome.as_str(),
                status = end.status,
                ms = milliseconds(end.elapsed),
                handler_ms = record.handler_time.map(milliseconds),
                client = %record.client,
                trace = format_args!("{:032x}", record.trace),
                $($message)+
            )
        };
    }
    let explanation = end.explanation.as_deref();
    match (end.outcome, explanation) {
        (Outcome::Pong, _) => line!(info, "PING answered"),
        (Outcome::Answered, None) => line!(info, "interaction answered"),
        (Outcome::Answered, Some(warning)) => line!(warn, "interaction answered, but {warning}"),
        (Outcome::Replied, _) => line!(info, "interaction answered by its route's reply"),
        (Outcome::HandlerAnswersItself, _) => line!(info, "handler answers by itself"),
        (Outcome::Duplicate, _) => line!(info, "duplicate got the first one's answer"),
        (Outcome::Failed, why) => line!(warn, "handler failed: {}", why.unwrap_or_default()),
        (Outcome::Late, why) => line!(warn, "handler is late: {}", why.unwrap_or_default()),
        (Outcome::Deferred, None) => line!(info, "interaction deferred, its handler needs longer"),
        (Outcome::Deferred, Some(doubt)) => line!(info, "interaction deferred, but {doubt}"),
    }
}

/// The line of a handler that ended after Discord had been answered without it.
pub fn ended_in_vain(record: &Record, elapsed: std::time::Duration, what: &str) {
    late!(warn, record, elapsed, "handler ended too late for Discord: {what}");
}

/// The line of a handler that ended after a deferral; what follows has a line of its own.
pub fn late(record: &Record, elapsed: std::time::Duration, what: &str) {
    late!(debug, record, elapsed, "{what}");
}

/// The line of a deferral that no client was there to take.
pub fn unsent(record: &Record) {
    let (app, id) = (&*record.app, record.id);
    info!(app, id, "the deferral reached nobody, its client had hung up: nothing follows it");
}

/// The line of a late answer that is not what its author will have meant.
pub fn late_warning(record: &Record, elapsed: std::time::Duration, note: &str) {
    late!(warn, record, elapsed, "handler answered late, but {note}");
}

/// The line of a handler that has no answer after a deferral.
pub fn late_failure(record: &Record, elapsed: std::time::Duration, why: &str) {
    late!(
        warn,
        record,
        elapsed,
        "handler failed after its deferral, so the user gets the fallback text: {why}"
    );
}

/// The line of a deferred interaction's end.
pub fn delivered(line: &Delivered<'_>) {
    let Delivered { app, id, route, result, age, is_trouble, text } = *line;
    let ms = milliseconds(age);
    if is_trouble {
        warn!(app, id, route, outcome = result, ms, "{text}");
    } else {
        info!(app, id, route, outcome = result, ms, "{text}");
    }
}

/// What is said of a deferred interaction's end.
#[derive(Clone, Copy, Debug)]
pub struct Delivered<'a> {
    /// The application's name in the config.
    pub app: &'a str,
    /// The interaction's snowflake.
    pub id: u64,
    /// The route that it took, if it took one.
    pub route: Option<&'a str>,
    /// A word for what became of it.
    pub result: &'static str,
    /// Since the interaction's arrival.
    pub age: std::time::Duration,
    /// Whether somebody should look into it.
    pub is_trouble: bool,
    /// What became of it, in a sentence.
    pub text: &'a str,
}

/// The line of a request that was refused; a flood of them is summed up. `path` may be anything a stranger sent.
pub fn refusal(flood: &Flood, now: tokio::time::Instant, line: Refused<'_>) {
    if !flood.lets_through(line.reason, now) {
        return;
    }
    let Refused { reason, status, client, path, text } = line;
    let path: String = path.chars().take(100).collect();
    // A stranger's mistake is no one's trouble; what we could not serve is.
    if status < 500 {
        info!(reason, status, %client, ?path, "refused: {text}");
    } else {
        warn!(reason, status, %client, ?path, "refused: {text}");
    }
}

/// The line of a connection that ended by its peer's fault; a flood of them is summed up.
pub fn connection(flood: &Flood, now: tokio::time::Instant, line: &Ended<'_>) {
    let Ended { level, reason, peer, text } = *line;
    match level {
        Level::WARN if flood.lets_through(reason, now) => warn!(reason, %peer, "{text}"),
        Level::INFO if flood.lets_through(reason, now) => info!(reason, %peer, "{text}"),
        Level::WARN | Level::INFO => {}
        _ => debug!(reason, %peer, "{text}"),
    }
}

/// What is said of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Ended<'a> {
    /// How much it matters: a warning for what the operator should mend.
    pub level: Level,
    /// A word for why.
    pub reason: &'static str,
    /// The other end.
    pub peer: IpAddr,
    /// Why, in a sentence, and what to do.
    pub text: &'a str,
}

/// What is said of a refused request.
#[derive(Clone, Copy, Debug)]
pub struct Refused<'a> {
    /// A word for why.
    pub reason: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// Who sent it, as far as it can be known.
    pub client: IpAddr,
    /// The path it asked for.
    pub path: &'a str,
    /// Why, in a sentence.
    pub text: &'a str,
}

/// A text that somebody else had a hand in, for a line of the log: escaped, and cut.
pub fn one_line(text: &str) -> String {
    let escaped = text.chars().flat_map(|c| {
        let (plain, escaped) =
            if c.is_control() { (None, Some(c.escape_default())) } else { (Some(c), None) };
        plain.into_iter().chain(escaped.into_iter().flatten())
    });
    escaped.take(MESSAGE_CHARACTERS).collect()
}

fn milliseconds(duration: std::time::Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io;
    use std::net::Ipv4Addr;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::*;
    use crate::discord::interaction::Interaction;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn captured(format: LogFormat, what: impl FnOnce()) -> Vec<u8> {
        let captured = Captured::default();
        let writer = captured.clone();
        let (subscriber, _) = subscriber(format, Level::INFO, false, move || writer.clone());
        tracing::subscriber::with_default(subscriber, what);
        captured.0.lock().unwrap().clone()
    }

    fn captured_text(what: impl FnOnce()) -> String {
        String::from_utf8(captured(LogFormat::Text, what)).unwrap()
    }

    const TRACE: &str = "00000000000000000000000000000abc";

    fn a_failure() {
        let body = br#"{"id":"42","type":3,"data":{"custom_id":"a\nb\u001b[31m"}}"#;
        let interaction = Interaction::parse(body).unwrap();
        let now = tokio::time::Instant::now();
        let mut record = Record::new("mybot".into(), &interaction, 0xabc, Ipv4Addr::LOCALHOST.into(), now);
        record.replica = Some("http://127.0.0.1:8080/".into());
        let end = End {
            outcome: Outcome::Failed,
            status: 502,
            elapsed: Duration::from_micros(12_345),
            explanation: Some("handler answered 404 Not Found".to_owned()),
        };
        super::interaction(&record, &end);
    }

    #[test]
    fn a_line_of_text_is_one_line_whatever_a_user_named_things() {
        let text = captured_text(a_failure);
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(!text.contains('\u{1b}'), "{text:?}");
        for part in [
            "WARN",
            "handler failed: handler answered 404 Not Found",
            "app=\"mybot\"",
            "id=42",
            "ms=12.3",
            TRACE,
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }

    #[test]
    fn a_json_line_is_an_object_with_the_same_fields() {
        let json: serde_json::Value = serde_json::from_slice(&captured(LogFormat::Json, a_failure)).unwrap();
        assert_eq!(json["level"], "WARN");
        assert_eq!(json["id"], 42);
        assert_eq!(json["outcome"], "failed");
        assert_eq!(json["ms"], 12.3);
        assert_eq!(json["trace"], TRACE);
    }

    /// As systemd's own documentation of the protocol has it: name, line end, length, value, line end.
    fn parse(mut entry: &[u8]) -> BTreeMap<String, String> {
        let mut fields = BTreeMap::new();
        while !entry.is_empty() {
            let end = entry.iter().position(|byte| *byte == b'\n').unwrap();
            let (name, rest) = entry.split_at(end);
            let (length, rest) = rest[1..].split_at(8);
            let (value, rest) = rest.split_at(u64::from_le_bytes(length.try_into().unwrap()) as usize);
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            assert_eq!(fields.insert(text(name), text(value)), None, "a name stands once");
            entry = rest.strip_prefix(b"\n").unwrap();
        }
        fields
    }

    #[test]
    fn an_entry_of_the_journal_has_its_fields() {
        let fields = parse(&captured(LogFormat::Journald, a_failure));
        let field = |name: &str| fields.get(name).map(String::as_str).unwrap_or_default();
        assert_eq!(field("PRIORITY"), "4");
        assert_eq!(field("SYSLOG_IDENTIFIER"), "shardless");
        assert_eq!(field("SHARDLESS_APP"), "mybot");
        assert_eq!(field("SHARDLESS_ID"), "42");
        assert_eq!(field("SHARDLESS_OUTCOME"), "failed");
        assert_eq!(field("SHARDLESS_TRACE"), TRACE);
        assert_eq!(field("SHARDLESS_NAME"), r#""a\nb\u{1b}[31m""#, "escaped: Discord's users choose it");
        let message = field("MESSAGE");
        assert!(
            message.starts_with("handler failed: handler answered 404 Not Found app=\"mybot\" id=42 "),
            "{message}"
        );
    }

    #[test]
    fn the_level_can_be_changed() {
        let captured = Captured::default();
        let writer = captured.clone();
        let (subscriber, level) = subscriber(LogFormat::Text, Level::WARN, false, move || writer.clone());
        tracing::subscriber::with_default(subscriber, || {
            info!("one");
            level.set(Level::DEBUG);
            debug!("two");
            level.set(Level::ERROR);
            warn!("three");
        });
        let text = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
        assert!(text.contains("two") && text.lines().count() == 1, "{text}");
    }

    #[test]
    fn other_crates_have_no_say() {
        let text = captured_text(|| tracing::error!(target: "hyper", "token=secret"));
        assert_eq!(text, "");
    }
}
