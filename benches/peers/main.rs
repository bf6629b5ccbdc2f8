//! What a bot's author would do without the daemon: servers that verify Discord's signature by themselves and answer the
//! command in their own process, each beside the daemon and beside Nginx's plain `proxy_pass`.
//!
//! `cargo bench --bench peers`; `README.md` beside this folder says how to read the result.

#![allow(clippy::print_stdout, clippy::indexing_slicing, reason = "a tool of a person at a terminal")]
#![allow(dead_code, reason = "what benchmarks share is more than one of them uses")]

mod contestants;
#[path = "../support/handler.rs"]
mod handler;
mod in_process;
#[path = "../support/load.rs"]
mod load;
#[path = "../support/plot.rs"]
mod plot;
#[path = "../support/process.rs"]
mod process;
mod report;
#[path = "../support/table.rs"]
mod table;
#[path = "../support/wire.rs"]
mod wire;

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::signal::unix::{SignalKind, signal};

use contestants::{Contestant, Pace};
use handler::Handler;
use load::{Answerer, Clients, Discord, cost_per_request};
use report::{Report, Round};

/// Connections of the large load.
const MANY: usize = 32;

/// How much is measured.
#[derive(Clone, Copy)]
struct Plan {
    rounds: usize,
    /// Requests of a load at [`MANY`] connections, and at one, to a server that is fast and to one that is not.
    fast: [usize; 2],
    slow: [usize; 2],
    /// Whether the committed plot is to show it.
    is_plotted: bool,
}

const FULL: Plan = Plan { rounds: 8, fast: [10_000, 3_000], slow: [2_000, 1_000], is_plotted: true };
const QUICK: Plan = Plan { rounds: 2, fast: [4_000, 1_000], slow: [500, 300], is_plotted: false };

#[tokio::main]
async fn main() -> Result<()> {
    let mut plan = FULL;
    let mut is_meant = false;
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            in_process::ARGUMENT => return in_process::serve().await,
            // Cargo passes it to a benchmark that is meant, and not where it only tries whether they run.
            "--bench" => is_meant = true,
            "--quick" => plan = QUICK,
            other => bail!("{other}: expected --quick, or nothing"),
        }
    }
    if !is_meant {
        println!("this is a load, not a test: run it with `cargo bench --bench peers`");
        return Ok(());
    }
    // Whatever ends the run, the servers are dropped, and so stopped.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        done = measure(plan) => done,
        _ = terminate.recv() => bail!("terminated"),
        _ = interrupt.recv() => bail!("interrupted"),
    }
}

async fn measure(plan: Plan) -> Result<()> {
    let handler = Handler::start().await?;
    let mut discord = Discord::new()?;
    let (contestants, versions) = contestants::start(discord.public_key(), &handler)?;
    for contestant in &contestants {
        prepare(plan, contestant, &mut discord).await.context(contestant.name)?;
    }
    handler.take_calls();
    let mut rounds = Vec::new();
    for number in 1..=plan.rounds {
        let round = round(plan, number, &contestants, &mut discord, &handler).await?;
        println!("round {number} of {}: {}", plan.rounds, report::line(&contestants, &round));
        rounds.push(round);
    }
    let body_bytes = discord.plain_commands("/", Answerer::Bot, 1)?.body_length();
    let report = Report { contestants: &contestants, versions, body_bytes, rounds };
    println!("\n{report}");
    if plan.is_plotted {
        println!("{}", report.plot()?.display());
    }
    Ok(())
}

/// Sees that it verifies, and warms it up: some compile themselves while they run.
async fn prepare(plan: Plan, contestant: &Contestant, discord: &mut Discord) -> Result<()> {
    let Contestant { server, path, answerer, refusal, .. } = contestant;
    if let Some(status) = refusal {
        Clients::connect(server.address, 1).await?.play(discord.forgery(path, status)?).await?;
    }
    let batch = discord.plain_commands(path, *answerer, plan.slow[0])?;
    Clients::connect(server.address, MANY).await?.play(batch).await?;
    Ok(())
}

/// Each load at each contestant, one after the other; who goes first changes with each round.
async fn round(
    plan: Plan,
    number: usize,
    contestants: &[Contestant],
    discord: &mut Discord,
    handler: &Handler,
) -> Result<Round> {
    let mut round = vec![[Duration::ZERO; 2]; contestants.len()];
    for (load, connections) in [MANY, 1].into_iter().enumerate() {
        for turn in 0..contestants.len() {
            let index = (number + turn) % contestants.len();
            let Contestant { server, path, answerer, pace, .. } = &contestants[index];
            let requests = match pace {
                Pace::Fast => plan.fast[load],
                Pace::Slow => plan.slow[load],
            };
            let batch = discord.plain_commands(path, *answerer, connections + requests)?;
            round[index][load] = cost_per_request(server, batch, connections).await?;
            let expected = if *answerer == Answerer::Handler { connections + requests } else { 0 };
            let calls = handler.take_calls();
            ensure!(calls == expected, "the handler got {calls} requests, not {expected}");
        }
    }
    Ok(round)
}
