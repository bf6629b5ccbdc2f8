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

/// A block that another interaction has met so shortly before is not one's own: it is this machine that is shut out.
const ALONE: Duration = Duration::from_secs(60);

/// One for all requests.
#[derive(Default)]
pub(super) struct Gate(Mutex<State>);

/// Whom a block concerns, and for how long.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Block {
    /// This interaction alone, as far as is known.
    Alone(Duration),
    /// All: the gate has closed for it.
    All(Duration),
    /// All, as was known: the gate is closed already.
    Already(Duration),
}

#[derive(Default)]
struct State {
    closed_until: Option<Instant>,
    /// Blocks of all in a row.
    blocks: u32,
    /// Whose request was turned away last, and when.
    last_block: Option<(u64, Instant)>,
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

    /// What stands before the API has turned a request of that interaction away, for so long at least if it says so;
    /// it did so `before` already.
    pub(super) fn blocked(&self, now: Instant, id: u64, before: u32, at_least: Option<Duration>) -> Block {
        let mut state = self.lock();
        if let Some(until) = state.closed_until.filter(|until| *until > now) {
            return Block::Already(until - now);
        }
        let is_recent = |at: Instant| now.saturating_duration_since(at) <= ALONE;
        let is_alone =
            state.blocks == 0 && state.last_block.is_none_or(|(other, at)| other == id || !is_recent(at));
        state.last_block = Some((id, now));
        let nth = if is_alone { before } else { state.blocks };
        let wait = FIRST_BLOCK.saturating_mul(1 << nth.min(8)).min(MAX_BLOCK);
        let wait = at_least.map_or(wait, |at_least| wait.max(at_least));
        if is_alone {
            return Block::Alone(wait);
        }
        state.blocks += 1;
        state.closed_until = Some(now + wait);
        Block::All(wait)
    }

    /// The API has answered, well or badly.
    pub(super) fn reached(&self) {
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

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_block_of_one_closes_nothing() {
        let (gate, now) = (Gate::default(), Instant::now());
        let mut at = now;
        for (before, wait) in [(0, 60), (1, 120), (2, 240), (3, 240)] {
            assert_eq!(gate.blocked(at, 1, before, None), Block::Alone(seconds(wait)));
            assert_eq!(gate.wait(at), None);
            at += seconds(wait);
        }
        // Another one, much later than the last.
        assert_eq!(gate.blocked(at, 2, 0, Some(seconds(500))), Block::Alone(seconds(500)));
        assert_eq!(gate.blocked(at + ALONE, 3, 0, None), Block::All(seconds(60)));
    }

    #[test]
    fn blocks_of_all_in_a_row_take_longer_until_the_api_answers() {
        let gate = Gate::default();
        let mut now = Instant::now();
        assert_eq!(gate.blocked(now, 1, 0, None), Block::Alone(seconds(60)));
        let mut block = || {
            let Block::All(wait) = gate.blocked(now, 2, 0, None) else { panic!("it closes nothing") };
            assert_eq!(gate.wait(now), Some(wait));
            // Others that were under way.
            assert_eq!(gate.blocked(now + seconds(1), 3, 0, None), Block::Already(wait - seconds(1)));
            assert_eq!(gate.wait(now), Some(wait));
            now += wait;
            wait.as_secs()
        };
        assert_eq!([block(), block(), block(), block()], [60, 120, 240, 240]);
        gate.reached();
        assert_eq!(gate.blocked(now, 2, 0, None), Block::Alone(seconds(60)));
        assert_eq!(gate.blocked(now, 3, 0, None), Block::All(seconds(60)));
    }

    #[test]
    fn a_block_takes_as_long_as_it_says_at_least() {
        let (gate, now) = (Gate::default(), Instant::now());
        gate.blocked(now, 1, 0, None);
        assert_eq!(gate.blocked(now, 2, 0, Some(seconds(3))), Block::All(seconds(60)));
        assert_eq!(gate.blocked(now + seconds(60), 2, 0, Some(seconds(500))), Block::All(seconds(500)));
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
