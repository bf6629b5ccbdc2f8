//! The daemon, as its users run it.

use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::discord::Discord;
use crate::process::{self, Process, free_port};

/// A running daemon, with one application.
pub(crate) struct Daemon {
    process: Option<Process>,
    folder: TempDir,
    port: u16,
}

/// What a test wants to be different.
#[derive(Default)]
pub(crate) struct Settings {
    /// Lines for `[apps.mybot]`.
    pub(crate) app: &'static str,
    /// Lines for `[limits]`.
    pub(crate) limits: &'static str,
}

impl Daemon {
    /// Starts a daemon that believes `discord` and hands over to `handler`, a port of 127.0.0.1.
    pub(crate) async fn start(discord: &Discord, handler: u16, settings: Settings) -> Self {
        let (folder, port) = (process::folder(), free_port());
        let (Settings { app, limits }, public_key) = (settings, discord.public_key());
        let config = format!(
            "port = {port}\n\
             [limits]\n{limits}\n\
             [apps.mybot]\npublic_key = \"{public_key}\"\nhandler = \"http://127.0.0.1:{handler}/interactions\"\n{app}\n"
        );
        let mut daemon = Self { process: None, folder, port };
        std::fs::write(daemon.config(), config).unwrap();
        daemon.restart().await;
        daemon
    }

    /// The port it listens on, also after a restart.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Stops it by that signal.
    pub(crate) async fn stop(&mut self, signal: &str) {
        self.process.take().unwrap().stop(signal).await;
    }

    /// Makes it hang: the system still takes connections for it.
    pub(crate) fn hang(&self) {
        self.process.as_ref().unwrap().signal("STOP");
    }

    /// Starts it once more after a stop.
    pub(crate) async fn restart(&mut self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shardless"));
        command.arg("serve").arg("--config").arg(self.config());
        let log = self.folder.path().join("log");
        self.process = Some(Process::start("shardless", command, &log, self.port).await);
    }

    /// Waits for a line in its log that holds all of `parts`.
    pub(crate) async fn logs(&self, parts: &[&str]) -> String {
        let process = self.process.as_ref().unwrap();
        let mut line = None;
        process::until(&format!("the log has a line with {parts:?}"), async || {
            let log = process.log();
            line = log.lines().find(|line| parts.iter().all(|part| line.contains(part))).map(str::to_owned);
            line.is_some()
        })
        .await;
        line.unwrap()
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("config.toml")
    }
}
