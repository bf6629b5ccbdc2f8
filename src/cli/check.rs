//! `shardless check`: is the config sound?

use std::process::ExitCode;

use super::ConfigFile;
use crate::budget::Budget;
use crate::gateway::Snapshot;

pub(super) fn run(file: &ConfigFile) -> anyhow::Result<ExitCode> {
    let config = match file.load() {
        Ok(config) => config,
        Err(code) => return Ok(code),
    };
    let snapshot = Snapshot::build(&config, &Budget::new(config.limits.buffered))?;
    println!("{}: no mistakes", file.config.display());
    for (path, app) in snapshot.apps() {
        println!("  {}: POST {path} goes to {}", app.name, app.handler);
    }
    Ok(ExitCode::SUCCESS)
}
