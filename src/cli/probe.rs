//! `shardless probe`: can Discord's validation of a public endpoint pass, and if not, what is to be done?
//!
//! It does what Discord does when the URL is saved, but for the one thing that takes Discord's key: a PING that is
//! signed well.

mod certificate;
mod client;
mod connection;
mod judgement;
mod measurement;
mod report;
mod target;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, ensure};

use crate::discord::RESPONSE_DEADLINE;
use crate::pem;
use certificate::Roots;
use client::{Client, Request};
use judgement::Judgement;
use measurement::Rounds;
use report::Report;
use target::Target;

#[derive(Debug, clap::Args)]
#[command(after_help = "Run it from a machine outside, if you can: Discord is outside too.

The exit status is 0 if Discord's validation can pass, else 1.")]
pub(super) struct Options {
    /// The endpoint, as it is to stand in the Developer Portal: https://bot.example.com/interactions
    #[arg(value_name = "URL")]
    target: Target,
    /// Take the authority in this file for a public one, to try things out
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

pub(super) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    // A provider that is installed already does as well.
    _ = rustls::crypto::ring::default_provider().install_default();
    let roots = match &options.ca {
        Some(path) => own_roots(path).with_context(|| format!("cannot use {}", path.display()))?,
        None => Roots::load(Vec::new())?,
    };
    let mut report = Report::default();
    let runtime = super::runtime()?;
    let whole = runtime.block_on(probe(&options.target, &roots, &mut report))?.is_some();
    // A look-up that was given up on is not waited for.
    runtime.shutdown_background();
    report.conclude(&options.target, whole);
    Ok(if report.can_pass() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn own_roots(path: &Path) -> anyhow::Result<Roots> {
    let certificates = pem::read(path)?.certificates;
    ensure!(!certificates.is_empty(), "there is no certificate in it");
    Roots::load(certificates)
}

/// One check after the other. `None` where the next ones would have nothing to stand on.
async fn probe(target: &Target, roots: &Roots, report: &mut Report) -> anyhow::Result<Option<()>> {
    report.add("URL", target.judge());
    if !target.is_https() && !target.is_loopback() {
        return Ok(None);
    }
    let addresses = match connection::resolve(target).await {
        Ok((finding, addresses)) => {
            report.add_some("DNS", finding);
            addresses
        }
        Err(finding) => {
            report.add("DNS", finding);
            return Ok(None);
        }
    };
    let (finding, stream) = connection::open(target, &addresses).await;
    report.add("connection", finding);
    let Some((stream, address)) = stream else { return Ok(None) };
    if target.is_https() {
        let (finding, speaks_tls) = certificate::judge(target, roots, stream).await;
        report.add("certificate", finding);
        if !speaks_tls {
            return Ok(None);
        }
    }
    let client = Client::new(target, address)?;
    Ok(ask(&client, target, report).await)
}

/// The checks of who answers, and how.
async fn ask(client: &Client, target: &Target, report: &mut Report) -> Option<()> {
    // First what Discord sends itself when the URL is saved: it shows whatever is in the way.
    let forged = client.post(Request::Forged).await;
    let forged = forged.map_err(|error| report.add("forged", judgement::unanswered(&error))).ok()?;
    let judgement = Judgement::of(&forged, target);
    report.add("forged", judgement.forged(&forged));
    if !judgement.is_refusal() {
        return None;
    }
    if forged.elapsed > RESPONSE_DEADLINE {
        report.add("speed", measurement::too_slow(forged.elapsed));
        return None;
    }
    report.add_some("headers", judgement.headers());
    match client.post(Request::Unsigned).await {
        Ok(answer) => report.add("unsigned", Judgement::of(&answer, target).unsigned(&answer)),
        Err(error) => report.add("unsigned", judgement::unanswered(&error)),
    }
    match client.post(Request::Large).await {
        Ok(answer) => report.add("large body", Judgement::of(&answer, target).large(&answer)),
        Err(error) => report.add("large body", judgement::large_unanswered(&error)),
    }
    report.add_some("clock", measurement::clock(&forged, &judgement));
    report.add("speed", Rounds::run(client).await.finding(forged.elapsed));
    Some(())
}
