//! The connections between a proxy and the daemon: they are kept, they break, and the daemon restarts.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use futures_util::future::join_all;
use rstest::rstest;

use crate::daemon::{Daemon, Settings, Way};
use crate::discord::Discord;
use crate::handler::Handler;
use crate::process::until;
use crate::proxies::Proxy;
use crate::relay::{Kept, Relay};

/// More connections than Nginx keeps.
const AT_ONCE: usize = 20;
const RESTARTS: usize = 5;

/// Sends some interactions at once: which of them get no right answer?
async fn failures(discord: &Discord, url: &str) -> Vec<String> {
    let interactions: Vec<_> = (0..AT_ONCE).map(|n| discord.command(&format!("№{n}"))).collect();
    let answers = join_all(interactions.iter().map(|interaction| discord.try_ask(url, interaction))).await;
    answers.into_iter().filter_map(Result::err).collect()
}

#[rstest]
#[tokio::test]
async fn after_a_restart_the_very_next_requests_are_answered(
    #[values(Proxy::Nginx, Proxy::Apache)] proxy: Proxy,
    #[values(Way::Plain, Way::SelfSigned, Way::Unix)] way: Way,
    #[values("TERM", "KILL")] signal: &str,
) {
    let (discord, handler) = (Discord::new(), Handler::start().await);
    let mut daemon = Daemon::start(&discord, handler.port(), Settings::from(way)).await;
    let front = proxy.in_front_of(daemon.upstream()).await;
    assert_eq!(failures(&discord, &front.endpoint()).await, [""; 0]);
    for _ in 0..RESTARTS {
        daemon.stop(signal).await;
        // Not only do the connections break: the proxy also learns that nobody is there.
        assert_eq!(failures(&discord, &front.endpoint()).await.len(), AT_ONCE);
        daemon.restart().await;
        assert_eq!(failures(&discord, &front.endpoint()).await, [""; 0]);
    }
    assert_eq!(handler.seen().len(), AT_ONCE * (1 + RESTARTS));
}

#[rstest]
#[tokio::test]
async fn under_load_requests_fail_only_while_the_daemon_is_down(
    #[values(Proxy::Nginx, Proxy::Apache)] proxy: Proxy,
    #[values(Way::Plain, Way::SelfSigned, Way::Unix)] way: Way,
) {
    let (discord, handler) = (Discord::new(), Handler::start().await);
    let mut daemon = Daemon::start(&discord, handler.port(), Settings::from(way)).await;
    let front = proxy.in_front_of(daemon.upstream()).await;
    let load = Load::default();
    let all = join_all((0..8).map(|_| load.run(&discord, front.endpoint())));
    let restarts = async {
        let mut down = Vec::new();
        for _ in 0..RESTARTS {
            load.goes_on().await;
            let stopped = Instant::now();
            daemon.stop("TERM").await;
            daemon.restart().await;
            down.push((stopped, Instant::now()));
        }
        load.goes_on().await;
        load.is_over.store(true, Ordering::Relaxed);
        down
    };
    let (failures, down) = tokio::join!(all, restarts);
    let is_due =
        |failure: &&Failure| !down.iter().any(|(from, to)| failure.ended >= *from && failure.sent <= *to);
    let failures = failures.concat();
    let undue: Vec<_> = failures.iter().filter(is_due).collect();
    let answered = load.answered.load(Ordering::Relaxed);
    println!(
        "{proxy}, {way:?}: {answered} answered, {} failed while the daemon was down",
        failures.len() - undue.len()
    );
    assert!(undue.is_empty(), "{undue:?}");
}

/// Interactions without a pause.
#[derive(Default)]
struct Load {
    answered: AtomicUsize,
    is_over: AtomicBool,
}

#[derive(Clone, Debug)]
struct Failure {
    sent: Instant,
    ended: Instant,
    #[expect(dead_code, reason = "shown where a test fails")]
    why: String,
}

impl Load {
    /// One client.
    async fn run(&self, discord: &Discord, url: String) -> Vec<Failure> {
        let mut failures = Vec::new();
        while !self.is_over.load(Ordering::Relaxed) {
            let interaction = discord.command("still there?");
            let sent = Instant::now();
            match discord.try_ask(&url, &interaction).await {
                Ok(()) => _ = self.answered.fetch_add(1, Ordering::Relaxed),
                Err(why) => failures.push(Failure { sent, ended: Instant::now(), why }),
            }
        }
        failures
    }

    /// Waits for some more answers.
    async fn goes_on(&self) {
        let before = self.answered.load(Ordering::Relaxed);
        until("more is answered", async || self.answered.load(Ordering::Relaxed) > before + 200).await;
    }
}

#[rstest]
#[tokio::test]
async fn a_kept_connection_that_breaks_costs_no_request(
    #[values(Proxy::Nginx, Proxy::Apache)] proxy: Proxy,
    #[values(Way::Plain, Way::SelfSigned, Way::Unix)] way: Way,
    #[values(Kept::ClosedBeforeTheDaemon, Kept::ClosedBeforeTheAnswer)] kept: Kept,
) {
    let (discord, handler) = (Discord::new(), Handler::start().await);
    let daemon = Daemon::start(&discord, handler.port(), Settings::from(way)).await;
    let relay = Relay::start(daemon.upstream()).await;
    let front = proxy.in_front_of(relay.upstream()).await;
    assert_eq!(failures(&discord, &front.endpoint()).await, [""; 0]);
    relay.kept_connections(kept);
    assert_eq!(failures(&discord, &front.endpoint()).await, [""; 0]);
    println!(
        "{proxy}, {way:?}: {} connections opened, {} broke at a request",
        relay.opened(),
        relay.broken()
    );
    // Sent twice by the proxy, where it did, but handed over once.
    assert_eq!(handler.seen().len(), 2 * AT_ONCE);
    // Only a proxy that keeps connections meets one that breaks.
    assert_eq!(relay.broken() > 0, proxy == Proxy::Nginx);
}
