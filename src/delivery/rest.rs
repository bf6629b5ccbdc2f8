//! One request to Discord's REST API, until there is an answer to go by.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use bytes::{Bytes, BytesMut};
use http::{Method, header};
use reqwest::redirect::Policy;
use tokio::sync::Semaphore;
use tracing::debug;

use super::gate::Gate;
use crate::clock::Clock;
use crate::config::ApiUrl;
use crate::discord::rest::{self as protocol, Refusal, Verdict};
use crate::metrics::{self, Metrics};
use crate::outbox::{Content, Due};

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

/// Waits between tries while Discord does not know of the deferral. Many more would be punished.
const UNKNOWN: [Duration; 7] = [
    Duration::from_millis(300),
    Duration::from_millis(600),
    Duration::from_secs(1),
    Duration::from_millis(1500),
    Duration::from_secs(2),
    Duration::from_millis(2500),
    Duration::from_secs(3),
];

/// Waits between tries while Discord is in trouble, or cannot be reached.
const FIRST_RETRY: Duration = Duration::from_millis(500);
const MAX_RETRY: Duration = Duration::from_secs(30);

/// Discord's REST API.
pub(super) struct Rest {
    api: String,
    /// Made when it is first needed: loading the system's certificates takes a while.
    client: OnceLock<Result<reqwest::Client, String>>,
    gate: Gate,
    at_once: Semaphore,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
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
pub(super) struct Message<'a> {
    pub(super) content_type: &'a str,
    pub(super) content: &'a Content,
}

impl<'a> Message<'a> {
    pub(super) fn json(content: &'a Content) -> Self {
        Self { content_type: "application/json", content }
    }
}

/// What came of a request.
pub(super) enum Ended {
    /// Discord did it; its answer's body.
    Done(Bytes),
    /// There is no such message.
    NoMessage,
    /// Discord does not know of the deferral, and will not.
    Unknown,
    /// The token's time was over first.
    Expired,
    /// Discord will never do it.
    Refused(Refusal),
}

/// One answer, or none.
struct Answer {
    verdict: Verdict,
    body: Bytes,
}

impl Rest {
    pub(super) fn new(api: &ApiUrl, clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Self {
        let at_once = Semaphore::new(AT_ONCE);
        Self { api: api.to_string(), client: OnceLock::new(), gate: Gate::default(), at_once, clock, metrics }
    }

    /// Sends a request, again and again where that can help, and never once the token has expired.
    pub(super) async fn send(&self, due: &Due, call: &Call<'_>) -> Ended {
        let retry = ExponentialBuilder::default().with_min_delay(FIRST_RETRY).with_max_delay(MAX_RETRY);
        let mut retries = retry.without_max_times().with_jitter().build();
        let mut unknown = UNKNOWN.into_iter();
        loop {
            let Some(answer) = self.send_once(due, call).await else { return Ended::Expired };
            let wait = match answer.verdict {
                Verdict::Done => return Ended::Done(answer.body),
                Verdict::NoMessage => return Ended::NoMessage,
                Verdict::Refused(refusal) => return Ended::Refused(refusal),
                Verdict::NotYet => match unknown.next() {
                    Some(wait) => wait,
                    None => return Ended::Unknown,
                },
                Verdict::RateLimited { wait, is_global } => {
                    if is_global {
                        self.gate.close(self.clock.now(), wait);
                    }
                    wait
                }
                Verdict::Blocked => {
                    self.gate.is_blocked(self.clock.now());
                    FIRST_RETRY
                }
                Verdict::Unavailable => retries.next().unwrap_or(MAX_RETRY),
            };
            if !self.sleep(due, wait).await {
                return Ended::Expired;
            }
        }
    }

    /// `None` if the token expires first.
    async fn send_once(&self, due: &Due, call: &Call<'_>) -> Option<Answer> {
        let _one = loop {
            while let Some(wait) = self.gate.wait(self.clock.now()) {
                if !self.sleep(due, wait).await {
                    return None;
                }
            }
            let one = self.at_once.acquire().await.ok()?;
            // It may have closed meanwhile.
            if self.gate.wait(self.clock.now()).is_none() {
                break one;
            }
        };
        let time_left = due.deferred.expires.saturating_duration_since(self.clock.now());
        if time_left.is_zero() {
            return None;
        }
        let answer = tokio::time::timeout(time_left, self.exchange(due, call)).await.ok()?;
        let verdict = match &answer {
            Ok(answer) => answer.verdict.as_str(),
            Err(_) => "no_answer",
        };
        self.metrics.discord_requests.get_or_create(&metrics::Outcome { outcome: verdict }).inc();
        Some(answer.unwrap_or_else(|error| {
            debug!(app = &*due.deferred.app, id = due.deferred.id, "no answer from Discord: {error}");
            Answer { verdict: Verdict::Unavailable, body: Bytes::new() }
        }))
    }

    /// One request and its answer.
    async fn exchange(&self, due: &Due, call: &Call<'_>) -> Result<Answer, String> {
        let client = self.client.get_or_init(client).as_ref().map_err(Clone::clone)?;
        let (application, token) = (due.deferred.application, &due.deferred.token);
        let (method, path) = match call {
            Call::Get => (Method::GET, protocol::original(application, token)),
            Call::Delete => (Method::DELETE, protocol::original(application, token)),
            Call::Edit(_) => (Method::PATCH, protocol::original(application, token)),
            Call::FollowUp(_) => (Method::POST, protocol::follow_up(application, token)),
        };
        let mut request = client.request(method, format!("{}{path}", self.api)).timeout(TIMEOUT);
        if let Call::Edit(message) | Call::FollowUp(message) = call {
            request = with_body(request, message).await?;
        }
        let mut response = request.send().await.map_err(text)?;
        let mut body = BytesMut::new();
        while body.len() < MAX_ANSWER {
            let Some(chunk) = response.chunk().await.map_err(text)? else { break };
            body.extend_from_slice(&chunk);
        }
        let verdict = protocol::judge(response.status(), response.headers(), &body);
        if protocol::counts_as_invalid(response.status()) {
            self.gate.count_invalid(self.clock.now());
        }
        if !matches!(verdict, Verdict::Blocked) {
            self.gate.is_reached();
        }
        Ok(Answer { verdict, body: body.freeze() })
    }

    /// Waits, unless the token expires first: then there is nothing to wait for.
    async fn sleep(&self, due: &Due, time: Duration) -> bool {
        let is_in_time = self.clock.now() + time < due.deferred.expires;
        if is_in_time {
            tokio::time::sleep(time).await;
        }
        is_in_time
    }
}

async fn with_body(
    request: reqwest::RequestBuilder,
    message: &Message<'_>,
) -> Result<reqwest::RequestBuilder, String> {
    let request = request.header(header::CONTENT_TYPE, message.content_type);
    match message.content {
        Content::Bytes(bytes) => Ok(request.timeout(timeout(bytes.len() as u64)).body(bytes.clone())),
        Content::File { path, size } => {
            let file = tokio::fs::File::open(path).await.map_err(|error| error.to_string())?;
            // Not in chunks: its length is known.
            let request = request.header(header::CONTENT_LENGTH, *size);
            Ok(request.timeout(timeout(*size)).body(file))
        }
    }
}

fn timeout(size: u64) -> Duration {
    TIMEOUT + Duration::from_secs(size / SLOW_UPLOAD)
}

fn client() -> Result<reqwest::Client, String> {
    // A provider that is installed already does as well.
    _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder()
        .user_agent(USER_AGENT)
        .no_proxy()
        .redirect(Policy::none())
        .referer(false)
        .connect_timeout(CONNECT_TIMEOUT);
    client.build().map_err(text)
}

/// What went wrong, without the URL: it holds the token.
fn text(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut last: &dyn std::error::Error = &error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}
