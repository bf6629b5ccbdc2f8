//! Which replicas are worth a call: those that fail again and again are left out for a while.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Failures in a row after which a replica is left out. One alone may be the interaction's fault.
const FAILURES: u32 = 3;
/// How long it is left out at first; each further failure doubles it.
const FIRST_TIME: Duration = Duration::from_secs(1);
const LONGEST_TIME: Duration = Duration::from_secs(15);

/// How a replica has done of late.
#[derive(Debug, Default)]
pub(super) struct Health {
    in_flight: AtomicUsize,
    /// Calls that have ended well.
    answers: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// In a row.
    failures: u32,
    left_out_until: Option<Instant>,
    /// Its time is over, and a call finds out whether it is well again.
    is_on_trial: bool,
}

/// What a call's end has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It is left out for so long.
    LeftOut(Duration),
    /// It is no longer left out.
    Back,
}

/// A call in flight; it counts until it is dropped.
pub(super) struct InFlight<'a> {
    health: &'a Health,
    answers_before: usize,
}

impl InFlight<'_> {
    /// Whether no answer has come from this replica since the call began.
    pub(super) fn is_silent_since(&self) -> bool {
        self.health.answers.load(Ordering::Relaxed) == self.answers_before
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.health.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Health {
    pub(super) fn begin(&self) -> InFlight<'_> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight { health: self, answers_before: self.answers.load(Ordering::Relaxed) }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Whether it is not left out now.
    pub(super) fn may_be_called(&self, now: Instant) -> bool {
        self.lock().left_out_until.is_none_or(|until| until <= now)
    }

    /// It was chosen. One whose time is over is tried by one call; the others wait for how that ends.
    pub(super) fn is_tried(&self, now: Instant) {
        let mut state = self.lock();
        if state.left_out_until.is_some_and(|until| until <= now) {
            state.left_out_until = Some(now + state.time_out());
            state.is_on_trial = true;
        }
    }

    /// A call has ended.
    pub(super) fn note(&self, is_well: bool, now: Instant) -> Option<Change> {
        let mut state = self.lock();
        if is_well {
            self.answers.fetch_add(1, Ordering::Relaxed);
            state.failures = 0;
            state.is_on_trial = false;
            return state.left_out_until.take().map(|_| Change::Back);
        }
        // Calls that were in flight already when it was left out say nothing new.
        let is_left_out = state.left_out_until.is_some_and(|until| until > now);
        if !std::mem::take(&mut state.is_on_trial) && is_left_out {
            return None;
        }
        state.failures = state.failures.saturating_add(1);
        if state.failures < FAILURES {
            return None;
        }
        let time = state.time_out();
        state.left_out_until = Some(now + time);
        Some(Change::LeftOut(time))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn time_out(&self) -> Duration {
        let doublings = self.failures.saturating_sub(FAILURES).min(10);
        (FIRST_TIME * 2_u32.pow(doublings)).min(LONGEST_TIME)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_is_left_out_after_failures_in_a_row_and_longer_each_time() {
        let (health, mut now) = (Health::default(), Instant::now());
        for _ in 0..2 {
            assert_eq!(
                (health.note(false, now), health.note(false, now), health.note(true, now)),
                (None, None, None)
            );
        }
        assert_eq!((health.note(false, now), health.note(false, now)), (None, None));
        for seconds in [1, 2, 4, 8, 15, 15] {
            let time = Duration::from_secs(seconds);
            assert_eq!(health.note(false, now), Some(Change::LeftOut(time)));
            assert_eq!(health.note(false, now), None, "it was in flight before");
            now += time - Duration::from_millis(1);
            assert!(!health.may_be_called(now));
            now += Duration::from_millis(1);
            assert!(health.may_be_called(now));
            health.is_tried(now);
            assert!(!health.may_be_called(now), "one call finds out, the others wait");
        }
        assert_eq!(health.note(true, now), Some(Change::Back));
        assert!(health.may_be_called(now));
        assert_eq!(health.note(false, now), None, "all is forgotten");
    }

    #[test]
    fn a_call_that_nothing_has_come_back_since_is_told_from_one_among_answers() {
        let (health, now) = (Health::default(), Instant::now());
        let first = health.begin();
        health.note(false, now);
        assert!(first.is_silent_since(), "a failure is no answer");
        health.note(true, now);
        let second = health.begin();
        assert!(!first.is_silent_since() && second.is_silent_since());
    }

    #[test]
    fn calls_in_flight_are_counted() {
        let health = Health::default();
        let first = health.begin();
        let second = health.begin();
        assert_eq!(health.in_flight(), 2);
        drop(first);
        assert_eq!(health.in_flight(), 1);
        drop(second);
        assert_eq!(health.in_flight(), 0);
    }
}
