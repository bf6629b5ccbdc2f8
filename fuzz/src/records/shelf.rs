//! Outboxes, one after another, each in a folder of its own.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use shardless::budget::Budget;
use shardless::clock::{Clock, SystemClock};
use shardless::discord::Token;
use shardless::discord::deferral::Deferral;
use shardless::discord::late::{Message, Way};
use shardless::metrics::Metrics;
use shardless::outbox::{Deferred, Dues, Health, Outbox, Ticket, view};
use tempfile::TempDir;
use tokio::runtime::{self, Runtime};
use tokio::sync::OnceCell;

use super::{End, shown};

/// The database's name.
pub(super) const FILE: &str = "outbox.sqlite3";
/// The body of the answer in the image.
pub(super) const ANSWER: &[u8] = br#"{"content":"at last"}"#;

pub(super) struct Shelf {
    /// Never dropped: that needs what is gone at a thread's end.
    runtime: &'static Runtime,
    image: OnceCell<Image>,
    folders: TempDir,
}

/// A database that is sound, and what is in it.
pub(super) struct Image {
    pub(super) database: Vec<u8>,
    pub(super) seen: HashSet<String>,
    pub(super) entries: HashSet<String>,
}

impl Shelf {
    pub(super) fn new() -> Self {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (image, folders) = (OnceCell::new(), tempfile::tempdir().unwrap());
        Self { runtime: Box::leak(Box::new(runtime)), image, folders }
    }

    pub(super) fn run(&self, check: impl Future<Output = ()>) {
        self.runtime.block_on(check);
    }

    pub(super) fn folder(&self) -> TempDir {
        tempfile::tempdir_in(&self.folders).unwrap()
    }

    pub(super) async fn open(&self, folder: &Path) -> (Outbox, Dues) {
        let (outbox, dues) = Outbox::new(Arc::new(SystemClock), Arc::new(Metrics::default()));
        outbox.keep_in(folder.to_owned());
        let durable = async {
            while outbox.health() != Health::Durable {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let is_durable = tokio::time::timeout(Duration::from_secs(20), durable).await.is_ok();
        assert!(is_durable, "the store does not open: {:?}", outbox.health());
        (outbox, dues)
    }

    pub(super) fn begin(&self, outbox: &Outbox, deferred: Deferred) -> Ticket {
        outbox.begin(deferred, Budget::new(1).try_one().unwrap())
    }

    /// Writes entries, each with its end, as a daemon leaves them that is stopped.
    pub(super) async fn write(&self, folder: &Path, entries: impl IntoIterator<Item = (Deferred, End)>) {
        let (outbox, _dues) = self.open(folder).await;
        let mut tickets = Vec::new();
        for (deferred, end) in entries {
            let mut ticket = self.begin(&outbox, deferred);
            ticket.defer();
            match end {
                End::Waiting => {}
                End::Answered(message) => ticket.answered(message),
                End::Failed => ticket.failed(),
                End::EditsItself => ticket.edits_itself(),
            }
            assert!(ticket.committed().await);
            tickets.push(ticket);
        }
        outbox.close().await;
    }

    /// One that is well in time.
    pub(super) fn deferred(&self, id: u64) -> Deferred {
        let now = SystemClock.now();
        Deferred {
            app: "mybot".into(),
            id,
            application: 7,
            token: Token::new(&format!("token-{id}")).unwrap(),
            deferral: Deferral::Message { private: false },
            route: None,
            arrived: SystemClock.unix_time(),
            give_up: now + Duration::from_secs(600),
            expires: Deferred::expiry(now),
            asleep: SystemClock.asleep(),
            fallback: "Sorry.".into(),
        }
    }

    pub(super) async fn image(&self) -> &Image {
        self.image.get_or_init(|| self.make_image()).await
    }

    async fn make_image(&self) -> Image {
        let folder = self.folder();
        let message =
            Message { way: Way::Edit, content_type: "application/json".to_owned(), body: ANSWER.into() };
        let ends = [End::Answered(message), End::Failed, End::EditsItself, End::Waiting];
        let entries: Vec<_> =
            (1..).map(|id| self.deferred(id)).zip(ends.into_iter().cycle().take(12)).collect();
        let shown = entries.iter().map(|(deferred, _)| shown(deferred)).collect();
        self.write(folder.path(), entries).await;
        let seen = view::look(folder.path()).unwrap();
        assert_eq!(seen.len(), 12);
        let seen = seen.iter().map(|seen| format!("{seen:?}")).collect();
        Image { database: std::fs::read(folder.path().join(FILE)).unwrap(), seen, entries: shown }
    }
}
