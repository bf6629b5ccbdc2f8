//! How long one request is waited with between its tries, by what came of them.

use std::iter::Enumerate;
use std::time::Duration;
use std::{array, io};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::time::Instant;

/// Waits between tries while Discord does not know of the deferral. Many more would be punished.
const UNKNOWN: [Duration; 7] = [
    Duration::from_millis(300),
    Duration::from_millis(600),
    Duration::from_secs(1),
    Duration::from_millis(1500),
    Duration::from_secs(2),
    Duration::from_millis(2500),
    Duration::from_secs(3),
];
/// The same in all, counted from the first such answer: for answers that take long.
const UNKNOWN_IN_ALL: Duration = Duration::from_secs(12);
/// So many of these waits are made in any case: other trouble in between may have taken the time.
const UNKNOWN_AT_LEAST: usize = 2;

/// Waits between tries while Discord is in trouble, or cannot be reached.
const FIRST_RETRY: Duration = Duration::from_millis(500);
const MAX_RETRY: Duration = Duration::from_secs(30);
/// Waits between tries while Discord limits their rate, where it asks for shorter ones.
const FIRST_LIMITED: Duration = Duration::from_millis(100);

/// For so long an answer that cannot be read is tried to be read again: the disk may have been in passing trouble.
const UNREADABLE_IN_ALL: Duration = Duration::from_secs(60);

/// The waits of one request.
pub(super) struct Waits {
    retries: ExponentialBackoff,
    limited: ExponentialBackoff,
    unknown: Enumerate<array::IntoIter<Duration, 7>>,
    unknown_since: Option<Instant>,
    unreadable: ExponentialBackoff,
    unreadable_since: Option<Instant>,
    /// How often it was turned away before it reached the API.
    pub(super) blocks: u32,
}

impl Waits {
    pub(super) fn new() -> Self {
        Self {
            retries: backoff(FIRST_RETRY),
            limited: backoff(FIRST_LIMITED),
            unknown: UNKNOWN.into_iter().enumerate(),
            unknown_since: None,
            unreadable: backoff(FIRST_RETRY),
            unreadable_since: None,
            blocks: 0,
        }
    }

    /// Discord cannot answer.
    pub(super) fn unavailable(&mut self) -> Duration {
        self.retries.next().unwrap_or(MAX_RETRY)
    }

    /// Discord asks for a wait.
    pub(super) fn limited(&mut self, asked: Duration) -> Duration {
        self.limited.next().map_or(asked, |least| asked.max(least))
    }

    /// Discord does not know of the deferral; `None` if it never will.
    pub(super) fn unknown(&mut self, now: Instant) -> Option<Duration> {
        let end = *self.unknown_since.get_or_insert(now) + UNKNOWN_IN_ALL;
        let in_time = |(nth, wait): &(usize, Duration)| *nth < UNKNOWN_AT_LEAST || now + *wait <= end;
        self.unknown.next().filter(in_time).map(|(_, wait)| wait)
    }

    /// The answer cannot be read; `None` if it is of no use to try again.
    pub(super) fn unreadable(&mut self, now: Instant, error: &io::Error) -> Option<Duration> {
        if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::NotFound) {
            return None;
        }
        let end = *self.unreadable_since.get_or_insert(now) + UNREADABLE_IN_ALL;
        let left = end.saturating_duration_since(now);
        (!left.is_zero()).then(|| self.unreadable.next().unwrap_or(MAX_RETRY).min(left))
    }

    /// The answer could be read.
    pub(super) fn readable(&mut self) {
        if self.unreadable_since.take().is_some() {
            self.unreadable = backoff(FIRST_RETRY);
        }
    }
}

fn backoff(first: Duration) -> ExponentialBackoff {
    let builder = ExponentialBuilder::default().with_min_delay(first).with_max_delay(MAX_RETRY);
    builder.without_max_times().with_jitter().build()
}
