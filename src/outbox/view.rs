//! What an operator may see of an outbox, whether a daemon has it open or not: no file is made or changed, and neither
//! tokens nor bodies come out.

use std::fmt::Write;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use thiserror::Error;

use super::store::{Damaged, FILE, READ, Record, Stage, StoreError, deferral_word, is_begun, way_word};

/// A daemon may open or close its store while it is looked at.
const TRIES: usize = 5;

/// Something in the outbox.
#[derive(Clone, Debug)]
pub enum Seen {
    /// A deferred interaction.
    Entry(Box<Entry>),
    /// What was one: it cannot be read, and so it cannot be ended.
    Damaged {
        /// The interaction's snowflake, as far as it can be read.
        interaction: Option<u64>,
        /// The time of day when a start found it, since 1970; `None` until one has.
        found: Option<Duration>,
    },
}

/// A deferred interaction. Times are times of day, since 1970.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The application's name in the config.
    pub app: String,
    /// The interaction's snowflake.
    pub interaction: u64,
    /// The application's snowflake.
    pub application: u64,
    /// How far it is, in a word.
    pub state: &'static str,
    /// What Discord was told, in a word.
    pub deferral: &'static str,
    /// The route that it took, if it took one.
    pub route: Option<String>,
    /// When it came.
    pub arrived: Duration,
    /// Until when the handler is waited for.
    pub give_up: Duration,
    /// Until when anything is sent to Discord.
    pub expires: Duration,
    /// What the user is told where the handler has no answer.
    pub fallback: String,
    /// The handler's answer.
    pub answer: Option<Answer>,
}

/// What may be seen of a late answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Which requests bring it to the user, in a word.
    pub way: &'static str,
    /// Its content type.
    pub content_type: String,
    /// Its size in bytes.
    pub size: u64,
}

/// Why an outbox cannot be looked into.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum ViewError {
    #[error("cannot read {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("cannot look into {}: {reason}", path.display())]
    Unusable { path: PathBuf, reason: String },
    #[error(
        "{} was not closed, and {FILE}-shm is missing beside it; shardless takes it up at its next start",
        path.display()
    )]
    Open { path: PathBuf },
}

/// Whether there is an outbox in that folder.
///
/// # Errors
///
/// If that cannot be told.
pub fn is_in(folder: &Path) -> Result<bool, ViewError> {
    let path = folder.join(FILE);
    path.try_exists().map_err(|source| ViewError::Unreadable { path, source })
}

/// All that is in the outbox of that folder, the oldest first.
///
/// # Errors
///
/// If it cannot be read.
pub fn look(folder: &Path) -> Result<Vec<Seen>, ViewError> {
    let path = folder.join(FILE);
    let mut tries = 1;
    loop {
        if let Err(source) = File::open(&path) {
            return Err(ViewError::Unreadable { path, source });
        }
        let error = match connect(&path) {
            Ok(Some(connection)) => match read(&connection) {
                Ok(seen) => return Ok(seen),
                Err(error) => error,
            },
            Ok(None) if tries >= TRIES => return Err(ViewError::Open { path }),
            Ok(None) => StoreError::Gone,
            Err(error) => error,
        };
        if tries >= TRIES {
            return Err(ViewError::Unusable { path, reason: error.to_string() });
        }
        tries += 1;
    }
}

/// A connection that makes no file beside the database; `None` where there is none such.
///
/// A store that is open, or was left open by a crash, has an index of its log, which is read but not written. Where
/// there is no log, there is nothing to agree about with others.
fn connect(path: &Path) -> Result<Option<Connection>, StoreError> {
    let beside = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        match fs::metadata(name) {
            Ok(file) => Ok(Some(file.len())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    };
    let how = match (beside("-wal")?, beside("-shm")?) {
        (Some(_), Some(_)) => "mode=ro&readonly_shm=1",
        (None | Some(0), _) => "mode=ro&immutable=1",
        (Some(_), None) => return Ok(None),
    };
    let mut uri = "file:".to_owned();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => {
                uri.push(char::from(*byte))
            }
            _ => _ = write!(uri, "%{byte:02X}"),
        }
    }
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Ok(Some(Connection::open_with_flags(format!("{uri}?{how}"), flags)?))
}

fn read(connection: &Connection) -> Result<Vec<Seen>, StoreError> {
    // Both tables as they are at one moment.
    let connection = connection.unchecked_transaction()?;
    if !is_begun(&connection)? {
        return Ok(Vec::new());
    }
    let mut entries = connection.prepare(READ)?;
    let mut rows = entries.query([])?;
    let mut seen = Vec::new();
    while let Some(row) = rows.next()? {
        seen.push(match Record::decode(row)? {
            Ok(record) => Seen::Entry(Box::new(record.into())),
            Err(Damaged { interaction, .. }) => Seen::Damaged { interaction, found: None },
        });
    }
    let mut damaged = connection.prepare("SELECT interaction, found FROM damaged ORDER BY found, serial")?;
    let damaged = damaged.query_map([], |row| {
        let (interaction, found): (Option<i64>, i64) = (row.get(0)?, row.get(1)?);
        let found = Some(Duration::from_millis(found.cast_unsigned()));
        Ok(Seen::Damaged { interaction: interaction.map(i64::cast_unsigned), found })
    })?;
    for damaged in damaged {
        seen.push(damaged?);
    }
    Ok(seen)
}

impl From<Record> for Entry {
    fn from(record: Record) -> Self {
        let (state, deferral) = (record.stage.word(), deferral_word(record.deferral));
        let answer = match record.stage {
            Stage::Answered { way, content_type, body } => {
                Some(Answer { way: way_word(way), content_type, size: body.size })
            }
            _ => None,
        };
        let Record { app, interaction, application, route, arrived, give_up, expires, fallback, .. } = record;
        Self {
            app,
            interaction,
            application,
            state,
            deferral,
            route,
            arrived,
            give_up,
            expires,
            fallback,
            answer,
        }
    }
}
