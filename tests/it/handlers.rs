//! What is held of calls, for how long, and what is said where there is no answer.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rstest::rstest;
use shardless::clock::Clock;
use shardless::rehearsal::{Expectation, Verdict};
use socket2::{Domain, Socket, Type};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::support::{Handler, TestDaemon, json, until, wire};

const ERROR_MESSAGE: &str = "error_message = \"Sorry, that did not work.\"";
const SORRY: &str = r#"{"data":{"content":"Sorry, that did not work.","flags":64},"type":4}"#;

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
    let mut stream = TcpStream::connect(daemon.address).await.unwrap();
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

/// As the simplest servers are: whoever else connects waits until the first one closes. Each connection of a client is served by
/// a worker of its own, and a kept connection to the handler is not only for the one that opened it.
#[tokio::test]
async fn a_handler_that_serves_one_connection_at_a_time_is_not_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            while answer(&mut stream).await {}
        }
    });
    let daemon = TestDaemon::before("", "", &url).await;
    let connect = || async { TcpStream::connect(daemon.address).await.unwrap() };
    let mut clients = [connect().await, connect().await];
    let start = Instant::now();
    for client in &mut clients {
        client.write_all(&wire::with_length(&daemon.command())).await.unwrap();
        let answer = wire::read_answer(client).await;
        assert!(answer.contains(r#""content":"ok""#), "{answer}");
    }
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

/// As after its restart: many calls begin at once, and no more connections fit into the handler's queue. They go over the one
/// that there is, one after the other, before the time to connect is over.
#[tokio::test]
async fn calls_that_cannot_connect_take_a_connection_that_becomes_free() {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    listener.listen(0).unwrap();
    listener.set_nonblocking(true).unwrap();
    let listener = TcpListener::from_std(listener.into()).unwrap();
    let address = listener.local_addr().unwrap();
    let gate = Arc::new(Semaphore::new(1));
    let opened = Arc::clone(&gate);
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        loop {
            opened.acquire().await.unwrap().forget();
            answer(&mut stream).await;
        }
    });
    let bot = format!("[handlers.bot]\nurls = [\"http://{address}/\"]\nconnect_timeout = \"2s\"");
    let daemon = Arc::new(TestDaemon::before(&bot, "", "bot").await);
    assert_eq!(daemon.send(&daemon.command()).await.status, 200);
    let _all_that_fits = TcpStream::connect(address).await.unwrap();
    let calls: Vec<_> = (0..4)
        .map(|_| {
            let (daemon, signed) = (Arc::clone(&daemon), daemon.command());
            tokio::spawn(async move { daemon.send(&signed).await.status.as_u16() })
        })
        .collect();
    until("all have begun", || async { daemon.metric("shardless_calls_in_flight") == 4.0 }).await;
    gate.add_permits(4);
    for call in calls {
        assert_eq!(call.await.unwrap(), 200);
    }
}

/// Answers the next request of a connection, if one comes.
async fn answer(stream: &mut TcpStream) -> bool {
    if wire::read_answer(stream).await.is_empty() {
        return false;
    }
    let body = r#"{"type":4,"data":{"content":"ok"}}"#;
    let head = format!("content-type: application/json\r\ncontent-length: {}", body.len());
    let answer = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{body}");
    stream.write_all(answer.as_bytes()).await.is_ok()
}
