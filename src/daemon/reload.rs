//! A new config for a daemon that runs: everything is built, then everything is swapped. A mistake changes nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tracing::{error, info, warn};

use super::{Build, BuildError};
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
                info!("{} is in force now", self.file.display());
                super::status(&self.gateway.snapshot())
            }
            Err(error) => {
                let error = logging::one_line(&error.to_string());
                error!("the config in force stays as it was: {error}");
                format!("Serving by an earlier config: {error}")
            }
        }
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
        self.gateway.replace(snapshot);
        self.level.set(config.log.level);
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
            (STATE_DIR, old.state_dir != new.state_dir),
            ("`log.format`", old.log.format != new.log.format),
        ];
        keys.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
    }
}
