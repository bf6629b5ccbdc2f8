//! Writes the bill of materials of the program to standard output, as CycloneDX 1.5:
//! `cargo run --example sbom -- TIME`, with a time such as 2026-01-31T12:00:00Z.
//!
//! It names every crate that the program is built from on this system, with its licence and checksum; as "excluded" those
//! that take part in the build alone; and what comes along without being a crate: Rust's standard library, and SQLite.
//! All of it is the same for everyone who gives the same time.

#![allow(clippy::indexing_slicing, reason = "a key that a JSON object does not have is added to it")]

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::io::Write;
use std::process::Command;

use serde::Deserialize;
use serde_json::{Value, json};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What Cargo says about all crates that take part anywhere, tests and benches among it.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    description: Option<String>,
    repository: Option<String>,
}

#[derive(Deserialize)]
struct Resolve {
    root: String,
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
}

#[derive(Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
    checksum: Option<String>,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [time] = arguments.as_slice() else { return Err("usage: sbom TIME".into()) };
    let rustc = said("rustc", &["-vV"])?;
    let of_rustc = |key: &str| {
        let value = rustc.lines().find_map(|line| line.strip_prefix(key));
        value.ok_or_else(|| format!("rustc -vV does not say {key}"))
    };
    let host = of_rustc("host: ")?;

    let metadata = cargo(&["metadata", "--format-version=1", "--filter-platform", host])?;
    let (root, crates, mut dependencies) = crates(&serde_json::from_str(&metadata)?, host)?;
    let mut components = not_crates(of_rustc("release: ")?);
    for component in &components {
        dependencies.push(json!({"ref": component["bom-ref"]}));
    }
    let mut of_root = dependencies.iter_mut().filter(|one| one["ref"] == root["bom-ref"]);
    if let Some(Value::Array(on)) = of_root.next().map(|one| &mut one["dependsOn"]) {
        on.extend(components.iter().map(|component| component["bom-ref"].clone()));
    }
    components.extend(crates);
    let bill = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": time,
            "component": root,
            "properties": [{"name": "cdx:rustc:sbom:target:triple", "value": host}],
        },
        "components": components,
        "dependencies": dependencies,
    });
    let mut out = std::io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, &bill)?;
    writeln!(out)?;
    Ok(())
}

/// The program itself, the crates that it is built from, and which of them needs which.
fn crates(metadata: &Metadata, host: &str) -> Result<(Value, Vec<Value>, Vec<Value>)> {
    let checksums = checksums()?;
    let shipped = tree(host, "normal,no-proc-macro")?;
    let taking_part = tree(host, "normal,build")?;
    let packages = metadata.packages.iter().map(|package| (package.id.as_str(), package));
    let packages: BTreeMap<_, _> =
        packages.filter(|(_, package)| taking_part.contains(&package.url())).collect();

    let mut root = Value::Null;
    let (mut components, mut dependencies) = (Vec::new(), Vec::new());
    for node in &metadata.resolve.nodes {
        let Some(package) = packages.get(node.id.as_str()) else { continue };
        let url = package.url();
        let on = node.deps.iter().filter_map(|on| packages.get(on.pkg.as_str()));
        dependencies.push(json!({"ref": url, "dependsOn": on.map(|on| on.url()).collect::<BTreeSet<_>>()}));
        if node.id == metadata.resolve.root {
            root = package.component("application");
            continue;
        }
        let mut component = package.component("library");
        component["scope"] = if shipped.contains(&url) { "required" } else { "excluded" }.into();
        if let Some(checksum) = checksums.get(&url) {
            component["hashes"] = json!([{"alg": "SHA-256", "content": checksum}]);
        }
        components.push(component);
    }
    Ok((root, components, dependencies))
}

impl Package {
    /// Its package URL, by which it is known everywhere in the bill.
    fn url(&self) -> String {
        url(&self.name, &self.version)
    }

    fn component(&self, kind: &str) -> Value {
        let mut component = json!({
            "type": kind,
            "bom-ref": self.url(),
            "purl": self.url(),
            "name": self.name,
            "version": self.version,
        });
        if let Some(license) = &self.license {
            // As older manifests write it.
            component["licenses"] = json!([{"expression": license.replace('/', " OR ")}]);
        }
        if let Some(description) = &self.description {
            component["description"] = description.trim().into();
        }
        if let Some(repository) = &self.repository {
            component["externalReferences"] = json!([{"type": "vcs", "url": repository}]);
        }
        component
    }
}

fn url(name: &str, version: &str) -> String {
    format!("pkg:cargo/{name}@{}", version.replace('+', "%2B"))
}

/// What is in the program without being a crate.
fn not_crates(rust: &str) -> Vec<Value> {
    let sqlite = rusqlite::version();
    let component = |name: &str, version: &str, license: &str| {
        let url = format!("pkg:generic/{name}@{version}");
        json!({
            "type": "library",
            "bom-ref": url,
            "purl": url,
            "name": name,
            "version": version,
            "scope": "required",
            "licenses": [{"expression": license}],
        })
    };
    let mut database = component("sqlite", sqlite, "blessing");
    database["cpe"] = format!("cpe:2.3:a:sqlite:sqlite:{sqlite}:*:*:*:*:*:*:*").into();
    vec![component("rust-std", rust, "MIT OR Apache-2.0"), database]
}

/// The crates that Cargo reaches from the program by such edges, with the features that they are built with.
fn tree(host: &str, edges: &str) -> Result<BTreeSet<String>> {
    let tree = cargo(&["tree", "--target", host, "--edges", edges, "--prefix=none", "--format={p}"])?;
    let crates = tree.lines().filter_map(|line| {
        let (name, rest) = line.split_once(" v")?;
        Some(url(name, rest.split(' ').next()?))
    });
    Ok(crates.collect())
}

/// As the registry had them when Cargo.lock was written.
fn checksums() -> Result<BTreeMap<String, String>> {
    let lock: Lock = toml::from_str(include_str!("../Cargo.lock"))?;
    let crates = lock.package.into_iter();
    Ok(crates.filter_map(|locked| Some((url(&locked.name, &locked.version), locked.checksum?))).collect())
}

fn cargo(arguments: &[&str]) -> Result<String> {
    said(
        "cargo",
        &[arguments, &["--locked", "--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")]]
            .concat(),
    )
}

fn said(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).output()?;
    if !output.status.success() {
        return Err(format!("{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}
