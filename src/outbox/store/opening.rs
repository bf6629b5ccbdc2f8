//! Opening the store: a file that is sound, with rows that are.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};
use tracing::warn;

use super::record::{self, Damaged, Record, Stage};
use super::schema::{self, Version};
use super::{DAMAGE_SHOWN, DELETE, FILE, Moment, Store, StoreError, aside, bodies, identity};
use crate::outbox::Deferred;
use crate::outbox::ledger::{Row, State};

/// How long a reader is waited for.
pub(super) const PATIENCE: Duration = Duration::from_millis(100);
const MODE: u32 = 0o600;

/// What was in the store.
#[derive(Default)]
pub(in crate::outbox) struct Found {
    /// Entries that go on.
    pub(in crate::outbox) entries: Vec<(u64, Deferred, State)>,
    /// The numbers of all of them.
    pub(in crate::outbox) serials: BTreeSet<u64>,
    /// Those whose token is over.
    pub(in crate::outbox) expired: usize,
    /// Those that cannot be read, and cannot be ended.
    pub(in crate::outbox) damaged: Vec<Damaged>,
    /// The interactions whose answer cannot be read: they end with the fallback text.
    pub(in crate::outbox) unanswered: Vec<u64>,
}

impl Store {
    /// Opens the store of a folder, or begins one. A file that cannot be used is set aside.
    pub(in crate::outbox) fn open(folder: &Path, moment: Moment) -> Result<(Self, Found), StoreError> {
        let error = match Self::try_open(folder, moment) {
            Err(error) if error.is_damage() || is_unjustly_read_only(&error, folder) => error,
            opened => return opened,
        };
        let why = if matches!(error, StoreError::Newer(_)) { "newer" } else { "damaged" };
        let name = aside::set_aside(folder, why, moment.unix)?;
        let folder_name = folder.display();
        warn!(
            "{FILE} in {folder_name} cannot be used: {error}; it is kept as {name}, and a new one is begun"
        );
        Self::try_open(folder, moment)
    }

    fn try_open(folder: &Path, moment: Moment) -> Result<(Self, Found), StoreError> {
        make(folder)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(folder.join(FILE), flags)?;
        connection.busy_timeout(PATIENCE)?;
        let version = schema::version(&connection)?;
        if let Version::Empty = version {
            // Before anything is in it, or never.
            connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        } else {
            check(&connection)?;
        }
        let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
        if mode != "wal" {
            return Err(StoreError::Damaged("it takes no write-ahead log".to_owned()));
        }
        connection.execute_batch(
            "PRAGMA synchronous = FULL; PRAGMA secure_delete = ON; PRAGMA cell_size_check = ON; \
             PRAGMA temp_store = MEMORY; PRAGMA trusted_schema = OFF;",
        )?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        schema::migrate(&transaction, &version)?;
        if !schema::is_as_made(&transaction)? {
            return Err(StoreError::Damaged("its tables are not as they should be".to_owned()));
        }
        let found = load(&transaction, folder, moment)?;
        let forget_at = forget_damage(&transaction, moment)?;
        transaction.commit()?;
        let files = remove_orphans(folder, &found.serials)?;
        let (folder, identity) = (folder.to_owned(), identity(folder)?);
        Ok((Self { connection, folder, identity, files, log_is_used: true, forget_at }, found))
    }
}

/// Makes an empty file that only its owner reads; SQLite makes those beside it alike.
fn make(folder: &Path) -> io::Result<()> {
    let path = folder.join(FILE);
    match OpenOptions::new().write(true).create_new(true).mode(MODE).open(&path) {
        Ok(_) => bodies::sync_names(folder),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            // Not opened here: closing it would take the locks from those who read it in this process.
            if fs::metadata(&path)?.permissions().mode() & 0o7777 != MODE {
                fs::set_permissions(&path, Permissions::from_mode(MODE))?;
            }
            Ok(())
        }
        Err(error) => Err(error),
    }
}

fn check(connection: &Connection) -> Result<(), StoreError> {
    let first: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if first == "ok" { Ok(()) } else { Err(StoreError::Damaged(first)) }
}

/// A file says of itself in which way it may be written; a wrong word there is damage like any other.
fn is_unjustly_read_only(error: &StoreError, folder: &Path) -> bool {
    let StoreError::Sqlite(error) = error else { return false };
    let is_read_only = error.sqlite_error_code() == Some(ErrorCode::ReadOnly);
    is_read_only && OpenOptions::new().write(true).open(folder.join(FILE)).is_ok()
}

/// Reads all rows, and lets none stay that does not go on as it is.
fn load(transaction: &Transaction<'_>, folder: &Path, moment: Moment) -> Result<Found, StoreError> {
    let mut found = Found::default();
    let mut gone = Vec::new();
    let mut failed = Vec::new();
    {
        let mut read = transaction.prepare(record::READ)?;
        let mut rows = read.query([])?;
        while let Some(row) = rows.next()? {
            match Record::decode(row)? {
                Err(damaged) => found.damaged.push(damaged),
                Ok(record) if record.expires <= moment.unix => {
                    gone.push(record.serial);
                    found.expired += 1;
                }
                Ok(record) => {
                    let is_whole = has_whole_body(transaction, folder, &record)?;
                    let (serial, deferred, state) = record.recover(moment);
                    found.serials.insert(serial);
                    let state = if is_whole { state } else { State::Failed };
                    if !is_whole {
                        found.unanswered.push(deferred.id);
                        failed.push(serial);
                    }
                    found.entries.push((serial, deferred, state));
                }
            }
        }
    }
    keep_damage(transaction, &found.damaged, moment)?;
    let mut delete = transaction.prepare(DELETE)?;
    for serial in gone.into_iter().chain(found.damaged.iter().map(|damaged| damaged.serial)) {
        delete.execute([serial.cast_signed()])?;
    }
    let mut put = transaction.prepare_cached(record::PUT)?;
    for (serial, deferred, state) in found.entries.iter().filter(|(serial, ..)| failed.contains(serial)) {
        let row =
            Row { serial: *serial, deferred: deferred.clone().into(), state: state.clone(), version: 0 };
        record::put(&mut put, &row, moment, None, None)?;
    }
    Ok(found)
}

fn has_whole_body(connection: &Connection, folder: &Path, record: &Record) -> Result<bool, StoreError> {
    let Stage::Answered { body: sum, .. } = &record.stage else { return Ok(true) };
    if sum.size > bodies::IN_ROW {
        return Ok(bodies::is_whole(folder, record.serial, *sum)?);
    }
    let mut select = connection.prepare_cached("SELECT body FROM entries WHERE serial = ?1")?;
    let body = select.query_row([record.serial.cast_signed()], |row| {
        Ok(row.get_ref(0)?.as_blob().is_ok_and(|body| record::BodySum::of(body) == *sum))
    });
    Ok(body?)
}

/// What cannot be read is not kept, since a token may be in it; only that there was something.
fn keep_damage(transaction: &Transaction<'_>, damaged: &[Damaged], moment: Moment) -> rusqlite::Result<()> {
    let mut keep = transaction
        .prepare("INSERT OR REPLACE INTO damaged (serial, interaction, found) VALUES (?1, ?2, ?3)")?;
    for Damaged { serial, interaction } in damaged {
        keep.execute((serial.cast_signed(), interaction.map(u64::cast_signed), millis(moment.unix)))?;
    }
    Ok(())
}

/// Forgets damaged rows that were shown long enough. When the next one is to be forgotten.
pub(super) fn forget_damage(connection: &Connection, moment: Moment) -> rusqlite::Result<Option<Duration>> {
    let oldest = moment.unix.saturating_sub(DAMAGE_SHOWN);
    connection.execute("DELETE FROM damaged WHERE found <= ?1", [millis(oldest)])?;
    let found: Option<i64> = connection.query_row("SELECT min(found) FROM damaged", [], |row| row.get(0))?;
    let found = found.map(|found| Duration::from_millis(u64::try_from(found).unwrap_or_default()));
    Ok(found.map(|found| found.saturating_add(DAMAGE_SHOWN)))
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// Removes files of no entry: of one that never came to be, or is gone. Those that are left.
fn remove_orphans(folder: &Path, serials: &BTreeSet<u64>) -> io::Result<BTreeSet<u64>> {
    let files = bodies::all(folder)?;
    for orphan in files.difference(serials) {
        bodies::remove(folder, *orphan)?;
    }
    Ok(files.intersection(serials).copied().collect())
}
