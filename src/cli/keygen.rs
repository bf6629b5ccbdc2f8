//! `shardless keygen`: a key pair to rehearse with.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};

use super::KEY_FILE;
use crate::rehearsal::Signer;
use crate::rehearsal::signer::SignerError;

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Where to write the secret half; an existing file is never overwritten
    #[arg(long, value_name = "FILE", default_value = KEY_FILE)]
    out: PathBuf,
}

pub(super) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let signer = Signer::generate()?;
    let path = options.out.display();
    match signer.save(&options.out) {
        Err(SignerError::Io(error)) if error.kind() == ErrorKind::AlreadyExists => {
            bail!("{path} exists already and is left as it is; use it, or name another with --out FILE");
        }
        saved => saved.with_context(|| format!("cannot write {path}"))?,
    }
    println!("{path} holds the secret half: it signs as Discord would, for development only.");
    println!(
        "`shardless send` uses it. The public half goes into the config of a daemon on your own machine:"
    );
    println!();
    println!("  public_key = \"{}\"", signer.public_key());
    Ok(ExitCode::SUCCESS)
}
