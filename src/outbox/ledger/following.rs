//! The ledger as the store's thread sees it: what is to be written, and what became of it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::{AFTER_DEFERRAL, Book, Deferred, Entry, Ledger, State, StoreState};

/// How long the end of an entry waits for company on its way to the disk: nobody waits for it.
const LAG: Duration = Duration::from_millis(10);

/// What the store is to know of one entry.
#[derive(Clone, Debug)]
pub(in crate::outbox) struct Row {
    pub(in crate::outbox) serial: u64,
    pub(in crate::outbox) deferred: Arc<Deferred>,
    pub(in crate::outbox) state: State,
    pub(in crate::outbox) version: u64,
}

/// What the store is to write at once.
#[derive(Debug, Default)]
pub(in crate::outbox) struct Batch {
    pub(in crate::outbox) put: Vec<Row>,
    pub(in crate::outbox) delete: Vec<u64>,
}

impl Batch {
    pub(in crate::outbox) fn is_empty(&self) -> bool {
        self.put.is_empty() && self.delete.is_empty()
    }
}

/// What the store's thread is to do.
pub(in crate::outbox) enum Next {
    Write(Batch),
    /// Nothing has changed for a while.
    Rest,
    /// The last batch, perhaps an empty one: nothing follows.
    Close(Batch),
}

impl Ledger {
    /// The store's thread begins, or has ended; then nobody waits for it any more.
    pub(in crate::outbox) fn set_at_work(&self, at_work: bool) {
        if !at_work {
            let mut book = self.lock();
            book.store = StoreState::Absent;
            book.folder = None;
            book.let_nobody_wait();
            self.show(&book);
        }
        self.at_work.send_replace(at_work);
    }

    /// Waits until there is something to write, for that long at most.
    pub(in crate::outbox) fn next(&self, patience: Duration) -> Next {
        let is_quiet = |book: &mut Book| book.unwritten.is_empty() && !book.closing;
        let waited = self.changed.wait_timeout_while(self.lock(), patience, is_quiet);
        let (book, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let can_wait = |book: &mut Book| !book.unwritten.is_empty() && !book.is_urgent && !book.closing;
        let waited = self.changed.wait_timeout_while(book, LAG, can_wait);
        let (mut book, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let batch = book.take_batch();
        if !batch.is_empty() {
            book.writing_since = Some(self.clock.now());
        }
        match (book.closing, batch) {
            (true, batch) => Next::Close(batch),
            (false, batch) if batch.is_empty() => Next::Rest,
            (false, batch) => Next::Write(batch),
        }
    }

    /// Lets that much time pass, but for a wish to close. Whether there is one.
    pub(in crate::outbox) fn pause(&self, pause: Duration) -> bool {
        let waited = self.changed.wait_timeout_while(self.lock(), pause, |book| !book.closing);
        let (book, _) = waited.unwrap_or_else(PoisonError::into_inner);
        book.closing
    }

    /// A batch is on disk, but for the answers of those that were left out: they are not tried again until the store is
    /// opened anew.
    pub(in crate::outbox) fn wrote(&self, batch: &Batch, is_left_out: impl Fn(u64) -> bool) {
        let (mut book, now) = (self.lock(), self.clock.now());
        book.was_slow |= book.is_slow(now);
        book.writing_since = None;
        for serial in &batch.delete {
            if let Some(told) = book.erasures.remove(serial) {
                _ = told.send(());
            }
        }
        for row in &batch.put {
            let Some(entry) = book.entries.get_mut(&row.serial) else { continue };
            entry.is_left_out = is_left_out(row.serial);
            let stored = if entry.is_left_out { row.version.saturating_sub(1) } else { row.version };
            entry.stored = Some(stored);
            match (&mut entry.state, &row.state) {
                (State::Answered { body, .. }, State::Answered { .. }) if !entry.is_left_out => *body = None,
                _ => {}
            }
            for (version, told) in std::mem::take(&mut entry.commits) {
                if version <= row.version {
                    _ = told.send(version <= stored);
                } else {
                    entry.commits.push((version, told));
                }
            }
        }
    }

    /// The store follows from now on; `on_disk` are the entries that it has. It is to be told of all that is known, but
    /// for answers that are on disk alone, and of all that is over.
    pub(in crate::outbox) fn opened(&self, folder: PathBuf, on_disk: &BTreeSet<u64>) {
        let mut book = self.lock();
        book.store = StoreState::Open;
        book.folder = Some(folder);
        self.show(&book);
        let is_over = |serial: &&u64| !book.entries.contains_key(serial);
        let mut unwritten: BTreeSet<_> = on_disk.iter().filter(is_over).copied().collect();
        for (serial, entry) in &mut book.entries {
            if matches!(entry.state, State::Answered { body: None, .. }) {
                if on_disk.contains(serial) {
                    continue;
                }
                // The answer was in a file that had to be set aside.
                entry.state = State::Failed;
                entry.version += 1;
            }
            entry.stored = None;
            entry.is_left_out = false;
            unwritten.insert(*serial);
        }
        book.is_urgent = true;
        book.unwritten = unwritten;
    }

    /// The store cannot follow: whoever waits for it is told.
    pub(in crate::outbox) fn failed(&self, why: String) {
        let mut book = self.lock();
        book.writing_since = None;
        book.store = StoreState::Failing(why);
        book.let_nobody_wait();
        self.show(&book);
    }

    /// Takes over what an earlier process left: its handlers' calls died with it. To be said before
    /// [`Ledger::opened`].
    pub(in crate::outbox) fn recover(&self, rows: impl IntoIterator<Item = (u64, Deferred, State)>) {
        let not_before = self.clock.now() + AFTER_DEFERRAL;
        let mut book = self.lock();
        for (serial, deferred, state) in rows {
            let state = if matches!(state, State::Waiting) { State::Failed } else { state };
            if matches!(state, State::Failed) {
                book.left_behind.found(deferred.id, serial);
            }
            let entry = Entry {
                deferred: Arc::new(deferred),
                _counted: self.counted(&state),
                state,
                since: self.clock.now(),
                not_before: Some(not_before),
                version: 1,
                stored: Some(1),
                may_be_stored: true,
                is_left_out: false,
                commits: Vec::new(),
                _room: None,
            };
            book.entries.insert(serial, entry);
            self.metrics.outbox_entries.inc();
            book.make_due(serial);
        }
        let early = book.left_behind.all_found();
        drop(book);
        for (app, id, how) in early {
            self.came(&app, id, how);
        }
    }
}

impl Book {
    fn take_batch(&mut self) -> Batch {
        let mut batch = Batch::default();
        self.is_urgent = false;
        for serial in std::mem::take(&mut self.unwritten) {
            match self.entries.get_mut(&serial) {
                Some(entry) => {
                    entry.may_be_stored = true;
                    batch.put.push(Row {
                        serial,
                        deferred: Arc::clone(&entry.deferred),
                        state: entry.state.clone(),
                        version: entry.version,
                    });
                }
                None => batch.delete.push(serial),
            }
        }
        batch
    }

    /// Whoever waits for the disk waits in vain.
    fn let_nobody_wait(&mut self) {
        self.erasures.clear();
        for entry in self.entries.values_mut() {
            for (_, told) in entry.commits.drain(..) {
                _ = told.send(false);
            }
        }
    }
}
