//! Which replicas are worth a call: those that fail again and again are left out for a while.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::status::{End, ReplicaState, Standing, shortened};

/// Failures in a row after which a replica is left out. One alone may be the interaction's fault.
pub(super) const FAILURES: u32 = 3;
/// How long it is left out at first; each further failure doubles it.
const FIRST_TIME: Duration = Duration::from_secs(1);
const LONGEST_TIME: Duration = Duration::from_secs(15);

/// How a replica has done of late.
#[derive(Debug)]
pub(super) struct Health {
    /// Whether there are others to take its calls: only then is it left out.
    has_others: bool,
    in_flight: AtomicUsize,
    /// Calls that have ended well.
    answers: AtomicUsize,
    made: Instant,
    /// When something was learned of it, in nanoseconds since it was made; 0 for never.
    learned: AtomicU64,
    /// Nothing bad is known: a call that ends well changes nothing in `state`, which then need not be locked.
    is_well: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// In a row.
    failures: u32,
    left_out: Option<LeftOut>,
    /// Its time is over, and a call finds out whether it is well again.
    is_on_trial: bool,
    ejections: u64,
    /// For people alone.
    standing: Standing,
}

#[derive(Debug)]
struct LeftOut {
    until: Instant,
    since: Instant,
    why: Arc<str>,
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
    pub(super) fn new(has_others: bool) -> Self {
        Self {
            has_others,
            in_flight: AtomicUsize::default(),
            answers: AtomicUsize::default(),
            made: Instant::now(),
            learned: AtomicU64::default(),
            is_well: AtomicBool::default(),
            state: Mutex::default(),
        }
    }

    pub(super) fn begin(&self) -> InFlight<'_> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight { health: self, answers_before: self.answers.load(Ordering::Relaxed) }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Whether it is not left out now.
    pub(super) fn may_be_called(&self, now: Instant) -> bool {
        self.is_well.load(Ordering::Acquire) || !self.lock().is_left_out(now)
    }

    /// It was chosen. One whose time is over is tried by one call; the others wait for how that ends.
    pub(super) fn is_tried(&self, now: Instant) {
        if self.is_well.load(Ordering::Acquire) {
            return;
        }
        let mut state = self.lock();
        let time = state.time_out();
        if let Some(left_out) = state.left_out.as_mut().filter(|left_out| left_out.until <= now) {
            left_out.until = now + time;
            state.is_on_trial = true;
        }
    }

    /// A call has ended.
    pub(super) fn note(&self, end: End<'_>, now: Instant) -> Option<Change> {
        self.learned.store(self.nanoseconds(now), Ordering::Relaxed);
        if matches!(end, End::Well) {
            self.answers.fetch_add(1, Ordering::Relaxed);
            if self.is_well.load(Ordering::Acquire) {
                return None;
            }
        }
        let mut state = self.lock();
        state.standing.note(end, now);
        let change = match end {
            End::Well => state.forgive(),
            End::Failed(why) | End::Unreachable { why, .. } if self.has_others => state.fail(why, now),
            _ => None,
        };
        self.is_well.store(state.is_well(), Ordering::Release);
        change
    }

    /// Whether nothing was learned of it for so long.
    pub(super) fn is_stale(&self, fresh: Duration, now: Instant) -> bool {
        match self.learned.load(Ordering::Relaxed) {
            0 => true,
            learned => now.saturating_duration_since(self.made + Duration::from_nanos(learned)) >= fresh,
        }
    }

    /// A look that began then has found that it can be connected to, or why not. Changes nothing for calls; and the end
    /// of one in the meantime says more.
    pub(super) fn note_look(&self, result: Result<(), &str>, began: Instant, now: Instant) {
        let mut state = self.lock();
        if self.learned.load(Ordering::Relaxed) > self.nanoseconds(began) {
            return;
        }
        self.learned.store(self.nanoseconds(now), Ordering::Relaxed);
        state.standing.note_look(result, now);
        self.is_well.store(state.is_well(), Ordering::Release);
    }

    /// How it does, and how often it was left out.
    pub(super) fn state(&self, now: Instant) -> (ReplicaState, u64) {
        let state = self.lock();
        let left_out = state.left_out.as_ref().filter(|left_out| left_out.until > now);
        let shown = left_out.map_or_else(
            || state.standing.state(),
            |LeftOut { until, since, why }| ReplicaState::LeftOut {
                until: *until,
                why: Arc::clone(why),
                since: *since,
            },
        );
        (shown, state.ejections)
    }

    /// Since it was made; never 0.
    fn nanoseconds(&self, now: Instant) -> u64 {
        let time = now.saturating_duration_since(self.made).as_nanos();
        u64::try_from(time).unwrap_or(u64::MAX).max(1)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_well(&self) -> bool {
        self.failures == 0 && self.left_out.is_none() && !self.is_on_trial && self.standing.is_up()
    }

    fn is_left_out(&self, now: Instant) -> bool {
        self.left_out.as_ref().is_some_and(|left_out| left_out.until > now)
    }

    /// A call has ended well.
    fn forgive(&mut self) -> Option<Change> {
        self.failures = 0;
        self.is_on_trial = false;
        self.left_out.take().map(|_| Change::Back)
    }

    /// A call has failed, and others could take the next.
    fn fail(&mut self, why: &str, now: Instant) -> Option<Change> {
        // Calls that were in flight already when it was left out say nothing new.
        if !std::mem::take(&mut self.is_on_trial) && self.is_left_out(now) {
            return None;
        }
        self.failures = self.failures.saturating_add(1);
        if self.failures < FAILURES {
            return None;
        }
        let time = self.time_out();
        let since = self.left_out.as_ref().map_or(now, |left_out| left_out.since);
        self.left_out = Some(LeftOut { until: now + time, since, why: shortened(why).into() });
        self.ejections += 1;
        Some(Change::LeftOut(time))
    }

    fn time_out(&self) -> Duration {
        let doublings = self.failures.saturating_sub(FAILURES).min(10);
        (FIRST_TIME * 2_u32.pow(doublings)).min(LONGEST_TIME)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILED: End<'_> = End::Failed("it answered 500");
    const REFUSED: End<'_> = End::Unreachable { why: "refused", may_listen: false };

    fn word(health: &Health, now: Instant) -> &'static str {
        health.state(now).0.word()
    }

    #[test]
    fn a_replica_is_left_out_after_failures_in_a_row_and_longer_each_time() {
        let (health, mut now) = (Health::new(true), Instant::now());
        for _ in 0..2 {
            assert_eq!(
                (health.note(FAILED, now), health.note(FAILED, now), health.note(End::Well, now)),
                (None, None, None)
            );
        }
        assert_eq!((health.note(FAILED, now), health.note(FAILED, now)), (None, None));
        for seconds in [1, 2, 4, 8, 15, 15] {
            let time = Duration::from_secs(seconds);
            assert_eq!(health.note(FAILED, now), Some(Change::LeftOut(time)));
            assert_eq!(health.note(FAILED, now), None, "it was in flight before");
            now += time - Duration::from_millis(1);
            assert!(!health.may_be_called(now));
            now += Duration::from_millis(1);
            assert!(health.may_be_called(now));
            health.is_tried(now);
            assert!(!health.may_be_called(now), "one call finds out, the others wait");
        }
        assert_eq!(health.note(End::Well, now), Some(Change::Back));
        assert!(health.may_be_called(now));
        assert_eq!(health.note(FAILED, now), None, "all is forgotten");
    }

    #[test]
    fn a_call_that_nothing_has_come_back_since_is_told_from_one_among_answers() {
        let (health, now) = (Health::new(true), Instant::now());
        let first = health.begin();
        health.note(FAILED, now);
        assert!(first.is_silent_since(), "a failure is no answer");
        health.note(End::Well, now);
        let second = health.begin();
        assert!(!first.is_silent_since() && second.is_silent_since());
    }

    #[test]
    fn calls_in_flight_are_counted() {
        let health = Health::new(true);
        let first = health.begin();
        let second = health.begin();
        assert_eq!(health.in_flight(), 2);
        drop(first);
        assert_eq!(health.in_flight(), 1);
        drop(second);
        assert_eq!(health.in_flight(), 0);
    }

    /// Ejection shows above all else while it lasts, and after it what is known.
    #[test]
    fn a_replica_that_is_left_out_shows_so_until_a_call_ends_well() {
        let (health, start) = (Health::new(true), Instant::now());
        assert_eq!(health.state(start), (ReplicaState::Unknown, 0));
        health.note(REFUSED, start);
        assert_eq!(word(&health, start), "down");
        health.note(FAILED, start);
        assert_eq!(word(&health, start), "failing");
        health.note(FAILED, start);
        let left_out =
            |time| ReplicaState::LeftOut { until: start + time, why: "it answered 500".into(), since: start };
        assert_eq!(health.state(start), (left_out(FIRST_TIME), 1));
        health.note_look(Err("gone"), start, start);
        assert_eq!(health.state(start), (left_out(FIRST_TIME), 1), "a look changes nothing");
        let now = start + FIRST_TIME;
        assert_eq!(health.state(now).0, ReplicaState::Down { why: "gone".into(), since: start });
        health.is_tried(now);
        assert_eq!(word(&health, now), "left_out", "one call finds out");
        health.note(FAILED, now);
        assert_eq!(health.state(now), (left_out(FIRST_TIME * 3), 2));
        health.note(End::Well, now);
        assert_eq!(health.state(now), (ReplicaState::Up, 2));
    }

    #[test]
    fn one_without_others_is_failing_and_never_left_out() {
        let (health, now) = (Health::new(false), Instant::now());
        for failures in 1..=10 {
            assert_eq!(health.note(FAILED, now), None);
            let why = "it answered 500".into();
            assert_eq!(health.state(now), (ReplicaState::Failing { failures, why, since: now }, 0));
            assert!(health.may_be_called(now));
        }
        assert_eq!((health.note(End::Well, now), word(&health, now)), (None, "up"));
        assert_eq!((health.note(REFUSED, now), word(&health, now)), (None, "down"));
    }

    /// Whatever a look finds, failures are counted as if there had been none.
    #[test]
    fn a_look_neither_leaves_a_replica_out_nor_lets_it_back() {
        let (health, now) = (Health::new(true), Instant::now());
        for _ in 0..10 {
            health.note_look(Err("gone"), now, now);
            assert!(health.may_be_called(now));
        }
        assert_eq!((health.note(FAILED, now), health.note(FAILED, now)), (None, None));
        health.note_look(Ok(()), now, now);
        assert_eq!(health.note(FAILED, now), Some(Change::LeftOut(FIRST_TIME)));
        health.note_look(Ok(()), now, now);
        assert!(!health.may_be_called(now));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_learned_is_fresh_for_a_while() {
        let fresh = Duration::from_secs(1);
        let after = |time: Duration| Instant::now() + time;
        for learn in [
            |health: &Health, now| _ = health.note(End::Well, now),
            |health: &Health, now| _ = health.note(FAILED, now),
            |health: &Health, now| health.note_look(Ok(()), now, now),
            |health: &Health, now| health.note_look(Err("gone"), now, now),
        ] {
            let health = Health::new(false);
            assert!(health.is_stale(fresh, Instant::now()), "nothing was ever learned");
            learn(&health, Instant::now());
            assert!(!health.is_stale(fresh, after(Duration::from_millis(999))));
            assert!(health.is_stale(fresh, after(Duration::from_millis(1001))));
            learn(&health, after(Duration::from_millis(1001)));
            assert!(!health.is_stale(fresh, after(Duration::from_millis(2000))), "each time");
        }
    }

    #[test]
    fn a_call_that_ends_during_a_look_says_more() {
        let (health, began) = (Health::new(false), Instant::now());
        let (middle, end) = (began + Duration::from_millis(1), began + Duration::from_millis(2));
        health.note(End::Well, middle);
        health.note_look(Err("gone"), began, end);
        assert_eq!(word(&health, end), "up");
        health.note_look(Err("gone"), end, end);
        assert_eq!(word(&health, end), "down");
    }
}
