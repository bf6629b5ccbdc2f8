//! The network of this namespace, by nftables: packets that are lost, and connections that are reset.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::process::program;

/// Packets to `ports` are lost, so many of a hundred.
pub(super) fn lose(ports: &[u16], percent: u32) {
    let ports = list(ports);
    apply(&format!("add rule inet chaos out tcp dport {ports} numgen random mod 100 < {percent} drop\n"));
}

/// Of the connections to `ports`, old and new ones, every fourth is reset.
pub(super) fn reset(ports: &[u16]) {
    let ports = list(ports);
    apply(&format!("add rule inet chaos out tcp dport {ports} tcp sport & 6 == 2 reject with tcp reset\n"));
}

/// All is well again.
pub(super) fn mend() {
    apply("");
}

fn list(ports: &[u16]) -> String {
    let ports: Vec<_> = ports.iter().map(u16::to_string).collect();
    format!("{{ {} }}", ports.join(", "))
}

/// Makes that the only rule.
fn apply(rule: &str) {
    let table = "add table inet chaos\n\
                 add chain inet chaos out { type filter hook output priority 0; }\n\
                 flush chain inet chaos out\n";
    let mut command = Command::new(program("nft"));
    let mut child = command.args(["-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(format!("{table}{rule}").as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{rule}{}", String::from_utf8_lossy(&output.stderr));
}
