//! Canaries: secrets that are unmistakable go along every path, and none is found where it does not belong.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http_body_util::Full;
use rstest::rstest;
use serde_json::{Value, json};
use shardless::clock::SystemClock;
use shardless::rehearsal::payload::CommandOption;
use shardless::rehearsal::rest::fault::{Scope, Told};
use shardless::rehearsal::rest::{Call, Fault, Script};
use shardless::rehearsal::stand_in::Signed;
use shardless::rehearsal::{Author, Exchange, Payload, StandIn};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::support::admin::{Reader, get};
use crate::support::late::{ANSWER_WITHIN, original};
use crate::support::restarts::{Scene, free_port};
use crate::support::wire::{read_answer, with_length};
use crate::support::{Handler, Received, Response, command, json as callback, until};

/// It stands in every token, message, option and answer.
const CANARY: &str = "c4n4ry";

/// Commands whose handler is late, and what becomes of them.
const LATE: [&str; 8] =
    ["late", "form", "late_failure", "troubled", "gone", "unfit", "spent_token", "limited"];
/// Commands whose handler is of no use.
const FAILED: [&str; 4] = ["broken", "html", "no_callback", "refused"];

const APP: &str = "error_message = \"Sorry.\"
[[apps.mybot.routes]]
command = \"refused\"
handler = \"http://127.0.0.1:9/\"
";

fn has(bytes: &[u8], secret: &str) -> bool {
    bytes.windows(secret.len()).any(|window| window == secret.as_bytes())
}

/// What must not be found, and Discord, which makes it.
struct Secrets {
    discord: StandIn,
    admin: SocketAddr,
    signatures: Mutex<Vec<String>>,
}

impl Secrets {
    fn of(scene: &Scene, admin: u16) -> Self {
        let discord = StandIn::new(scene.binary.signer.clone(), Arc::new(SystemClock)).unwrap();
        let admin = SocketAddr::from(([127, 0, 0, 1], admin));
        Self { discord, admin, signatures: Mutex::default() }
    }

    fn sign(&self, payload: &Payload) -> Signed {
        let signed = self.discord.sign(payload);
        self.keep(&signed);
        signed
    }

    /// Sends an interaction as Discord does, and takes its answer as Discord does.
    async fn send(&self, scene: &Scene, payload: &Payload) -> Exchange {
        scene.api.sent(&payload.body);
        let exchange = self.discord.send(&scene.binary.url(), &self.sign(payload)).await.unwrap();
        scene.api.answered(&payload.body, &exchange.body);
        exchange
    }

    fn keep(&self, signed: &Signed) {
        let signature = signed.headers()["x-signature-ed25519"].to_str().unwrap();
        self.signatures.lock().unwrap().push(signature[..32].to_owned());
    }

    fn assert_not_in(&self, what: &str, bytes: &[u8]) {
        let signatures = self.signatures.lock().unwrap();
        let found = std::iter::once(CANARY)
            .chain(signatures.iter().map(String::as_str))
            .find(|secret| has(bytes, secret));
        assert!(found.is_none(), "{found:?} is in {what}: {}", String::from_utf8_lossy(bytes));
    }

    /// What people and programs see of a daemon that runs.
    fn assert_not_shown(&self, scene: &Scene, ids: &[String]) {
        self.assert_not_in("the log", scene.binary.log().as_bytes());
        for path in ["/", "/status.json", "/charts.json", "/charts.json?app=mybot", "/metrics", "/readyz"] {
            let answer = get(self.admin, path);
            assert_eq!(answer.status, 200, "{path}");
            self.assert_not_in(path, answer.body.as_bytes());
        }
        let mut events = Reader::open(self.admin);
        let (all, changes) = (events.next(), events.next());
        assert!(all.1["interactions"].as_array().unwrap().len() > LATE.len() + FAILED.len());
        self.assert_not_in("an event", format!("{all:?}{changes:?}").as_bytes());
        let show = ids.iter().map(|id| vec!["show", id.as_str()]);
        for arguments in std::iter::once(vec!["list"]).chain(show) {
            let mut command = command();
            let output = command.arg("outbox").args(&arguments).arg("--state-dir").arg(scene.state());
            let output = output.output().unwrap();
            assert!(output.status.success(), "{arguments:?}: {output:?}");
            self.assert_not_in("what an operator sees", &[output.stdout, output.stderr].concat());
        }
    }
}

/// The names of the state folder's files that hold a canary.
fn files_with_canaries(scene: &Scene) -> Vec<String> {
    let files = std::fs::read_dir(scene.state()).unwrap().map(Result::unwrap);
    // One that is gone meanwhile holds nothing.
    let holding = files.filter(|file| has(&std::fs::read(file.path()).unwrap_or_default(), CANARY));
    holding.map(|file| file.file_name().to_string_lossy().into_owned()).collect()
}

/// With a canary in all that is a user's or a secret. The names of commands are not.
fn with_canaries(payload: Payload) -> Payload {
    let mut body: Value = serde_json::from_slice(&payload.body).unwrap();
    let name = body["data"]["name"].as_str().unwrap_or("component").to_owned();
    let id = body["id"].as_str().unwrap().to_owned();
    body["token"] = json!(format!("{CANARY}-token-{name}-{id}"));
    body["member"]["user"]["username"] = json!(format!("{CANARY}-user"));
    if payload.has_message {
        body["message"]["content"] = json!(format!("{CANARY}-message"));
    }
    Payload { body: body.to_string().into_bytes(), ..payload }
}

fn write(scene: &Scene, write: impl FnOnce(&mut Author, &[CommandOption]) -> Payload) -> Payload {
    let option = CommandOption::parse(&format!("query={CANARY}-option")).unwrap();
    with_canaries(scene.write(|author| write(author, &[option])))
}

fn named(scene: &Scene, name: &str) -> Payload {
    write(scene, |author, options| author.command(name, options))
}

fn id(payload: &Payload) -> String {
    let body: Value = serde_json::from_slice(&payload.body).unwrap();
    body["id"].as_str().unwrap().to_owned()
}

fn answer(status: u16, content_type: &str, body: String) -> Response {
    let response = http::Response::builder().status(status).header("content-type", content_type);
    response.body(Full::new(Bytes::from(body))).unwrap()
}

/// A handler that does what a command's name says; `/waits` needs a permit.
async fn handler(gate: Arc<Semaphore>) -> Handler {
    let script = move |got: Received| {
        let gate = Arc::clone(&gate);
        async move {
            let body: Value = serde_json::from_slice(&got.body).unwrap();
            let name = body["data"]["name"].as_str().unwrap_or_default();
            let is_late = LATE.contains(&name) || name == "withdrawn";
            if is_late {
                tokio::time::sleep(ANSWER_WITHIN + Duration::from_millis(300)).await;
            }
            let message = format!(r#"{{"type":4,"data":{{"content":"{CANARY}-answer"}}}}"#);
            match name {
                "waits" => gate.acquire().await.unwrap().forget(),
                "broken" | "late_failure" => return answer(500, "application/json", message),
                "html" => return answer(200, "text/html", format!("<p>{CANARY}-page")),
                "no_callback" => {
                    return answer(200, "application/json", format!(r#"{{"type":99,"a":"{CANARY}"}}"#));
                }
                "form" => {
                    let part = "--x\r\nContent-Disposition: form-data; name=";
                    let form = format!(
                        "{part}\"payload_json\"\r\n\r\n{message}\r\n\
                         {part}\"files[0]\"; filename=\"{CANARY}.txt\"\r\n\r\n{CANARY}-file\r\n--x--\r\n"
                    );
                    return answer(200, "multipart/form-data; boundary=x", form);
                }
                _ => {}
            }
            if body["type"] == 4 {
                let choice = format!("{CANARY}-choice");
                return callback(
                    &json!({"type": 8, "data": {"choices": [{"name": choice, "value": choice}]}}).to_string(),
                );
            }
            callback(&message)
        }
    };
    Handler::start(script).await
}

/// Discord's REST API is in trouble with some of them; `/limited` has to wait until that is over.
fn faults(call: &Call, is_over: &AtomicBool) -> Option<Fault> {
    let is_for = |name: &str| call.token().contains(&format!("-{name}-"));
    let code = |status, code| Some(Fault::Code { status, code });
    match call.nth {
        _ if is_for("limited") && !is_over.load(Ordering::SeqCst) => {
            Some(Fault::RateLimited { retry_after: 0.3, scope: Scope::User, told: Told::Json })
        }
        1 if is_for("troubled") => Some(Fault::Status(502)),
        2 if is_for("troubled") => Some(Fault::Reset),
        3 if is_for("troubled") => Some(Fault::UnknownWebhook),
        1 if is_for("gone") => code(404, 10008),
        1 if is_for("unfit") => code(400, 50035),
        1 if is_for("spent_token") => code(401, 50027),
        _ => None,
    }
}

/// Interactions whose handler answers, or does not, before the deadline; and one that comes twice.
async fn in_time(scene: &Scene, secrets: &Secrets) {
    let all = [
        named(scene, "answered"),
        write(scene, |author, options| author.autocomplete("search", options, "word", CANARY)),
        write(scene, |author, _| author.button("ok")),
        write(scene, |author, _| author.select("pick", &[CANARY.to_owned()])),
        write(scene, |author, _| author.modal("form", &[("text".to_owned(), CANARY.to_owned())])),
    ];
    for payload in &all {
        for _ in 0..2 {
            let exchange = secrets.send(scene, payload).await;
            assert!(exchange.status == 200 && has(&exchange.body, CANARY), "{exchange:?}");
        }
    }
    for name in FAILED {
        let payload = named(scene, name);
        let exchange = secrets.send(scene, &payload).await;
        assert!(has(&exchange.body, "Sorry."), "{name}: {exchange:?}");
        secrets.assert_not_in(name, &exchange.body);
    }
}

/// Requests that are refused: whatever came in them stays out of sight.
async fn refused(scene: &Scene, secrets: &Secrets) {
    let forged = secrets.sign(&named(scene, "answered")).forge();
    secrets.keep(&forged);
    let of = |body: String| Payload { body: body.into_bytes(), ..named(scene, "answered") };
    let malformed = of(format!(r#"{{"id":"1","type":2,"token":"{CANARY}-token","data":{{"name":"{CANARY}""#));
    let no_interaction = of(format!(r#"{{"token":"{CANARY}-token","type":"{CANARY}","id":"{CANARY}"}}"#));
    let large = of(format!(r#"{{"token":"{}"}}"#, CANARY.repeat(4000)));
    let wanted = named(scene, "answered");
    let signed = |payload| with_length(&secrets.sign(payload));
    let other =
        |from: &str, to: &str| String::from_utf8(signed(&wanted)).unwrap().replacen(from, to, 1).into_bytes();
    let requests = [
        ("401", with_length(&forged)),
        ("400", signed(&malformed)),
        ("400", signed(&no_interaction)),
        ("413", signed(&large)),
        ("404", other("POST /interactions", "POST /elsewhere")),
        ("405", other("POST /interactions", "PUT /interactions")),
        ("415", other("application/json", &format!("text/{CANARY}"))),
        ("400", other("host: test", &format!("{CANARY} : {CANARY}"))),
        // The rest of it never comes.
        ("408", other("content-length: ", "content-length: 1")),
    ];
    for (status, request) in requests {
        let mut stream = TcpStream::connect(scene.binary.address).await.unwrap();
        stream.write_all(&request).await.unwrap();
        let answer = read_answer(&mut stream).await;
        assert!(answer.starts_with(&format!("http/1.1 {status}")), "{status}: {answer}");
        secrets.assert_not_in(status, answer.as_bytes());
    }
}

/// A deferral that nobody takes, and then a replay of it.
async fn withdrawn(scene: &Scene, secrets: &Secrets) {
    let payload = named(scene, "withdrawn");
    let mut stream = TcpStream::connect(scene.binary.address).await.unwrap();
    stream.write_all(&with_length(&secrets.sign(&payload))).await.unwrap();
    let arrived = || async { scene.handler.received().iter().any(|got| has(&got.body, "-withdrawn-")) };
    until("the handler has it", arrived).await;
    drop(stream);
    scene.binary.until_log("the deferral reached nobody").await;
    let exchange = secrets.send(scene, &payload).await;
    assert_eq!(exchange.status, 409);
    secrets.assert_not_in("the answer to a replay", &exchange.body);
}

#[rstest]
#[case::text("text")]
#[case::json("json")]
#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_found_where_it_does_not_belong(#[case] format: &str) {
    let gate = Arc::new(Semaphore::new(0));
    let admin = free_port();
    let settings = format!(
        "[log]\nlevel = \"trace\"\nformat = \"{format}\"\n[limits]\nbody = \"16KiB\"\nread_timeout = \"500ms\"\n[admin]\nport = {admin}"
    );
    let is_over = Arc::new(AtomicBool::new(false));
    let known = Arc::clone(&is_over);
    let script = Script::default().faults(move |call| faults(call, &known));
    let mut scene = Scene::following(script, &settings, APP, handler(Arc::clone(&gate)).await).await;
    scene.until_open().await;
    let secrets = Secrets::of(&scene, admin);

    in_time(&scene, &secrets).await;
    refused(&scene, &secrets).await;
    let deferred: Vec<_> = LATE.iter().chain(&["waits"]).map(|name| named(&scene, name)).collect();
    for exchange in join_all(deferred.iter().map(|payload| secrets.send(&scene, payload))).await {
        assert_eq!(&exchange.body[..], br#"{"type":5}"#);
    }
    withdrawn(&scene, &secrets).await;

    // One waits for its handler, and one for Discord.
    let waiting: Vec<_> = deferred.iter().rev().take(2).map(id).collect();
    scene.until_entries("", waiting.len()).await;
    assert!(!files_with_canaries(&scene).is_empty(), "what waits is on disk: the search must find it");
    secrets.assert_not_shown(&scene, &waiting);
    is_over.store(true, Ordering::SeqCst);
    gate.add_permits(1);
    scene.until_entries("", 0).await;
    until("no file holds a secret", || async { files_with_canaries(&scene).is_empty() }).await;
    secrets.assert_not_shown(&scene, &[]);

    scene.binary.signal("TERM");
    assert!(scene.binary.wait().success(), "{}", scene.binary.log());
    assert_eq!(files_with_canaries(&scene), <[String; 0]>::default());
    secrets.assert_not_in("the log", scene.binary.log().as_bytes());
    assert_all_was_tried(&scene);
}

/// A path that was not taken hides nothing.
fn assert_all_was_tried(scene: &Scene) {
    let log = scene.binary.log();
    for words in [
        "duplicate got the first one's answer",
        "is the bot running",
        "it answered 500",
        "text/html",
        "handler failed after its deferral",
        "handler answered late",
        "late answer delivered",
        "the message is not there any more",
        "so the user gets the fallback text",
        "Discord refuses the token",
        "no answer from Discord",
    ] {
        assert!(log.contains(words), "{words} is not in {log}");
    }
    let calls = scene.api.calls();
    let edits = calls.iter().filter(|call| has(&call.body, "-answer")).collect::<Vec<_>>();
    for name in ["late", "form", "troubled", "limited", "waits"] {
        let edit = edits.iter().rfind(|call| call.token().contains(&format!("-{name}-"))).unwrap();
        let view = scene.api.view(edit.token()).unwrap();
        assert_eq!(original(&view).content, format!("{CANARY}-answer"), "{name}");
    }
}
