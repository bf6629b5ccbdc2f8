//! How the daemon's cost grows: with the rate of requests, connections, applications, routes and bodies.
//!
//! `cargo bench --bench scale`; `README.md` beside this folder says how to read the result.

#![allow(clippy::print_stdout, clippy::indexing_slicing, reason = "a tool of a person at a terminal")]
#![allow(dead_code, reason = "what benchmarks share is more than one of them uses")]

mod applications;
mod bodies;
#[path = "../support/handler.rs"]
mod handler;
mod latency;
#[path = "../support/load.rs"]
mod load;
mod memory;
mod open_loop;
#[path = "../support/plot.rs"]
mod plot;
#[path = "../support/process.rs"]
mod process;
#[path = "../support/table.rs"]
mod table;
mod throughput;
mod turns;
mod units;
#[path = "../support/wire.rs"]
mod wire;

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

use handler::Handler;
use load::Discord;
use process::{Nginx, Server};
use table::machine;

/// What can be asked for.
const SECTIONS: [&str; 5] = ["latency", "throughput", "memory", "applications", "bodies"];

/// What is measured, and with what.
struct Bench {
    daemon: PathBuf,
    nginx: Nginx,
    handler: Handler,
    sections: Vec<String>,
    /// Coarse, and without plots.
    is_quick: bool,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let Some(bench) = Bench::parse(&arguments).await? else {
        println!("this is a load, not a test: run it with `cargo bench --bench scale`");
        return Ok(());
    };
    // Thousands of connections are open at both ends; the servers inherit it.
    rlimit::increase_nofile_limit(u64::MAX)?;
    // Whatever ends the run, the servers are dropped, and so stopped.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        done = bench.measure() => done,
        _ = terminate.recv() => bail!("terminated"),
        _ = interrupt.recv() => bail!("interrupted"),
    }
}

impl Bench {
    /// `None` where Cargo only tries whether the benchmarks run: it passes `--bench` to one that is meant.
    async fn parse(arguments: &[String]) -> Result<Option<Self>> {
        let mut daemon = PathBuf::from(env!("CARGO_BIN_EXE_shardless"));
        let (mut sections, mut is_quick, mut is_meant) = (Vec::new(), false, false);
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--bench" => is_meant = true,
                "--test" => return Ok(None),
                "--quick" => is_quick = true,
                "--daemon" => daemon = arguments.next().context("--daemon needs a path")?.into(),
                section if SECTIONS.contains(&section) => sections.push(section.to_owned()),
                other => bail!("{other}: expected --quick, --daemon PATH, or one of {}", SECTIONS.join(", ")),
            }
        }
        if !is_meant {
            return Ok(None);
        }
        if sections.is_empty() {
            sections.extend(SECTIONS.map(str::to_owned));
        }
        let (nginx, handler) = (Nginx::find()?, Handler::start().await?);
        Ok(Some(Self { daemon, nginx, handler, sections, is_quick }))
    }

    async fn measure(&self) -> Result<()> {
        let commands = Discord::new()?.commands(1)?.body_length();
        println!("{}; Nginx {}, access log on;", machine(), self.nginx.version);
        println!("commands of {commands} bytes, unless something else is said.");
        let start = Instant::now();
        for section in &self.sections {
            match section.as_str() {
                "latency" => latency::measure(self).await?,
                "throughput" => throughput::measure(self).await?,
                "memory" => memory::measure(self).await?,
                "applications" => applications::measure(self).await?,
                _ => bodies::measure(self).await?,
            }
        }
        println!("\nAll of it took {:.0} s.", start.elapsed().as_secs_f64());
        Ok(())
    }

    /// So many of something, or so few for a coarse run.
    fn many<T>(&self, usual: T, quick: T) -> T {
        if self.is_quick { quick } else { usual }
    }

    /// The daemon by its default config, but for `settings`.
    fn start_daemon(&self, discord: &Discord, settings: &str) -> Result<Server> {
        Server::daemon(&self.daemon, discord.public_key(), self.handler.address, settings)
    }

    /// The same by a command.
    fn start_daemon_by(&self, command: Command, discord: &Discord) -> Result<Server> {
        Server::daemon_by(command, discord.public_key(), self.handler.address, "")
    }
}
