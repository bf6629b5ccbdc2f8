//! Bots in other languages, written with Discord's official libraries.

use std::process::Command;

use tempfile::TempDir;

use crate::discord::Discord;
use crate::process::{self, Process, free_port, installed, program, source};

/// Which bot.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Library {
    /// `discord-interactions` of npm, with express.
    Express,
    /// `discord-interactions` of PyPI, with Flask.
    Flask,
}

/// A bot that is running.
pub(crate) struct Bot {
    port: u16,
    // In this order: the folder goes last.
    _process: Process,
    _folder: TempDir,
}

impl Bot {
    /// Starts a bot that verifies signatures by itself, with `discord`'s key.
    pub(crate) async fn start(library: Library, discord: &Discord) -> Self {
        Self::start_behind(library, discord, "").await
    }

    /// The same, for one that takes only what comes through a daemon with that secret.
    pub(crate) async fn start_behind(library: Library, discord: &Discord, secret: &str) -> Self {
        let (name, mut command) = match library {
            Library::Express => {
                installed("tests/e2e/bots/express/node_modules/.installed");
                let mut command = Command::new(program("node"));
                command.arg(source("tests/e2e/bots/express/bot.js"));
                ("the express bot", command)
            }
            Library::Flask => {
                installed("target/venv/.installed");
                let mut command = Command::new(installed("target/venv/bin/python"));
                command.arg(source("tests/e2e/bots/flask/bot.py"));
                ("the Flask bot", command)
            }
        };
        let (folder, port) = (process::folder(), free_port());
        command
            .env("PORT", port.to_string())
            .env("PUBLIC_KEY", discord.public_key())
            .env("SHARDLESS_SECRET", secret);
        let log = folder.path().join("log");
        Self { port, _process: Process::start(name, command, &log, port).await, _folder: folder }
    }

    /// The port it listens on.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}
