//! Tests that run once more, alone, in surroundings of their own; that takes root, or sudo that asks for no password.

use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use crate::process::program;

/// Tells a test that it is inside.
const INSIDE: &str = "SHARDLESS_E2E_INSIDE";
/// What a test is told from outside, and is to know inside as well.
const FULL: &str = "SHARDLESS_FULL";

/// Whether this process is the one that runs a test once more.
pub(crate) fn is_inside() -> bool {
    env::var_os(INSIDE).is_some()
}

/// Whether the bars are to be measured at full size.
pub(crate) fn is_full() -> bool {
    env::var_os(FULL).is_some_and(|value| value == "1")
}

/// The same for bars of time, which mean something only for what is built to be shipped.
pub(crate) fn is_full_speed() -> bool {
    is_full() && !cfg!(debug_assertions)
}

/// Runs the test `name` by `command`, which makes the surroundings and then runs its last arguments. Fails as it does.
pub(crate) fn rerun(mut command: Command, name: &str) {
    let full = if is_full() { "1" } else { "" };
    command.args(["env", &format!("{INSIDE}=1"), &format!("{FULL}={full}")]);
    command.arg(env::current_exe().unwrap()).args([name, "--exact", "--nocapture"]);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    let has_run = said.contains("test result: ok. 1 passed");
    assert!(output.status.success() && has_run, "inside, which takes root: {}\n{said}", output.status);
    print!("{said}");
}

/// A program with root's rights: as it is for root, by sudo for others.
pub(crate) fn as_root(name: &str) -> Command {
    let program = program(name);
    if fs::metadata("/proc/self").unwrap().uid() == 0 {
        return Command::new(program);
    }
    let mut command = Command::new(crate::process::program("sudo"));
    command.arg("-n").arg(program);
    command
}
