//! What is told of a handler's answer: one line, from which its author can mend it.

use bytes::Bytes;
use rstest::rstest;
use shardless::clock::{Clock, SystemClock};
use shardless::rehearsal::{Author, Exchange, Payload, StandIn};

use crate::support::{Binary, Handler, command};

const SETTINGS: &str = "[log]\nformat = \"json\"";
const SORRY: &str = r#"{"data":{"content":"Sorry, that did not work.","flags":64},"type":4}"#;
const CALLBACK: &str = r#"{"type":4,"data":{"content":"hi"}}"#;
const FORM: &str = "multipart/form-data; boundary=xyz";

fn head(status: &str, fields: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{fields}")
}

/// A whole answer as it stands on the wire.
fn whole(status: &str, fields: &str, body: &str) -> Vec<u8> {
    format!("{}content-length: {}\r\n\r\n{body}", head(status, fields), body.len()).into_bytes()
}

fn ok(content_type: &str, body: &str) -> Vec<u8> {
    whole("200 OK", &format!("content-type: {content_type}\r\n"), body)
}

fn form(parts: &[(&str, &str)]) -> String {
    let part = |(name, content): &(&str, &str)| {
        format!("--xyz\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{content}\r\n")
    };
    parts.iter().map(part).collect::<String>() + "--xyz--\r\n"
}

/// A daemon that hands `roll` to its handler, by a route.
async fn daemon(handler: &Handler) -> Binary {
    let app = format!(
        "error_message = \"Sorry, that did not work.\"\n\
         [[apps.mybot.routes]]\ncommand = \"roll\"\nhandler = \"{}\"",
        handler.url()
    );
    Binary::serve(SETTINGS, &app, "http://127.0.0.1:9/").await
}

fn roll() -> Payload {
    Author::new(SystemClock.unix_time(), 0).command("roll", &[])
}

async fn ask(daemon: &Binary, payload: &Payload) -> Exchange {
    let discord = StandIn::new(daemon.signer.clone(), std::sync::Arc::new(SystemClock)).unwrap();
    discord.send(&daemon.url(), &discord.sign(payload)).await.unwrap()
}

/// All that is logged of one interaction, once the daemon has ended, so that no line is still to come.
fn lines(mut daemon: Binary) -> Vec<serde_json::Value> {
    daemon.signal("TERM");
    assert!(daemon.wait().success());
    let log = daemon.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    lines.filter(|line| line.get("id").is_some() || line["level"] != "INFO").collect()
}

/// What the one line of a wrong answer says, which the user does not get to see.
async fn told(handler: Handler, port: u16) -> String {
    let daemon = daemon(&handler).await;
    let exchange = ask(&daemon, &roll()).await;
    assert_eq!((exchange.status.as_u16(), exchange.body), (200, Bytes::from(SORRY)));
    let lines = lines(daemon);
    assert_eq!(lines.len(), 1, "{lines:#?}");
    let line = &lines[0];
    assert_eq!(
        [&line["level"], &line["app"], &line["kind"], &line["name"], &line["route"], &line["outcome"]],
        ["WARN", "mybot", "command", "roll", "command roll", "failed"],
        "{line:#}"
    );
    assert_eq!(line["handler"], format!("http://127.0.0.1:{port}/bot"), "{line:#}");
    assert_eq!(line["status"], 200, "what Discord got: {line:#}");
    let message = line["message"].as_str().unwrap();
    let message = message.strip_prefix("handler failed: ").unwrap_or_else(|| panic!("{message}"));
    assert!(message.chars().count() <= 300, "{message}");
    message.to_owned()
}

const JSON: &str = "application/json";

#[rstest]
#[case::redirect(
    whole("301 Moved Permanently", "location: /elsewhere\r\n", ""),
    "it answered 301 Moved Permanently; Discord needs 200 with a callback (redirects are not followed: put the final URL into `handler`)"
)]
#[case::unauthorized(whole("401 Unauthorized", "", ""), "(does it verify with another public key?)")]
#[case::bad_request(
    whole("400 Bad Request", "", ""),
    "(see the bot's own log; does it verify with another public key?)"
)]
#[case::not_found(
    whole("404 Not Found", "", "not here"),
    "404 Not Found; Discord needs 200 with a callback (is the path in `handler` the bot's own?)"
)]
#[case::method(whole("405 Method Not Allowed", "", ""), "(does the bot take POST on that path?)")]
#[case::crashed(
    whole("500 Internal Server Error", "", "<h1>oops"),
    "500 Internal Server Error; Discord needs 200 with a callback (see the bot's own log)"
)]
#[case::created(
    whole("201 Created", "content-type: application/json\r\n", CALLBACK),
    "201 Created; Discord needs 200 with a callback"
)]
#[case::html(
    ok("text/html; charset=utf-8", "<h1>It works!</h1>"),
    "200, but its content type is text/html; charset=utf-8; Discord needs application/json"
)]
#[case::no_content_type(
    whole("200 OK", "", CALLBACK),
    "200, but its content type is missing; Discord needs application/json"
)]
#[case::empty(ok(JSON, ""), r#"200, but the body is empty; Discord needs a callback: {"type":…,"data":{…}}"#)]
#[case::invalid_json(
    ok(JSON, "{'type': 4}"),
    "the body is not a callback (no valid JSON at line 1 column 2)"
)]
#[case::cut_json(
    ok(JSON, r#"{"type":4,"data":"#),
    "the body is not a callback (it breaks off at line 1 column 17)"
)]
#[case::a_list(
    ok(JSON, "[4]"),
    "(invalid type: sequence, expected an object at line 1 column 0); Discord needs a JSON object with a numeric `type`"
)]
#[case::bare_message(
    ok(JSON, r#"{"content":"hi"}"#),
    "(missing field `type` at line 1 column 16); Discord needs a JSON object with a numeric `type`"
)]
#[case::unknown_type(ok(JSON, r#"{"type":3}"#), "callback type 3 does not exist")]
#[case::type_not_allowed(
    ok(JSON, r#"{"type":7,"data":{"content":"hi"}}"#),
    "callback type 7 (UPDATE_MESSAGE) is no answer to this kind of interaction (command), which takes 4 (CHANNEL_MESSAGE_WITH_SOURCE), 5"
)]
#[case::compressed(
    whole("200 OK", "content-type: application/json\r\ncontent-encoding: gzip\r\n", "\u{1f}"),
    "200, but with content encoding gzip; Discord needs the callback as it is, so switch compression off"
)]
#[case::form_without_boundary(ok("multipart/form-data", &form(&[("payload_json", CALLBACK)])), "multipart/form-data without a boundary")]
#[case::form_without_callback(ok(FORM, &form(&[("callback", CALLBACK)])), "its form has no part named payload_json, which holds the callback; there is \"callback\"")]
#[case::form_with_a_wrong_callback(ok(FORM, &form(&[("payload_json", r#"{"type":6}"#)])), "in its part payload_json, callback type 6 (DEFERRED_UPDATE_MESSAGE) is no answer")]
#[case::too_short(
    (head("200 OK", "content-type: application/json\r\ncontent-length: 100\r\n\r\n") + CALLBACK).into_bytes(),
    "the connection broke before the answer was whole (end of file before message length reached)"
)]
#[case::broken_chunk(
    head("200 OK", "content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n").into_bytes(),
    "the connection broke before the answer was whole (Invalid chunk size line"
)]
#[case::hangs_up(
    Vec::new(),
    "the connection broke before the answer was whole (connection closed before message completed)"
)]
#[case::not_http(
    b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(),
    "what it answered is no HTTP (invalid HTTP version parsed); does another program have that port, or does the bot want https://?"
)]
#[case::tls(
    b"\x15\x03\x01\x00\x02\x02\x16".to_vec(),
    "what it answered is no HTTP (invalid HTTP version parsed); does another program have that port, or does the bot want https://?"
)]
#[case::headers_without_end(
    head("200 OK", &"x-more: and more\r\n".repeat(20_000)).into_bytes(),
    "the connection broke before the answer was whole (message head is too large)"
)]
#[case::too_large(
    head("200 OK", "content-type: application/json\r\ncontent-length: 100000000\r\n\r\n").into_bytes(),
    "the answer is larger than 10485760 bytes"
)]
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_answer_is_explained_in_one_line(#[case] answer: Vec<u8>, #[case] words: &str) {
    let handler = Handler::raw(answer, true).await;
    let port = handler.port();
    let told = told(handler, port).await;
    assert!(told.contains(words), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_connection_is_explained_in_one_line() {
    let handler = Handler::none().await;
    let port = handler.port();
    let told = told(handler, port).await;
    assert!(told.starts_with("cannot connect (Connection refused"), "{told}");
    assert!(told.ends_with("is the bot running, and is `handler` its address?"), "{told}");
}

/// What Discord surely refuses is relayed, since it may change its mind; the line is a warning all the same.
#[rstest]
#[case::content(
    JSON,
    format!(r#"{{"type":4,"data":{{"content":"{}"}}}}"#, "x".repeat(2001)),
    "`content` has 2001 characters; Discord takes at most 2000"
)]
#[case::in_a_form(
    FORM,
    form(&[("payload_json", r#"{"type":4,"data":{"attachments":[{"id":0}]}}"#), ("file", "x")]),
    "attachment 0 has no file; its part must have the name files[0]"
)]
#[case::files(
    FORM,
    form(&[("files[0]", "x"); 11]).replace("--xyz--", &form(&[("payload_json", CALLBACK)])),
    "there are 11 files; Discord takes at most 10"
)]
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_limit_is_explained_in_one_line(
    #[case] content_type: &str,
    #[case] body: String,
    #[case] words: &str,
) {
    let handler = Handler::raw(ok(content_type, &body), true).await;
    let line = relayed(&handler, &roll(), content_type, &body).await;
    assert_eq!(line["message"], format!("interaction answered, but Discord will refuse it: {words}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_choices_are_explained_in_one_line() {
    let choices = vec![r#"{"name":"a","value":"a"}"#; 26].join(",");
    let body = format!(r#"{{"type":8,"data":{{"choices":[{choices}]}}}}"#);
    let handler = Handler::raw(ok(JSON, &body), true).await;
    let typed = Author::new(SystemClock.unix_time(), 0).autocomplete("roll", &[], "dice", "2");
    let line = relayed(&handler, &typed, JSON, &body).await;
    assert_eq!(
        line["message"],
        "interaction answered, but Discord will refuse it: there are 26 choices; Discord takes at most 25"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_form_is_doubted_in_one_line() {
    let body = form(&[("payload_json", CALLBACK), ("files[0]", &"x".repeat(200_000))]);
    let handler = Handler::raw(ok(FORM, &body), true).await;
    let line = relayed(&handler, &roll(), FORM, &body).await;
    let message = line["message"].as_str().unwrap();
    assert!(
        message.starts_with("interaction answered, but Discord may not take it: it has 200 kB"),
        "{message}"
    );
}

/// The one line of an answer that is relayed byte for byte, with a warning.
async fn relayed(handler: &Handler, payload: &Payload, content_type: &str, body: &str) -> serde_json::Value {
    let daemon = daemon(handler).await;
    let exchange = ask(&daemon, payload).await;
    assert_eq!((exchange.status.as_u16(), exchange.content_type.as_str()), (200, content_type));
    assert_eq!(exchange.body, body);
    let mut lines = lines(daemon);
    assert_eq!(lines.len(), 1, "{lines:#?}");
    let line = lines.remove(0);
    assert_eq!(
        [&line["level"], &line["route"], &line["outcome"]],
        ["WARN", "command roll", "answered"],
        "{line:#}"
    );
    line
}

/// `send` judges a handler's own answer by the very same check.
#[rstest]
#[case(form(&[("payload_json", CALLBACK), ("files[0]", "x")]), true, "type 4 CHANNEL_MESSAGE_WITH_SOURCE, with a file")]
#[case(form(&[("payload", CALLBACK)]), false, "its form has no part named payload_json")]
#[case(form(&[("payload_json", r#"{"type":8}"#)]), false, "in its part payload_json, callback type 8")]
#[tokio::test(flavor = "multi_thread")]
async fn send_looks_into_a_form(#[case] body: String, #[case] accepted: bool, #[case] words: &str) {
    let handler = Handler::raw(ok(FORM, &body), true).await;
    let folder = tempfile::tempdir().unwrap();
    let mut send = command();
    send.current_dir(&folder).args(["send", &handler.url(), "--command", "roll"]);
    let output = send.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.success(), accepted, "{said}");
    assert!(said.contains(words), "{said}");
}
