//! Who is measured, and how each is started.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use shardless::discord::signature::PublicKey;

use crate::handler::Handler;
use crate::in_process;
use crate::load::Answerer;
use crate::process::{Clock, Nginx, Server};

const UNAUTHORIZED: Option<&[u8]> = Some(b"401");

/// A server, and what it is to get.
pub(crate) struct Contestant {
    pub(crate) name: &'static str,
    pub(crate) server: Server,
    /// Where it takes interactions.
    pub(crate) path: &'static str,
    pub(crate) answerer: Answerer,
    /// The status by which it refuses a forgery; Nginx, which refuses none, has no such.
    pub(crate) refusal: Option<&'static [u8]>,
    pub(crate) pace: Pace,
}

/// Whether it gets many requests in a round, or few because each takes it long.
#[derive(Clone, Copy)]
pub(crate) enum Pace {
    Fast,
    Slow,
}

/// Starts all of them, Nginx first, and tells what they run on.
pub(crate) fn start(key: &PublicKey, handler: &Handler) -> Result<(Vec<Contestant>, String)> {
    let nginx = Nginx::find()?;
    let (express, node) = express()?;
    let ([flask, hikari], python) = python()?;
    let versions = format!("Nginx {}, Node.js {node}, {python}", nginx.version);
    let forwarding = |name, server, refusal| Contestant {
        name,
        server,
        path: "/interactions",
        answerer: Answerer::Handler,
        refusal,
        pace: Pace::Fast,
    };
    let daemon = Path::new(env!("CARGO_BIN_EXE_shardless"));
    let mut contestants = vec![
        forwarding("Nginx, forwards only", nginx.start(handler.address)?, None),
        forwarding("shardless, forwards", Server::daemon(daemon, key, handler.address, "")?, UNAUTHORIZED),
    ];
    let mut in_process = Command::new(std::env::current_exe()?);
    in_process.arg(in_process::ARGUMENT);
    let bot = |name, server, pace| Contestant {
        name,
        server,
        path: "/interactions",
        answerer: Answerer::Bot,
        refusal: UNAUTHORIZED,
        pace,
    };
    let threads = |command| Server::bot(command, key, Clock::Threads);
    contestants.push(bot("hyper, ed25519-dalek", threads(in_process)?, Pace::Fast));
    contestants.push(bot("express, discord-interactions", threads(express)?, Pace::Slow));
    // Its threads end with each connection, and its connections with each answer.
    let flask = Server::bot(flask, key, Clock::Process)?;
    contestants.push(bot("Flask, discord-interactions", flask, Pace::Slow));
    let hikari = bot("hikari's RESTBot", threads(hikari)?, Pace::Slow);
    contestants.push(Contestant { path: "/", refusal: Some(b"400"), ..hikari });
    Ok((contestants, versions))
}

/// The bot, and Node's version.
fn express() -> Result<(Command, String)> {
    let folder = source("tests/e2e/bots/express");
    let version = version(Path::new("node"))?;
    installed(&folder.join("node_modules/.installed"))?;
    let mut command = Command::new("node");
    // Express asks for it in production: it caches more and tells less.
    command.arg(folder.join("bot.js")).env("NODE_ENV", "production");
    Ok((command, version))
}

/// Both bots, and Python's version.
fn python() -> Result<([Command; 2], String)> {
    let venv = source("target/venv");
    installed(&venv.join(".installed"))?;
    let program = venv.join("bin/python");
    let version = version(&program)?;
    let mut flask = Command::new(&program);
    flask.arg(source("tests/e2e/bots/flask/bot.py"));
    let mut hikari = Command::new(&program);
    // Optimised, as its authors ask for.
    hikari.arg("-OO").arg(source("tests/e2e/bots/hikari/bot.py"));
    Ok(([flask, hikari], version))
}

fn version(program: &Path) -> Result<String> {
    let output = Command::new(program).arg("--version").output();
    let output = output.with_context(|| missing(program))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().trim_start_matches('v').to_owned())
}

fn installed(file: &Path) -> Result<()> {
    ensure!(file.exists(), missing(file));
    Ok(())
}

fn missing(what: &Path) -> String {
    format!("{} is missing, which a bot to compare with needs: run tests/install", what.display())
}

fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
