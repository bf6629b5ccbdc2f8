//! What the daemon costs, beside Nginx's plain `proxy_pass` to the same handler under the same load.
//!
//! `cargo bench --bench overhead`; `README.md` beside this folder says how to read the result.

#![allow(clippy::print_stdout, clippy::indexing_slicing, reason = "a tool of a person at a terminal")]
#![allow(dead_code, reason = "what benchmarks share is more than one of them uses")]

#[path = "../support/handler.rs"]
mod handler;
#[path = "../support/load.rs"]
mod load;
#[path = "../support/process.rs"]
mod process;
mod report;
#[path = "../support/table.rs"]
mod table;
#[path = "../support/wire.rs"]
mod wire;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::signal::unix::{SignalKind, signal};

use handler::Handler;
use load::{Clients, Discord, cost_per_request};
use process::{Nginx, Server};
use report::{Cost, Report, Round};

/// Connections of the large load.
const MANY: usize = 32;
/// How much is measured.
struct Plan {
    daemon: PathBuf,
    rounds: usize,
    /// Requests of a load at [`MANY`] connections.
    many: usize,
    /// Requests of a load at one connection.
    single: usize,
    starts: usize,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let Some(plan) = Plan::parse(&arguments)? else {
        println!("this is a load, not a test: run it with `cargo bench --bench overhead`");
        return Ok(());
    };
    // Whatever ends the run, the servers are dropped, and so stopped.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        done = measure(&plan) => done,
        _ = terminate.recv() => bail!("terminated"),
        _ = interrupt.recv() => bail!("interrupted"),
    }
}

impl Plan {
    /// `None` where Cargo only tries whether the benchmarks run: it passes `--bench` to one that is meant.
    fn parse(arguments: &[String]) -> Result<Option<Self>> {
        let daemon = env!("CARGO_BIN_EXE_shardless").into();
        let mut plan = Self { daemon, rounds: 16, many: 10_000, single: 3_000, starts: 20 };
        let mut is_meant = false;
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--bench" => is_meant = true,
                "--test" => return Ok(None),
                "--quick" => plan = Self { rounds: 3, many: 4_000, single: 1_000, ..plan },
                "--daemon" => plan.daemon = arguments.next().context("--daemon needs a path")?.into(),
                other => bail!("{other}: expected --quick, or --daemon PATH for another build"),
            }
        }
        Ok(is_meant.then_some(plan))
    }
}

async fn measure(plan: &Plan) -> Result<()> {
    let nginx = Nginx::find()?;
    let handler = Handler::start().await?;
    let mut discord = Discord::new()?;
    let mut report = Report {
        nginx_version: nginx.version.clone(),
        binary_bytes: std::fs::metadata(&plan.daemon)?.len(),
        body_bytes: discord.commands(1)?.body_length(),
        ..Report::default()
    };
    for _ in 0..plan.starts {
        report.starts.push(start_to_first_pong(&plan.daemon, &mut discord, &handler).await?);
    }
    let daemon = Server::daemon(&plan.daemon, discord.public_key(), handler.address, "")?;
    let nginx = nginx.start(handler.address)?;
    Clients::connect(nginx.address, 1).await?;
    Clients::connect(daemon.address, 1).await?.play(discord.pings(1)).await?;
    report.idle_bytes = daemon.resident_bytes()?;
    for number in 1..=plan.rounds {
        let round = round(plan, number, &mut discord, &handler, [&daemon, &nginx]).await?;
        println!("round {number} of {}: {round}", plan.rounds);
        report.rounds.push(round);
    }
    report.loaded_bytes = daemon.resident_bytes()?;
    println!("\n{report}");
    Ok(())
}

/// From starting the process to the last byte of its first answer.
async fn start_to_first_pong(program: &Path, discord: &mut Discord, handler: &Handler) -> Result<Duration> {
    let ping = discord.pings(1);
    let start = Instant::now();
    let daemon = Server::daemon(program, discord.public_key(), handler.address, "")?;
    Clients::connect(daemon.address, 1).await?.play(ping).await?;
    Ok(start.elapsed())
}

/// Every load once, each at both servers one after the other, so that what else the machine does meets both.
async fn round(
    plan: &Plan,
    number: usize,
    discord: &mut Discord,
    handler: &Handler,
    [daemon, nginx]: [&Server; 2],
) -> Result<Round> {
    let mut pairs = Vec::new();
    for (connections, requests) in [(MANY, plan.many), (1, plan.single)] {
        let [mut ours, mut theirs] = [Duration::ZERO; 2];
        // Who goes first changes with each round.
        for turn in [number, number + 1] {
            let batch = discord.commands(connections + requests)?;
            let (server, cost) = if turn % 2 == 0 { (daemon, &mut ours) } else { (nginx, &mut theirs) };
            *cost = cost_per_request(server, batch, connections).await?;
            let calls = handler.take_calls();
            ensure!(calls == connections + requests, "the handler got {calls} requests");
        }
        pairs.push(Cost { daemon: ours, nginx: theirs });
    }
    let ping = cost_per_request(daemon, discord.pings(MANY + plan.many), MANY).await?;
    let forged = cost_per_request(daemon, discord.forgeries(MANY + plan.many)?, MANY).await?;
    ensure!(handler.take_calls() == 0, "a PING or a forgery reached the handler");
    let [many, single] = pairs[..] else { bail!("two loads were played") };
    let beside = |daemon| Cost { daemon, nginx: many.nginx };
    Ok(Round { many, single, ping: beside(ping), forged: beside(forged) })
}
