//! What is told at the end, and what has to hold.

use std::time::Duration;

use super::account::{ANSWERED_TWICE, FORGED_ACCEPTED, FORWARDED_TWICE, LOST, Sum};
use super::{STEADY, World, driver};

/// A run that long is judged by its memory.
const LONG: Duration = Duration::from_secs(60 * 60);
/// MiB per hour.
const SLOPE: f64 = 1.0;
/// Of what is wrong, so many are told in full, of each kind.
const TOLD: usize = 5;

/// Prints the table.
pub(super) fn print(world: &World, sum: &Sum, memory: [f64; 4]) {
    println!("\nseed {}, {:.0?} of load, 2 daemons", world.seed, world.length);
    println!("{:>8}  interactions sent, by {} requests", sum.sent, sum.requests);
    for (outcome, count) in &sum.outcomes {
        println!("{count:>8}  {outcome}");
    }
    for wrong in [LOST, ANSWERED_TWICE, FORWARDED_TWICE, FORGED_ACCEPTED] {
        println!("{:>8}  {wrong}", count(sum, wrong));
    }
    println!("what was sent once more to the daemon that stays got:");
    for (got, count) in &sum.copies {
        println!("{count:>8}  {got}");
    }
    println!("besides:");
    println!("{:>8}  forwarded again by the process after one that was killed", sum.again_after_kill);
    println!("{:>8}  follow-ups that came twice", sum.repeated);
    println!("faults:");
    for (what, count) in world.journal.counts() {
        println!("{count:>8}  {what}");
    }
    for daemon in &world.daemons {
        println!("{:>8}  starts of the daemon \"{}\"", daemon.run(), daemon.name);
    }
    let [start, warm, end, slope] = memory;
    println!(
        "memory of the daemon \"{}\": {start:.1} MiB at the start, {warm:.1} after the warm-up, {end:.1} at the end; \
         {slope:+.2} MiB per hour\n",
        world.daemons[STEADY].name
    );
}

fn count(sum: &Sum, wrong: &str) -> usize {
    sum.wrong.get(wrong).map_or(0, Vec::len)
}

/// Prints how it came to what is not to be.
pub(super) fn explain(world: &World, sum: &Sum) {
    for (wrong, items) in &sum.wrong {
        println!("--- {wrong}: {}, of which the first {TOLD}:", items.len());
        let mut items: Vec<_> = items.iter().collect();
        items.sort_unstable();
        for (id, history) in items.into_iter().take(TOLD) {
            println!("{history}  logs:");
            for daemon in &world.daemons {
                for line in daemon.lines(&[format!("id={id}")]) {
                    println!("    {}: {line}", daemon.name);
                }
            }
        }
    }
}

/// What is not as it must be.
pub(super) fn complaints(world: &World, sum: &Sum, memory: [f64; 4]) -> Vec<String> {
    let mut complaints: Vec<_> =
        sum.wrong.iter().map(|(wrong, items)| format!("{}: {wrong}", items.len())).collect();
    for class in ["answered: by", "answered: no", "answered: PONG", "deferred", "refused", "forged: 401"] {
        if !sum.outcomes.keys().any(|outcome| outcome.starts_with(class)) {
            complaints.push(format!("none was {class}"));
        }
    }
    let counts = world.journal.counts();
    complaints.extend(
        driver::kinds().filter(|kind| !counts.contains_key(kind)).map(|kind| format!("never: {kind}")),
    );
    let [.., slope] = memory;
    if world.length >= LONG && slope >= SLOPE {
        complaints.push(format!("memory grows by {slope:.2} MiB per hour"));
    }
    complaints
}
