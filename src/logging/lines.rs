//! The lines of the log: one for each interaction, one for the end of what was deferred, and those of refusals and faults.

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{Level, debug, info, warn};

use super::Flood;
use crate::activity::{End, Outcome, Record};

/// Characters of a message with others' words in it.
const MESSAGE_CHARACTERS: usize = 1000;

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
pub fn ended_in_vain(record: &Record, elapsed: Duration, what: &str) {
    late!(warn, record, elapsed, "handler ended too late for Discord: {what}");
}

/// The line of a handler that ended after a deferral; what follows has a line of its own.
pub fn late(record: &Record, elapsed: Duration, what: &str) {
    late!(debug, record, elapsed, "{what}");
}

/// The line of a deferral that no client was there to take.
pub fn unsent(record: &Record) {
    let (app, id) = (&*record.app, record.id);
    info!(app, id, "the deferral reached nobody, its client had hung up: nothing follows it");
}

/// The line of a late answer that is not what its author will have meant.
pub fn late_warning(record: &Record, elapsed: Duration, note: &str) {
    late!(warn, record, elapsed, "handler answered late, but {note}");
}

/// The line of a handler that has no answer after a deferral.
pub fn late_failure(record: &Record, elapsed: Duration, why: &str) {
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
    pub age: Duration,
    /// Whether somebody should look into it.
    pub is_trouble: bool,
    /// What became of it, in a sentence.
    pub text: &'a str,
}

/// The line of a request that was refused; a flood of them is summed up. `path` may be anything a stranger sent.
pub fn refusal(flood: &Flood, now: Instant, line: Refused<'_>) {
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
pub fn connection(flood: &Flood, now: Instant, line: &Ended<'_>) {
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

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}
