//! What a handler can do wrong, and the deadline.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use rstest::rstest;
use shardless::clock::Clock;
use shardless::rehearsal::{Expectation, Verdict};
use tokio::io::AsyncWriteExt;

use crate::support::{Handler, Response, TestClock, TestDaemon, json, until, wire};

const ERROR_MESSAGE: &str = "error_message = \"Sorry, that did not work.\"";
const SORRY: &str = r#"{"data":{"content":"Sorry, that did not work.","flags":64},"type":4}"#;

fn answer(status: u16, content_type: &'static str, body: &'static str) -> Response {
    let response = http::Response::builder().status(status).header("content-type", content_type);
    response.body(Full::new(Bytes::from_static(body.as_bytes()))).unwrap()
}

/// Each wrong answer is a failure: `error_message` to the user, or 502; and the next one is served.
#[rstest]
#[case::redirect(301, "application/json", "")]
#[case::not_found(404, "text/plain", "not here")]
#[case::broken(500, "text/html", "<h1>Internal Server Error</h1>")]
#[case::html(200, "text/html", "<h1>It works!</h1>")]
#[case::empty(200, "application/json", "")]
#[case::invalid_json(200, "application/json", "{\"type\":4")]
#[case::no_type(200, "application/json", "{\"data\":{}}")]
#[case::type_not_allowed(200, "application/json", "{\"type\":8}")]
#[tokio::test]
async fn a_wrong_answer_is_a_failure(
    #[case] status: u16,
    #[case] content_type: &'static str,
    #[case] body: &'static str,
) {
    let handler = Handler::start(move |_| async move { answer(status, content_type, body) }).await;
    let daemon = TestDaemon::with("", ERROR_MESSAGE, handler).await;
    let exchange = daemon.send(&daemon.command()).await;
    assert_eq!((exchange.status.as_u16(), &exchange.body[..]), (200, SORRY.as_bytes()));
    assert_eq!(exchange.content_type, "application/json");
    assert_eq!(daemon.interactions("command", "failed"), 1.0);

    let handler = Handler::start(move |_| async move { answer(status, content_type, body) }).await;
    let daemon = TestDaemon::with("", "", handler).await;
    let exchange = daemon.send(&daemon.command()).await;
    assert_eq!((exchange.status.as_u16(), exchange.body.len()), (502, 0));
}

/// What is on the wire is no HTTP, or breaks off, or never ends: memory and time stay bounded.
#[rstest]
#[case::hangs_up_at_once("", true)]
#[case::not_http("SSH-2.0-OpenSSH_9.2\r\n", true)]
#[case::wrong_length(
    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{\"type\":4}",
    true
)]
#[case::broken_chunk("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", true)]
#[case::headers_without_end(&format!("HTTP/1.1 200 OK\r\n{}", "x-more: and more\r\n".repeat(20_000)), false)]
#[case::announces_too_much(
    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100000000\r\n\r\n",
    false
)]
#[tokio::test]
async fn a_broken_answer_is_a_failure(#[case] bytes: &str, #[case] hangs_up: bool) {
    let daemon = TestDaemon::with("", ERROR_MESSAGE, Handler::raw(bytes, hangs_up).await).await;
    let exchange = daemon.send(&daemon.command()).await;
    assert_eq!((exchange.status.as_u16(), &exchange.body[..]), (200, SORRY.as_bytes()));
    assert_eq!(daemon.interactions("command", "failed"), 1.0);
    assert_eq!(daemon.handler.calls(), 1, "it may have been read, so it is not sent again");
}

#[tokio::test]
async fn an_answer_without_end_is_cut_off_at_its_bound() {
    let mut endless = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n".to_vec();
    endless.resize(11 * 1024 * 1024, b' ');
    let daemon = TestDaemon::with("", "", Handler::raw(endless, false).await).await;
    assert_eq!(daemon.send(&daemon.command()).await.status, 502);
}

#[tokio::test]
async fn answers_share_the_memory_budget() {
    let settings = "[limits]\nbuffered = \"1MiB\"\nbody = \"1KiB\"";
    let large = format!(r#"{{"type":4,"data":{{"content":"{}"}}}}"#, "x".repeat(2_000_000));
    let handler = Handler::start(move |got| {
        let large = large.clone();
        let asked = String::from_utf8_lossy(&got.body).contains("large");
        async move { if asked { json(&large) } else { json(r#"{"type":4}"#) } }
    })
    .await;
    let daemon = TestDaemon::with(settings, "", handler).await;
    let body = r#"{"id":"77","type":2,"data":{"name":"large"}}"#;
    let now = daemon.clock.unix_time().as_secs();
    assert_eq!(daemon.send(&daemon.discord.sign_at(now, body.as_bytes())).await.status, 502);
    let body = r#"{"id":"78","type":2,"data":{"name":"small"}}"#;
    assert_eq!(daemon.send(&daemon.discord.sign_at(now, body.as_bytes())).await.status, 200);
}

#[tokio::test]
async fn a_handler_that_is_down_is_a_failure_at_once_and_works_when_it_is_back() {
    let mut handler = Handler::fine().await;
    handler.kill().await;
    let mut daemon = TestDaemon::with("", ERROR_MESSAGE, handler).await;
    let exchange = daemon.send(&daemon.command()).await;
    assert_eq!(exchange.body, SORRY);
    assert!(exchange.elapsed < Duration::from_millis(500), "{:?}", exchange.elapsed);
    daemon.handler = Handler::on(daemon.handler.port(), |_| async { json(r#"{"type":4}"#) }).await;
    daemon.assert_works().await;
}

/// The failure answer fits what was asked, whatever it was.
#[tokio::test]
async fn every_kind_gets_a_failure_answer_that_discord_takes() {
    let daemon = TestDaemon::with("", ERROR_MESSAGE, Handler::none().await).await;
    let mut author = daemon.author(0);
    let payloads = [
        author.command("roll", &[]),
        author.autocomplete("play", &[], "song", "ne"),
        author.button("again"),
        author.select("color", &["red".to_owned()]),
        author.modal("feedback", &[]),
    ];
    for payload in payloads {
        let exchange = daemon.send(&daemon.discord.sign(&payload)).await;
        let verdict = Verdict::of(&payload, Expectation::Callback, &exchange);
        assert!(verdict.is_accepted(), "{}: {verdict:?}", payload.title);
    }
    for number in [6, 99] {
        let body = format!(r#"{{"id":"{number}","type":{number}}}"#);
        let now = daemon.clock.unix_time().as_secs();
        let exchange = daemon.send(&daemon.discord.sign_at(now, body.as_bytes())).await;
        assert_eq!(exchange.status, 502, "a text cannot be shown there");
    }
}

/// A connection that the handler closes under a request: the request may have been read, so it is lost, not doubled.
#[tokio::test]
async fn a_request_on_a_connection_that_breaks_is_not_sent_twice() {
    let first = std::sync::atomic::AtomicBool::new(true);
    let handler = Handler::start(move |_| {
        let first = first.swap(false, std::sync::atomic::Ordering::SeqCst);
        async move {
            assert!(first, "panics, which breaks the connection, from the second request on");
            json(r#"{"type":4}"#)
        }
    })
    .await;
    let daemon = TestDaemon::with("", "", handler).await;
    assert_eq!(daemon.send(&daemon.command()).await.status, 200);
    assert_eq!(daemon.send(&daemon.command()).await.status, 502);
    assert_eq!(daemon.handler.calls(), 2);
}

/// A connection that the handler closed while it was idle: the request was surely not read, so a new one carries it.
#[tokio::test]
async fn a_connection_that_went_stale_costs_nothing() {
    let answer =
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\r\n{\"type\":4}";
    let daemon = TestDaemon::with("", "", Handler::raw(answer, true).await).await;
    for round in 1..=5 {
        daemon.assert_works().await;
        until("the daemon has seen the end of it", || async { daemon.handler.closed() == round }).await;
    }
}

#[rstest]
#[case::just_in_time(350, 200)]
#[case::too_late(650, 504)]
#[tokio::test]
async fn the_deadline_decides(#[case] milliseconds: u64, #[case] status: u16) {
    let handler = Handler::start(move |_| async move {
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        json(r#"{"type":4}"#)
    })
    .await;
    let daemon = TestDaemon::with("", "answer_within = \"500ms\"\non_slow = \"fail\"", handler).await;
    let exchange = daemon.send(&daemon.command()).await;
    assert_eq!(exchange.status.as_u16(), status);
    assert!(exchange.elapsed < Duration::from_millis(600), "{:?}", exchange.elapsed);
}

/// Discord's three seconds run since it began to send, not since all of it had arrived.
#[tokio::test]
async fn the_deadline_runs_from_the_first_byte() {
    let (handler, _gate) = Handler::gated().await;
    let daemon = TestDaemon::with("", "answer_within = \"600ms\"\non_slow = \"fail\"", handler).await;
    let request = wire::with_length(&daemon.command());
    let mut stream = tokio::net::TcpStream::connect(daemon.address).await.unwrap();
    let start = std::time::Instant::now();
    stream.write_all(&request[..20]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(400)).await;
    stream.write_all(&request[20..]).await.unwrap();
    assert!(wire::read_answer(&mut stream).await.starts_with("http/1.1 504"));
    assert!(
        (Duration::from_millis(590)..Duration::from_millis(800)).contains(&start.elapsed()),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn nothing_in_time_is_the_error_message_and_the_handlers_call_goes_on() {
    let (handler, gate) = Handler::gated().await;
    let app = format!("answer_within = \"200ms\"\non_slow = \"fail\"\n{ERROR_MESSAGE}");
    let daemon = TestDaemon::with("", &app, handler).await;
    let exchange = daemon.send(&daemon.command()).await;
    assert_eq!(exchange.body, SORRY);
    assert!(exchange.elapsed >= Duration::from_millis(195), "{:?}", exchange.elapsed);
    assert_eq!(daemon.interactions("command", "late"), 1.0);
    assert_eq!(daemon.metric("shardless_calls_in_flight"), 1.0);
    gate.add_permits(1);
    until("the late call has ended", || async { daemon.metric("shardless_calls_in_flight") == 0.0 }).await;
}

#[tokio::test]
async fn a_late_call_leaves_its_place_to_the_next() {
    let (handler, gate) = Handler::gated().await;
    let app = "answer_within = \"100ms\"\non_slow = \"fail\"";
    let daemon = TestDaemon::with("[limits]\nin_flight = 1", app, handler).await;
    for _ in 0..3 {
        let exchange = daemon.send(&daemon.command()).await;
        assert_eq!(exchange.status, 504, "late, not shed");
    }
    gate.add_permits(3);
}

#[tokio::test]
async fn late_calls_are_bounded_too() {
    let (handler, gate) = Handler::gated().await;
    let app = "answer_within = \"100ms\"\non_slow = \"fail\"";
    let daemon = TestDaemon::with("[limits]\ndeferred = 1", app, handler).await;
    for _ in 0..3 {
        assert_eq!(daemon.send(&daemon.command()).await.status, 504);
    }
    until("two are given up", || async { daemon.metric("shardless_calls_in_flight") == 1.0 }).await;
    gate.add_permits(3);
    until("the last one has ended", || async { daemon.metric("shardless_calls_in_flight") == 0.0 }).await;
}

#[tokio::test]
async fn a_client_that_hangs_up_stops_nothing_and_the_answer_is_kept_for_its_retry() {
    let (handler, gate) = Handler::gated().await;
    let daemon = TestDaemon::with("", "", handler).await;
    let signed = daemon.command();
    let impatient = tokio::time::timeout(Duration::from_millis(200), daemon.send(&signed)).await;
    assert!(impatient.is_err());
    until("the call has arrived", || async { daemon.handler.calls() == 1 }).await;
    gate.add_permits(1);
    assert_eq!(daemon.send(&signed).await.status, 200);
    assert_eq!(daemon.handler.calls(), 1);
    assert_eq!(daemon.interactions("command", "answered"), 1.0);
}

#[tokio::test]
async fn a_panic_inside_one_request_costs_that_request_alone() {
    let daemon = TestDaemon::start().await;
    let signed = daemon.command();
    daemon.clock.panic_once();
    let exchange = daemon.send(&signed).await;
    assert_eq!(exchange.status, 500);
    assert_eq!(daemon.refusals("panicked"), 1.0);
    assert_eq!(daemon.send(&signed).await.status, 200);
}

#[tokio::test]
async fn a_panic_inside_a_call_is_told_its_client() {
    let clock = Arc::new(std::sync::OnceLock::<Arc<TestClock>>::new());
    let armed = Arc::clone(&clock);
    let handler = Handler::start(move |_| {
        armed.get().unwrap().panic_at_next_now();
        async { json(r#"{"type":4}"#) }
    })
    .await;
    let daemon = TestDaemon::with("", "", handler).await;
    clock.set(Arc::clone(&daemon.clock)).ok().unwrap();
    let signed = daemon.command();
    let request = wire::with_length(&signed);
    let mut stream = tokio::net::TcpStream::connect(daemon.address).await.unwrap();
    stream.write_all(&request).await.unwrap();
    assert!(wire::read_answer(&mut stream).await.starts_with("http/1.1 500"));
    assert_eq!(daemon.interactions("command", "failed"), 1.0);
    assert_eq!(daemon.metric("shardless_calls_in_flight"), 0.0);
}

/// Overload is told at once, to the one application alone, and PINGs and refusals do not wait in its line.
#[tokio::test]
async fn too_many_calls_of_an_application_are_shed_at_once() {
    let (handler, gate) = Handler::gated().await;
    let daemon = Arc::new(TestDaemon::with("", "in_flight = 2", handler).await);
    let running: Vec<_> = (0..2)
        .map(|_| {
            let (daemon, signed) = (Arc::clone(&daemon), daemon.command());
            tokio::spawn(async move { daemon.send(&signed).await.status.as_u16() })
        })
        .collect();
    until("both calls have arrived", || async { daemon.handler.calls() == 2 }).await;

    let shed = daemon.command();
    let exchange = daemon.send(&shed).await;
    assert_eq!(exchange.status, 503);
    assert!(exchange.elapsed < Duration::from_millis(500), "{:?}", exchange.elapsed);
    assert_eq!(daemon.refusals("in_flight"), 1.0);
    assert_eq!(daemon.send(&daemon.discord.sign(&daemon.author(99).ping())).await.status, 200);
    assert_eq!(daemon.send(&daemon.command().forge()).await.status, 401);

    gate.add_permits(3);
    for running in running {
        assert_eq!(running.await.unwrap(), 200);
    }
    assert_eq!(daemon.send(&shed).await.status, 200, "one that was shed may come again");
}

#[tokio::test]
async fn too_many_calls_in_all_are_shed_at_once() {
    let (handler, gate) = Handler::gated().await;
    let daemon = Arc::new(TestDaemon::with("[limits]\nin_flight = 1", "", handler).await);
    let running = {
        let (daemon, signed) = (Arc::clone(&daemon), daemon.command());
        tokio::spawn(async move { daemon.send(&signed).await.status.as_u16() })
    };
    until("the call has arrived", || async { daemon.handler.calls() == 1 }).await;
    assert_eq!(daemon.send(&daemon.command()).await.status, 503);
    gate.add_permits(1);
    assert_eq!(running.await.unwrap(), 200);
}
