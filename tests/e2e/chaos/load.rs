//! Discord: so many interactions a second, and what it does besides.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use shardless::clock::{Clock, SystemClock};
use shardless::discord::signature::SIGNATURE_HEADER;
use shardless::rehearsal::payload::CommandOption;
use shardless::rehearsal::stand_in::Signed;
use shardless::rehearsal::{Author, Payload};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use super::World;
use super::account::Sort;
use super::answers::{self, Got};
use super::lots::Lots;

/// Good interactions a second to each daemon.
const RATE: u32 = 30;
/// How long Discord waits for an answer.
const DEADLINE: Duration = Duration::from_secs(3);
/// A request comes again after so long at most: while the daemon still has its answer, or when it has not any more.
const LATEST_COPY: Duration = Duration::from_secs(40);
/// An answer that comes later may have been on its way to become a deferral: Discord is told of it.
const SOON: Duration = Duration::from_millis(150);

const COMMANDS: [&str; 10] =
    ["quick", "quick", "quick", "slow", "slow", "edge", "edge", "never", "solo-quick", "solo-slow"];
const BUTTONS: [&str; 8] = [
    "button-quick",
    "button-quick",
    "button-slow",
    "button-slow-beside",
    "button-edge-beside",
    "button-never",
    "solo-button-quick",
    "solo-button-slow",
];
const MODALS: [&str; 4] = ["modal-quick", "modal-slow", "modal-edge", "solo-modal-quick"];
const TYPED: [&str; 4] = ["quick", "slow", "edge", "solo-quick"];
const FORGERIES: [&str; 3] = ["wrong key", "altered body", "missing header"];

/// One request, to be sent as often as wanted.
struct Letter {
    id: u64,
    token: String,
    payload: Payload,
    signed: Signed,
}

/// Sends to one of the daemons until the end.
pub(super) async fn run(world: &Arc<World>, daemon: usize) {
    let lots = Lots::new(world.seed, ("load", daemon));
    let mut due = tokio::time::interval(Duration::from_secs(1) / RATE);
    due.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut sendings = JoinSet::new();
    let mut nth = 0_u64;
    while Instant::now() < world.end {
        due.tick().await;
        nth += 1;
        let letter = Arc::new(world.good(daemon, &lots));
        // The guard's memory goes with its process: only the one that stays is sent anything again.
        let copies = if daemon == super::STEADY && nth.is_multiple_of(u64::from(RATE)) { 3 } else { 1 };
        for _ in 0..copies {
            sendings.spawn(Arc::clone(world).send(daemon, Arc::clone(&letter), Duration::ZERO));
        }
        match nth % u64::from(RATE) {
            at @ 1..=3 => {
                let forgery = FORGERIES[usize::try_from(at).unwrap() - 1];
                let forged = Arc::new(world.forged(daemon, forgery, &lots));
                sendings.spawn(Arc::clone(world).send(daemon, forged, Duration::ZERO));
            }
            4 => {
                let ping = Arc::new(world.ping(daemon));
                sendings.spawn(Arc::clone(world).send(daemon, ping, Duration::ZERO));
            }
            5 if daemon == super::STEADY => {
                let pause = lots.between(Duration::from_secs(1), LATEST_COPY);
                sendings.spawn(Arc::clone(world).send(daemon, letter, pause));
            }
            _ => {}
        }
        while let Some(ended) = sendings.try_join_next() {
            ended.unwrap();
        }
    }
    // But for copies whose time would be after the end.
    _ = tokio::time::timeout(DEADLINE + DEADLINE / 4, sendings.join_all()).await;
}

impl World {
    /// An author of one interaction, as of now; no two have the same ids.
    fn author(&self) -> Author {
        // A button takes two ids, and 22 bits tell those of one millisecond apart.
        let nth = self.written.fetch_add(2, Ordering::Relaxed) % (1 << 22);
        Author::new(SystemClock.unix_time(), nth)
    }

    fn good(&self, daemon: usize, lots: &Lots) -> Letter {
        let mut author = self.author();
        let option = CommandOption::parse("query:string=as you like").unwrap();
        let (name, payload) = match lots.below(10) {
            0..5 => {
                let name = lots.pick(&COMMANDS);
                (name, author.command(name, &[option]))
            }
            5..8 => {
                let name = lots.pick(&BUTTONS);
                (name, author.button(name))
            }
            8 => {
                let name = lots.pick(&MODALS);
                (name, author.modal(name, &[("opinion".to_owned(), "good".to_owned())]))
            }
            _ => {
                let name = lots.pick(&TYPED);
                (name, author.autocomplete(name, &[], "query", "as y"))
            }
        };
        let signed = self.discord[daemon].sign(&payload);
        self.letter(daemon, Sort::Good, name, payload, signed)
    }

    fn ping(&self, daemon: usize) -> Letter {
        let payload = self.author().ping();
        let signed = self.discord[daemon].sign(&payload);
        self.letter(daemon, Sort::Ping, "PING", payload, signed)
    }

    fn forged(&self, daemon: usize, forgery: &'static str, lots: &Lots) -> Letter {
        let payload = self.author().command(lots.pick(&COMMANDS), &[]);
        let discord = &self.discord[daemon];
        let mut signed = discord.sign(&payload);
        match forgery {
            "wrong key" => signed = self.stranger.sign(&payload),
            "altered body" => {
                let mut altered = payload.clone();
                let at = altered.body.iter().position(|byte| byte.is_ascii_digit()).unwrap();
                altered.body[at] ^= 1;
                let headers = signed.headers().clone();
                signed = discord.sign(&altered);
                *signed.headers_mut() = headers;
            }
            _ => _ = signed.headers_mut().remove(SIGNATURE_HEADER),
        }
        self.letter(daemon, Sort::Forged, forgery, payload, signed)
    }

    fn letter(
        &self,
        daemon: usize,
        sort: Sort,
        name: &'static str,
        payload: Payload,
        signed: Signed,
    ) -> Letter {
        let body: serde_json::Value = serde_json::from_slice(&payload.body).unwrap();
        let id = body["id"].as_str().unwrap().parse().unwrap();
        let token = body["token"].as_str().unwrap().to_owned();
        self.account.opens(id, daemon, sort, name);
        Letter { id, token, payload, signed }
    }

    /// Sends it, and takes its answer as Discord does.
    async fn send(self: Arc<Self>, daemon: usize, letter: Arc<Letter>, pause: Duration) {
        tokio::time::sleep(pause).await;
        if !pause.is_zero() && Instant::now() >= self.end {
            return;
        }
        let Letter { id, token, payload, signed } = &*letter;
        self.account.sent(*id, self.journal.now());
        let url = self.daemons[daemon].endpoint();
        let (got, digest) =
            match tokio::time::timeout(DEADLINE, self.discord[daemon].try_send(&url, signed)).await {
                Ok(Ok(exchange)) => {
                    let (got, digest) = answers::read(*id, payload, &exchange);
                    let is_late = exchange.elapsed >= SOON && matches!(got, Got::Answer);
                    if (is_late || got == Got::Deferral) && self.api.answered(&payload.body, &exchange.body) {
                        self.account.is_known(*id, token);
                    }
                    (got, digest)
                }
                Ok(Err(_)) => (Got::Broken, 0),
                Err(_) => (Got::Nothing, 0),
            };
        self.account.got(*id, self.journal.now(), got, digest);
    }
}
