//! Numbers as if drawn by lot, the same in each run with the same seed.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Mutex;
use std::time::Duration;

/// A row of numbers.
pub(super) struct Lots(Mutex<u64>);

impl Lots {
    /// The row of that name.
    pub(super) fn new(seed: u64, name: impl Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        (seed, name).hash(&mut hasher);
        Self(Mutex::new(hasher.finish()))
    }

    /// The next number, from 0 on and less than `bound`.
    pub(super) fn below(&self, bound: u64) -> u64 {
        let mut hasher = DefaultHasher::new();
        let mut state = self.0.lock().unwrap();
        *state = state.wrapping_add(1);
        state.hash(&mut hasher);
        hasher.finish() % bound
    }

    /// One of these.
    pub(super) fn pick<T: Copy>(&self, from: &[T]) -> T {
        from[usize::try_from(self.below(from.len() as u64)).unwrap()]
    }

    /// A time from `least` on, and less than `most`.
    pub(super) fn between(&self, least: Duration, most: Duration) -> Duration {
        let span = u64::try_from((most - least).as_millis()).unwrap();
        least + Duration::from_millis(self.below(span.max(1)))
    }

    /// The same things in another order.
    pub(super) fn shuffled<T: Copy>(&self, things: &[T]) -> Vec<T> {
        let mut things = things.to_vec();
        for at in (1..things.len()).rev() {
            things.swap(at, usize::try_from(self.below(at as u64 + 1)).unwrap());
        }
        things
    }
}
