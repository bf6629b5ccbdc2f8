//! The daemon is stopped while calls are deferred, and its folder for state is another's, or not there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http_body_util::Full;
use rstest::rstest;
use shardless::rehearsal::Payload;
use shardless::rehearsal::rest::{Fault, Script};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::support::late::{ANSWER_WITHIN, late, original, token};
use crate::support::restarts::{Scene, TOO_LONG};
use crate::support::wire::{read_answer, with_length};
use crate::support::{Handler, json, until};

const HELLO: &str = r#"{"type":4,"data":{"content":"hello"}}"#;

/// A handler that answers at once, but for `/roll`: that needs a permit.
async fn held() -> (Handler, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let opened = Arc::clone(&gate);
    let handler = Handler::start(move |got| {
        let gate = Arc::clone(&gate);
        async move {
            if String::from_utf8_lossy(&got.body).contains(r#""name":"roll""#) {
                gate.acquire().await.unwrap().forget();
            }
            json(HELLO)
        }
    });
    (handler.await, opened)
}

/// Waits for the end of the process, and tells how long it took since then.
async fn ended(scene: &mut Scene, since: Instant) -> Duration {
    let process = std::sync::Mutex::new(&mut scene.binary);
    until("it ends", || async { process.lock().unwrap().has_ended() }).await;
    since.elapsed()
}

fn fast(scene: &Scene) -> Payload {
    scene.write(|author| author.command("fast", &[]))
}

/// The names of the files in the folder for state, none of which holds that token.
fn files_without(scene: &Scene, token: &str) -> Vec<String> {
    let files = std::fs::read_dir(scene.state()).unwrap().map(|file| file.unwrap().path());
    let mut names: Vec<_> = files
        .map(|file| {
            let bytes = std::fs::read(&file).unwrap();
            let holds = bytes.windows(token.len()).any(|window| window == token.as_bytes());
            assert!(!holds, "{} holds the token", file.display());
            file.file_name().unwrap().to_string_lossy().into_owned()
        })
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_stop_waits_for_the_deferred_call_and_serves_meanwhile() {
    let (handler, gate) = held().await;
    let mut scene = Scene::durable("", handler).await;
    let payload = scene.deferred_command().await;
    let stopped = Instant::now();
    scene.binary.signal("TERM");
    scene.binary.until_log("stopping").await;
    assert_eq!(&scene.send(&fast(&scene)).await.unwrap().body[..], HELLO.as_bytes());
    let mut stream = TcpStream::connect(scene.binary.address).await.unwrap();
    stream.write_all(&with_length(&scene.signed(&fast(&scene)))).await.unwrap();
    let answer = read_answer(&mut stream).await;
    assert!(answer.starts_with("http/1.1 200") && answer.ends_with(HELLO), "{answer}");
    // One that is deferred while the daemon stops is waited for too.
    let second = scene.deferred_command().await;
    assert!(!scene.binary.has_ended());
    assert!(scene.api.calls().is_empty());

    gate.add_permits(2);
    let took = ended(&mut scene, stopped).await;
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(scene.binary.wait().success());
    for payload in [&payload, &second] {
        assert_eq!(original(&scene.view(payload)).content, "hello");
        assert_eq!(files_without(&scene, &token(payload)), ["lock", "outbox.sqlite3"]);
    }
    assert!(TcpStream::connect(scene.binary.address).await.is_err());
}

/// A call that has begun, and will be deferred, is waited for as one that is deferred already.
#[tokio::test]
async fn a_stop_waits_for_a_call_that_is_deferred_after_it() {
    let (handler, gate) = held().await;
    let mut scene = Scene::durable("", handler).await;
    let payload = scene.command();
    let (exchange, ()) = tokio::join!(scene.send(&payload), async {
        until("the handler has it", || async { scene.handler.calls() == 1 }).await;
        scene.binary.signal("TERM");
        scene.binary.until_log("stopping").await;
    });
    assert_eq!(&exchange.unwrap().body[..], br#"{"type":5}"#);
    gate.add_permits(1);
    ended(&mut scene, Instant::now()).await;
    assert!(scene.binary.wait().success());
    assert_eq!(original(&scene.view(&payload)).content, "hello");
}

#[tokio::test]
async fn whoever_is_not_waited_for_any_longer_gets_the_fallback_text_before_the_end() {
    let (handler, _gate) = held().await;
    let settings = "[limits]\ndrain_timeout = \"1s\"";
    let mut scene = Scene::following(Script::default(), settings, "", handler).await;
    scene.until_open().await;
    let payload = scene.deferred_command().await;
    let stopped = Instant::now();
    scene.binary.signal("TERM");
    let took = ended(&mut scene, stopped).await;
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(3), "{took:?}");
    assert!(scene.binary.wait().success());
    assert_eq!(original(&scene.view(&payload)).content, TOO_LONG);
    assert_eq!(files_without(&scene, &token(&payload)), ["lock", "outbox.sqlite3"]);
}

#[tokio::test]
async fn whoever_edits_by_themselves_holds_no_stop_open_and_is_not_forgotten() {
    let handler = Handler::start(|_| async {
        tokio::time::sleep(ANSWER_WITHIN * 3 / 2).await;
        http::Response::builder().status(202).body(Full::default()).unwrap()
    });
    let mut scene = Scene::durable("give_up_after = \"4s\"", handler.await).await;
    let payload = scene.deferred_command().await;
    scene.until_entries("WHERE state = 'edits itself'", 1).await;
    let stopped = Instant::now();
    scene.binary.signal("TERM");
    let took = ended(&mut scene, stopped).await;
    assert!(took < Duration::from_millis(1500), "{took:?}");
    assert!(scene.binary.wait().success());
    assert!(original(&scene.view(&payload)).is_loading());
    scene.binary.restart();
    let view = scene.end_of(&payload).await;
    assert_eq!(original(&view).content, TOO_LONG);
    let call = &scene.api.calls()[0];
    assert!(call.since_answer.unwrap() > Duration::from_secs(3), "{:?}", call.since_answer);
}

#[rstest]
#[case::out_of_order(Fault::Status(503))]
#[case::silent(Fault::Hang)]
#[case::blocking(Fault::Status(429))]
#[tokio::test]
async fn where_discord_is_down_a_stop_leaves_the_answer_to_the_next_start(#[case] fault: Fault) {
    let is_down = Arc::new(AtomicBool::new(true));
    let down = Arc::clone(&is_down);
    let script = Script::default().faults(move |_| down.load(Ordering::SeqCst).then_some(fault));
    let mut scene = Scene::following(script, "", "", late(HELLO).await).await;
    scene.until_open().await;
    let payload = scene.deferred_command().await;
    until("a delivery", || async { !scene.calls().is_empty() }).await;
    let stopped = Instant::now();
    scene.binary.signal("TERM");
    let took = ended(&mut scene, stopped).await;
    assert!((Duration::from_secs(3)..Duration::from_secs(5)).contains(&took), "{took:?}");
    assert!(scene.binary.wait().success());
    let warning = "stopping with late answers that are not delivered: the next start goes on with them";
    assert!(scene.binary.log().contains(warning));
    is_down.store(false, Ordering::SeqCst);
    scene.binary.restart();
    assert_eq!(original(&scene.end_of(&payload).await).content, "hello");
}

#[tokio::test]
async fn a_stop_promises_nothing_of_what_is_not_on_disk() {
    let place = tempfile::NamedTempFile::new().unwrap();
    let settings = format!("state_dir = {:?}", place.path().join("state"));
    let script = Script::default().faults(|_| Some(Fault::Status(503)));
    let mut scene = Scene::following(script, &settings, "", late(HELLO).await).await;
    scene.deferred_command().await;
    until("a delivery", || async { !scene.calls().is_empty() }).await;
    scene.binary.signal("TERM");
    assert!(scene.binary.wait().success());
    let log = scene.binary.log();
    assert!(log.contains("that are not delivered: those not on disk are lost"), "{log}");
    assert!(!log.contains("the next start goes on"), "{log}");
}

#[tokio::test]
async fn a_second_signal_ends_at_once_and_the_next_start_goes_on() {
    let (handler, _gate) = held().await;
    let mut scene = Scene::durable("", handler).await;
    let payload = scene.deferred_command().await;
    scene.binary.signal("TERM");
    scene.binary.until_log("stopping").await;
    let stopped = Instant::now();
    scene.binary.signal("TERM");
    let took = ended(&mut scene, stopped).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(scene.binary.wait().code(), Some(1));
    assert!(original(&scene.view(&payload)).is_loading());
    scene.binary.restart();
    assert_eq!(original(&scene.end_of(&payload).await).content, TOO_LONG);
}

/// As at a restart where the old process still waits for a handler.
#[tokio::test]
async fn a_second_daemon_waits_for_the_folder_and_takes_over() {
    let (handler, gate) = held().await;
    let mut first = Scene::durable("", handler).await;
    let of_first = first.deferred_command().await;
    let mut second = first.beside().await;
    second.binary.until_log("the folder for state: it is waited for").await;
    let not_durable = second.deferred_command().await;
    second.binary.until_log("its record is not on disk: a crash would lose it").await;
    let answered = second.deferred_command().await;
    assert_eq!(first.entries(""), Some(1));

    first.binary.kill();
    second.binary.until_log("1 deferred interactions of an earlier run go on").await;
    until("the fallback text", || async { !original(&first.view(&of_first)).is_loading() }).await;
    assert_eq!(original(&first.view(&of_first)).content, TOO_LONG);
    // From now on, what it has deferred before is on disk too.
    first.until_entries("WHERE state = 'waiting'", 2).await;
    // The first one's call took one, if it came before it was killed.
    gate.add_permits(1);
    until("an answer", || async { first.api.loading() == 1 }).await;
    second.binary.kill();
    // On its own port, in the folder of the first.
    second.binary.restart();
    until("the fallback text", || async { first.api.loading() == 0 }).await;
    let mut ends = [&not_durable, &answered].map(|payload| original(&first.view(payload)).content.clone());
    ends.sort();
    assert_eq!(ends, [TOO_LONG, "hello"]);
    first.until_entries("", 0).await;
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_warned_of_once_and_used_as_soon_as_it_can() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("file");
    std::fs::write(&file, "").unwrap();
    let settings = format!("state_dir = {:?}", file.join("state"));
    let (handler, gate) = held().await;
    let mut scene = Scene::following(Script::default(), &settings, "", handler).await;
    let payload = scene.deferred_command().await;
    scene.binary.until_log("its record is not on disk: a crash would lose it").await;
    gate.add_permits(1);
    until("the late answer", || async { scene.api.loading() == 0 }).await;
    assert_eq!(original(&scene.view(&payload)).content, "hello");

    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    scene.binary.until_log("is held now").await;
    let log = scene.binary.log();
    assert_eq!(log.matches("shardless serves without it, and tries again").count(), 1, "{log}");
    let store = file.join("state/outbox.sqlite3");
    until("its store", || async { store.exists() }).await;
    let payload = scene.deferred_command().await;
    scene.binary.kill();
    scene.binary.restart();
    until("the fallback text", || async { scene.api.loading() == 0 }).await;
    assert_eq!(original(&scene.view(&payload)).content, TOO_LONG);
}
