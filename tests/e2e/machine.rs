//! The daemon as a service: each test runs once more on a machine of its own, a copy of this one that is thrown away, with
//! systemd as PID 1 and the units, scripts and site files that ship. That takes root, or sudo that asks for no password.

mod acme;
mod front;
mod guides;
mod installation;
mod inventory;
mod lifecycle;
mod packaging;
mod restarts;
mod sandbox;
mod service;

use std::any;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{self, Output};
use std::time::Duration;

use tokio::process::Command;

use crate::inside;
use crate::process::{program, source};

/// For a whole scenario: one that hangs is to end.
const LONGEST: Duration = Duration::from_secs(15 * 60);

/// Runs `scenario`, which is the test `test`, on a machine of its own.
pub(crate) fn on_a_machine<T: FnOnce()>(test: T, scenario: impl AsyncFnOnce()) {
    if inside::is_inside() {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let _log = ShownOnFailure;
        let scenario = async { tokio::time::timeout(LONGEST, scenario()).await };
        return runtime.block_on(scenario).expect("it hangs");
    }
    _ = test;
    for name in ["ip", "systemctl", "nginx", "apache2"] {
        program(name);
    }
    // Its path from the crate's root.
    let name = any::type_name::<T>().split_once("::").unwrap().1;
    let group = format!("shardless-e2e-{}-{}", process::id(), name.replace("::", "-"));
    // Both may be on file systems of their own, which the copy would not have.
    let target = Path::new(env!("CARGO_BIN_EXE_shardless")).ancestors().nth(2).unwrap();
    let show = format!("SHOW={} {}", env!("CARGO_MANIFEST_DIR"), target.display());
    let mut boot = inside::as_root("env");
    boot.arg(format!("NAME={group}")).arg(show).arg(source("tests/e2e/machine/boot"));
    inside::rerun(boot, name);
    assert_nothing_is_left(&group);
}

/// The end of the machine's journal.
struct ShownOnFailure;

impl Drop for ShownOnFailure {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Without the lines of the start, and those of which each interaction has one.
            let journal =
                "journalctl --no-pager | sed '1,/Startup finished/d; /interaction answered/d' | tail -n 100";
            let journal = process::Command::new("sh").args(["-c", journal]).output();
            println!("--- the journal's end:\n{}", journal.map(|output| said(&output)).unwrap_or_default());
        }
    }
}

/// All that the real machine has to do with a machine of a test.
fn assert_nothing_is_left(group: &str) {
    let null = fs::metadata("/dev/null").unwrap();
    assert_eq!((null.mode(), null.rdev()), (0o020_666, 0x103), "/dev/null was changed");
    // A control group is removed once its last process has ended.
    let groups = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(groups).unwrap().map(|entry| entry.unwrap().path());
    let places = hierarchies.chain([groups.to_owned(), "/tmp".into()]).filter(|path| path.is_dir());
    for place in places {
        let names = fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().file_name());
        let left: Vec<_> = names.filter(|name| name.to_string_lossy().starts_with(group)).collect();
        assert!(left.is_empty(), "{left:?} is left in {}", place.display());
    }
}

/// Runs a shell script, which is to succeed, and gives what it says.
pub(crate) async fn sh(script: &str) -> String {
    let output = try_sh(script).await;
    let said = said(&output);
    let end = || said.lines().skip(said.lines().count().saturating_sub(50)).collect::<Vec<_>>().join("\n");
    assert!(output.status.success(), "{script}: {}\n{}", output.status, end());
    said
}

/// Runs a shell script.
pub(crate) async fn try_sh(script: &str) -> Output {
    Command::new("bash").args(["-euo", "pipefail", "-c", script]).output().await.unwrap()
}

/// What a program said.
pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// What the journal holds of a unit.
pub(crate) async fn journal(unit: &str) -> String {
    sh(&format!("journalctl --no-pager --output=cat --unit={unit}")).await
}

/// The same, since its latest start.
pub(crate) async fn journal_since_start(unit: &str) -> String {
    let invocation = format!("$(systemctl show --property=InvocationID --value {unit})");
    sh(&format!("journalctl --no-pager --output=cat _SYSTEMD_INVOCATION_ID={invocation}")).await
}
