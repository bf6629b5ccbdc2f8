//! Deferral records per second, beside a plain loop of appends of the same size that are each brought to the disk.
//!
//! `cargo bench --bench outbox`; the two take turns, so that whatever else the disk does meets both.

#![allow(clippy::print_stdout, reason = "a tool of a person at a terminal")]

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use shardless::budget::Budget;
use shardless::clock::{Clock, SystemClock};
use shardless::discord::Token;
use shardless::discord::deferral::Deferral;
use shardless::metrics::Metrics;
use shardless::outbox::{Deferred, Health, Outbox};

/// Rounds, and records of one round for each who writes.
const ROUNDS: usize = 15;
const RECORDS: usize = 200;
/// Those who write at once.
const MANY: usize = 64;
/// Bytes of a record: what a row takes in the database, its token of Discord's size being most of it.
const RECORD: usize = 512;
const TOKEN: usize = 240;

#[tokio::main]
async fn main() -> Result<()> {
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("this is a load, not a test: run it with `cargo bench --bench outbox`");
        return Ok(());
    }
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let (outbox, _dues) = Outbox::new(Arc::new(SystemClock), Arc::new(Metrics::default()));
    outbox.keep_in(folder.path().to_owned());
    while outbox.health() != Health::Durable {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (mut single, mut many, mut ratios) = (Vec::new(), Vec::new(), (Vec::new(), Vec::new()));
    let mut plain = Vec::new();
    for round in 0..ROUNDS {
        let appends = append(folder.path(), round)?;
        let one = defer(&outbox, 1).await?;
        let all = defer(&outbox, MANY).await?;
        // The first warms up.
        if round > 0 {
            ratios.0.push(one / appends);
            ratios.1.push(all / appends);
            plain.push(appends);
            single.push(one);
            many.push(all);
        }
    }
    println!("records per second, medians of {} rounds, and ratios to the plain loop", plain.len());
    println!("plain loop of fsynced appends {:>8.0}", median(&mut plain)?);
    for (name, rates, ratios, bar) in [
        ("outbox, 1 at once", &mut single, &mut ratios.0, 0.8),
        ("outbox, 64 at once", &mut many, &mut ratios.1, 3.0),
    ] {
        let (rate, ratio) = (median(rates)?, median(ratios)?);
        let (least, most) = (ratios.first().context("no round")?, ratios.last().context("no round")?);
        println!("{name:<30}{rate:>8.0}   {ratio:>5.2} ({least:.2}–{most:.2}), to be {bar} at least");
        ensure!(ratio >= bar, "{name}: too slow");
    }
    outbox.close().await;
    Ok(())
}

/// Appends per second.
fn append(folder: &Path, round: usize) -> Result<f64> {
    let path = folder.join(format!("plain-{round}"));
    let mut file: File = OpenOptions::new().append(true).create_new(true).open(&path)?;
    let record = [b'x'; RECORD];
    let start = Instant::now();
    for _ in 0..RECORDS {
        file.write_all(&record)?;
        file.sync_data()?;
    }
    let rate = rate(RECORDS, start);
    std::fs::remove_file(path)?;
    Ok(rate)
}

/// Deferrals per second that are on disk before they would be sent; then their handlers answer in time after all.
async fn defer(outbox: &Outbox, at_once: usize) -> Result<f64> {
    let start = Instant::now();
    let writers: Vec<_> = (0..at_once)
        .map(|_| {
            let outbox = outbox.clone();
            tokio::spawn(async move {
                let room = Budget::new(RECORDS);
                for id in 0..RECORDS {
                    let room = room.try_one().context("no room")?;
                    let ticket = outbox.begin(deferred(id)?, room);
                    ensure!(ticket.committed().await, "the disk fails: {:?}", outbox.health());
                    ticket.withdraw();
                }
                Ok(())
            })
        })
        .collect();
    for writer in writers {
        writer.await??;
    }
    Ok(rate(at_once * RECORDS, start))
}

fn deferred(id: usize) -> Result<Deferred> {
    let now = tokio::time::Instant::now();
    Ok(Deferred {
        app: "mybot".into(),
        id: u64::try_from(id)?,
        application: 1,
        token: Token::new(&"x".repeat(TOKEN)).context("no token")?,
        deferral: Deferral::Message { private: false },
        route: None,
        arrived: SystemClock.unix_time(),
        give_up: now + Duration::from_secs(800),
        expires: Deferred::expiry(now),
        asleep: Duration::ZERO,
        fallback: "This took too long. Please try again.".into(),
    })
}

#[allow(clippy::cast_precision_loss, reason = "counts are small")]
fn rate(count: usize, start: Instant) -> f64 {
    count as f64 / start.elapsed().as_secs_f64()
}

/// Sorts them, too.
fn median(values: &mut [f64]) -> Result<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().context("no round")
}
