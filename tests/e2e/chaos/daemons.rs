//! The two daemons, each behind an Nginx of its own, on a small disk of its own, by a clock that can be moved.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{ANSWER_WITHIN, DISKS, GIVE_UP_AFTER};
use crate::daemon::Upstream;
use crate::discord::Discord;
use crate::process::{free_port, program, until};
use crate::proxies::{Front, Proxy};

/// Where both find what a process is started with.
const LISTENING: &str = "exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\"";
const BINDING: &str = "exec \"$@\" </dev/null";

/// What of a config can be told anew while a daemon runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Version {
    /// As it was started.
    #[default]
    First,
    /// As sound as that.
    Other,
    /// Not sound at all.
    Broken,
}

/// One of them.
pub(super) struct Daemon {
    pub(super) name: &'static str,
    number: usize,
    port: u16,
    admin: u16,
    front: Front,
    folder: PathBuf,
    /// Handed over to each process, where it is not to bind one by itself.
    socket: Option<TcpListener>,
    /// What stands in the config and never changes.
    key: String,
    api: String,
    handlers: [u16; 4],
    process: Mutex<Option<Child>>,
    run: AtomicU16,
}

impl Daemon {
    /// Starts the one of that number and name, in `folder`.
    pub(super) async fn start(
        (number, name): (usize, &'static str),
        folder: PathBuf,
        is_handed_a_socket: bool,
        discord: &Discord,
        api: &str,
        handlers: [u16; 4],
    ) -> Self {
        fs::create_dir(&folder).unwrap();
        let (port, admin) = (free_port(), free_port());
        let socket = is_handed_a_socket.then(|| TcpListener::bind(("127.0.0.1", port)).unwrap());
        let front = Proxy::Nginx.in_front_of(&Upstream::plain(port)).await;
        let daemon = Self {
            name,
            number,
            port,
            admin,
            front,
            folder,
            socket,
            key: discord.public_key(),
            api: api.to_owned(),
            handlers,
            process: Mutex::default(),
            run: AtomicU16::new(0),
        };
        daemon.set_clock(0);
        daemon.restart().await;
        daemon
    }

    /// The endpoint's URL, as Discord is given it.
    pub(super) fn endpoint(&self) -> String {
        self.front.endpoint()
    }

    /// How often it has been started.
    pub(super) fn run(&self) -> u16 {
        self.run.load(Ordering::SeqCst)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The folder for state, on its small disk.
    fn disk(&self) -> PathBuf {
        Path::new(DISKS).join(self.name)
    }

    /// Writes its config, for the process that runs or starts next.
    pub(super) fn configure(&self, version: Version) {
        let (name, number, run) = (self.name, self.number, self.run());
        let (connect, within) = match version {
            Version::Other => (200, ANSWER_WITHIN - Duration::from_millis(50)),
            _ => (300, ANSWER_WITHIN),
        };
        let urls = self.handlers.map(|port| format!("http://127.0.0.1:{port}/{number}/{run}"));
        let (pool, solo) = urls.split_at(3);
        let commands = ["quick", "slow", "edge", "never"].map(|command| {
            format!("[[apps.{name}.routes]]\ncommand = \"solo-{command}\"\nhandler = \"solo\"\n")
        });
        let broken = if version == Version::Broken { "port = \"" } else { "" };
        let config = format!(
            "{broken}\naddress = \"127.0.0.1\"\nport = {port}\nstate_dir = {state:?}\n\
             [admin]\naddress = \"127.0.0.1\"\nport = {admin}\n\
             [limits]\ndrain_timeout = \"2s\"\n\
             [discord]\napi = {api:?}\n\
             [handlers.pool]\nurls = {pool:?}\nconnect_timeout = \"{connect}ms\"\n\
             [handlers.solo]\nurls = {solo:?}\n\
             [apps.{name}]\npublic_key = \"{key}\"\nhandler = \"pool\"\n\
             answer_within = \"{within}ms\"\ngive_up_after = \"{give_up}s\"\n{commands}\
             [[apps.{name}.routes]]\ncustom_id = \"solo-*\"\nhandler = \"solo\"\n",
            port = self.port,
            state = self.disk().join("state"),
            admin = self.admin,
            api = self.api,
            key = self.key,
            within = within.as_millis(),
            give_up = GIVE_UP_AFTER.as_secs(),
            commands = commands.concat(),
        );
        fs::write(self.file("config.toml"), config).unwrap();
    }

    /// Moves its clock by so many seconds from the machine's.
    pub(super) fn set_clock(&self, seconds: i64) {
        // At once, since it may be read at any moment.
        let new = self.file("clock.new");
        fs::write(&new, format!("{seconds:+}\n")).unwrap();
        fs::rename(new, self.file("clock")).unwrap();
    }

    /// Starts its next process, and waits until it serves.
    pub(super) async fn restart(&self) {
        self.run.fetch_add(1, Ordering::SeqCst);
        self.configure(Version::First);
        let log = File::options().create(true).append(true).open(self.file("log")).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", if self.socket.is_some() { LISTENING } else { BINDING }, "sh"]);
        command
            .arg(env!("CARGO_BIN_EXE_shardless"))
            .arg("serve")
            .arg("--config")
            .arg(self.file("config.toml"));
        command.env("LD_PRELOAD", fake_time()).env("FAKETIME_TIMESTAMP_FILE", self.file("clock"));
        // The clock that only goes forward stays the machine's, and so do the times of files.
        for set in
            ["FAKETIME_DONT_FAKE_MONOTONIC", "FAKETIME_NO_CACHE", "FAKETIME_DISABLE_SHM", "NO_FAKE_STAT"]
        {
            command.env(set, "1");
        }
        let socket =
            self.socket.as_ref().map(|socket| Stdio::from(OwnedFd::from(socket.try_clone().unwrap())));
        command.stdin(socket.unwrap_or_else(Stdio::null));
        command.stdout(log.try_clone().unwrap()).stderr(log);
        *self.process.lock().unwrap() = Some(command.spawn().unwrap());
        until(&format!("{} serves", self.name), async || {
            assert!(self.ended().is_none(), "{} ended: {}", self.name, self.last_words());
            self.get("/livez").await.is_some()
        })
        .await;
    }

    fn ended(&self) -> Option<ExitStatus> {
        self.process.lock().unwrap().as_mut().and_then(|process| process.try_wait().unwrap())
    }

    pub(super) fn process_id(&self) -> u32 {
        self.process.lock().unwrap().as_ref().unwrap().id()
    }

    /// Sends a signal, by its name.
    pub(super) fn signal(&self, signal: &str) {
        let kill = format!("kill -s {signal} {}", self.process_id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Ends its process by that signal.
    pub(super) async fn stop(&self, signal: &str) {
        self.signal(signal);
        let mut ended = None;
        until(&format!("{} ends", self.name), async || {
            ended = self.ended();
            ended.is_some()
        })
        .await;
        let ended = ended.unwrap();
        assert!(
            signal == "KILL" || ended.success(),
            "{} ended with {ended}: {}",
            self.name,
            self.last_words()
        );
    }

    /// Lets it read that version of its config; waits until it says what it made of it.
    pub(super) async fn reload(&self, version: Version) {
        let before = fs::metadata(self.file("log")).unwrap().len();
        self.configure(version);
        self.signal("HUP");
        let words = if version == Version::Broken { "stays as it was" } else { "is in force now" };
        until("the config was read", async || self.log_from(before).contains(words)).await;
    }

    fn log_from(&self, offset: u64) -> String {
        let mut log = File::open(self.file("log")).unwrap();
        log.seek(SeekFrom::Start(offset)).unwrap();
        let mut text = Vec::new();
        log.read_to_end(&mut text).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// The end of its log.
    pub(super) fn last_words(&self) -> String {
        let length = fs::metadata(self.file("log")).unwrap().len();
        self.log_from(length.saturating_sub(4000))
    }

    /// The lines of its log that hold one of these texts.
    pub(super) fn lines(&self, texts: &[String]) -> Vec<String> {
        use std::io::{BufRead, BufReader};

        let lines = BufReader::new(File::open(self.file("log")).unwrap()).lines().map_while(Result::ok);
        lines.filter(|line| texts.iter().any(|text| line.contains(text))).collect()
    }

    /// What its admin listener answers, if it is well.
    pub(super) async fn get(&self, path: &str) -> Option<String> {
        let asked = async {
            let mut stream = TcpStream::connect(("127.0.0.1", self.admin)).await.ok()?;
            let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.ok()?;
            answer.starts_with("HTTP/1.1 200").then_some(answer)
        };
        tokio::time::timeout(Duration::from_secs(5), asked).await.ok()?
    }

    /// Whether what is deferred now is on disk.
    pub(super) async fn is_durable(&self) -> bool {
        let Some(status) = self.get("/status.json").await else { return false };
        let Some((_, body)) = status.split_once("\r\n\r\n") else { return false };
        let status: serde_json::Value = serde_json::from_str(body).unwrap();
        let checks = status["checks"].as_array().unwrap();
        checks.iter().any(|check| check["name"] == "outbox" && check["status"] == "ok")
    }

    /// Waits until its outbox is on disk.
    pub(super) async fn until_durable(&self) {
        until(&format!("the outbox of {} is on disk", self.name), async || self.is_durable().await).await;
    }

    /// How many entries are on disk; `None` while that cannot be told.
    pub(super) fn entries(&self) -> Option<u32> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
        let store = Connection::open_with_flags(self.disk().join("state/outbox.sqlite3"), flags).ok()?;
        store.busy_timeout(Duration::from_secs(1)).ok()?;
        store.query_row("SELECT count(*) FROM entries", [], |row| row.get(0)).ok()
    }

    /// Fills its disk.
    pub(super) fn fill_disk(&self) {
        let mut file = File::create(self.disk().join("filler")).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
        while file.write_all(&[0; 64]).is_ok() {}
    }

    /// Gives it its disk back.
    pub(super) fn empty_disk(&self) {
        fs::remove_file(self.disk().join("filler")).unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.lock().unwrap().take() {
            _ = process.kill();
            _ = process.wait();
        }
    }
}

/// The library that lies about the time of day.
fn fake_time() -> PathBuf {
    program("faketime");
    let folders = fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path());
    let libraries = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1"));
    libraries.into_iter().find(|library| library.exists()).expect("libfaketime is missing: run tests/install")
}
