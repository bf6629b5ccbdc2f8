//! When late answers are sent again, and when no more.

use std::time::Duration;

use rstest::rstest;
use shardless::clock::Clock;
use shardless::rehearsal::rest::fault::{Scope, Told};
use shardless::rehearsal::rest::{Call, Fault, Race, Script};

use super::{HELLO, always, first, script};
use crate::support::courier::{Courier, Ending, FALLBACK, PUBLIC};

const SECOND: Duration = Duration::from_secs(1);
const LIFE: Duration = Duration::from_secs(15 * 60);

fn limited(retry_after: f64, scope: Scope, told: Told) -> Fault {
    Fault::RateLimited { retry_after, scope, told }
}

#[rstest]
#[case(Race::Calls(1), 2)]
#[case(Race::Calls(7), 8)]
#[case(Race::For(Duration::from_millis(700)), 3)]
#[case(Race::For(SECOND * 10), 8)]
#[tokio::test(start_paused = true)]
async fn a_deferral_that_discord_does_not_know_yet_is_waited_for(#[case] race: Race, #[case] calls: usize) {
    let courier = Courier::with(Script::default().race(race)).await;
    courier.defer_hello(1);
    assert_eq!(courier.end_of(1).await.original.unwrap().content, "hello");
    assert_eq!(courier.calls(1).len(), calls);
}

/// Also where other trouble takes its time in between.
#[tokio::test(start_paused = true)]
async fn a_deferral_that_discord_learns_of_late_is_waited_for() {
    let faults = |call: &Call| (2..=6).contains(&call.nth).then_some(Fault::Status(503));
    let courier = Courier::with(Script::default().race(Race::Calls(2)).faults(faults)).await;
    courier.defer_hello(1);
    assert_eq!(courier.end_of(1).await.original.unwrap().content, "hello");
    let times = courier.times(1);
    assert!(times.len() == 8 && times[6] - times[0] > SECOND * 12, "{times:?}");
}

/// Not for ever, though: many such calls would be punished.
#[rstest]
#[case::at_once(None, 8)]
#[case::slowly(Some(Fault::Slow(SECOND * 3)), 4)]
#[tokio::test(start_paused = true)]
async fn a_deferral_that_discord_never_knows_is_given_up(#[case] fault: Option<Fault>, #[case] calls: usize) {
    let script = Script::default().race(Race::Calls(1000));
    let courier = Courier::with(script.faults(move |_| fault)).await;
    courier.defer_hello(1);
    assert!(courier.end_of(1).await.original.unwrap().is_loading());
    assert_eq!(courier.ended("unknown"), 1.0);
    tokio::time::sleep(LIFE).await;
    let times = courier.times(1);
    assert_eq!(times.len(), calls);
    assert!(times[times.len() - 1] - times[0] <= SECOND * 12, "{times:?}");
}

#[rstest]
#[case::float(limited(7.25, Scope::User, Told::Json), 7250)]
#[case::shared(limited(30.5, Scope::Shared, Told::Json), 30_500)]
#[case::header(limited(7.25, Scope::User, Told::HeaderOnly), 8000)]
#[tokio::test(start_paused = true)]
async fn a_rate_limit_of_one_holds_back_that_one(#[case] fault: Fault, #[case] millis: u64) {
    let faults = move |call: &Call| (call.token() == "hush-1-hush" && call.nth == 1).then_some(fault);
    let courier = Courier::with(Script::default().faults(faults)).await;
    courier.defer_hello(1);
    courier.api.until(|api| api.count(|_| true) == 1).await;
    courier.defer_hello(2);
    assert_eq!(courier.end_of(1).await.original.unwrap().content, "hello");
    let times = courier.times(1);
    let wait = times[1] - times[0];
    let asked = Duration::from_millis(millis);
    assert!(times.len() == 2 && wait >= asked && wait < asked + SECOND / 2, "{wait:?}");
    assert!(courier.times(2)[0] < SECOND / 2, "{:?}", courier.times(2));
}

/// Of all interactions, for as long as it takes, whoever met it; so many have to.
#[rstest]
#[case::global(limited(7.25, Scope::Global, Told::Json), 1, 7.25)]
#[case::in_headers(limited(7.25, Scope::Global, Told::HeaderOnly), 1, 8.0)]
#[case::a_page(limited(1.0, Scope::User, Told::NotJson), 2, 60.0)]
#[case::forbidden_by_a_page(Fault::Status(403), 2, 60.0)]
#[tokio::test(start_paused = true)]
async fn what_holds_for_all_holds_all_back(#[case] fault: Fault, #[case] met: u64, #[case] seconds: f64) {
    let met_by = usize::try_from(met).unwrap();
    let faults = move |call: &Call| (call.nth_in_all <= met_by).then_some(fault);
    let courier = Courier::with(Script::default().faults(faults)).await;
    (1..=met).for_each(|id| courier.defer_hello(id));
    courier.api.until(|api| api.count(|call| call.status.is_some()) == met_by).await;
    let closed = courier.api.calls()[met_by - 1].at;
    (met + 1..=200).for_each(|id| courier.defer_hello(id));
    courier.until_entries(0.0).await;
    let calls = courier.api.calls();
    assert_eq!((calls.len(), courier.ended("answered")), (200 + met_by, 200.0));
    let wait = calls[met_by].at - closed;
    assert!(wait >= Duration::from_secs_f64(seconds), "{wait:?}");
    let last = calls[199 + met_by].at - closed;
    assert!(last < Duration::from_secs_f64(seconds) + SECOND, "{last:?}");
}

/// What one alone meets can be its own fault.
#[rstest]
#[case::a_page(limited(1.0, Scope::User, Told::NotJson))]
#[case::forbidden_by_a_page(Fault::Status(403))]
#[tokio::test(start_paused = true)]
async fn a_block_of_one_holds_back_that_one(#[case] fault: Fault) {
    let faults = move |call: &Call| (call.token() == "hush-1-hush").then_some(fault);
    let courier = Courier::with(Script::default().faults(faults)).await;
    courier.defer_hello(1);
    for round in 0..100 {
        courier
            .api
            .until(|api| api.count(|call| call.token() == "hush-1-hush" && call.status.is_some()) > 0)
            .await;
        courier.defer_hello(2 + round);
        tokio::time::sleep(SECOND * 7).await;
        assert!(courier.times(2 + round)[0] < SECOND / 2, "{:?}", courier.times(2 + round));
    }
    courier.until_entries(0.0).await;
    assert_eq!((courier.ended("expired"), courier.ended("answered")), (1.0, 100.0));
    let times = courier.times(1);
    let waits: Vec<_> = times.windows(2).map(|two| (two[1] - two[0]).as_secs()).collect();
    assert_eq!(waits, [60, 120, 240, 240]);
}

#[tokio::test(start_paused = true)]
async fn blocks_take_longer_and_longer() {
    let courier = Courier::with(script(always(limited(0.0, Scope::User, Told::NotJson)))).await;
    (1..=500).for_each(|id| courier.defer_hello(id));
    courier.until_entries(0.0).await;
    assert_eq!(courier.ended("expired"), 500.0);
    let calls = courier.api.calls();
    assert!(calls.iter().all(|call| !call.is_after_expiry));
    // Those that were under way together count once: 0, 60, 180, 420 and 660 s after the first.
    let bursts = calls.windows(2).filter(|two| two[1].at - two[0].at > SECOND * 50).count() + 1;
    assert_eq!(bursts, 5);
    assert!(calls.len() <= bursts * 128, "{}", calls.len());
}

/// However short the waits are that Discord asks for, or however long.
#[rstest]
#[case::none(0.0, 10..60)]
#[case::ages(1e12, 1..2)]
#[tokio::test(start_paused = true)]
async fn senseless_rate_limits_do_no_harm(#[case] retry_after: f64, #[case] calls: std::ops::Range<usize>) {
    let faults = move |call: &Call| {
        let is_met = call.token() == "hush-1-hush";
        is_met.then_some(limited(retry_after, Scope::User, Told::Json))
    };
    let courier = Courier::with(Script::default().faults(faults)).await;
    courier.defer_hello(1);
    courier.defer_hello(2);
    courier.until_entries(0.0).await;
    assert_eq!((courier.ended("expired"), courier.ended("answered")), (1.0, 1.0));
    assert!(calls.contains(&courier.calls(1).len()), "{}", courier.calls(1).len());
    assert_eq!(courier.api.count(|call| call.is_after_expiry), 0);
}

/// Requests that Discord counts against this machine's address stay far below the number that blocks it.
#[tokio::test(start_paused = true)]
async fn requests_in_vain_are_bounded_in_all() {
    let script = script(always(limited(0.5, Scope::User, Told::Json)));
    let courier = Courier::with(script.without_bodies()).await;
    (1..=1000).for_each(|id| courier.defer_hello(id));
    courier.until_entries(0.0).await;
    assert_eq!(courier.ended("expired"), 1000.0);
    let calls = courier.api.calls();
    let in_ten_minutes = calls.iter().filter(|call| call.at - calls[0].at < Duration::from_secs(600)).count();
    assert!((4500..6000).contains(&in_ten_minutes), "{in_ten_minutes}");
}

/// As long as there is hope, and no longer.
#[rstest]
#[case::trouble(Fault::Status(503))]
#[case::reset(Fault::Reset)]
#[case::hang(Fault::Hang)]
#[case::slow(Fault::Slow(SECOND * 11))]
#[tokio::test(start_paused = true)]
async fn tries_end_with_the_token(#[case] fault: Fault) {
    let courier = Courier::with(script(always(fault))).await;
    courier.defer_hello(1);
    courier.until_entries(0.0).await;
    assert_eq!(courier.ended("expired"), 1.0);
    let times = courier.times(1);
    assert!((15..60).contains(&times.len()), "{}", times.len());
    assert!(times[1] - times[0] < SECOND * 12, "{times:?}");
    let last = times[times.len() - 1];
    assert!(last > LIFE - SECOND * 75 && last < LIFE - SECOND * 5, "{last:?}");
    assert_eq!(courier.api.count(|call| call.is_after_expiry), 0);
}

/// While an answer waits for whatever it is.
#[rstest]
#[case::in_back_off(Fault::Status(500))]
#[case::while_unknown(Fault::UnknownWebhook)]
#[case::for_its_rate(limited(30.0, Scope::User, Told::Json))]
#[case::behind_the_gate(limited(30.0, Scope::Global, Told::Json))]
#[tokio::test(start_paused = true)]
async fn nothing_is_sent_after_the_token_s_end(#[case] fault: Fault) {
    let courier = Courier::with(script(always(fault))).await;
    courier.defer_hello(1);
    courier.defer(2, PUBLIC, Ending::Failure);
    courier.api.until(|api| api.count(|call| call.status.is_some()) == 2).await;
    tokio::time::sleep(SECOND / 10).await;
    courier.clock.pass(LIFE);
    courier.until_entries(0.0).await;
    assert_eq!(courier.ended("expired"), 2.0);
    assert_eq!((courier.api.calls().len(), courier.api.count(|call| call.is_after_expiry)), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_after_a_suspend_past_the_token_s_end() {
    let courier = Courier::with(script(always(Fault::Status(500)))).await;
    courier.defer_hello(1);
    courier.api.until(|api| api.count(|call| call.status.is_some()) == 1).await;
    courier.clock.sleep(LIFE);
    courier.until_entries(0.0).await;
    assert_eq!((courier.ended("expired"), courier.api.calls().len()), (1.0, 1));
    // One that came later is not concerned.
    courier.defer(2, PUBLIC, HELLO);
    courier.api.until(|api| api.count(|_| true) == 2).await;
}

/// Both ways, and by more than a token's life: as on a machine that learns what time it is.
#[rstest]
#[case::ahead(0, 3600)]
#[case::back(0, -3600)]
#[case::from_one_wrong_time_to_another(-540, 940)]
#[tokio::test(start_paused = true)]
async fn a_time_of_day_that_steps_ends_no_token(#[case] before: i64, #[case] meanwhile: i64) {
    let courier = Courier::with(script(first(Fault::Status(500)))).await;
    courier.clock.step(before);
    courier.defer_hello(1);
    courier.api.until(|api| api.count(|call| call.status.is_some()) == 1).await;
    courier.clock.step(meanwhile);
    courier.until_entries(0.0).await;
    assert_eq!((courier.ended("answered"), courier.api.calls().len()), (1.0, 2));
}

/// A request that is under way at the end is broken off.
#[tokio::test(start_paused = true)]
async fn nothing_is_under_way_after_the_token_s_end() {
    let courier = Courier::with(script(always(Fault::Hang))).await;
    courier.defer(1, PUBLIC, Ending::Own(SECOND * 890));
    courier.until_entries(0.0).await;
    let (times, now) = (courier.times(1), courier.clock.now());
    assert_eq!((times.len(), courier.ended("expired")), (1, 1.0));
    let since = now - courier.api.calls()[0].at;
    assert!(since < SECOND * 6, "{since:?}");
}

#[rstest]
#[case::in_time(870, FALLBACK, "fell_back")]
#[case::in_the_last_minute(890, FALLBACK, "fell_back")]
#[case::too_late(896, "", "expired")]
#[tokio::test(start_paused = true)]
async fn a_handler_that_edits_by_itself_is_waited_for(
    #[case] seconds: u64,
    #[case] seen: &str,
    #[case] result: &str,
) {
    let courier = Courier::with(Script::default()).await;
    courier.defer(1, PUBLIC, Ending::Own(Duration::from_secs(seconds)));
    assert_eq!(courier.end_of(1).await.original.unwrap().content, seen);
    assert_eq!(courier.ended(result), 1.0);
    for time in courier.times(1) {
        assert!(time >= Duration::from_secs(seconds) && time < LIFE, "{time:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn many_in_the_same_trouble_are_delivered_when_it_is_over() {
    let faults = |call: &Call| (call.since_answer < Some(SECOND * 120)).then_some(Fault::Status(502));
    let courier = Courier::with(Script::default().faults(faults).without_bodies()).await;
    (1..=1000).for_each(|id| courier.defer(id, PUBLIC, HELLO));
    courier.until_entries(0.0).await;
    assert_eq!(courier.ended("answered"), 1000.0);
    let last = courier.api.calls().iter().filter_map(|call| call.since_answer).max().unwrap();
    assert!(last < SECOND * 190, "{last:?}");
}
