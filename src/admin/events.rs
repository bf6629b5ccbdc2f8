//! The status as server-sent events: made once a second for all who look, and not at all while nobody does.
//!
//! Source of the format: the HTML standard, section "Server-sent events".

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use hyper::body::Frame;
use serde_json::Value;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::MissedTickBehavior;

use super::{Sources, charts, status};

const INTERVAL: Duration = Duration::from_secs(1);

/// Events that a slow reader may be behind; then it gets everything anew.
const BEHIND: usize = 4;

/// Makes the events.
pub(super) struct Events {
    sources: Arc<Sources>,
    ticks: broadcast::Sender<Bytes>,
    /// Readers at once.
    at_most: usize,
}

impl Events {
    pub(super) fn new(sources: Arc<Sources>, at_most: usize) -> Self {
        Self { sources, ticks: broadcast::Sender::new(BEHIND), at_most }
    }

    /// Whether somebody looks.
    pub(super) fn are_read(&self) -> bool {
        self.ticks.receiver_count() > 0
    }

    /// Makes an event each second, for those who are there.
    pub(super) async fn run(&self) {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Whoever comes later gets all that was before.
        let (mut revision, mut second) = (0, 0);
        loop {
            ticks.tick().await;
            if !self.are_read() {
                let seen = self.sources.activity.look(|view| (view.revision(), view.now));
                (revision, second) = seen.unwrap_or_default();
                continue;
            }
            let (mut changed, revision_by_now) = status::document(&self.sources, revision);
            let (slots, second_by_now) = charts::changes(&self.sources, second);
            (revision, second) = (revision_by_now, second_by_now);
            changed.insert("charts".to_owned(), slots);
            // The last one may have gone just now.
            _ = self.ticks.send(event("tick", &Value::Object(changed)));
        }
    }

    /// What one reader gets, for as long as they read; `None` where there are too many.
    pub(super) fn stream(
        &self,
    ) -> Option<impl Stream<Item = Result<Frame<Bytes>, Infallible>> + Send + use<>> {
        if self.ticks.receiver_count() >= self.at_most {
            return None;
        }
        // From here on nothing is missed; what comes twice changes nothing.
        let ticks = self.ticks.subscribe();
        let reader = Reader { sources: Arc::clone(&self.sources), ticks, is_behind: true };
        Some(futures_util::stream::unfold(reader, |mut reader| async {
            let event = reader.next().await?;
            Some((Ok(Frame::data(event)), reader))
        }))
    }
}

struct Reader {
    sources: Arc<Sources>,
    ticks: broadcast::Receiver<Bytes>,
    is_behind: bool,
}

impl Reader {
    async fn next(&mut self) -> Option<Bytes> {
        if !self.is_behind {
            match self.ticks.recv().await {
                Ok(tick) => return Some(tick),
                Err(RecvError::Lagged(_)) => self.ticks = self.ticks.resubscribe(),
                Err(RecvError::Closed) => return None,
            }
        }
        self.is_behind = false;
        let (all, _) = status::document(&self.sources, 0);
        Some(event("status", &Value::Object(all)))
    }
}

fn event(name: &str, data: &Value) -> Bytes {
    // JSON has no line ends of its own but escaped ones.
    Bytes::from(format!("event: {name}\ndata: {data}\n\n"))
}
