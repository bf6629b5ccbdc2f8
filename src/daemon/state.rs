//! The folder of what must outlive the daemon, which one process holds at a time.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::{info, warn};

use crate::config::StateDir;

const LOCK: &str = "lock";
/// Between two tries to get a lock that another process holds.
const WAIT: Duration = Duration::from_secs(1);

/// The lock on `state_dir`, or the wait for it. Whoever does not hold it serves all the same.
pub(super) enum StateLock {
    /// Held until the process ends, however it ends.
    Held { _file: File },
    /// Another process has it.
    Waiting { file: File, folder: PathBuf },
    /// There is no folder to lock.
    Absent,
}

impl StateLock {
    /// Tries to take it. What is in the way is said in the log.
    pub(super) fn take(state_dir: &StateDir) -> Self {
        let Some(folder) = state_dir.path() else { return Self::Absent };
        let file = match open(&folder) {
            Ok(file) => file,
            Err(error) => {
                warn!(
                    "cannot write into {}, the folder for state: {error}; shardless serves without it",
                    folder.display()
                );
                return Self::Absent;
            }
        };
        let waiting = Self::Waiting { file, folder };
        waiting.try_again(|folder, holder| {
            warn!("{holder} holds {}, the folder for state: it is waited for, and requests are served meanwhile", folder.display());
        })
    }

    fn try_again(self, otherwise: impl FnOnce(&Path, &str)) -> Self {
        let Self::Waiting { mut file, folder } = self else { return self };
        match file.try_lock() {
            Ok(()) => {
                // For people who look: the lock itself goes with the process.
                _ = sign(&mut file);
                return Self::Held { _file: file };
            }
            Err(TryLockError::WouldBlock) => otherwise(&folder, &holder(&mut file)),
            Err(TryLockError::Error(error)) => {
                warn!(
                    "cannot lock {}, the folder for state: {error}; shardless serves without it",
                    folder.display()
                );
                return Self::Absent;
            }
        }
        Self::Waiting { file, folder }
    }

    /// Waits until it is held, for ever if need be, and holds it.
    pub(super) async fn hold(mut self) {
        while matches!(self, Self::Waiting { .. }) {
            tokio::time::sleep(WAIT).await;
            self = self.try_again(|_, _| {});
            if matches!(self, Self::Held { .. }) {
                info!("the folder for state is free now, and held");
            }
        }
        std::future::pending().await
    }
}

fn open(folder: &Path) -> io::Result<File> {
    DirBuilder::new().recursive(true).mode(0o750).create(folder)?;
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(folder.join(LOCK))
}

fn sign(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

fn holder(file: &mut File) -> String {
    let mut process = String::new();
    let is_read = file.rewind().and_then(|()| file.take(20).read_to_string(&mut process)).is_ok();
    match process.trim().parse::<u32>() {
        Ok(process) if is_read => format!("another shardless (process {process})"),
        _ => "another process".to_owned(),
    }
}
