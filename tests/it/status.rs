//! The status as JSON and as events: what happened is told, as it is documented.

use std::io::BufRead;
use std::net::SocketAddr;
use std::time::Duration;

use rstest::rstest;
use serde_json::{Value, json as value};
use shardless::rehearsal::rest::Script;

use crate::support::admin::{ADMIN, Reader, get};
use crate::support::late::{Stage, late};
use crate::support::{Handler, TestDaemon, json, until};

/// Keys whose values are maps from words.
const MAPS: [&str; 6] = ["totals", "refusals", "connection_faults", "ends", "discord", "limits"];

async fn daemon(settings: &str, app: &str, handler: Handler) -> (TestDaemon, SocketAddr) {
    let daemon = TestDaemon::with(&format!("{settings}\n{ADMIN}"), app, handler).await;
    let admin = daemon.admin.unwrap();
    (daemon, admin)
}

fn status(admin: SocketAddr) -> Value {
    get(admin, "/status.json").json()
}

fn replica(admin: SocketAddr) -> Value {
    status(admin)["handlers"][0]["replicas"][0].clone()
}

/// What happened with the newest interaction, in words.
fn steps(admin: SocketAddr) -> Vec<String> {
    let status = status(admin);
    let steps = status["interactions"][0]["steps"].as_array().unwrap();
    let mut last = 0.0;
    for step in steps {
        let at = step["at"].as_f64().unwrap();
        assert!(at >= last, "out of order: {steps:?}");
        last = at;
    }
    steps.iter().map(|step| step["what"].as_str().unwrap().to_owned()).collect()
}

fn check(admin: SocketAddr, name: &str) -> String {
    let status = status(admin);
    let check = status["checks"].as_array().unwrap().iter().find(|check| check["name"] == name).cloned();
    check.unwrap()["status"].as_str().unwrap().to_owned()
}

/// Asserts that both have the same keys, down to the first element of each list.
fn assert_same_shape(path: &str, documented: &Value, real: &Value) {
    match (documented, real) {
        (Value::Object(documented), Value::Object(real)) => {
            if MAPS.iter().any(|map| path.ends_with(map)) {
                return;
            }
            let keys = |object: &serde_json::Map<String, Value>| object.keys().cloned().collect::<Vec<_>>();
            assert_eq!(keys(documented), keys(real), "{path}");
            for (key, value) in documented {
                assert_same_shape(&format!("{path}.{key}"), value, &real[key]);
            }
        }
        (Value::Array(documented), Value::Array(real)) => {
            for (one, other) in documented.iter().zip(real) {
                assert_same_shape(path, one, other);
            }
        }
        (_, Value::Null) | (Value::Null, _) => {}
        (documented, real) => {
            let kind = |value: &Value| (value.is_string(), value.is_number(), value.is_boolean());
            assert_eq!(kind(documented), kind(real), "{path}: {documented} and {real}");
        }
    }
}

/// The JSON of a section of the documentation.
fn documented(heading: &str) -> Value {
    let text = include_str!("../../docs/status.md");
    let section = text.split_once(&format!("\n## {heading}")).unwrap().1;
    let json = section.split_once("```json\n").unwrap().1.split_once("```").unwrap().0;
    serde_json::from_str(json).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documents_have_the_shape_that_is_documented() {
    let (daemon, admin) = daemon("", "", Handler::fine().await).await;
    daemon.send(&daemon.command()).await;
    assert_same_shape("", &documented("`/status.json`"), &status(admin));
    let charts = get(admin, "/charts.json").json();
    let charts_documented = documented("`/charts.json`");
    assert_same_shape("", &charts_documented, &charts);
    assert_eq!(charts["columns"], charts_documented["columns"]);
    for (documented, real) in
        charts_documented["spans"].as_array().unwrap().iter().zip(charts["spans"].as_array().unwrap())
    {
        for key in ["name", "step", "length"] {
            assert_eq!(documented[key], real[key]);
        }
        for slot in real["slots"].as_array().unwrap() {
            assert_eq!(slot.as_array().unwrap().len(), charts["columns"].as_array().unwrap().len());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_is_what_is_told() {
    let handler = Handler::start(|request| async move {
        let is_bad = String::from_utf8_lossy(&request.body).contains("\"bad\"");
        if is_bad { json("[]") } else { json(r#"{"type":4,"data":{"content":"hi"}}"#) }
    });
    let (daemon, admin) = daemon("", "", handler.await).await;
    let mut author = daemon.author(1);
    let hostile = "<img src=x onerror=alert(1)>\u{202e}\n";
    for _ in 0..3 {
        daemon.send(&daemon.command()).await;
    }
    daemon.send(&daemon.discord.sign(&author.command("bad", &[]))).await;
    daemon.send(&daemon.discord.sign(&author.ping())).await;
    daemon.send(&daemon.discord.sign(&author.button(hostile))).await;
    let forged = daemon.discord.sign(&author.command("roll", &[])).forge();
    assert_eq!(daemon.send(&forged).await.status, 401);
    let status = status(admin);
    assert_eq!(status["apps"][0]["totals"], value!({ "answered": 4, "failed": 1, "pong": 1 }));
    assert_eq!(status["refusals"], value!({ "bad_signature": 1 }));
    let rows = status["interactions"].as_array().unwrap();
    let told: Vec<_> =
        rows.iter().map(|row| (row["name"].as_str(), row["outcome"].as_str().unwrap())).collect();
    assert_eq!(told[..3], [(Some(hostile), "answered"), (None, "pong"), (Some("bad"), "failed")]);
    assert!(rows[2]["text"].as_str().unwrap().contains("it answered 200, but"), "{}", rows[2]);
    let charts = get(admin, "/charts.json").json();
    for span in charts["spans"].as_array().unwrap() {
        let sum = |column: usize| -> u64 {
            span["slots"].as_array().unwrap().iter().map(|slot| slot[column].as_u64().unwrap()).sum()
        };
        assert_eq!((sum(1), sum(6), sum(8), sum(9), sum(10)), (4, 1, 1, 1, 0), "{span}");
    }
    let of_app = get(admin, "/charts.json?app=mybot").json();
    assert_eq!(of_app["app"], "mybot");
    assert_eq!(get(admin, "/charts.json?app=nobody").status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_tells_what_happened_when() {
    let (daemon, admin) = daemon("", "", Handler::fine().await).await;
    daemon.send(&daemon.command()).await;
    let url = daemon.handler.url();
    assert_eq!(steps(admin), ["first byte", "verified", "forwarded", &format!("{url} answered"), "answered"]);
    let again = daemon.command();
    daemon.send(&again).await;
    daemon.send(&again).await;
    assert_eq!(steps(admin), ["first byte", "verified", "duplicate"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deferred_interaction_is_told_of_to_its_end() {
    let handler = late(r#"{"type":4,"data":{"content":"done"}}"#).await;
    let stage = Stage::following(Script::default(), ADMIN, "", handler).await;
    let admin = stage.daemon.admin.unwrap();
    stage.deferred_command().await;
    let row = &status(admin)["interactions"][0];
    assert_eq!((row["outcome"].as_str(), row["is_over"].as_bool()), (Some("deferred"), Some(false)));
    assert_eq!(row["handler"], stage.daemon.handler.url());
    assert_eq!(status(admin)["outbox"]["entries"], 1);
    until("it is over", || async { status(admin)["interactions"][0]["is_over"] == true }).await;
    let told = [
        "first byte",
        "verified",
        "forwarded",
        "deferred",
        "deferral handed over to Discord",
        "handler answered late",
        "late answer delivered",
    ];
    assert_eq!(steps(admin), told);
    let outbox = &status(admin)["outbox"];
    assert_eq!((&outbox["ends"], &outbox["discord"]), (&value!({ "answered": 1 }), &value!({ "200": 1 })));
}

/// That it stays private is told once, since it would be the same each time; what Discord will refuse is told always.
#[rstest]
#[case::stays_private(
    "hello",
    [
        "handler answered late, but it was to be public, but came late, and its interaction had been deferred for its \
         user alone, so it stays private; set ephemeral = false, or give the answer flag 64",
        "handler answered late",
    ]
)]
#[case::is_refused(
    &"x".repeat(2001),
    ["handler answered late, but Discord will refuse it: `content` has 2001 characters; Discord takes at most 2000"; 2]
)]
#[tokio::test(flavor = "multi_thread")]
async fn what_the_author_of_a_late_answer_should_know_is_told(
    #[case] content: &str,
    #[case] told: [&str; 2],
) {
    let handler = late(&format!(r#"{{"type":4,"data":{{"content":"{content}"}}}}"#)).await;
    let stage = Stage::following(Script::default(), ADMIN, "ephemeral = true", handler).await;
    let admin = stage.daemon.admin.unwrap();
    for told in told {
        let payload = stage.deferred_command().await;
        stage.end_of(&payload).await;
        let steps = steps(admin);
        assert!(steps.iter().any(|step| step == told), "{steps:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_is_gone_is_seen_though_nobody_calls_it() {
    let (mut daemon, admin) = daemon("", "", Handler::fine().await).await;
    // While somebody looks, handlers are looked after each second.
    let _page = Reader::open(admin);
    until("it is up", || async { replica(admin)["state"] == "up" }).await;
    assert_eq!(check(admin, "handlers"), "ok");
    daemon.handler.kill().await;
    until("it is down", || async { replica(admin)["state"] == "down" }).await;
    assert_eq!(check(admin, "handlers"), "degraded");
    assert_eq!(status(admin)["status"], "degraded");
    assert!(replica(admin)["text"].as_str().unwrap().contains("connect"), "{}", replica(admin));
    assert_eq!(daemon.handler.calls(), 0, "to look is not to call");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_hangs_is_in_trouble_though_it_listens() {
    let (handler, _gate) = Handler::gated().await;
    let (daemon, admin) = daemon("", "answer_within = \"100ms\"", handler).await;
    for _ in 0..3 {
        assert_eq!(check(admin, "handlers"), "ok");
        daemon.send(&daemon.command()).await;
    }
    until("it is failing", || async { replica(admin)["state"] == "failing" }).await;
    until("it is in trouble", || async { check(admin, "handlers") == "degraded" }).await;
    assert!(replica(admin)["text"].as_str().unwrap().contains("no answer in time"), "{}", replica(admin));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_answers_nonsense_is_told_of() {
    let (daemon, admin) = daemon("", "", Handler::start(|_| async { json("[]") }).await).await;
    for _ in 0..4 {
        daemon.send(&daemon.command()).await;
    }
    assert_eq!((check(admin, "answers"), check(admin, "handlers")), ("ok".to_owned(), "ok".to_owned()));
    daemon.send(&daemon.command()).await;
    assert_eq!(check(admin, "answers"), "degraded");
}

/// To Prometheus, a sum that falls is none.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_came_too_late_had_no_time_left() {
    let (handler, gate) = Handler::gated().await;
    let (daemon, _) = daemon("", "on_slow = \"fail\"", handler).await;
    let command = daemon.command();
    let sending = daemon.send(&command);
    let passing = async {
        until("it is at its handler", || async { daemon.handler.calls() == 1 }).await;
        daemon.clock.pass(Duration::from_secs(5));
        gate.add_permits(1);
    };
    tokio::join!(sending, passing);
    daemon.send(&daemon.discord.sign(&daemon.author(7).ping())).await;
    let margin =
        |what: &str| daemon.metric(&format!("shardless_deadline_margin_seconds_{what}app=\"mybot\"}}"));
    assert_eq!((margin("sum{"), margin("count{"), margin("bucket{le=\"0.0\",")), (0.0, 1.0, 1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_that_stand_open_leave_room_for_those_who_only_ask() {
    let settings = format!("{ADMIN}\nconnections = 4");
    let daemon = TestDaemon::with(&settings, "", Handler::fine().await).await;
    let admin = daemon.admin.unwrap();
    let pages = [Reader::open(admin), Reader::open(admin)];
    let opened = pages.map(|mut page| (page.next().0, page));
    assert!(opened.iter().all(|(name, _)| name == "status"));
    assert_eq!(get(admin, "/events").status, 503);
    assert_eq!(get(admin, "/livez").status, 200);
    drop(opened);
    until("there is room again", || async {
        let mut page = Reader::open(admin);
        page.status() == 200
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_not_the_applications_is_told_of() {
    let (daemon, admin) = daemon("", "", Handler::fine().await).await;
    let mut author = daemon.author(1);
    for _ in 0..10 {
        daemon.send(&daemon.discord.sign(&author.command("roll", &[])).forge()).await;
    }
    assert_eq!(check(admin, "endpoint"), "degraded");
    daemon.send(&daemon.command()).await;
    assert_eq!(check(admin, "endpoint"), "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_tell_everything_once_and_then_what_changes() {
    let (daemon, admin) = daemon("", "", Handler::fine().await).await;
    daemon.send(&daemon.command()).await;
    let mut reader = Reader::open(admin);
    let (name, all) = reader.next();
    assert_eq!((&*name, all["interactions"].as_array().unwrap().len()), ("status", 1));
    assert!(all.get("charts").is_none());
    let first = all["interactions"][0]["key"].clone();
    daemon.send(&daemon.command()).await;
    // Seen in one event, or in two where one is just being made.
    let (mut rows, mut counted) = (Vec::new(), 0);
    while rows.is_empty() || counted == 0 {
        let (name, changes) = reader.next();
        assert_eq!(name, "tick");
        assert_eq!(changes["version"], 1);
        let new = changes["interactions"].as_array().unwrap().iter().filter(|row| row["key"] != first);
        rows.extend(new.cloned());
        let charts = changes["charts"].as_array().unwrap();
        counted += charts.iter().filter(|charts| charts["app"] == "mybot").count();
    }
    assert_eq!(rows.len(), 1);
    let (_, quiet) = reader.next();
    let (_, quieter) = reader.next();
    assert_eq!(quieter["interactions"], value!([]), "after {quiet}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_ends_ends_its_streams() {
    let (daemon, admin) = daemon("", "", Handler::fine().await).await;
    let mut reader = Reader::open(admin);
    reader.next();
    drop(daemon);
    let ended = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        while reader.0.read_line(&mut line).is_ok_and(|read| read > 0) {}
    });
    tokio::time::timeout(Duration::from_secs(10), ended).await.unwrap().unwrap();
}
