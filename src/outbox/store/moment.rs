//! One moment by both times: what a process knows by its own clock, another one must find by the time of day.

use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Clock;

/// Now.
#[derive(Clone, Copy, Debug)]
pub(in crate::outbox) struct Moment {
    /// By the clock that only goes forward.
    pub(in crate::outbox) now: Instant,
    /// The time of day, since 1970.
    pub(in crate::outbox) unix: Duration,
    /// How long the machine has slept.
    pub(super) asleep: Duration,
}

impl Moment {
    pub(in crate::outbox) fn of(clock: &dyn Clock) -> Self {
        Self { now: clock.now(), unix: clock.unix_time(), asleep: clock.asleep() }
    }

    /// The time of day at `at`.
    pub(super) fn unix_at(self, at: Instant) -> Duration {
        match at.checked_duration_since(self.now) {
            Some(ahead) => self.unix.saturating_add(ahead),
            None => self.unix.saturating_sub(self.now.saturating_duration_since(at)),
        }
    }

    /// When that time of day is, but not later than `longest` from now: the time of day may have stepped back. What is
    /// over is now.
    pub(super) fn at_unix(self, unix: Duration, longest: Duration) -> Instant {
        self.now + unix.saturating_sub(self.unix).min(longest)
    }
}
