//! The race between a handler and its deadline, in a time of its own.

use bytes::Bytes;
use proptest::prelude::*;
use rstest::rstest;
use tokio::time::sleep;

use super::*;
use crate::discord::late::Way;

/// From the head start to the deadline, in milliseconds.
const DEADLINE: u64 = 200;
const NEVER: u64 = 10_000_000;

fn milliseconds(number: u64) -> Duration {
    Duration::from_millis(number)
}

/// What comes first, and when: for a handler that ends then, and a record that is on disk then.
async fn run(handler: u64, record: u64, is_written: bool) -> (String, u64) {
    let start = Instant::now();
    let calling = sleep(milliseconds(handler));
    tokio::pin!(calling);
    let committed = async {
        sleep(milliseconds(record)).await;
        is_written
    };
    let what = match first(calling, committed, start + milliseconds(DEADLINE), SLOW_DISK).await {
        First::End(()) => "answer".to_owned(),
        First::Deadline { is_durable } => format!("deferral, durable: {is_durable}"),
    };
    (what, u64::try_from(start.elapsed().as_millis()).unwrap())
}

#[rstest]
#[case::long_before(0, 3, true, "answer", 0)]
#[case::just_before(150, 3, true, "answer", 150)]
#[case::at_the_deadline(200, 3, true, "answer", 200)]
#[case::just_after(250, 3, true, "deferral, durable: true", 200)]
#[case::never(NEVER, 3, true, "deferral, durable: true", 200)]
#[case::a_disk_that_fails_costs_no_time(NEVER, 3, false, "deferral, durable: false", 200)]
#[case::a_slow_disk_is_waited_for(NEVER, 420, true, "deferral, durable: true", 420)]
#[case::but_not_for_ever(NEVER, 600, true, "deferral, durable: false", 500)]
#[case::meanwhile_an_answer_is_the_answer(300, 420, true, "answer", 300)]
#[tokio::test(start_paused = true)]
async fn the_first_of_both_counts(
    #[case] handler: u64,
    #[case] record: u64,
    #[case] is_written: bool,
    #[case] what: &str,
    #[case] when: u64,
) {
    assert_eq!(run(handler, record, is_written).await, (what.to_owned(), when));
}

/// Late answers have a part of the memory alone, so that requests have the rest.
#[rstest]
#[case::room_in_both(3, 3, true)]
#[case::none_in_their_part(2, 9, false)]
#[case::none_at_all(9, 2, false)]
fn a_late_answer_is_held_where_there_is_room(#[case] part: usize, #[case] all: usize, #[case] is_held: bool) {
    let (part, all) = (Budget::new(part), Budget::new(all));
    let (content_type, body) = ("application/json".to_owned(), Bytes::from_static(b"{ }"));
    let held = held(Message { way: Way::Edit, content_type, body }, &part, &all).ok();
    assert_eq!(held.as_ref().map(|message| &message.body[..]), is_held.then_some(&b"{ }"[..]));
    let taken = if is_held { 3 } else { 0 };
    assert_eq!((part.used(), all.used()), (taken, taken));
    drop(held);
    assert_eq!((part.used(), all.used()), (0, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    /// Whatever comes when: one of both, at its time, and the deadline is never later than the disk may make it.
    #[test]
    fn there_is_one_outcome_at_its_time(handler in 0..700_u64, record in 0..700_u64, is_written: bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let (what, when) = runtime.unwrap().block_on(run(handler, record, is_written));
        let latest = DEADLINE + 300;
        let deferral = record.clamp(DEADLINE, latest);
        let expected = if handler <= deferral {
            ("answer".to_owned(), handler)
        } else {
            (format!("deferral, durable: {}", is_written && record <= latest), deferral)
        };
        prop_assert_eq!((what, when), expected);
    }
}
