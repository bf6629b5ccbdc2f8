//! The store's thread: it makes the disk follow the ledger, and tries again for ever where the disk fails.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::ledger::{Batch, Ledger, Next};
use super::store::{Found, Moment, Store, StoreError};
use crate::metrics::Reason;

/// Between two tries to open the store.
const PAUSE: Duration = Duration::from_secs(1);
/// Without anything to write for so long, the disk is tidied.
const IDLE: Duration = Duration::from_secs(1);
/// Tokens that are over leave the disk after that time at the latest, whatever there is to write.
const TIDY: Duration = Duration::from_secs(45);

/// Writes what the ledger says.
pub(super) struct Writer {
    ledger: Arc<Ledger>,
    folder: PathBuf,
    /// Whether what an earlier process left is in the ledger.
    has_recovered: bool,
    is_failing: bool,
    tidied: Instant,
}

/// Why the store does not follow just now.
#[derive(Debug, Error)]
enum Failure {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("its thread panicked")]
    Panic,
}

impl Writer {
    pub(super) fn new(ledger: Arc<Ledger>, folder: PathBuf) -> Self {
        let tidied = ledger.clock.now();
        Self { ledger, folder, has_recovered: false, is_failing: false, tidied }
    }

    /// Follows until the ledger is closed.
    pub(super) fn run(mut self) {
        let mut is_last = false;
        loop {
            let failure = match catch_unwind(AssertUnwindSafe(|| self.follow())) {
                Ok(Ok(())) => break,
                Ok(Err(error)) => Failure::Store(error),
                Err(_) => Failure::Panic,
            };
            self.fails(&failure);
            if is_last {
                error!("the outbox could not be closed: {failure}; deferrals that are left are lost");
                break;
            }
            is_last = self.ledger.pause(PAUSE) || self.is_alone();
        }
        self.ledger.set_at_work(false);
    }

    fn follow(&mut self) -> Result<(), StoreError> {
        let (mut store, found) = Store::open(&self.folder, self.moment())?;
        if self.is_failing {
            // A full disk opens as well as any other.
            store.prove()?;
        }
        self.take_over(found);
        loop {
            match self.ledger.next(IDLE) {
                Next::Write(batch) => {
                    self.write(&mut store, &batch)?;
                    if self.ledger.clock.now().saturating_duration_since(self.tidied) >= TIDY {
                        self.tidy(&mut store)?;
                    }
                }
                Next::Rest if self.is_alone() => return store.close(self.moment()),
                Next::Rest => self.tidy(&mut store)?,
                Next::Close(batch) => {
                    self.write(&mut store, &batch)?;
                    return store.close(self.moment());
                }
            }
        }
    }

    fn write(&self, store: &mut Store, batch: &Batch) -> Result<(), StoreError> {
        let left_out = store.write(batch, self.moment())?;
        for (row, error) in batch.put.iter().filter_map(|row| Some((row, left_out.get(&row.serial)?))) {
            let interaction = row.deferred.id;
            warn!(
                interaction,
                "an answer cannot be written to the disk: {error}; a restart would bring the fallback text instead"
            );
        }
        self.ledger.wrote(batch, |serial| left_out.contains_key(&serial));
        Ok(())
    }

    fn take_over(&mut self, found: Found) {
        let Found { entries, serials, expired, damaged, unanswered } = found;
        let lost = |reason| self.ledger.metrics.outbox_lost.get_or_create(&Reason { reason });
        if expired > 0 {
            lost("expired").inc_by(u64::try_from(expired).unwrap_or(u64::MAX));
            warn!("{expired} deferred interactions in the outbox expired before they could be answered");
        }
        for row in damaged {
            lost("damaged").inc();
            let id = row.interaction.map_or_else(|| "unknown".to_owned(), |id| id.to_string());
            warn!(interaction = id, "an entry of the outbox is damaged: its interaction cannot be ended");
        }
        for interaction in unanswered {
            lost("damaged").inc();
            warn!(interaction, "an answer in the outbox is damaged: the user gets the fallback text instead");
        }
        if !self.has_recovered {
            self.has_recovered = true;
            if !entries.is_empty() {
                info!("{} deferred interactions of an earlier run go on", entries.len());
            }
            self.ledger.recover(entries);
        }
        self.ledger.opened(self.folder.clone(), &serials);
        if std::mem::take(&mut self.is_failing) {
            info!("the outbox is on disk again");
        }
    }

    fn tidy(&mut self, store: &mut Store) -> Result<(), StoreError> {
        self.tidied = self.ledger.clock.now();
        store.tidy(self.moment())
    }

    fn fails(&mut self, failure: &Failure) {
        self.ledger.failed(failure.to_string());
        if !std::mem::replace(&mut self.is_failing, true) {
            let folder = self.folder.display();
            warn!(
                "the outbox in {folder} cannot be kept: {failure}; deferrals go on, but a crash would lose them"
            );
        }
    }

    /// Whether nobody is left who could say anything.
    fn is_alone(&self) -> bool {
        Arc::strong_count(&self.ledger) == 1
    }

    fn moment(&self) -> Moment {
        Moment::of(&*self.ledger.clock)
    }
}
