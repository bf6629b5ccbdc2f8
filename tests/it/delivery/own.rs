//! Handlers that write by themselves: nothing overwrites it.

use std::sync::Arc;
use std::time::Duration;

use rstest::rstest;
use shardless::clock::{Clock, SystemClock};
use shardless::discord::deferral::Deferral;
use shardless::rehearsal::rest::fault::{Scope, Told};
use shardless::rehearsal::rest::{Api, Call, Fault, Script};

use crate::support::TestClock;
use crate::support::courier::{Courier, Ending, FALLBACK, PUBLIC};

/// While a handler is at its work, it may have written by itself.
#[tokio::test(start_paused = true)]
async fn what_a_handler_wrote_is_not_overwritten() {
    let courier = Courier::with(Script::default()).await;
    courier.defer(1, PUBLIC, Ending::Own(Duration::from_secs(30)));
    courier.defer(2, PUBLIC, Ending::Own(Duration::from_secs(30)));
    tokio::time::sleep(Duration::from_secs(10)).await;
    courier.edit(1, "mine").await;
    let (mine, none) = (courier.end_of(1).await, courier.end_of(2).await);
    assert_eq!((&*mine.original.unwrap().content, &*none.original.unwrap().content), ("mine", FALLBACK));
    assert_eq!((courier.ended("kept"), courier.ended("fell_back")), (1.0, 1.0));
}

/// Nor while Discord does not take the fallback text.
#[rstest]
#[case::in_trouble(Fault::Status(503))]
#[case::without_an_answer(Fault::Reset)]
#[case::for_its_rate(Fault::RateLimited { retry_after: 20.0, scope: Scope::User, told: Told::Json })]
#[tokio::test(start_paused = true)]
async fn what_a_handler_writes_meanwhile_is_not_overwritten(#[case] fault: Fault) {
    let is_fallback = |call: &Call| String::from_utf8_lossy(&call.body).contains(FALLBACK);
    let script = Script::default().faults(move |call| (is_fallback(call) && call.nth < 5).then_some(fault));
    let courier = Courier::with(script).await;
    courier.defer(1, PUBLIC, Ending::Failure);
    courier.api.until(|api| api.count(|_| true) == 2).await;
    courier.edit(1, "mine").await;
    assert_eq!(courier.end_of(1).await.original.unwrap().content, "mine");
    assert_eq!(courier.ended("kept"), 1.0);
}

/// Whatever our own clock says: an edit is dated by Discord's.
#[rstest]
#[case::ahead(600)]
#[case::behind(-600)]
#[tokio::test(start_paused = true)]
async fn an_edit_is_seen_whatever_our_clock_says(#[case] seconds: i64) {
    let (clock, id) =
        (Arc::new(TestClock::default()), snowflake(SystemClock.unix_time() - Duration::from_secs(60)));
    clock.step(seconds);
    let api = Api::start(0).await.unwrap();
    let url = api.url();
    let courier = Courier::between(api, &url, clock, None);
    courier.defer(id, Deferral::Update, Ending::Own(Duration::from_secs(30)));
    courier.defer(id + 1, Deferral::Update, Ending::Own(Duration::from_secs(30)));
    // Long before the second one came.
    courier.defer(later(id), Deferral::Update, Ending::Own(Duration::from_secs(30)));
    tokio::time::sleep(Duration::from_secs(10)).await;
    courier.edit(id, "mine").await;
    courier.edit(later(id), "another's").await;
    courier.until_entries(0.0).await;
    assert_eq!((courier.ended("kept"), courier.ended("fell_back")), (1.0, 2.0));
    assert!(courier.view(id).follow_ups.is_empty());
}

/// The snowflake of that time.
fn snowflake(unix_time: Duration) -> u64 {
    u64::try_from(unix_time.as_millis()).unwrap().saturating_sub(1_420_070_400_000) << 22
}

/// The snowflake of some minutes later.
fn later(id: u64) -> u64 {
    id + ((5 * 60 * 1000) << 22)
}
