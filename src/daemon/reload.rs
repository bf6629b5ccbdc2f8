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
        super::announce_what_is_served(&self.gateway.snapshot());
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

/// An error's text, without what stands in the lines of the config that it shows: a secret may have been put there.
/// Nothing moves, so that the marks below a line stay where they belong.
fn veiled(text: &str) -> String {
    text.lines().map(veiled_line).collect::<Vec<_>>().join("\n")
}

/// Of a line of the config, `12 | key = "value"`, only the key is left.
fn veiled_line(line: &str) -> String {
    let source = line.split_once(" | ").filter(|(number, _)| {
        let number = number.trim();
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    });
    let Some((number, code)) = source else { return line.to_owned() };
    let is_header = code.trim_start().starts_with('[');
    let (key, value) = match code.split_once('=') {
        _ if is_header => (code, ""),
        Some((key, _)) => code.split_at(key.len()),
        None => ("", code),
    };
    let value: String = value.chars().map(|c| if c.is_alphanumeric() { '•' } else { c }).collect();
    format!("{number} | {key}{value}")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(
        r#"  3 | handler = "http://me:pass@bot/?key=1""#,
        r#"  3 | handler = "••••://••:••••@•••/?•••=•""#
    )]
    #[case("   |             ^^^^ expected \"off\"", "   |             ^^^^ expected \"off\"")]
    #[case("12 |   \"MTIz.abc\",", "12 |   \"••••.•••\",")]
    #[case("12 | [apps.mybot]", "12 | [apps.mybot]")]
    #[case("error: `token` is not known", "error: `token` is not known")]
    fn values_of_the_config_are_not_shown(#[case] line: &str, #[case] shown: &str) {
        assert_eq!(veiled(line), shown);
        assert_eq!(line.chars().count(), shown.chars().count());
    }

    #[test]
    fn a_secret_in_the_wrong_place_is_not_shown() {
        let config = "port = 3000\ntoken = \"MTIzNDU2.abc-def\"\n[apps.mybot]\npublic_key = \"0123secret\"\n";
        let error = Config::parse("config.toml", config).unwrap_err();
        let (all, shown) = (error.to_string(), veiled(&error.to_string()));
        assert!(all.contains("MTIzNDU2") && all.contains("0123secret"), "{all}");
        assert!(!shown.contains("MTIz") && !shown.contains("secret"), "{shown}");
        assert!(shown.contains("token = "), "{shown}");
    }
}
