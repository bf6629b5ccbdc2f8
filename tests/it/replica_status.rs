//! What is known of a handler's replicas, and what became of those that a call did not reach.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use http_body_util::Full;
use shardless::budget::Budget;
use shardless::config::Config;
use shardless::discord::signature::{SignatureHeaders, UnverifiedBody, Verifier};
use shardless::forward::{self, Called, Forwarding, GivenUp, ReplicaState};
use shardless::rehearsal::Signer;
use socket2::{Domain, Socket, Type};
use tokio::net::UnixListener;
use tokio::time::Instant;

use crate::support::certificates::Signed;
use crate::support::{Handler, Response, json, until};

const OFTEN: Duration = Duration::ZERO;

/// What is in the daemon for these replicas; with further lines for their handler.
fn before(urls: &[String], lines: &str) -> Arc<forward::Handler> {
    let key = Signer::generate().unwrap().public_key().to_string();
    let app = format!("[apps.mybot]\npublic_key = \"{key}\"\nhandler = \"bot\"");
    let text = format!("[handlers.bot]\nurls = {urls:?}\n{lines}\n{app}");
    let config = Config::parse("test.toml", &text).unwrap();
    Arc::new(forward::Handler::new(&config.apps[0].handler, &Budget::new(1 << 20)).unwrap())
}

async fn call(handler: &Arc<forward::Handler>) -> Called {
    let (signer, body) = (Signer::generate().unwrap(), br#"{"id":"1","type":2}"#);
    let headers = SignatureHeaders::parse(&signer.sign(1_700_000_000, body)).unwrap();
    let mut unverified = UnverifiedBody::new(headers, body.len());
    unverified.extend(body);
    let forwarding = Forwarding {
        body: unverified.verify(&Verifier::new(signer.public_key().clone())).unwrap(),
        content_type: HeaderValue::from_static("application/json"),
        user_agent: None,
        id: 1,
        unix_seconds: 1_700_000_000,
        app: HeaderValue::from_static("mybot"),
        trace: None,
        deadline: Instant::now() + Duration::from_secs(2),
        given_up: GivenUp::default(),
        flood: Arc::default(),
    };
    handler.call(forwarding).await
}

/// The words for its replicas, after a look at them.
async fn looked_at(handler: &forward::Handler) -> Vec<&'static str> {
    handler.look(OFTEN).await;
    words(handler)
}

fn words(handler: &forward::Handler) -> Vec<&'static str> {
    handler.replicas().map(|replica| replica.state.word()).collect()
}

fn broken() -> Response {
    http::Response::builder().status(500).body(Full::default()).unwrap()
}

/// A port that nobody listens on, and that no other test gets meanwhile.
fn taken(port: u16) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()).unwrap();
    socket
}

#[tokio::test]
async fn a_look_tells_who_listens_without_a_call() {
    let (mut one, other) = (Handler::fine().await, Handler::none().await);
    let handler = before(&[one.url(), other.url()], "");
    assert_eq!(&*handler.name(), "bot");
    assert_eq!(words(&handler), ["unknown", "unknown"]);
    assert_eq!(looked_at(&handler).await, ["up", "down"]);
    let replicas: Vec<_> = handler.replicas().collect();
    assert_eq!((&*replicas[0].url, &*replicas[1].url), (&*one.url(), &*other.url()));
    assert!(replicas[1].state.to_string().starts_with("cannot connect (Connection refused"), "{replicas:?}");
    let since = replicas[1].state.since();
    one.kill().await;
    let taken = taken(one.port());
    assert_eq!(looked_at(&handler).await, ["down", "down"]);
    drop(taken);
    assert_eq!(handler.replicas().nth(1).unwrap().state.since(), since, "it began then");
    let one = Handler::on(one.port(), |_| async { json(r#"{"type":4}"#) }).await;
    assert_eq!(looked_at(&handler).await, ["up", "down"]);
    assert_eq!(one.calls() + other.calls(), 0);
    assert!(handler.replicas().all(|replica| replica.ejections == 0 && replica.in_flight == 0));
}

#[tokio::test]
async fn a_look_reaches_unix_sockets() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("bot.sock");
    let handler = before(&[format!("unix:{}:/interactions", socket.display())], "");
    assert_eq!(looked_at(&handler).await, ["down"], "there is no file");
    let listening = UnixListener::bind(&socket).unwrap();
    assert_eq!(looked_at(&handler).await, ["up"]);
    drop(listening);
    assert_eq!(looked_at(&handler).await, ["down"], "there is a file");
    std::fs::remove_file(&socket).unwrap();
    let listening = UnixListener::bind(&socket).unwrap();
    assert_eq!(looked_at(&handler).await, ["up"]);
    drop(listening);
}

#[tokio::test]
async fn nobody_is_looked_at_who_was_heard_of_just_now() {
    let mut bot = Handler::fine().await;
    let handler = before(&[bot.url()], "");
    assert!(call(&handler).await.result.is_ok());
    assert_eq!(words(&handler), ["up"]);
    bot.kill().await;
    handler.look(Duration::from_secs(3600)).await;
    assert_eq!(words(&handler), ["up"]);
    assert_eq!(looked_at(&handler).await, ["down"]);
    let bot = Handler::on(bot.port(), |_| async { json(r#"{"type":4}"#) }).await;
    handler.look(Duration::from_secs(3600)).await;
    assert_eq!(words(&handler), ["down"]);
    assert!(call(&handler).await.result.is_ok());
    assert_eq!((words(&handler), bot.calls()), (vec!["up"], 1));
}

/// That somebody listens does not say that he works.
#[tokio::test]
async fn one_that_fails_is_failing_until_a_call_ends_well() {
    let mut bot = Handler::start(|_| async { broken() }).await;
    let handler = before(&[bot.url()], "");
    for _ in 0..4 {
        assert_eq!(call(&handler).await.result.unwrap().status, 500);
    }
    let state = handler.replicas().next().unwrap().state;
    assert_eq!(state.to_string(), "its last 4 calls failed: it answered 500 Internal Server Error");
    assert_eq!(looked_at(&handler).await, ["failing"]);
    bot.kill().await;
    assert!(call(&handler).await.result.is_err());
    assert_eq!(words(&handler), ["down"]);
    let bot = Handler::on(bot.port(), |_| async { json(r#"{"type":4}"#) }).await;
    assert_eq!(looked_at(&handler).await, ["failing"]);
    assert!(call(&handler).await.result.is_ok());
    assert_eq!((words(&handler), bot.calls()), (vec!["up"], 1));
}

#[tokio::test]
async fn one_that_listens_and_does_not_speak_tls_is_failing() {
    let (certificates, plain) = (Signed::for_days(30), Handler::fine().await);
    let ca = format!("ca = {:?}", certificates.path("root.pem"));
    let handler = before(&[format!("https://127.0.0.1:{}/", plain.port())], &ca);
    assert_eq!(looked_at(&handler).await, ["up"]);
    assert!(call(&handler).await.result.is_err());
    assert_eq!(looked_at(&handler).await, ["failing"]);
    drop(plain);
    until("nobody listens", || async { looked_at(&handler).await == ["down"] }).await;
}

#[tokio::test]
async fn one_that_is_left_out_shows_so_and_why() {
    let (failing, well) = (Handler::start(|_| async { broken() }).await, Handler::fine().await);
    let handler = before(&[failing.url(), well.url()], "");
    let begun = Instant::now();
    while handler.replicas().all(|replica| replica.ejections == 0) {
        assert!(call(&handler).await.result.is_ok());
    }
    handler.look(OFTEN).await;
    let [left_out, up] = handler.replicas().collect::<Vec<_>>().try_into().unwrap();
    let ReplicaState::LeftOut { until, why, since } = left_out.state else { panic!("{left_out:?}") };
    assert_eq!((&*why, failing.calls()), ("it answered 500 Internal Server Error", 3));
    assert!(begun < since && until - since == Duration::from_secs(1));
    assert_eq!((left_out.ejections, up.ejections, up.state.word()), (1, 0, "up"));
}

/// The pool of connections belongs to the calls' runtime, a look to its own.
#[tokio::test]
async fn a_look_from_another_runtime_leaves_calls_alone() {
    let (bot, gate) = Handler::gated().await;
    let handler = before(&[bot.url()], "");
    let ours = Arc::clone(&handler);
    let calling = tokio::spawn(async move { call(&ours).await });
    until("it is called", || async { bot.calls() == 1 }).await;
    let theirs = Arc::clone(&handler);
    let looking = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(looked_at(&theirs))
    });
    until("it has been looked at", || async { looking.is_finished() }).await;
    assert_eq!(looking.join().unwrap(), ["up"]);
    assert_eq!(handler.replicas().next().unwrap().in_flight, 1);
    gate.add_permits(2);
    assert!(calling.await.unwrap().result.is_ok());
    assert!(call(&handler).await.result.is_ok());
    let from: Vec<_> = bot.received().iter().map(|got| got.from).collect();
    assert!(from.len() == 2 && from[0] == from[1], "over the same connection: {from:?}");
    assert_eq!(handler.replicas().next().unwrap().in_flight, 0);
}

#[tokio::test]
async fn a_call_names_the_replicas_that_it_did_not_reach() {
    let (gone, there) = (Handler::none().await, Handler::fine().await);
    let handler = before(&[gone.url(), there.url()], "");
    let (mut with, mut without) = (0, 0);
    while with == 0 || without == 0 {
        let begun = Instant::now();
        let called = call(&handler).await;
        assert!(called.result.is_ok());
        assert_eq!(*called.replica, *there.url());
        match &called.tried[..] {
            [] => without += 1,
            [tried] => {
                assert_eq!(*tried.replica, *gone.url());
                assert!(tried.why.starts_with("cannot connect (Connection refused"), "{tried:?}");
                assert!(begun < tried.at && tried.at < Instant::now());
                with += 1;
            }
            more => panic!("{more:?}"),
        }
        assert!(with + without < 100, "always the same one");
    }
}

#[tokio::test]
async fn a_call_that_reaches_nobody_names_all_but_the_last() {
    let gone = [Handler::none().await, Handler::none().await, Handler::none().await];
    let handler = before(&gone.each_ref().map(Handler::url), "");
    let called = call(&handler).await;
    assert!(called.result.is_err());
    let mut named: Vec<_> = called.tried.iter().map(|tried| Arc::clone(&tried.replica)).collect();
    assert_eq!(named.len(), 2);
    assert!(called.tried[0].at <= called.tried[1].at);
    named.push(called.replica);
    named.sort_unstable();
    let mut all = gone.each_ref().map(Handler::url);
    all.sort_unstable();
    assert!(named.iter().map(|url| &**url).eq(all.iter().map(String::as_str)), "{named:?}");
}
