//! What the database looks like, by version.

use rusqlite::{Connection, Transaction};

use super::StoreError;

/// What makes each version of the one before it; the first of an empty file. Only ever added to.
const MIGRATIONS: [&str; 1] = ["
    CREATE TABLE entries (
        serial INTEGER PRIMARY KEY,
        app TEXT NOT NULL,
        interaction INTEGER NOT NULL,
        application INTEGER NOT NULL,
        token TEXT NOT NULL,
        deferral TEXT NOT NULL,
        route TEXT,
        arrived INTEGER NOT NULL,
        give_up INTEGER NOT NULL,
        expires INTEGER NOT NULL,
        fallback TEXT NOT NULL,
        state TEXT NOT NULL,
        way TEXT,
        content_type TEXT,
        body_size INTEGER,
        body_digest BLOB,
        checksum BLOB NOT NULL,
        body BLOB
    ) STRICT;
    CREATE TABLE damaged (
        serial INTEGER PRIMARY KEY,
        interaction INTEGER,
        found INTEGER NOT NULL
    ) STRICT;
"];

/// How far a file is.
pub(super) enum Version {
    Empty,
    Known(usize),
}

/// The version of a file.
///
/// # Errors
///
/// [`StoreError::Newer`], or [`StoreError::Damaged`] if it is none of ours.
pub(super) fn version(connection: &Connection) -> Result<Version, StoreError> {
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    match usize::try_from(version) {
        Ok(0) if tables == 0 => Ok(Version::Empty),
        Ok(0) | Err(_) => Err(StoreError::Damaged("it is another program's".to_owned())),
        Ok(version) if version > MIGRATIONS.len() => Err(StoreError::Newer(version)),
        Ok(version) => Ok(Version::Known(version)),
    }
}

/// Whether a file can be read as it is; an empty one has nothing in it yet.
///
/// # Errors
///
/// As [`version`].
pub(in crate::outbox) fn is_begun(connection: &Connection) -> Result<bool, StoreError> {
    Ok(matches!(version(connection)?, Version::Known(_)))
}

/// Brings a file to the newest version.
pub(super) fn migrate(transaction: &Transaction<'_>, version: &Version) -> rusqlite::Result<()> {
    let done = match version {
        Version::Empty => 0,
        Version::Known(version) => *version,
    };
    if done < MIGRATIONS.len() {
        for step in MIGRATIONS.iter().skip(done) {
            transaction.execute_batch(step)?;
        }
        transaction.execute_batch(&format!("PRAGMA user_version = {}", MIGRATIONS.len()))?;
    }
    Ok(())
}

/// Whether a file of the newest version looks as such a one does.
pub(super) fn is_as_made(connection: &Connection) -> rusqlite::Result<bool> {
    let mut fresh = Connection::open_in_memory()?;
    let transaction = fresh.transaction()?;
    migrate(&transaction, &Version::Empty)?;
    Ok(statements(connection)? == statements(&transaction)?)
}

fn statements(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare("SELECT sql FROM sqlite_schema ORDER BY name")?;
    statement.query_map([], |row| row.get(0))?.collect()
}
