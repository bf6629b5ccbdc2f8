//! The `shardless` command; all of it is in the library.

use std::process::ExitCode;

use clap::Parser;
use shardless::cli::Cli;

fn main() -> ExitCode {
    Cli::parse().run()
}
