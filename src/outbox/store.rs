//! The store: entries on disk, in SQLite.
//!
//! One thread writes it ([`super::writer`]); answers' bodies are read by whoever delivers them.

mod aside;
mod bodies;
mod moment;
mod opening;
mod record;
mod schema;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, TransactionBehavior};
use thiserror::Error;

use super::Content;
use super::ledger::{Batch, Row, State};
pub(super) use moment::Moment;
pub(super) use opening::Found;
use record::BodySum;
pub(super) use record::{Damaged, READ, Record, Stage, deferral_word, way_word};
pub(super) use schema::is_begun;

/// The database's name in the folder for state.
pub(super) const FILE: &str = "outbox.sqlite3";

/// What is known of a damaged row is shown for so long.
const DAMAGE_SHOWN: Duration = Duration::from_secs(24 * 60 * 60);

/// SQLite's place for the schema's version.
const VERSION: &str = "user_version";

const DELETE: &str = "DELETE FROM entries WHERE serial = ?1";

/// A database that is open and sound.
pub(super) struct Store {
    connection: Connection,
    folder: PathBuf,
    /// Which file it is: device and number.
    identity: (u64, u64),
    /// The entries whose body is a file.
    files: BTreeSet<u64>,
    /// Whether the write-ahead log may hold something.
    log_is_used: bool,
    /// The time of day when a damaged row is to be forgotten.
    forget_at: Option<Duration>,
}

/// Entries whose answer could not be written, by number, with why.
pub(super) type LeftOut = BTreeMap<u64, io::Error>;

/// Why the store cannot follow.
#[derive(Debug, Error)]
pub(super) enum StoreError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error("{FILE} is not where it was")]
    Gone,
    #[error("{0}")]
    Damaged(String),
    #[error("it is of a newer version of shardless ({0})")]
    Newer(usize),
}

impl StoreError {
    /// Whether the file is to blame, and not what it lies on.
    fn is_damage(&self) -> bool {
        match self {
            Self::Io(_) | Self::Gone => false,
            Self::Damaged(_) | Self::Newer(_) => true,
            Self::Sqlite(error) => !matches!(
                error.sqlite_error_code(),
                Some(
                    ErrorCode::SystemIoFailure
                        | ErrorCode::DiskFull
                        | ErrorCode::CannotOpen
                        | ErrorCode::PermissionDenied
                        | ErrorCode::ReadOnly
                        | ErrorCode::DatabaseBusy
                        | ErrorCode::DatabaseLocked
                        | ErrorCode::FileLockingProtocolFailed
                        | ErrorCode::OutOfMemory
                )
            ),
        }
    }
}

impl Store {
    /// Writes a batch, in one transaction. After an error the store is not to be used any more.
    ///
    /// One answer that cannot be written takes nothing from the others: such entries stay on disk as they were before
    /// it. They are returned, with what was in the way.
    pub(super) fn write(&mut self, batch: &Batch, moment: Moment) -> Result<LeftOut, StoreError> {
        if batch.is_empty() {
            return Ok(LeftOut::new());
        }
        // A file that is gone from its folder can be written, but nobody finds it again.
        if identity(&self.folder)? != self.identity {
            return Err(StoreError::Gone);
        }
        let (sums, left_out) = self.write_files(&batch.put)?;
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let mut delete = transaction.prepare_cached(DELETE)?;
            for serial in &batch.delete {
                delete.execute([serial.cast_signed()])?;
            }
            let mut put = transaction.prepare_cached(record::PUT)?;
            for (row, sum) in batch.put.iter().zip(sums) {
                if left_out.contains_key(&row.serial) {
                    let before = Row { state: State::Waiting, ..row.clone() };
                    record::put(&mut put, &before, moment, None, None)?;
                    continue;
                }
                let body = body(row).filter(|_| sum.is_some_and(|sum| sum.size <= bodies::IN_ROW));
                record::put(&mut put, row, moment, sum, body)?;
            }
        }
        transaction.commit()?;
        self.log_is_used = true;
        for serial in &batch.delete {
            if self.files.remove(serial) {
                bodies::remove(&self.folder, *serial)?;
            }
        }
        Ok(left_out)
    }

    /// Writes something that changes nothing: whether that can be done.
    pub(super) fn prove(&mut self) -> Result<(), StoreError> {
        let version: i64 = self.connection.pragma_query_value(None, VERSION, |row| row.get(0))?;
        self.connection.pragma_update(None, VERSION, version)?;
        self.log_is_used = true;
        Ok(())
    }

    /// Large bodies are on disk before what names them.
    fn write_files(&mut self, rows: &[Row]) -> io::Result<(Vec<Option<BodySum>>, LeftOut)> {
        let (mut sums, mut any, mut left_out) = (Vec::with_capacity(rows.len()), false, LeftOut::new());
        for row in rows {
            let body = body(row);
            let sum = body.map(BodySum::of);
            if let Some(body) = body.filter(|_| sum.is_some_and(|sum| sum.size > bodies::IN_ROW)) {
                self.files.insert(row.serial);
                any = true;
                if let Err(error) = bodies::write(&self.folder, row.serial, body) {
                    // A part of it would take the room from others.
                    bodies::remove(&self.folder, row.serial)?;
                    self.files.remove(&row.serial);
                    left_out.insert(row.serial, error);
                }
            }
            sums.push(sum);
        }
        if any {
            bodies::sync_names(&self.folder)?;
        }
        Ok((sums, left_out))
    }

    /// Lets go of what is over: free pages, damaged rows that were shown long enough, and the write-ahead log, which
    /// holds deleted tokens until it is cut.
    pub(super) fn tidy(&mut self, moment: Moment) -> Result<(), StoreError> {
        if self.forget_at.is_some_and(|at| at <= moment.unix) {
            self.forget_at = opening::forget_damage(&self.connection, moment)?;
            self.log_is_used = true;
        }
        if !self.log_is_used {
            return Ok(());
        }
        // Each step frees one page.
        let mut vacuum = self.connection.prepare_cached("PRAGMA incremental_vacuum")?;
        let mut steps = vacuum.query([])?;
        while steps.next()?.is_some() {}
        drop(steps);
        let is_busy: bool =
            self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
        // Whoever reads just now keeps it; then the next time.
        self.log_is_used = is_busy;
        Ok(())
    }

    /// Closes it, so that no other file of it is left.
    pub(super) fn close(mut self, moment: Moment) -> Result<(), StoreError> {
        self.log_is_used = true;
        self.tidy(moment)?;
        self.connection.close().map_err(|(_, error)| error.into())
    }
}

/// An answer's body that is still in memory.
fn body(row: &Row) -> Option<&[u8]> {
    match &row.state {
        State::Answered { body, .. } => body.as_deref(),
        _ => None,
    }
}

fn identity(folder: &Path) -> Result<(u64, u64), StoreError> {
    match fs::metadata(folder.join(FILE)) {
        Ok(file) => Ok((file.dev(), file.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(StoreError::Gone),
        Err(error) => Err(error.into()),
    }
}

/// The body of an answer that is in that folder's store.
///
/// # Errors
///
/// If it cannot be read, or is not what was written.
pub(super) async fn content(folder: PathBuf, serial: u64) -> io::Result<Content> {
    let read = move || read_content(&folder, serial);
    tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
}

fn read_content(folder: &Path, serial: u64) -> io::Result<Content> {
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "the answer in the outbox is damaged");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let found = Connection::open_with_flags(folder.join(FILE), flags).and_then(|connection| {
        connection.busy_timeout(opening::PATIENCE)?;
        let select = "SELECT body_size, body_digest, body FROM entries WHERE serial = ?1";
        let get = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        connection.query_row(select, [serial.cast_signed()], get).optional()
    });
    let found: Option<(i64, [u8; 32], Option<Vec<u8>>)> = found.map_err(io::Error::other)?;
    let (size, digest, body) = found.ok_or(io::ErrorKind::NotFound)?;
    let sum = BodySum { size: size.cast_unsigned(), digest };
    match body {
        Some(body) if BodySum::of(&body) == sum => Ok(Content::Bytes(body.into())),
        Some(_) => Err(damaged()),
        None => {
            let path = bodies::path(folder, serial);
            let size = fs::metadata(&path)?.len();
            if size == sum.size { Ok(Content::File { path, size }) } else { Err(damaged()) }
        }
    }
}

#[cfg(test)]
mod tests;
