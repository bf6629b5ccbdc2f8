//! Handlers with several replicas: who gets a call, and what becomes of those that fail.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::StatusCode;
use shardless::clock::{Clock, SystemClock};
use shardless::rehearsal::{Author, StandIn};

use crate::support::certificates::Signed;
use crate::support::{Binary, Handler, Received, TestDaemon, json, until};

/// A daemon before these replicas, with further lines for their handler.
async fn before(replicas: &[&Handler], handler: &str, app: &str) -> TestDaemon {
    let urls: Vec<_> = replicas.iter().map(|replica| format!("\"{}\"", replica.url())).collect();
    let settings = format!("[handlers.bot]\nurls = [{}]\n{handler}", urls.join(", "));
    TestDaemon::before(&settings, app, "bot").await
}

async fn roll(daemon: &TestDaemon) -> StatusCode {
    daemon.send(&daemon.command()).await.status
}

async fn quick() -> Handler {
    Handler::fine().await
}

#[tokio::test]
async fn calls_are_spread() {
    let replicas = [quick().await, quick().await, quick().await, quick().await];
    let daemon = before(&replicas.each_ref(), "", "").await;
    for _ in 0..400 {
        assert_eq!(roll(&daemon).await, 200);
    }
    let calls = replicas.each_ref().map(Handler::calls);
    assert!(calls.iter().all(|calls| (60..140).contains(calls)), "{calls:?}");
}

/// One that is busy gets no more than it can do.
#[tokio::test]
async fn the_one_with_fewer_calls_in_flight_gets_the_next() {
    let (busy, gate) = Handler::gated().await;
    let idle = quick().await;
    let daemon = before(&[&busy, &idle], "", "").await;
    let all = join_all((0..50).map(|_| roll(&daemon)));
    let (all, ()) = tokio::join!(all, async {
        // The idle one has done all that it got, and the busy one holds what it got: not more than half.
        until("all but those that wait are answered", || async { idle.calls() + busy.calls() == 50 }).await;
        gate.add_permits(50);
    });
    assert!(all.iter().all(|status| *status == 200));
    let before = busy.calls();
    assert!(before <= 26, "{before} of 50");
}

#[tokio::test]
async fn a_replica_that_nobody_listens_for_costs_nothing_and_comes_back() {
    let mut dead = quick().await;
    let well = quick().await;
    let daemon = before(&[&dead, &well], "", "").await;
    dead.kill().await;
    for _ in 0..50 {
        assert_eq!(roll(&daemon).await, 200);
    }
    assert_eq!(well.calls(), 50);
    let port = dead.port();
    let back = Handler::on(port, |_| async { json(r#"{"type":4}"#) }).await;
    let start = Instant::now();
    while back.calls() == 0 {
        assert_eq!(roll(&daemon).await, 200);
        assert!(start.elapsed() < Duration::from_secs(5), "it is not tried again");
    }
    let before = back.calls();
    for _ in 0..50 {
        assert_eq!(roll(&daemon).await, 200);
    }
    assert!(back.calls() > before + 5, "it is one of them again");
}

/// A replica that hangs takes connections and never answers.
#[tokio::test]
async fn a_replica_that_hangs_is_left_out() {
    let hanging = Handler::raw("", false).await;
    let well = quick().await;
    let daemon = before(&[&hanging, &well], "", "answer_within = \"300ms\"\non_slow = \"fail\"").await;
    let first = join_all((0..20).map(|_| roll(&daemon))).await;
    assert!(first.contains(&StatusCode::GATEWAY_TIMEOUT), "{first:?}");
    let start = Instant::now();
    let mut late = 0;
    while start.elapsed() < Duration::from_millis(900) {
        late += usize::from(roll(&daemon).await != 200);
    }
    assert_eq!(late, 0);
}

/// Where all fail, each call is still tried: the next one may be the first that works.
#[tokio::test]
async fn never_all_are_left_out() {
    let (mut one, mut other) = (quick().await, quick().await);
    let daemon = before(&[&one, &other], "", "").await;
    one.kill().await;
    other.kill().await;
    for _ in 0..20 {
        assert_eq!(roll(&daemon).await, 502);
    }
    let back = Handler::on(other.port(), |_| async { json(r#"{"type":4}"#) }).await;
    assert_eq!(roll(&daemon).await, 200);
    assert_eq!(back.calls(), 1);
}

/// What may have been read is never sent to another.
#[tokio::test]
async fn a_call_that_broke_is_not_tried_elsewhere() {
    let breaking = Handler::raw("", true).await;
    let other = Handler::raw("", true).await;
    let daemon = before(&[&breaking, &other], "", "").await;
    for n in 1..=10 {
        assert_eq!(roll(&daemon).await, 502);
        assert_eq!(breaking.calls() + other.calls(), n);
    }
}

#[tokio::test]
async fn a_handler_sheds_what_is_too_much_for_it() {
    let (handler, gate) = Handler::gated().await;
    let daemon = before(&[&handler], "max_in_flight = 1", "").await;
    let (first, second) = tokio::join!(roll(&daemon), async {
        until("one is busy", || async { handler.calls() == 1 }).await;
        let start = Instant::now();
        let second = roll(&daemon).await;
        assert!(start.elapsed() < Duration::from_millis(500), "at once");
        gate.add_permits(2);
        second
    });
    assert_eq!((first.as_u16(), second.as_u16()), (200, 503));
    assert_eq!(roll(&daemon).await, 200);
    assert_eq!(handler.calls(), 2);
}

#[tokio::test]
async fn an_answer_has_the_size_that_the_handler_may_give() {
    let large =
        Handler::start(|_| async { json(&format!(r#"{{"type":4,"x":"{}"}}"#, "x".repeat(2000))) }).await;
    let daemon = before(&[&large], "max_response = \"1KiB\"", "").await;
    assert_eq!(roll(&daemon).await, 502);
    let daemon = before(&[&large], "max_response = \"4KiB\"", "").await;
    assert_eq!(roll(&daemon).await, 200);
}

/// One that takes connections and never gets through the handshake, for a second each time, and one that is well but
/// not quick, so that both get calls where many come at once.
async fn before_one_that_hangs(app: &str) -> (TestDaemon, [Handler; 2]) {
    let certificates = Signed::for_days(30);
    let hanging = Handler::raw("", false).await;
    let well = Handler::start(|_| async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        json(r#"{"type":4}"#)
    })
    .await;
    let settings = format!(
        "[handlers.bot]\nca = {:?}\nurls = [\"https://127.0.0.1:{}/\", \"{}\"]",
        certificates.path("root.pem"),
        hanging.port(),
        well.url(),
    );
    (TestDaemon::before(&settings, app, "bot").await, [hanging, well])
}

/// What the calls were told, in milliseconds.
fn time_left(handler: &Handler) -> Vec<u64> {
    let left = |got: &Received| got.headers["x-shardless-deadline"].to_str().unwrap().parse().unwrap();
    handler.received().iter().map(left).collect()
}

/// Whoever waited for the answer has another one by then.
#[tokio::test]
async fn no_replica_is_tried_once_the_call_is_given_up() {
    let app = "answer_within = \"700ms\"\non_slow = \"fail\"";
    let (daemon, [_hanging, well]) = before_one_that_hangs(app).await;
    let all = join_all((0..20).map(|_| roll(&daemon))).await;
    let in_time = all.iter().filter(|status| **status == 200).count();
    assert!((1..20).contains(&in_time), "{in_time} of 20 in time");
    let ended = || async { daemon.metric("shardless_handler_seconds_count{app=\"mybot\"}") == 20.0 };
    until("all have come to an end", ended).await;
    assert_eq!(well.calls(), in_time);
}

/// A deferred call's answer still counts.
#[tokio::test]
async fn a_deferred_call_goes_on_to_another_replica_and_tells_it_that_no_time_is_left() {
    let (daemon, [_hanging, well]) = before_one_that_hangs("answer_within = \"700ms\"").await;
    assert!(join_all((0..20).map(|_| roll(&daemon))).await.iter().all(|status| *status == 200));
    until("all have reached the one that is well", || async { well.calls() == 20 }).await;
    let left = time_left(&well);
    assert!(left.contains(&0) && left.iter().all(|left| *left == 0 || *left > 300), "{left:?}");
}

#[tokio::test]
async fn another_replica_is_told_what_time_is_left_for_it() {
    let (daemon, [_hanging, well]) = before_one_that_hangs("answer_within = \"2s\"").await;
    assert!(join_all((0..20).map(|_| roll(&daemon))).await.iter().all(|status| *status == 200));
    let left = time_left(&well);
    let is_right = |left: &u64| (500..=1000).contains(left) || (1600..=2000).contains(left);
    assert!(left.len() == 20 && left.iter().all(is_right), "{left:?}");
    assert!(left.iter().any(|left| *left <= 1000), "{left:?}");
}

/// Nothing but failures, and at once: it would always be the one with fewer calls in flight.
#[tokio::test]
async fn a_replica_that_only_fails_is_left_out() {
    let failing = Handler::start(|_| async {
        http::Response::builder().status(500).body(http_body_util::Full::default()).unwrap()
    })
    .await;
    let well = quick().await;
    let daemon = before(&[&failing, &well], "", "").await;
    let start = Instant::now();
    let mut failed = 0;
    while start.elapsed() < Duration::from_millis(700) {
        failed += usize::from(roll(&daemon).await != 200);
    }
    assert_eq!((failed, failing.calls()), (3, 3));
}

/// Slow is normal where answers may come late; and an answer that is late has come all the same.
#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_are_slow_are_not_left_out() {
    let slow = || {
        Handler::start(|_| async {
            tokio::time::sleep(Duration::from_millis(250)).await;
            json(r#"{"type":4,"data":{"content":"late"}}"#)
        })
    };
    let (one, other) = (slow().await, slow().await);
    let settings = format!("[handlers.bot]\nurls = [\"{}\", \"{}\"]", one.url(), other.url());
    let daemon = Binary::serve(&settings, "answer_within = \"100ms\"", "bot").await;
    let discord = StandIn::new(daemon.signer.clone(), Arc::new(SystemClock)).unwrap();
    for salt in 0..24 {
        let signed = discord.sign(&Author::new(SystemClock.unix_time(), salt << 12).command("roll", &[]));
        assert_eq!(discord.send(&daemon.url(), &signed).await.unwrap().status, 200);
    }
    assert_eq!(one.calls() + other.calls(), 24);
    assert!(!daemon.log().contains("left out"), "{}", daemon.log());
}

/// What one may do at once is not what the other may, though they are one program.
#[tokio::test]
async fn two_names_are_two_handlers() {
    let (busy, gate) = Handler::gated().await;
    let named = |name: &str| format!("[handlers.{name}]\nurls = [\"{}\"]\nmax_in_flight = 1\n", busy.url());
    let route = "[[apps.mybot.routes]]\ncommand = \"play\"\nhandler = \"other\"";
    let daemon = TestDaemon::before(&(named("bot") + &named("other")), route, "bot").await;
    let play = daemon.discord.sign(&daemon.author(1000).command("play", &[]));
    let (first, second) = tokio::join!(roll(&daemon), async {
        until("one is busy", || async { busy.calls() == 1 }).await;
        let (status, ()) = tokio::join!(daemon.send(&play), async {
            until("both are, or one is turned away", || async {
                busy.calls() == 2 || daemon.refusals("in_flight") > 0.0
            })
            .await;
            gate.add_permits(2);
        });
        status.status
    });
    assert_eq!((first.as_u16(), second.as_u16()), (200, 200));
}
