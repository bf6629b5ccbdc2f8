//! The request path: from a request of a stranger to an answer for Discord.

mod answer;
mod call;
mod framing;
mod intake;
mod refusal;
mod replay;
mod reply;
mod snapshot;

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderValue, Request, Response, header};
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::activity::{End, Outcome, Record};
use crate::budget::Budget;
use crate::clock::Clock;
use crate::discord::interaction::{Interaction, Kind};
use crate::discord::signature::{SignatureHeaders, UnverifiedBody, VerifiedBody};
use crate::logging::{self, Flood, Refused};
use crate::metrics::{self, Metrics, Reason};
use call::Call;
pub use refusal::{Failure, Refusal};
use replay::{Admission, InteractionKey, ReplayGuard};
pub use reply::Reply;
pub use snapshot::{App, BuildError, Snapshot};

/// Answers requests, each by the same path.
pub struct Gateway {
    snapshot: Arc<Snapshot>,
    guard: Option<ReplayGuard>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    budget: Arc<Budget>,
    flood: Arc<Flood>,
    /// Calls not yet answered to Discord.
    in_flight: Arc<Semaphore>,
    /// Calls that their handler is still working on, past the deadline.
    deferred: Arc<Semaphore>,
}

/// How a request came.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// When its first byte came: Discord's deadline runs since then.
    pub first_byte: Instant,
    /// The other end of the connection.
    pub peer: IpAddr,
}

impl Gateway {
    /// A gateway for what `snapshot` says.
    pub fn new(
        snapshot: Arc<Snapshot>,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
        budget: Arc<Budget>,
        flood: Arc<Flood>,
    ) -> Arc<Self> {
        let (limits, replay) = (snapshot.limits(), snapshot.replay());
        Arc::new(Self {
            guard: replay
                .enabled
                .then(|| ReplayGuard::new(replay.window, limits.buffered, Arc::clone(&metrics))),
            in_flight: Arc::new(Semaphore::new(limits.in_flight)),
            deferred: Arc::new(Semaphore::new(limits.deferred)),
            flood,
            snapshot,
            clock,
            metrics,
            budget,
        })
    }

    /// Answers one request, whatever it is. A panic in here costs this request alone.
    pub async fn handle(
        self: Arc<Self>,
        request: Request<Incoming>,
        arrival: Arrival,
    ) -> Response<Full<Bytes>> {
        let client = intake::client(request.headers(), arrival.peer);
        let path = request.uri().path().to_owned();
        let has_body = !request.body().is_end_stream();
        let answer = AssertUnwindSafe(self.answer(request, arrival, client)).catch_unwind().await;
        match answer.unwrap_or(Err(Refusal::Panicked)) {
            Ok(reply) => reply.to_response(),
            Err(refusal) => {
                self.note(&refusal, client, &path);
                let mut response = refusal.to_response();
                if refusal.ends_connection(has_body) {
                    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                response
            }
        }
    }

    /// The list of what happens, cheapest first; nothing is forwarded before the signature holds.
    async fn answer(
        self: &Arc<Self>,
        request: Request<Incoming>,
        arrival: Arrival,
        client: IpAddr,
    ) -> Result<Reply, Refusal> {
        let snapshot = &self.snapshot;
        let (head, body) = request.into_parts();
        framing::require_sound(&head)?;
        let app = snapshot.app(head.uri.path()).ok_or(Refusal::UnknownPath)?;
        intake::require_post(&head)?;
        let content_type = intake::require_json(&head)?;
        let signature = SignatureHeaders::parse(&head.headers)?;
        intake::require_fresh(&signature, self.clock.unix_time(), snapshot.replay().window)?;
        let bounds = intake::Bounds {
            body: snapshot.limits().body,
            time_left: self.time_left(arrival.first_byte, snapshot.limits().read_timeout),
        };
        let (body, reservation) = intake::read(body, signature, bounds, self.budget.reservation()).await?;
        let body = self.verify(body, app)?.kept_with(reservation);
        let interaction = Interaction::parse(body.bytes())?;
        let record = Record::new(Arc::clone(&app.name), &interaction, client, arrival.first_byte);
        if interaction.kind == Kind::Ping {
            return Ok(self.conclude(&record, Outcome::Pong, Reply::pong(), None));
        }
        let key = InteractionKey::new(&app.public_key, interaction.id);
        let admission = self.admit(key, body.unix_seconds());
        let call = match admission {
            Admission::Spent => return Err(Refusal::Replayed),
            Admission::Again(call) => {
                let reply = call.reply().await;
                return Ok(self.conclude(&record, Outcome::Duplicate, reply, None));
            }
            Admission::First(call) => call,
        };
        let job = call::Job { question: interaction.question(), app: Arc::clone(app), record, key };
        self.start(&call, job, intake::forwarding(body, content_type, &head.headers, app))?;
        Ok(call.reply().await)
    }

    fn verify(&self, body: UnverifiedBody, app: &App) -> Result<VerifiedBody, Refusal> {
        let start = self.clock.now();
        let verified = body.verify(&app.public_key);
        self.metrics.verification_seconds.observe((self.clock.now() - start).as_secs_f64());
        Ok(verified?)
    }

    fn admit(&self, key: InteractionKey, unix_seconds: u64) -> Admission {
        match &self.guard {
            Some(guard) => guard.admit(key, unix_seconds, self.clock.unix_time(), self.clock.now()),
            None => Admission::First(Call::new()),
        }
    }

    fn time_left(&self, since: Instant, within: Duration) -> Duration {
        within.saturating_sub(self.clock.now().saturating_duration_since(since))
    }

    /// Writes an interaction's end down, and gives the answer back.
    fn conclude(
        &self,
        record: &Record,
        outcome: Outcome,
        reply: Reply,
        explanation: Option<String>,
    ) -> Reply {
        let elapsed = self.clock.now().saturating_duration_since(record.received);
        let end = End { outcome, status: reply.status().as_u16(), elapsed, explanation };
        self.count(record, &end);
        logging::interaction(record, &end);
        reply
    }

    fn count(&self, record: &Record, end: &End) {
        let app = metrics::App(Arc::clone(&record.app));
        let kind = record.kind.as_str();
        let labels =
            metrics::Interaction { app: Arc::clone(&record.app), kind, outcome: end.outcome.as_str() };
        self.metrics.interactions.get_or_create(&labels).inc();
        self.metrics.answer_seconds.get_or_create(&app).observe(end.elapsed.as_secs_f64());
    }

    fn note(&self, refusal: &Refusal, client: IpAddr, path: &str) {
        let (status, reason) = (refusal.status().as_u16(), refusal.reason());
        self.metrics.refusals.get_or_create(&Reason { reason }).inc();
        let line = Refused { reason, status, client, path, text: &refusal.to_string() };
        logging::refusal(&self.flood, self.clock.now(), line);
    }

    /// Waits until every call has its answer, those whose client has hung up included.
    pub async fn all_answered(&self) {
        let all = u32::try_from(self.snapshot.limits().in_flight).unwrap_or(u32::MAX);
        _ = self.in_flight.acquire_many(all).await;
    }

    /// What is to be done now and then, requests or not: forget what is old, sum up what was held back.
    pub fn tidy(&self) {
        let now = self.clock.now();
        if let Some(guard) = &self.guard {
            guard.tidy(now);
        }
        self.flood.sum_up(now);
    }
}
