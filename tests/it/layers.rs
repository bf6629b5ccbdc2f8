//! Imports go down. This is the table, and the code is held to it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use shardless::config::LogPart;

/// Rooms by layer, the highest first. A room may import from lower layers alone.
const LAYERS: [&[&str]; 8] = [
    &["cli"],
    &["daemon", "rehearsal"],
    &["admin", "server"],
    &["gateway", "delivery"],
    &["forward", "outbox"],
    &["routes", "logging", "listener"],
    &["config", "metrics", "activity"],
    &["discord", "clock", "budget", "pem", "pulse", "systemd", "workers"],
];

fn layer(room: &str) -> Option<usize> {
    LAYERS.iter().rev().position(|rooms| rooms.contains(&room))
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The first name after every `crate::`, outside of comments.
fn imported_rooms(text: &str) -> BTreeSet<String> {
    let code =
        text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    assert!(!code.contains("use crate::{"), "name one room in each import");
    let names = code
        .split("crate::")
        .skip(1)
        .map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>());
    names.collect()
}

#[test]
fn imports_go_down() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let mut rooms = BTreeSet::new();
    let mut imports = 0;
    for file in files {
        let inside = file.strip_prefix(&src).unwrap();
        let first = inside.iter().next().unwrap().to_str().unwrap();
        let room = first.trim_end_matches(".rs");
        if matches!(room, "main" | "lib") {
            continue;
        }
        rooms.insert(room.to_owned());
        let own = layer(room).unwrap_or_else(|| panic!("{room} is not in the table"));
        for other in imported_rooms(&fs::read_to_string(&file).unwrap()) {
            let its =
                layer(&other).unwrap_or_else(|| panic!("{}: {other} is not in the table", inside.display()));
            assert!(other == room || its < own, "{}: {room} imports {other}", inside.display());
            imports += 1;
        }
    }
    let listed: BTreeSet<_> = LAYERS.iter().copied().flatten().map(|room| (*room).to_owned()).collect();
    assert_eq!(rooms, listed, "a room of the table does not exist");
    assert!(imports > 50, "only {imports} imports were found");
}

#[test]
fn an_import_is_seen_for_what_it_is() {
    let text =
        "//! crate::cli\nuse crate::config::Config;\nlet x = crate::clock::now();\n/// [`crate::server`]\n";
    let rooms: Vec<_> = imported_rooms(text).into_iter().collect();
    assert_eq!(rooms, ["clock", "config"]);
    assert!(layer("cli") > layer("daemon") && layer("discord") < layer("config"));
}

/// Each line names its part, by which its level can be set: a room's own, or the one that the line says.
#[test]
fn each_line_of_the_log_belongs_to_a_part() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let parts = LogPart::ALL.map(LogPart::as_str);
    let mut lines = 0;
    for file in files {
        let inside = file.strip_prefix(&src).unwrap();
        let room = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned();
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        for call in ["error!(", "warn!(", "info!(", "debug!("] {
            for arguments in code.split(call).skip(1) {
                lines += 1;
                let says_it = arguments.trim_start().starts_with("target:");
                // The lines of requests are made by macros, which say it.
                let is_a_part = parts.contains(&&*room) || room == "logging";
                assert!(says_it || is_a_part, "{}: {call} is of no part", inside.display());
            }
        }
    }
    assert!(lines > 20, "only {lines} lines were found");
}
