//! The daemon's log: how it is set up, and the lines that requests leave in it.

mod flood;

use std::io::{IsTerminal, Write};
use std::net::IpAddr;

use tracing::level_filters::LevelFilter;
use tracing::{Level, debug, error, info, warn};
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::Registry;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};

use crate::activity::{End, Outcome, Record};
use crate::config::{Log, LogFormat};
pub use flood::Flood;

/// Lines that may wait for a slow reader of the log; further ones are dropped, so that no request ever waits for it.
const WAITING_LINES: usize = 8192;

/// Starts the log, on standard error; panics go there too. Dropping the guard writes what still waits.
///
/// # Errors
///
/// If this process already has a log.
pub fn start(log: Log) -> Result<WorkerGuard, tracing::subscriber::SetGlobalDefaultError> {
    let stderr = std::io::stderr();
    let colours = stderr.is_terminal();
    let (writer, guard) = non_blocking(stderr);
    tracing::subscriber::set_global_default(subscriber(log, colours, writer))?;
    std::panic::set_hook(Box::new(|panic| {
        let at = panic.location().map(tracing::field::display);
        error!(at, "a bug in shardless, please report it: {:?}", panic.payload_as_str().unwrap_or_default());
    }));
    Ok(guard)
}

fn non_blocking(writer: impl Write + Send + 'static) -> (NonBlocking, WorkerGuard) {
    NonBlockingBuilder::default().buffered_lines_limit(WAITING_LINES).lossy(true).finish(writer)
}

/// Only our own lines are let through: what a library says at `trace` could hold a token.
fn subscriber<W>(log: Log, colours: bool, writer: W) -> impl tracing::Subscriber
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(colours).with_target(false);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match log.format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).boxed(),
    };
    let ours = Targets::new().with_target(env!("CARGO_CRATE_NAME"), LevelFilter::from_level(log.level));
    tracing_subscriber::registry().with(lines.with_filter(ours))
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
                handler = record.replica.as_deref(),
                outcome = end.outcome.as_str(),
                status = end.status,
                ms = milliseconds(end.elapsed),
                handler_ms = record.handler_time.map(milliseconds),
                client = %record.client,
                $($message)+
            )
        };
    }
    let explanation = end.explanation.as_deref();
    match (end.outcome, explanation) {
        (Outcome::Pong, _) => line!(info, "PING answered"),
        (Outcome::Answered, None) => line!(info, "interaction answered"),
        (Outcome::Answered, Some(warning)) => line!(warn, "answered, but Discord will refuse it: {warning}"),
        (Outcome::HandlerAnswersItself, _) => line!(info, "handler answers by itself"),
        (Outcome::Duplicate, _) => line!(info, "duplicate got the first one's answer"),
        (Outcome::Failed, why) => line!(warn, "handler failed: {}", why.unwrap_or_default()),
        (Outcome::Late, why) => line!(warn, "handler is late: {}", why.unwrap_or_default()),
    }
}

/// The line of a handler that ended after Discord had been answered without it.
pub fn late_end(record: &Record, elapsed: std::time::Duration, what: &str) {
    warn!(
        app = &*record.app,
        id = record.id,
        kind = record.kind.as_str(),
        name = record.name.as_deref().map(tracing::field::debug),
        handler = record.replica.as_deref(),
        ms = milliseconds(elapsed),
        "handler ended too late for Discord: {what}"
    );
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

fn milliseconds(duration: std::time::Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

#[cfg(test)]
mod tests {
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

    fn captured(format: LogFormat, what: impl FnOnce()) -> String {
        let captured = Captured::default();
        let writer = captured.clone();
        let log = Log { format, level: Level::INFO };
        tracing::subscriber::with_default(subscriber(log, false, move || writer.clone()), what);
        String::from_utf8(captured.0.lock().unwrap().clone()).unwrap()
    }

    fn a_failure() {
        let body = br#"{"id":"42","type":3,"data":{"custom_id":"a\nb\u001b[31m"}}"#;
        let interaction = Interaction::parse(body).unwrap();
        let now = tokio::time::Instant::now();
        let mut record = Record::new("mybot".into(), &interaction, Ipv4Addr::LOCALHOST.into(), now);
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
        let text = captured(LogFormat::Text, a_failure);
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(!text.contains('\u{1b}'), "{text:?}");
        for part in
            ["WARN", "handler failed: handler answered 404 Not Found", "app=\"mybot\"", "id=42", "ms=12.3"]
        {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }

    #[test]
    fn a_json_line_is_an_object_with_the_same_fields() {
        let json: serde_json::Value = serde_json::from_str(&captured(LogFormat::Json, a_failure)).unwrap();
        assert_eq!(json["level"], "WARN");
        assert_eq!(json["id"], 42);
        assert_eq!(json["outcome"], "failed");
        assert_eq!(json["ms"], 12.3);
    }

    #[test]
    fn other_crates_have_no_say() {
        let text = captured(LogFormat::Text, || tracing::error!(target: "hyper", "token=secret"));
        assert_eq!(text, "");
    }
}
