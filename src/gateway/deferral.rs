//! The deadline guard: a handler that needs longer does not leave its user without an answer.
//!
//! At `answer_within` Discord is told that the answer follows, and the handler's call goes on. What it answers then, or
//! that it has no answer, is the outbox's.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join;
use tokio::time::Instant;

use super::answer;
use super::call::{Permits, Running};
use super::{Failure, Reply};
use crate::activity::Outcome;
use crate::budget::{Budget, Reservation};
use crate::config::OnSlow;
use crate::discord::deferral::Deferral;
use crate::discord::late::{Late, Mapped, Message, Note};
use crate::forward::{Answer, Called, Handler};
use crate::logging;
use crate::metrics;
use crate::outbox::{Deferred, Ticket};

/// Before the deadline, when a deferral's record starts on its way to the disk: few calls get that far.
const HEAD_START: Duration = Duration::from_millis(200);

/// After the deadline, how long a record that is not on disk is waited for. Then the deferral goes out without it: a sure
/// failure now is worse than an improbable loss.
const SLOW_DISK: Duration = Duration::from_millis(300);

/// After the first byte, when a deferral still arrives within Discord's three seconds: no record is waited for after that.
const LATEST: Duration = Duration::from_millis(2800);

const NO_ROOM: &str = "; it is not deferred: too many are (limits.deferred, or the handler's max_deferred)";
const NO_TOKEN: &str = "; it cannot be deferred: it came without an application_id or a token";

/// A deferral in the making.
pub(super) struct Prepared {
    deferral: Deferral,
    ticket: Ticket,
    /// Its part of the handler's `max_deferred`.
    room: Reservation,
}

/// What came first.
enum First<T> {
    /// The handler ended.
    End(T),
    /// The deadline.
    Deadline {
        /// Whether the record is on disk.
        is_durable: bool,
    },
}

impl Running {
    /// How to defer this call, if it is to be, and can be.
    pub(super) fn deferral(&self) -> Option<Deferral> {
        let deadline = &self.job.deadline;
        let wanted = deadline.on_slow == OnSlow::Defer;
        wanted.then(|| Deferral::of(self.job.question, deadline.ephemeral)).flatten()
    }

    /// When to prepare for a deadline.
    pub(super) fn head_start(deadline: Instant) -> Instant {
        deadline.checked_sub(HEAD_START).unwrap_or(deadline)
    }

    /// Makes room for a deferral, and starts its record; or says why it cannot be.
    pub(super) fn prepare(
        &mut self,
        deferral: Deferral,
        handler: &Handler,
    ) -> Result<Prepared, &'static str> {
        let (application, token) = self.job.credentials.take().ok_or(NO_TOKEN)?;
        let rooms = [&self.gateway.bounds.deferred, &handler.deferred].map(Budget::try_one);
        let [Some(entrys), Some(room)] = rooms else { return Err(NO_ROOM) };
        let (record, app) = (&self.job.record, &self.job.app);
        let deferred = Deferred {
            app: record.app.clone(),
            id: record.id,
            application,
            token,
            deferral,
            route: record.route.clone(),
            arrived: self.gateway.clock.unix_time().saturating_sub(self.elapsed()),
            give_up: record.received + app.give_up_after,
            expires: Deferred::expiry(record.received),
            asleep: self.gateway.clock.asleep(),
            fallback: app.fallback.clone(),
        };
        Ok(Prepared { deferral, ticket: self.gateway.outbox.begin(deferred, entrys), room })
    }

    /// Answers by what comes first, the handler or the deadline; never by both.
    pub(super) async fn run_to_deadline(
        &mut self,
        mut calling: Pin<Box<impl Future<Output = Called>>>,
        deadline: Instant,
        prepared: Prepared,
        permits: Permits,
    ) {
        let Prepared { deferral, mut ticket, room } = prepared;
        let patience = SLOW_DISK.min(LATEST.saturating_sub(self.job.answer_within));
        let is_durable = match first(calling.as_mut(), ticket.committed(), deadline, patience).await {
            First::End(called) => {
                // Nobody could tell later that nothing is to follow: where a message is updated, none says "thinking…".
                if deferral == Deferral::Update {
                    _ = tokio::time::timeout_at(deadline + patience, ticket.erase()).await;
                }
                // The ticket goes, and the record with it.
                return self.answered(called);
            }
            First::Deadline { is_durable } => is_durable,
        };
        ticket.defer();
        self.defer(deferral, is_durable);
        drop(permits);
        let (call, given_up, record) = (self.call.clone(), self.given_up.clone(), self.job.record.clone());
        let (gateway, key) = (self.gateway.clone(), self.job.key);
        let handing_over = async {
            if call.is_handed_over().await {
                gateway.activity.later(&record.app, record.id, "deferral handed over to Discord");
                return ticket.sent();
            }
            // Discord knows of nothing that could follow.
            ticket.withdraw();
            given_up.set();
            if let Some(key) = key {
                gateway.guard.spend(key);
            }
            logging::unsent(&record);
            gateway.activity.over(&record.app, record.id, "the deferral reached nobody: nothing follows it");
        };
        let give_up = Instant::now() + self.job.app.give_up_after.saturating_sub(self.elapsed());
        let ending = async {
            let ended = tokio::time::timeout_at(give_up, calling).await.ok();
            drop(room);
            self.end_late(&ticket, deferral, ended);
        };
        join(handing_over, ending).await;
    }

    fn defer(&self, deferral: Deferral, is_durable: bool) {
        let durable = if is_durable { "yes" } else { "no" };
        let labels = metrics::Deferral { app: self.job.record.app.clone(), durable };
        self.gateway.metrics.deferrals.get_or_create(&labels).inc();
        let doubt = (!is_durable).then(|| "its record is not on disk: a crash would lose it".to_owned());
        let reply = Reply::json(deferral.callback());
        self.gateway.settle(&self.call, &self.job, Outcome::Deferred, reply, doubt);
    }

    /// The handler ended after Discord had been told to wait, or is not waited for any longer.
    fn end_late(&mut self, ticket: &Ticket, deferral: Deferral, ended: Option<Called>) {
        let judged = match ended {
            None => Err(Failure::GivenUp(self.job.app.give_up_after)),
            Some(mut called) => {
                self.note_end_of_handler(&mut called);
                called.result.map_err(Failure::from).and_then(|answer| self.judge_late(&answer, deferral))
            }
        };
        match judged {
            Ok(Late::Deliver(message)) => ticket.answered(message),
            Ok(Late::EditsItself) => ticket.edits_itself(),
            Ok(Late::IsSaid) => {
                ticket.withdraw();
                let record = &self.job.record;
                self.gateway.activity.over(&record.app, record.id, "nothing to deliver");
            }
            Err(failure) => {
                let (flood, record, why) = (&self.gateway.flood, &self.job.record, failure.to_string());
                logging::late_failure(flood, self.gateway.clock.now(), record, self.elapsed(), &why);
                self.later(format!("handler failed: {why}"));
                ticket.failed();
            }
        }
    }

    /// What is to be done with a late answer.
    fn judge_late(&self, answer: &Answer, deferral: Deferral) -> Result<Late, Failure> {
        let Some(mapped) = answer::judge_late(answer, deferral, self.job.question)? else {
            logging::late(&self.job.record, self.elapsed(), "handler answers by itself");
            self.later("handler answers by itself");
            return Ok(Late::EditsItself);
        };
        let Mapped { late, note, checked } = mapped;
        // It would be the same each time.
        let is_new = |_: &Note| !self.job.deadline.privacy_is_noted.swap(true, Ordering::Relaxed);
        let broken = (!checked.broken_limits.is_empty())
            .then(|| format!("Discord will refuse it: {}", checked.broken_limits.join("; ")));
        let (gateway, record, elapsed) = (&self.gateway, &self.job.record, self.elapsed());
        match broken.or_else(|| note.filter(is_new).map(|note| note.to_string())) {
            None => {
                logging::late(record, elapsed, "handler answered late");
                self.later("handler answered late");
            }
            Some(note) => {
                logging::late_warning(&gateway.flood, gateway.clock.now(), record, elapsed, &note);
                self.later(format!("handler answered late, but {note}"));
            }
        }
        match late {
            Late::Deliver(message) => {
                let bounds = &gateway.bounds;
                held(message, &bounds.late, &bounds.buffered).map(Late::Deliver)
            }
            other => Ok(other),
        }
    }
}

/// A message that counts in `limits.buffered` until it is on disk; with others like it in a part of that, so that requests
/// have the rest.
fn held(message: Message, part: &Arc<Budget>, all: &Arc<Budget>) -> Result<Message, Failure> {
    let Message { way, content_type, body } = message;
    let (mut part, mut all) = (part.reservation(), all.reservation());
    if part.grow(body.len()) && all.grow(body.len()) {
        Ok(Message { way, content_type, body: part.hold(all.hold(body)) })
    } else {
        Err(Failure::NoMemory)
    }
}

/// Waits for the first of both. The deadline waits for the record too, for a while.
async fn first<T>(
    calling: Pin<&mut impl Future<Output = T>>,
    committed: impl Future<Output = bool>,
    deadline: Instant,
    patience: Duration,
) -> First<T> {
    let committed = tokio::time::timeout_at(deadline + patience, committed);
    let both = join(committed, tokio::time::sleep_until(deadline));
    tokio::select! {
        biased;
        end = calling => First::End(end),
        (committed, ()) = both => First::Deadline { is_durable: committed.unwrap_or(false) },
    }
}

#[cfg(test)]
mod tests;
