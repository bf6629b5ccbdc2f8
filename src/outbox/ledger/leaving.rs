//! How entries leave the ledger.

use tokio::sync::oneshot;

use super::{Deferred, Ledger, StoreState};

impl Ledger {
    pub(in crate::outbox) fn remove(&self, serial: u64) {
        _ = self.take_out(serial, false);
    }

    /// Removes an entry, and waits until it is gone from disk too; not at all where the store fails, is slow or is none.
    pub(in crate::outbox) async fn erase(&self, serial: u64) {
        if let Some(erased) = self.take_out(serial, true) {
            // An error means that nobody is to wait any more.
            _ = erased.await;
        }
    }

    fn take_out(&self, serial: u64, is_waited_for: bool) -> Option<oneshot::Receiver<()>> {
        let mut book = self.lock();
        let entry = book.entries.remove(&serial)?;
        book.left_behind.remove(&(entry.deferred.id, serial));
        self.metrics.outbox_entries.dec();
        if !entry.may_be_stored {
            book.unwritten.remove(&serial);
            return None;
        }
        book.unwritten.insert(serial);
        let follows = matches!(book.store, StoreState::Open) && !book.is_slow(self.clock.now());
        let waits = (is_waited_for && follows).then(|| {
            let (told, waits) = oneshot::channel();
            book.erasures.insert(serial, told);
            book.is_urgent = true;
            waits
        });
        drop(book);
        self.changed.notify_one();
        waits
    }

    /// An interaction of which an earlier process may have left an entry has come to this one, which sees to it: such an
    /// entry goes, if it `is_over`.
    pub(in crate::outbox) fn came_again(&self, app: &str, id: u64, is_over: impl Fn(&Deferred) -> bool) {
        let of_it: Vec<_> = {
            let book = self.lock();
            let left_behind = book.left_behind.range((id, 0)..=(id, u64::MAX)).map(|(_, serial)| *serial);
            let is_such = |deferred: &Deferred| *deferred.app == *app && is_over(deferred);
            left_behind
                .filter(|serial| book.entries.get(serial).is_some_and(|entry| is_such(&entry.deferred)))
                .collect()
        };
        for serial in of_it {
            self.remove(serial);
        }
    }

    /// Whether there is such an entry, not gone yet.
    pub(in crate::outbox) fn has(&self, serial: u64) -> bool {
        self.lock().entries.contains_key(&serial)
    }
}
