//! SIGHUP: a new config for a daemon that runs.

use std::time::{Duration, Instant};

use shardless::clock::{Clock, SystemClock};
use shardless::config::Config;
use shardless::gateway::Snapshot;
use shardless::rehearsal::stand_in::Signed;
use shardless::rehearsal::{Author, StandIn};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::certificates::Signed as Certificates;
use crate::support::{Binary, Handler, command, json, until, wire};

fn discord(daemon: &Binary) -> StandIn {
    StandIn::new(daemon.signer.clone(), std::sync::Arc::new(SystemClock)).unwrap()
}

fn roll(daemon: &Binary, salt: u64) -> Signed {
    discord(daemon).sign(&Author::new(SystemClock.unix_time(), salt << 12).command("roll", &[]))
}

async fn status(daemon: &Binary, signed: &Signed) -> u16 {
    discord(daemon).send(&daemon.url(), signed).await.unwrap().status.as_u16()
}

async fn reload(daemon: &Binary, words: &str) {
    let lines = |log: &str| log.matches(words).count();
    let before = lines(&daemon.log());
    daemon.signal("HUP");
    until(words, || async { lines(&daemon.log()) > before }).await;
}

const DONE: &str = "is in force now";
const KEPT: &str = "the config in force stays as it was";

#[tokio::test(flavor = "multi_thread")]
async fn what_the_file_says_now_is_in_force() {
    let (first, second) = (Handler::fine().await, Handler::fine().await);
    let daemon = Binary::serve("", "", &first.url()).await;
    assert_eq!(status(&daemon, &roll(&daemon, 1)).await, 200);

    daemon.rewrite("[limits]\nbody = \"1KiB\"\n[log]\nlevel = \"debug\"", "path = \"/other\"", &second.url());
    reload(&daemon, DONE).await;
    assert_eq!(status(&daemon, &roll(&daemon, 2)).await, 404);
    let other = format!("http://{}/other", daemon.address);
    assert_eq!(discord(&daemon).send(&other, &roll(&daemon, 3)).await.unwrap().status, 413);
    let ping = Author::new(SystemClock.unix_time(), 0).ping();
    assert_eq!(discord(&daemon).send(&other, &discord(&daemon).sign(&ping)).await.unwrap().status, 200);
    assert_eq!(daemon.log().matches("POST /other goes to").count(), 1, "{}", daemon.log());

    daemon.rewrite("", "path = \"/other\"", &second.url());
    reload(&daemon, DONE).await;
    assert_eq!(discord(&daemon).send(&other, &roll(&daemon, 4)).await.unwrap().status, 200);
    assert_eq!((first.calls(), second.calls()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_level_is_reloaded() {
    let daemon = Binary::serve("", "", "http://127.0.0.1:9/").await;
    let nonsense = async || {
        let mut stream = TcpStream::connect(daemon.address).await.unwrap();
        stream.write_all(b"nonsense\r\n\r\n").await.unwrap();
        assert!(wire::read_answer(&mut stream).await.starts_with("http/1.1 400"));
    };
    nonsense().await;
    daemon.rewrite("[log]\nlevel = \"debug\"", "", "http://127.0.0.1:9/");
    reload(&daemon, DONE).await;
    assert!(!daemon.log().contains("malformed_http"), "{}", daemon.log());
    nonsense().await;
    daemon.until_log("malformed_http").await;
}

/// `check` and SIGHUP come to the same end, and a mistake of whatever kind changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_keeps_what_is_in_force_and_is_named_with_its_line() {
    let handler = Handler::fine().await;
    let daemon = Binary::serve("", "", &handler.url()).await;
    let check = || command().args(["check", "--config"]).arg(daemon.config()).output().unwrap();
    let key = "[tls]\ncertificate = \"/no/cert.pem\"\nkey = \"/no/key.pem\"";
    let mistakes = [
        ("prot = 1", "", "config.toml:2: unknown key `prot`: did you mean `port`?"),
        ("", "in_flight = 0\npath = \"x\"", "config.toml:8: `apps.mybot.in_flight`"),
        (key, "", "cannot read /no/cert.pem"),
        ("[", "", "config.toml:2: this is not TOML"),
    ];
    for (salt, (settings, app, words)) in mistakes.into_iter().enumerate() {
        daemon.rewrite(settings, app, &handler.url());
        reload(&daemon, KEPT).await;
        let log = daemon.log();
        let line = log.lines().rfind(|line| line.contains(KEPT)).unwrap();
        assert!(line.contains(" ERROR ") && line.contains(words), "{words} is not in {line}");
        assert_eq!(check().status.code(), Some(78), "{words}");
        assert_eq!(status(&daemon, &roll(&daemon, salt as u64)).await, 200);
    }
    std::fs::remove_file(daemon.config()).unwrap();
    reload(&daemon, "cannot read the config file").await;
    assert_eq!(check().status.code(), Some(78));
    daemon.rewrite("", "", &handler.url());
    reload(&daemon, DONE).await;
    assert_eq!(check().status.code(), Some(0));
    assert_eq!(daemon.log().matches(KEPT).count(), 5);
}

/// A mistake cannot say things to systemd, or write lines of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_is_one_line_whatever_is_in_it() {
    let daemon = Binary::serve("", "", "http://127.0.0.1:9/").await;
    daemon.rewrite("\"a\\nREADY=1\\nMAINPID=1\" = 1", "", "http://127.0.0.1:9/");
    daemon.until_log("goes to").await;
    let before = daemon.log().lines().count();
    reload(&daemon, KEPT).await;
    assert_eq!(daemon.log().lines().count(), before + 1, "{}", daemon.log());
}

/// Files that hang hold a reload up, and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_a_reload_that_hangs() {
    let handler = Handler::fine().await;
    let mut daemon = Binary::serve("", "", &handler.url()).await;
    let pipe = daemon.folder.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    daemon.rewrite(&format!("[tls]\ncertificate = {pipe:?}\nkey = {pipe:?}"), "", &handler.url());
    daemon.signal("HUP");
    // Somebody reads the pipe: the reload hangs.
    let writer = std::fs::File::options().write(true).open(&pipe).unwrap();
    assert_eq!(status(&daemon, &roll(&daemon, 1)).await, 200);
    daemon.signal("TERM");
    daemon.until_log("stopping").await;
    assert_eq!(daemon.wait().code(), Some(0));
    drop(writer);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_a_restart_is_said() {
    let handler = Handler::fine().await;
    let daemon = Binary::serve("", "", &handler.url()).await;
    let folder = daemon.folder.path();
    let settings = format!(
        "port = 1\naddress = \"127.0.0.2\"\nunix_socket = {:?}\nstate_dir = {folder:?}\n[log]\nformat = \"json\"",
        folder.join("socket")
    );
    daemon.rewrite(&settings, "error_message = \"Sorry.\"", &handler.url());
    reload(&daemon, DONE).await;
    for key in ["`address`", "`port`", "`unix_socket`", "`state_dir`", "`log.format`"] {
        let line = format!("{key} has changed, which takes a restart of the daemon");
        assert!(daemon.log().contains(&line), "{line} is not in {}", daemon.log());
    }
    assert_eq!(status(&daemon, &roll(&daemon, 1)).await, 200);
}

/// A handler that is still the same keeps its connections, and what it is working on counts on.
#[tokio::test(flavor = "multi_thread")]
async fn what_did_not_change_is_carried_over() {
    let (handler, gate) = Handler::gated().await;
    let daemon = Binary::serve("[limits]\nin_flight = 2", "in_flight = 2", &handler.url()).await;
    gate.add_permits(1);
    assert_eq!(status(&daemon, &roll(&daemon, 1)).await, 200);
    reload(&daemon, DONE).await;
    let (discord, url, waiting) = (discord(&daemon), daemon.url(), roll(&daemon, 2));
    let waiting = tokio::spawn(async move { discord.send(&url, &waiting).await });
    until("it has arrived", || async { handler.calls() == 2 }).await;
    let received = handler.received();
    assert_eq!(received[0].from, received[1].from, "over the same connection");

    for (settings, app) in [("", "in_flight = 1"), ("[limits]\nin_flight = 1", "")] {
        daemon.rewrite(settings, app, &handler.url());
        reload(&daemon, DONE).await;
        assert_eq!(status(&daemon, &roll(&daemon, 3)).await, 503, "the one that waits is the one that may");
    }
    daemon.rewrite("", "in_flight = 2", &handler.url());
    reload(&daemon, DONE).await;
    gate.add_permits(2);
    assert_eq!(status(&daemon, &roll(&daemon, 4)).await, 200);
    assert_eq!(waiting.await.unwrap().unwrap().status, 200);
}

/// The same file with other certificates in it is another handler.
#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_authority_is_trusted() {
    let (ours, theirs) = (Certificates::for_days(90), Certificates::for_days(90));
    let handler = Handler::over_tls(ours.chain(), ours.key(), |_| async { json(r#"{"type":4}"#) }).await;
    let url = handler.url().replace("http://127.0.0.1", "https://localhost");
    let ca = theirs.path("root.pem");
    let named = format!("[handlers.bot]\nurls = [\"{url}\"]\nca = {ca:?}");
    let daemon = Binary::serve(&named, "", "bot").await;
    assert_eq!(status(&daemon, &roll(&daemon, 1)).await, 502);
    std::fs::copy(ours.path("root.pem"), &ca).unwrap();
    reload(&daemon, DONE).await;
    assert_eq!(status(&daemon, &roll(&daemon, 2)).await, 200);
    let from = |n: usize| handler.received()[n].from;
    reload(&daemon, DONE).await;
    assert_eq!(status(&daemon, &roll(&daemon, 3)).await, 200);
    assert_eq!(from(0), from(1), "over the same connection");
}

/// What came before a reload is remembered after it.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_forwarded_twice_across_a_reload() {
    let handler = Handler::fine().await;
    let daemon = Binary::serve("", "", &handler.url()).await;
    let signed = roll(&daemon, 1);
    assert_eq!(status(&daemon, &signed).await, 200);
    daemon.rewrite("[replay]\nwindow = \"1min\"", "", &handler.url());
    reload(&daemon, DONE).await;
    assert_eq!(status(&daemon, &signed).await, 200);
    assert_eq!(handler.calls(), 1);
    daemon.rewrite("[replay]\nenabled = false", "", &handler.url());
    reload(&daemon, DONE).await;
    assert_eq!(status(&daemon, &signed).await, 200);
    assert_eq!(handler.calls(), 2, "no replay is looked for");
}

/// A request that is under way when the config changes ends by the one that it began with.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_in_flight_is_not_disturbed() {
    let (handler, gate) = Handler::gated().await;
    let daemon = Binary::serve("", "", &handler.url()).await;
    let (discord, url, signed) = (discord(&daemon), daemon.url(), roll(&daemon, 1));
    let call = tokio::spawn(async move { discord.send(&url, &signed).await });
    until("it has arrived", || async { handler.calls() == 1 }).await;
    let other = Handler::start(|_| async { json(r#"{"type":5}"#) }).await;
    daemon.rewrite("[limits]\nin_flight = 1", "path = \"/other\"", &other.url());
    reload(&daemon, DONE).await;
    gate.add_permits(1);
    assert_eq!(call.await.unwrap().unwrap().body, r#"{"type":4}"#);
    assert_eq!(other.calls(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_reloads_at_once_and_one_in_a_stop_do_no_harm() {
    let (handler, gate) = Handler::gated().await;
    let mut daemon = Binary::serve("", "", &handler.url()).await;
    let (discord, url, signed) = (discord(&daemon), daemon.url(), roll(&daemon, 1));
    let call = tokio::spawn(async move { discord.send(&url, &signed).await });
    until("it has arrived", || async { handler.calls() == 1 }).await;
    for _ in 0..5 {
        daemon.signal("HUP");
    }
    daemon.until_log(DONE).await;
    daemon.signal("TERM");
    daemon.until_log("stopping").await;
    daemon.signal("HUP");
    gate.add_permits(1);
    assert_eq!(call.await.unwrap().unwrap().status, 200);
    assert_eq!(daemon.wait().code(), Some(0));
}

/// A handler that many routes lead to is made ready once, its certificates read once.
#[test]
fn many_routes_to_one_handler_are_soon_ready() {
    let certificates = Certificates::for_days(30);
    let roots = std::fs::read_to_string(certificates.path("root.pem")).unwrap().repeat(300);
    let ca = certificates.path("roots.pem");
    std::fs::write(&ca, roots).unwrap();
    let mut text = format!(
        "[handlers.bot]\nurls = [\"https://127.0.0.1:9/\"]\nca = {ca:?}\n[apps.mybot]\nhandler = \"bot\"\n\
         public_key = \"d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a\"\n"
    );
    for n in 0..1000 {
        text.push_str(&format!("[[apps.mybot.routes]]\ncommand = \"c{n}\"\nhandler = \"bot\"\n"));
    }
    let config = Config::parse("test.toml", &text).unwrap();
    let start = Instant::now();
    let first = Snapshot::build(&config, None).unwrap();
    Snapshot::build(&config, Some(&first)).unwrap();
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}
