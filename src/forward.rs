//! Handing a verified interaction to a handler, and taking its answer.

mod connector;
mod health;
mod once;
mod pool;
mod provenance;
mod replica;
mod status;
mod transport;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use thiserror::Error;
use tokio::time::Instant;

use crate::activity::Tried;
use crate::budget::Budget;
use crate::config::{self, HandlerUrl};
use crate::discord::signature::{SIGNATURE_HEADER, TIMESTAMP_HEADER, VerifiedBody};
use crate::logging::Flood;
use connector::Trust;
pub use connector::TrustError;
use health::Health;
use once::Once;
use provenance::Secret;
pub use provenance::SecretError;
use replica::{Attempt, Replica};
use status::shortened;
pub use status::{ReplicaState, ReplicaStatus};
use transport::Transport;

/// Tells a handler which application an interaction belongs to.
pub const APP_HEADER: HeaderName = HeaderName::from_static("x-shardless-app");
/// Tells a handler how many milliseconds are left for its answer.
pub const DEADLINE_HEADER: HeaderName = HeaderName::from_static("x-shardless-deadline");
/// Tells a handler which trace an interaction belongs to; of W3C Trace Context.
pub const TRACE_HEADER: HeaderName = HeaderName::from_static("traceparent");

/// What an interaction is handed to: one or more replicas of the same program.
pub struct Handler {
    config: config::Handler,
    /// What its certificate was trusted by when this was made.
    trust: Option<Trust>,
    /// What it was to know our requests by then.
    secret: Option<Secret>,
    replicas: Vec<Replica>,
    /// Its calls not yet answered to Discord.
    pub in_flight: Arc<Budget>,
    /// Its calls that it is still working on, past the deadline.
    pub deferred: Arc<Budget>,
    /// Makes one choice unlike the one before.
    choices: AtomicU64,
}

/// A verified interaction with what a handler gets to know beside it. Nothing of the client's own headers is in it
/// but these.
pub struct Forwarding {
    /// The body, and the headers that prove it.
    pub body: VerifiedBody,
    /// `Content-Type` as it came.
    pub content_type: HeaderValue,
    /// `User-Agent` as it came.
    pub user_agent: Option<HeaderValue>,
    /// The interaction's snowflake.
    pub id: u64,
    /// When it is forwarded, since 1970.
    pub unix_seconds: u64,
    /// The application's name in the config.
    pub app: HeaderValue,
    /// The trace that the interaction belongs to, and our part of it.
    pub trace: Option<HeaderValue>,
    /// When Discord is to have an answer.
    pub deadline: Instant,
    /// Whether somebody still wants the handler's.
    pub given_up: GivenUp,
    /// For the lines of replicas.
    pub flood: Arc<Flood>,
}

/// Tells a call that nobody wants its answer any more. What is under way goes on; nothing is begun.
#[derive(Clone, Debug, Default)]
pub struct GivenUp(Arc<AtomicBool>);

impl GivenUp {
    /// From now on.
    pub fn set(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// Why a handler cannot be made ready.
#[derive(Debug, Error)]
#[error(transparent)]
pub enum HandlerError {
    /// There is nothing to trust it by.
    Trust(#[from] TrustError),
    /// There is nothing that it could know our requests by.
    Secret(#[from] SecretError),
}

/// A handler's whole answer, not judged yet.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body; what it takes of the memory budget is given back when the last copy goes.
    pub body: Bytes,
}

/// What came of a call, and from which replica.
pub struct Called {
    /// The replica that took the request, or the last one that was tried.
    pub replica: Arc<str>,
    /// Its answer.
    pub result: Result<Answer, CallError>,
    /// Those that were tried before it, in their order.
    pub tried: Vec<Tried>,
}

/// A call without an answer.
#[derive(Debug, Error)]
#[error("{cause}")]
pub struct CallError {
    /// Whether the handler can have seen the request.
    pub sent: Sent,
    /// What went wrong.
    pub cause: Cause,
}

/// Whether a handler can have seen a request whose call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Surely not: another replica may get it.
    NotSent,
    /// It may have: nobody may get it once more.
    MaybeRead,
}

/// What went wrong in a call; the texts are for the bot's author.
#[derive(Debug, Error)]
pub enum Cause {
    /// No connection.
    #[error("cannot connect ({0}); is the bot running, and is `handler` its address?")]
    Connect(String),
    /// A connection, but not to whom it should be.
    #[error(
        "cannot trust who answers ({0}); its certificate must be for that name, and signed by `ca` or by one that the system trusts"
    )]
    Trust(String),
    /// A connection, but no whole answer.
    #[error("the connection broke before the answer was whole ({0})")]
    Broken(String),
    /// An answer that is something else.
    #[error(
        "what it answered is no HTTP ({0}); does another program have that port, or does the bot want https://?"
    )]
    NotHttp(String),
    /// An answer beyond all bounds.
    #[error("the answer is larger than {0} bytes (max_response)")]
    TooLarge(usize),
    /// Too much is held in memory already.
    #[error("no memory left for the answer (limits.buffered)")]
    NoMemory,
}

impl Handler {
    /// Makes a handler ready; nothing is connected yet.
    ///
    /// # Errors
    ///
    /// [`HandlerError`] if it is reached over TLS and there is nothing to trust it by, or if its secret cannot be used.
    pub fn new(config: &config::Handler, budget: &Arc<Budget>) -> Result<Self, HandlerError> {
        let (trust, secret) = (Trust::of(config)?, Secret::of(config)?);
        let has_others = !config.urls.others.is_empty();
        let replica = |url: &HandlerUrl| Replica {
            label: url.to_string().into(),
            transport: Transport::new(url.clone(), trust.as_ref(), &config.bounds, Arc::clone(budget)),
            health: Health::new(has_others),
        };
        Ok(Self {
            replicas: config.urls.iter().map(replica).collect(),
            trust,
            secret,
            in_flight: Budget::new(config.bounds.max_in_flight),
            deferred: Budget::new(config.bounds.max_deferred),
            choices: AtomicU64::new(0),
            config: config.clone(),
        })
    }

    /// What it was made from.
    pub fn config(&self) -> &config::Handler {
        &self.config
    }

    /// Its name in the config; without one, where it listens.
    pub fn name(&self) -> Arc<str> {
        let first = || self.replicas.first().map(|replica| Arc::clone(&replica.label));
        self.config.name.clone().or_else(first).unwrap_or_default()
    }

    /// Its replicas as they are now, in the config's order.
    pub fn replicas(&self) -> impl Iterator<Item = ReplicaStatus> + '_ {
        let now = Instant::now();
        self.replicas.iter().map(move |replica| replica.status(now))
    }

    /// Finds out which replicas listen, of those that nothing was learned of for so long: opens a connection to each,
    /// all at once, and closes it again, within `connect_timeout`. Calls are handed out as if nobody had looked.
    pub async fn look(&self, fresh: Duration) {
        join_all(self.replicas.iter().map(|replica| replica.look(fresh))).await;
    }

    /// Whether one made from the same config now would be the same, down to the certificates that it would trust and to
    /// the secret. Reads their files.
    pub fn is_up_to_date(&self) -> bool {
        Trust::of(&self.config).is_ok_and(|trust| trust == self.trust)
            && Secret::of(&self.config).is_ok_and(|secret| secret == self.secret)
    }

    /// Hands the interaction to a replica. Only one that surely did not get it is followed by another.
    pub fn call(self: &Arc<Self>, forwarding: Forwarding) -> impl Future<Output = Called> + use<> {
        let proof = self.secret.as_ref().map(|secret| secret.headers(&forwarding));
        let (deadline, given_up, flood) =
            (forwarding.deadline, forwarding.given_up.clone(), Arc::clone(&forwarding.flood));
        let (mut headers, body) = forwarding.into_parts();
        headers.extend(proof.unwrap_or_default());
        let attempt = Attempt::new(headers, Once::new(body), deadline, flood);
        let handler = Arc::clone(self);
        async move { handler.attempt(attempt, given_up).await }
    }

    async fn attempt(&self, attempt: Attempt, given_up: GivenUp) -> Called {
        let body = attempt.body.clone();
        let mut attempt = Some(attempt);
        let mut tried = Vec::new();
        let mut failed = Vec::new();
        let mut last: Option<(Called, Instant)> = None;
        while last.is_none() || !given_up.is_set() {
            let Some((index, replica)) = self.choose(&tried) else { break };
            tried.push(index);
            // The last one gets it for good: while it is waited for, a copy would only take up memory.
            let is_last = tried.len() == self.replicas.len();
            let Some(attempt) = (if is_last { attempt.take() } else { attempt.clone() }) else { break };
            failed.extend(last.take().and_then(self::tried));
            let called = replica.call(attempt).await;
            let is_sent = !matches!(&called.result, Err(error) if error.sent == Sent::NotSent);
            if is_sent || body.is_taken() {
                return Called { tried: failed, ..called };
            }
            last = Some((called, Instant::now()));
        }
        let called = last.map(|(called, _)| called).unwrap_or_else(|| {
            let cause = Cause::Connect("there is no replica".to_owned());
            Called { replica: "".into(), result: Err(CallError::not_sent(cause)), tried: Vec::new() }
        });
        Called { tried: failed, ..called }
    }

    /// Of two that are picked at random, the one with fewer calls in flight. Those that are left out are picked only
    /// where there is no other.
    fn choose(&self, tried: &[usize]) -> Option<(usize, &Replica)> {
        let now = Instant::now();
        let untried = self.replicas.iter().enumerate().filter(|(index, _)| !tried.contains(index));
        // Looked at once: calls that end meanwhile change it.
        let (well, left_out): (Vec<_>, Vec<_>) =
            untried.partition(|(_, replica)| replica.health.may_be_called(now));
        let candidates = if well.is_empty() { left_out } else { well };
        let (first, second) = two_of(candidates.len(), self.random())?;
        let (one, other) = (*candidates.get(first)?, *candidates.get(second)?);
        let chosen = if other.1.health.in_flight() < one.1.health.in_flight() { other } else { one };
        chosen.1.health.is_tried(now);
        Some(chosen)
    }

    fn random(&self) -> u64 {
        // One step of SplitMix64: no secret, only unlike the last one.
        let n = self.choices.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let n = (n ^ (n >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let n = (n ^ (n >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        n ^ (n >> 31)
    }
}

/// Two of so many, not the same one twice unless there is no other. With as many bits as there are, whatever the
/// machine's words have.
fn two_of(count: usize, random: u64) -> Option<(usize, usize)> {
    let count = count as u64;
    let first = (random >> 32).checked_rem(count)?;
    let second = (first + 1 + (random & 0xFFFF_FFFF) % count.saturating_sub(1).max(1)) % count;
    Some((first.try_into().ok()?, second.try_into().ok()?))
}

impl fmt::Display for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.replicas.iter().enumerate().try_for_each(|(index, replica)| {
            write!(f, "{}{}", if index == 0 { "" } else { ", " }, replica.label)
        })
    }
}

impl Forwarding {
    /// What a handler gets: headers and body.
    fn into_parts(self) -> (HeaderMap, Bytes) {
        let (signature, timestamp, body) = self.body.into_parts();
        let mut headers = HeaderMap::with_capacity(12);
        headers.insert(header::CONTENT_TYPE, self.content_type);
        headers.insert(SIGNATURE_HEADER, signature);
        headers.insert(TIMESTAMP_HEADER, timestamp);
        if let Some(user_agent) = self.user_agent {
            headers.insert(header::USER_AGENT, user_agent);
        }
        headers.insert(APP_HEADER, self.app);
        if let Some(trace) = self.trace {
            headers.insert(TRACE_HEADER, trace);
        }
        (headers, body)
    }
}

fn tried((called, at): (Called, Instant)) -> Option<Tried> {
    let error = called.result.err()?;
    Some(Tried { replica: called.replica, at, why: shortened(&error.to_string()).to_owned() })
}

impl CallError {
    fn not_sent(cause: Cause) -> Self {
        Self { sent: Sent::NotSent, cause }
    }

    fn maybe_read(cause: Cause) -> Self {
        Self { sent: Sent::MaybeRead, cause }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_are_picked_from_all_with_both_halves_of_a_number() {
        assert_eq!(two_of(0, 7), None);
        assert_eq!(two_of(1, u64::MAX), Some((0, 0)));
        assert_eq!(two_of(4, 0), Some((0, 1)));
        assert_eq!(two_of(4, 3 << 32 | 2), Some((3, 2)));
        for random in [u64::MAX, 1 << 63, 0xFFFF_FFFF, 0x0123_4567_89AB_CDEF] {
            let (first, second) = two_of(5, random).unwrap();
            assert!(first < 5 && second < 5 && first != second, "{random}");
        }
    }
}
