//! Bounds on what a client can make the daemon hold or wait for, with raw bytes.

use std::time::Duration;

use rstest::rstest;
use shardless::clock::Clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::wire::{assert_closes, raw, read_answer, with_length};
use crate::support::{Handler, TestDaemon, json, until};

#[tokio::test]
async fn a_connection_is_kept_for_http_1_1_and_for_1_0_where_it_asks() {
    let daemon = TestDaemon::start().await;
    let mut stream = TcpStream::connect(daemon.address).await.unwrap();
    for _ in 0..3 {
        stream.write_all(&with_length(&daemon.command())).await.unwrap();
        assert!(read_answer(&mut stream).await.starts_with("http/1.1 200"));
    }
    let mut stream = TcpStream::connect(daemon.address).await.unwrap();
    for _ in 0..3 {
        let signed = daemon.command();
        let headers = format!("content-length: {}\r\nconnection: keep-alive\r\n", signed.body().len());
        stream.write_all(&raw(&signed, "HTTP/1.0", &headers)).await.unwrap();
        assert!(read_answer(&mut stream).await.starts_with("http/1.0 200"));
    }
    let mut stream = TcpStream::connect(daemon.address).await.unwrap();
    let signed = daemon.command();
    let headers = format!("content-length: {}\r\nconnection: close\r\n", signed.body().len());
    stream.write_all(&raw(&signed, "HTTP/1.0", &headers)).await.unwrap();
    assert!(read_answer(&mut stream).await.starts_with("http/1.0 200"));
    assert_closes(&mut stream, Duration::from_secs(1)).await;
}

#[tokio::test]
async fn both_loopback_addresses_are_served() {
    let daemon = TestDaemon::start().await;
    let port = daemon.address.port();
    for host in ["127.0.0.1", "[::1]"] {
        if host == "[::1]" && tokio::net::TcpListener::bind("[::1]:0").await.is_err() {
            continue; // a machine without IPv6
        }
        let url = format!("http://{host}:{port}/interactions");
        let exchange = daemon.discord.send(&url, &daemon.command()).await.unwrap();
        assert_eq!(exchange.status, 200, "{host}");
    }
}

/// What is left of a refused request's body is not to be taken for the next request.
#[tokio::test]
async fn a_refusal_before_the_body_was_read_ends_the_connection_and_one_after_it_does_not() {
    let daemon = TestDaemon::start().await;
    let old = daemon.discord.sign_at(1, &daemon.fresh_command().body);
    let (head, body) = {
        let whole = with_length(&old);
        let head = whole.len() - old.body().len();
        (whole[..head].to_vec(), whole[head..].to_vec())
    };
    let mut stream = TcpStream::connect(daemon.address).await.unwrap();
    stream.write_all(&head).await.unwrap();
    let answer = read_answer(&mut stream).await;
    assert!(answer.starts_with("http/1.1 401") && answer.contains("connection: close"), "{answer}");
    stream.write_all(&body).await.unwrap();
    assert_closes(&mut stream, Duration::from_secs(2)).await;

    let mut stream = TcpStream::connect(daemon.address).await.unwrap();
    for _ in 0..3 {
        stream.write_all(&with_length(&daemon.command().forge())).await.unwrap();
        let answer = read_answer(&mut stream).await;
        assert!(answer.starts_with("http/1.1 401") && !answer.contains("connection: close"), "{answer}");
    }
}

/// The answer to HEAD has no body to be taken, and the connection is as good as before.
#[tokio::test]
async fn after_a_head_request_the_connection_is_idle() {
    let handler = Handler::fine().await;
    let daemon = TestDaemon::with("[limits]\nwrite_timeout = \"200ms\"", "", handler).await;
    let mut stream = TcpStream::connect(daemon.address).await.unwrap();
    stream.write_all(b"HEAD /interactions HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
    let mut head = [0; 1024];
    let count = stream.read(&mut head).await.unwrap();
    assert!(head[..count].starts_with(b"HTTP/1.1 405"));
    tokio::time::sleep(Duration::from_millis(400)).await;
    stream.write_all(&with_length(&daemon.command())).await.unwrap();
    assert!(read_answer(&mut stream).await.starts_with("http/1.1 200"));
}

/// The answer is larger than all buffers on the way, and the client never reads.
#[tokio::test]
async fn a_client_that_does_not_read_its_answer_is_cut_off() {
    let large = format!(r#"{{"type":4,"data":{{"x":"{}"}}}}"#, "x".repeat(9 * 1024 * 1024));
    let handler = Handler::start(move |_| {
        let answer = json(&large);
        async move { answer }
    })
    .await;
    let daemon = TestDaemon::with("[limits]\nwrite_timeout = \"300ms\"", "", handler).await;
    let mut stream = TcpStream::connect(daemon.address).await.unwrap();
    stream.write_all(&with_length(&daemon.command())).await.unwrap();
    let cut_off = "shardless_connection_faults_total{reason=\"slow_reader\"}";
    until("it is cut off", || async { daemon.metric(cut_off) == 1.0 }).await;
    until("it is closed", || async { daemon.metric("shardless_connections") == 0.0 }).await;
}

#[tokio::test]
async fn bodies_share_the_memory_budget() {
    let handler = Handler::fine().await;
    let daemon = TestDaemon::with("[limits]\nbody = \"64KiB\"\nbuffered = \"64KiB\"", "", handler).await;
    let body = format!(r#"{{"id":"5","type":2,"x":"{}"}}"#, "x".repeat(50_000));
    let now = daemon.clock.unix_time().as_secs();
    let large = daemon.discord.sign_at(now, body.as_bytes());
    let request = with_length(&large);
    let mut first = TcpStream::connect(daemon.address).await.unwrap();
    first.write_all(&request[..request.len() - 1]).await.unwrap();
    let short = async {
        let exchange = daemon.send(&large).await;
        exchange.status == 503
    };
    assert!(short.await, "both bodies fit");
    first.write_all(&request[request.len() - 1..]).await.unwrap();
    assert!(read_answer(&mut first).await.starts_with("http/1.1 200"));
    daemon.assert_works().await;
}

/// Twelve bodies that would fill the memory twice over, at a handler that thinks for long.
#[rstest]
#[case::alone("on_slow = \"fail\"", "")]
#[case::deferred("on_slow = \"defer\"", "")]
#[case::with_another_replica("on_slow = \"fail\"", ", \"http://127.0.0.1:9/\"")]
#[tokio::test]
async fn a_body_goes_as_soon_as_nobody_else_may_get_it(#[case] on_slow: &str, #[case] another: &str) {
    let (slow, _gate) = Handler::gated().await;
    let settings = format!(
        "[limits]\nbody = \"256KiB\"\nbuffered = \"600KiB\"\n[handlers.slow]\nurls = [\"{}\"{another}]",
        slow.url()
    );
    let app = format!("answer_within = \"300ms\"\n{on_slow}");
    let daemon = TestDaemon::before(&settings, &app, "slow").await;
    for n in 1..=12 {
        let body = format!(
            r#"{{"id":"{n}","type":2,"application_id":"7","token":"ab","x":"{}"}}"#,
            "x".repeat(100_000)
        );
        let now = daemon.clock.unix_time().as_secs();
        let exchange = daemon.send(&daemon.discord.sign_at(now, body.as_bytes())).await;
        assert_ne!(exchange.status, 503, "the {n}th finds no room");
        until("it is with the handler", || async { slow.calls() == n }).await;
    }
}
