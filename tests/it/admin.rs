//! The admin listener: what the operator, a supervisor and Prometheus ask.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use rstest::rstest;
use shardless::clock::{Clock, SystemClock};
use shardless::config::Config;
use shardless::daemon::Daemon;
use shardless::rehearsal::{Author, StandIn};
use shardless::systemd::Sockets;

use crate::support::admin::{ADMIN, ask, get, send};
use crate::support::certificates::Signed as Certificates;
use crate::support::{Binary, Handler, TestDaemon, command, until};

const KEY: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

async fn daemon(settings: &str) -> (TestDaemon, SocketAddr) {
    let daemon = TestDaemon::with(&format!("{settings}\n{ADMIN}"), "", Handler::fine().await).await;
    let admin = daemon.admin.unwrap();
    until("all is well", || async { get(admin, "/readyz").check("outbox").0 == "ok" }).await;
    until("it serves", || async { get(admin, "/readyz").status == 200 }).await;
    (daemon, admin)
}

/// Where the admin listener of a process is.
async fn admin_of(daemon: &Binary) -> SocketAddr {
    daemon.until_log("status page on http://").await;
    let log = daemon.log();
    let rest = log.split("status page on http://").nth(1).unwrap();
    rest.split('/').next().unwrap().parse().unwrap()
}

/// A supervisor may know this machine by any name; what is said for people is for them alone.
#[tokio::test(flavor = "multi_thread")]
async fn readiness_is_told_to_all_and_its_reasons_to_its_own() {
    let (_daemon, admin) = daemon("").await;
    let ask = |host| ask(admin, "GET", "/readyz", &format!("host: {host}\r\n")).json();
    let (own, foreign) = (ask("localhost:3001"), ask("evil.example.com"));
    assert_eq!(own["status"], foreign["status"]);
    let texts = |json: &serde_json::Value| {
        let checks = json["checks"].as_array().unwrap().iter();
        checks.map(|check| check["text"].as_str().unwrap().len()).collect::<Vec<_>>()
    };
    assert!(texts(&own).iter().all(|length| *length > 0), "{own}");
    assert!(texts(&foreign).iter().all(|length| *length == 0), "{foreign}");
}

/// A link from elsewhere may lead to the page, whose data are for itself alone.
#[tokio::test(flavor = "multi_thread")]
async fn other_sites_get_no_data() {
    let (_daemon, admin) = daemon("").await;
    let ask = |path, site| {
        ask(admin, "GET", path, &format!("host: localhost\r\nsec-fetch-site: {site}\r\n")).status
    };
    for path in ["/status.json", "/charts.json", "/events", "/metrics"] {
        assert_eq!(ask(path, "cross-site"), 403, "{path}");
    }
    assert_eq!((ask("/", "cross-site"), ask("/status.json", "same-origin")), (200, 200));
}

#[rstest]
#[case("/", 200, "text/html; charset=utf-8", "<!doctype html>")]
#[case("/livez", 200, "text/plain; charset=utf-8", "ok\n")]
#[case(
    "/readyz",
    200,
    "application/json",
    "{\"status\":\"ok\",\"checks\":[{\"name\":\"serving\",\"part\":\"daemon\","
)]
#[case("/metrics", 200, "application/openmetrics-text; version=1.0.0; charset=utf-8", "# HELP shardless_")]
#[case("/livez?x=1", 200, "text/plain; charset=utf-8", "ok\n")]
#[case("/nothing", 404, "text/plain; charset=utf-8", "there is nothing here")]
#[case("/interactions", 404, "text/plain; charset=utf-8", "there is nothing here")]
#[tokio::test(flavor = "multi_thread")]
async fn each_path_has_its_answer(
    #[case] path: &str,
    #[case] status: u16,
    #[case] kind: &str,
    #[case] begin: &str,
) {
    let (_daemon, admin) = daemon("").await;
    let answer = get(admin, path);
    assert_eq!((answer.status, answer.header("content-type")), (status, Some(kind)), "{}", answer.body);
    assert!(answer.body.starts_with(begin), "{}", answer.body);
    for (name, value) in [
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name}");
    }
    let policy = answer.header("content-security-policy");
    assert_eq!(policy.is_some_and(|policy| policy.starts_with("default-src 'none'; ")), path == "/");

    // Metrics change from one answer to the next.
    let head = ask(admin, "HEAD", path, "host: localhost\r\n");
    assert_eq!((head.status, head.header("content-type"), &*head.body), (status, Some(kind), ""));
    assert!(head.header("content-length").is_some(), "{}", head.head);
    if path == "/" {
        assert_eq!(head.header("content-length"), answer.header("content-length"));
    }

    // Prometheus would be content with less.
    let plain = ask(admin, "GET", path, "host: localhost\r\naccept: text/plain\r\n");
    assert_eq!((plain.status, plain.header("content-type")), (status, Some(kind)));
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_only_get_and_head() {
    let (_daemon, admin) = daemon("").await;
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "get"] {
        for path in ["/", "/livez", "/nothing"] {
            let body = "host: localhost\r\ncontent-length: 2\r\n\r\n{}";
            let answer = send(admin, &format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n{body}"));
            assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")), "{method} {path}");
            assert_eq!(answer.header("cache-control"), Some("no-store"));
        }
    }
    let with_body = ask(admin, "GET", "/livez", "host: localhost\r\ncontent-length: 2\r\n\r\n{}");
    assert_eq!(with_body.status, 200, "a body is for nobody");
}

/// Another site cannot read the page, neither by a name of its own that leads here nor as itself.
#[rstest]
#[case::by_name("host: localhost\r\n", 200)]
#[case::by_address("host: 127.0.0.1:3001\r\n", 200)]
#[case::over_ipv6("host: [::1]:3001\r\n", 200)]
#[case::same_origin("host: localhost\r\nsec-fetch-site: same-origin\r\n", 200)]
#[case::typed("host: localhost\r\nsec-fetch-site: none\r\n", 200)]
#[case::rebound("host: evil.example.com:3001\r\n", 421)]
#[case::below_localhost("host: evil.localhost\r\n", 421)]
#[case::nameless("", 421)]
#[case::empty("host: \r\n", 421)]
#[case::twice("host: localhost\r\nhost: evil.example.com\r\n", 421)]
#[case::no_text("host: \u{e4}\r\n", 421)]
#[tokio::test(flavor = "multi_thread")]
async fn only_its_own_machines_names_lead_to_the_page(#[case] headers: &str, #[case] status: u16) {
    let (_daemon, admin) = daemon("").await;
    for path in ["/", "/nothing"] {
        let answer = ask(admin, "GET", path, headers);
        let expected = if status == 200 && path != "/" { 404 } else { status };
        assert_eq!(answer.status, expected, "{path}");
        if status == 421 {
            assert!(answer.body.contains("ssh -L PORT:localhost:PORT"), "{}", answer.body);
            assert!(!answer.body.contains("<"));
        }
    }
    for path in ["/livez", "/readyz", "/metrics"] {
        let expected = if status == 403 { 403 } else { 200 };
        assert_eq!(ask(admin, "GET", path, headers).status, expected, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_does_not_serve_yet_is_alive_but_not_ready() {
    let state = tempfile::tempdir().unwrap();
    let text = format!(
        "port = 0\nstate_dir = {:?}\n{ADMIN}\n[apps.mybot]\nhandler = \"http://127.0.0.1:9/\"\npublic_key = \"{KEY}\"\n",
        state.path()
    );
    let config = Config::parse("test.toml", &text).unwrap();
    let daemon = Daemon::bind(config, Sockets::default(), Arc::new(SystemClock)).unwrap();
    let admin = daemon.admin_addresses()[0];
    let ready = get(admin, "/readyz");
    assert_eq!((ready.status, ready.json()["status"].as_str()), (503, Some("starting")));
    assert_eq!(get(admin, "/livez").status, 200);
    drop(daemon);
    assert!(TcpStream::connect(admin).is_err(), "it ends with its daemon");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_table_there_is_none() {
    assert_eq!(TestDaemon::start().await.admin, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_tell_of_the_daemon_its_limits_and_its_process() {
    let (daemon, admin) = daemon("[limits]\nin_flight = 7").await;
    daemon.assert_works().await;
    let text = get(admin, "/metrics").body;
    let value = |name: &str| {
        let found =
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse::<f64>().ok());
        found.unwrap_or_else(|| panic!("no {name} in\n{text}"))
    };
    let answered = "shardless_interactions_total{app=\"mybot\",kind=\"command\",outcome=\"answered\"}";
    assert_eq!(value(answered), 1.0);
    for limit in ["in_flight", "connections", "deferred", "buffered"] {
        let used = value(&format!("shardless_limit_used_ratio{{limit=\"{limit}\"}}"));
        assert!((0.0..0.1).contains(&used), "{limit}: {used}");
    }
    for check in ["serving", "config", "outbox", "capacity"] {
        assert_eq!(value(&format!("shardless_check_ok{{check=\"{check}\"}}")), 1.0);
    }
    assert_eq!(value("shardless_config_last_reload_successful"), 1.0);
    let started = value("process_start_time_seconds");
    assert_eq!(value("shardless_config_last_reload_success_timestamp_seconds"), started);
    assert!(text.contains(concat!(
        "shardless_build_info{version=\"",
        env!("CARGO_PKG_VERSION"),
        "\",verification="
    )));
    assert!(value("process_resident_memory_bytes") < value("process_virtual_memory_bytes"));
    assert!(value("process_open_fds") < value("process_max_fds"));
    assert!(value("process_threads") > 1.0 && value("process_cpu_seconds_total") >= 0.0);
    assert!(!text.contains("certificate"), "there is no TLS");
    assert!(text.ends_with("\n# EOF\n") && text.matches("# EOF").count() == 1, "{text}");
    let mut families: Vec<_> = text.lines().filter(|line| line.starts_with("# TYPE ")).collect();
    let all = families.len();
    families.sort_unstable();
    families.dedup();
    assert_eq!(families.len(), all, "a family twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_told_until_when_the_certificate_holds() {
    let certificates = Certificates::for_days(10);
    let tls = certificates.settings("chain.pem", "key.pem");
    let daemon = Binary::serve(&format!("{tls}\n{ADMIN}"), "", "http://127.0.0.1:9/").await;
    let admin = admin_of(&daemon).await;
    let (status, text) = get(admin, "/readyz").check("certificate");
    assert!(status == "degraded" && text.contains("ends in ") && text.contains("chain.pem"), "{text}");
    let metrics = get(admin, "/metrics").body;
    let line =
        metrics.lines().find(|line| line.starts_with("shardless_certificate_expiry_timestamp_seconds{"));
    let line = line.unwrap_or_else(|| panic!("{metrics}"));
    let left =
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() - SystemClock.unix_time().as_secs_f64();
    assert!((10.0 * 86_400.0..=11.0 * 86_400.0).contains(&left), "{line}");
    assert!(line.contains("chain.pem"), "{line}");

    // Its successor, which has more time, without a restart.
    let renewed = Certificates::for_days(90);
    daemon.rewrite(
        &format!("{}\n{ADMIN}", renewed.settings("chain.pem", "key.pem")),
        "",
        "http://127.0.0.1:9/",
    );
    daemon.signal("HUP");
    until("it is renewed", || async { get(admin, "/readyz").check("certificate").0 == "ok" }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_others_reach_is_warned_of() {
    let handler = Handler::fine().await;
    let daemon = Binary::serve(&format!("{ADMIN}\naddress = \"0.0.0.0\""), "", &handler.url()).await;
    daemon.until_log("has no password").await;
    let local = Binary::serve(ADMIN, "", &handler.url()).await;
    local.until_log("status page on").await;
    assert!(!local.log().contains("has no password"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_fails_is_degraded_until_one_succeeds() {
    let handler = Handler::fine().await;
    let daemon = Binary::serve(ADMIN, "", &handler.url()).await;
    let admin = admin_of(&daemon).await;
    until("all is well", || async { get(admin, "/readyz").json()["status"] == "ok" }).await;
    daemon.rewrite(&format!("prot = 1\n{ADMIN}"), "", &handler.url());
    daemon.signal("HUP");
    until("it is told", || async { get(admin, "/readyz").json()["status"] == "degraded" }).await;
    let ready = get(admin, "/readyz");
    let (status, text) = ready.check("config");
    assert_eq!((ready.status, &*status), (200, "degraded"));
    assert!(text.contains("config.toml:2: unknown key `prot`"), "{text}");
    assert!(get(admin, "/metrics").body.contains("shardless_config_last_reload_successful 0"));
    daemon.rewrite(ADMIN, "", &handler.url());
    daemon.signal("HUP");
    until("it is well again", || async { get(admin, "/readyz").json()["status"] == "ok" }).await;
    daemon.rewrite("[admin]\nport = 1", "", &handler.url());
    daemon.signal("HUP");
    daemon.until_log("`[admin]` has changed, which takes a restart of the daemon").await;
    assert_eq!(get(admin, "/livez").status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_drains_is_alive_but_not_ready_and_tells_so_to_the_end() {
    let (handler, gate) = Handler::gated().await;
    let mut daemon = Binary::serve(ADMIN, "", &handler.url()).await;
    let admin = admin_of(&daemon).await;
    until("it serves", || async { get(admin, "/readyz").status == 200 }).await;
    let discord = StandIn::new(daemon.signer.clone(), Arc::new(SystemClock)).unwrap();
    let signed = discord.sign(&Author::new(SystemClock.unix_time(), 0).command("roll", &[]));
    let url = daemon.url();
    let call = tokio::spawn(async move { discord.send(&url, &signed).await });
    until("it has arrived", || async { handler.calls() == 1 }).await;
    daemon.signal("TERM");
    until("it drains", || async { get(admin, "/readyz").status == 503 }).await;
    let ready = get(admin, "/readyz");
    assert_eq!(ready.json()["status"], "draining");
    assert_eq!(ready.check("serving").0, "degraded");
    assert_eq!(get(admin, "/livez").status, 200);
    gate.add_permits(1);
    assert_eq!(call.await.unwrap().unwrap().status, 200);
    assert_eq!(daemon.wait().code(), Some(0));
    assert!(TcpStream::connect(admin).is_err());
}

#[test]
fn a_port_in_use_is_named_at_the_start() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.toml");
    let text = format!(
        "port = 0\nstate_dir = {:?}\n[admin]\nport = {port}\n[apps.mybot]\nhandler = \"http://127.0.0.1:9/\"\n\
         public_key = \"{KEY}\"\n",
        folder.path()
    );
    std::fs::write(&config, text).unwrap();
    let run = |what: &str| command().args([what, "--config"]).arg(&config).output().unwrap();
    let ended = run("serve");
    let error = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{error}");
    assert!(error.contains(&format!("cannot listen on 127.0.0.1:{port}: ")), "{error}");
    assert!(error.contains("change `admin.port`"), "{error}");
    assert_eq!(run("check").status.code(), Some(0), "a look at the config opens no port");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_answers_where_the_daemon_has_no_room_for_a_connection() {
    let (daemon, admin) = daemon("[limits]\nconnections = 1").await;
    let _held = TcpStream::connect(daemon.address).unwrap();
    until("it is accepted", || async { daemon.metric("shardless_connections") == 1.0 }).await;
    assert_eq!(get(admin, "/livez").status, 200);
    let ready = get(admin, "/readyz");
    let full = ("degraded".to_owned(), "limits.connections: 1 of 1 are taken".to_owned());
    assert_eq!((ready.status, ready.check("capacity")), (200, full));
}

/// The one who looks from outside is told what is so, by a thread that has nothing to do with it.
#[test]
fn it_answers_while_the_daemon_is_stuck() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (daemon, admin) = runtime.block_on(daemon(""));
    assert_eq!(get(admin, "/livez").status, 200);
    let (stuck, is_stuck) = mpsc::sync_channel(1);
    let (free, is_free) = mpsc::sync_channel::<()>(0);
    runtime.spawn(async move {
        stuck.send(()).unwrap();
        _ = is_free.recv();
    });
    is_stuck.recv().unwrap();
    let live = get(admin, "/livez");
    assert_eq!(live.status, 503);
    assert!(live.body.contains("the daemon is stuck"), "{}", live.body);
    for path in ["/readyz", "/metrics", "/"] {
        assert_eq!(get(admin, path).status, 200, "{path}");
    }
    drop(free);
    assert_eq!(get(admin, "/livez").status, 200);
    drop(daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn its_connections_are_kept_and_counted() {
    let daemon = TestDaemon::before(&format!("{ADMIN}\nconnections = 1"), "", "http://127.0.0.1:9/").await;
    let admin = daemon.admin.unwrap();
    let mut first = TcpStream::connect(admin).unwrap();
    let mut ask = |times: usize| {
        for _ in 0..times {
            first.write_all(b"HEAD /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
            let mut answer = Vec::new();
            let mut byte = [0];
            while !answer.ends_with(b"\r\n\r\n") {
                first.read_exact(&mut byte).unwrap();
                answer.push(byte[0]);
            }
            assert!(answer.starts_with(b"HTTP/1.1 200 "));
        }
    };
    ask(3);
    let mut second = TcpStream::connect(admin).unwrap();
    second.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    second.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(second.read(&mut [0]).is_err(), "there is no room for it");
    ask(1);
    drop(first);
    second.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut answer = String::new();
    second.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}
