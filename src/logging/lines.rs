//! The lines of the log: one for each interaction, one for the end of what was deferred, and those of refusals and faults.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{Level, debug, info, warn};

use super::flood::{Flood, Lines};
use crate::activity::{End, Outcome, Record};
use crate::config::LogPart;

/// Characters of a message with others' words in it.
const MESSAGE_CHARACTERS: usize = 1000;

/// A line of what comes after an interaction's own.
macro_rules! late {
    ($level:ident, $record:expr, $elapsed:expr, $($message:tt)+) => {
        $level!(
            target: LogPart::Interactions.target(),
            app = &*$record.app,
            id = $record.id,
            kind = $record.kind.as_str(),
            name = $record.name.as_deref(),
            handler = $record.replica.as_deref(),
            ms = milliseconds($elapsed),
            trace = format_args!("{:032x}", $record.trace),
            $($message)+
        )
    };
}

/// The one line of an interaction; a flood of warnings is summed up.
pub fn interaction(flood: &Flood, now: Instant, record: &Record, end: &End) {
    if let Some(what) = warning_of(end) {
        let outcome = Some(end.outcome.as_str());
        if !flood.lets_through(Lines { outcome, ..warnings(record, what) }, now) {
            return;
        }
    }
    macro_rules! line {
        ($level:ident, $($message:tt)+) => {
            $level!(
                target: LogPart::Interactions.target(),
                app = &*record.app,
                id = record.id,
                kind = record.kind.as_str(),
                // Discord's users choose these names: a text escapes line ends and control characters in them.
                name = record.name.as_deref(),
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

/// What a line is a warning of, if it is one.
fn warning_of(end: &End) -> Option<&'static str> {
    match end.outcome {
        Outcome::Failed => Some("handler failed"),
        Outcome::Late => Some("handler is late"),
        Outcome::Answered if end.explanation.is_some() => Some("interaction answered, but with a fault"),
        _ => None,
    }
}

fn warnings(record: &Record, what: &'static str) -> Lines {
    let app = Some(Arc::clone(&record.app));
    Lines { app, ..Lines::new(LogPart::Interactions, Level::WARN, what) }
}

/// The line of a handler that ended after Discord had been answered without it; a flood of them is summed up.
pub fn ended_in_vain(flood: &Flood, now: Instant, record: &Record, elapsed: Duration, what: &str) {
    if flood.lets_through(warnings(record, "handler ended too late for Discord"), now) {
        late!(warn, record, elapsed, "handler ended too late for Discord: {what}");
    }
}

/// The line of a handler that ended after a deferral; what follows has a line of its own.
pub fn late(record: &Record, elapsed: Duration, what: &str) {
    late!(debug, record, elapsed, "{what}");
}

/// The line of a deferral that no client was there to take.
pub fn unsent(record: &Record) {
    let (app, id) = (&*record.app, record.id);
    info!(
        target: LogPart::Interactions.target(),
        app,
        id,
        "the deferral reached nobody, its client had hung up: nothing follows it"
    );
}

/// The line of a late answer that is not what its author will have meant; a flood of them is summed up.
pub fn late_warning(flood: &Flood, now: Instant, record: &Record, elapsed: Duration, note: &str) {
    if flood.lets_through(warnings(record, "handler answered late, but with a fault"), now) {
        late!(warn, record, elapsed, "handler answered late, but {note}");
    }
}

/// The line of a handler that has no answer after a deferral; a flood of them is summed up.
pub fn late_failure(flood: &Flood, now: Instant, record: &Record, elapsed: Duration, why: &str) {
    if flood.lets_through(warnings(record, "handler failed after its deferral"), now) {
        late!(
            warn,
            record,
            elapsed,
            "handler failed after its deferral, so the user gets the fallback text: {why}"
        );
    }
}

/// The line of a deferred interaction's end; a flood of those that are trouble is summed up.
pub fn delivered(flood: &Flood, now: Instant, line: &Delivered<'_>) {
    let Delivered { app, id, route, result, age, is_trouble, text } = *line;
    let ms = milliseconds(age);
    if !is_trouble {
        info!(target: LogPart::Delivery.target(), app = &**app, id, route, outcome = result, ms, "{text}");
        return;
    }
    let lines = Lines {
        outcome: Some(result),
        app: Some(Arc::clone(app)),
        ..Lines::new(LogPart::Delivery, Level::WARN, "late answers in trouble")
    };
    if flood.lets_through(lines, now) {
        warn!(target: LogPart::Delivery.target(), app = &**app, id, route, outcome = result, ms, "{text}");
    }
}

/// The line of Discord's API, which cannot be reached any more, or is again; a flood of them is summed up.
pub fn reach(flood: &Flood, now: Instant, is_reached: Result<(), &str>) {
    let lines = |level, what| Lines::new(LogPart::Delivery, level, what);
    match is_reached {
        Ok(()) if flood.lets_through(lines(Level::INFO, "Discord's API is reached again"), now) => {
            info!(target: LogPart::Delivery.target(), "Discord's API is reached again");
        }
        Err(why) if flood.lets_through(lines(Level::WARN, "Discord's API cannot be reached"), now) => warn!(
            target: LogPart::Delivery.target(),
            "Discord's API cannot be reached ({why}): late answers wait, until their tokens expire"
        ),
        _ => {}
    }
}

/// The line of a handler's replica that is left out for so long, and why, or that answers again; a flood of them is
/// summed up.
pub fn replica(flood: &Flood, now: Instant, handler: &Arc<str>, change: Result<(), (Duration, &str)>) {
    const TARGET: &str = LogPart::Handlers.target();
    let lines = |level, what| Lines {
        handler: Some(Arc::clone(handler)),
        ..Lines::new(LogPart::Handlers, level, what)
    };
    match change {
        Ok(()) if flood.lets_through(lines(Level::INFO, "replica answers again"), now) => {
            info!(target: TARGET, handler = &**handler, "replica answers again");
        }
        Err((time, why)) if flood.lets_through(lines(Level::WARN, "replica is left out"), now) => {
            let time = humantime::format_duration(time);
            warn!(
                target: TARGET,
                handler = &**handler,
                "replica is left out for {time}, it fails again and again: {why}"
            );
        }
        _ => {}
    }
}

/// What is said of a deferred interaction's end.
#[derive(Clone, Copy, Debug)]
pub struct Delivered<'a> {
    /// The application's name in the config.
    pub app: &'a Arc<str>,
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
    const TARGET: &str = LogPart::Refusals.target();
    let Refused { reason, status, client, path, text } = line;
    // A stranger's mistake is no one's trouble; what we could not serve is.
    let level = if status < 500 { Level::INFO } else { Level::WARN };
    let lines = Lines { reason: Some(reason), ..Lines::new(LogPart::Refusals, level, "refused") };
    if !flood.lets_through(lines, now) {
        return;
    }
    let path: String = path.chars().take(100).collect();
    let path = path.as_str();
    if level == Level::INFO {
        info!(target: TARGET, reason, status, %client, path, "refused: {text}");
    } else {
        warn!(target: TARGET, reason, status, %client, path, "refused: {text}");
    }
}

/// The line of a connection that ended by its peer's fault; a flood of them is summed up.
pub fn connection(flood: &Flood, now: Instant, line: &Ended<'_>) {
    const TARGET: &str = LogPart::Connections.target();
    let Ended { level, reason, peer, text } = *line;
    let lines =
        || Lines { reason: Some(reason), ..Lines::new(LogPart::Connections, level, "connections ended") };
    match level {
        Level::WARN if flood.lets_through(lines(), now) => warn!(target: TARGET, reason, %peer, "{text}"),
        Level::INFO if flood.lets_through(lines(), now) => info!(target: TARGET, reason, %peer, "{text}"),
        Level::WARN | Level::INFO => {}
        _ => debug!(target: TARGET, reason, %peer, "{text}"),
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
    text.chars().flat_map(escaped).take(MESSAGE_CHARACTERS).collect()
}

/// A character that would end the line, or do something to a terminal, as one that does not.
pub(super) fn escaped(c: char) -> impl Iterator<Item = char> {
    let (plain, escaped) = if c.is_control() { (None, Some(c.escape_default())) } else { (Some(c), None) };
    plain.into_iter().chain(escaped.into_iter().flatten())
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}
