//! `shardless check`: is the config sound?

use std::process::ExitCode;

use super::ConfigFile;
use crate::clock::SystemClock;
use crate::daemon::Build;

pub(super) fn run(file: &ConfigFile) -> anyhow::Result<ExitCode> {
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
    }
    Ok(ExitCode::SUCCESS)
}
