//! Nothing is ever forwarded twice.

use std::sync::Arc;
use std::time::Duration;

use shardless::clock::Clock;

use crate::support::{Handler, TestDaemon, json, until};

/// Answers each call with its number, so that two calls cannot be taken for one.
async fn counting() -> Handler {
    let calls = std::sync::atomic::AtomicUsize::new(0);
    Handler::start(move |_| {
        let call = calls.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        async move { json(&format!(r#"{{"type":4,"data":{{"content":"{call}"}}}}"#)) }
    })
    .await
}

#[tokio::test]
async fn a_replay_at_once_or_within_fifteen_seconds_gets_the_same_answer() {
    let daemon = TestDaemon::with("", "", counting().await).await;
    let signed = daemon.command();
    let first = daemon.send(&signed).await;
    assert_eq!(first.status, 200);
    for _ in 0..3 {
        daemon.clock.pass(Duration::from_millis(4500));
        let again = daemon.send(&signed).await;
        assert_eq!(
            (again.status, &again.body, &again.content_type),
            (first.status, &first.body, &first.content_type)
        );
    }
    assert_eq!(daemon.handler.calls(), 1);
    assert_eq!(daemon.interactions("command", "duplicate"), 3.0);
}

#[tokio::test]
async fn a_hundred_at_once_are_forwarded_once_and_all_get_the_one_answer() {
    let (handler, opened) = Handler::gated().await;
    let daemon = Arc::new(TestDaemon::with("", "", handler).await);
    let signed = daemon.command();
    let waiting: Vec<_> = (0..100)
        .map(|_| {
            let (daemon, signed) = (Arc::clone(&daemon), signed.clone());
            tokio::spawn(async move { daemon.send(&signed).await })
        })
        .collect();
    until("all are connected", || async { daemon.metric("shardless_connections") >= 100.0 }).await;
    opened.add_permits(1);
    for waiting in waiting {
        let exchange = waiting.await.unwrap();
        assert_eq!(exchange.status, 200);
        assert_eq!(exchange.body, &br#"{"type":4}"#[..]);
    }
    assert_eq!(daemon.handler.calls(), 1);
}

#[tokio::test]
async fn a_replay_after_half_a_minute_or_a_whole_one_is_a_conflict() {
    let daemon = TestDaemon::with("", "", counting().await).await;
    let signed = daemon.command();
    assert_eq!(daemon.send(&signed).await.status, 200);
    for _ in 0..2 {
        daemon.clock.pass(Duration::from_secs(30));
        assert_eq!(daemon.send(&signed).await.status, 409);
    }
    assert_eq!(daemon.handler.calls(), 1);
    assert_eq!(daemon.refusals("replayed"), 2.0);
    daemon.assert_works().await;
}

#[tokio::test]
async fn a_timestamp_four_minutes_ahead_is_a_conflict_eight_minutes_later() {
    let daemon = TestDaemon::start().await;
    let body = daemon.fresh_command().body;
    let signed = daemon.discord.sign_at(daemon.clock.unix_time().as_secs() + 240, &body);
    assert_eq!(daemon.send(&signed).await.status, 200);
    daemon.clock.pass(Duration::from_secs(480));
    assert_eq!(daemon.send(&signed).await.status, 409);
    assert_eq!((daemon.handler.calls(), daemon.refusals("replayed")), (1, 1.0));
    daemon.assert_works().await;
}

#[tokio::test]
async fn a_failed_call_is_not_tried_again_by_a_replay() {
    let daemon = TestDaemon::with("", "", Handler::raw("", true).await).await;
    let signed = daemon.command();
    assert_eq!(daemon.send(&signed).await.status, 502);
    assert_eq!(daemon.send(&signed).await.status, 502);
    assert_eq!(daemon.handler.calls(), 1);
}

#[tokio::test]
async fn without_the_guard_each_request_is_forwarded() {
    let daemon = TestDaemon::with("[replay]\nenabled = false", "", counting().await).await;
    let signed = daemon.command();
    assert_ne!(daemon.send(&signed).await.body, daemon.send(&signed).await.body);
    assert_eq!(daemon.handler.calls(), 2);
}
