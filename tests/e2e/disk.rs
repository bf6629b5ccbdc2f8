//! Disks that are full, broken or slow: deferrals leave in time all the same, and are on disk as soon as it is well again.
//!
//! The full one is a small disk of its own; that takes root, or sudo that asks for no password. The others are this
//! machine's, of which the outbox's thread is told lies by strace; that takes root where a process may not be traced by others.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use shardless::rehearsal::rest::{Api, Message};

use crate::daemon::{Daemon, Settings};
use crate::discord::{Discord, Interaction};
use crate::handler::Handler;
use crate::inside;
use crate::lie::Lie;
use crate::process::{self, until};

const ANSWER_WITHIN: Duration = Duration::from_millis(400);
/// How long a slow disk is waited for.
const SLOW_DISK: Duration = Duration::from_millis(300);
/// What this test's own part may take.
const LEEWAY: Duration = Duration::from_millis(200);

const CANNOT: &str = "cannot be kept";
const AGAIN: &str = "the outbox is on disk again";
const SLOW: &str = "the disk of the outbox is slow";
const SLOW_NO_MORE: &str = "the disk of the outbox is no longer slow";
const NOT_DURABLE: &str = "its record is not on disk: a crash would lose it";
const TOO_LONG: &str = "This took too long. Please try again.";

/// A daemon with a disk that a test has in its hands.
struct Scene {
    discord: Discord,
    api: Api,
    daemon: Daemon,
    state: PathBuf,
    _handler: Handler,
}

impl Scene {
    /// With an outbox that is open, in a folder that may be there or not.
    async fn start(state: &Path) -> Self {
        let (discord, api) = (Discord::new(), Api::start(0).await.unwrap());
        let thinking = |name: &str| match name {
            "slow" => ANSWER_WITHIN * 2,
            "never" => Duration::from_secs(600),
            _ => Duration::ZERO,
        };
        let handler = Handler::listen(thinking).await;
        let settings = Settings {
            app: format!("answer_within = \"{}ms\"", ANSWER_WITHIN.as_millis()),
            api: api.url(),
            state: Some(state.to_owned()),
            ..Settings::default()
        };
        let daemon = Daemon::start(&discord, handler.port(), settings).await;
        let scene = Self { discord, api, daemon, state: state.to_owned(), _handler: handler };
        until("its store is open", async || scene.entries() == Some(0)).await;
        scene.a_late_answer_comes().await;
        assert!(!scene.daemon.log().contains(NOT_DURABLE));
        scene
    }

    /// How many entries are on disk; `None` while that cannot be told.
    fn entries(&self) -> Option<u32> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
        let store = Connection::open_with_flags(self.state.join("outbox.sqlite3"), flags).ok()?;
        store.query_row("SELECT count(*) FROM entries", [], |row| row.get(0)).ok()
    }

    /// Sends a command that is deferred, in time. How long it took.
    async fn defer(&self, command: &Interaction) -> Duration {
        self.api.sent(&command.payload.body);
        let url = format!("http://127.0.0.1:{}/interactions", self.daemon.upstream().port);
        let exchange = self.discord.send(&url, &self.discord.sign(&command.payload)).await;
        assert_eq!(&exchange.body[..], br#"{"type":5}"#, "{exchange:?}");
        assert!(exchange.elapsed >= ANSWER_WITHIN, "{exchange:?}");
        assert!(exchange.elapsed < ANSWER_WITHIN + SLOW_DISK + LEEWAY, "{exchange:?}");
        assert!(self.api.answered(&command.payload.body, &exchange.body));
        exchange.elapsed
    }

    fn message(&self, command: &Interaction) -> Message {
        let body: serde_json::Value = serde_json::from_slice(&command.payload.body).unwrap();
        self.api.view(body["token"].as_str().unwrap()).unwrap().original.unwrap()
    }

    async fn a_late_answer_comes(&self) -> Duration {
        let command = self.discord.named_command("slow", "late");
        let took = self.defer(&command).await;
        until("the late answer", async || !self.message(&command).is_loading()).await;
        assert!(self.message(&command).content.ends_with("late"));
        took
    }

    /// One that is answered at once.
    async fn a_quick_answer_comes(&self) {
        let command = self.discord.command("quick");
        let url = format!("http://127.0.0.1:{}/interactions", self.daemon.upstream().port);
        let exchange = self.discord.send(&url, &self.discord.sign(&command.payload)).await;
        command.check(&exchange).unwrap();
        assert!(exchange.elapsed < LEEWAY, "{exchange:?}");
    }

    /// What was deferred on a bad disk is not lost once the disk is well.
    async fn a_crash_loses_nothing_now(mut self, of_bad_days: &Interaction) {
        until("it is on disk", async || self.entries() == Some(1)).await;
        let newer = self.discord.named_command("never", "");
        self.defer(&newer).await;
        self.daemon.stop("KILL").await;
        self.daemon.restart().await;
        until("nobody waits", async || self.api.loading() == 0).await;
        for command in [of_bad_days, &newer] {
            assert_eq!(self.message(command).content, TOO_LONG);
        }
    }

    /// Deferrals on a disk that fails, and after it is well again.
    async fn outlives(self, fail: impl AsyncFnOnce(&Self), mend: impl AsyncFnOnce()) {
        fail(&self).await;
        while !self.daemon.log().contains(CANNOT) {
            self.a_late_answer_comes().await;
        }
        for _ in 0..3 {
            self.a_late_answer_comes().await;
        }
        self.a_quick_answer_comes().await;
        let command = self.discord.named_command("never", "");
        self.defer(&command).await;
        let log = self.daemon.log();
        assert!(log.contains(NOT_DURABLE));
        assert_eq!((log.matches(CANNOT).count(), log.matches(AGAIN).count()), (1, 0), "{log}");
        mend().await;
        self.daemon.logs(&[AGAIN]).await;
        let log = self.daemon.log();
        assert_eq!((log.matches(CANNOT).count(), log.matches(AGAIN).count()), (1, 1), "{log}");
        self.a_crash_loses_nothing_now(&command).await;
    }
}

/// What the outbox's thread hears of its disk.
async fn lie(daemon: &Daemon, injection: &str) -> Lie {
    Lie::tell(&daemon.threads("outbox"), "fsync,fdatasync", injection).await
}

#[tokio::test]
async fn a_disk_that_is_full_for_a_while() {
    let disk = Path::new("/mnt");
    if !inside::is_inside() {
        let mut command = inside::as_root("unshare");
        let enter = "mount -t tmpfs -o size=1m tmpfs /mnt && exec \"$@\"";
        command.args(["--mount", "sh", "-ec", enter, "sh"]);
        inside::rerun(command, "disk::a_disk_that_is_full_for_a_while");
        return;
    }
    let filler = disk.join("filler");
    let fill = async |_: &Scene| {
        let mut file = File::create(&filler).unwrap();
        while file.write_all(&[0; 512]).is_ok() {}
    };
    let scene = Scene::start(&disk.join("state")).await;
    scene.outlives(fill, async || fs::remove_file(&filler).unwrap()).await;
}

#[tokio::test]
async fn a_disk_that_breaks_and_is_mended() {
    let folder = process::folder();
    let scene = Scene::start(&folder.path().join("state")).await;
    let told = std::cell::Cell::new(None);
    let fail = async |scene: &Scene| told.set(Some(lie(&scene.daemon, "error=EIO").await));
    scene.outlives(fail, async || drop(told.take())).await;
}

#[tokio::test]
async fn a_disk_that_is_slow_for_a_while() {
    let folder = process::folder();
    let scene = Scene::start(&folder.path().join("state")).await;
    let slow = lie(&scene.daemon, "delay_enter=60000000").await;
    let took = scene.a_late_answer_comes().await;
    assert!(took >= ANSWER_WITHIN + SLOW_DISK - LEEWAY, "{took:?}");
    scene.daemon.logs(&[SLOW]).await;
    for _ in 0..3 {
        // It is not waited for any more.
        let took = scene.a_late_answer_comes().await;
        assert!(took < ANSWER_WITHIN + LEEWAY, "{took:?}");
        scene.a_quick_answer_comes().await;
    }
    let command = scene.discord.named_command("never", "");
    scene.defer(&command).await;
    assert!(scene.daemon.log().contains(NOT_DURABLE));
    assert!(!scene.daemon.log().contains(CANNOT));
    drop(slow);
    scene.daemon.logs(&[SLOW_NO_MORE]).await;
    let log = scene.daemon.log();
    assert_eq!((log.matches(SLOW).count(), log.matches(SLOW_NO_MORE).count()), (1, 1), "{log}");
    scene.a_crash_loses_nothing_now(&command).await;
}
