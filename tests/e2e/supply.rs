//! What the program is built from, told by the program itself and by the bill of materials in its package; and that whoever
//! looks for what is known against it finds it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::package::unpacked;
use crate::process::{folder, installed, program, source};

const BILL: &str = "usr/share/shardless/shardless.cdx.json";
const PROGRAM: &str = "usr/bin/shardless";

/// What a command says to both, and whether it ended well.
fn ran(command: &mut Command) -> (bool, String) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

fn python() -> Command {
    Command::new(installed("target/venv/bin/python"))
}

fn bill(root: &Path) -> Value {
    serde_json::from_slice(&fs::read(root.join(BILL)).unwrap()).unwrap()
}

/// The crates in the bill as `name version`; those of one scope.
fn crates(bill: &Value, scope: &str) -> BTreeSet<String> {
    let components = bill["components"].as_array().unwrap().iter();
    let crates = components
        .filter(|one| one["scope"] == scope && one["purl"].as_str().unwrap().starts_with("pkg:cargo/"));
    crates.map(name_and_version).collect()
}

fn name_and_version(package: &Value) -> String {
    format!("{} {}", package["name"].as_str().unwrap(), package["version"].as_str().unwrap())
}

/// The list that the program carries, as `cargo auditable` documents it: JSON, deflated, in a section of its own.
const LIST: &str = "
import subprocess, sys, tempfile, zlib
with tempfile.NamedTemporaryFile() as section:
    dump = f'.dep-v0={section.name}'
    subprocess.run(['objcopy', '--dump-section', dump, sys.argv[1], '/dev/null'], check=True)
    print(zlib.decompress(section.read()).decode())
";

#[test]
fn the_bill_of_materials_is_valid() {
    let root = unpacked();
    let validate = "
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
print(JsonStrictValidator(SchemaVersion.V1_5).validate_str(sys.stdin.read()))
";
    let verdict = |bill: &str| {
        let path = root.path().join("bill.json");
        fs::write(&path, bill).unwrap();
        let (well, said) = ran(python().args(["-c", validate]).stdin(fs::File::open(&path).unwrap()));
        assert!(well, "{said}");
        said.trim().to_owned()
    };
    let bill = bill(root.path());
    assert_eq!(verdict(&bill.to_string()), "None");
    let mut wrong = bill.clone();
    wrong["components"] = serde_json::json!([{"type": "library", "name": "hyper", "scope": "anything"}]);
    wrong["dependencies"] = serde_json::json!([]);
    assert_ne!(verdict(&wrong.to_string()), "None", "the validator looks");

    // What refers to something finds it, once.
    let components = bill["components"].as_array().unwrap().iter().chain([&bill["metadata"]["component"]]);
    let known: Vec<&str> = components.map(|one| one["bom-ref"].as_str().unwrap()).collect();
    let unique: BTreeSet<&str> = known.iter().copied().collect();
    assert_eq!(unique.len(), known.len());
    let dependencies = bill["dependencies"].as_array().unwrap();
    let said: BTreeSet<&str> = dependencies.iter().map(|one| one["ref"].as_str().unwrap()).collect();
    assert_eq!(said, unique);
    for on in dependencies.iter().filter_map(|one| one["dependsOn"].as_array()).flatten() {
        assert!(unique.contains(on.as_str().unwrap()), "{on}");
    }
}

#[test]
fn the_bill_and_the_program_name_the_same_crates() {
    let root = unpacked();
    let bill = bill(root.path());
    assert_eq!(
        name_and_version(&bill["metadata"]["component"]),
        concat!("shardless ", env!("CARGO_PKG_VERSION"))
    );
    let (well, said) = ran(python().args(["-c", LIST]).arg(root.path().join(PROGRAM)));
    assert!(well, "{said}");
    let list: Value = serde_json::from_str(&said).unwrap();
    let carried: BTreeSet<String> =
        list["packages"].as_array().unwrap().iter().map(name_and_version).collect();

    let (shipped, building) = (crates(&bill, "required"), crates(&bill, "excluded"));
    println!(
        "{} crates in the program, {} more build it; it lists {}",
        shipped.len(),
        building.len(),
        carried.len()
    );
    for name in shipped.union(&building) {
        assert!(carried.contains(name), "{name} is not in the program's list");
    }
    // The list has a few more, which are there for tests alone: Cargo tells it no better.
    assert!(carried.len() < shipped.len() + building.len() + 20);
    for (name, scope) in
        [("hyper", &shipped), ("rusqlite", &shipped), ("serde_derive", &building), ("cc", &building)]
    {
        assert!(scope.iter().any(|one| one.starts_with(&format!("{name} "))), "{name}: {scope:?}");
    }
    for absent in ["rstest", "criterion"] {
        assert!(!carried.iter().any(|one| one.starts_with(&format!("{absent} "))), "{absent}");
    }

    // All of them can be told from others of the name, and may be passed on.
    for one in bill["components"].as_array().unwrap() {
        let from_registry = one["purl"].as_str().unwrap().starts_with("pkg:cargo/");
        assert!(!from_registry || one["hashes"][0]["content"].as_str().unwrap().len() == 64, "{one}");
        assert!(!one["licenses"][0]["expression"].as_str().unwrap().contains('/'), "{one}");
    }
    let others = ["rust-std", "sqlite"];
    let found = bill["components"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|one| others.contains(&one["name"].as_str().unwrap()));
    assert_eq!(found.count(), others.len());
}

/// The crate, and what is known against it and is let pass.
const EXCEPTION: (&str, &str) = ("rustls-pemfile", "RUSTSEC-2025-0134");

/// A database with the exception, and one advisory more, against every version of that crate.
fn database(name: &str) -> TempDir {
    let folder = folder();
    for (name, id, kind) in
        [(EXCEPTION.0, EXCEPTION.1, "informational = \"unmaintained\"\n"), (name, "RUSTSEC-2020-9999", "")]
    {
        let path = folder.path().join("crates").join(name);
        fs::create_dir_all(&path).unwrap();
        let advisory = format!(
            "```toml\n[advisory]\nid = \"{id}\"\npackage = \"{name}\"\ndate = \"2020-01-02\"\n{kind}\n\
            [versions]\npatched = []\n```\n\n# It is said to be dangerous\n\nIn a test.\n"
        );
        fs::write(path.join(format!("{id}.md")), advisory).unwrap();
    }
    folder
}

/// `tests/advisories` with that database.
fn advisories(database: &Path, program: Option<&Path>) -> (bool, String) {
    let mut command = Command::new(source("tests/advisories"));
    ran(command.args(program).env("SHARDLESS_ADVISORY_DB", database))
}

#[test]
fn whoever_audits_the_program_finds_what_is_known_against_its_crates() {
    let root = unpacked();
    let audit = |database: &Path| {
        let mut audit = Command::new(installed("target/venv/bin/cargo-audit"));
        audit.args(["audit", "--no-fetch", "--stale", "--db"]).arg(database);
        ran(audit.arg("bin").arg(root.path().join(PROGRAM)))
    };
    for (name, is_in_it) in [("hyper", true), ("openssl", false)] {
        let database = database(name);
        let (well, said) = audit(database.path());
        assert_eq!((well, said.contains("RUSTSEC-2020-9999")), (!is_in_it, is_in_it), "{name}: {said}");
        assert!(!said.contains("incomplete"), "{said}");
    }
}

#[test]
fn advisories_are_looked_for_in_the_database_that_is_named() {
    let root = unpacked();
    let program = root.path().join(PROGRAM);
    for (name, is_in_it) in [("hyper", true), ("openssl", false)] {
        let database = database(name);
        let (well, said) = advisories(database.path(), Some(&program));
        assert_eq!((well, said.contains("RUSTSEC-2020-9999")), (!is_in_it, is_in_it), "{name}: {said}");
        assert!(said.contains("advisories: from the copy that SHARDLESS_ADVISORY_DB names"), "{said}");
    }
    // The exception is for one crate that is there: where nothing is known against it, it is to go.
    let database = database("openssl");
    fs::remove_dir_all(database.path().join("crates").join(EXCEPTION.0)).unwrap();
    let (well, said) = advisories(database.path(), None);
    assert!(!well && said.contains(EXCEPTION.1), "{said}");

    let (well, said) = advisories(&root.path().join("usr"), None);
    assert!(!well && said.contains("SHARDLESS_ADVISORY_DB is no copy of "), "{said}");
}

/// The network's part is played by a repository on this machine.
#[test]
fn without_a_copy_the_database_comes_over_the_network() {
    let database = database("hyper");
    let commit = "git init --quiet && git add . && \
        git -c user.name=a -c user.email=a@example.com -c commit.gpgsign=false commit --quiet --message all";
    let (well, said) = ran(Command::new(program("sh")).args(["-c", commit]).current_dir(database.path()));
    assert!(well, "{said}");
    let mut command = Command::new(source("tests/advisories"));
    command.env_remove("SHARDLESS_ADVISORY_DB").env("GIT_CONFIG_COUNT", "1");
    command.env("GIT_CONFIG_KEY_0", format!("url.file://{}.insteadOf", database.path().display()));
    command.env("GIT_CONFIG_VALUE_0", "https://github.com/rustsec/advisory-db");
    let (well, said) = ran(&mut command);
    assert!(!well && said.contains("RUSTSEC-2020-9999"), "{said}");
    assert!(said.contains("advisories: from https://github.com/rustsec/advisory-db\n"), "{said}");
}

#[test]
fn it_is_said_where_no_database_can_be_had() {
    let mut command = Command::new(source("tests/advisories"));
    // Nobody listens there.
    command.env_remove("SHARDLESS_ADVISORY_DB").env("https_proxy", "http://127.0.0.1:9");
    let (well, said) = ran(&mut command);
    assert!(well && said.starts_with("advisories: NOT LOOKED AT: ") && said.lines().count() == 1, "{said}");
}

#[test]
fn a_release_build_without_the_list_is_refused() {
    let bare = folder();
    for name in ["bash", "dirname", "realpath"] {
        std::os::unix::fs::symlink(program(name), bare.path().join(name)).unwrap();
    }
    let script = bare.path().join("deploy/reproducible");
    fs::create_dir(script.parent().unwrap()).unwrap();
    fs::copy(source("deploy/reproducible"), &script).unwrap();
    let (well, said) = ran(Command::new(program("bash")).arg(&script).arg("true").env("PATH", bare.path()));
    assert!(!well && said.contains("cargo-auditable is missing: tests/install"), "{said}");
}

/// The image's builder has a version of its own to fetch.
#[test]
fn package_and_image_are_built_with_the_same_tool() {
    let install = fs::read_to_string(source("tests/install")).unwrap();
    let version = install.lines().find_map(|line| line.strip_prefix("readonly CARGO_AUDITABLE=")).unwrap();
    let image = fs::read_to_string(source("deploy/Containerfile")).unwrap();
    assert!(image.contains(&format!(" cargo-auditable@{version}\n")), "{version}");
}
