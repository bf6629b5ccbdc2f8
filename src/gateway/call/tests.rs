//! Who waits for an answer, and who has it, in a time of its own.

use tokio::time::sleep;

use super::*;

fn milliseconds(number: u64) -> Duration {
    Duration::from_millis(number)
}

/// Whether a client has the answer, and when that was known.
async fn handed_over(call: Arc<Call>) -> (bool, Duration) {
    let start = Instant::now();
    (call.is_handed_over().await, start.elapsed())
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_handed_over_is_known_at_once() {
    let call = Call::new();
    let (first, second) = (call.receipt(), call.receipt());
    let known = tokio::spawn(handed_over(Arc::clone(&call)));
    sleep(milliseconds(5000)).await;
    drop(first);
    sleep(milliseconds(5000)).await;
    second.hand_over();
    assert_eq!(known.await.unwrap(), (true, milliseconds(10_000)));
    assert_eq!(handed_over(call).await, (true, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn who_hung_up_may_come_again_within_a_second() {
    let call = Call::new();
    drop(call.receipt());
    assert_eq!(handed_over(Arc::clone(&call)).await, (false, SECOND_TRY));

    let known = tokio::spawn(handed_over(Arc::clone(&call)));
    sleep(milliseconds(900)).await;
    let again = call.receipt();
    sleep(milliseconds(2000)).await;
    again.hand_over();
    assert_eq!(known.await.unwrap(), (true, milliseconds(2900)), "a slow connection has its time");
}

#[tokio::test(start_paused = true)]
async fn who_hung_up_twice_may_come_once_more() {
    let call = Call::new();
    drop(call.receipt());
    let known = tokio::spawn(handed_over(Arc::clone(&call)));
    sleep(milliseconds(600)).await;
    let again = call.receipt();
    sleep(milliseconds(100)).await;
    drop(again);
    sleep(milliseconds(700)).await;
    call.receipt().hand_over();
    assert_eq!(known.await.unwrap(), (true, milliseconds(1400)));
}

#[tokio::test(start_paused = true)]
async fn the_first_answer_is_everybodys() {
    let call = Call::new();
    let receipts = [call.receipt(), call.receipt(), call.receipt()];
    let waiting = receipts.map(|receipt| tokio::spawn(async move { receipt.reply().await.status() }));
    sleep(milliseconds(3000)).await;
    for status in [StatusCode::BAD_GATEWAY, StatusCode::OK] {
        call.settle(Reply::empty(status));
    }
    for waiting in waiting {
        assert_eq!(waiting.await.unwrap(), StatusCode::BAD_GATEWAY);
    }
    assert_eq!(call.receipt().reply().await.status(), StatusCode::BAD_GATEWAY, "also of who comes later");
}
