//! The command line.
//!
//! These are the tools of a person at a terminal: they alone print.

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod check;
mod demo;
mod explain;
mod keygen;
mod outbox;
mod probe;
mod send;
mod serve;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};

use crate::config::{Config, ConfigError, DEFAULT_PATH};
use crate::workers::Workers;

/// What is wrong stands in a config file; `EX_CONFIG` of sysexits.h, on which a service manager need not try again.
const EXIT_CONFIG: u8 = 78;

/// Where `keygen` writes and `send` reads, in the current folder.
const KEY_FILE: &str = "shardless-dev.key";

/// Lets a Discord bot run without gateway shards: verifies interactions, forwards them to local handlers, and answers
/// Discord in time.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon
    Serve(ConfigFile),
    /// Build what `serve` would build, open no port, and name every mistake with its line
    Check(check::Options),
    /// Play every kind of interaction through a real daemon, with nothing to set up
    Demo(demo::Options),
    /// Play Discord against an endpoint: a handler's own, or the daemon's
    Send(Box<send::Options>),
    /// Make a development key pair, for `send`
    Keygen(keygen::Options),
    /// Look at a public endpoint from outside: can Discord's validation pass, and if not, why?
    Probe(probe::Options),
    /// Look into the outbox: the interactions that Discord was told to wait for
    #[command(subcommand)]
    Outbox(outbox::Command),
}

#[derive(Debug, clap::Args)]
struct ConfigFile {
    /// The config file
    #[arg(long, value_name = "FILE", env = "SHARDLESS_CONFIG", default_value = DEFAULT_PATH)]
    config: PathBuf,
}

impl Cli {
    /// Does what was asked, and says how it went.
    pub fn run(self) -> ExitCode {
        let done = match self.command {
            Command::Serve(file) => serve::run(&file),
            Command::Check(options) => check::run(&options),
            Command::Demo(options) => demo::run(&options),
            Command::Send(options) => send::run(&options),
            Command::Keygen(options) => keygen::run(&options),
            Command::Probe(options) => probe::run(&options),
            Command::Outbox(command) => outbox::run(&command),
        };
        done.unwrap_or_else(|error| {
            eprintln!("shardless: {error:#}");
            ExitCode::FAILURE
        })
    }
}

impl ConfigFile {
    fn load(&self) -> Result<Config, ExitCode> {
        Config::load(&self.config).map_err(|error| report(&error))
    }
}

fn report(error: &ConfigError) -> ExitCode {
    eprintln!("{}", error.render(std::io::stderr().is_terminal()));
    ExitCode::from(EXIT_CONFIG)
}

/// For what the config names and cannot be used.
fn report_build(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("shardless: {error}");
    ExitCode::from(EXIT_CONFIG)
}

fn workers() -> anyhow::Result<Workers> {
    Workers::for_all_processors().context("cannot start the threads that serve connections")
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")
}
