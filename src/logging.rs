//! The daemon's log: how it is set up. What requests leave in it stands in [`lines`].

mod batches;
mod flood;
mod journal;
mod lines;
mod text;
mod time;

use std::any::Any;
use std::io::{IsTerminal, Write};

use thiserror::Error;
use tracing::error;
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::Registry;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::reload;

use crate::config::{Log, LogFormat, LogPart};
use crate::systemd;
use batches::Batches;
pub use flood::Flood;
use journal::{Journal, JournalSocket};
pub use lines::{
    Delivered, Ended, Refused, connection, delivered, ended_in_vain, interaction, late, late_failure,
    late_warning, one_line, reach, refusal, replica, unsent,
};

/// Lines that may wait for a slow reader of the log; further ones are dropped, so that no request ever waits for it.
const WAITING_LINES: usize = 8192;

/// A log that runs. Dropping it writes what still waits.
pub struct Logging {
    level: LogLevel,
    _writing: WorkerGuard,
}

/// The levels of a log, which can be changed.
#[derive(Clone)]
pub struct LogLevel(reload::Handle<Targets, Registry>);

impl Logging {
    /// Its levels.
    pub fn level(&self) -> LogLevel {
        self.level.clone()
    }
}

impl LogLevel {
    /// Writes lines of the levels that are given there, from now on.
    pub fn set(&self, log: &Log) {
        // It fails only where the log is gone.
        _ = self.0.reload(ours(log));
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
pub fn start(log: &Log) -> Result<Logging, Box<dyn std::error::Error + Send + Sync>> {
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
        // The journal takes one entry a piece.
        Some(journal) => non_blocking(Batches(journal)),
        None => non_blocking(batches::buffered(stderr)),
    };
    let (subscriber, level) = subscriber(format, log, colours, writer);
    tracing::subscriber::set_global_default(subscriber)?;
    std::panic::set_hook(Box::new(|panic| {
        let at = panic.location().map(tracing::field::display);
        error!(target: LogPart::Daemon.target(), at, "a bug in shardless, please report it{}", text_of(panic.payload()));
    }));
    Ok(Logging { level, _writing })
}

/// A panic's text, but for one that was put together: it could hold a token.
fn text_of(panic: &dyn Any) -> String {
    panic.downcast_ref::<&'static str>().map(|text| format!(": {text}")).unwrap_or_default()
}

fn non_blocking(writer: impl Write + Send + 'static) -> (NonBlocking, WorkerGuard) {
    NonBlockingBuilder::default().buffered_lines_limit(WAITING_LINES).lossy(true).finish(writer)
}

fn subscriber<W>(
    format: LogFormat,
    log: &Log,
    colours: bool,
    writer: W,
) -> (impl tracing::Subscriber, LogLevel)
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().with_timer(time::Time).with_ansi(colours);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match format {
        LogFormat::Text => lines.fmt_fields(text::Fields).with_writer(writer).boxed(),
        LogFormat::Json => {
            lines.with_writer(writer).json().flatten_event(true).with_current_span(false).boxed()
        }
        LogFormat::Journald => Journal(writer).boxed(),
    };
    let (filter, level) = reload::Layer::new(ours(log));
    (tracing_subscriber::registry().with(lines.with_filter(filter)), LogLevel(level))
}

/// Only our own lines are let through: what a library says at `trace` could hold a token.
fn ours(log: &Log) -> Targets {
    let parts = log.levels.iter().map(|(part, level)| (part.target(), *level));
    Targets::new().with_target(env!("CARGO_CRATE_NAME"), log.level).with_targets(parts)
}

#[cfg(test)]
mod tests;
