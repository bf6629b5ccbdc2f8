//! The outbox: what Discord was told to wait for, from the deferral to its end.
//!
//! The ledger in memory is what holds now; the store on disk follows it, so that a crash, a restart or a power loss ends
//! no entry. Where the disk fails, the ledger goes on without it, and the store catches up when the disk is well again.

mod ledger;
mod store;
pub mod view;
mod writer;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::budget::Reservation;
use crate::clock::Clock;
use crate::discord::deferral::Deferral;
use crate::discord::late::{Message, Way};
use crate::discord::{TOKEN_LIFETIME, Token};
use crate::metrics::Metrics;
use ledger::{Came, Ledger, Progress};
use writer::Writer;

/// Between the end of the deferral's way to the connection and the first request to Discord: before that, Discord may
/// not know of it yet, and answer 404.
const AFTER_DEFERRAL: Duration = Duration::from_millis(300);

/// Before a token's end, when nothing is sent any more: what is under way is to arrive in time.
const TOKEN_MARGIN: Duration = Duration::from_secs(5);

/// Answers that are read from the disk at once: each takes a connection to the database, with its memory.
const READERS: usize = 4;

/// How long a stop waits for the disk.
const CLOSING: Duration = Duration::from_secs(3);

/// A deferred interaction.
#[derive(Clone, Debug)]
pub struct Deferred {
    /// The application's name in the config.
    pub app: Arc<str>,
    /// The interaction's snowflake.
    pub id: u64,
    /// The application's snowflake, for the address of the late answer.
    pub application: u64,
    /// The secret of that address.
    pub token: Token,
    /// What Discord was told.
    pub deferral: Deferral,
    /// The route that the interaction took, if it took one.
    pub route: Option<Arc<str>>,
    /// The time of day when its first byte came, since 1970.
    pub arrived: Duration,
    /// After this, the handler is not waited for any more.
    pub give_up: Instant,
    /// After this, nothing is sent to Discord any more.
    pub expires: Instant,
    /// How long the machine had slept when that was said: what it has slept since then counts too.
    pub asleep: Duration,
    /// What the user is told where the handler has no answer.
    pub fallback: Arc<str>,
}

impl Deferred {
    /// When to send the last for an interaction that came then.
    pub fn expiry(arrived: Instant) -> Instant {
        arrived + (TOKEN_LIFETIME - TOKEN_MARGIN)
    }
}

/// What is to be brought to Discord.
#[derive(Clone, Debug)]
pub struct Due {
    serial: u64,
    /// Whom it is for.
    pub deferred: Arc<Deferred>,
    /// What it is.
    pub task: Task,
    /// Not before.
    pub at: Instant,
}

/// What a deferred interaction ends with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// The handler's late answer.
    Answer {
        /// Which requests bring it to the user.
        way: Way,
        /// Of its body, which [`Outbox::content`] gives.
        content_type: String,
    },
    /// The fallback text.
    Fallback,
    /// The fallback text, unless the handler has edited by itself, as it said that it would.
    FallbackUnlessEdited,
}

/// The body of a late answer.
#[derive(Debug)]
pub enum Content {
    /// In memory.
    Bytes(Bytes),
    /// Beside the database: too large to be held.
    File {
        /// Where.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
    },
}

/// Whether entries are on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// They are.
    Durable,
    /// The folder for state is not held, or not yet.
    Unheld,
    /// They should be, but the disk fails or is slow; in words for the operator.
    Degraded(String),
}

/// How much there is to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Deferred interactions that have not come to their end.
    pub entries: usize,
    /// Those of them that are to be brought to Discord.
    pub undelivered: usize,
    /// Since the oldest one's arrival.
    pub oldest: Option<Duration>,
    /// Since it was known what to bring, of what has waited longest for that.
    pub oldest_undelivered: Option<Duration>,
}

/// All entries. Cheap to copy: all copies are the same one.
#[derive(Clone)]
pub struct Outbox {
    ledger: Arc<Ledger>,
    readers: Arc<Semaphore>,
}

/// What becomes due, each once; for the one who delivers.
pub struct Dues(mpsc::UnboundedReceiver<Due>);

impl Dues {
    /// The next one, as soon as there is one; its time may still be to come.
    pub async fn next(&mut self) -> Option<Due> {
        self.0.recv().await
    }
}

impl Outbox {
    /// An outbox in memory, until there is a folder for it.
    pub fn new(clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> (Self, Dues) {
        #[allow(
            clippy::disallowed_methods,
            reason = "an entry is due once at a time, and entries are bounded"
        )]
        let (due, dues) = mpsc::unbounded_channel();
        let readers = Arc::new(Semaphore::new(READERS));
        (Self { ledger: Arc::new(Ledger::new(due, clock, metrics)), readers }, Dues(dues))
    }

    /// Keeps entries in that folder from now on, and takes over those that an earlier process left there. To be said
    /// once, by whoever holds the folder's lock.
    pub fn keep_in(&self, folder: PathBuf) {
        self.ledger.set_at_work(true);
        let writer = Writer::new(Arc::clone(&self.ledger), folder);
        let thread = std::thread::Builder::new().name("outbox".to_owned());
        if let Err(error) = thread.spawn(|| writer.run()) {
            warn!("the outbox is not kept on disk: {error}");
            self.ledger.set_at_work(false);
            self.ledger.failed(error.to_string());
        }
    }

    /// Brings what is left to the disk, and closes the store; a disk that fails or hangs is not waited for long.
    pub async fn close(&self) {
        if tokio::time::timeout(CLOSING, self.ledger.close()).await.is_err() {
            warn!("the disk is too slow: the outbox is left as it is");
        }
    }

    /// Begins an entry, and its way to the disk. It goes with the ticket, until [`Ticket::defer`].
    /// `room` is its part of `limits.deferred`, given back at its end.
    pub fn begin(&self, deferred: Deferred, room: Reservation) -> Ticket {
        let serial = self.ledger.begin(deferred, room);
        Ticket { outbox: self.clone(), serial, is_deferred: false }
    }

    /// Waits until what was last said of this entry is on disk; not at all where the disk fails. Whether it is.
    pub async fn committed(&self, due: &Due) -> bool {
        self.ledger.committed(due.serial).await
    }

    /// The body of a late answer.
    ///
    /// # Errors
    ///
    /// If it is on disk alone and cannot be read.
    pub async fn content(&self, due: &Due) -> io::Result<Content> {
        match self.ledger.body(due.serial) {
            Some(Ok(body)) => Ok(Content::Bytes(body)),
            Some(Err(folder)) => {
                let _one = self.readers.acquire().await.map_err(io::Error::other)?;
                store::content(folder, due.serial).await
            }
            None => Err(io::Error::other("the outbox cannot be read")),
        }
    }

    /// What was due is delivered, or can never be: the entry goes.
    pub fn done(&self, due: &Due) {
        self.ledger.remove(due.serial);
    }

    /// Whether that is still to be delivered: it may have been taken back since it became due.
    pub fn has(&self, due: &Due) -> bool {
        self.ledger.has(due.serial)
    }

    /// An interaction is answered at once. A proxy may have sent it here since the process before was killed over it: then
    /// no fallback text of that one's is to follow.
    pub fn answered_at_once(&self, app: &Arc<str>, id: u64) {
        self.ledger.came(app, id, Came::Answered);
    }

    /// There is no folder to keep entries in, for now.
    pub fn cannot_be_kept(&self, why: String) {
        self.ledger.failed(why);
    }

    /// Whether entries are on disk.
    pub fn health(&self) -> Health {
        self.ledger.health()
    }

    /// How much there is to do.
    pub fn tally(&self) -> Tally {
        self.ledger.tally()
    }

    /// Says in the log when the disk gets slow, and when it is well again: the thread that waits for it cannot. To be
    /// called every few seconds.
    pub fn watch_disk(&self) {
        match self.ledger.news_of_slowness() {
            Some(true) => warn!("the disk of the outbox is slow: deferrals go on, but a crash may lose some"),
            Some(false) => info!("the disk of the outbox is no longer slow"),
            None => {}
        }
    }

    /// Waits until no handler is waited for any more.
    pub async fn none_waits(&self) {
        self.ledger.waiting.all_given_back().await;
    }

    /// Waits no longer for any handler: their interactions get the fallback text.
    pub fn give_all_up(&self) {
        self.ledger.give_all_up();
    }

    /// Waits until nothing is to be delivered but what handlers said that they do by themselves.
    pub async fn all_delivered(&self) {
        self.ledger.undelivered.all_given_back().await;
    }
}

/// A deferral that is being made. Once it is made, its entry ends as what is first said here, or with the fallback text
/// where nothing is said: a panic ends it too.
pub struct Ticket {
    outbox: Outbox,
    serial: u64,
    is_deferred: bool,
}

impl Ticket {
    /// Waits until the entry is on disk; not at all where the disk fails. Whether it is.
    pub async fn committed(&self) -> bool {
        self.outbox.ledger.committed(self.serial).await
    }

    /// From now on, Discord may have been told to wait: the entry does not go with the ticket.
    pub fn defer(&mut self) {
        self.is_deferred = true;
    }

    /// The deferral's end was handed to the connection. From now on, this entry is the interaction's only one: a proxy may
    /// have sent it once more, since the process before was killed over it.
    pub fn sent(&self) {
        self.outbox.ledger.sent(self.serial);
    }

    /// Discord got no deferral: the entry goes.
    pub fn withdraw(&self) {
        self.outbox.ledger.remove(self.serial);
    }

    /// The same, and waits until it is gone from disk too; not at all where the disk fails.
    pub async fn erase(&self) {
        self.outbox.ledger.erase(self.serial).await;
    }

    /// The handler has answered.
    pub fn answered(&self, message: Message) {
        self.outbox.ledger.progress(self.serial, Progress::Answered(message));
    }

    /// The handler edits by itself, as it says; if it does not until it is given up, the user gets the fallback text.
    pub fn edits_itself(&self) {
        self.outbox.ledger.progress(self.serial, Progress::EditsItself);
    }

    /// The handler has no answer: the user gets the fallback text.
    pub fn failed(&self) {
        self.outbox.ledger.progress(self.serial, Progress::Failed);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.is_deferred {
            // Both change nothing where they were said before.
            self.failed();
            self.sent();
        } else {
            self.withdraw();
        }
    }
}

#[cfg(test)]
mod tests;
