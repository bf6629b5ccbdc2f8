//! How long many things took.

use std::fmt;
use std::time::Duration;

/// Times, the shortest first.
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn new(mut times: Vec<Duration>) -> Self {
        assert!(!times.is_empty());
        times.sort();
        Self(times)
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn shortest(&self) -> Duration {
        self.0[0]
    }

    pub(crate) fn p99(&self) -> Duration {
        self.0[self.0.len() * 99 / 100]
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, middle) = (self.count(), self.0[self.count() / 2]);
        let (p99, last) = (self.p99(), self.0[count - 1]);
        write!(f, "{count} in {middle:.1?} (p50), {p99:.1?} (p99), {last:.1?} at most")
    }
}
