//! Memory: at rest, with open connections, and with a replay guard that can take no more.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::Bench;
use crate::load::{Batch, Clients, Discord};
use crate::plot::{self, Axis, Lines};
use crate::process::{NginxSetup, Server};
use crate::units::{count, judge, megabytes};

const IDLE_BAR: f64 = 12.0;
const CONNECTED_BAR: f64 = 64.0;
const GUARD_BAR: f64 = 40.0;

/// Connections that are open at once.
const CONNECTED: [usize; 4] = [10, 100, 1_000, 4_000];
/// Of these, commands are in flight at once.
const ABREAST: usize = 32;
/// Files that the bench has open beside connections.
const OTHER_FILES: usize = 200;
/// The daemon keeps that many ids.
const GUARD: usize = 262_144;
/// Commands that are made and sent at once.
const CHUNK: usize = 16_384;
/// An id that is older may be forgotten by its age: the window of the signature's timestamp.
const WINDOW: Duration = Duration::from_secs(300);
/// Answers are kept for duplicates for half of that.
const ANSWERS_GONE: Duration = Duration::from_secs(30);
/// For a server to have done with what it was asked.
const SETTLE: Duration = Duration::from_millis(300);
const NGINX_EVENTS: &str = "worker_connections 8192;";

pub(crate) async fn measure(bench: &Bench) -> Result<()> {
    println!("\n## Memory\n");
    println!(
        "VmRSS of the daemon. Nginx: all its processes, what they share counted once. 1 MB is 10^6 bytes.\n"
    );
    println!("| | daemon | Nginx |");
    println!("|---|--:|--:|");
    let idle = idle(bench).await?;
    let connected = connected(bench).await?;
    let full = if bench.is_quick { None } else { Some(guard(bench).await?) };
    println!();
    judge("idle, after one PING", idle, IDLE_BAR, "MB");
    if let Some((connections, [memory, _])) = connected.last() {
        judge(&format!("{} connections", count(*connections)), *memory, CONNECTED_BAR, "MB");
    }
    match full {
        Some(memory) => judge("replay guard full", memory, GUARD_BAR, "MB"),
        None => println!("- replay guard full: not part of a quick run"),
    }
    if bench.is_quick { Ok(()) } else { draw(&connected) }
}

async fn idle(bench: &Bench) -> Result<f64> {
    let mut discord = Discord::new()?;
    let daemon = bench.start_daemon(&discord, "")?;
    Clients::connect(daemon.address, 1).await?.play(discord.pings(1)).await?;
    let nginx = start_nginx(bench)?;
    Clients::connect(nginx.address, 1).await?;
    sleep(SETTLE).await;
    let memory = megabytes(daemon.resident_bytes()?);
    println!("| idle, after one PING | {memory:.1} MB | {:.1} MB |", megabytes(nginx.proportional_bytes()?));
    Ok(memory)
}

fn start_nginx(bench: &Bench) -> Result<Server> {
    let setup = NginxSetup { events: NGINX_EVENTS, ..NginxSetup::default() };
    bench.nginx.start_as(bench.handler.address, &setup)
}

/// Connections, and megabytes of the daemon and of Nginx.
async fn connected(bench: &Bench) -> Result<Vec<(usize, [f64; 2])>> {
    let files = rlimit::Resource::NOFILE.get_soft()?;
    let mut measured = Vec::new();
    for connections in CONNECTED {
        // The daemon takes half of the files for connections, and has the same limit as this process.
        let needed = 2 * connections + OTHER_FILES;
        ensure!(files >= needed as u64, "{files} open files are allowed (ulimit -Hn), {needed} are needed");
        let mut discord = Discord::new()?;
        let daemon = bench.start_daemon(&discord, "")?;
        let nginx = start_nginx(bench)?;
        let clients =
            [open(&daemon, connections, &mut discord).await?, open(&nginx, connections, &mut discord).await?];
        ensure!(bench.handler.take_calls() == 2 * connections, "commands were lost");
        sleep(SETTLE).await;
        let memory = megabytes(daemon.resident_bytes()?);
        let nginx = megabytes(nginx.proportional_bytes()?);
        println!(
            "| {} connections, a command on each | {memory:.1} MB | {nginx:.1} MB |",
            count(connections)
        );
        drop(clients);
        measured.push((connections, [memory, nginx]));
    }
    Ok(measured)
}

/// Connections that stay open, after a command on each.
async fn open(server: &Server, connections: usize, discord: &mut Discord) -> Result<Clients> {
    let mut all = Clients::connect(server.address, 0).await?;
    let mut left = connections;
    while left > 0 {
        let next = left.min(ABREAST);
        let clients = Clients::connect(server.address, next).await?.play(discord.commands(next)?).await?;
        all = all.and(clients);
        left -= next;
    }
    Ok(all)
}

/// Megabytes of the daemon with as many ids as its guard keeps.
async fn guard(bench: &Bench) -> Result<f64> {
    let discord = Discord::new()?;
    let daemon = bench.start_daemon(&discord, "")?;
    let start = Instant::now();
    let mut clients = Clients::connect(daemon.address, ABREAST).await?;
    let mut authors = [discord.beside(1), discord.beside(2)];
    let mut first = None;
    let mut next = spawn_blocking(move || commands(&mut authors).map(|requests| (requests, authors)));
    for chunk in 1..=GUARD / CHUNK {
        let (requests, mut authors) = next.await??;
        // The next ones are signed while these are sent.
        let is_last = chunk == GUARD / CHUNK;
        next = spawn_blocking(move || {
            let requests = if is_last { Vec::new() } else { commands(&mut authors)? };
            anyhow::Ok((requests, authors))
        });
        first.get_or_insert_with(|| requests[0].clone());
        clients = clients.play(Batch::of_commands(requests)).await?;
        let calls = bench.handler.take_calls();
        ensure!(calls == CHUNK, "the handler got {calls} requests");
    }
    let full = megabytes(daemon.resident_bytes()?);
    println!("| replay guard full ({} ids), just now | {full:.1} MB | |", count(GUARD));
    sleep(ANSWERS_GONE).await;
    let rested = megabytes(daemon.resident_bytes()?);
    println!("| the same, without the answers kept for duplicates | {rested:.1} MB | |");
    // Nothing was forgotten: not by its age, and the first one is known still.
    clients.play(Batch::of_replays(first.into_iter().collect())).await?;
    ensure!(start.elapsed() < WINDOW, "too slow: the first ids have expired");
    ensure!(bench.handler.take_calls() == 0, "a replay reached the handler");
    Ok(full)
}

/// A chunk of commands, made by all authors at once.
fn commands(authors: &mut [Discord]) -> Result<Vec<Vec<u8>>> {
    let each = CHUNK / authors.len();
    let parts = std::thread::scope(|scope| {
        let write = |author: &mut Discord| {
            (0..each)
                .map(|_| author.command("/interactions", "music play", "never gonna give you up"))
                .collect::<Result<Vec<_>>>()
        };
        let threads: Vec<_> = authors.iter_mut().map(|author| scope.spawn(move || write(author))).collect();
        threads.into_iter().map(|thread| thread.join().ok()).collect::<Option<Result<Vec<_>>>>()
    });
    Ok(parts.context("no commands were made")??.concat())
}

fn draw(connected: &[(usize, [f64; 2])]) -> Result<()> {
    let points = |server: usize| {
        connected.iter().map(|(connections, memory)| (*connections as f64, memory[server])).collect()
    };
    plot::lines(
        "scale-memory",
        &Lines {
            title: "Memory, by open connections",
            x: Axis { name: "connections", is_logarithmic: false },
            y: Axis { name: "MB", is_logarithmic: false },
            series: &[("daemon".to_owned(), points(0)), ("Nginx".to_owned(), points(1))],
        },
    )?;
    Ok(())
}
