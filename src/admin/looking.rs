//! Looking after handlers that nobody calls just now, so that one that is gone is seen before a user meets it.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::MissedTickBehavior;

use super::Sources;

const INTERVAL: Duration = Duration::from_secs(1);

/// Handlers that are looked after at once; where there are more, each has its turn.
const AT_ONCE: usize = 64;

/// Looks after those of which nothing was learned since the last time, for ever.
pub(super) async fn run(sources: &Sources) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut turn = 0;
    loop {
        ticks.tick().await;
        let snapshot = sources.gateway.snapshot();
        let handlers = snapshot.handlers();
        let in_turn = handlers.iter().cycle().skip(turn % handlers.len().max(1));
        join_all(in_turn.take(AT_ONCE.min(handlers.len())).map(|(handler, _)| handler.look(INTERVAL))).await;
        turn = turn.wrapping_add(AT_ONCE);
    }
}
