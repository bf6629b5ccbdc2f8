//! Holds every request back where Discord asks for it, or where so many were in vain that it would shut us out.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Answers of 401, 403 and 429 within [`WINDOW`] after which requests wait. At 10,000 Discord blocks the address.
///
/// Source: Discord's documentation, "Invalid Request Limit".
const MAX_INVALID: usize = 5000;
const WINDOW: Duration = Duration::from_secs(10 * 60);
/// Answers are counted by such steps of time.
const STEP: Duration = Duration::from_secs(10);

/// The first wait after an answer that is not from Discord's API but from what stands before it; it doubles.
const FIRST_BLOCK: Duration = Duration::from_secs(60);
const MAX_BLOCK: Duration = Duration::from_secs(4 * 60);

/// One for all requests.
#[derive(Default)]
pub(super) struct Gate(Mutex<State>);

#[derive(Default)]
struct State {
    closed_until: Option<Instant>,
    /// Blocks in a row.
    blocks: u32,
    /// When a step began, and how many were in vain in it.
    invalid: VecDeque<(Instant, usize)>,
    invalid_in_all: usize,
}

impl Gate {
    /// How long to hold back, if at all.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        let mut state = self.lock();
        state.forget(now);
        let closed = state.closed_until.map(|until| until.saturating_duration_since(now));
        let too_many = (state.invalid_in_all >= MAX_INVALID).then(|| {
            state.invalid.front().map(|(began, _)| (*began + WINDOW).saturating_duration_since(now))
        });
        closed.max(too_many.flatten()).filter(|wait| !wait.is_zero())
    }

    /// Lets nothing through for that long.
    pub(super) fn close(&self, now: Instant, wait: Duration) {
        let mut state = self.lock();
        state.closed_until = state.closed_until.max(Some(now + wait));
    }

    /// What stands before the API has turned a request away, for so long at least if it says so. How long the gate is
    /// closed for that; `None` if it is closed already: those that were under way with it say nothing new.
    pub(super) fn is_blocked(&self, now: Instant, at_least: Option<Duration>) -> Option<Duration> {
        let mut state = self.lock();
        if state.closed_until.is_some_and(|until| until > now) {
            return None;
        }
        let wait = FIRST_BLOCK.saturating_mul(1 << state.blocks.min(8)).min(MAX_BLOCK);
        let wait = at_least.map_or(wait, |at_least| wait.max(at_least));
        state.blocks += 1;
        state.closed_until = Some(now + wait);
        Some(wait)
    }

    /// The API has answered, well or badly.
    pub(super) fn is_reached(&self) {
        self.lock().blocks = 0;
    }

    /// One more request was in vain. Whether it is the one with which there are too many.
    pub(super) fn count_invalid(&self, now: Instant) -> bool {
        let mut state = self.lock();
        state.forget(now);
        state.invalid_in_all += 1;
        match state.invalid.back_mut() {
            Some((began, count)) if now.saturating_duration_since(*began) < STEP => *count += 1,
            _ => state.invalid.push_back((now, 1)),
        }
        state.invalid_in_all == MAX_INVALID
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn forget(&mut self, now: Instant) {
        while let Some((_, count)) = self.invalid.pop_front_if(|(began, _)| *began + WINDOW <= now) {
            self.invalid_in_all -= count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_closes_it_last_opens_it_last() {
        let (gate, now) = (Gate::default(), Instant::now());
        assert_eq!(gate.wait(now), None);
        gate.close(now, Duration::from_secs(5));
        gate.close(now, Duration::from_secs(2));
        assert_eq!(gate.wait(now + Duration::from_secs(1)), Some(Duration::from_secs(4)));
        assert_eq!(gate.wait(now + Duration::from_secs(5)), None);
    }

    #[test]
    fn blocks_in_a_row_take_longer_until_the_api_answers() {
        let gate = Gate::default();
        let mut now = Instant::now();
        let mut block = || {
            let wait = gate.is_blocked(now, None).unwrap();
            assert_eq!(gate.wait(now), Some(wait));
            // Others that were under way.
            assert_eq!(gate.is_blocked(now, None), None);
            assert_eq!(gate.wait(now), Some(wait));
            now += wait;
            wait.as_secs()
        };
        assert_eq!([block(), block(), block(), block()], [60, 120, 240, 240]);
        gate.is_reached();
        assert_eq!(block(), 60);
    }

    #[test]
    fn a_block_takes_as_long_as_it_says_at_least() {
        let (gate, now) = (Gate::default(), Instant::now());
        let seconds = Duration::from_secs;
        assert_eq!(gate.is_blocked(now, Some(seconds(3))), Some(seconds(60)));
        assert_eq!(gate.is_blocked(now + seconds(60), Some(seconds(500))), Some(seconds(500)));
        assert_eq!(gate.wait(now + seconds(559)), Some(seconds(1)));
    }

    #[test]
    fn requests_in_vain_are_bounded_in_any_ten_minutes() {
        let (gate, start) = (Gate::default(), Instant::now());
        let mut in_vain = Vec::new();
        // As fast as the gate lets them, for an hour.
        let mut now = start;
        while now < start + Duration::from_secs(3600) {
            match gate.wait(now) {
                Some(wait) => now += wait,
                None => {
                    gate.count_invalid(now);
                    in_vain.push(now);
                    now += Duration::from_millis(20);
                }
            }
        }
        let most = in_vain.iter().map(|first| {
            in_vain.iter().filter(|other| **other >= *first && **other < *first + WINDOW).count()
        });
        // A step is forgotten whole.
        assert!(most.max().unwrap() <= MAX_INVALID + 500);
        assert!(in_vain.len() > 5 * MAX_INVALID);
    }
}
