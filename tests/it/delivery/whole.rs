//! What the whole daemon sends to Discord, byte for byte, and what it says of it.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use shardless::clock::{Clock, SystemClock};
use shardless::rehearsal::rest::fault::{Scope, Told};
use shardless::rehearsal::rest::{Api, Call, Fault, Race, Script};
use shardless::rehearsal::{Author, StandIn};

use crate::support::late::{ANSWER_WITHIN, late, slow, token};
use crate::support::{Binary, Handler, Response, TestDaemon, json, until};

const APP: &str = "answer_within = \"400ms\"";

/// A server in the place of Discord's API that gives these answers, one after the other, the last one again and again.
async fn discord(answers: Vec<Response>) -> Handler {
    let (answers, turn) = (Arc::new(answers), Arc::new(AtomicUsize::new(0)));
    Handler::start(move |_| {
        let turn = turn.fetch_add(1, Ordering::SeqCst).min(answers.len() - 1);
        let answer = answers[turn].clone();
        async move { answer }
    })
    .await
}

fn status(status: u16) -> Response {
    http::Response::builder().status(status).body(Bytes::new().into()).unwrap()
}

fn settings(discord: &Handler) -> String {
    format!("[discord]\napi = \"http://127.0.0.1:{}/api/v10\"", discord.port())
}

async fn defer(daemon: &TestDaemon) -> String {
    let payload = daemon.fresh_command();
    let exchange = daemon.send(&daemon.discord.sign(&payload)).await;
    assert_eq!(&exchange.body[..], br#"{"type":5}"#);
    token(&payload)
}

async fn until_over(daemon: &TestDaemon) {
    until("the end", || async { daemon.metric("shardless_outbox_entries") == 0.0 }).await;
}

#[tokio::test]
async fn discord_is_told_who_asks_and_nothing_else() {
    let discord = discord(vec![json("{}")]).await;
    let handler = late(r#"{"type":4,"data":{"content":"hello"}}"#).await;
    let daemon = TestDaemon::with(&settings(&discord), APP, handler).await;
    let token = defer(&daemon).await;
    until_over(&daemon).await;
    let got = discord.last();
    assert_eq!(got.path, format!("/api/v10/webhooks/845027738276462632/{token}/messages/@original"));
    assert_eq!(&got.body[..], br#"{"content":"hello"}"#);
    let mut headers: Vec<_> = got.headers.keys().map(http::HeaderName::as_str).collect();
    headers.sort_unstable();
    assert_eq!(headers, ["accept", "content-length", "content-type", "host", "user-agent"]);
    let agent = format!("DiscordBot (https://github.com/shardless/shardless, {})", env!("CARGO_PKG_VERSION"));
    assert_eq!(got.headers["user-agent"], agent);
}

/// Wherever it leads: the token would go there.
#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Handler::fine().await;
    for code in [301, 302, 303, 307, 308] {
        let redirect = http::Response::builder().status(code).header("location", elsewhere.url());
        let discord = discord(vec![redirect.body(Bytes::new().into()).unwrap()]).await;
        let handler = late(r#"{"type":4,"data":{"content":"hello"}}"#).await;
        let daemon = TestDaemon::with(&settings(&discord), APP, handler).await;
        defer(&daemon).await;
        until_over(&daemon).await;
        // The look before the fallback text is the second one.
        assert_eq!((discord.calls(), elsewhere.calls()), (2, 0), "{code}");
        let refused = daemon.metric("shardless_late_answers_total{app=\"mybot\",result=\"refused\"}");
        assert_eq!(refused, 1.0);
    }
}

/// The sizes of the files of large answers in that folder.
fn bodies(folder: &Path) -> Vec<u64> {
    let files = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    let bodies = files.filter(|file| file.file_name().to_string_lossy().ends_with(".body"));
    bodies.map(|file| file.metadata().unwrap().len()).collect()
}

/// From its file, with its length told first; and all of it each time.
#[tokio::test]
async fn a_large_form_is_streamed_again_and_again() {
    let state = tempfile::tempdir().unwrap();
    let sizes = Arc::new(Mutex::new(Vec::new()));
    let (folder, noted) = (state.path().to_owned(), Arc::clone(&sizes));
    let discord = Handler::start(move |_| {
        let mut sizes = noted.lock().unwrap();
        sizes.push(bodies(&folder));
        let answer = if sizes.len() < 3 { status(502) } else { json("{}") };
        async move { answer }
    })
    .await;
    let head = "--x\r\nContent-Disposition: form-data; name=\"payload_json\"\r\n\r\n\
        {\"type\":4,\"data\":{\"content\":\"here\"}}\r\n\
        --x\r\nContent-Disposition: form-data; name=\"files[0]\"; filename=\"a.bin\"\r\n\r\n";
    let file: Vec<_> = (0..5 << 20).map(|n: u32| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    let form = [head.as_bytes(), &file, b"\r\n--x--\r\n"].concat();
    let handler = slow(ANSWER_WITHIN * 3 / 2, 200, "multipart/form-data; boundary=x", form).await;
    let settings = format!("state_dir = {:?}\n{}", state.path(), settings(&discord));
    let daemon = TestDaemon::with(&settings, APP, handler).await;
    defer(&daemon).await;
    until_over(&daemon).await;
    let all = discord.received();
    assert_eq!(all.len(), 3);
    for (got, sizes) in all.iter().zip(sizes.lock().unwrap().iter()) {
        let length = got.body.len();
        assert!(length > 5 << 20 && got.body == all[0].body, "{length} bytes");
        assert_eq!(got.headers["content-length"], length.to_string());
        assert!(!got.headers.contains_key("transfer-encoding"));
        assert_eq!(sizes, &[length as u64]);
    }
    assert!(all[0].body.windows(1000).any(|part| part == &file[file.len() - 1000..]));
    until("the file is gone", || async { bodies(state.path()).is_empty() }).await;
}

/// A success is one, also where its answer breaks off: a second follow-up would be one too many.
#[tokio::test]
async fn what_was_done_is_not_done_again_for_want_of_the_rest_of_the_answer() {
    let raw = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{\"id\":";
    let discord = Handler::raw(raw, true).await;
    let handler = late(r#"{"type":4,"data":{"content":"hello"}}"#).await;
    let daemon = TestDaemon::with(&settings(&discord), APP, handler).await;
    defer(&daemon).await;
    until_over(&daemon).await;
    assert_eq!(discord.calls(), 1);
}

fn trouble(call: &Call) -> Option<Fault> {
    let limited = |scope, told| Some(Fault::RateLimited { retry_after: 0.2, scope, told });
    match call.nth {
        1 => Some(Fault::Reset),
        2 => Some(Fault::Status(502)),
        3 => limited(Scope::Global, Told::Json),
        4 => limited(Scope::User, Told::HeaderOnly),
        6 => Some(Fault::ResetAfter),
        7 => Some(Fault::Code { status: 400, code: 50035 }),
        9 => Some(Fault::Code { status: 401, code: 50027 }),
        _ => None,
    }
}

/// Whatever goes wrong, at the most talkative level, and with proxies in the environment.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_tells_no_secrets() {
    let api = Api::following(Script::default().race(Race::Calls(2)).faults(trouble), 0).await.unwrap();
    let handler = late(r#"{"type":4,"data":{"content":"between us"}}"#).await;
    let settings = format!("[log]\nlevel = \"trace\"\n[discord]\napi = \"{}\"", api.url());
    let app = format!("{APP}\nerror_message = \"a fallback\"");
    let daemon = Binary::serve_with(&settings, &app, &handler.url(), |command| {
        for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"] {
            command.env(name, "http://127.0.0.1:9");
        }
    })
    .await;
    let stand_in = StandIn::new(daemon.signer.clone(), Arc::new(SystemClock)).unwrap();
    let payload = Author::new(SystemClock.unix_time(), 0).command("roll", &[]);
    api.sent(&payload.body);
    let exchange = stand_in.send(&daemon.url(), &stand_in.sign(&payload)).await.unwrap();
    assert!(api.answered(&payload.body, &exchange.body));
    daemon.until_log("not delivered").await;
    let log = daemon.log();
    let lines = |words: &str| log.lines().filter(|line| line.contains(words)).collect::<Vec<_>>();
    assert_eq!(lines("no answer from Discord").len(), 2, "{log}");
    let refused = lines("Discord refuses the message: 400, code 50035, so the user gets the fallback text");
    assert_eq!(refused.len(), 1, "{log}");
    let ends = lines("not delivered: Discord refuses the token: 401, code 50027");
    assert!(ends.len() == 1 && ends[0].contains(" WARN ") && ends[0].contains("token_refused"), "{log}");
    assert_eq!(lines(" WARN ").len(), 2, "{log}");
    let token = token(&payload);
    for secret in [&token[..24], "between us", "a fallback", "webhooks", "@original", "/api/v10"] {
        assert!(!log.contains(secret), "{secret} is in the log: {log}");
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(api.calls().len(), 9);
}
