//! What holds now: every entry, in memory, and how far the store is behind.

mod following;
mod leaving;
mod left_behind;

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::{AFTER_DEFERRAL, Deferred, Due, Health, Tally, Task};
use crate::budget::{Budget, Reservation};
use crate::clock::Clock;
use crate::discord::late::{Message, Way};
use crate::metrics::Metrics;
pub(super) use following::{Batch, Next, Row};
pub(super) use left_behind::Came;
use left_behind::LeftBehind;

/// A write that takes longer makes the disk a slow one.
const SLOW: Duration = Duration::from_secs(1);

/// All entries.
pub(super) struct Ledger {
    book: Mutex<Book>,
    /// Told where the store is behind, or is to be closed.
    changed: Condvar,
    /// Whether the store's thread is at work.
    at_work: watch::Sender<bool>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: Arc<Metrics>,
    /// Counts entries whose handler is at work.
    pub(super) waiting: Arc<Budget>,
    /// Counts entries that are to be delivered as soon as can be.
    pub(super) undelivered: Arc<Budget>,
}

struct Book {
    entries: HashMap<u64, Entry>,
    /// What an earlier process left, and which interactions have come once more.
    left_behind: LeftBehind,
    next: u64,
    due: mpsc::UnboundedSender<Due>,
    /// Entries of which the store does not know the last word, those that are gone included.
    unwritten: BTreeSet<u64>,
    /// Who waits until one that is gone is gone from disk too.
    erasures: HashMap<u64, oneshot::Sender<()>>,
    /// Whether somebody may wait for one of them.
    is_urgent: bool,
    store: StoreState,
    /// Where the store is, or was when it could last be opened.
    folder: Option<PathBuf>,
    /// When what the store is writing now was given to it.
    writing_since: Option<Instant>,
    /// Whether a write was slow since the operator was last told.
    was_slow: bool,
    /// Whether the operator was told that the disk is slow.
    is_called_slow: bool,
    closing: bool,
}

/// What is known of the store.
enum StoreState {
    /// There is none, or not yet.
    Absent,
    /// It follows.
    Open,
    /// It cannot; in words for the operator.
    Failing(String),
}

struct Entry {
    deferred: Arc<Deferred>,
    state: State,
    /// Since when it is in that state.
    since: Instant,
    /// From when on Discord may be asked; `None` until the deferral is on its way.
    not_before: Option<Instant>,
    /// Counts what was said of it.
    version: u64,
    /// The version that is on disk.
    stored: Option<u64>,
    /// Whether the store may have it, in any version.
    may_be_stored: bool,
    /// Whether its answer could not be written.
    is_left_out: bool,
    /// Who waits for a version to be on disk.
    commits: Vec<(u64, oneshot::Sender<bool>)>,
    /// Its part of the bounds and counts, given back with it.
    _room: Option<Reservation>,
    _counted: Option<Reservation>,
}

/// How far an entry is.
#[derive(Clone, Debug)]
pub(super) enum State {
    /// Its handler is at work.
    Waiting,
    /// Its handler has answered.
    Answered {
        way: Way,
        content_type: String,
        /// `None` once it is on disk.
        body: Option<Bytes>,
    },
    /// Its handler has no answer.
    Failed,
    /// Its handler says that it edits by itself.
    EditsItself,
}

/// What was said of an entry.
pub(super) enum Progress {
    Answered(Message),
    EditsItself,
    Failed,
}

impl Ledger {
    pub(super) fn new(due: mpsc::UnboundedSender<Due>, clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Self {
        let book = Book {
            entries: HashMap::new(),
            left_behind: LeftBehind::default(),
            next: first_serial(&*clock),
            due,
            unwritten: BTreeSet::new(),
            erasures: HashMap::new(),
            is_urgent: false,
            store: StoreState::Absent,
            folder: None,
            writing_since: None,
            was_slow: false,
            is_called_slow: false,
            closing: false,
        };
        let (waiting, undelivered) = (Budget::new(usize::MAX), Budget::new(usize::MAX));
        let (changed, at_work) = (Condvar::new(), watch::Sender::new(false));
        Self { book: Mutex::new(book), changed, at_work, clock, metrics, waiting, undelivered }
    }

    pub(super) fn begin(&self, deferred: Deferred, room: Reservation) -> u64 {
        let mut book = self.lock();
        let serial = book.next;
        book.next += 1;
        let entry = Entry {
            deferred: Arc::new(deferred),
            state: State::Waiting,
            since: self.clock.now(),
            not_before: None,
            version: 1,
            stored: None,
            may_be_stored: false,
            is_left_out: false,
            commits: Vec::new(),
            _room: Some(room),
            _counted: self.waiting.try_one(),
        };
        book.entries.insert(serial, entry);
        book.mark_unwritten(serial);
        self.metrics.outbox_entries.inc();
        drop(book);
        self.changed.notify_one();
        serial
    }

    /// What is said of an entry counts once: later words change nothing.
    pub(super) fn progress(&self, serial: u64, progress: Progress) {
        let (mut book, now) = (self.lock(), self.clock.now());
        let Some(entry) = book.entries.get_mut(&serial) else { return };
        if !matches!(entry.state, State::Waiting) {
            return;
        }
        entry.state = match progress {
            Progress::Answered(Message { way, content_type, body }) => {
                State::Answered { way, content_type, body: Some(body) }
            }
            Progress::EditsItself => State::EditsItself,
            Progress::Failed => State::Failed,
        };
        entry.since = now;
        entry.version += 1;
        entry._counted = self.counted(&entry.state);
        book.make_due(serial);
        book.mark_unwritten(serial);
        drop(book);
        self.changed.notify_one();
    }

    pub(super) fn sent(&self, serial: u64) {
        let not_before = self.clock.now() + AFTER_DEFERRAL;
        let mut book = self.lock();
        let Some(entry) = book.entries.get_mut(&serial) else { return };
        if entry.not_before.is_none() {
            entry.not_before = Some(not_before);
            let deferred = Arc::clone(&entry.deferred);
            book.make_due(serial);
            drop(book);
            self.came(&deferred.app, deferred.id, Came::Deferred);
        }
    }

    pub(super) fn give_all_up(&self) {
        let waiting: Vec<_> = {
            let book = self.lock();
            let waiting = book.entries.iter().filter(|(_, entry)| matches!(entry.state, State::Waiting));
            waiting.map(|(serial, _)| *serial).collect()
        };
        for serial in waiting {
            self.progress(serial, Progress::Failed);
        }
    }

    /// Waits until the last version of an entry is on disk; not at all where the store fails, is slow or is none, or
    /// cannot take it.
    pub(super) async fn committed(&self, serial: u64) -> bool {
        let waited_for = {
            let mut book = self.lock();
            let (is_open, is_slow) = (matches!(book.store, StoreState::Open), book.is_slow(self.clock.now()));
            let Some(entry) = book.entries.get_mut(&serial) else { return false };
            if entry.stored >= Some(entry.version) {
                return true;
            }
            // Of a slow disk, each would wait as long as it is ready to.
            if !is_open || is_slow || entry.is_left_out {
                return false;
            }
            let (told, waits) = oneshot::channel();
            entry.commits.push((entry.version, told));
            waits
        };
        waited_for.await.unwrap_or(false)
    }

    /// An answer's body if it is in memory, else where the store is that has it.
    pub(super) fn body(&self, serial: u64) -> Option<Result<Bytes, PathBuf>> {
        let book = self.lock();
        let State::Answered { body, .. } = &book.entries.get(&serial)?.state else { return None };
        match body {
            Some(body) => Some(Ok(body.clone())),
            // Also while it cannot be written: a full disk can be read.
            None => book.folder.clone().map(Err),
        }
    }

    pub(super) fn health(&self) -> Health {
        let (book, now) = (self.lock(), self.clock.now());
        match &book.store {
            StoreState::Absent => Health::Unheld,
            StoreState::Failing(why) => Health::Degraded(why.clone()),
            StoreState::Open if book.is_slow(now) => Health::Degraded("the disk is slow".to_owned()),
            StoreState::Open => Health::Durable,
        }
    }

    pub(super) fn tally(&self) -> Tally {
        let (book, now, unix_time) = (self.lock(), self.clock.now(), self.clock.unix_time());
        let undelivered = |entry: &&Entry| matches!(entry.state, State::Answered { .. } | State::Failed);
        let since = book.entries.values().filter(undelivered).map(|entry| entry.since).min();
        let arrived = book.entries.values().map(|entry| entry.deferred.arrived).min();
        Tally {
            entries: book.entries.len(),
            undelivered: self.undelivered.used(),
            oldest: arrived.map(|arrived| unix_time.saturating_sub(arrived)),
            oldest_undelivered: since.map(|since| now.saturating_duration_since(since)),
        }
    }

    /// Whether the disk is slow, or has been since this was last asked; `None` where that is no news.
    pub(super) fn news_of_slowness(&self) -> Option<bool> {
        let (mut book, now) = (self.lock(), self.clock.now());
        if !matches!(book.store, StoreState::Open) {
            return None;
        }
        let is_slow = std::mem::take(&mut book.was_slow) || book.is_slow(now);
        let is_news = std::mem::replace(&mut book.is_called_slow, is_slow) != is_slow;
        self.show(&book);
        is_news.then_some(is_slow)
    }

    /// Lets the store write the rest, and waits until it is closed.
    pub(super) async fn close(&self) {
        self.lock().closing = true;
        self.changed.notify_all();
        _ = self.at_work.subscribe().wait_for(|at_work| !at_work).await;
    }

    fn counted(&self, state: &State) -> Option<Reservation> {
        match state {
            State::Waiting => self.waiting.try_one(),
            State::Answered { .. } | State::Failed => self.undelivered.try_one(),
            State::EditsItself => None,
        }
    }

    /// Shows whoever reads the metrics how the store is.
    fn show(&self, book: &Book) {
        let is_degraded = match book.store {
            StoreState::Absent => false,
            StoreState::Open => book.is_called_slow,
            StoreState::Failing(_) => true,
        };
        self.metrics.outbox_degraded.set(is_degraded.into());
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    /// Whether the store's thread has waited for the disk for long.
    fn is_slow(&self, now: Instant) -> bool {
        self.writing_since.is_some_and(|since| now.saturating_duration_since(since) > SLOW)
    }

    /// Once an entry's end is known and its deferral is on its way, it is due.
    fn make_due(&self, serial: u64) {
        let Some(entry) = self.entries.get(&serial) else { return };
        let Some(not_before) = entry.not_before else { return };
        let (task, at) = match &entry.state {
            State::Waiting => return,
            State::Answered { way, content_type, .. } => {
                (Task::Answer { way: *way, content_type: content_type.clone() }, not_before)
            }
            State::Failed => (Task::Fallback, not_before),
            State::EditsItself => (Task::FallbackUnlessEdited, not_before.max(entry.deferred.give_up)),
        };
        // Nobody takes it only where the daemon has ended; then the next one does.
        _ = self.due.send(Due { serial, deferred: Arc::clone(&entry.deferred), task, at });
    }

    /// The store is to be told of this entry, and somebody may wait for that.
    fn mark_unwritten(&mut self, serial: u64) {
        self.unwritten.insert(serial);
        self.is_urgent = true;
    }
}

/// Where those of other processes are not: their entries may be in the same store.
fn first_serial(clock: &dyn Clock) -> u64 {
    let mut random = [0; 8];
    match getrandom::fill(&mut random) {
        // As SQLite counts, and with room above.
        Ok(()) => u64::from_le_bytes(random) >> 2,
        Err(_) => u64::try_from(clock.unix_time().as_micros()).unwrap_or_default(),
    }
}
