//! The daemon's log: how it is set up. What requests leave in it stands in [`lines`].

mod flood;
mod journal;
mod lines;

use std::io::{IsTerminal, Write};

use thiserror::Error;
use tracing::level_filters::LevelFilter;
use tracing::{Level, error};
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::Registry;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::reload;

use crate::config::{Log, LogFormat};
use crate::systemd;
pub use flood::Flood;
use journal::{Journal, JournalSocket};
pub use lines::{
    Delivered, Ended, Refused, connection, delivered, ended_in_vain, interaction, late, late_failure,
    late_warning, one_line, refusal, unsent,
};

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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io;
    use std::net::Ipv4Addr;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::*;
    use crate::activity::{End, Outcome, Record};
    use crate::discord::interaction::Interaction;
    use tracing::{debug, info, warn};

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
        let mut record =
            Record::new("mybot".into(), &interaction, 0xabc, Ipv4Addr::LOCALHOST.into(), [now; 2]);
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
