//! What a server adds to the latency of its handler, at rates that are given.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::Bench;
use crate::load::Discord;
use crate::open_loop::{Latencies, Pace, play};
use crate::plot::{self, Axis, Lines};
use crate::process::NginxSetup;
use crate::table::spread;
use crate::units::{count, judge, micros};

/// The rate that the bar is about, and how many microseconds the daemon's p99 may be above Nginx's.
const BAR: (u32, f64) = (1_000, 500.0);
const PARTS: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];
/// Who is asked; what a server adds is beyond the first.
const TARGETS: [&str; 3] = ["the handler directly", "Nginx", "daemon"];
/// Connections of Nginx, on both sides of it, with room to spare.
const NGINX_EVENTS: &str = "worker_connections 8192;";

/// Requests at one rate.
struct Load {
    per_second: u32,
    /// Of each target.
    requests: usize,
    rounds: usize,
}

/// The rounds at one rate: each with what each target's requests took.
struct Measured {
    load: Load,
    rounds: Vec<[Latencies; 3]>,
}

pub(crate) async fn measure(bench: &Bench) -> Result<()> {
    println!("\n## Latency\n");
    println!(
        "Open loop: requests are due at fixed times, and latency counts from then. Medians of all rounds;"
    );
    println!("added: a percentile less that of the handler directly, in the same round.\n");
    let mut discord = Discord::new()?;
    let daemon = bench.start_daemon(&discord, "")?;
    let setup = NginxSetup { events: NGINX_EVENTS, ..NginxSetup::default() };
    let nginx = bench.nginx.start_as(bench.handler.address, &setup)?;
    let targets = [bench.handler.address, nginx.address, daemon.address];
    let load = |per_second, requests, rounds, quick| Load {
        per_second,
        requests: bench.many(requests, requests / 2),
        rounds: bench.many(rounds, quick),
    };
    // Rounds are short, so that what else the machine does spoils few of them.
    let loads = [load(1, 8, 2, 1), load(100, 150, 6, 2), load(1_000, 1_000, 12, 4), load(5_000, 5_000, 6, 2)];
    let mut all = Vec::new();
    println!(
        "| requests/s | | p50 | p99 | p99.9 | added p50 | added p99 | added p99.9 | added p99 of all rounds |"
    );
    println!("|--:|---|--:|--:|--:|--:|--:|--:|--:|");
    for load in loads {
        let measured = at_rate(bench, load, targets, &mut discord).await?;
        measured.print();
        all.push(measured);
    }
    println!();
    for measured in &all {
        measured.judge();
    }
    if bench.is_quick { Ok(()) } else { draw(&all) }
}

async fn at_rate(
    bench: &Bench,
    load: Load,
    targets: [SocketAddr; 3],
    discord: &mut Discord,
) -> Result<Measured> {
    // A third of a second, and no request less than one.
    let warm_up = load.per_second.div_ceil(3) as usize;
    let total = warm_up + load.requests;
    let mut rounds = Vec::new();
    for round in 0..load.rounds {
        let mut batches = Vec::new();
        for _ in targets {
            batches.push(Some(discord.commands(total)?));
        }
        let pace = Pace { per_second: load.per_second, warm_up, after: Duration::from_millis(50) };
        let mut taken = [const { None }; 3];
        if load.per_second == 1 {
            // They take turns within each second.
            let third =
                |number: u32| Pace { after: pace.after + Duration::from_secs(1) * number / 3, ..pace };
            let mut plays = batches
                .into_iter()
                .flatten()
                .zip(targets)
                .zip(0..)
                .map(|((batch, address), number)| play(address, batch, third(number)));
            let (Some(a), Some(b), Some(c)) = (plays.next(), plays.next(), plays.next()) else { continue };
            let (a, b, c) = tokio::try_join!(a, b, c)?;
            taken = [Some(a), Some(b), Some(c)];
        } else {
            for turn in 0..targets.len() {
                let number = (round + turn) % targets.len();
                let Some(batch) = batches[number].take() else { continue };
                taken[number] = Some(play(targets[number], batch, pace).await?);
            }
        }
        let calls = bench.handler.take_calls();
        ensure!(calls == 3 * total, "the handler got {calls} of {} requests", 3 * total);
        let [Some(direct), Some(nginx), Some(daemon)] = taken else { continue };
        rounds.push([direct, nginx, daemon]);
    }
    Ok(Measured { load, rounds })
}

impl Measured {
    /// Microseconds of each round, if there are enough requests for it.
    fn micros(&self, target: usize, part: f64) -> Option<Vec<f64>> {
        self.rounds.iter().map(|round| round[target].percentile(part).map(micros)).collect()
    }

    /// The same less what the handler takes.
    fn added(&self, target: usize, part: f64) -> Option<Vec<f64>> {
        let (own, direct) = (self.micros(target, part)?, self.micros(0, part)?);
        Some(own.iter().zip(&direct).map(|(own, direct)| own - direct).collect())
    }

    fn median(&self, target: usize, part: f64) -> Option<f64> {
        self.micros(target, part).map(|values| spread(values.into_iter())[1])
    }

    fn print(&self) {
        for (target, name) in TARGETS.iter().enumerate() {
            let cell = |value: Option<f64>| value.map_or("–".to_owned(), |value| format!("{value:.0} µs"));
            let own = PARTS.map(|(_, part)| cell(self.median(target, part))).join(" | ");
            let added = |part| (target > 0).then(|| self.added(target, part)).flatten();
            let median = |part| added(part).map(|values| spread(values.into_iter())[1]);
            let medians = PARTS.map(|(_, part)| cell(median(part))).join(" | ");
            let range = added(0.99).map_or("–".to_owned(), |values| {
                let [least, _, most] = spread(values.into_iter());
                format!("{least:.0}–{most:.0} µs")
            });
            let rate = count(self.load.per_second as usize);
            println!("| {rate} | {name} | {own} | {medians} | {range} |");
        }
    }

    /// The bar, and what else is to be known of this rate.
    fn judge(&self) {
        let rate = count(self.load.per_second as usize);
        let all = || self.rounds.iter().flatten();
        let waited: usize = all().map(|latencies| latencies.waited).sum();
        let behind = spread(all().map(|latencies| micros(latencies.behind)))[1];
        let requests = count(self.rounds.len() * TARGETS.len() * self.load.requests);
        println!(
            "- {rate}/s: {requests} requests in {} rounds, 0 errors; {waited} waited for a connection; 90 % were sent at most {behind:.0} µs after they were due",
            self.rounds.len()
        );
        let (Some(nginx), Some(daemon)) = (self.added(1, 0.99), self.added(2, 0.99)) else { return };
        let above = nginx.iter().zip(&daemon).map(|(nginx, daemon)| daemon - nginx);
        let [_, above, _] = spread(above);
        if self.load.per_second == BAR.0 {
            let what =
                format!("the daemon's added p99 at {rate}/s less Nginx's, median of {} rounds", daemon.len());
            judge(&what, above, BAR.1, "µs");
        }
    }
}

fn draw(all: &[Measured]) -> Result<()> {
    let mut series = Vec::new();
    for (target, name) in TARGETS.iter().enumerate() {
        for (word, part) in [PARTS[0], PARTS[1]] {
            let point = |measured: &Measured| {
                Some((f64::from(measured.load.per_second), measured.median(target, part)?))
            };
            series.push((format!("{name}, {word}"), all.iter().filter_map(point).collect()));
        }
    }
    plot::lines(
        "scale-latency",
        &Lines {
            title: "Latency of a command, by rate",
            x: Axis { name: "requests per second", is_logarithmic: true },
            y: Axis { name: "µs from when it was due", is_logarithmic: true },
            series: &series,
        },
    )?;
    Ok(())
}
