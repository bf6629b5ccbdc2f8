//! The daemon is killed, and started once more: nobody who was told to wait waits for ever.

mod cycles;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rstest::rstest;
use shardless::rehearsal::rest::{Call, Fault, Script, Target};
use shardless::rehearsal::{Author, Payload};
use tokio::sync::Semaphore;

use crate::support::late::{late, original};
use crate::support::restarts::{Scene, TOO_LONG, follow_ups, is_deferral};
use crate::support::{Handler, json, until, until_within};

const HELLO: &str = r#"{"type":4,"data":{"content":"hello"}}"#;
const SECRET: &str = r#"{"type":4,"data":{"content":"secret","flags":64}}"#;

fn command(author: &mut Author) -> Payload {
    author.command("roll", &[])
}

fn button(author: &mut Author) -> Payload {
    author.button("again")
}

/// An API that does something wrong at the first call of a kind.
fn at_the_first(is_such: impl Fn(&Call) -> bool + Send + Sync + 'static, fault: Fault) -> Script {
    let has_been = AtomicBool::new(false);
    Script::default()
        .faults(move |call| (is_such(call) && !has_been.swap(true, Ordering::SeqCst)).then_some(fault))
}

/// Discord never heard of it, so there is nobody to answer.
#[tokio::test]
async fn killed_between_the_record_and_the_deferral() {
    let (handler, _gate) = Handler::gated().await;
    let mut scene = Scene::durable("answer_within = \"2s\"", handler).await;
    let payload = scene.command();
    let sending = scene.send(&payload);
    let killing = async {
        scene.until_entries("", 1).await;
        scene.binary.signal("KILL");
    };
    let (exchange, ()) = tokio::join!(sending, killing);
    assert!(exchange.is_none(), "{exchange:?}");
    scene.binary.restart();
    let what = "not delivered: Discord does not know of the deferral";
    until_within(Duration::from_secs(20), what, || async { scene.binary.log().contains(what) }).await;
    let view = scene.end_of(&payload).await;
    assert!(view.original.is_none() && view.follow_ups.is_empty());
    assert_eq!(scene.calls(), ["GET Original"; 8]);
}

/// The proxy sends it again, since its connection broke: it is deferred or answered by the process that has it then, and by
/// that one alone.
#[rstest]
#[case::and_deferred(command, false, "hello", &[])]
#[case::and_deferred_as_an_update(button, false, "Pick one:", &["hello"])]
#[case::and_answered(command, true, "hello", &[])]
#[case::and_answered_as_an_update(button, true, "hello", &[])]
#[tokio::test]
async fn killed_before_the_deferral_and_come_again(
    #[case] write: fn(&mut Author) -> Payload,
    #[case] at_once: bool,
    #[case] first: &str,
    #[case] others: &[&str],
) {
    let seen = Mutex::new(HashSet::new());
    let handler = Handler::start(move |got| {
        let seconds = match (seen.lock().unwrap().insert(got.body), at_once) {
            (true, _) => 60.0,
            (false, true) => 0.0,
            (false, false) => 2.5,
        };
        async move {
            tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
            json(HELLO)
        }
    });
    let mut scene = Scene::durable("answer_within = \"2s\"", handler.await).await;
    // Where this test is too slow, the deferral is faster: then once more.
    let payload = loop {
        let payload = scene.write(write);
        let killing = async {
            scene.until_entries("WHERE state = 'waiting'", 1).await;
            scene.binary.signal("KILL");
        };
        let (exchange, ()) = tokio::join!(scene.send(&payload), killing);
        scene.binary.restart();
        if exchange.is_none() {
            break payload;
        }
        scene.until_entries("", 0).await;
    };
    assert_eq!(scene.send(&payload).await.unwrap().status, 200);
    let view = scene.end_of(&payload).await;
    assert_eq!((&*original(&view).content, &*follow_ups(&view)), (first, others));
}

/// Its record was on its way to the disk already; once Discord has the answer, it is gone from there.
#[rstest]
#[case::a_command(command)]
#[case::a_button(button)]
#[tokio::test]
async fn killed_as_soon_as_it_has_answered_shortly_before_the_deadline(
    #[case] write: fn(&mut Author) -> Payload,
) {
    let gate = Arc::new(Semaphore::new(0));
    let opened = Arc::clone(&gate);
    let handler = Handler::start(move |_| {
        let gate = Arc::clone(&gate);
        async move {
            gate.acquire().await.unwrap().forget();
            json(HELLO)
        }
    });
    let mut scene = Scene::durable("answer_within = \"2s\"", handler.await).await;
    // Where this test is too slow to be in time, it is deferred: then once more.
    let payload = loop {
        let payload = scene.write(write);
        let answering = async {
            scene.until_entries("WHERE state = 'waiting'", 1).await;
            opened.add_permits(1);
        };
        let (exchange, ()) = tokio::join!(scene.send(&payload), answering);
        if !is_deferral(&exchange.unwrap()) {
            break payload;
        }
        scene.until_entries("", 0).await;
    };
    scene.binary.kill();
    scene.binary.restart();
    scene.until_open().await;
    let view = scene.end_of(&payload).await;
    assert_eq!((&*original(&view).content, &*follow_ups(&view).join("")), ("hello", ""));
}

#[rstest]
#[case::a_command(command, &["GET Original", "PATCH Original"], TOO_LONG, "")]
#[case::a_button(button, &["POST FollowUp"], "Pick one:", TOO_LONG)]
#[tokio::test]
async fn killed_while_the_handler_is_at_work(
    #[case] write: fn(&mut Author) -> Payload,
    #[case] calls: &[&str],
    #[case] first: &str,
    #[case] second: &str,
) {
    let (handler, _gate) = Handler::gated().await;
    let mut scene = Scene::durable("", handler).await;
    let payload = scene.write(write);
    scene.defer(&payload).await;
    scene.binary.kill();
    scene.binary.restart();
    let view = scene.end_of(&payload).await;
    assert_eq!((&*original(&view).content, &*follow_ups(&view).join("")), (first, second));
    assert_eq!(scene.calls(), calls);
    assert_eq!(scene.handler.calls(), 1);
}

#[tokio::test]
async fn killed_between_the_answer_and_its_delivery() {
    let is_down = Arc::new(AtomicBool::new(true));
    let down = Arc::clone(&is_down);
    let script = Script::default().faults(move |_| down.load(Ordering::SeqCst).then_some(Fault::Status(503)));
    let mut scene = Scene::following(script, "", "", late(HELLO).await).await;
    scene.until_open().await;
    let payload = scene.deferred_command().await;
    scene.until_entries("WHERE state = 'answered'", 1).await;
    scene.binary.kill();
    is_down.store(false, Ordering::SeqCst);
    scene.binary.restart();
    let view = scene.end_of(&payload).await;
    assert_eq!(original(&view).content, "hello");
    assert_eq!(scene.handler.calls(), 1);
    assert!(scene.binary.log().contains("1 deferred interactions of an earlier run go on"));
}

/// Whether Discord did it, nobody knows then.
#[rstest]
#[case::not_done(Fault::Hang)]
#[case::done_and_not_answered(Fault::Slow(Duration::from_secs(60)))]
#[case::done_and_reset(Fault::ResetAfter)]
#[tokio::test]
async fn killed_in_the_middle_of_a_delivery(#[case] fault: Fault) {
    let script = at_the_first(|_| true, fault);
    let mut scene = Scene::following(script, "", "", late(HELLO).await).await;
    scene.until_open().await;
    let payload = scene.deferred_command().await;
    until("a delivery", || async { scene.calls().len() == 1 }).await;
    scene.binary.kill();
    scene.binary.restart();
    let view = scene.end_of(&payload).await;
    assert_eq!(original(&view).content, "hello");
    assert_eq!(scene.calls(), ["PATCH Original"; 2]);
    assert!(view.follow_ups.is_empty());
}

/// What is private is seen by nobody else, and the message that it takes the place of is gone already.
#[rstest]
#[case::deleted(|call: &Call| call.method == http::Method::DELETE, Fault::Slow(Duration::from_secs(60)), 1)]
#[case::not_posted(|call: &Call| call.target == Target::FollowUp, Fault::Hang, 1)]
#[case::posted(|call: &Call| call.target == Target::FollowUp, Fault::Slow(Duration::from_secs(60)), 2)]
#[tokio::test]
async fn killed_in_the_middle_of_a_private_answer(
    #[case] is_such: fn(&Call) -> bool,
    #[case] fault: Fault,
    #[case] copies: usize,
) {
    let script = at_the_first(is_such, fault);
    let mut scene = Scene::following(script, "", "", late(SECRET).await).await;
    scene.until_open().await;
    let payload = scene.deferred_command().await;
    until("it is under way", || async { scene.api.count(is_such) == 1 }).await;
    scene.binary.kill();
    scene.binary.restart();
    let view = scene.end_of(&payload).await;
    assert!(original(&view).deleted.is_some());
    assert_eq!(follow_ups(&view), vec!["secret"; copies]);
    assert!(view.follow_ups.iter().all(|message| message.is_private()));
}

/// As often as it is killed there, the next start goes on.
#[rstest]
#[case::the_file("outbox.sqlite3")]
#[case::its_log("outbox.sqlite3-wal")]
#[tokio::test]
async fn killed_while_the_store_is_being_opened(#[case] file: &str) {
    let (handler, _gate) = Handler::gated().await;
    let mut scene = Scene::durable("", handler).await;
    let payloads = [scene.command(), scene.command(), scene.write(button)];
    futures_util::future::join_all(payloads.iter().map(|payload| scene.defer(payload))).await;
    scene.binary.kill();
    let path = scene.state().join(file);
    for _ in 0..10 {
        let mut process = scene.binary.another();
        let descriptors = format!("/proc/{}/fd", process.id());
        let has_open = || {
            let files = std::fs::read_dir(&descriptors).into_iter().flatten().flatten();
            files.filter_map(|file| std::fs::read_link(file.path()).ok()).any(|open| open == path)
        };
        while !has_open() {
            assert_eq!(process.try_wait().unwrap(), None, "it ended by itself");
        }
        process.kill().unwrap();
        process.wait().unwrap();
    }
    assert_eq!(scene.calls(), [""; 0]);
    scene.binary.restart();
    scene.until_entries("", 0).await;
    for payload in &payloads[..2] {
        assert_eq!(original(&scene.view(payload)).content, TOO_LONG);
    }
    assert_eq!(follow_ups(&scene.view(&payloads[2])), [TOO_LONG]);
}
