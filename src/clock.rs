//! Time, passed in: so that tests can set it, and so that nobody mixes up the two kinds.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

/// The two times that the daemon lives by.
pub trait Clock: Send + Sync {
    /// A time that only goes forward: for deadlines and for everything that is kept "for so long".
    fn now(&self) -> Instant;

    /// How long the machine has slept since it was started: [`Clock::now`] stands still meanwhile.
    fn asleep(&self) -> Duration {
        Duration::ZERO
    }

    /// The time of day, since 1970, as the machine believes it: for Discord's timestamps alone. It may jump.
    fn unix_time(&self) -> Duration;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn asleep(&self) -> Duration {
        let [boot, awake] = [ClockId::Boottime, ClockId::Monotonic].map(since_start);
        boot.saturating_sub(awake)
    }

    #[allow(clippy::disallowed_methods, reason = "the one place that asks the machine")]
    fn unix_time(&self) -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }
}

fn since_start(clock: ClockId) -> Duration {
    clock_gettime(clock).try_into().unwrap_or_default()
}
