//! The table of bad input and faults, `table.md`, is held to the code.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const TABLE: &str = include_str!("table.md");

/// The names of a file's tests.
fn tests_of(path: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut is_test = false;
    let mut names = BTreeSet::new();
    for line in text.lines().map(str::trim_start) {
        is_test |= ["#[test]", "#[tokio::test", "#[rstest]"].iter().any(|start| line.starts_with(start));
        let name = line.trim_start_matches("async ").strip_prefix("fn ");
        if let Some(name) = name.filter(|_| std::mem::take(&mut is_test)) {
            names.insert(name.split('(').next().unwrap().to_owned());
        }
    }
    names
}

#[test]
fn every_row_has_tests_and_every_test_of_this_folder_has_its_row() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut rows, mut named) = (0, BTreeSet::new());
    let mut lines = TABLE.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(test) = line.strip_prefix("  - ") {
            let (file, name) = test.split_once(": ").unwrap();
            assert!(tests_of(&root.join(file)).contains(name), "there is no {test}");
            named.insert(test.to_owned());
        } else if line.starts_with("- ") {
            rows += 1;
            assert!(lines.peek().is_some_and(|next| next.starts_with("  - ")), "nothing tests {line}");
        }
    }
    assert!(rows > 50, "only {rows} rows");
    for file in ["handlers", "http", "http/connections", "replays", "running", "verification"] {
        let file = format!("tests/it/faults/{file}.rs");
        for name in tests_of(&root.join(&file)) {
            assert!(named.contains(&format!("{file}: {name}")), "{file}: {name} belongs to no row");
        }
    }
}
