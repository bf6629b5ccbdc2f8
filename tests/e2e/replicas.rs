//! A handler with four replicas, processes of their own: some are killed, one hangs.

use std::collections::BTreeSet;
use std::env;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::discord::Discord;
use crate::handler::Handler;
use crate::inside::is_full_speed;
use crate::process::{self, Process, free_port};

/// Tells this program that it is a replica: its port, and the file for the names of the commands that it reads.
const REPLICA: &str = "SHARDLESS_E2E_REPLICA";

/// Not a test, but a replica, where it is told to be one.
#[tokio::test]
async fn replica() {
    let Ok(told) = env::var(REPLICA) else { return };
    let (port, notes) = told.split_once(':').unwrap();
    let notes = Mutex::new(File::options().create(true).append(true).open(notes).unwrap());
    let note = move |name: &str| {
        writeln!(notes.lock().unwrap(), "{name}").unwrap();
        Duration::ZERO
    };
    let _handler = Handler::listen_on(port.parse().unwrap(), note).await;
    std::future::pending::<()>().await;
}

struct Replica {
    port: u16,
    notes: PathBuf,
    process: Option<Process>,
}

impl Replica {
    async fn start(folder: &Path) -> Self {
        let port = free_port();
        let mut replica = Self { port, notes: folder.join(format!("{port}.notes")), process: None };
        replica.restart().await;
        replica
    }

    async fn restart(&mut self) {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["replicas::replica", "--exact", "--nocapture"]);
        command.env(REPLICA, format!("{}:{}", self.port, self.notes.display()));
        let log = self.notes.with_extension("log");
        self.process = Some(Process::start("replica", command, &log, self.port).await);
    }

    async fn kill(&mut self) {
        self.process.take().unwrap().stop("KILL").await;
    }

    /// The commands that it has read.
    fn read(&self) -> BTreeSet<String> {
        fs::read_to_string(&self.notes).unwrap_or_default().lines().map(str::to_owned).collect()
    }
}

/// The daemon, before some replicas.
struct Setup {
    discord: Arc<Discord>,
    replicas: Vec<Replica>,
    daemon: Process,
    port: u16,
    folder: TempDir,
}

impl Setup {
    async fn start(count: usize) -> Self {
        let (folder, port, discord) = (process::folder(), free_port(), Arc::new(Discord::new()));
        let replicas = join_all((0..count).map(|_| Replica::start(folder.path()))).await;
        let url = |replica: &Replica| format!("http://127.0.0.1:{}/interactions", replica.port);
        let config = format!(
            "port = {port}\nstate_dir = {state:?}\n[handlers.bot]\nurls = {urls:?}\n\
             [apps.mybot]\npublic_key = \"{key}\"\nhandler = \"bot\"\n",
            state = folder.path().join("state"),
            urls = replicas.iter().map(url).collect::<Vec<_>>(),
            key = discord.public_key(),
        );
        let file = folder.path().join("config.toml");
        fs::write(&file, config).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_shardless"));
        command.args(["serve", "--config"]).arg(&file);
        let daemon = Process::start("shardless", command, &folder.path().join("log"), port).await;
        Self { discord, replicas, daemon, port, folder }
    }

    /// Sends so many commands a second for a while, each at its time, and gives what came of each.
    async fn load(discord: Arc<Discord>, port: u16, rate: u32, time: Duration, first: usize) -> Vec<Sent> {
        let url: Arc<str> = format!("http://127.0.0.1:{port}/interactions").into();
        let mut due = tokio::time::interval(Duration::from_secs(1) / rate);
        due.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut sendings = JoinSet::new();
        for n in 0..rate as usize * time.as_secs() as usize {
            let due = due.tick().await;
            let (discord, url) = (Arc::clone(&discord), Arc::clone(&url));
            let name = format!("play{}", first + n);
            sendings.spawn(async move {
                let interaction = discord.named_command(&name, &name);
                let error = discord.try_ask(&url, &interaction).await.err();
                Sent { name, took: due.elapsed(), error }
            });
        }
        sendings.join_all().await
    }
}

#[derive(Debug)]
struct Sent {
    name: String,
    took: Duration,
    error: Option<String>,
}

/// What a killed replica had read is lost with it, since nobody knows what it did with it. Nothing else is.
#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_are_killed_cost_nothing_but_what_they_had_read() {
    let (rate, time) = if is_full_speed() { (500, 30) } else { (100, 5) };
    let mut setup = Setup::start(4).await;
    let load = Setup::load(Arc::clone(&setup.discord), setup.port, rate, Duration::from_secs(time), 0);
    let load = tokio::spawn(load);
    let mut second = tokio::time::interval(Duration::from_secs(1));
    let mut kills = 0;
    while !load.is_finished() {
        second.tick().await;
        let replica = &mut setup.replicas[kills % 4];
        replica.kill().await;
        replica.restart().await;
        kills += 1;
    }
    let sent = load.await.unwrap();
    let read: BTreeSet<_> = setup.replicas.iter().flat_map(Replica::read).collect();
    let log = fs::read_to_string(setup.folder.path().join("log")).unwrap();
    let failed: Vec<&Sent> = sent.iter().filter(|sent| sent.error.is_some()).collect();
    let (had_read, others): (Vec<&Sent>, Vec<&Sent>) =
        failed.iter().partition(|sent| read.contains(&sent.name));
    println!(
        "{} sent, {kills} kills: {} had been read by the killed one, {} had been sent to it",
        sent.len(),
        had_read.len(),
        others.len()
    );
    // What waits in a killed one's socket may have been read, for all that the daemon can know.
    let was_sent = |sent: &&&Sent| {
        let name = format!("name=\"{}\"", sent.name);
        let line = log.lines().find(|line| line.contains(&name)).unwrap_or_default();
        line.contains("the connection broke before the answer was whole")
    };
    let unexplained: Vec<_> = failed.iter().filter(|sent| !was_sent(sent)).collect();
    // Of many in a few seconds, the log has the number alone.
    let held_back = log.lines().filter(|line| line.contains("handler failed: "));
    let held_back = held_back.filter_map(|line| line.split_once("held_back=")?.1.parse::<usize>().ok());
    let held_back: Vec<_> = held_back.collect();
    let in_numbers: usize = held_back.iter().sum();
    assert_eq!(unexplained.len(), in_numbers, "{unexplained:#?}\n{log}");
    assert!(failed.len() <= 3 * kills, "{} for {kills} kills", failed.len());
    let lines = log.matches("handler failed").count() - held_back.len();
    assert_eq!(lines + in_numbers, failed.len(), "each is in the log");
    assert!(setup.replicas.iter().all(|replica| replica.read().len() > sent.len() / 20), "all took part");
    drop(setup.daemon);
}

/// Once it is left out, a replica that hangs slows nobody down.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_hangs_is_soon_left_out() {
    let (rate, time) = if is_full_speed() { (500, 10) } else { (100, 3) };
    let (healthy, hanging) = (Setup::start(3).await, Setup::start(4).await);
    hanging.replicas[0].process.as_ref().unwrap().hang().await;
    // Its first calls are late. Calls in flight count against it from the start, so there are few.
    let discord = Arc::clone(&hanging.discord);
    let first = Setup::load(discord, hanging.port, rate, Duration::from_secs(4), 0).await;
    let late = first.iter().filter(|sent| sent.error.is_some()).count();
    assert!(late < first.len() / 50, "{late} of {}", first.len());

    let (mut with_three, mut with_one_that_hangs) = (Vec::new(), Vec::new());
    for round in 1..=3_usize {
        for (setup, times) in [(&healthy, &mut with_three), (&hanging, &mut with_one_that_hangs)] {
            let discord = Arc::clone(&setup.discord);
            let sent =
                Setup::load(discord, setup.port, rate, Duration::from_secs(time), round * 1_000_000).await;
            times.push(p99(&sent));
        }
    }
    with_three.sort_unstable();
    with_one_that_hangs.sort_unstable();
    let (three, four) = (with_three[1], with_one_that_hangs[1]);
    println!(
        "{late} were late before it was left out; p99 {four:.1?} with one that hangs, {three:.1?} with three: {:.2}",
        four.as_secs_f64() / three.as_secs_f64()
    );
    assert!(!is_full_speed() || four < three.mul_f64(1.5), "{four:?}, {three:?}");
    hanging.replicas[0].process.as_ref().unwrap().signal("CONT");
}

fn p99(sent: &[Sent]) -> Duration {
    let mut times: Vec<_> = sent.iter().map(|sent| sent.took).collect();
    times.sort_unstable();
    times[times.len() * 99 / 100]
}
