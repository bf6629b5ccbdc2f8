//! Database files that cannot be used: they are kept under another name, for whoever wants to look.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use super::FILE;

/// So many are kept.
const KEPT: usize = 3;
/// What SQLite has beside its file. The file itself is the last to go: beside a new one, these would be taken for its.
const PARTS: [&str; 3] = ["-wal", "-shm", ""];

/// Puts the database aside. Its new name says why, in a word, and when.
pub(super) fn set_aside(folder: &Path, why: &str, unix: Duration) -> io::Result<String> {
    let time = humantime::format_rfc3339_millis(UNIX_EPOCH + unix).to_string().replace([':', '-'], "");
    let name = format!("{FILE}.{why}-{time}");
    for part in PARTS {
        match fs::rename(folder.join(format!("{FILE}{part}")), folder.join(format!("{name}{part}"))) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    let names = names(folder)?;
    for old in names.iter().rev().skip(KEPT) {
        for part in PARTS {
            _ = fs::remove_file(folder.join(format!("{}{part}", old.1)));
        }
    }
    Ok(name)
}

/// The files that are aside, the oldest first, each behind its time.
fn names(folder: &Path) -> io::Result<BTreeSet<(String, String)>> {
    let mut names = BTreeSet::new();
    for file in fs::read_dir(folder)? {
        let name = file?.file_name().to_string_lossy().into_owned();
        let time = name.strip_prefix(FILE).and_then(|rest| rest.strip_prefix('.')?.split_once('-'));
        if let Some((_, time)) = time
            && !time.contains('-')
        {
            names.insert((time.to_owned(), name));
        }
    }
    Ok(names)
}
