//! Bots in other languages, written with Discord's official libraries and with hikari.

use std::process::Command;

use http::StatusCode;
use rstest::rstest;
use shardless::rehearsal::{Expectation, Verdict};
use tempfile::TempDir;

use crate::daemon::{Daemon, Settings};
use crate::discord::Discord;
use crate::process::{self, Process, free_port, installed, program, source};
use crate::proxies::Proxy;

/// Which bot.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Library {
    /// `discord-interactions` of npm, with express.
    Express,
    /// `discord-interactions` of PyPI, with Flask.
    Flask,
    /// `hikari` of PyPI, with a server of its own.
    Hikari,
}

impl Library {
    /// Where its bots take interactions.
    fn path(self) -> &'static str {
        match self {
            Self::Express | Self::Flask => "/interactions",
            Self::Hikari => "/",
        }
    }
}

/// A bot that is running.
pub(crate) struct Bot {
    library: Library,
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
            Library::Hikari => {
                installed("target/venv/.installed");
                // Optimised, as its authors ask for.
                let mut command = Command::new(installed("target/venv/bin/python"));
                command.arg("-OO").arg(source("tests/e2e/bots/hikari/bot.py"));
                ("the hikari bot", command)
            }
        };
        let (folder, port) = (process::folder(), free_port());
        command
            .env("PORT", port.to_string())
            .env("PUBLIC_KEY", discord.public_key())
            .env("SHARDLESS_SECRET", secret);
        let log = folder.path().join("log");
        Self { library, port, _process: Process::start(name, command, &log, port).await, _folder: folder }
    }

    /// The port it listens on.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Its address, for a `handler` in the config.
    fn url(&self) -> String {
        format!("http://127.0.0.1:{}{}", self.port, self.library.path())
    }
}

/// Three bots of three makings behind one endpoint, at once: commands go to one, components to another, and a few of both
/// to the third, which does not share their path.
#[rstest]
#[tokio::test]
async fn each_route_goes_to_a_bot_of_another_library(#[values(Proxy::Nginx, Proxy::Apache)] proxy: Proxy) {
    let discord = Discord::new();
    let (express, flask, hikari) = tokio::join!(
        Bot::start(Library::Express, &discord),
        Bot::start(Library::Flask, &discord),
        Bot::start(Library::Hikari, &discord),
    );
    let route = |conditions: &str, bot: &Bot| {
        format!("[[apps.mybot.routes]]\n{conditions}\nhandler = \"{}\"\n", bot.url())
    };
    let app = [
        route("command = \"roll\"", &hikari),
        route("custom_id = \"dice:*\"", &hikari),
        route("kind = \"command\"", &express),
        route("kind = \"component\"", &flask),
    ]
    .concat();
    // Autocomplete and modals have no route.
    let daemon = Daemon::start(&discord, express.port(), Settings { app, ..Settings::default() }).await;
    let front = proxy.in_front_of(daemon.upstream()).await;
    let url = front.endpoint();

    let ping = discord.ping();
    let pong = discord.send(&url, &discord.sign(&ping)).await;
    assert!(Verdict::of(&ping, Expectation::Callback, &pong).is_accepted(), "{pong:?}");

    let interactions = (0..20).flat_map(|n| {
        let text = format!("№{n} 🎵");
        let others = (0..4).map(|kind| discord.nth(n * 4 + kind));
        others
            .chain([discord.named_command("roll", &text), discord.button(&format!("dice:{text}"))])
            .collect::<Vec<_>>()
    });
    let interactions: Vec<_> = interactions.collect();
    let errors = crate::volume::send_all(&discord, &url, &interactions, 30).await;
    assert_eq!(errors, [""; 0]);
    for (interaction, bot) in [
        (discord.command("x"), &express),
        (discord.button("x"), &flask),
        (discord.named_command("roll", "x"), &hikari),
        (discord.button("dice:x"), &hikari),
    ] {
        discord.try_ask(&url, &interaction).await.unwrap();
        let id = format!("id={}", interaction.id());
        daemon.logs(&["interaction answered", &id, &format!("handler=\"{}\"", bot.url())]).await;
    }
}

/// An answer with a file, as a library writes it: a form, relayed byte for byte.
#[rstest]
#[tokio::test]
async fn a_file_of_hikari_comes_through(#[values(Proxy::Nginx, Proxy::Apache)] proxy: Proxy) {
    let discord = Discord::new();
    let hikari = Bot::start(Library::Hikari, &discord).await;
    let app = format!("[[apps.mybot.routes]]\ncommand = \"export\"\nhandler = \"{}\"\n", hikari.url());
    let daemon = Daemon::start(&discord, free_port(), Settings { app, ..Settings::default() }).await;
    let front = proxy.in_front_of(daemon.upstream()).await;
    let export = discord.named_command("export", "größer");
    let exchange = discord.send(&front.endpoint(), &discord.sign(&export.payload)).await;
    assert_eq!(exchange.status, StatusCode::OK, "{exchange:?}");
    assert!(exchange.content_type.starts_with("multipart/form-data; boundary="), "{exchange:?}");
    let verdict = Verdict::of(&export.payload, Expectation::Callback, &exchange);
    let expected = "type 4 CHANNEL_MESSAGE_WITH_SOURCE, with a file";
    assert_eq!(verdict, Verdict::Accepted(expected.to_owned()), "{exchange:?}");
    let text = String::from_utf8(exchange.body.to_vec()).unwrap();
    assert!(text.contains(&format!("\r\n\r\n{}: größer\r\n--", export.id())), "{text}");
    let id = format!("id={}", export.id());
    let line = daemon.logs(&[&id]).await;
    assert!(line.contains(" INFO ") && line.contains("interaction answered"), "{line}");
}
