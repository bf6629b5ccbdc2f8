//! Large bodies, each in a file of its own beside the database.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ring::digest::{Context, SHA256};

use super::record::BodySum;

/// Bytes of a body that stands in its row.
pub(super) const IN_ROW: u64 = 256 * 1024;

const PREFIX: &str = "outbox-";
const SUFFIX: &str = ".body";

pub(super) fn path(folder: &Path, serial: u64) -> PathBuf {
    folder.join(format!("{PREFIX}{serial}{SUFFIX}"))
}

/// Writes a body, down to the disk but for its name there: that is [`sync_names`].
pub(super) fn write(folder: &Path, serial: u64, body: &[u8]) -> io::Result<()> {
    let path = path(folder, serial);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(body)?;
    file.sync_data()
}

/// The names of files in a folder outlive a loss of power from now on.
pub(super) fn sync_names(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Whether the file is there and holds what it should.
pub(super) fn is_whole(folder: &Path, serial: u64, sum: BodySum) -> io::Result<bool> {
    let mut file = match File::open(path(folder, serial)) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let (mut context, mut size, mut buffer) = (Context::new(&SHA256), 0, vec![0; 64 * 1024]);
    loop {
        let count = file.read(&mut buffer)?;
        let Some(part) = buffer.get(..count).filter(|part| !part.is_empty()) else { break };
        context.update(part);
        size += count;
    }
    Ok(BodySum::finish(size, context) == sum)
}

pub(super) fn remove(folder: &Path, serial: u64) -> io::Result<()> {
    match fs::remove_file(path(folder, serial)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The entries that have a file there.
pub(super) fn all(folder: &Path) -> io::Result<BTreeSet<u64>> {
    let mut serials = BTreeSet::new();
    for file in fs::read_dir(folder)? {
        let name = file?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX));
        serials.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    Ok(serials)
}
