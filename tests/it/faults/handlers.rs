//! What a handler can do wrong, and the deadline.

use std::sync::Arc;
use std::time::Duration;

use rstest::rstest;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::late::{ANSWER_WITHIN, Stage, original, slow};
use crate::support::{Handler, TestClock, TestDaemon, json, until, wire};

const ERROR_MESSAGE: &str = "error_message = \"Sorry, that did not work.\"";
const SORRY: &str = r#"{"data":{"content":"Sorry, that did not work.","flags":64},"type":4}"#;
const HELLO: &str = r#"{"type":4,"data":{"content":"hello"}}"#;
const JSON: &str = "application/json";

/// An answer as it stands on the wire, whose length is right.
fn whole(status: &str, content_type: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n{body}")
}

fn ok(content_type: &str, body: &str) -> String {
    whole("200 OK", content_type, body)
}

/// A 200 with JSON whose body is framed so.
fn framed(framing: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{framing}\r\n{body}")
}

const ENDS: bool = true;
const STAYS: bool = false;

/// Time and memory stay bounded though the handler may never hang up; what the log says of each is in `answers.rs`.
#[rstest]
#[case::a_301(&whole("301 Moved Permanently", JSON, HELLO), STAYS)]
#[case::a_404(&whole("404 Not Found", "text/plain", "not here"), STAYS)]
#[case::a_500(&whole("500 Internal Server Error", "text/html", "<h1>oops"), STAYS)]
#[case::html(&ok("text/html", "<h1>It works!</h1>"), STAYS)]
#[case::an_empty_200(&ok(JSON, ""), STAYS)]
#[case::type_missing(&ok(JSON, "{\"data\":{}}"), STAYS)]
#[case::type_not_allowed(&ok(JSON, "{\"type\":8}"), STAYS)]
#[case::invalid_json(&ok(JSON, "{\"type\":4"), STAYS)]
#[case::wrong_length(&framed("content-length: 100\r\n", "{\"type\":4}"), ENDS)]
#[case::broken_chunk(&framed("transfer-encoding: chunked\r\n", "zz\r\n"), ENDS)]
#[case::a_body_of_100_mb(&framed("content-length: 100000000\r\n", ""), STAYS)]
#[case::an_endless_body(&framed("", &" ".repeat(11 * 1024 * 1024)), STAYS)]
#[case::headers_without_end(&format!("HTTP/1.1 200 OK\r\n{}", "x-more: and more\r\n".repeat(20_000)), STAYS)]
#[case::no_http("SSH-2.0-OpenSSH_9.2\r\n", ENDS)]
#[case::nothing_at_all("", ENDS)]
#[tokio::test]
async fn a_wrong_answer_is_a_failure(#[case] answer: &str, #[case] hangs_up: bool) {
    let mut daemon = TestDaemon::with("", ERROR_MESSAGE, Handler::raw(answer, hangs_up).await).await;
    let exchange = daemon.send(&daemon.command()).await;
    assert_eq!((exchange.status.as_u16(), &exchange.body[..]), (200, SORRY.as_bytes()));
    assert_eq!(exchange.content_type, JSON);
    assert_eq!(daemon.interactions("command", "failed"), 1.0);
    assert_eq!(daemon.handler.calls(), 1, "it may have been read, so it is not sent again");

    daemon.handler.kill().await;
    daemon.handler = Handler::on(daemon.handler.port(), |_| async { json(HELLO) }).await;
    daemon.assert_works().await;
}

#[tokio::test]
async fn without_an_error_message_a_failure_is_502() {
    let handler = Handler::raw(ok("text/html", "<h1>It works!</h1>"), STAYS).await;
    let daemon = TestDaemon::with("", "", handler).await;
    let exchange = daemon.send(&daemon.command()).await;
    assert_eq!((exchange.status.as_u16(), exchange.body.len()), (502, 0));
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

/// Either the answer itself comes, or a deferral at the deadline, and the answer behind it.
#[rstest]
#[case::fifty_ms_before_it(350)]
#[case::at_it(400)]
#[case::fifty_ms_after_it(450)]
#[case::long_after_it(1800)]
#[tokio::test]
async fn an_answer_around_the_deadline_has_one_outcome(#[case] milliseconds: u64) {
    let after = Duration::from_millis(milliseconds);
    let stage = Stage::with("", slow(after, 200, JSON, HELLO).await).await;
    let payload = stage.daemon.fresh_command();
    let exchange = stage.send(&payload).await;
    let is_deferred = &exchange.body[..] == br#"{"type":5}"#;
    if is_deferred {
        assert!(exchange.elapsed >= ANSWER_WITHIN, "{:?}", exchange.elapsed);
    } else {
        assert_eq!((exchange.body, after <= ANSWER_WITHIN), (HELLO.into(), true));
    }
    assert!(exchange.elapsed < ANSWER_WITHIN + Duration::from_millis(150), "{:?}", exchange.elapsed);

    let view = stage.end_of(&payload).await;
    assert_eq!((&*original(&view).content, view.follow_ups.len()), ("hello", 0));
    assert_eq!(stage.calls(), vec!["PATCH Original"; usize::from(is_deferred)]);
    let outcomes = ["answered", "deferred"].map(|outcome| stage.daemon.interactions("command", outcome));
    assert_eq!(outcomes, if is_deferred { [0.0, 1.0] } else { [1.0, 0.0] });
    assert_eq!(stage.daemon.handler.calls(), 1);
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
    let mut stream = TcpStream::connect(daemon.address).await.unwrap();
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
