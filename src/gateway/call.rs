//! One call: an interaction at its handler, with an outcome that is assigned once and has many waiters.

use std::borrow::Cow;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::answer::{self, Judged};
use super::replay::InteractionKey;
use super::{App, Deadline, Failure, Gateway, Refusal, Reply};
use crate::activity::{Outcome, Record};
use crate::budget::{Budget, Reservation};
use crate::discord::callback::{self, Question};
use crate::discord::interaction::Kind;
use crate::discord::{TOKEN_LIFETIME, Token};
use crate::forward::{Called, Forwarding, GivenUp, Handler};
use crate::logging;
use crate::metrics;

/// For the answer to a request whose connection waited for this process to start. The process before it may have taken
/// a whole `answer_within` (2.2 s) to finish its calls: with the start itself, this is what is left of Discord's 3 s.
pub(super) const AFTER_A_WAIT: Duration = Duration::from_millis(500);

/// A client that hung up may send its request again over another connection, as proxies do, and at once.
const SECOND_TRY: Duration = Duration::from_secs(1);

/// What waits for one interaction's answer: the client, and every duplicate of the request.
#[derive(Default)]
pub(super) struct Call {
    reply: OnceLock<Reply>,
    settled: Notify,
    /// Those that wait for the answer, or that it is on its way to.
    clients: AtomicUsize,
    is_handed_over: AtomicBool,
    client_ended: Notify,
}

/// One client's part in a call. Where it goes without a word, that client did not get the answer.
pub struct Receipt(Arc<Call>);

impl Receipt {
    /// The answer, as soon as there is one.
    pub(super) async fn reply(&self) -> Reply {
        self.0.reply().await
    }

    /// The answer's end was handed to the connection.
    pub fn hand_over(self) {
        self.0.is_handed_over.store(true, Ordering::SeqCst);
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        self.0.clients.fetch_sub(1, Ordering::SeqCst);
        self.0.client_ended.notify_waiters();
    }
}

impl Call {
    pub(super) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// For a client that begins to wait.
    pub(super) fn receipt(self: &Arc<Self>) -> Receipt {
        self.clients.fetch_add(1, Ordering::SeqCst);
        Receipt(Arc::clone(self))
    }

    /// Waits until a client has the answer, or all have gone without it. Whether one has it.
    pub(super) async fn is_handed_over(&self) -> bool {
        loop {
            let ended = self.client_ended.notified();
            if self.is_handed_over.load(Ordering::SeqCst) {
                return true;
            }
            if self.clients.load(Ordering::SeqCst) > 0 {
                ended.await;
            } else if tokio::time::timeout(SECOND_TRY, ended).await.is_err()
                && self.clients.load(Ordering::SeqCst) == 0
            {
                return self.is_handed_over.load(Ordering::SeqCst);
            }
        }
    }

    async fn reply(&self) -> Reply {
        loop {
            let settled = self.settled.notified();
            if let Some(reply) = self.reply.get() {
                return reply.clone();
            }
            settled.await;
        }
    }

    /// Assigns the answer. Whoever comes second changes nothing.
    fn settle(&self, reply: Reply) {
        if self.reply.set(reply).is_ok() {
            self.settled.notify_waiters();
        }
    }
}

/// All that a call needs. It is a task of its own, so that a client that hangs up stops nothing.
pub(super) struct Job {
    pub(super) app: Arc<App>,
    pub(super) question: Question,
    pub(super) record: Record,
    /// Absent where no replay is looked for.
    pub(super) key: Option<InteractionKey>,
    /// From the request's first byte until Discord gets an answer.
    pub(super) answer_within: Duration,
    /// What happens if that takes too long.
    pub(super) deadline: Arc<Deadline>,
    /// What a late answer takes; absent where it came without.
    pub(super) credentials: Option<(u64, Token)>,
}

/// Permission to be one of the calls not yet answered: the daemon's, the application's and the handler's.
pub(super) type Permits = [Reservation; 3];

impl Gateway {
    /// Starts a call, if there is room for one more. One that is shed was never there: it may come again.
    pub(super) fn start(
        self: &Arc<Self>,
        call: &Arc<Call>,
        mut job: Job,
        handler: Arc<Handler>,
        forwarding: Forwarding,
    ) -> Result<(), Refusal> {
        let permits = [&self.bounds.in_flight, &job.app.in_flight, &handler.in_flight].map(Budget::try_one);
        let [Some(ours), Some(apps), Some(handlers)] = permits else {
            if let Some(key) = job.key {
                self.guard.shed(key);
            }
            // A duplicate may have begun to wait.
            call.settle(Reply::empty(Refusal::InFlight.status()));
            return Err(Refusal::InFlight);
        };
        self.metrics.calls_in_flight.inc();
        let forwarded = self.clock.now();
        job.record.forwarded = Some(forwarded);
        // Until it is known which of its replicas answers.
        job.record.replica = Some(handler.name());
        let running = Box::new(Running {
            gateway: Arc::clone(self),
            call: Arc::clone(call),
            job,
            forwarded,
            given_up: forwarding.given_up.clone(),
            _begun: self.begun.load_full().try_one(),
        });
        let deadline = forwarding.deadline;
        let calling = Box::pin(handler.call(forwarding));
        tokio::spawn(running.run(handler, calling, deadline, [ours, apps, handlers]));
        Ok(())
    }

    /// Answers by a route's own reply.
    pub(super) fn reply(&self, call: &Call, job: &Job, reply: Bytes) {
        match callback::ready(reply, job.question) {
            Ok(reply) => self.settle(call, job, Outcome::Replied, Reply::json(reply), None),
            Err(error) => self.fail(call, job, Outcome::Failed, &Failure::Reply(error)),
        }
    }

    fn fail(&self, call: &Call, job: &Job, outcome: Outcome, failure: &Failure) {
        let reply = Reply::failure(failure, job.question.kind, job.app.error_message.as_deref());
        self.settle(call, job, outcome, reply, Some(failure.to_string()));
    }

    pub(super) fn settle(
        &self,
        call: &Call,
        job: &Job,
        outcome: Outcome,
        reply: Reply,
        explanation: Option<String>,
    ) {
        if outcome != Outcome::Deferred && reply.status() == StatusCode::OK {
            self.outbox.answered_at_once(&job.record.app, job.record.id);
        }
        let reply = self.conclude(&job.record, outcome, reply, explanation);
        let size = reply.body_len();
        call.settle(reply);
        if let Some(key) = job.key {
            let buffered = self.snapshot.load().limits().buffered;
            self.guard.settled(key, size, buffered, self.clock.now());
        }
    }
}

/// A call on its way.
pub(super) struct Running {
    pub(super) gateway: Arc<Gateway>,
    pub(super) call: Arc<Call>,
    pub(super) job: Job,
    forwarded: Instant,
    pub(super) given_up: GivenUp,
    /// Counts it as one whose end somebody may wait for.
    _begun: Option<Reservation>,
}

impl Running {
    async fn run(
        mut self: Box<Self>,
        handler: Arc<Handler>,
        mut calling: Pin<Box<impl Future<Output = Called>>>,
        deadline: Instant,
        permits: Permits,
    ) {
        let mut why_not_deferred = "";
        if let Some(deferral) = self.deferral() {
            if let Ok(called) = tokio::time::timeout_at(Self::head_start(deadline), &mut calling).await {
                return self.answered(called);
            }
            match self.prepare(deferral, &handler) {
                Ok(prepared) => {
                    // In places of their own, here and below: most calls end before.
                    return Box::pin(self.run_to_deadline(calling, deadline, prepared, permits)).await;
                }
                Err(why) => why_not_deferred = why,
            }
        }
        match tokio::time::timeout_at(deadline, &mut calling).await {
            Ok(called) => self.answered(called),
            Err(_) => {
                self.late(why_not_deferred);
                Box::pin(self.wait_on(calling, &handler, permits)).await;
            }
        }
    }

    /// The handler ended in time, well or badly.
    pub(super) fn answered(&mut self, mut called: Called) {
        self.note_end_of_handler(&mut called);
        match called.result.map_err(Failure::from).and_then(|answer| answer::judge(answer, self.job.question))
        {
            Ok(Judged { outcome, reply, warning }) => {
                self.gateway.settle(&self.call, &self.job, outcome, reply, warning);
            }
            Err(failure) => self.fail(Outcome::Failed, &failure),
        }
    }

    /// The deadline came first, and there is no deferral.
    fn late(&mut self, why: &'static str) {
        self.given_up.set();
        self._begun = None;
        let failure = Failure::Late(self.job.answer_within, why);
        if self.job.question.kind == Kind::Autocomplete {
            // Whoever types goes on typing.
            let nothing = Reply::json(callback::no_choices());
            let why = Some(failure.to_string());
            return self.gateway.settle(&self.call, &self.job, Outcome::Late, nothing, why);
        }
        self.fail(Outcome::Late, &failure);
    }

    /// Discord has its answer; the handler's call goes on, so that its author learns how long it took.
    async fn wait_on(&mut self, calling: impl Future<Output = Called>, handler: &Handler, permits: Permits) {
        let deferred = [&self.gateway.bounds.deferred, &handler.deferred].map(Budget::try_one);
        let [Some(_ours), Some(_handlers)] = deferred else {
            return self.ended_in_vain(
                "given up at once, too many are late (limits.deferred, or the handler's max_deferred)",
            );
        };
        drop(permits);
        let token_left = TOKEN_LIFETIME.saturating_sub(self.elapsed());
        let what = match tokio::time::timeout(token_left, calling).await {
            Ok(mut called) => {
                self.note_end_of_handler(&mut called);
                match called.result {
                    Ok(answer) => format!("it answered {}", answer.status),
                    Err(error) => error.to_string(),
                }
            }
            Err(_) => "given up, the interaction's token has expired".to_owned(),
        };
        self.ended_in_vain(&what);
    }

    fn ended_in_vain(&self, what: &str) {
        let (gateway, record) = (&self.gateway, &self.job.record);
        logging::ended_in_vain(&gateway.flood, gateway.clock.now(), record, self.elapsed(), what);
        self.later(format!("handler ended too late for Discord: {what}"));
    }

    /// For the status page: something happened after Discord was answered.
    pub(super) fn later(&self, what: impl Into<Cow<'static, str>>) {
        self.gateway.activity.later(&self.job.record.app, self.job.record.id, what);
    }

    pub(super) fn note_end_of_handler(&mut self, called: &mut Called) {
        self.job.record.replica = Some(Arc::clone(&called.replica));
        self.job.record.tried = std::mem::take(&mut called.tried);
        let time = self.gateway.clock.now().saturating_duration_since(self.forwarded);
        self.job.record.handler_time = Some(time);
        let app = metrics::App(Arc::clone(&self.job.record.app));
        self.gateway.metrics.handler_seconds.get_or_create(&app).observe(time.as_secs_f64());
    }

    fn fail(&self, outcome: Outcome, failure: &Failure) {
        self.gateway.fail(&self.call, &self.job, outcome, failure);
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.gateway.clock.now().saturating_duration_since(self.job.record.received)
    }
}

/// However a call ends, by a panic or by the daemon's own end, whoever waits for it gets an answer.
impl Drop for Running {
    fn drop(&mut self) {
        self.gateway.metrics.calls_in_flight.dec();
        if self.call.reply.get().is_some() {
            return;
        }
        if std::thread::panicking() {
            self.fail(Outcome::Failed, &Failure::Panicked);
        } else {
            self.call.settle(Reply::empty(StatusCode::SERVICE_UNAVAILABLE));
        }
    }
}

#[cfg(test)]
mod tests;
