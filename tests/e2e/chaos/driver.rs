//! What is done to them: in four rows at once, each one fault after another in an order drawn by lot.

use std::time::Duration;

use tokio::time::Instant;

use super::daemons::Version;
use super::handlers::Mood;
use super::journal::{Excuse, Ongoing};
use super::lots::Lots;
use super::trouble::Trouble;
use super::{KILLED, STEADY, World, wires};

/// What can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    OneDies,
    AllDie,
    SoloDies,
    OneFreezes,
    AllFreeze,
    OneLies,
    AllLie,
    LossToHandlers,
    LossToDiscord,
    ResetToHandlers,
    ResetToDiscord,
    Discord(Trouble),
    Kill,
    Term,
    Reload(Version),
    ClockInside,
    ClockOutside,
    FullDisk,
}

const OF_HANDLERS: [Fault; 7] = [
    Fault::OneDies,
    Fault::AllDie,
    Fault::SoloDies,
    Fault::OneFreezes,
    Fault::AllFreeze,
    Fault::OneLies,
    Fault::AllLie,
];
const OF_WIRES: [Fault; 10] = [
    Fault::LossToHandlers,
    Fault::LossToDiscord,
    Fault::ResetToHandlers,
    Fault::ResetToDiscord,
    Fault::Discord(Trouble::Limited),
    Fault::Discord(Trouble::Failing),
    Fault::Discord(Trouble::ResetBefore),
    Fault::Discord(Trouble::ResetAfter),
    Fault::Discord(Trouble::Hanging),
    Fault::Discord(Trouble::Behind),
];
const OF_KILLED: [Fault; 8] = [
    Fault::Kill,
    Fault::Kill,
    Fault::Term,
    Fault::Term,
    Fault::Reload(Version::First),
    Fault::Reload(Version::Other),
    Fault::Reload(Version::Broken),
    Fault::ClockInside,
];
const OF_STEADY: [Fault; 7] = [
    Fault::ClockInside,
    Fault::ClockOutside,
    Fault::FullDisk,
    Fault::FullDisk,
    Fault::Reload(Version::First),
    Fault::Reload(Version::Other),
    Fault::Reload(Version::Broken),
];

/// Between two faults of a row, at least. After those of handlers it is longer: what fails meanwhile has no excuse.
const PAUSE: Duration = Duration::from_millis(600);
/// Packets of a hundred that are lost.
const LOSS: u32 = 4;
/// Seconds that a clock is off: inside the window of five minutes, and outside.
const INSIDE: [i64; 4] = [-240, -90, 90, 240];
const OUTSIDE: [i64; 4] = [-540, -400, 400, 540];

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Self::OneDies => "a handler's replica dies",
            Self::AllDie => "all of a handler's replicas die",
            Self::SoloDies => "a handler without replicas dies",
            Self::OneFreezes => "a handler's replica freezes",
            Self::AllFreeze => "all handlers freeze",
            Self::OneLies => "a handler's replica lies",
            Self::AllLie => "all handlers lie",
            Self::LossToHandlers => "packets to handlers are lost",
            Self::LossToDiscord => "packets to Discord are lost",
            Self::ResetToHandlers => "connections to handlers are reset",
            Self::ResetToDiscord => "connections to Discord are reset",
            Self::Discord(Trouble::Limited) => "Discord: 429",
            Self::Discord(Trouble::Failing) => "Discord: 5xx",
            Self::Discord(Trouble::ResetBefore) => "Discord: reset before",
            Self::Discord(Trouble::ResetAfter) => "Discord: reset after",
            Self::Discord(Trouble::Hanging) => "Discord: hangs",
            Self::Discord(Trouble::Behind) => "Discord: 10015",
            Self::Kill => "kill -9 and start",
            Self::Term => "SIGTERM and start",
            Self::Reload(Version::First) => "SIGHUP with the same config",
            Self::Reload(Version::Other) => "SIGHUP with another config",
            Self::Reload(Version::Broken) => "SIGHUP with a broken config",
            Self::ClockInside => "the clock is off, inside the window",
            Self::ClockOutside => "the clock is off, outside the window",
            Self::FullDisk => "the disk is full",
        }
    }

    fn excuse(self, daemon: usize) -> Excuse {
        match self {
            Self::OneDies
            | Self::AllDie
            | Self::SoloDies
            | Self::OneLies
            | Self::AllLie
            | Self::LossToHandlers
            | Self::ResetToHandlers => Excuse::Handlers,
            Self::Kill => Excuse::Killing(daemon),
            Self::ClockOutside => Excuse::Clock(daemon),
            _ => Excuse::None,
        }
    }
}

/// The names of all that can be done.
pub(super) fn kinds() -> impl Iterator<Item = &'static str> {
    [&OF_HANDLERS[..], &OF_WIRES, &OF_KILLED, &OF_STEADY].concat().into_iter().map(Fault::name)
}

/// Does it all, again and again until the end; then all is well.
pub(super) async fn run(world: &World) {
    tokio::join!(
        row(world, "handlers", &OF_HANDLERS, KILLED, 4 * PAUSE),
        row(world, "wires", &OF_WIRES, KILLED, 2 * PAUSE),
        row(world, "killed", &OF_KILLED, KILLED, 2 * PAUSE),
        row(world, "steady", &OF_STEADY, STEADY, 2 * PAUSE),
    );
}

async fn row(world: &World, name: &str, faults: &[Fault], daemon: usize, longest_pause: Duration) {
    let lots = Lots::new(world.seed, name);
    loop {
        for fault in lots.shuffled(faults) {
            tokio::time::sleep(lots.between(PAUSE, longest_pause)).await;
            if Instant::now() >= world.end {
                return;
            }
            if fault == Fault::Kill {
                // Only where a crash loses nothing: what is not on disk yet would be lost, as is documented.
                world.daemons[daemon].until_durable().await;
            }
            let ongoing = world.journal.begins(fault.name(), fault.excuse(daemon));
            world.commit(fault, &lots, daemon, ongoing).await;
        }
    }
}

impl World {
    async fn commit(&self, fault: Fault, lots: &Lots, daemon: usize, ongoing: Ongoing) {
        let time = lots.between(Duration::from_millis(1500), Duration::from_millis(3500));
        let over = Instant::now() + time;
        match fault {
            Fault::Kill => self.kill(daemon, lots).await,
            Fault::Term => {
                self.daemons[daemon].stop("TERM").await;
                self.daemons[daemon].restart().await;
            }
            Fault::Reload(version) => {
                self.daemons[daemon].reload(version).await;
                if version != Version::First {
                    tokio::time::sleep_until(over).await;
                    self.daemons[daemon].reload(Version::First).await;
                }
            }
            Fault::FullDisk => {
                self.daemons[daemon].fill_disk();
                tokio::time::sleep_until(over).await;
                self.daemons[daemon].empty_disk();
                self.daemons[daemon].until_durable().await;
            }
            _ => {
                let one = usize::try_from(lots.below(3)).unwrap();
                self.trouble(fault, one, daemon, lots);
                tokio::time::sleep_until(over).await;
                self.mend(fault, one, daemon).await;
            }
        }
        self.journal.ends(ongoing);
    }

    async fn kill(&self, daemon: usize, lots: &Lots) {
        let killed = &self.daemons[daemon];
        self.journal.killed((daemon, killed.run()));
        killed.stop("KILL").await;
        // As long as systemd takes, or somewhat longer.
        tokio::time::sleep(lots.between(Duration::from_millis(50), Duration::from_millis(400))).await;
        killed.restart().await;
    }

    /// Replicas that a fault hits: `one`, or the three together, or the one by itself.
    fn hit(fault: Fault, one: usize) -> std::ops::Range<usize> {
        match fault {
            Fault::AllDie => 0..3,
            Fault::SoloDies => 3..4,
            Fault::AllFreeze | Fault::AllLie => 0..4,
            _ => one..one + 1,
        }
    }

    fn trouble(&self, fault: Fault, one: usize, daemon: usize, lots: &Lots) {
        let handlers = self.replicas.each_ref().map(|replica| replica.port);
        let discord = [self.api.address().port()];
        let hit = &self.replicas[Self::hit(fault, one)];
        match fault {
            Fault::OneDies | Fault::AllDie | Fault::SoloDies => hit.iter().for_each(|one| one.die()),
            Fault::OneFreezes | Fault::AllFreeze => hit.iter().for_each(|one| one.turns(Mood::Frozen)),
            Fault::OneLies | Fault::AllLie => hit.iter().for_each(|one| one.turns(Mood::Lying)),
            Fault::LossToHandlers => wires::lose(&handlers, LOSS),
            Fault::LossToDiscord => wires::lose(&discord, LOSS),
            Fault::ResetToHandlers => wires::reset(&handlers),
            Fault::ResetToDiscord => wires::reset(&discord),
            Fault::Discord(trouble) => self.troubles.set(Some(trouble)),
            Fault::ClockInside => self.daemons[daemon].set_clock(lots.pick(&INSIDE)),
            Fault::ClockOutside => self.daemons[daemon].set_clock(lots.pick(&OUTSIDE)),
            _ => panic!("{fault:?} has a way of its own"),
        }
    }

    async fn mend(&self, fault: Fault, one: usize, daemon: usize) {
        for replica in &self.replicas[Self::hit(fault, one)] {
            match fault {
                Fault::OneDies | Fault::AllDie | Fault::SoloDies => replica.rise().await,
                Fault::OneFreezes | Fault::AllFreeze | Fault::OneLies | Fault::AllLie => {
                    replica.turns(Mood::Well);
                }
                _ => {}
            }
        }
        match fault {
            Fault::LossToHandlers | Fault::LossToDiscord | Fault::ResetToHandlers | Fault::ResetToDiscord => {
                wires::mend()
            }
            Fault::Discord(_) => self.troubles.set(None),
            Fault::ClockInside | Fault::ClockOutside => self.daemons[daemon].set_clock(0),
            _ => {}
        }
    }
}
