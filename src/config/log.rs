//! `[log]`: how the daemon's log looks, and what is worth a line.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::DeValue;
use tracing::level_filters::LevelFilter;

use super::reader::{FromToml, Table};

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// How a line looks; absent: as fits where it goes.
    pub format: Option<LogFormat>,
    /// What is worth a line.
    pub level: LevelFilter,
    /// The same for parts of the daemon that say more, or less.
    pub levels: BTreeMap<LogPart, LevelFilter>,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
    /// For systemd's journal, with fields.
    Journald,
}

/// A part of the daemon that has a level of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogPart {
    /// What became of each interaction.
    Interactions,
    /// Requests that were refused.
    Refusals,
    /// Connections that ended by their peer's fault.
    Connections,
    /// Late answers on their way to Discord.
    Delivery,
    /// The handlers' replicas.
    Handlers,
    /// What is kept on disk.
    Outbox,
    /// The ports.
    Server,
    /// The listener for people and monitors.
    Admin,
    /// Start, stop, reload, and the folder for state.
    Daemon,
}

impl LogPart {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Interactions,
        Self::Refusals,
        Self::Connections,
        Self::Delivery,
        Self::Handlers,
        Self::Outbox,
        Self::Server,
        Self::Admin,
        Self::Daemon,
    ];

    /// Its name in the config.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Interactions => "interactions",
            Self::Refusals => "refusals",
            Self::Connections => "connections",
            Self::Delivery => "delivery",
            Self::Handlers => "handlers",
            Self::Outbox => "outbox",
            Self::Server => "server",
            Self::Admin => "admin",
            Self::Daemon => "daemon",
        }
    }

    /// What the target of its lines begins with: where it is a room of its own, that room's path.
    pub const fn target(self) -> &'static str {
        match self {
            Self::Interactions => "shardless::interactions",
            Self::Refusals => "shardless::refusals",
            Self::Connections => "shardless::connections",
            Self::Delivery => "shardless::delivery",
            Self::Handlers => "shardless::handlers",
            Self::Outbox => "shardless::outbox",
            Self::Server => "shardless::server",
            Self::Admin => "shardless::admin",
            Self::Daemon => "shardless::daemon",
        }
    }
}

pub(super) fn read(mut table: Table<'_, '_>) -> Log {
    let format = table.optional::<LogFormat>("format").map(Spanned::into_inner);
    let level = table.or("level", LevelFilter::INFO);
    let mut parts = table.table("levels");
    let levels = LogPart::ALL.into_iter().filter_map(|part| {
        let level = parts.optional::<LevelFilter>(part.as_str())?;
        Some((part, level.into_inner()))
    });
    let levels = levels.collect();
    parts.finish(|_| None);
    table.finish(|_| None);
    Log { format, level, levels }
}

impl FromToml for LogFormat {
    const EXPECTED: &'static str = "expected \"text\", \"json\" or \"journald\"";

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        match value.as_str() {
            Some("text") => Ok(Self::Text),
            Some("json") => Ok(Self::Json),
            Some("journald") => Ok(Self::Journald),
            _ => Err(String::new()),
        }
    }
}

impl FromToml for LevelFilter {
    const EXPECTED: &'static str = "expected \"error\", \"warn\", \"info\", \"debug\", \"trace\" or \"off\"";

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        match value.as_str() {
            Some("off") => Ok(Self::OFF),
            Some("error") => Ok(Self::ERROR),
            Some("warn") => Ok(Self::WARN),
            Some("info") => Ok(Self::INFO),
            Some("debug") => Ok(Self::DEBUG),
            Some("trace") => Ok(Self::TRACE),
            _ => Err(String::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_named_as_its_lines_are() {
        for part in LogPart::ALL {
            assert_eq!(part.target(), format!("{}::{}", env!("CARGO_CRATE_NAME"), part.as_str()));
        }
    }
}
