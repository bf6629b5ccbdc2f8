//! Interactions at a steady rate, as Discord sends them: the next one is due at its time, whether or not the others are
//! answered. A few are for a command that the handler thinks about for long, so that whatever is done to the daemon meets
//! calls in flight.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::{HeaderValue, StatusCode, header};
use serde_json::json;
use shardless::rehearsal::rest::Api;
use shardless::rehearsal::{Exchange, Verdict};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};

use crate::discord::{Discord, Interaction};
use crate::handler::Handler;
use crate::inside::is_full_speed;
use crate::process::until;

/// What counts as answered in time: Discord's three seconds, less the way to it.
const DEADLINE: Duration = Duration::from_millis(2900);
/// A generator that is so far behind says that the machine has too much else to do for its times to mean anything.
const LAG: Duration = Duration::from_millis(250);
/// For what follows a deferral.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long the handler thinks about [`SLOW`].
const THINKING: Duration = Duration::from_millis(1500);
const SLOW: &str = "slow";
const QUICK: &str = "quick";
/// One in so many is slow.
const SLOW_ONE_IN: u64 = 33;
/// Another one gives the slow calls other places.
const SEED: u64 = 0x5EED;

/// What the daemon is to say where a handler fails: `error_message`.
pub(crate) const ERROR_MESSAGE: &str = "That took too long.";

/// How the interactions come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Interactions per second.
    pub(crate) rate: u32,
    /// Whether a client's connection is used again.
    pub(crate) keep_alive: bool,
}

/// A load that is on.
pub(crate) struct Load {
    client: Arc<Client>,
    extra: mpsc::Sender<Extra>,
    running: JoinHandle<Vec<Sent>>,
}

/// A slow interaction besides those that are due, and where its id is wanted.
type Extra = oneshot::Sender<String>;

/// What is known of every interaction's way.
struct Client {
    name: String,
    discord: Arc<Discord>,
    /// Where late answers go.
    api: Arc<Api>,
    url: String,
    pace: Pace,
    answered: AtomicUsize,
    is_over: AtomicBool,
}

/// An interaction that was sent.
#[derive(Debug)]
pub(crate) struct Sent {
    command: &'static str,
    /// From the moment it was due until the answer was there.
    took: Duration,
    /// How late the generator itself was.
    lag: Duration,
    end: End,
}

#[derive(Debug, PartialEq, Eq)]
enum End {
    Answered,
    /// Its answer followed.
    Deferred,
    Late,
    Failed(String),
}

/// What came of a load.
pub(crate) struct Report {
    name: String,
    sent: Vec<Sent>,
}

/// A handler that thinks about slow commands as a load wants it.
pub(crate) async fn handler() -> Handler {
    Handler::listen(|command| if command == SLOW { THINKING } else { Duration::ZERO }).await
}

impl Load {
    /// Starts to send to `url`.
    pub(crate) fn start(name: &str, discord: &Arc<Discord>, api: &Arc<Api>, url: &str, pace: Pace) -> Self {
        let client = Client {
            name: format!("{name}, {} per second, keep-alive {}", pace.rate, pace.keep_alive),
            discord: Arc::clone(discord),
            api: Arc::clone(api),
            url: url.to_owned(),
            pace,
            answered: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
        };
        let client = Arc::new(client);
        let (extra, extras) = mpsc::channel(1);
        let running = tokio::spawn(Arc::clone(&client).send_all(extras));
        Self { client, extra, running }
    }

    /// Waits until half a second's worth of further interactions is answered.
    pub(crate) async fn goes_on(&self) {
        let answered = || self.client.answered.load(Ordering::Relaxed);
        let enough = answered() + usize::try_from(self.client.pace.rate / 2).unwrap().max(1);
        until(&format!("{}: more is answered", self.client.name), async || answered() >= enough).await;
    }

    /// Sends a slow interaction, and waits until the handler thinks about it.
    pub(crate) async fn has_a_call_in_flight(&self, handler: &Handler) {
        let (extra, id) = oneshot::channel();
        self.extra.send(extra).await.unwrap();
        let id = id.await.unwrap();
        until("the handler thinks about a slow command", async || handler.has_seen(&id)).await;
    }

    /// Sends no more, and waits for the answers.
    pub(crate) async fn finish(self) -> Report {
        self.client.is_over.store(true, Ordering::Relaxed);
        Report { name: self.client.name.clone(), sent: self.running.await.unwrap() }
    }
}

impl Client {
    async fn send_all(self: Arc<Self>, mut extras: mpsc::Receiver<Extra>) -> Vec<Sent> {
        let mut sendings = JoinSet::new();
        let mut due = tokio::time::interval(Duration::from_secs(1) / self.pace.rate);
        // Late ones are sent all the same, and count from when they were due.
        due.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut n = 0;
        while !self.is_over.load(Ordering::Relaxed) {
            let (command, due) = tokio::select! {
                due = due.tick() => {
                    n += 1;
                    (if is_slow(n) { SLOW } else { QUICK }, due)
                }
                extra = extras.recv() => {
                    let interaction = self.discord.named_command(SLOW, "one more");
                    if let Some(extra) = extra {
                        _ = extra.send(interaction.id());
                    }
                    sendings.spawn(Arc::clone(&self).send(SLOW, interaction, Instant::now()));
                    continue;
                }
            };
            let interaction = self.discord.named_command(command, &format!("{command} №{n}"));
            sendings.spawn(Arc::clone(&self).send(command, interaction, due));
        }
        sendings.join_all().await
    }

    async fn send(self: Arc<Self>, command: &'static str, interaction: Interaction, due: Instant) -> Sent {
        let mut signed = self.discord.sign(&interaction.payload);
        if !self.pace.keep_alive {
            signed.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        let lag = due.elapsed();
        let exchange = self.discord.try_send(&self.url, &signed).await;
        let took = due.elapsed();
        let end = match exchange {
            Err(error) => End::Failed(format!("no answer: {error}")),
            Ok(exchange) if exchange.status != StatusCode::OK => End::Failed(format!("{}", exchange.status)),
            Ok(_) if took > DEADLINE => End::Late,
            Ok(exchange) if Verdict::is_deferral(&exchange) => self.follow(&interaction, &exchange).await,
            Ok(exchange) => match interaction.check(&exchange) {
                Ok(()) => End::Answered,
                Err(why) => End::Failed(why),
            },
        };
        self.answered.fetch_add(usize::from(end == End::Answered), Ordering::Relaxed);
        Sent { command, took, lag, end }
    }
}

impl Client {
    /// Waits for what follows a deferral: it is to be the handler's answer.
    async fn follow(&self, interaction: &Interaction, exchange: &Exchange) -> End {
        let following = self.api.follow(&interaction.payload.body, &exchange.body);
        let Ok(Some(view)) = tokio::time::timeout(PATIENCE, following).await else {
            return End::Failed("nothing followed the deferral".to_owned());
        };
        let content = view.last().map(|message| message.content.as_str()).unwrap_or_default();
        let answer = json!({ "type": 4, "data": { "content": content } });
        let late = Exchange { body: answer.to_string().into(), ..exchange.clone() };
        match interaction.check(&late) {
            Ok(()) => End::Deferred,
            Err(why) => End::Failed(format!("after its deferral, {why}")),
        }
    }
}

/// Spread at random, the same ones each time.
fn is_slow(n: u64) -> bool {
    // One step of SplitMix64.
    let mixed = SEED.wrapping_add(n.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (mixed ^ (mixed >> 31)).is_multiple_of(SLOW_ONE_IN)
}

impl Report {
    /// Says the figures, and fails for an interaction that failed.
    pub(crate) fn require_all_answered(&self) {
        println!("{self}");
        let says_what_is_late = is_full_speed() || self.lag() < LAG;
        let is_wrong = |sent: &&Sent| match sent.end {
            End::Answered => false,
            // A slow one that waited for a restart has not enough time left for its handler; a quick one has.
            End::Deferred => sent.command != SLOW && is_full_speed(),
            End::Late => says_what_is_late,
            End::Failed(_) => true,
        };
        let wrong: Vec<_> = self.sent.iter().filter(is_wrong).take(20).collect();
        assert!(wrong.is_empty(), "{}: {wrong:#?}", self.name);
        for command in [QUICK, SLOW] {
            assert!(self.of(command).any(|sent| sent.end == End::Answered), "no {command} one was answered");
        }
    }

    fn lag(&self) -> Duration {
        self.sent.iter().map(|sent| sent.lag).max().unwrap_or_default()
    }

    fn of(&self, command: &str) -> impl Iterator<Item = &Sent> {
        self.sent.iter().filter(move |sent| sent.command == command)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} sent (at most {:.1?} behind)", self.name, self.sent.len(), self.lag())?;
        for command in [QUICK, SLOW] {
            let count = |end: &End| self.of(command).filter(|sent| sent.end == *end).count();
            let slowest =
                self.of(command).filter(|sent| sent.end == End::Answered).map(|sent| sent.took).max();
            let (answered, deferred) = (count(&End::Answered), count(&End::Deferred));
            let slowest = slowest.unwrap_or_default();
            write!(f, "; {command}: {answered} answered, the slowest in {slowest:.2?}, {deferred} deferred")?;
        }
        let mut failures = BTreeMap::new();
        for sent in &self.sent {
            if let End::Failed(why) = &sent.end {
                *failures.entry(format!("{}, {why}", sent.command)).or_insert(0) += 1;
            }
        }
        write!(f, "; {} failed", failures.values().sum::<usize>())?;
        failures.iter().try_for_each(|(why, count)| write!(f, "\n  {count} failed: {why}"))
    }
}
