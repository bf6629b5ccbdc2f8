//! What was turned away in the last minutes, by reason: words of this code, so that there are few of them.

use std::collections::{BTreeMap, VecDeque};

/// Minutes that are looked back, the one that is not over included.
const MINUTES: u64 = 5;

/// Counts by minute.
#[derive(Debug, Default)]
pub(super) struct Recent(VecDeque<(u64, BTreeMap<&'static str, u64>)>);

impl Recent {
    pub(super) fn count(&mut self, second: u64, reason: &'static str) {
        let minute = second / 60;
        if self.0.back().is_none_or(|(last, _)| *last < minute) {
            self.0.push_back((minute, BTreeMap::new()));
            while self.0.len() as u64 > MINUTES {
                self.0.pop_front();
            }
        }
        if let Some((_, reasons)) = self.0.back_mut() {
            *reasons.entry(reason).or_default() += 1;
        }
    }

    /// All of the last minutes, as seen from that second.
    pub(super) fn seen_from(&self, now: u64) -> BTreeMap<&'static str, u64> {
        let mut sums = BTreeMap::new();
        for (_, reasons) in self.0.iter().filter(|(minute, _)| minute + MINUTES > now / 60) {
            for (reason, count) in reasons {
                *sums.entry(*reason).or_default() += count;
            }
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_older_than_some_minutes_is_forgotten() {
        let mut recent = Recent::default();
        for second in [0, 59, 60, 250, 100_000] {
            recent.count(second, "timestamp");
        }
        recent.count(100_001, "method");
        assert_eq!(recent.seen_from(100_001), BTreeMap::from([("method", 1), ("timestamp", 1)]));
        let mut recent = Recent::default();
        recent.count(59, "timestamp");
        assert_eq!(recent.seen_from(299).len(), 1);
        assert!(recent.seen_from(300).is_empty());
        (0..10_000).for_each(|minute| recent.count(minute * 60, "timestamp"));
        assert_eq!(recent.0.len() as u64, MINUTES);
    }
}
