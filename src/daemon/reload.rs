//! A new config for a daemon that runs: everything is built, then everything is swapped. A mistake changes nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tracing::{error, info, warn};

use super::{Build, BuildError};
use crate::admin::{ReloadFailure, Situation};
use crate::clock::Clock;
use crate::config::{Config, ConfigError};
use crate::gateway::Gateway;
use crate::logging::{self, LogLevel};
use crate::metrics::{Metrics, Outcome};
use crate::server::LiveTls;

const STATE_DIR: &str = "`state_dir`";

/// Reads the config file anew when asked.
pub struct Reload {
    pub(super) file: PathBuf,
    /// What the daemon was started with: of this, some can only be changed by another start.
    pub(super) started_with: Config,
    pub(super) gateway: Arc<Gateway>,
    pub(super) tls: Arc<LiveTls>,
    pub(super) situation: Arc<Situation>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) level: LogLevel,
}

/// Why the old config stays in force.
#[derive(Debug, Error)]
enum ReloadError {
    #[error("{}", .0.brief())]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Build(#[from] BuildError),
}

impl ReloadError {
    /// All that is wrong, in several lines.
    fn text(&self) -> String {
        match self {
            Self::Config(error) => error.to_string(),
            Self::Build(error) => error.to_string(),
        }
    }
}

impl Reload {
    /// The longest that a stop waits for what is in flight, by the config in force.
    pub fn drain_timeout(&self) -> Duration {
        self.gateway.snapshot().limits().drain_timeout
    }

    /// Puts what the file says now in force, or keeps what is in force. Says in the log which; what it returns is the
    /// same for `systemctl status`.
    pub fn run(&self) -> String {
        let done = self.try_run();
        let outcome = if done.is_ok() { "reloaded" } else { "failed" };
        self.metrics.reloads.get_or_create(&Outcome { outcome }).inc();
        match done {
            Ok(()) => {
                self.situation.loaded(self.clock.unix_time());
                info!("{} is in force now", self.file.display());
                super::status(&self.gateway.snapshot())
            }
            Err(error) => {
                let text = veiled(&error.text());
                let error = logging::one_line(&error.to_string());
                let time = self.clock.unix_time();
                self.situation.not_loaded(ReloadFailure { time, brief: error.clone(), text });
                error!("the config in force stays as it was: {error}");
                format!("Serving by an earlier config: {error}")
            }
        }
    }

    /// Says in the log what was held back, where the daemon does not get to it any more.
    pub(super) fn last_words(&self) {
        self.gateway.last_words();
    }

    fn try_run(&self) -> Result<(), ReloadError> {
        let config = Config::load(&self.file)?;
        let before = self.gateway.snapshot();
        // As `check` sees it; then as it can hold without a restart.
        let mut build = Build::new(&config, Some(&before), &*self.clock)?;
        let stays = self.what_stays(&config);
        let config = Config { state_dir: self.started_with.state_dir.clone(), ..config };
        if stays.contains(&STATE_DIR) {
            build = Build::new(&config, Some(&before), &*self.clock)?;
        }
        let Build { snapshot, tls } = build.complete(&config, &*self.clock)?;
        if self.tls.replace(tls.as_ref()) != tls.is_some() {
            super::announce_tls(tls.as_ref());
        }
        self.situation.serves_with(tls.as_ref().map(super::certificate));
        self.gateway.replace(snapshot);
        self.level.set(&config.log);
        for warning in tls.iter().flat_map(|tls| &tls.warnings) {
            warn!("{warning}");
        }
        for key in stays {
            warn!("{key} has changed, which takes a restart of the daemon: until then the old one stays");
        }
        super::announce_apps(&self.gateway.snapshot());
        Ok(())
    }

    /// What differs and cannot be swapped.
    fn what_stays(&self, config: &Config) -> Vec<&'static str> {
        let (old, new) = (&self.started_with, config);
        let keys = [
            ("`address`", old.listen.address != new.listen.address),
            ("`port`", old.listen.port != new.listen.port),
            ("`unix_socket`", old.listen.unix_socket != new.listen.unix_socket),
            ("`discord.api`", old.discord.api != new.discord.api),
            ("`[admin]`", old.admin != new.admin),
            (STATE_DIR, old.state_dir != new.state_dir),
            ("`log.format`", old.log.format != new.log.format),
        ];
        keys.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
    }
}

/// A text with lines of the config in it, without what URLs may hold of secrets: their user and their query. Nothing
/// moves, so that marks below a line stay where they belong.
fn veiled(text: &str) -> String {
    text.lines().map(veiled_line).collect::<Vec<_>>().join("\n")
}

fn veiled_line(line: &str) -> String {
    let mut veiled = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("://") {
        veiled.push_str(before);
        veiled.push_str("://");
        let end = after.find(|c: char| c.is_whitespace() || "\"'`".contains(c)).unwrap_or(after.len());
        let (url, behind) = after.split_at(end);
        let (whom, query) = url.split_once('?').map_or((url, None), |(whom, query)| (whom, Some(query)));
        let hidden = |text: &str| "*".repeat(text.chars().count());
        match whom.rsplit_once('@') {
            Some((user, host)) => veiled.push_str(&format!("{}@{host}", hidden(user))),
            None => veiled.push_str(whom),
        }
        if let Some(query) = query {
            veiled.push('?');
            veiled.push_str(&hidden(query));
        }
        rest = behind;
    }
    veiled + rest
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(
        "handler = \"http://me:pass@bot/?key=1\"  # a://b@c",
        "handler = \"http://*******@bot/?*****\"  # a://*@c"
    )]
    #[case("          ^^^ expected http://127.0.0.1:8080/", "          ^^^ expected http://127.0.0.1:8080/")]
    #[case("urls = ['http://a/?ä', 'http://b/']", "urls = ['http://a/?*', 'http://b/']")]
    fn what_urls_may_hold_of_secrets_is_not_shown(#[case] line: &str, #[case] shown: &str) {
        assert_eq!(veiled(line), shown);
        assert_eq!(line.chars().count(), shown.chars().count());
    }
}
