//! `shardless serve`: the daemon.

use std::process::ExitCode;
use std::sync::Arc;

use super::ConfigFile;
use crate::clock::SystemClock;
use crate::config::Config;
use crate::daemon::lifecycle::Lifecycle;
use crate::daemon::{Daemon, StartError};
use crate::logging::{self, LogLevel};
use crate::systemd::Sockets;

pub(super) fn run(file: &ConfigFile) -> anyhow::Result<ExitCode> {
    let config = match file.load() {
        Ok(config) => config,
        Err(code) => return Ok(code),
    };
    // Connections in and out are descriptors; many systems allow 1024 unless asked for more.
    _ = rlimit::increase_nofile_limit(u64::MAX);
    let logging = logging::start(&config.log).map_err(anyhow::Error::from_boxed)?;
    let runtime = super::runtime()?;
    let finished = match runtime.block_on(serve(config, file, logging.level())) {
        Ok(finished) => finished,
        Err(error) if error.downcast_ref::<StartError>().is_some_and(StartError::is_of_config) => {
            return Ok(super::report_build(&error));
        }
        Err(error) => return Err(error),
    };
    // Calls that are late for Discord anyway do not hold the exit up.
    runtime.shutdown_background();
    Ok(if finished { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn serve(config: Config, file: &ConfigFile, level: LogLevel) -> anyhow::Result<bool> {
    let lifecycle = Lifecycle::start()?;
    let daemon = Daemon::bind(config, Sockets::take(), Arc::new(SystemClock))?;
    let workers = super::workers()?;
    daemon.announce();
    let reload = daemon.reload(file.config.clone(), level);
    Ok(lifecycle.run(daemon, workers, reload).await)
}
