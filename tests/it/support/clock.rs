//! A clock that can be set.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use shardless::clock::{Clock, SystemClock};
use tokio::time::Instant;

/// The machine's clock, moved as a test likes.
#[derive(Default)]
pub(crate) struct TestClock {
    /// Milliseconds that both times are ahead.
    passed: AtomicU64,
    /// Seconds that the time of day is off besides.
    stepped: AtomicI64,
    /// Milliseconds that the machine has slept.
    asleep: AtomicU64,
    panics: AtomicBool,
    panics_at_now: AtomicBool,
    salt: AtomicU64,
}

impl TestClock {
    /// Time passes at once.
    pub(crate) fn pass(&self, time: Duration) {
        self.passed.fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::SeqCst);
    }

    /// The time of day steps, as when an operator or NTP sets it.
    pub(crate) fn step(&self, seconds: i64) {
        self.stepped.fetch_add(seconds, Ordering::SeqCst);
    }

    /// The machine sleeps: the time of day goes on alone.
    pub(crate) fn sleep(&self, time: Duration) {
        self.asleep.fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::SeqCst);
        self.step(i64::try_from(time.as_secs()).unwrap());
    }

    /// The next question for the time of day panics.
    pub(crate) fn panic_once(&self) {
        self.panics.store(true, Ordering::SeqCst);
    }

    /// The next question for the monotonic time panics.
    pub(crate) fn panic_at_next_now(&self) {
        self.panics_at_now.store(true, Ordering::SeqCst);
    }

    /// A number that was not given before.
    pub(crate) fn next_salt(&self) -> u64 {
        self.salt.fetch_add(1, Ordering::SeqCst)
    }

    fn passed(&self) -> Duration {
        Duration::from_millis(self.passed.load(Ordering::SeqCst))
    }
}

impl Clock for TestClock {
    fn now(&self) -> Instant {
        panic_if(&self.panics_at_now);
        SystemClock.now() + self.passed()
    }

    fn asleep(&self) -> Duration {
        Duration::from_millis(self.asleep.load(Ordering::SeqCst))
    }

    fn unix_time(&self) -> Duration {
        panic_if(&self.panics);
        let time = SystemClock.unix_time() + self.passed();
        let stepped = self.stepped.load(Ordering::SeqCst);
        let step = Duration::from_secs(stepped.unsigned_abs());
        if stepped < 0 { time - step } else { time + step }
    }
}

/// Once; and not on the thread of the outbox, which looks at the clock now and then: what is to panic is a request.
fn panic_if(asked_for: &AtomicBool) {
    let is_of_a_request = std::thread::current().name() != Some("outbox");
    assert!(!(is_of_a_request && asked_for.swap(false, Ordering::SeqCst)), "as the test asked for");
}
