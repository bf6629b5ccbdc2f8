//! The units in the eyes of systemd's own checks, with the files of the package in their places.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::package::unpacked;
use crate::process::program;

/// What systemd-analyze makes of the hardening: 0 is a service that may do nothing, 10 one that may do everything. What is
/// left is the network, without which there is no daemon.
const EXPOSURE: f64 = 1.2;

fn systemd_analyze(root: &Path) -> Command {
    let mut command = Command::new(program("systemd-analyze"));
    command.arg("--root").arg(root).env("LC_ALL", "C").env("MANPATH", root.join("usr/share/man"));
    command
}

#[test]
fn systemd_finds_no_mistake_in_them() {
    let root = unpacked();
    let units = root.path().join("usr/lib/systemd/system");
    // What every machine has: the targets that units refer to, and a shell.
    for entry in fs::read_dir("/usr/lib/systemd/system").unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "target") {
            fs::copy(&path, units.join(path.file_name().unwrap())).unwrap();
        }
    }
    fs::copy("/bin/sh", root.path().join("usr/bin/sh")).unwrap();
    let output = systemd_analyze(root.path())
        .args(["verify", "shardless.service", "shardless.socket"])
        .output()
        .unwrap();
    let found = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && found.is_empty(), "{}: {found}", output.status);
}

#[test]
fn the_daemon_may_do_little_besides_its_work() {
    let root = unpacked();
    let output = systemd_analyze(root.path())
        .args(["security", "--offline=true", "--no-pager", "shardless.service"])
        .output()
        .unwrap();
    let found = String::from_utf8_lossy(&output.stdout);
    let figure = found.split("Overall exposure level for shardless.service: ").nth(1);
    let figure = figure.and_then(|rest| rest.split_whitespace().next()).unwrap_or_else(|| panic!("{found}"));
    println!("systemd-analyze security: exposure {figure}, the bar is {EXPOSURE}");
    assert!(figure.parse::<f64>().unwrap() <= EXPOSURE, "{found}");
}
