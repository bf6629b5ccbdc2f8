//! Looking after handlers that nobody calls just now, so that one that is gone is seen before a user meets it.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::MissedTickBehavior;

use super::Sources;

/// While somebody looks at the page.
const OFTEN: Duration = Duration::from_secs(1);
/// While nobody does.
const SELDOM: Duration = Duration::from_secs(10);

/// Handlers that are looked after at once; where there are more, each has its turn.
const AT_ONCE: usize = 64;

/// Looks after those of which nothing was learned since the last time, for ever.
pub(super) async fn run(sources: &Sources, is_watched: impl Fn() -> bool) {
    let mut ticks = tokio::time::interval(OFTEN);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut turn, mut last) = (0, None);
    loop {
        let now = ticks.tick().await;
        let interval = if is_watched() { OFTEN } else { SELDOM };
        if last.is_some_and(|last| now.saturating_duration_since(last) < interval) {
            continue;
        }
        last = Some(now);
        let snapshot = sources.gateway.snapshot();
        let handlers = snapshot.handlers();
        let in_turn = handlers.iter().cycle().skip(turn % handlers.len().max(1));
        join_all(in_turn.take(AT_ONCE.min(handlers.len())).map(|(handler, _)| handler.look(interval / 2)))
            .await;
        turn = turn.wrapping_add(AT_ONCE);
    }
}
