//! What a second worker, and a second core, are good for.

use anyhow::{Result, ensure};

use crate::Bench;
use crate::load::{Clients, Discord};
use crate::process::{NginxSetup, Server, confined};
use crate::turns::{Turns, take_turns};
use crate::units::judge;

const CONNECTIONS: usize = 32;
/// CPU time per request with two workers, by that with one.
const BAR: f64 = 1.15;
/// What the daemon calls its threads that serve connections.
const WORKER: &str = "worker";

pub(crate) async fn measure(bench: &Bench) -> Result<()> {
    println!("\n## Throughput and CPU time per request\n");
    println!(
        "Closed loop, {CONNECTIONS} connections; generator and handler take their time from the same cores."
    );
    println!("\"Cores busy\" is the server's CPU time by the clock.\n");
    println!("| | requests/s | CPU time per request | cores busy |");
    println!("|---|--:|--:|--:|");
    let mut discord = Discord::new()?;
    let workers = workers(bench, &mut discord).await?;
    confinement(bench, &mut discord).await?;
    let [least, ratio, most] = workers[1].cpu_by(&workers[0]);
    println!();
    let rounds = workers[0].rounds();
    let what = format!(
        "CPU time per request with two workers by that with one, median of {rounds} rounds ({least:.2}–{most:.2})"
    );
    judge(&what, ratio, BAR, "");
    Ok(())
}

/// One and two workers, on all cores: the daemon starts as many as it has cores, and gets the others afterwards.
async fn workers(bench: &Bench, discord: &mut Discord) -> Result<Vec<Turns>> {
    let mut servers = Vec::new();
    for cores in ["0", "0,1"] {
        let server = bench.start_daemon_by(confined(&bench.daemon, Some(cores)), discord)?;
        Clients::connect(server.address, 1).await?.play(discord.pings(1)).await?;
        server.set_free()?;
        servers.push(server);
    }
    for workers in ["1", "2"] {
        let setup = NginxSetup { workers, ..NginxSetup::default() };
        servers.push(bench.nginx.start_as(bench.handler.address, &setup)?);
    }
    let names = ["daemon, 1 worker", "daemon, 2 workers", "Nginx, 1 worker", "Nginx, 2 workers"];
    let turns = rounds(bench, discord, &servers, &names, 8).await?;
    // Otherwise the comparison would be of two that are the same.
    for (server, expected) in servers.iter().zip([1, 2]) {
        let workers = server.threads(WORKER)?;
        ensure!(workers == expected, "the daemon has {workers} workers instead of {expected}");
    }
    Ok(turns)
}

/// One and two cores, each with as many workers; generator and handler are free to run on all.
async fn confinement(bench: &Bench, discord: &mut Discord) -> Result<()> {
    let mut servers = Vec::new();
    for cores in ["0", "0,1"] {
        servers.push(bench.start_daemon_by(confined(&bench.daemon, Some(cores)), discord)?);
    }
    for (cores, workers) in [("0", "1"), ("0,1", "2")] {
        let setup = NginxSetup { cores: Some(cores), workers, ..NginxSetup::default() };
        servers.push(bench.nginx.start_as(bench.handler.address, &setup)?);
    }
    let names = ["daemon on 1 core", "daemon on 2 cores", "Nginx on 1 core", "Nginx on 2 cores"];
    rounds(bench, discord, &servers, &names, 5).await?;
    Ok(())
}

async fn rounds(
    bench: &Bench,
    discord: &mut Discord,
    servers: &[Server],
    names: &[&str],
    rounds: usize,
) -> Result<Vec<Turns>> {
    let requests = bench.many(6_000, 3_000);
    let servers: Vec<_> = servers.iter().collect();
    let rounds = bench.many(rounds, 2);
    let batch = |_| discord.commands(CONNECTIONS + requests);
    let all = take_turns(&servers, rounds, CONNECTIONS, &bench.handler, batch).await?;
    for (name, turns) in names.iter().zip(&all) {
        println!("| {name} | {:.0} | {:.1} µs | {:.2} |", turns.throughput(), turns.cpu(), turns.busy());
    }
    Ok(all)
}
