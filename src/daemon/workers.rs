//! A watch over the runtime's workers: one that is stuck takes the requests along that it had begun.
//!
//! Nothing in the daemon blocks one, so that is a bug, and who is stuck cannot tell of it: a thread of its own looks.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::runtime::{Handle, RuntimeMetrics};
use tracing::{error, info};

use crate::admin::Situation;
use crate::config::LogPart;

/// Between two looks.
const PACE: Duration = Duration::from_secs(1);

/// Looks that a worker may be at one piece of work for: past that, Discord's deadline is over.
const LOOKS: u32 = 3;

/// What is known of the workers.
struct Workers {
    runtime: RuntimeMetrics,
    seen: Vec<Seen>,
}

/// One of them.
#[derive(Clone, Copy, Default)]
struct Seen {
    /// What it told of itself: how long it was at work, and how often it went to rest or came back.
    told: (Duration, u64),
    /// Looks since that changed.
    unchanged: u32,
}

/// Watches over the workers of this runtime from now on, for as long as the process lives.
pub(super) fn watch(situation: Arc<Situation>) {
    let mut workers = Workers::new(Handle::current().metrics());
    let look = move || {
        loop {
            thread::park_timeout(PACE);
            tell(&situation, workers.stuck());
        }
    };
    if let Err(error) = thread::Builder::new().name("watch".to_owned()).spawn(look) {
        error!(target: LogPart::Daemon.target(), "nobody watches over the workers: {error}");
    }
}

fn tell(situation: &Situation, stuck: usize) {
    let before = situation.facts().stuck_workers;
    situation.has_stuck_workers(stuck);
    if stuck > before {
        error!(
            target: LogPart::Daemon.target(),
            "a bug in shardless, please report it: {stuck} of its workers have been at one piece of work for {LOOKS} s"
        );
    } else if before > 0 && stuck == 0 {
        info!(target: LogPart::Daemon.target(), "no worker is stuck any more");
    }
}

impl Workers {
    fn new(runtime: RuntimeMetrics) -> Self {
        let seen = vec![Seen::default(); runtime.num_workers()];
        Self { runtime, seen }
    }

    /// Looks at them once more. How many are stuck.
    fn stuck(&mut self) -> usize {
        let looked = self.seen.iter_mut().enumerate().map(|(worker, seen)| {
            let turns = self.runtime.worker_park_unpark_count(worker);
            let told = (self.runtime.worker_total_busy_duration(worker), turns);
            // By an odd number it rests. At work it tells of itself at each 61st piece at the latest.
            let is_same = turns.is_multiple_of(2) && told == seen.told;
            *seen = Seen { told, unchanged: if is_same { seen.unchanged + 1 } else { 0 } };
            seen.unchanged >= LOOKS
        });
        looked.filter(|is_stuck| *is_stuck).count()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Instant;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);
    const SHORT_PACE: Duration = Duration::from_millis(20);

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap()
    }

    fn looks_until(workers: &mut Workers, stuck: usize) {
        let start = Instant::now();
        while workers.stuck() != stuck {
            assert!(start.elapsed() < PATIENCE, "in vain: {stuck} are stuck");
            thread::park_timeout(SHORT_PACE);
        }
    }

    #[test]
    fn a_worker_is_stuck_until_it_goes_on() {
        let runtime = runtime();
        let mut workers = Workers::new(runtime.metrics());
        let hang = || {
            let (end, ended) = mpsc::sync_channel::<()>(0);
            runtime.spawn(async move { _ = ended.recv() });
            end
        };
        looks_until(&mut workers, 0);
        let first = hang();
        looks_until(&mut workers, 1);
        let second = hang();
        looks_until(&mut workers, 2);
        drop(first);
        looks_until(&mut workers, 1);
        drop(second);
        looks_until(&mut workers, 0);
    }

    #[test]
    fn workers_that_rest_or_have_much_to_do_are_not_stuck() {
        let runtime = runtime();
        let mut workers = Workers::new(runtime.metrics());
        let rest =
            || (0..2).all(|worker| !workers.runtime.worker_park_unpark_count(worker).is_multiple_of(2));
        let start = Instant::now();
        while !rest() {
            assert!(start.elapsed() < PATIENCE, "in vain: all are at rest");
            thread::park_timeout(SHORT_PACE);
        }
        for _ in 0..10 {
            assert_eq!(workers.stuck(), 0, "at rest");
        }
        for _ in 0..4 {
            runtime.spawn(async {
                loop {
                    tokio::task::yield_now().await;
                }
            });
        }
        for _ in 0..5 {
            assert_eq!(workers.stuck(), 0, "at work");
            thread::park_timeout(PACE / 2);
        }
        runtime.shutdown_background();
    }

    #[test]
    fn it_is_told_of_for_as_long_as_it_is_so() {
        let situation = Situation::new(Duration::ZERO, Vec::new());
        for stuck in [1, 2, 2, 0] {
            tell(&situation, stuck);
            assert_eq!(situation.facts().stuck_workers, stuck);
        }
    }
}
