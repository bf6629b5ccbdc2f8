//! How many instructions the daemon takes for a request, and its parts for theirs.
//!
//! `cargo bench --bench instructions`; `README.md` beside this folder says how to read the result.

#![allow(
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a tool of a person at a terminal"
)]
#![allow(dead_code, reason = "what benchmarks share is more than one of them uses")]

#[path = "../support/callgrind.rs"]
mod callgrind;
#[path = "../support/handler.rs"]
mod handler;
#[path = "../support/load.rs"]
mod load;
mod parts;
#[path = "../support/plot.rs"]
mod plot;
#[path = "../support/process.rs"]
mod process;
#[path = "../support/steps.rs"]
mod steps;
#[path = "../support/table.rs"]
mod table;
#[path = "../support/wire.rs"]
mod wire;

use std::path::Path;

use anyhow::{Result, bail, ensure};

use callgrind::Count;
use handler::Handler;
use load::{Batch, Clients, Discord};
use plot::Bars;
use process::Server;

/// How much is counted.
#[derive(Clone, Copy)]
struct Plan {
    /// Times that a whole request is counted.
    repeats: usize,
    /// Requests, or steps, of a short run and of a long one.
    counts: [usize; 2],
    /// Whether the committed plot is to show it.
    is_plotted: bool,
}

const FULL: Plan = Plan { repeats: 3, counts: [100, 1_000], is_plotted: true };
const QUICK: Plan = Plan { repeats: 1, counts: [50, 300], is_plotted: false };

/// A kind of request: its name, how it is made, and whether it reaches the handler.
type Kind = (&'static str, fn(&mut Discord, usize) -> Result<Batch>, bool);

const KINDS: [Kind; 3] = [
    ("a whole command", |discord, count| discord.commands(count), true),
    ("a whole PING", |discord, count| Ok(discord.pings(count)), false),
    ("a whole forgery", |discord, count| discord.forgeries(count), false),
];

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let mut plan = FULL;
    let mut is_meant = false;
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            parts::ARGUMENT => return parts::take_steps(rest.as_slice()),
            // Cargo passes it to a benchmark that is meant, and not where it only tries whether they run.
            "--bench" => is_meant = true,
            "--quick" => plan = QUICK,
            other => bail!("{other}: expected --quick, or nothing"),
        }
    }
    if !is_meant {
        println!("this takes valgrind and its time: run it with `cargo bench --bench instructions`");
        return Ok(());
    }
    measure(plan).await
}

async fn measure(plan: Plan) -> Result<()> {
    // Before anything is said: valgrind may be missing.
    drop(Count::new()?);
    println!("{}\n", table::machine());
    println!("| instructions | | of all counts |\n|---|--:|--:|");
    let mut rows = Vec::new();
    let mut tell = |name: &str, counts: &[f64]| {
        let [least, median, most] = table::spread(counts.iter().copied());
        let [from, count, to] = [least, median, most].map(plot::number);
        println!(
            "| {name} | {count} | {} |",
            if counts.len() > 1 { format!("{from}–{to}") } else { String::new() }
        );
        rows.push((name.to_owned(), vec![median]));
    };
    let handler = Handler::start().await?;
    let mut discord = Discord::new()?;
    for kind in KINDS {
        let mut counts = Vec::new();
        for _ in 0..plan.repeats {
            counts.push(request(plan, kind, &mut discord, &handler).await?);
        }
        tell(kind.0, &counts);
    }
    for part in parts::all() {
        let count = part.count(plan.counts)?;
        tell(&part.name, &[count]);
    }
    if plan.is_plotted {
        let bars =
            Bars { title: "Instructions of the daemon", unit: "", kinds: &["instructions"], rows: &rows };
        println!("\n{}", plot::bars("instructions", &bars)?.display());
    }
    Ok(())
}

/// Instructions of the daemon for one request of that kind.
async fn request(plan: Plan, kind: Kind, discord: &mut Discord, handler: &Handler) -> Result<f64> {
    let mut totals = [0.0; 2];
    for (total, requests) in totals.iter_mut().zip(plan.counts) {
        *total = requests_in_all(kind, requests, discord, handler).await?;
    }
    Ok(callgrind::of_one(totals, plan.counts))
}

/// Instructions of a whole run with that many requests, one after the other.
async fn requests_in_all(
    (_, make, reaches_handler): Kind,
    requests: usize,
    discord: &mut Discord,
    handler: &Handler,
) -> Result<f64> {
    let count = Count::new()?;
    let command = count.command(Path::new(env!("CARGO_BIN_EXE_shardless")));
    let mut daemon = Server::daemon_by(command, discord.public_key(), handler.address, "")?;
    Clients::connect(daemon.address, 1).await?.play(make(discord, requests)?).await?;
    daemon.end()?;
    let (calls, expected) = (handler.take_calls(), if reaches_handler { requests } else { 0 });
    ensure!(calls == expected, "the handler got {calls} requests, not {expected}");
    count.total()
}
