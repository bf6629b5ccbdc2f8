//! One request to Discord's REST API, until there is an answer to go by.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode, header};
use reqwest::redirect::Policy;
use thiserror::Error;
use tokio::sync::Semaphore;
use tracing::{debug, warn};

use super::gate::{Block, Gate};
use super::waits::Waits;
use crate::activity::Activity;
use crate::clock::Clock;
use crate::config::ApiUrl;
use crate::discord::rest::{self as protocol, Refusal, Verdict};
use crate::logging::{self, Flood};
use crate::metrics::{self, Metrics};
use crate::outbox::{Content, Due, Outbox};

/// What Discord wants to know of who asks.
const USER_AGENT: &str =
    concat!("DiscordBot (https://github.com/shardless/shardless, ", env!("CARGO_PKG_VERSION"), ")");

/// Requests under way at once.
const AT_ONCE: usize = 128;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// For a request and its answer; a larger one has longer, by [`SLOW_UPLOAD`].
const TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes a second that an upload has at least.
const SLOW_UPLOAD: u64 = 256 * 1024;
/// Bytes of an answer that are looked at; a message of Discord's has far fewer.
const MAX_ANSWER: usize = 512 * 1024;

/// Requests in vain, one after the other, after which it is Discord that is in trouble, or the way to it.
const OUTAGE: u32 = 10;

/// Discord's REST API.
pub(super) struct Rest {
    api: String,
    /// Made when it is first needed: loading the system's certificates takes a while.
    client: OnceLock<reqwest::Client>,
    outbox: Outbox,
    gate: Gate,
    at_once: Semaphore,
    /// Requests without an answer to go by since the last one that had one.
    in_vain: AtomicU32,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    activity: Activity,
    flood: Arc<Flood>,
}

/// A request for one interaction.
pub(super) enum Call<'a> {
    /// The message that was deferred, or that is to be updated.
    Get,
    /// Its end.
    Delete,
    /// What it is from now on.
    Edit(Message<'a>),
    /// Another message.
    FollowUp(Message<'a>),
}

/// A message, to be sent as often as need be.
pub(super) enum Message<'a> {
    /// The handler's answer. It is read for each try: however many wait, they take no memory.
    Answer {
        /// Of its body.
        content_type: &'a str,
    },
    /// A text of ours, in JSON.
    Text(Bytes),
}

/// What came of a request.
pub(super) enum Ended {
    /// Discord did it; its answer's body.
    Done(Bytes),
    /// There is no such message.
    NoMessage,
    /// Discord does not know of the deferral, and will not.
    Unknown,
    /// Its request came once more, to this process.
    CameAgain,
    /// The token's time was over first.
    Expired,
    /// Discord will never do it.
    Refused(Refusal),
    /// The handler's answer is not there to be sent.
    Unreadable(io::Error),
}

/// One answer.
struct Answer {
    /// `None` where there was no answer at all.
    status: Option<StatusCode>,
    verdict: Verdict,
    body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, Error)]
enum NoAnswer {
    #[error("the outbox cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    #[error("{0}")]
    Broken(String),
}

/// Without the URL: it holds the token.
impl From<reqwest::Error> for NoAnswer {
    fn from(error: reqwest::Error) -> Self {
        let error = error.without_url();
        let mut last: &dyn std::error::Error = &error;
        while let Some(source) = last.source() {
            last = source;
        }
        Self::Broken(last.to_string())
    }
}

impl Rest {
    pub(super) fn new(
        api: &ApiUrl,
        outbox: Outbox,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
        activity: Activity,
        flood: Arc<Flood>,
    ) -> Self {
        Self {
            api: api.to_string(),
            client: OnceLock::new(),
            outbox,
            gate: Gate::default(),
            at_once: Semaphore::new(AT_ONCE),
            in_vain: AtomicU32::new(0),
            clock,
            metrics,
            activity,
            flood,
        }
    }

    /// Sends a request, again and again where that can help, and never once the token has expired.
    pub(super) async fn send(&self, due: &Due, call: &Call<'_>) -> Ended {
        let mut waits = Waits::new();
        loop {
            if let Some(ended) = self.attempt(due, call, &mut waits).await {
                return ended;
            }
        }
    }

    /// One try. `None` where another one can help: then the wait until that one is over already.
    pub(super) async fn attempt(&self, due: &Due, call: &Call<'_>, waits: &mut Waits) -> Option<Ended> {
        let sent = self.send_once(due, call).await;
        let now = self.clock.now();
        let answer = match sent {
            Ok(answer) => answer,
            Err(Ended::Unreadable(error)) => {
                let Some(wait) = waits.unreadable(now, &error) else {
                    return Some(Ended::Unreadable(error));
                };
                debug!(
                    app = &*due.deferred.app,
                    id = due.deferred.id,
                    "the late answer cannot be read: {error}"
                );
                return (!self.sleep(due, wait).await).then_some(Ended::Expired);
            }
            Err(ended) => return Some(ended),
        };
        waits.readable();
        let wait = match answer.verdict {
            Verdict::Done => return Some(Ended::Done(answer.body)),
            Verdict::NoMessage => return Some(Ended::NoMessage),
            Verdict::Refused(refusal) => return Some(Ended::Refused(refusal)),
            Verdict::NotYet => match waits.unknown(now) {
                Some(wait) => wait,
                None => return Some(Ended::Unknown),
            },
            Verdict::RateLimited { wait, is_global } => {
                if is_global {
                    self.gate.close(now, wait);
                }
                waits.limited(wait)
            }
            Verdict::Blocked { wait } => self.blocked(due, wait, waits),
            Verdict::Unavailable => waits.unavailable(),
        };
        (!self.sleep(due, wait).await).then_some(Ended::Expired)
    }

    /// One try, as soon as one may be made.
    async fn send_once(&self, due: &Due, call: &Call<'_>) -> Result<Answer, Ended> {
        let _one = loop {
            while let Some(wait) = self.gate.wait(self.clock.now()) {
                if !self.sleep(due, wait).await {
                    return Err(Ended::Expired);
                }
            }
            let one = self.at_once.acquire().await;
            // It may have closed meanwhile.
            if self.gate.wait(self.clock.now()).is_none() {
                break one;
            }
        };
        if !self.outbox.has(due) {
            return Err(Ended::CameAgain);
        }
        let time_left = self.time_left(due);
        if time_left.is_zero() {
            return Err(Ended::Expired);
        }
        // In a place of its own: those who wait for their turn have none.
        let exchange = Box::pin(self.exchange(due, call));
        match tokio::time::timeout(time_left, exchange).await {
            Ok(Ok(answer)) => {
                self.note(due, &answer, "it answers that it is in trouble");
                Ok(answer)
            }
            Ok(Err(NoAnswer::Unreadable(error))) => Err(Ended::Unreadable(error)),
            Ok(Err(NoAnswer::Broken(why))) => {
                debug!(app = &*due.deferred.app, id = due.deferred.id, "no answer from Discord: {why}");
                let answer = Answer { status: None, verdict: Verdict::Unavailable, body: Bytes::new() };
                self.note(due, &answer, &why);
                Ok(answer)
            }
            Err(_) => Err(Ended::Expired),
        }
    }

    /// One request and its answer.
    async fn exchange(&self, due: &Due, call: &Call<'_>) -> Result<Answer, NoAnswer> {
        let (application, token) = (due.deferred.application, &due.deferred.token);
        let (method, path) = match call {
            Call::Get => (Method::GET, protocol::original(application, token)),
            Call::Delete => (Method::DELETE, protocol::original(application, token)),
            Call::Edit(_) => (Method::PATCH, protocol::original(application, token)),
            Call::FollowUp(_) => (Method::POST, protocol::follow_up(application, token)),
        };
        let mut request = self.client()?.request(method, format!("{}{path}", self.api)).timeout(TIMEOUT);
        if let Call::Edit(message) | Call::FollowUp(message) = call {
            request = self.with_body(request, due, message).await?;
        }
        let response = request.send().await?;
        let (status, headers) = (response.status(), response.headers().clone());
        if protocol::counts_as_invalid(status) && self.gate.count_invalid(self.clock.now()) {
            warn!(
                "too many requests to Discord were in vain: the next ones wait, so that it does not block this address"
            );
        }
        let body = match read(response).await {
            Ok(body) => body,
            // It is done, and a second time could be one too many.
            Err(_) if status.is_success() && !matches!(call, Call::Get) => Bytes::new(),
            Err(error) => return Err(error.into()),
        };
        let verdict = protocol::judge(status, &headers, &body);
        if !matches!(verdict, Verdict::Blocked { .. }) {
            self.gate.reached();
        }
        Ok(Answer { status: Some(status), verdict, body })
    }

    async fn with_body(
        &self,
        request: reqwest::RequestBuilder,
        due: &Due,
        message: &Message<'_>,
    ) -> io::Result<reqwest::RequestBuilder> {
        let (content_type, content) = match message {
            Message::Answer { content_type } => (*content_type, self.outbox.content(due).await?),
            Message::Text(text) => ("application/json", Content::Bytes(text.clone())),
        };
        let request = request.header(header::CONTENT_TYPE, content_type);
        Ok(match content {
            Content::Bytes(bytes) => request.timeout(timeout(bytes.len() as u64)).body(bytes),
            Content::File { path, size } => {
                let file = tokio::fs::File::open(path).await?;
                // Not in chunks: its length is known.
                let request = request.header(header::CONTENT_LENGTH, size);
                request.timeout(timeout(size)).body(file)
            }
        })
    }

    /// What could not be made is tried again the next time.
    fn client(&self) -> reqwest::Result<&reqwest::Client> {
        match self.client.get() {
            Some(client) => Ok(client),
            None => client().map(|client| self.client.get_or_init(|| client)),
        }
    }

    /// How long this one waits after a block; all do, where it is not the only one to meet it.
    fn blocked(&self, due: &Due, at_least: Option<Duration>, waits: &mut Waits) -> Duration {
        let (app, id) = (&*due.deferred.app, due.deferred.id);
        match self.gate.blocked(self.clock.now(), id, waits.blocks, at_least) {
            Block::Alone(wait) => {
                waits.blocks += 1;
                let seconds = wait.as_secs();
                warn!(
                    app,
                    id, "a request is blocked before it reaches Discord's API: it waits for {seconds} s"
                );
                wait
            }
            Block::All(wait) => {
                let seconds = wait.as_secs();
                warn!(
                    "requests to Discord are blocked before they reach its API: none is sent for {seconds} s"
                );
                wait
            }
            // Those that were under way with it say nothing new.
            Block::Already(wait) => wait,
        }
    }

    /// Counts a try, and says once where it is one of many in vain.
    fn note(&self, due: &Due, answer: &Answer, why: &str) {
        let (status, outcome) = (protocol::status_word(answer.status), answer.verdict.as_str());
        self.metrics.discord_requests.get_or_create(&metrics::DiscordRequest { status, outcome }).inc();
        let is_in_vain = matches!(answer.verdict, Verdict::Unavailable | Verdict::Blocked { .. });
        self.activity.requested(status, is_in_vain);
        if answer.verdict != Verdict::Done {
            self.activity.later(&due.deferred.app, due.deferred.id, answer.verdict.to_string());
        }
        let now = self.clock.now();
        if answer.verdict != Verdict::Unavailable {
            if self.in_vain.swap(0, Ordering::Relaxed) >= OUTAGE {
                logging::reach(&self.flood, now, Ok(()));
            }
        } else if self.in_vain.fetch_add(1, Ordering::Relaxed) + 1 == OUTAGE {
            logging::reach(&self.flood, now, Err(why));
        }
    }

    /// Waits, unless the token expires first: then there is nothing to wait for.
    async fn sleep(&self, due: &Due, time: Duration) -> bool {
        let is_in_time = time < self.time_left(due);
        if is_in_time {
            tokio::time::sleep(time).await;
        }
        is_in_time
    }

    /// How long requests may still be sent. Not by the time of day, which may step.
    fn time_left(&self, due: &Due) -> Duration {
        let left = due.deferred.expires.saturating_duration_since(self.clock.now());
        left.saturating_sub(self.clock.asleep().saturating_sub(due.deferred.asleep))
    }
}

/// An answer's body, as far as it is looked at.
async fn read(mut response: reqwest::Response) -> reqwest::Result<Bytes> {
    let mut body = BytesMut::new();
    while body.len() < MAX_ANSWER {
        let Some(chunk) = response.chunk().await? else { break };
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

fn timeout(size: u64) -> Duration {
    TIMEOUT + Duration::from_secs(size / SLOW_UPLOAD)
}

fn client() -> reqwest::Result<reqwest::Client> {
    // A provider that is installed already does as well.
    _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .user_agent(USER_AGENT)
        .no_proxy()
        .redirect(Policy::none())
        .referer(false)
        .connect_timeout(CONNECT_TIMEOUT)
        .build()
}
