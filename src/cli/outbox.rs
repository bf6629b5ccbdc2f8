//! `shardless outbox`: which interactions Discord was told to wait for, and how far each is.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context;
use bytesize::ByteSize;

use super::ConfigFile;
use crate::clock::{Clock, SystemClock};
use crate::config::{DEFAULT_PATH, StateDir};
use crate::outbox::view::{self, Entry, Seen};

/// Where the daemon keeps its state when systemd runs it.
const SERVICE_FOLDER: &str = "/var/lib/shardless";

const HEAD: [&str; 7] = ["INTERACTION", "APP", "STATE", "DEFERRED AS", "AGE", "TOKEN LEFT", "ANSWER"];

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// All of them, one a line, the oldest first
    List(Place),
    /// Everything about one
    Show {
        /// The interaction's id
        id: u64,
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct Place {
    #[command(flatten)]
    file: ConfigFile,
    /// The daemon's folder for state, instead of the config's
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

pub(super) fn run(command: &Command) -> anyhow::Result<ExitCode> {
    let (Command::List(place) | Command::Show { place, .. }) = command;
    let folder = match place.folder() {
        Ok(folder) => folder.context("there is no folder for state: name it with --state-dir")?,
        Err(code) => return Ok(code),
    };
    let seen = if view::is_in(&folder)? { Some(view::look(&folder)?) } else { None };
    let now = SystemClock.unix_time();
    match command {
        Command::List(_) => list(seen, &folder, now),
        Command::Show { id, .. } => return Ok(show(*id, &seen.unwrap_or_default(), &folder, now)),
    }
    Ok(ExitCode::SUCCESS)
}

impl Place {
    /// The folder that the daemon has, as far as can be known from here.
    fn folder(&self) -> Result<Option<PathBuf>, ExitCode> {
        if self.state_dir.is_some() {
            return Ok(self.state_dir.clone());
        }
        let path = &self.file.config;
        // A daemon that was started otherwise needs no config there.
        let is_unused = path == Path::new(DEFAULT_PATH) && !path.exists();
        let state_dir = if is_unused { StateDir::default() } else { self.file.load()?.state_dir };
        let service = PathBuf::from(SERVICE_FOLDER);
        let is_in = |folder: &Path| view::is_in(folder).unwrap_or(true);
        Ok(match state_dir.path() {
            // At a terminal there is nothing of what systemd tells the daemon.
            Some(folder) if is_in(&folder) || !is_in(&service) => Some(folder),
            None if !is_in(&service) => None,
            _ => Some(service),
        })
    }
}

fn list(seen: Option<Vec<Seen>>, folder: &Path, now: Duration) {
    let folder = folder.display();
    let Some(seen) = seen else {
        println!("There is no outbox in {folder}: nothing was ever deferred there.");
        return;
    };
    if seen.is_empty() {
        println!("The outbox in {folder} is empty: no interaction waits for its answer.");
        return;
    }
    let mut rows = vec![HEAD.map(str::to_owned)];
    rows.extend(seen.iter().map(|seen| line(seen, now)));
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..HEAD.len()).map(width).collect();
    for row in &rows {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        println!("{}", cells.join("  ").trim_end());
    }
}

fn line(seen: &Seen, now: Duration) -> [String; 7] {
    let nothing = || "-".to_owned();
    match seen {
        Seen::Entry(entry) => [
            entry.interaction.to_string(),
            entry.app.clone(),
            entry.state.to_owned(),
            entry.deferral.to_owned(),
            seconds(now.saturating_sub(entry.arrived)),
            left(entry, now),
            entry.answer.as_ref().map_or_else(nothing, |answer| ByteSize(answer.size).to_string()),
        ],
        Seen::Damaged { interaction, .. } => [
            interaction.map_or_else(|| "unknown".to_owned(), |id| id.to_string()),
            nothing(),
            "damaged".to_owned(),
            nothing(),
            nothing(),
            nothing(),
            nothing(),
        ],
    }
}

fn show(id: u64, seen: &[Seen], folder: &Path, now: Duration) -> ExitCode {
    let mut is_found = false;
    for seen in seen {
        match seen {
            Seen::Entry(entry) if entry.interaction == id => show_entry(entry, now),
            Seen::Damaged { interaction, found } if *interaction == Some(id) => {
                field("interaction", &id.to_string());
                field("state", "damaged: it cannot be read, so its user gets no answer");
                field("found", &found.map_or_else(|| "just now".to_owned(), |found| at(found, now)));
            }
            _ => continue,
        }
        is_found = true;
    }
    if !is_found {
        eprintln!("shardless: the outbox in {} has no interaction {id}", folder.display());
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn show_entry(entry: &Entry, now: Duration) {
    field("interaction", &entry.interaction.to_string());
    field("app", &entry.app);
    field("application", &entry.application.to_string());
    field("route", entry.route.as_deref().unwrap_or("none: the app's own handler"));
    field("state", entry.state);
    field("deferred as", entry.deferral);
    field("arrived", &at(entry.arrived, now));
    field("give up", &at(entry.give_up, now));
    field("expires", &at(entry.expires, now));
    field("fallback", &format!("{:?}", entry.fallback));
    if let Some(answer) = &entry.answer {
        field("answer", answer.way);
        field("content type", &answer.content_type);
        field("size", &format!("{} bytes", answer.size));
    }
}

fn field(name: &str, value: &str) {
    println!("{name:<14}{value}");
}

/// A time of day, and how far it is from now.
fn at(time: Duration, now: Duration) -> String {
    let day = humantime::format_rfc3339_seconds(UNIX_EPOCH + time);
    if time > now {
        format!("{day} (in {})", seconds(time - now))
    } else {
        format!("{day} ({} ago)", seconds(now - time))
    }
}

fn left(entry: &Entry, now: Duration) -> String {
    match entry.expires.saturating_sub(now) {
        Duration::ZERO => "expired".to_owned(),
        left => seconds(left),
    }
}

fn seconds(time: Duration) -> String {
    humantime::format_duration(Duration::from_secs(time.as_secs())).to_string()
}
