//! Processes that a test starts: each in a folder of its own, on ports of its own, and gone when the test ends.

use std::fs::File;
use std::net::{Ipv6Addr, TcpListener};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// For what takes a moment to happen. Generous, since a loaded machine is no failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// For a process to end by itself.
const GRACE: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(5);

/// A running process, with all that it starts.
pub(crate) struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` and waits until it takes connections on `port`. What it says goes to `log`.
    pub(crate) async fn start(name: &'static str, mut command: Command, log: &Path, port: u16) -> Self {
        let output = File::options().create(true).append(true).open(log).unwrap();
        command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
        // A group of its own, so that its workers can be ended with it.
        let child = command.process_group(0).spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut process = Self { name, child, log: log.to_owned() };
        until(&format!("{name} answers on port {port}"), async || {
            if let Some(status) = process.child.try_wait().unwrap() {
                panic!("{name} ended with {status}:\n{}", process.log());
            }
            TcpStream::connect(("127.0.0.1", port)).await.is_ok()
        })
        .await;
        process
    }

    /// Sends a signal and waits for the end.
    pub(crate) async fn stop(mut self, signal: &str) {
        self.signal(signal);
        let mut ended = None;
        until(&format!("{} ends", self.name), async || {
            ended = self.child.try_wait().unwrap();
            ended.is_some()
        })
        .await;
        let ended = ended.unwrap();
        assert!(
            ended.success() || ended.signal() == Some(9),
            "{} ended with {ended}:\n{}",
            self.name,
            self.log()
        );
    }

    /// Makes it hang: the system still takes connections for it. Once this is over, it does nothing any more.
    pub(crate) async fn hang(&self) {
        self.signal("STOP");
        let tasks = format!("/proc/{}/task", self.child.id());
        let stands_still = |task: PathBuf| {
            let stat = std::fs::read_to_string(task.join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_none_or(|(_, state)| state.starts_with('T'))
        };
        until(&format!("{} stands still", self.name), async || {
            std::fs::read_dir(&tasks).unwrap().all(|task| stands_still(task.unwrap().path()))
        })
        .await;
    }

    /// What it said so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its threads of that name.
    pub(crate) fn threads(&self, name: &str) -> Vec<u32> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let is_named =
            |task: &PathBuf| std::fs::read_to_string(task.join("comm")).is_ok_and(|is| is.trim() == name);
        let tasks = tasks.map(|task| task.unwrap().path()).filter(is_named);
        let threads: Vec<_> =
            tasks.map(|task| task.file_name().unwrap().to_str().unwrap().parse().unwrap()).collect();
        assert!(!threads.is_empty(), "no thread is named {name}");
        threads
    }

    /// Sends a signal, by its name.
    pub(crate) fn signal(&self, signal: &str) {
        // The shell's own `kill`: every machine has it.
        let group = format!("kill -s {signal} -- -{}", self.child.id());
        _ = Command::new("sh").args(["-c", &group]).stderr(Stdio::null()).status();
    }
}

impl Drop for Process {
    #[allow(clippy::disallowed_methods, reason = "nothing else is left to do in this test")]
    fn drop(&mut self) {
        // Asked first, so that a proxy ends its own workers and none is left as a zombie; CONT wakes one that hangs.
        self.signal("TERM");
        self.signal("CONT");
        let asked = Instant::now();
        while asked.elapsed() < GRACE && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(POLL);
        }
        self.signal("KILL");
        _ = self.child.wait();
        if std::thread::panicking() {
            println!("--- {} said:\n{}", self.name, self.log());
        }
    }
}

/// Waits for a condition.
pub(crate) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        tokio::time::sleep(POLL).await;
    }
}

/// A port that nothing listens on, below those that the system gives to outgoing connections, and never the same twice.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let first = 10_000 + u16::try_from(std::process::id() % 1000).unwrap() * 20;
        let port = first + NEXT.fetch_add(1, Ordering::Relaxed);
        if TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).is_ok() {
            return port;
        }
    }
}

/// A folder that unprivileged workers can enter.
pub(crate) fn folder() -> TempDir {
    use std::os::unix::fs::PermissionsExt;

    let everyone = std::fs::Permissions::from_mode(0o755);
    tempfile::Builder::new().prefix("shardless-e2e-").permissions(everyone).tempdir().unwrap()
}

/// Where a program is; ordinary users do not have all of these in their `PATH`.
pub(crate) fn program(name: &str) -> PathBuf {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let mut found =
        std::env::split_paths(&path).map(|folder| folder.join(name)).filter(|file| file.is_file());
    found.next().unwrap_or_else(|| missing(name))
}

/// A file that `tests/install` makes.
pub(crate) fn installed(path: &str) -> PathBuf {
    let file = source(path);
    if file.exists() { file } else { missing(path) }
}

/// A file of the project.
pub(crate) fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn missing(what: &str) -> ! {
    panic!("{what} is missing: run tests/install");
}
