//! One replica of a handler: a call to it, and what that says about the next ones.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use tokio::time::Instant;

use super::health::{Change, Health, InFlight};
use super::once::Once;
use super::status::{End, ReplicaStatus};
use super::transport::Transport;
use super::{Answer, CallError, Called, Cause, DEADLINE_HEADER};
use crate::logging::{self, Flood};

pub(super) struct Replica {
    pub(super) label: Arc<str>,
    pub(super) transport: Transport,
    pub(super) health: Health,
}

/// What is sent to one replica, or to the next.
#[derive(Clone)]
pub(super) struct Attempt {
    headers: Arc<HeaderMap>,
    pub(super) body: Once,
    /// When Discord is to have an answer.
    deadline: Instant,
    flood: Arc<Flood>,
}

impl Attempt {
    pub(super) fn new(headers: HeaderMap, body: Once, deadline: Instant, flood: Arc<Flood>) -> Self {
        Self { headers: Arc::new(headers), body, deadline, flood }
    }

    /// Its headers, as they are now: the time that is left is one of them.
    pub(super) fn into_parts(self) -> (HeaderMap, Once) {
        let left = self.deadline.saturating_duration_since(Instant::now()).as_millis();
        let mut headers = Arc::unwrap_or_clone(self.headers);
        headers.insert(DEADLINE_HEADER, HeaderValue::from(u64::try_from(left).unwrap_or(u64::MAX)));
        (headers, self.body)
    }
}

impl Replica {
    /// One call. How it ends decides about the next ones, if there are others to take them.
    pub(super) async fn call(&self, attempt: Attempt) -> Called {
        let in_flight = self.health.begin();
        let (deadline, flood) = (attempt.deadline, Arc::clone(&attempt.flood));
        // What begins past the deadline cannot be late.
        let can_be_late = deadline > Instant::now();
        let sending = self.transport.send(attempt);
        tokio::pin!(sending);
        let (result, is_noted) = tokio::select! {
            result = &mut sending => (result, false),
            () = tokio::time::sleep_until(deadline), if can_be_late => {
                let is_noted = self.note_late(&in_flight, &flood);
                (sending.await, is_noted)
            }
        };
        self.note_end(&result, is_noted, &flood);
        Called { replica: Arc::clone(&self.label), result, tried: Vec::new() }
    }

    /// Finds out whether it listens, unless something was learned of it that is still fresh.
    pub(super) async fn look(&self, fresh: Duration) {
        let began = Instant::now();
        if !self.health.is_stale(fresh, began) {
            return;
        }
        let why = self.transport.look().await.err().map(|cause| cause.to_string());
        self.health.note_look(why.as_deref().map_or(Ok(()), Err), began, Instant::now());
    }

    pub(super) fn status(&self, now: Instant) -> ReplicaStatus {
        let (state, ejections) = self.health.state(now);
        ReplicaStatus { url: Arc::clone(&self.label), in_flight: self.health.in_flight(), state, ejections }
    }

    /// Being slow is no failure, as long as answers come. Whether it is noted as one.
    fn note_late(&self, in_flight: &InFlight<'_>, flood: &Flood) -> bool {
        let is_silent = in_flight.is_silent_since();
        if is_silent {
            self.note(End::Failed("no answer in time"), flood);
        }
        is_silent
    }

    /// A late answer is one too; a late failure was noted already.
    fn note_end(&self, result: &Result<Answer, CallError>, is_noted: bool, flood: &Flood) {
        match (verdict(result), result) {
            (Some(Ok(())), _) => self.note(End::Well, flood),
            (Some(Err(_)), _) if is_noted => {}
            (Some(Err(why)), Err(CallError { cause: Cause::Connect(_), .. })) => {
                self.note(End::Unreachable { why: &why, may_listen: self.transport.shakes_hands() }, flood);
            }
            (Some(Err(why)), _) => self.note(End::Failed(&why), flood),
            (None, _) => {}
        }
    }

    fn note(&self, end: End<'_>, flood: &Flood) {
        let now = Instant::now();
        let change = match (self.health.note(end, now), end) {
            (Some(Change::LeftOut(time)), End::Failed(why) | End::Unreachable { why, .. }) => {
                Err((time, why))
            }
            (Some(Change::Back), _) => Ok(()),
            _ => return,
        };
        logging::replica(flood, now, &self.label, change);
    }
}

/// What the end of a call says of the replica, if anything.
fn verdict(result: &Result<Answer, CallError>) -> Option<Result<(), String>> {
    match result {
        Ok(answer) if answer.status.is_server_error() => Some(Err(format!("it answered {}", answer.status))),
        Ok(_) => Some(Ok(())),
        // Our own shortage.
        Err(CallError { cause: Cause::NoMemory, .. }) => None,
        Err(error) => Some(Err(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::StatusCode;
    use rstest::rstest;

    use super::*;

    fn answer(status: u16) -> Result<Answer, CallError> {
        let status = StatusCode::from_u16(status).unwrap();
        Ok(Answer { status, headers: HeaderMap::new(), body: Bytes::new() })
    }

    /// 4xx may be the interaction's fault, 5xx is the replica's.
    #[rstest]
    #[case::fine(answer(200), Some(true))]
    #[case::not_for_this_interaction(answer(404), Some(true))]
    #[case::broken(answer(500), Some(false))]
    #[case::busy(answer(503), Some(false))]
    #[case::dead(Err(CallError::not_sent(Cause::Connect(String::new()))), Some(false))]
    #[case::too_much(Err(CallError::maybe_read(Cause::TooLarge(1))), Some(false))]
    #[case::our_own_shortage(Err(CallError::maybe_read(Cause::NoMemory)), None)]
    fn the_end_of_a_call_tells_how_a_replica_does(
        #[case] result: Result<Answer, CallError>,
        #[case] is_well: Option<bool>,
    ) {
        assert_eq!(verdict(&result).map(|verdict| verdict.is_ok()), is_well);
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_that_is_left_is_told_as_it_is_when_the_attempt_begins() {
        let body = Once::new(Bytes::from_static(b"{}"));
        let deadline = Instant::now() + Duration::from_millis(700);
        let attempt = Attempt::new(HeaderMap::new(), body, deadline, Arc::default());
        for left in ["700", "200", "0"] {
            let (headers, _) = attempt.clone().into_parts();
            assert_eq!(headers[DEADLINE_HEADER], left);
            tokio::time::advance(Duration::from_millis(500)).await;
        }
    }
}
