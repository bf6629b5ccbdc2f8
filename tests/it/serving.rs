//! `shardless serve` as a process: how it starts, what it logs, and how it stops.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use shardless::clock::{Clock, SystemClock};
use shardless::rehearsal::stand_in::SendError;
use shardless::rehearsal::{Author, Exchange, StandIn};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::support::admin::get;
use crate::support::restarts::free_port;
use crate::support::{Binary, Handler, command, json, until, wire};

fn discord(daemon: &Binary) -> StandIn {
    StandIn::new(daemon.signer.clone(), std::sync::Arc::new(SystemClock)).unwrap()
}

/// A command that is on its way to its handler.
fn call(daemon: &Binary) -> JoinHandle<Result<Exchange, SendError>> {
    let (url, discord) = (daemon.url(), discord(daemon));
    tokio::spawn(async move {
        let payload = Author::new(SystemClock.unix_time(), 0).command("roll", &[]);
        discord.send(&url, &discord.sign(&payload)).await
    })
}

async fn roll(daemon: &Binary, salt: u64) -> Exchange {
    let discord = discord(daemon);
    let payload = Author::new(SystemClock.unix_time(), salt << 12).command("roll", &[]);
    discord.send(&daemon.url(), &discord.sign(&payload)).await.unwrap()
}

/// Holds every call until half a second has passed.
async fn slow() -> Handler {
    Handler::start(|_| async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        json(r#"{"type":4}"#)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_start_says_what_is_served_where() {
    let handler = Handler::fine().await;
    let daemon = Binary::serve("", "", &handler.url()).await;
    daemon.until_log("goes to").await;
    let log = daemon.log();
    for part in [
        "shardless listens on 127.0.0.1:",
        &format!("version=\"{}\"", env!("CARGO_PKG_VERSION")),
        &format!("verification=\"{}\"", shardless::discord::signature::backend()),
        &format!("POST /interactions goes to {}, answered within 2s 200ms", handler.url()),
        "app=\"mybot\"",
    ] {
        assert!(log.contains(part), "{part} is not in {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_interaction_leaves_one_line_and_no_secret() {
    let handler = Handler::fine().await;
    let daemon = Binary::serve("[log]\nlevel = \"trace\"\nformat = \"json\"", "", &handler.url()).await;
    let discord = discord(&daemon);
    let payload = Author::new(SystemClock.unix_time(), 0).command("roll", &[]);
    let signed = discord.sign(&payload);
    assert_eq!(discord.send(&daemon.url(), &signed).await.unwrap().status, 200);
    assert_eq!(discord.send(&daemon.url(), &signed.clone().forge()).await.unwrap().status, 401);
    daemon.until_log("bad_signature").await;
    let log = daemon.log();
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of_interactions: Vec<_> = lines.iter().filter(|line| line["id"].is_u64()).collect();
    assert_eq!(of_interactions.len(), 1, "{log}");
    let line = of_interactions[0];
    assert_eq!(line["message"], "interaction answered");
    assert_eq!(line["app"], "mybot");
    assert_eq!(line["kind"], "command");
    assert_eq!(line["name"], "roll");
    assert_eq!(line["target"], "shardless::interactions");
    assert_eq!(line["handler"], handler.url());
    assert_eq!(line["status"], 200);
    assert!(line["ms"].is_f64() && line["handler_ms"].is_f64(), "{line}");

    let body: serde_json::Value = serde_json::from_slice(&payload.body).unwrap();
    let token = body["token"].as_str().unwrap();
    let signature = signed.headers()["x-signature-ed25519"].to_str().unwrap();
    for secret in [&token[..24], &signature[..24], "mason"] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forgeries_are_calm_lines_and_a_flood_of_them_is_held_back() {
    let daemon = Binary::serve("", "", "http://127.0.0.1:9/").await;
    let discord = discord(&daemon);
    for salt in 0..200 {
        let payload = Author::new(SystemClock.unix_time(), salt << 12).command("roll", &[]);
        let mut forged = discord.sign(&payload).forge();
        forged.headers_mut().insert("x-forwarded-for", "203.0.113.9".parse().unwrap());
        assert_eq!(discord.send(&daemon.url(), &forged).await.unwrap().status, 401);
    }
    let ping = Author::new(SystemClock.unix_time(), 0).ping();
    assert_eq!(discord.send(&daemon.url(), &discord.sign(&ping)).await.unwrap().status, 200);
    daemon.until_log("PING answered").await;
    let log = daemon.log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("bad_signature")).collect();
    // A window may have ended meanwhile, with a line of its own.
    assert!((10..=40).contains(&lines.len()), "{} lines", lines.len());
    assert!(lines.iter().all(|line| line.contains(" INFO ")), "{log}");
    assert!(
        lines[0].contains("client=203.0.113.9") && lines[0].contains("the signature does not hold"),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_explained_in_the_log() {
    let html = Handler::start(|_| async {
        let mut response = json("<h1>It works!</h1>");
        response.headers_mut().insert("content-type", http::HeaderValue::from_static("text/html"));
        response
    })
    .await;
    let daemon = Binary::serve("", "", &html.url()).await;
    assert_eq!(roll(&daemon, 1).await.status, 502);
    daemon
        .until_log("it answered 200, but its content type is text/html; Discord needs application/json")
        .await;
    assert!(daemon.log().contains(" WARN "));

    let many = Handler::start(|_| async {
        json(&format!(r#"{{"type":4,"data":{{"content":"{}"}}}}"#, "x".repeat(2001)))
    })
    .await;
    let daemon = Binary::serve("", "", &many.url()).await;
    assert_eq!(roll(&daemon, 1).await.status, 200);
    daemon.until_log("answered, but Discord will refuse it: `content` has 2001 characters").await;

    let daemon = Binary::serve("", "", &format!("{}?secret=hush", Handler::none().await.url())).await;
    assert_eq!(roll(&daemon, 1).await.status, 502);
    daemon.until_log("cannot connect (Connection refused").await;
    daemon.until_log("is the bot running").await;
    assert!(!daemon.log().contains("hush"), "{}", daemon.log());

    let late = slow().await;
    let daemon = Binary::serve("", "answer_within = \"200ms\"\non_slow = \"fail\"", &late.url()).await;
    assert_eq!(roll(&daemon, 1).await.status, 504);
    daemon.until_log("handler is late: no answer after 200ms").await;
    daemon.until_log("handler ended too late for Discord: it answered 200 OK").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_by_name_is_reached() {
    let handler = Handler::fine().await;
    let daemon = Binary::serve("", "", &handler.url().replace("127.0.0.1", "localhost")).await;
    assert_eq!(roll(&daemon, 1).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_in_the_environment_is_ignored() {
    let handler = Handler::fine().await;
    let daemon = Binary::serve_with("", "", &handler.url(), |command| {
        for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
            command.env(name, "http://127.0.0.1:9");
        }
    })
    .await;
    assert_eq!(roll(&daemon, 1).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_answers_what_is_in_flight_closes_what_is_idle_and_exits_with_0() {
    let handler = slow().await;
    let mut daemon = Binary::serve("", "", &handler.url()).await;
    let idle = TcpStream::connect(daemon.address).await.unwrap();
    let in_flight = call(&daemon);
    until("the call has arrived", || async { handler.calls() == 1 }).await;
    let start = Instant::now();
    daemon.signal("TERM");
    daemon.until_log("stopping").await;
    until("nobody is let in any more", || async { TcpStream::connect(daemon.address).await.is_err() }).await;
    assert_eq!(in_flight.await.unwrap().unwrap().status, 200);
    assert_eq!(daemon.wait().code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert!(daemon.log().contains("stopped"), "{}", daemon.log());
    drop(idle);
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_answers_a_request_that_is_half_there_on_a_kept_connection() {
    let handler = Handler::fine().await;
    let mut daemon = Binary::serve("", "", &handler.url()).await;
    let discord = discord(&daemon);
    let request = |salt: u64| {
        let payload = Author::new(SystemClock.unix_time(), salt << 12).command("roll", &[]);
        wire::with_length(&discord.sign(&payload))
    };
    let mut stream = TcpStream::connect(daemon.address).await.unwrap();
    stream.write_all(&request(1)).await.unwrap();
    assert!(wire::read_answer(&mut stream).await.starts_with("http/1.1 200"));
    let second = request(2);
    stream.write_all(&second[..50]).await.unwrap();
    // Another connection's answer shows that these bytes are there.
    assert_eq!(roll(&daemon, 3).await.status, 200);
    daemon.signal("TERM");
    daemon.until_log("stopping").await;
    until("nobody is let in any more", || async { TcpStream::connect(daemon.address).await.is_err() }).await;
    stream.write_all(&second[50..]).await.unwrap();
    let answer = wire::read_answer(&mut stream).await;
    assert!(answer.starts_with("http/1.1 200") && answer.contains("connection: close"), "{answer}");
    drop(stream);
    assert_eq!(daemon.wait().code(), Some(0));
}

/// A proxy that was let in just before the stop has no other place to go with its request.
#[tokio::test(flavor = "multi_thread")]
async fn sigterm_serves_a_connection_that_was_just_opened() {
    let handler = Handler::fine().await;
    let mut daemon = Binary::serve("", "", &handler.url()).await;
    let mut stream = TcpStream::connect(daemon.address).await.unwrap();
    // Another connection's answer shows that this one was accepted.
    assert_eq!(roll(&daemon, 1).await.status, 200);
    daemon.signal("TERM");
    daemon.until_log("stopping").await;
    let payload = Author::new(SystemClock.unix_time(), 2 << 12).command("roll", &[]);
    stream.write_all(&wire::with_length(&discord(&daemon).sign(&payload))).await.unwrap();
    let answer = wire::read_answer(&mut stream).await;
    assert!(answer.starts_with("http/1.1 200") && answer.contains("connection: close"), "{answer}");
    assert_eq!(daemon.wait().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_waits_for_a_call_whose_client_has_hung_up() {
    let handler = slow().await;
    let mut daemon = Binary::serve("", "", &handler.url()).await;
    let discord = discord(&daemon);
    let payload = Author::new(SystemClock.unix_time(), 0).command("roll", &[]);
    let mut stream = TcpStream::connect(daemon.address).await.unwrap();
    stream.write_all(&wire::with_length(&discord.sign(&payload))).await.unwrap();
    until("the call has arrived", || async { handler.calls() == 1 }).await;
    drop(stream);
    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(0));
    assert!(daemon.log().contains("interaction answered"), "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_ends_at_its_time_whatever_a_client_does() {
    let mut daemon = Binary::serve(
        "[limits]\ndrain_timeout = \"300ms\"\nread_timeout = \"1m\"",
        "",
        "http://127.0.0.1:9/",
    )
    .await;
    let mut half = TcpStream::connect(daemon.address).await.unwrap();
    half.write_all(b"POST /interactions HTTP/1.1\r\nhost:").await.unwrap();
    // A second connection's answer shows that the first one's bytes were there before.
    assert_eq!(roll(&daemon, 1).await.status, 502);
    let start = Instant::now();
    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(0));
    assert!(daemon.log().contains("did not end in time"), "{}", daemon.log());
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_at_once() {
    let handler = Handler::start(|_| async {
        std::future::pending::<()>().await;
        json("")
    })
    .await;
    let mut daemon = Binary::serve("", "", &handler.url()).await;
    let cut_off = call(&daemon);
    until("the call has arrived", || async { handler.calls() == 1 }).await;
    let start = Instant::now();
    daemon.signal("TERM");
    daemon.until_log("stopping").await;
    assert!(!daemon.has_ended());
    daemon.signal("INT");
    assert_eq!(daemon.wait().code(), Some(1));
    assert!(start.elapsed() < Duration::from_millis(1500), "{:?}", start.elapsed());
    assert!(cut_off.await.unwrap().is_err());
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
}

/// What is said to it waits; nothing else does.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_manager_that_hears_nothing_holds_nothing_up() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let _deaf = UnixDatagram::bind(&path).unwrap();
    let other = UnixDatagram::unbound().unwrap();
    other.set_nonblocking(true).unwrap();
    while other.send_to(b"STATUS=full", &path).is_ok() {}
    let handler = Handler::fine().await;
    let mut daemon = Binary::serve_with("", "", &handler.url(), |command| {
        command.env("NOTIFY_SOCKET", &path);
    })
    .await;
    assert_eq!(roll(&daemon, 1).await.status, 200);
    daemon.signal("HUP");
    daemon.until_log("is in force now").await;
    assert_eq!(roll(&daemon, 2).await.status, 200);
    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(0));
}

/// A daemon that may have so many files open, with an admin listener.
async fn with_files(count: usize, handler: &Handler) -> (Binary, SocketAddr) {
    let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let settings = format!("[admin]\nport = {}", admin.port());
    let daemon = Binary::serve_with(&settings, "", &handler.url(), |command| {
        let mut limited = Command::new("sh");
        limited
            .args(["-c", &format!("ulimit -n {count}; exec \"$@\""), "sh"])
            .arg(command.get_program())
            .args(command.get_args());
        limited.stderr(Stdio::piped());
        *command = limited;
    })
    .await;
    (daemon, admin)
}

async fn is_alive(admin: SocketAddr) -> bool {
    tokio::task::spawn_blocking(move || get(admin, "/livez").status == 200).await.unwrap()
}

async fn silent_connections(daemon: &Binary, count: usize) -> Vec<TcpStream> {
    let mut held = Vec::new();
    for _ in 0..count {
        held.push(TcpStream::connect(daemon.address).await.unwrap());
    }
    held
}

/// Where no descriptor is left for a connection, it waits, nothing spins, and idle connections make room: for the admin
/// listener too.
#[tokio::test(flavor = "multi_thread")]
async fn without_file_descriptors_it_waits_and_comes_back() {
    let handler = Handler::fine().await;
    let (daemon, admin) = with_files(50, &handler).await;
    let held = silent_connections(&daemon, 100).await;
    daemon.until_log("cannot accept connections").await;
    let before = daemon.cpu_time();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let spent = daemon.cpu_time() - before;
    assert!(spent < Duration::from_millis(200), "{spent:?} in a second");
    daemon.until_log("accepted again").await;
    assert!(is_alive(admin).await);
    drop(held);
    let start = Instant::now();
    assert_eq!(roll(&daemon, 1).await.status, 200);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

/// Clients that say nothing cannot take what connections to handlers need.
#[tokio::test(flavor = "multi_thread")]
async fn connections_leave_half_of_the_descriptors_to_handlers() {
    let handler = Handler::fine().await;
    let (daemon, admin) = with_files(100, &handler).await;
    daemon.until_log("at most 50 connections instead of limits.connections = 4096").await;
    let held = silent_connections(&daemon, 200).await;
    assert!(is_alive(admin).await);
    assert_eq!(roll(&daemon, 1).await.status, 200);
    assert!(!daemon.log().contains("cannot accept connections"), "{}", daemon.log());
    drop(held);
}

fn serve(config: &str) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    std::fs::write(&path, config).unwrap();
    run(command().args(["serve", "--config"]).arg(&path))
}

fn run(command: &mut Command) -> (Option<i32>, String) {
    let output = command.output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

const APP: &str = "[apps.mybot]\npublic_key = \"d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a\"\nhandler = \"http://127.0.0.1:9/\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_it_from_starting_is_one_clear_line() {
    let first = Binary::serve("", "", "http://127.0.0.1:9/").await;
    let port = first.address.port();
    let (code, error) = serve(&format!("port = {port}\n{APP}"));
    assert_eq!(code, Some(1));
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(
        error.contains(&format!("cannot listen on 127.0.0.1:{port}")) && error.contains("change `port`"),
        "{error}"
    );

    let (code, error) = serve(&format!("address = \"203.0.113.1\"\n{APP}"));
    assert_eq!(code, Some(1));
    assert!(error.contains("this machine has no such address"), "{error}");

    let (code, error) = serve(&format!("prot = 3000\n{APP}"));
    assert_eq!(code, Some(78));
    assert!(error.contains("did you mean `port`?"), "{error}");

    let (code, error) = run(command().args(["serve", "--config", "/no/such/config.toml"]));
    assert_eq!(code, Some(78));
    assert!(error.contains("/no/such/config.toml") && error.lines().count() == 1, "{error}");
}
