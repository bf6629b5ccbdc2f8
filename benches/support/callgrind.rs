//! Instructions by callgrind: no noise, and no idea of what they cost.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use tempfile::NamedTempFile;

/// One run that is counted.
pub(crate) struct Count(NamedTempFile);

impl Count {
    pub(crate) fn new() -> Result<Self> {
        let found = Command::new("valgrind").arg("--version").output();
        found.context("valgrind is what counts instructions: install it (apt install valgrind)")?;
        Ok(Self(NamedTempFile::new()?))
    }

    /// What runs the program, whose own arguments are to follow.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("valgrind");
        command.args(["--tool=callgrind", "-q"]);
        command.arg(format!("--callgrind-out-file={}", self.0.path().display())).arg(program);
        command
    }

    /// Instructions of the whole run, once it has ended.
    pub(crate) fn total(&self) -> Result<f64> {
        let profile = std::fs::read_to_string(self.0.path())?;
        let totals =
            profile.lines().find_map(|line| line.strip_prefix("totals: ").or(line.strip_prefix("summary: ")));
        Ok(totals.context("callgrind has counted nothing")?.trim().parse()?)
    }
}

/// Instructions of one operation, from what a long and a short run took in all; what a run takes besides is the same.
#[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
pub(crate) fn of_one([short, long]: [f64; 2], [few, many]: [usize; 2]) -> f64 {
    (long - short) / (many - few) as f64
}
