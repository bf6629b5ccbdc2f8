//! How entries leave the ledger.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::{Book, Came, Ledger, StoreState};

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
        book.left_behind.forget(entry.deferred.id, serial);
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

    /// An interaction has come to this process: an entry that an earlier one left of it goes, unless it is still needed.
    pub(in crate::outbox) fn came(&self, app: &Arc<str>, id: u64, how: Came) {
        let serials = {
            let mut book = self.lock();
            let Book { left_behind, entries, .. } = &mut *book;
            left_behind.came(app, id, how);
            left_behind
                .of(id, |serial| entries.get(&serial).is_some_and(|left| how.ends(app, &left.deferred)))
        };
        serials.into_iter().for_each(|serial| self.remove(serial));
    }

    /// Whether there is such an entry, not gone yet.
    pub(in crate::outbox) fn has(&self, serial: u64) -> bool {
        self.lock().entries.contains_key(&serial)
    }
}
