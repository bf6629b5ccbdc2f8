//! The last 24 hours in numbers: how many interactions ended how, and how long Discord waited.

use std::collections::VecDeque;
use std::time::Duration;

use super::Outcome;

/// Of [`Column`].
const COLUMNS: usize = Outcome::ALL.len() + 2;

/// Buckets of times, four to a doubling, from a tenth of a millisecond to beyond Discord's three seconds.
const BUCKETS: usize = 64;
const FIRST_BUCKET: Duration = Duration::from_micros(100);
const BUCKETS_A_DOUBLING: f64 = 4.0;

/// What a chart shows, how finely, and how far back: seconds a slot, and slots.
pub const LENGTHS: [(&str, u64, usize); 3] = [("5m", 1, 300), ("1h", 15, 240), ("24h", 300, 288)];

/// What is counted in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// A verified interaction, by what became of it.
    Outcome(Outcome),
    /// A request whose signature does not hold, or is missing.
    Forged,
    /// A request that was refused for another reason.
    Refused,
}

impl Column {
    fn index(self) -> usize {
        match self {
            Self::Outcome(outcome) => outcome as usize,
            Self::Forged => Outcome::ALL.len(),
            Self::Refused => Outcome::ALL.len() + 1,
        }
    }

    /// The names of all, in the order of [`Slot::counts`].
    pub fn names() -> impl Iterator<Item = &'static str> {
        Outcome::ALL.into_iter().map(Outcome::as_str).chain(["forged", "refused"])
    }
}

/// Something to be counted.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// As what.
    pub column: Column,
    /// How long Discord waited for its answer, where that says something.
    pub waited: Option<Duration>,
}

/// The same numbers, at three distances. Times are in seconds since a beginning that whoever asks knows of.
#[derive(Clone, Debug)]
pub struct Charts {
    spans: [Span; LENGTHS.len()],
}

/// A part of the past.
#[derive(Clone, Debug)]
pub struct Span {
    step: u64,
    /// With room for all from the first one on: it does not grow.
    slots: VecDeque<Slot>,
    length: usize,
}

/// What happened in one step of a span.
#[derive(Clone, Debug)]
pub struct Slot {
    /// When it begins.
    pub begin: u64,
    counts: [u32; COLUMNS],
    buckets: [u32; BUCKETS],
    longest: f32,
}

impl Default for Charts {
    fn default() -> Self {
        let span = |(_, step, length)| Span { step, slots: VecDeque::new(), length };
        Self { spans: LENGTHS.map(span) }
    }
}

impl Charts {
    /// Counts something that happened in that second.
    pub fn count(&mut self, second: u64, point: Point) {
        for span in &mut self.spans {
            span.count(second, point);
        }
    }

    /// How many of a kind there were in the last five minutes, as seen from that second.
    pub fn recently(&self, column: Column, now: u64) -> u64 {
        let [finest, ..] = &self.spans;
        finest.seen_from(now).map(|slot| u64::from(slot.of(column))).sum()
    }

    /// All of them, in the order of [`LENGTHS`].
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }
}

impl Span {
    fn count(&mut self, second: u64, point: Point) {
        let begin = second - second % self.step;
        if self.slots.back().is_none_or(|last| last.begin < begin) {
            if self.slots.capacity() == 0 {
                self.slots.reserve_exact(self.length);
            }
            if self.slots.len() >= self.length {
                self.slots.pop_front();
            }
            self.slots.push_back(Slot::new(begin));
        }
        // A clock that two threads read may seem to go back a little between them.
        if let Some(last) = self.slots.back_mut() {
            last.count(point);
        }
    }

    /// The slots in which something happened, from that second on, the oldest first.
    pub fn since(&self, second: u64) -> impl Iterator<Item = &Slot> {
        let from = self.slots.partition_point(|slot| slot.begin + self.step <= second);
        self.slots.range(from..)
    }

    /// The slots that still belong to the span, as seen from that second.
    pub fn seen_from(&self, now: u64) -> impl Iterator<Item = &Slot> {
        self.since((now + 1).saturating_sub(self.step * self.length as u64))
    }
}

impl Slot {
    fn new(begin: u64) -> Self {
        Self { begin, counts: [0; COLUMNS], buckets: [0; BUCKETS], longest: 0.0 }
    }

    fn count(&mut self, point: Point) {
        if let Some(count) = self.counts.get_mut(point.column.index()) {
            *count = count.saturating_add(1);
        }
        let Some(waited) = point.waited else { return };
        if let Some(count) = self.buckets.get_mut(bucket(waited)) {
            *count = count.saturating_add(1);
        }
        self.longest = self.longest.max(waited.as_secs_f32());
    }

    /// How many there were, in the order of [`Column::names`].
    pub fn counts(&self) -> &[u32] {
        &self.counts
    }

    /// How many of a kind there were.
    pub fn of(&self, column: Column) -> u32 {
        self.counts.get(column.index()).copied().unwrap_or_default()
    }

    /// The time that so large a part of them did not exceed, within a tenth. `None` where there was none.
    pub fn percentile(&self, part: f64) -> Option<Duration> {
        let all: u64 = self.buckets.iter().copied().map(u64::from).sum();
        let rank = part * all as f64;
        let mut below = 0.0;
        for (index, count) in self.buckets.iter().enumerate().filter(|(_, count)| **count > 0) {
            let count = f64::from(*count);
            if below + count >= rank {
                let (low, high) = (bound(index), bound(index + 1));
                let seconds = low + (high - low) * ((rank - below) / count);
                return Some(Duration::from_secs_f64(seconds.min(f64::from(self.longest))));
            }
            below += count;
        }
        None
    }
}

/// Where a time belongs.
fn bucket(time: Duration) -> usize {
    let doublings = (time.as_secs_f64() / FIRST_BUCKET.as_secs_f64()).log2();
    // What is shorter than the first has a negative number of them, which saturates; what is longer goes to the last.
    let index = (doublings * BUCKETS_A_DOUBLING) as usize;
    index.min(BUCKETS - 1)
}

/// Seconds from which on a bucket counts.
fn bound(index: usize) -> f64 {
    if index == 0 {
        return 0.0;
    }
    FIRST_BUCKET.as_secs_f64() * (index as f64 / BUCKETS_A_DOUBLING).exp2()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(milliseconds: u64) -> Point {
        let waited = Some(Duration::from_millis(milliseconds));
        Point { column: Column::Outcome(Outcome::Answered), waited }
    }

    #[test]
    fn what_happens_is_counted_at_all_distances() {
        let mut charts = Charts::default();
        for second in [10, 10, 11, 26, 310] {
            charts.count(second, answered(5));
        }
        let counts = |index: usize| -> Vec<_> {
            let slots = charts.spans()[index].since(0);
            slots.map(|slot| (slot.begin, slot.of(Column::Outcome(Outcome::Answered)))).collect()
        };
        assert_eq!(counts(0), [(10, 2), (11, 1), (26, 1), (310, 1)]);
        assert_eq!(counts(1), [(0, 3), (15, 1), (300, 1)]);
        assert_eq!(counts(2), [(0, 4), (300, 1)]);
    }

    #[test]
    fn a_span_forgets_what_is_older_than_it_and_takes_no_more_room() {
        let mut charts = Charts::default();
        for second in 0..100_000 {
            charts.count(second, answered(5));
        }
        for (span, (_, step, length)) in charts.spans().iter().zip(LENGTHS) {
            assert_eq!(span.slots.len(), length);
            assert!(span.slots.capacity() <= length + length / 8, "{}", span.slots.capacity());
            assert!(span.seen_from(99_999).all(|slot| slot.begin + step * length as u64 + step > 99_999));
        }
        // Twenty-four applications, and all together.
        let bytes = size_of::<Slot>() * LENGTHS.iter().map(|(_, _, length)| length).sum::<usize>() * 25;
        assert!(bytes <= 7 * 1024 * 1024, "{bytes}");
    }

    #[test]
    fn slots_since_a_second_are_those_that_may_have_changed_then() {
        let mut charts = Charts::default();
        for second in [10, 14, 15, 31] {
            charts.count(second, answered(5));
        }
        let begins = |since| charts.spans()[1].since(since).map(|slot| slot.begin).collect::<Vec<_>>();
        assert_eq!((begins(14), begins(15), begins(46)), (vec![0, 15, 30], vec![15, 30], vec![]));
    }

    #[test]
    fn percentiles_are_within_a_tenth() {
        let mut charts = Charts::default();
        for milliseconds in 1..=1000 {
            charts.count(0, answered(milliseconds));
        }
        let slot = charts.spans()[0].since(0).next().unwrap();
        for (part, expected) in [(0.5, 0.5), (0.95, 0.95), (0.99, 0.99), (1.0, 1.0)] {
            let found = slot.percentile(part).unwrap().as_secs_f64();
            assert!((found / expected - 1.0).abs() < 0.1, "{part}: {found}");
        }
        assert!(
            slot.percentile(1.0).unwrap() <= Duration::from_millis(1001),
            "none is longer than the longest"
        );
    }

    #[test]
    fn times_out_of_all_bounds_have_a_bucket_too() {
        let mut charts = Charts::default();
        for time in [Duration::ZERO, Duration::from_nanos(1), Duration::from_secs(1_000_000)] {
            charts.count(0, Point { waited: Some(time), ..answered(0) });
        }
        let slot = charts.spans()[0].since(0).next().unwrap();
        assert!(slot.percentile(0.5).unwrap() <= FIRST_BUCKET * 2);
        assert!(slot.percentile(1.0).unwrap() >= Duration::from_secs(3));
        assert_eq!(Slot::new(0).percentile(0.5), None);
    }
}
