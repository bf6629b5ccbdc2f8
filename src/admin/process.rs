//! What the kernel says of this process.
//!
//! Source: proc_pid_stat(5), proc_pid_status(5), proc_pid_fd(5), proc_pid_limits(5).

use std::fs;

use serde::Serialize;

/// Of a second; what the kernel tells to programs, whatever it counts with itself.
///
/// Source: `USER_HZ` in Linux, 100 on every architecture that Rust runs on.
const TICKS: f64 = 100.0;

/// This process now; what is not known is `None`.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Process {
    /// Seconds that processors have spent on it.
    pub(super) cpu_seconds: Option<f64>,
    /// Bytes of memory.
    pub(super) memory: Option<u64>,
    /// Bytes of addresses.
    pub(super) virtual_memory: Option<u64>,
    /// Threads.
    pub(super) threads: Option<u64>,
    /// Descriptors.
    pub(super) open_files: Option<u64>,
    /// Descriptors that it may have.
    pub(super) max_open_files: Option<u64>,
}

impl Process {
    /// Asks the kernel.
    pub(super) fn read() -> Self {
        let read = |name: &str| fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
        let status = read("status");
        // One of them is the one that they are read by.
        let open_files = fs::read_dir("/proc/self/fd").map(|files| files.count().saturating_sub(1)).ok();
        Self {
            cpu_seconds: cpu_seconds(&read("stat")),
            memory: kibibytes(&status, "VmRSS:"),
            virtual_memory: kibibytes(&status, "VmSize:"),
            threads: field(&status, "Threads:").and_then(|number| number.parse().ok()),
            open_files: open_files.and_then(|number| number.try_into().ok()),
            // Soft, hard: the first one counts.
            max_open_files: field(&read("limits"), "Max open files").and_then(|number| number.parse().ok()),
        }
    }
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    // The second field is a name, in which anything may stand.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    let (user, system) = (ticks()?, ticks()?);
    Some(user.saturating_add(system) as f64 / TICKS)
}

fn kibibytes(status: &str, name: &str) -> Option<u64> {
    let number: u64 = field(status, name)?.parse().ok()?;
    number.checked_mul(1024)
}

/// The first word after a line's name.
fn field<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.split_ascii_whitespace().next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_known_of_this_process() {
        let process = Process::read();
        assert!(process.cpu_seconds.is_some_and(|seconds| seconds >= 0.0));
        assert!(process.memory.is_some_and(|bytes| bytes > 100_000 && bytes % 1024 == 0));
        assert!(process.virtual_memory > process.memory);
        assert!(process.threads.is_some_and(|count| count >= 1));
        assert!(process.open_files.is_some_and(|count| count >= 3 && Some(count) < process.max_open_files));
    }

    #[test]
    fn a_name_with_brackets_and_spaces_is_passed_over() {
        let stat = "7 (a) R (b c) S 1 7 7 0 -1 4194560 900 0 0 0 150 50 0 0 20 0 4 0 1000 123456 99";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(cpu_seconds(""), None);
    }

    #[test]
    fn no_limit_is_no_number() {
        let limits = "Max open files            unlimited            unlimited            files     \n";
        assert_eq!(field(limits, "Max open files"), Some("unlimited"));
        assert_eq!(kibibytes("VmRSS:\t   12 kB\n", "VmRSS:"), Some(12 * 1024));
    }
}
