//! What it costs to see what the daemon does: the admin listener with its page and metrics, and the log, beside the same
//! daemon with neither.
//!
//! `cargo bench --bench watching`; `README.md` beside this folder says how to read the result.

#![allow(clippy::print_stdout, clippy::indexing_slicing, reason = "a tool of a person at a terminal")]
#![allow(dead_code, reason = "what benchmarks share is more than one of them uses")]

#[path = "../support/callgrind.rs"]
mod callgrind;
#[path = "../support/handler.rs"]
mod handler;
#[path = "../support/load.rs"]
mod load;
#[path = "../support/process.rs"]
mod process;
#[path = "../support/wire.rs"]
mod wire;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use callgrind::Count;
use handler::Handler;
use load::{Clients, Discord, cost_per_request};
use process::{Server, free_address};

/// Connections of the large load.
const MANY: usize = 32;
/// Pages that are open at once.
const PAGES: usize = 50;

/// How much is measured.
struct Plan {
    rounds: usize,
    /// Requests of a load at [`MANY`] connections.
    many: usize,
    /// Requests of a load at one connection.
    single: usize,
    /// Requests that instructions are counted for.
    counted: usize,
    /// How long pages are open.
    open: Duration,
}

/// One of both daemons.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Everything that shows something: admin listener, an open page, a scrape each second, a line for each interaction.
    On,
    /// Nothing of it.
    Off,
}

struct Daemon {
    server: Server,
    admin: u16,
}

impl Daemon {
    fn start(command: Command, kind: Kind, discord: &Discord, handler: &Handler) -> Result<Self> {
        let admin = free_address()?.port();
        let settings = match kind {
            Kind::On => format!("[log]\nlevel = \"info\"\n[admin]\nport = {admin}\n"),
            Kind::Off => "[log]\nlevel = \"off\"\n".to_owned(),
        };
        let server = Server::daemon_by(command, discord.public_key(), handler.address, &settings)?;
        Ok(Self { server, admin })
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    if !has("--bench") {
        println!("this is a load, not a test: run it with `cargo bench --bench watching`");
        return Ok(());
    }
    let mut plan =
        Plan { rounds: 12, many: 10_000, single: 3_000, counted: 1_000, open: Duration::from_secs(20) };
    if has("--quick") {
        let open = Duration::from_secs(5);
        plan = Plan { rounds: 3, many: 4_000, single: 1_000, counted: 300, open };
    }
    let program = PathBuf::from(env!("CARGO_BIN_EXE_shardless"));
    let handler = Handler::start().await?;
    let mut discord = Discord::new()?;
    measure_time(&plan, &program, &mut discord, &handler).await?;
    count_instructions(&plan, &program, &mut discord, &handler).await?;
    measure_pages(&plan, &program, &mut discord, &handler).await
}

/// CPU time of both, in turns.
async fn measure_time(plan: &Plan, program: &Path, discord: &mut Discord, handler: &Handler) -> Result<()> {
    let on = Daemon::start(Command::new(program), Kind::On, discord, handler)?;
    let off = Daemon::start(Command::new(program), Kind::Off, discord, handler)?;
    Clients::connect(on.server.address, 1).await?;
    let page = tokio::spawn(Page::open(on.admin).await?.read());
    let scraping = tokio::spawn(scrape(on.admin));
    for (name, connections, requests) in
        [("32 connections", MANY, plan.many), ("1 connection", 1, plan.single)]
    {
        let mut ratios = Vec::new();
        let mut costs = [Vec::new(), Vec::new()];
        for round in 0..plan.rounds {
            let mut cost = [Duration::ZERO; 2];
            // Who goes first changes with each round.
            for turn in [round, round + 1] {
                let batch = discord.commands(connections + requests)?;
                let server = if turn % 2 == 0 { &on.server } else { &off.server };
                cost[turn % 2] = cost_per_request(server, batch, connections).await?;
                let calls = handler.take_calls();
                ensure!(calls == connections + requests, "the handler got {calls} requests");
            }
            ratios.push(cost[0].as_secs_f64() / cost[1].as_secs_f64());
            costs[0].push(cost[0].as_secs_f64() * 1e6);
            costs[1].push(cost[1].as_secs_f64() * 1e6);
        }
        let (least, most) = (percentile(&ratios, 0.0), percentile(&ratios, 1.0));
        println!(
            "CPU time per command, {name}: all on {:.1} µs, all off {:.1} µs, ratio {:.3} ({least:.2}–{most:.2}, {} rounds)",
            percentile(&costs[0], 0.5),
            percentile(&costs[1], 0.5),
            percentile(&ratios, 0.5),
            plan.rounds
        );
    }
    page.abort();
    scraping.abort();
    Ok(())
}

/// Instructions of both for a command.
async fn count_instructions(
    plan: &Plan,
    program: &Path,
    discord: &mut Discord,
    handler: &Handler,
) -> Result<()> {
    let mut counts = [0.0; 2];
    for (kind, count) in [Kind::On, Kind::Off].into_iter().zip(&mut counts) {
        let few = instructions(program, kind, discord, handler, plan.counted / 10).await?;
        let many = instructions(program, kind, discord, handler, plan.counted).await?;
        *count = callgrind::of_one([few, many], [plan.counted / 10, plan.counted]);
    }
    println!(
        "instructions per command (callgrind): all on {:.0}, all off {:.0}, ratio {:.3}",
        counts[0],
        counts[1],
        counts[0] / counts[1]
    );
    Ok(())
}

/// Of a whole run with that many commands.
async fn instructions(
    program: &Path,
    kind: Kind,
    discord: &mut Discord,
    handler: &Handler,
    requests: usize,
) -> Result<f64> {
    let count = Count::new()?;
    let command = count.command(program);
    let mut daemon = Daemon::start(command, kind, discord, handler)?;
    let batch = discord.commands(requests)?;
    Clients::connect(daemon.server.address, 1).await?.play(batch).await?;
    handler.take_calls();
    daemon.server.end()?;
    count.total()
}

/// What pages cost that stand open, while a little is going on.
async fn measure_pages(plan: &Plan, program: &Path, discord: &mut Discord, handler: &Handler) -> Result<()> {
    let daemon = Daemon::start(Command::new(program), Kind::On, discord, handler)?;
    let mut clients = Clients::connect(daemon.server.address, 1).await?;
    let mut shares = Vec::new();
    for pages in [0, PAGES] {
        let mut open = JoinSet::new();
        for _ in 0..pages {
            let page = Page::open(daemon.admin).await?;
            open.spawn(page.read());
        }
        let (start, before) = (Instant::now(), daemon.server.cpu_time()?);
        while start.elapsed() < plan.open {
            clients = clients.play(discord.commands(10)?).await?;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let spent = daemon.server.cpu_time()? - before;
        shares.push(100.0 * spent.as_secs_f64() / start.elapsed().as_secs_f64());
        open.abort_all();
    }
    println!(
        "{PAGES} open pages at 10 interactions a second: {:.2} % of a core, without them {:.2} %, difference {:.2} %",
        shares[1],
        shares[0],
        shares[1] - shares[0]
    );
    Ok(())
}

/// As Prometheus does, but each second.
async fn scrape(port: u16) -> Result<()> {
    loop {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
        stream.read_to_end(&mut Vec::new()).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Somebody who looks at the page.
struct Page(TcpStream);

impl Page {
    async fn open(port: u16) -> Result<Self> {
        let start = Instant::now();
        // It is bound after the daemon's own port.
        let mut stream = loop {
            match TcpStream::connect(("127.0.0.1", port)).await {
                Ok(stream) => break stream,
                Err(error) if start.elapsed() > Duration::from_secs(10) => return Err(error.into()),
                Err(_) => tokio::task::yield_now().await,
            }
        };
        stream.write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").await?;
        let mut first = [0; 12];
        stream.read_exact(&mut first).await?;
        ensure!(&first == b"HTTP/1.1 200", "no page");
        Ok(Self(stream))
    }

    async fn read(mut self) {
        let mut buffer = vec![0; 64 * 1024];
        while self.0.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
    }
}

fn percentile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let index = ((sorted.len() - 1) as f64 * part).round() as usize;
    sorted[index]
}
