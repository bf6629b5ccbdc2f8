//! Handing a verified interaction to a handler, and taking its answer.

mod connector;
mod transport;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use thiserror::Error;

use crate::budget::Budget;
use crate::config::{self, HandlerUrl};
use crate::discord::signature::{SIGNATURE_HEADER, TIMESTAMP_HEADER, VerifiedBody};
use connector::Trust;
pub use connector::TrustError;
use transport::Transport;

/// Tells a handler which application an interaction belongs to.
pub const APP_HEADER: HeaderName = HeaderName::from_static("x-shardless-app");
/// Tells a handler how many milliseconds are left for its answer.
pub const DEADLINE_HEADER: HeaderName = HeaderName::from_static("x-shardless-deadline");

/// Bytes of a handler's answer.
const MAX_RESPONSE: usize = 10 * 1024 * 1024;

/// What an interaction is handed to: one or more replicas of the same program.
pub struct Handler {
    config: config::Handler,
    /// What its certificate was trusted by when this was made.
    trust: Option<Trust>,
    first: Replica,
    /// Those that may get what the first surely did not.
    others: Vec<Replica>,
}

struct Replica {
    label: Arc<str>,
    transport: Transport,
}

/// A verified interaction with what a handler gets to know beside it. Nothing of the client's own headers is in it
/// but these.
#[derive(Clone)]
pub struct Forwarding {
    /// The body, and the headers that prove it.
    pub body: VerifiedBody,
    /// `Content-Type` as it came.
    pub content_type: HeaderValue,
    /// `User-Agent` as it came.
    pub user_agent: Option<HeaderValue>,
    /// The application's name in the config.
    pub app: HeaderValue,
    /// Time left for the answer.
    pub time_left: Duration,
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
    /// An answer beyond all bounds.
    #[error("the answer is larger than {MAX_RESPONSE} bytes")]
    TooLarge,
    /// Too much is held in memory already.
    #[error("no memory left for the answer (limits.buffered)")]
    NoMemory,
}

impl Handler {
    /// Makes a handler ready; nothing is connected yet.
    ///
    /// # Errors
    ///
    /// [`TrustError`] if it is reached over TLS and there is nothing to trust it by.
    pub fn new(config: &config::Handler, budget: &Arc<Budget>) -> Result<Self, TrustError> {
        let trust = Trust::of(config)?;
        let replica = |url: &HandlerUrl| Replica {
            label: url.to_string().into(),
            transport: Transport::new(url.clone(), trust.as_ref(), Arc::clone(budget)),
        };
        let (first, others) = (replica(&config.urls.first), config.urls.others.iter().map(replica).collect());
        Ok(Self { config: config.clone(), trust, first, others })
    }

    /// Whether a new one made from `config` would be the same, down to the certificates that it would trust now.
    pub fn is_still(&self, config: &config::Handler) -> bool {
        self.config == *config && Trust::of(config).is_ok_and(|trust| trust == self.trust)
    }

    /// Hands the interaction to a replica. Only one that surely did not get it is followed by the next.
    pub async fn call(&self, forwarding: Forwarding) -> Called {
        let mut replica = &self.first;
        for next in &self.others {
            let called = replica.call(forwarding.clone()).await;
            if !matches!(&called.result, Err(error) if error.sent == Sent::NotSent) {
                return called;
            }
            replica = next;
        }
        // The last one gets the body itself, so that it is not held any longer than it takes to send it.
        replica.call(forwarding).await
    }
}

impl Replica {
    async fn call(&self, forwarding: Forwarding) -> Called {
        Called { replica: Arc::clone(&self.label), result: self.transport.send(forwarding).await }
    }
}

impl fmt::Display for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.first.label)?;
        self.others.iter().try_for_each(|other| write!(f, ", {}", other.label))
    }
}

impl Forwarding {
    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(header::CONTENT_TYPE, self.content_type.clone());
        headers.insert(SIGNATURE_HEADER, self.body.signature_header().clone());
        headers.insert(TIMESTAMP_HEADER, self.body.timestamp_header().clone());
        if let Some(user_agent) = &self.user_agent {
            headers.insert(header::USER_AGENT, user_agent.clone());
        }
        headers.insert(APP_HEADER, self.app.clone());
        let milliseconds = u64::try_from(self.time_left.as_millis()).unwrap_or(u64::MAX);
        headers.insert(DEADLINE_HEADER, HeaderValue::from(milliseconds));
        headers
    }
}

impl CallError {
    fn not_sent(cause: Cause) -> Self {
        Self { sent: Sent::NotSent, cause }
    }

    fn maybe_read(cause: Cause) -> Self {
        Self { sent: Sent::MaybeRead, cause }
    }
}
