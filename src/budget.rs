//! Bounds on what many requests take together: bytes of memory, calls, connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::Notify;

/// So many units, shared by all who take from it.
#[derive(Debug)]
pub struct Budget {
    limit: AtomicUsize,
    used: AtomicUsize,
    /// Those in [`Budget::one`] that found none left.
    waiting: AtomicUsize,
    /// Told where somebody may be waiting: for room, or for the end.
    given_back: Notify,
}

/// A part of a [`Budget`], given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    budget: Arc<Budget>,
    units: usize,
}

impl Budget {
    /// A budget of `limit` units.
    pub fn new(limit: usize) -> Arc<Self> {
        let [limit, used, waiting] = [limit, 0, 0].map(AtomicUsize::new);
        Arc::new(Self { limit, used, waiting, given_back: Notify::new() })
    }

    /// Changes the limit. What is taken stays taken, also where it is more than the new limit.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::SeqCst);
        self.given_back.notify_waiters();
    }

    /// Units that there are in all.
    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::SeqCst)
    }

    /// Units that are taken now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::SeqCst)
    }

    /// A reservation of nothing yet.
    pub fn reservation(self: &Arc<Self>) -> Reservation {
        Reservation { budget: Arc::clone(self), units: 0 }
    }

    /// One unit, if there is one left.
    pub fn try_one(self: &Arc<Self>) -> Option<Reservation> {
        let mut one = self.reservation();
        one.grow(1).then_some(one)
    }

    /// One unit, as soon as there is one left.
    pub async fn one(self: &Arc<Self>) -> Reservation {
        if let Some(one) = self.try_one() {
            return one;
        }
        let _waiting = self.want();
        loop {
            let given_back = self.given_back.notified();
            if let Some(one) = self.try_one() {
                return one;
            }
            given_back.await;
        }
    }

    /// One who would take a unit, for as long as this is kept.
    pub fn want(&self) -> Waiting<'_> {
        Waiting::new(&self.waiting)
    }

    /// Whether somebody waits for a unit.
    pub fn is_wanted(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Waits until nothing is taken.
    pub async fn all_given_back(&self) {
        loop {
            let given_back = self.given_back.notified();
            if self.used() == 0 {
                return;
            }
            given_back.await;
        }
    }
}

/// Counts as one that waits until it is dropped.
#[derive(Debug)]
pub struct Waiting<'b>(&'b AtomicUsize);

impl<'b> Waiting<'b> {
    fn new(count: &'b AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Reservation {
    /// Reserves `units` more. `false`, and nothing reserved, where they do not fit.
    #[must_use]
    pub fn grow(&mut self, units: usize) -> bool {
        let limit = self.budget.limit.load(Ordering::SeqCst);
        let fits = |used: usize| used.checked_add(units).filter(|sum| *sum <= limit);
        let grown = self.budget.used.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fits).is_ok();
        if grown {
            self.units += units;
        }
        grown
    }
}

impl Reservation {
    /// The same bytes, with this reservation beside them until the last copy goes.
    pub fn hold(self, bytes: Bytes) -> Bytes {
        struct Held {
            bytes: Bytes,
            _reservation: Reservation,
        }
        impl AsRef<[u8]> for Held {
            fn as_ref(&self) -> &[u8] {
                &self.bytes
            }
        }
        Bytes::from_owner(Held { bytes, _reservation: self })
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.units == 0 {
            return;
        }
        let used = self.budget.used.fetch_sub(self.units, Ordering::SeqCst);
        // Nobody waits for one unit unless none was left, nor for the end unless this is it.
        if used == self.units || used >= self.budget.limit.load(Ordering::SeqCst) {
            self.budget.given_back.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_and_what_is_dropped_comes_back() {
        let budget = Budget::new(10);
        let mut first = budget.reservation();
        let mut second = budget.reservation();
        assert!(first.grow(4) && second.grow(6));
        assert!(!first.grow(1) && !second.grow(usize::MAX));
        assert_eq!(budget.used(), 10);
        drop(second);
        assert!(first.grow(6));
        drop(first);
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn who_waits_for_a_unit_gets_the_next_that_comes_back() {
        let budget = Budget::new(1);
        let first = budget.one().await;
        assert!(budget.try_one().is_none() && !budget.is_wanted());
        let mut second = Box::pin(budget.one());
        assert!(second.as_mut().now_or_never().is_none() && budget.is_wanted());
        drop(second);
        assert!(!budget.is_wanted(), "it does not wait any more");
        let mut third = Box::pin(budget.one());
        assert!(third.as_mut().now_or_never().is_none());
        drop(first);
        drop(third.await);
        assert!(!budget.is_wanted());
    }

    #[tokio::test]
    async fn a_new_limit_holds_at_once_for_what_is_still_to_be_taken() {
        let budget = Budget::new(2);
        let (first, second) = (budget.one().await, budget.one().await);
        budget.set_limit(1);
        drop(first);
        assert!(budget.try_one().is_none(), "the one that is left is the one that may be");
        let third = budget.one();
        tokio::pin!(third);
        assert!(third.as_mut().now_or_never().is_none());
        budget.set_limit(2);
        drop(third.await);
        drop(second);
    }

    #[tokio::test]
    async fn the_end_of_all_is_told() {
        let budget = Budget::new(5);
        budget.all_given_back().await;
        let (first, second) = (budget.one().await, budget.one().await);
        let all = budget.all_given_back();
        tokio::pin!(all);
        drop(first);
        assert!(all.as_mut().now_or_never().is_none());
        drop(second);
        all.await;
    }
}
