//! The folder of what must outlive the daemon, which one process holds at a time.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::{info, warn};

use crate::config::StateDir;
use crate::outbox::Outbox;

const LOCK: &str = "lock";
/// Between two tries to get a lock that another process holds.
const WAIT: Duration = Duration::from_secs(1);

/// The lock on `state_dir`, or the wait for it. Whoever does not hold it serves all the same.
pub(super) enum StateLock {
    /// Held until the process ends, however it ends.
    Held { _file: File, folder: PathBuf },
    /// Another process has it.
    Waiting { file: File, folder: PathBuf },
    /// It cannot be had: why not, in words for the operator.
    Failing { folder: PathBuf, why: String },
    /// There is no place for state.
    Nowhere,
}

impl StateLock {
    /// Tries to take it. What is in the way is said in the log.
    pub(super) fn take(state_dir: &StateDir) -> Self {
        let Some(folder) = state_dir.path() else {
            warn!("there is no folder for state, so a crash loses what is deferred: set `state_dir`");
            return Self::Nowhere;
        };
        let lock = Self::try_to_take(folder);
        match &lock {
            Self::Held { .. } | Self::Nowhere => {}
            Self::Waiting { file, folder } => warn!(
                "{} holds {}, the folder for state: it is waited for, and requests are served meanwhile",
                holder(file),
                folder.display()
            ),
            Self::Failing { why, .. } => warn!("{why}; shardless serves without it, and tries again"),
        }
        lock
    }

    fn try_to_take(folder: PathBuf) -> Self {
        let why = |what, error| format!("cannot {what} {}, the folder for state: {error}", folder.display());
        let file = match open(&folder) {
            Ok(file) => file,
            Err(error) => return Self::Failing { why: why("write into", error), folder },
        };
        match file.try_lock() {
            Ok(()) => {
                // For people who look: the lock itself goes with the process.
                _ = sign(&file);
                Self::Held { _file: file, folder }
            }
            Err(TryLockError::WouldBlock) => Self::Waiting { file, folder },
            Err(TryLockError::Error(error)) => Self::Failing { why: why("lock", error), folder },
        }
    }

    /// Waits until it is held, for ever if need be; what is in it is the outbox's then.
    pub(super) async fn hold(&mut self, outbox: &Outbox) {
        let mut has_waited = false;
        loop {
            let folder = match &*self {
                Self::Held { folder, .. } => {
                    if has_waited {
                        info!("the folder for state, {}, is held now", folder.display());
                    }
                    outbox.keep_in(folder.clone());
                    return std::future::pending().await;
                }
                Self::Nowhere => return std::future::pending().await,
                Self::Waiting { folder, .. } => folder,
                Self::Failing { folder, why } => {
                    outbox.cannot_be_kept(why.clone());
                    folder
                }
            };
            has_waited = true;
            tokio::time::sleep(WAIT).await;
            let folder = folder.clone();
            // On a thread of its own: a disk that hangs is not to hold up those who accept connections.
            if let Ok(tried) = tokio::task::spawn_blocking(|| Self::try_to_take(folder)).await {
                *self = tried;
            }
        }
    }
}

fn open(folder: &Path) -> io::Result<File> {
    DirBuilder::new().recursive(true).mode(0o750).create(folder)?;
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(folder.join(LOCK))
}

fn sign(mut file: &File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

fn holder(mut file: &File) -> String {
    let mut process = String::new();
    let is_read = file.rewind().and_then(|()| file.take(20).read_to_string(&mut process)).is_ok();
    match process.trim().parse::<u32>() {
        Ok(process) if is_read => format!("another shardless (process {process})"),
        _ => "another process".to_owned(),
    }
}
