//! `shardless check`: is the config sound, and where would an interaction go?

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;

use super::{ConfigFile, explain};
use crate::clock::SystemClock;
use crate::daemon::Build;
use crate::gateway::Target;

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    file: ConfigFile,
    /// Say which route this interaction takes, and why; a file with its JSON, as `send --file` takes it
    #[arg(long, value_name = "FILE")]
    explain: Option<PathBuf>,
}

pub(super) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let file = &options.file;
    let config = match file.load() {
        Ok(config) => config,
        Err(code) => return Ok(code),
    };
    let build = match Build::new(&config, None, &SystemClock) {
        Ok(build) => build,
        Err(error) => return Ok(super::report_build(&error)),
    };
    println!("{}: no mistakes", file.config.display());
    match &build.tls {
        Some(tls) => println!("  the port speaks TLS with the certificate in {}", tls.certificate.display()),
        None if config.tls.is_some() => {
            println!("  the port speaks TLS; its certificate is made at the first start")
        }
        None => {}
    }
    for warning in build.tls.iter().flat_map(|tls| &tls.warnings) {
        println!("  warning: {warning}");
    }
    for (path, app) in build.snapshot.apps() {
        println!("  {}: POST {path} goes to {}", app.name, app.handler);
        for (route, target) in app.routes() {
            match target {
                Target::Handler(handler) => println!("    {route}: to {handler}"),
                Target::Reply(_) => println!("    {route}: answered by shardless itself"),
            }
        }
    }
    if let Some(payload) = &options.explain {
        let body = std::fs::read(payload).with_context(|| format!("cannot read {}", payload.display()))?;
        println!("\n{}:", payload.display());
        explain::print(&config, &body).with_context(|| payload.display().to_string())?;
    }
    Ok(ExitCode::SUCCESS)
}
