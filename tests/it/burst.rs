//! Very many deferrals: in time, beside quick traffic, in little memory.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use http::StatusCode;
use shardless::rehearsal::Payload;
use shardless::rehearsal::rest::Script;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::late::original;
use crate::support::restarts::{LONG, Scene, is_deferral};
use crate::support::times::Times;
use crate::support::wire::{read_answer, with_length};
use crate::support::{Handler, is_full, json, until_within};

const HELLO: &str = r#"{"type":4,"data":{"content":"hello"}}"#;
/// Between two interactions that are answered at once.
const PACE: Duration = Duration::from_millis(10);

/// A daemon with room for all, and a handler that needs a permit for `/roll`, and none for `/fast`.
async fn scene(answer_within: Duration) -> (Scene, Arc<Semaphore>) {
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let gate = Arc::new(Semaphore::new(0));
    let opened = Arc::clone(&gate);
    let handler = Handler::start(move |got| {
        let gate = Arc::clone(&gate);
        async move {
            if got.path.ends_with("slow") {
                gate.acquire().await.unwrap().forget();
            }
            json(HELLO)
        }
    });
    let handler = handler.await;
    let named = |name: &str| {
        // It is this test that is slow to accept.
        let room = "max_in_flight = 20000\nmax_deferred = 20000\nconnect_timeout = \"2s\"";
        format!("[handlers.{name}]\nurls = [\"{}/{name}\"]\n{room}\n", handler.url())
    };
    let limits = "[limits]\nconnections = 20000\nin_flight = 20000\ndeferred = 20000";
    let settings = format!("{limits}\n{}{}", named("slow"), named("fast"));
    let route =
        |command, name| format!("[[apps.mybot.routes]]\ncommand = \"{command}\"\nhandler = \"{name}\"\n");
    let answer_within = answer_within.as_millis();
    let app = format!(
        "answer_within = \"{answer_within}ms\"\nin_flight = 20000\n{}{}",
        route("roll", "slow"),
        route("fast", "fast")
    );
    let script = Script::default().without_bodies();
    let scene = Scene::following(script, &settings, &app, handler).await;
    scene.until_open().await;
    (scene, opened)
}

async fn all_have_their_answers(scene: &Scene, payloads: &[Payload]) {
    until_within(LONG, "late answers", || async { scene.api.loading() == 0 }).await;
    let has_answer = |payload: &&Payload| original(&scene.view(payload)).content == "hello";
    assert_eq!(payloads.iter().filter(has_answer).count(), payloads.len());
    scene.until_entries("", 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deferrals_that_wait_take_little_memory() {
    let (count, bound) = if is_full() { (10_000, 400) } else { (1000, 100) };
    let (scene, gate) = scene(Duration::from_millis(400)).await;
    let before = scene.binary.peak_memory();
    let payloads: Vec<_> = (0..count).map(|_| scene.command()).collect();
    let sending = futures_util::stream::iter(&payloads).map(|payload| scene.defer(payload));
    sending.buffer_unordered(250).collect::<Vec<_>>().await;
    scene.until_entries("WHERE state = 'waiting'", count).await;
    let waiting = scene.binary.peak_memory();
    gate.add_permits(count);
    all_have_their_answers(&scene, &payloads).await;
    let peak = scene.binary.peak_memory();
    println!("{before} MiB at first, {waiting} MiB with {count} deferrals waiting, {peak} MiB at most");
    assert!(peak <= bound, "{peak} MiB");
}

/// Interactions that are answered at once, at a steady rate. The time that each took, and how late each was sent: that is
/// this test's own trouble.
async fn quick_traffic(scene: &Scene, mut stop: watch::Receiver<bool>) -> (Times, Times) {
    let (mut sending, mut lags) = (JoinSet::new(), Vec::new());
    let mut at = Instant::now();
    while tokio::time::timeout_at(at, stop.wait_for(|stop| *stop)).await.is_err() {
        lags.push(at.elapsed());
        let (sender, api) = (scene.sender(), Arc::clone(&scene.api));
        let payload = scene.write(|author| author.command("fast", &[]));
        sending.spawn(async move { sender.send(&api, &payload).await.unwrap() });
        at += PACE;
    }
    let exchanges = sending.join_all().await;
    assert!(exchanges.iter().all(|exchange| exchange.status == StatusCode::OK && !is_deferral(exchange)));
    (Times::new(exchanges.iter().map(|exchange| exchange.elapsed).collect()), Times::new(lags))
}

/// Sends them all, each over a connection of its own, in so much time that all are waited for at once. How long each
/// deferral took.
async fn burst(scene: &Scene, payloads: &[Payload], within: Duration) -> Times {
    let mut ready = Vec::new();
    for payload in payloads {
        scene.api.sent(&payload.body);
        let stream = TcpStream::connect(scene.binary.address).await.unwrap();
        ready.push((stream, with_length(&scene.signed(payload)), payload.body.clone()));
    }
    let mut sending = JoinSet::new();
    let (begin, pause) = (Instant::now(), within / u32::try_from(payloads.len()).unwrap());
    for (nth, (mut stream, request, body)) in (0..).zip(ready) {
        let api = Arc::clone(&scene.api);
        sending.spawn(async move {
            tokio::time::sleep_until(begin + pause * nth).await;
            let start = Instant::now();
            stream.write_all(&request).await.unwrap();
            let answer = read_answer(&mut stream).await;
            let took = start.elapsed();
            assert!(answer.ends_with(r#"{"type":5}"#), "{answer}");
            assert!(api.answered(&body, br#"{"type":5}"#));
            took
        });
    }
    Times::new(sending.join_all().await)
}

/// The bar: every deferral leaves within `answer_within` + 100 ms (p99), quick traffic keeps its speed, and memory is
/// bounded. Times are judged for what is built to be shipped alone.
#[tokio::test(flavor = "multi_thread")]
async fn slow_ones_at_once_are_deferred_in_time_and_others_feel_nothing() {
    let count = if is_full() { 2000 } else { 200 };
    let answer_within = Duration::from_millis(if is_full() { 2200 } else { 800 });
    let (scene, gate) = scene(answer_within).await;
    let payloads: Vec<_> = (0..count).map(|_| scene.command()).collect();
    let (stop, stopped) = watch::channel(false);
    let slow = async {
        tokio::time::sleep(PACE * 50).await;
        let times = burst(&scene, &payloads, answer_within / 2).await;
        gate.add_permits(count);
        all_have_their_answers(&scene, &payloads).await;
        stop.send_replace(true);
        times
    };
    let (deferrals, (quick, lags)) = tokio::join!(slow, quick_traffic(&scene, stopped));
    let (peak, cpu) = (scene.binary.peak_memory(), scene.binary.cpu_time());
    println!("deferrals at {answer_within:?}: {deferrals}\nquick ones: {quick}\nsent late: {lags}");
    println!("{peak} MiB, {cpu:.1?} of processors");
    assert!(deferrals.shortest() >= answer_within);
    if cfg!(debug_assertions) {
        return;
    }
    assert!(deferrals.p99() <= answer_within + Duration::from_millis(100), "{deferrals}");
    assert!(quick.p99() <= Duration::from_millis(25), "{quick}");
    // With each go two connections, the client's and the handler's, and hyper has 38 KiB for such a pair: most of it.
    assert!(peak <= 95, "{peak} MiB");
}
