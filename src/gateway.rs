//! The request path: from a request of a stranger to an answer for Discord.

mod answer;
mod call;
mod deferral;
mod framing;
mod intake;
mod refusal;
mod replay;
mod reply;
mod snapshot;
mod trace;

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use tokio::time::Instant;

use crate::activity::{Activity, End, Outcome, Record};
use crate::budget::Budget;
use crate::clock::Clock;
use crate::discord::interaction::{Interaction, Kind};
use crate::discord::signature::{SignatureHeaders, UnverifiedBody, VerifiedBody};
use crate::logging::{self, Flood, Refused};
use crate::metrics::{self, Metrics, Reason};
use crate::outbox::Outbox;
use call::Call;
pub use call::Receipt;
pub use refusal::{Failure, Refusal};
use replay::{Admission, InteractionKey, ReplayGuard};
pub use reply::Reply;
pub use snapshot::{App, Bounds, BuildError, Choice, Deadline, Snapshot, Target};
use trace::{Ids, Trace};

/// Seconds that Discord waits for an answer.
///
/// Source: Discord's documentation, "Receiving and Responding to Interactions".
const DISCORDS_DEADLINE: f64 = 3.0;

/// Answers requests, each by the same path.
pub struct Gateway {
    /// What the config says; a request takes it once.
    snapshot: ArcSwap<Snapshot>,
    bounds: Bounds,
    guard: ReplayGuard,
    outbox: Outbox,
    /// The calls that have begun since they were last asked for.
    begun: ArcSwap<Budget>,
    ids: Ids,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    activity: Activity,
    flood: Arc<Flood>,
}

/// An answer for the client.
pub struct Handled {
    /// What is to be sent.
    pub response: Response<Full<Bytes>>,
    /// Where it matters whether it is.
    pub receipt: Option<Receipt>,
}

/// What a request waits for.
enum Begun {
    /// For nothing.
    Done(Reply),
    /// For its call's answer.
    First(Receipt),
    /// For the answer of a call that another request began.
    Again(Receipt, Box<Record>),
}

/// How a request came.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// When its first byte came: Discord's deadline runs since then.
    pub first_byte: Instant,
    /// The other end of the connection.
    pub peer: IpAddr,
    /// Whether its connection waited for this process to start, nobody can tell how long.
    pub has_waited: bool,
}

impl Arrival {
    fn answer_within(&self, answer_within: Duration) -> Duration {
        if self.has_waited { answer_within.min(call::AFTER_A_WAIT) } else { answer_within }
    }
}

impl Gateway {
    /// A gateway for what `snapshot` says.
    pub fn new(
        snapshot: Snapshot,
        outbox: Outbox,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
        activity: Activity,
        flood: Arc<Flood>,
    ) -> Arc<Self> {
        activity.serve(snapshot.names());
        let (bounds, guard) = (snapshot.bounds().clone(), ReplayGuard::new(Arc::clone(&metrics)));
        let (snapshot, begun) = (ArcSwap::from_pointee(snapshot), ArcSwap::new(Budget::new(usize::MAX)));
        Arc::new(Self {
            snapshot,
            bounds,
            guard,
            outbox,
            begun,
            ids: Ids::default(),
            clock,
            metrics,
            activity,
            flood,
        })
    }

    /// What is in force.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Answers by `snapshot` from now on, which was built to take the place of the one in force. Requests that have
    /// begun end by the one that they began with.
    pub fn replace(&self, snapshot: Snapshot) {
        snapshot.take_effect();
        self.activity.serve(snapshot.names());
        self.snapshot.store(Arc::new(snapshot));
    }

    /// Answers one request, whatever it is. A panic in here costs this request alone.
    pub fn handle(
        self: Arc<Self>,
        request: Request<Incoming>,
        arrival: Arrival,
    ) -> impl Future<Output = Handled> + Send + use<> {
        let client = intake::client(request.headers(), arrival.peer);
        let path = request.uri().path().to_owned();
        let has_body = !request.body().is_end_stream();
        // Most of what a request takes; it goes before the wait for the handler, which many may be in at once.
        let beginning = Box::pin(Arc::clone(&self).begin(request, arrival, client));
        async move {
            let answer = AssertUnwindSafe(self.answer(beginning)).catch_unwind().await;
            match answer.unwrap_or(Err(Refusal::Panicked)) {
                Ok((reply, receipt)) => Handled { response: reply.to_response(), receipt },
                Err(refusal) => {
                    self.note(&refusal, client, &path);
                    let mut response = refusal.to_response();
                    if refusal.ends_connection(has_body) {
                        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                    }
                    Handled { response, receipt: None }
                }
            }
        }
    }

    async fn answer(
        &self,
        beginning: Pin<Box<impl Future<Output = Result<Begun, Refusal>>>>,
    ) -> Result<(Reply, Option<Receipt>), Refusal> {
        match beginning.await? {
            Begun::Done(reply) => Ok((reply, None)),
            Begun::First(receipt) => Ok((receipt.reply().await, Some(receipt))),
            Begun::Again(receipt, record) => {
                let reply = receipt.reply().await;
                Ok((self.conclude(&record, Outcome::Duplicate, reply, None), Some(receipt)))
            }
        }
    }

    /// The list of what happens, cheapest first; nothing is forwarded before the signature holds.
    async fn begin(
        self: Arc<Self>,
        request: Request<Incoming>,
        arrival: Arrival,
        client: IpAddr,
    ) -> Result<Begun, Refusal> {
        let snapshot = self.snapshot();
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
        let (body, reservation) =
            intake::read(body, signature, bounds, self.bounds.buffered.reservation()).await?;
        let body = self.verify(body, app)?.kept_with(reservation);
        let interaction = Interaction::parse(body.bytes())?;
        let trace = Trace::of(&head.headers, &self.ids);
        let times = [arrival.first_byte, self.clock.now()];
        let mut record = Record::new(Arc::clone(&app.name), &interaction, trace.id(), client, times);
        if interaction.kind == Kind::Ping {
            return Ok(Begun::Done(self.conclude(&record, Outcome::Pong, Reply::pong(), None)));
        }
        let replay = snapshot.replay();
        let key = replay.enabled.then(|| InteractionKey::new(app.verifier.public_key(), interaction.id));
        let call = match self.admit(key, body.unix_seconds(), replay.window) {
            Admission::Spent => return Err(Refusal::Replayed),
            Admission::Again(call) => return Ok(Begun::Again(call.receipt(), Box::new(record))),
            Admission::First(call) => call,
        };
        let choice = app.choose(&interaction);
        record.route = choice.route;
        let (question, app) = (interaction.question(), Arc::clone(app));
        let answer_within = arrival.answer_within(choice.deadline.answer_within);
        let (deadline, credentials) = (choice.deadline, interaction.credentials());
        let job = call::Job { question, app, record, key, answer_within, deadline, credentials };
        let receipt = call.receipt();
        match choice.target {
            Target::Reply(reply) => self.reply(&call, &job, reply),
            Target::Handler(handler) => {
                let now = intake::Now {
                    unix_time: self.clock.unix_time(),
                    time_left: self.time_left(job.record.received, answer_within),
                };
                let flood = Arc::clone(&self.flood);
                let forwarding =
                    intake::forwarding(body, content_type, &head.headers, &job, trace, now, flood);
                self.start(&call, job, handler, forwarding)?;
            }
        }
        Ok(Begun::First(receipt))
    }

    fn verify(&self, body: UnverifiedBody, app: &App) -> Result<VerifiedBody, Refusal> {
        let start = self.clock.now();
        let verified = body.verify(&app.verifier);
        self.metrics.verification_seconds.observe((self.clock.now() - start).as_secs_f64());
        Ok(verified?)
    }

    fn admit(&self, key: Option<InteractionKey>, unix_seconds: u64, window: Duration) -> Admission {
        let Some(key) = key else { return Admission::First(Call::new()) };
        self.guard.admit(key, unix_seconds, window, self.clock.unix_time(), self.clock.now())
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
        let now = self.clock.now();
        let elapsed = now.saturating_duration_since(record.received);
        let end = End { outcome, status: reply.status().as_u16(), elapsed, explanation };
        self.count(record, &end);
        logging::interaction(&self.flood, now, record, &end);
        self.activity.answered(record, end);
        reply
    }

    fn count(&self, record: &Record, end: &End) {
        let app = metrics::App(Arc::clone(&record.app));
        let kind = record.kind.as_str();
        let labels =
            metrics::Interaction { app: Arc::clone(&record.app), kind, outcome: end.outcome.as_str() };
        self.metrics.interactions.get_or_create(&labels).inc();
        let seconds = end.elapsed.as_secs_f64();
        self.metrics.answer_seconds.get_or_create(&app).observe(seconds);
        if end.outcome.is_an_answer() {
            // A sum that falls would be no sum to Prometheus.
            let margin = (DISCORDS_DEADLINE - seconds).max(0.0);
            self.metrics.deadline_margin_seconds.get_or_create(&app).observe(margin);
        }
    }

    fn note(&self, refusal: &Refusal, client: IpAddr, path: &str) {
        let (status, reason) = (refusal.status().as_u16(), refusal.reason());
        self.metrics.refusals.get_or_create(&Reason { reason }).inc();
        self.activity.refused(reason, refusal.status() == StatusCode::UNAUTHORIZED);
        let line = Refused { reason, status, client, path, text: &refusal.to_string() };
        logging::refusal(&self.flood, self.clock.now(), line);
    }

    /// Waits until every call has its answer, those whose client has hung up included.
    pub async fn all_answered(&self) {
        self.bounds.in_flight.all_given_back().await;
    }

    /// Waits until every call that has begun by now has come to its end: its answer, or the late one that follows.
    pub async fn all_ended(&self) {
        self.begun.swap(Budget::new(usize::MAX)).all_given_back().await;
    }

    /// What is to be done now and then, requests or not: forget what is old, sum up what was held back.
    pub fn tidy(&self) {
        let now = self.clock.now();
        self.guard.tidy(now);
        self.flood.sum_up(now);
    }

    /// At the daemon's end: sum up all that was held back.
    pub fn last_words(&self) {
        self.flood.sum_up_all(self.clock.now());
    }
}
