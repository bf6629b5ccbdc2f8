//! What goes wrong when a script says so.

use rstest::rstest;
use tokio::time::{Instant, timeout};

use super::*;

#[rstest]
#[case(Told::Json, Scope::User, "application/json")]
#[case(Told::Json, Scope::Global, "application/json")]
#[case(Told::HeaderOnly, Scope::Shared, "")]
#[case(Told::NotJson, Scope::User, "text/html")]
#[tokio::test]
async fn a_rate_limit_is_told(#[case] told: Told, #[case] scope: Scope, #[case] content_type: &str) {
    let fault = Fault::RateLimited { retry_after: 1.5, scope, told };
    let script = Script::default().faults(move |_| Some(fault));
    let (api, caller) = started(script, COMMAND, DEFERRED).await;
    let answer = caller.patch(TEXT).await;
    assert_eq!(answer.status, 429);
    let header = |name| answer.headers.get(name).map(|value| value.to_str().unwrap());
    assert_eq!(header("content-type").unwrap_or_default(), content_type);
    if told == Told::Json {
        let body = answer.json();
        assert_eq!((&body["retry_after"], &body["global"]), (&json!(1.5), &json!(scope == Scope::Global)));
    }
    assert_eq!(header("retry-after"), (told != Told::NotJson).then_some("2"));
    assert_eq!(header("x-ratelimit-global"), (scope == Scope::Global).then_some("true"));
    let has_bucket = told != Told::NotJson && scope != Scope::Global;
    assert_eq!(header("x-ratelimit-reset-after"), has_bucket.then_some("1.500"));
    assert!(original(&api).is_loading());
}

#[rstest]
#[case(Fault::UnknownWebhook, 404, Some(10015))]
#[case(Fault::Code { status: 404, code: 10062 }, 404, Some(10062))]
#[case(Fault::Status(502), 502, None)]
#[tokio::test]
async fn a_fault_stands_in_for_the_answer(
    #[case] fault: Fault,
    #[case] status: u16,
    #[case] code: Option<u64>,
) {
    let script = Script::default().faults(move |call| (call.nth == 2).then_some(fault));
    let (api, caller) = started(script, COMMAND, DEFERRED).await;
    assert_eq!(caller.bare(Method::GET).await.status, 200);
    let answer = caller.patch(TEXT).await;
    assert_eq!(answer.status, status);
    let body: Option<Value> = serde_json::from_slice(&answer.body).ok();
    assert_eq!(body.map(|body| body["code"].as_u64().unwrap()), code);
    assert!(original(&api).is_loading());
    assert_eq!(caller.patch(TEXT).await.status, 200);
    let calls = api.calls();
    let seen: Vec<_> =
        calls.iter().map(|call| (call.nth, call.nth_in_all, call.status.unwrap().as_u16())).collect();
    assert_eq!(seen, [(1, 1, 200), (2, 2, status), (3, 3, 200)]);
}

#[rstest]
#[case::before(Fault::Reset, true)]
#[case::after(Fault::ResetAfter, false)]
#[tokio::test]
async fn a_connection_is_reset(#[case] fault: Fault, #[case] still_loads: bool) {
    let script = Script::default().faults(move |call| (call.nth == 1).then_some(fault));
    let (api, caller) = started(script, COMMAND, DEFERRED).await;
    let request = caller.client.patch(api.url() + ORIGINAL).header(header::CONTENT_TYPE, "application/json");
    let error = request.body(TEXT).send().await.unwrap_err();
    let mut causes = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
    let is_reset = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionReset;
    assert!(causes.any(|cause| cause.downcast_ref().is_some_and(is_reset)), "{error:?}");
    assert_eq!(original(&api).is_loading(), still_loads);
    assert_eq!(api.calls()[0].status, None);
    assert_eq!(caller.patch(TEXT).await.status, 200);
}

#[tokio::test]
async fn a_call_that_hangs_is_never_answered() {
    let (api, caller) = started(Script::default().faults(|_| Some(Fault::Hang)), COMMAND, DEFERRED).await;
    let call = tokio::spawn(async move { caller.patch(TEXT).await.status });
    timeout(LONG, api.until(|api| api.count(|_| true) == 1)).await.unwrap();
    assert!(timeout(Duration::from_millis(50), call).await.is_err());
    assert!(original(&api).is_loading() && api.calls()[0].status.is_none());
}

#[tokio::test]
async fn a_slow_call_does_its_work_and_answers_later() {
    let slow = Duration::from_millis(150);
    let script = Script::default().faults(move |_| Some(Fault::Slow(slow)));
    let (api, caller) = started(script, COMMAND, DEFERRED).await;
    let start = Instant::now();
    assert_eq!(caller.patch(TEXT).await.status, 200);
    assert!(start.elapsed() >= slow);
    assert!(original(&api).edited.unwrap().0 < start + slow);
}

#[tokio::test]
async fn the_race_is_lost_for_some_calls() {
    let (_api, caller) = started(Script::default().race(Race::Calls(2)), COMMAND, DEFERRED).await;
    assert_eq!(caller.patch(TEXT).await.problem(), (404, 10015));
    assert_eq!(caller.bare(Method::GET).await.problem(), (404, 10015));
    assert_eq!(caller.patch(TEXT).await.status, 200);
}

#[tokio::test]
async fn the_race_is_lost_for_some_time() {
    let clock = Arc::new(Moved::default());
    let lag = Duration::from_secs(60);
    let script = Script::default().race(Race::For(lag)).clock(Arc::clone(&clock) as _);
    let (api, caller) = started(script, COMMAND, DEFERRED).await;
    assert_eq!(caller.patch(TEXT).await.problem(), (404, 10015));
    clock.pass(lag);
    assert_eq!(caller.patch(TEXT).await.status, 200);
    let calls = api.calls();
    assert!(calls[0].since_answer.unwrap() < lag && calls[1].since_answer.unwrap() >= lag);
}

#[tokio::test]
async fn a_lot_is_the_same_each_time_and_fair() {
    let api = Api::start(0).await.unwrap();
    let caller = Caller::of(&api);
    caller.patch(TEXT).await;
    let mut call = api.calls().remove(0);
    assert_eq!(call.lot(), call.clone().lot());
    let mut below_30 = 0;
    for nth in 0..1000 {
        call.nth = nth;
        below_30 += usize::from(call.lot() < 30);
    }
    assert!((250..350).contains(&below_30), "{below_30}");
    assert!(!format!("{call:?}").contains("secret"));
}
