//! A watch over the threads of the runtimes: one that is stuck takes the requests along that it had begun.
//!
//! Nothing in the daemon blocks one, so that is a bug, and who is stuck cannot tell of it: a thread of its own looks.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use tokio::runtime::Handle;
use tracing::{error, info};

use crate::admin::Situation;
use crate::config::LogPart;
use crate::workers::{Watched, Workers};

/// Between two looks.
const PACE: Duration = Duration::from_secs(1);

/// Looks that a thread may be at one piece of work for: past that, Discord's deadline is over.
const LOOKS: u32 = 3;

/// What is known of the threads, in the order of their runtimes, each of which has one.
struct Watch(Vec<Seen>);

/// One of them.
struct Seen {
    thread: Watched,
    /// What it told of itself: how long it was at work, and how often it went to rest or came back.
    told: (Duration, u64),
    /// Looks since that changed.
    unchanged: u32,
}

/// Watches over the workers and over this runtime from now on, for as long as the process lives; and that is not for long
/// when they have ended, since who has ended tells no more of itself than who is stuck.
pub(super) fn watch(workers: &Workers, situation: Arc<Situation>) {
    let this = Watched { runtime: Handle::current(), is_stuck: Arc::default() };
    let mut threads = Watch::over(workers.watched().chain([this]));
    let look = move || {
        loop {
            thread::park_timeout(PACE);
            tell(&situation, threads.stuck());
        }
    };
    if let Err(error) = thread::Builder::new().name("watch".to_owned()).spawn(look) {
        error!(target: LogPart::Daemon.target(), "nobody watches over the threads: {error}");
    }
}

fn tell(situation: &Situation, stuck: usize) {
    let before = situation.facts().stuck_threads;
    situation.has_stuck_threads(stuck);
    if stuck > before {
        error!(
            target: LogPart::Daemon.target(),
            "a bug in shardless, please report it: {stuck} of its threads have been at one piece of work for {LOOKS} s"
        );
    } else if before > 0 && stuck == 0 {
        info!(target: LogPart::Daemon.target(), "no thread is stuck any more");
    }
}

impl Watch {
    fn over(threads: impl Iterator<Item = Watched>) -> Self {
        Self(threads.map(|thread| Seen { thread, told: Default::default(), unchanged: 0 }).collect())
    }

    /// Looks at them once more. How many are stuck.
    fn stuck(&mut self) -> usize {
        let looked = self.0.iter_mut().map(|seen| {
            let runtime = seen.thread.runtime.metrics();
            let turns = runtime.worker_park_unpark_count(0);
            let told = (runtime.worker_total_busy_duration(0), turns);
            // By an odd number it rests. At work it tells of itself at each 61st piece at the latest.
            let is_same = turns.is_multiple_of(2) && told == seen.told;
            seen.told = told;
            seen.unchanged = if is_same { seen.unchanged + 1 } else { 0 };
            let is_stuck = seen.unchanged >= LOOKS;
            seen.thread.is_stuck.store(is_stuck, Ordering::Relaxed);
            is_stuck
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

    fn workers() -> Workers {
        Workers::start(2).unwrap()
    }

    fn looks_until(threads: &mut Watch, stuck: usize) {
        let start = Instant::now();
        while threads.stuck() != stuck {
            assert!(start.elapsed() < PATIENCE, "in vain: {stuck} are stuck");
            thread::park_timeout(SHORT_PACE);
        }
    }

    #[test]
    fn a_thread_is_stuck_until_it_goes_on() {
        let workers = workers();
        let mut threads = Watch::over(workers.watched());
        let hang = || {
            let (end, ended) = mpsc::sync_channel::<()>(0);
            let place = workers.place();
            place.runtime.clone().spawn(async move {
                let _place = place;
                _ = ended.recv();
            });
            end
        };
        looks_until(&mut threads, 0);
        let first = hang();
        looks_until(&mut threads, 1);
        // The other one gets what is to be done meanwhile.
        let second = hang();
        looks_until(&mut threads, 2);
        drop(first);
        looks_until(&mut threads, 1);
        drop(second);
        looks_until(&mut threads, 0);
    }

    #[test]
    fn threads_that_rest_or_have_much_to_do_are_not_stuck() {
        let workers = workers();
        let mut threads = Watch::over(workers.watched());
        let rest = || {
            workers.watched().all(|one| !one.runtime.metrics().worker_park_unpark_count(0).is_multiple_of(2))
        };
        let start = Instant::now();
        while !rest() {
            assert!(start.elapsed() < PATIENCE, "in vain: all are at rest");
            thread::park_timeout(SHORT_PACE);
        }
        for _ in 0..10 {
            assert_eq!(threads.stuck(), 0, "at rest");
        }
        for _ in 0..4 {
            workers.place().runtime.spawn(async {
                loop {
                    tokio::task::yield_now().await;
                }
            });
        }
        for _ in 0..5 {
            assert_eq!(threads.stuck(), 0, "at work");
            thread::park_timeout(PACE / 2);
        }
    }

    #[test]
    fn it_is_told_of_for_as_long_as_it_is_so() {
        let situation = Situation::new(Duration::ZERO, Vec::new());
        for stuck in [1, 2, 2, 0] {
            tell(&situation, stuck);
            assert_eq!(situation.facts().stuck_threads, stuck);
        }
    }
}
