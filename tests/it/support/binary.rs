//! The command itself, as people run it.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use shardless::rehearsal::Signer;
use tempfile::TempDir;

use super::until;

/// The command, with an environment that does not steer it.
///
/// It is to end by itself: one that does not is killed, so that its test fails instead of waiting for ever.
pub(crate) fn command() -> Command {
    let mut command = Command::new("timeout");
    command.args(["--signal=KILL", "30", EXECUTABLE]);
    undirected(command)
}

fn undirected(mut command: Command) -> Command {
    command.env_remove("SHARDLESS_CONFIG").env_remove("SHARDLESS_KEY");
    command
}

const EXECUTABLE: &str = env!("CARGO_BIN_EXE_shardless");

/// `shardless serve` as a process; killed when dropped.
pub(crate) struct Binary {
    pub(crate) address: SocketAddr,
    pub(crate) signer: Signer,
    pub(crate) folder: TempDir,
    child: Child,
    log: Arc<Mutex<String>>,
    reading: Option<JoinHandle<()>>,
}

impl Binary {
    /// Starts one with these settings, and waits until it says where it listens.
    pub(crate) async fn serve(settings: &str, app: &str, handler: &str) -> Self {
        Self::serve_with(settings, app, handler, |_| {}).await
    }

    pub(crate) async fn serve_with(
        settings: &str,
        app: &str,
        handler: &str,
        prepare: impl FnOnce(&mut Command),
    ) -> Self {
        let signer = Signer::generate().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        let key = signer.public_key();
        std::fs::write(&path, config(settings, &key.to_string(), handler, app)).unwrap();
        let mut command = serving(&folder);
        prepare(&mut command);
        let Running { address, child, log, reading } = Running::start(command);
        Self { address, signer, folder, child, log, reading: Some(reading) }
    }

    /// Starts it once more, in the same folder and with the config that stands there now. Its log begins anew.
    pub(crate) fn restart(&mut self) {
        self.kill();
        let Running { address, child, log, reading } = Running::start(serving(&self.folder));
        (self.address, self.child, self.log, self.reading) = (address, child, log, Some(reading));
    }

    /// Ends it as a crash does: it gets no chance to do anything more.
    pub(crate) fn kill(&mut self) {
        _ = self.child.kill();
        self.wait();
    }

    /// One more process of the same kind, of which nothing is known.
    pub(crate) fn another(&self) -> Child {
        serving(&self.folder).stderr(Stdio::null()).spawn().unwrap()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/interactions", self.address)
    }

    /// The development key in a file, for `send`.
    pub(crate) fn key_file(&self) -> PathBuf {
        let path = self.folder.path().join("dev.key");
        if !path.exists() {
            self.signer.save(&path).unwrap();
        }
        path
    }

    /// Writes another config for it, of which it has not heard yet.
    pub(crate) fn rewrite(&self, settings: &str, app: &str, handler: &str) {
        let text = config(settings, &self.signer.public_key().to_string(), handler, app);
        std::fs::write(self.config(), text).unwrap();
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("config.toml")
    }

    /// All that it logged so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub(crate) async fn until_log(&self, words: &str) {
        until(words, || async { self.log().contains(words) }).await;
    }

    pub(crate) fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args(["-s", signal, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Time that processors have spent on it.
    pub(crate) fn cpu_time(&self) -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let nanoseconds = tasks.map(|task| {
            let stat = std::fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap();
            stat.split(' ').next().unwrap().parse::<u64>().unwrap()
        });
        Duration::from_nanos(nanoseconds.sum())
    }

    /// MiB of memory that were its own at most.
    pub(crate) fn peak_memory(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().trim_end_matches(" kB").parse::<usize>().unwrap() / 1024
    }

    /// Sockets that it has open.
    pub(crate) fn sockets(&self) -> usize {
        let open = std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap();
        let targets = open.filter_map(|file| std::fs::read_link(file.unwrap().path()).ok());
        targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for its end; the log is whole then.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let status = self.child.wait().unwrap();
        if let Some(reading) = self.reading.take() {
            reading.join().unwrap();
        }
        status
    }
}

/// A process that listens.
struct Running {
    address: SocketAddr,
    child: Child,
    log: Arc<Mutex<String>>,
    reading: JoinHandle<()>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let mut first = String::new();
        while !first.contains("listens on ") {
            assert!(lines.read_line(&mut first).unwrap() > 0, "it ended: {first}");
        }
        let address = first.split("listens on ").nth(1).and_then(|rest| rest.split_whitespace().next());
        let address = address.unwrap_or_else(|| panic!("no address in {first:?}")).trim_end_matches('"');
        let address = address.parse().unwrap();
        let log = Arc::new(Mutex::new(first));
        let writing = Arc::clone(&log);
        let reading = std::thread::spawn(move || {
            let mut line = String::new();
            while lines.read_line(&mut line).is_ok_and(|count| count > 0) {
                writing.lock().unwrap().push_str(&std::mem::take(&mut line));
            }
            _ = lines.read_to_string(&mut line);
        });
        Self { address, child, log, reading }
    }
}

fn serving(folder: &TempDir) -> Command {
    let mut command = undirected(Command::new(EXECUTABLE));
    command.args(["serve", "--config"]).arg(folder.path().join("config.toml")).stderr(Stdio::piped());
    command.env("STATE_DIRECTORY", folder.path().join("state"));
    command
}

fn config(settings: &str, key: &str, handler: &str, app: &str) -> String {
    let port = if settings.starts_with("port") { "" } else { "port = 0\n" };
    // Nobody listens there: Discord itself is none of the tests' business.
    let discord =
        if settings.contains("[discord]") { "" } else { "[discord]\napi = \"http://127.0.0.1:9/api\"\n" };
    format!(
        "{port}{settings}\n{discord}[apps.mybot]\npublic_key = \"{key}\"\nhandler = \"{handler}\"\n{app}\n"
    )
}

impl Drop for Binary {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}
