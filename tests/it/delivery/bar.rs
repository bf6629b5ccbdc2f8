//! Many late answers at once, while much goes wrong at Discord: all of them arrive.

use std::time::Duration;

use bytes::Bytes;
use shardless::rehearsal::Payload;
use shardless::rehearsal::rest::fault::{Scope, Told};
use shardless::rehearsal::rest::{Call, Fault, Race, Script};

use crate::support::late::{ANSWER_WITHIN, Stage, original, token};
use crate::support::{Handler, is_full, json};

/// 30 of 100 calls meet a rate limit, in all its forms but a block, 10 trouble, and 5 a connection that breaks.
fn faults(call: &Call) -> Option<Fault> {
    let limited = |retry_after, scope, told| Some(Fault::RateLimited { retry_after, scope, told });
    match call.lot() {
        0..10 => limited(0.35, Scope::User, Told::Json),
        10..18 => limited(0.8, Scope::Shared, Told::Json),
        18..26 => limited(0.6, Scope::User, Told::HeaderOnly),
        26..30 => limited(0.15, Scope::Global, Told::Json),
        30..35 => Some(Fault::Status(500)),
        35..38 => Some(Fault::Status(502)),
        38..40 => Some(Fault::Code { status: 503, code: 0 }),
        40..43 => Some(Fault::Reset),
        43..45 => Some(Fault::ResetAfter),
        _ => None,
    }
}

/// Answers late, each time as its interaction wants it.
async fn handler() -> Handler {
    Handler::start(|got| async move {
        let interaction: serde_json::Value = serde_json::from_slice(&got.body).unwrap();
        tokio::time::sleep(ANSWER_WITHIN + Duration::from_millis(100)).await;
        let wish =
            interaction["data"]["name"].as_str().or(interaction["data"]["custom_id"].as_str()).unwrap();
        match wish {
            "secret" => json(r#"{"type":4,"data":{"content":"secret","flags":64}}"#),
            "update" => json(r#"{"type":7,"data":{"content":"updated"}}"#),
            "fail" => http::Response::builder().status(500).body(Bytes::new().into()).unwrap(),
            _ => json(r#"{"type":4,"data":{"content":"hello"}}"#),
        }
    })
    .await
}

/// What the user sees in the end, in the first message and below it; follow-ups that came twice count once.
fn seen(stage: &Stage, payload: &Payload) -> (String, Vec<String>) {
    let view = stage.api.view(&token(payload)).unwrap();
    let first = original(&view);
    let mut below: Vec<_> = view.follow_ups.iter().map(|message| message.content.clone()).collect();
    below.dedup();
    let first = if first.deleted.is_some() { "gone" } else { &first.content };
    for message in view.follow_ups.iter().filter(|message| message.content == "secret") {
        assert!(message.is_private(), "what is private was public");
    }
    (first.to_owned(), below)
}

/// With `SHARDLESS_FULL=1` in a release build, 500.
#[tokio::test(flavor = "multi_thread")]
async fn all_arrive_whatever_goes_wrong() {
    let count = if is_full() { 500 } else { 60 };
    let script = Script::default().faults(faults).race(Race::Calls(2));
    let stage = Stage::following(script, "[limits]\ndeferred = 600", "", handler().await).await;
    let mut author = stage.daemon.author(1);
    let payloads: Vec<_> = (0..count)
        .map(|nth| match nth % 6 {
            0 => author.command("secret", &[]),
            1 => author.button("update"),
            2 => author.button("beside"),
            3 => author.command("fail", &[]),
            _ => author.command("roll", &[]),
        })
        .collect();
    // A handler takes no more than 256 at once, those that it is late with included.
    for some in payloads.chunks(100) {
        let exchanges = futures_util::future::join_all(some.iter().map(|payload| stage.send(payload))).await;
        let refused = exchanges.iter().find(|exchange| exchange.status != 200);
        assert!(refused.is_none(), "{refused:?}");
    }
    let all = Duration::from_secs(300);
    let is_over = || stage.daemon.metric("shardless_outbox_entries") == 0.0;
    let over = async {
        while !is_over() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    assert!(tokio::time::timeout(all, over).await.is_ok(), "some are left");

    let calls = stage.api.calls();
    for (nth, payload) in payloads.iter().enumerate() {
        let expected = match nth % 6 {
            0 => ("gone", vec!["secret"]),
            1 => ("updated", vec![]),
            2 => ("Pick one:", vec!["hello"]),
            3 => ("This took too long. Please try again.", vec![]),
            _ => ("hello", vec![]),
        };
        let (first, below) = seen(&stage, payload);
        assert_eq!((first.as_str(), below.iter().map(String::as_str).collect()), expected, "{nth}");
    }
    assert_eq!(calls.iter().filter(|call| call.is_after_expiry).count(), 0);
    assert_eq!(stage.api.loading(), 0);
    let answered = stage.ended("answered") + stage.ended("fell_back");
    assert_eq!(answered, f64::from(count));
    let met = |status: u16| calls.iter().filter(|call| call.status.is_some_and(|it| it == status)).count();
    let broken = calls.iter().filter(|call| call.status.is_none()).count();
    let follow_ups = |payload| stage.api.view(&token(payload)).unwrap().follow_ups.len();
    let twice = payloads.iter().filter(|payload| follow_ups(payload) > 1).count();
    let last = calls.iter().filter_map(|call| call.since_answer).max().unwrap();
    println!(
        "{count} deferrals: {} calls; {} rate limits, {} 5xx, {broken} resets, {} 404; {twice} follow-ups twice; the \
         last call {last:.1?} after its deferral",
        calls.len(),
        met(429),
        met(500) + met(502) + met(503),
        met(404),
    );
    assert!(met(429) > 0 && met(502) > 0 && broken > 0 && met(404) >= usize::try_from(count).unwrap());
}
