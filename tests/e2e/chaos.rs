//! Whatever happens, each interaction can be accounted for: two daemons behind real Nginx, under load, while handlers die,
//! freeze and lie, packets are lost, Discord's API is in trouble, disks are full, clocks jump, and one of the two is killed
//! and stopped again and again.
//!
//! All of it is in a network and with disks of its own; that takes root, or sudo that asks for no password.
//! `SHARDLESS_CHAOS` is its length in seconds, `SHARDLESS_SEED` a number that the order of the faults follows from;
//! `tests/chaos` runs it with what is built to be shipped.

#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "lots and samples are small numbers"
)]
#![allow(clippy::print_stderr, reason = "a long run shows signs of life")]

mod account;
mod answers;
mod daemons;
mod driver;
mod handlers;
mod journal;
mod load;
mod lots;
mod memory;
mod report;
mod trouble;
mod wires;

use std::env;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use futures_util::future::join_all;
use shardless::rehearsal::rest::Api;
use tokio::time::Instant;

use self::account::Account;
use self::daemons::Daemon;
use self::handlers::Replica;
use self::journal::Journal;
use self::memory::Samples;
use self::trouble::Troubles;
use crate::discord::Discord;
use crate::inside;
use crate::process::{self, free_port};

/// How long the load lasts where nobody says it.
const LENGTH: Duration = Duration::from_secs(60);
/// Short, so that many are deferred.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);
const GIVE_UP_AFTER: Duration = Duration::from_secs(4);
/// After the end of all faults, until nobody waits any more: a call that hangs is given up after 10 s, and the waits
/// between tries have doubled meanwhile.
const AFTERMATH: Duration = Duration::from_secs(45);

/// The daemons, by their numbers.
const KILLED: usize = 0;
const STEADY: usize = 1;
/// Where their small disks are mounted.
const DISKS: &str = "/mnt";

/// The surroundings: a network, disks, and processes that all end with the first.
const SURROUNDINGS: &str = "ip link set lo up
mount -t tmpfs tmpfs /mnt
mount -t tmpfs tmpfs /dev/shm
mkdir /mnt/killed /mnt/steady
mount -t tmpfs -o size=16m tmpfs /mnt/killed
mount -t tmpfs -o size=16m tmpfs /mnt/steady
\"$@\" || exit 1
exit 0";

/// All there is.
struct World {
    seed: u64,
    length: Duration,
    end: Instant,
    journal: Arc<Journal>,
    account: Arc<Account>,
    /// Interactions that were written.
    written: AtomicU64,
    discord: [Discord; 2],
    /// Somebody else, whose key nobody knows.
    stranger: Discord,
    api: Api,
    troubles: Arc<Troubles>,
    /// Three of one handler, and one by itself.
    replicas: [Replica; 4],
    daemons: [Daemon; 2],
}

#[test]
fn chaos() {
    let number = |name: &str| env::var(name).ok().map(|number| number.parse::<u64>().unwrap());
    let length = number("SHARDLESS_CHAOS");
    let seed = number("SHARDLESS_SEED").unwrap_or_else(|| getrandom::u64().unwrap());
    if inside::is_inside() {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        return runtime.block_on(play(seed, length.map_or(LENGTH, Duration::from_secs)));
    }
    println!("SHARDLESS_SEED={seed}");
    process::program("ip");
    process::program("nft");
    let mut command = inside::as_root("unshare");
    command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    command.args(["sh", "-ec", SURROUNDINGS, "sh", "env", &format!("SHARDLESS_SEED={seed}")]);
    if let Some(length) = length {
        // Told as it goes.
        command.arg(format!("SHARDLESS_CHAOS={length}")).stderr(Stdio::inherit());
    }
    inside::rerun(command, "chaos::chaos");
}

async fn play(seed: u64, length: Duration) {
    let folder = process::folder();
    let start = Instant::now();
    let account = Arc::new(Account::default());
    let accounts = Arc::clone(&account);
    let now = move || u32::try_from(start.elapsed().as_millis()).unwrap();
    let journal = Arc::new(Journal::new(start, move |arrived| accounts.arrived(arrived, now())));
    let troubles = Arc::new(Troubles::default());
    let api = trouble::start(&troubles, &journal).await;
    let replica = |number| Replica::start(number, free_port(), seed, Arc::clone(&journal) as _);
    let replicas: [Replica; 4] = join_all((0..4).map(replica)).await.try_into().ok().unwrap();
    let ports = replicas.each_ref().map(|replica| replica.port);
    let discord = [Discord::new(), Discord::new()];
    let daemon = async |number: usize, name| {
        let (folder, is_handed_a_socket) = (folder.path().join(name), number == KILLED);
        Daemon::start((number, name), folder, is_handed_a_socket, &discord[number], &api.url(), ports).await
    };
    let daemons = [daemon(KILLED, "killed").await, daemon(STEADY, "steady").await];
    join_all(daemons.iter().map(Daemon::until_durable)).await;
    let world = World {
        seed,
        length,
        end: Instant::now() + length,
        journal,
        account,
        written: AtomicU64::new(0),
        discord,
        stranger: Discord::new(),
        api,
        troubles,
        replicas,
        daemons,
    };
    world.live().await;
}

impl World {
    async fn live(self) {
        let world = Arc::new(self);
        let (_, _, (), samples) = tokio::join!(
            load::run(&world, KILLED),
            load::run(&world, STEADY),
            driver::run(&world),
            world.watch(),
        );
        let is_quiet = world.come_to_rest().await;
        let sum = world.account.sum(&world.journal, &world.api);
        let memory = samples.summary(world.length);
        report::explain(&world, &sum);
        report::print(&world, &sum, memory);
        let mut complaints = report::complaints(&world, &sum, memory);
        if !is_quiet {
            let entries = world.daemons.each_ref().map(Daemon::entries);
            complaints.push(format!("somebody still waits: {entries:?} entries are on disk"));
        }
        // Before it may fail: all that Nginx said of killed daemons would be told then.
        drop(world);
        assert!(complaints.is_empty(), "{complaints:#?}, as told above");
    }

    /// Looks at the steady daemon once a second, and tells once a minute how it goes.
    async fn watch(&self) -> Samples {
        let mut samples = Samples::default();
        let mut second = tokio::time::interval(Duration::from_secs(1));
        let start = self.end - self.length;
        for nth in 0_u64.. {
            second.tick().await;
            let now = Instant::now();
            if now >= self.end {
                break;
            }
            let steady = &self.daemons[STEADY];
            let memory = memory::of(&steady.process_id().to_string());
            samples.add(now - start, memory);
            for path in ["/", "/metrics", "/status.json"] {
                assert!(steady.get(path).await.is_some(), "its admin listener does not answer");
            }
            if nth % 60 == 59 {
                let (sent, own) = (self.account.sent_so_far(), memory::of("self"));
                eprintln!(
                    "{:>5.0?}: {sent} sent; {memory:.1} MiB, and {own:.0} of this test's own",
                    now - start
                );
            }
        }
        samples
    }

    /// Waits until nothing is deferred any more, and all is on disk. False if that takes too long.
    async fn come_to_rest(&self) -> bool {
        let rests = async {
            loop {
                let entries = self.daemons.each_ref().map(Daemon::entries);
                if entries == [Some(0), Some(0)] {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let is_quiet = tokio::time::timeout(AFTERMATH, rests).await.is_ok();
        join_all(self.daemons.iter().map(Daemon::until_durable)).await;
        is_quiet
    }
}
