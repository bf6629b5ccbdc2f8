//! Discord's REST API, as late answers use it: its paths, and what its answers mean.

use std::fmt;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{TOKEN_LIFETIME, Token};

/// `flags`: the user sees "thinking…", since the message of a deferral has not been written yet.
///
/// Source: Discord's documentation, "Message Flags".
const LOADING: u64 = 1 << 7;
/// Milliseconds of Unix time at which Discord's snowflakes begin.
const DISCORD_EPOCH: u64 = 1_420_070_400_000;
/// However short a wait Discord asks for, a request is not repeated at once.
const SHORTEST_WAIT: Duration = Duration::from_millis(100);

/// The path of the message that answers an interaction, or that its component belongs to; after the API's URL.
///
/// It holds a secret: it must not be logged.
pub fn original(application: u64, token: &Token) -> String {
    format!("{}/messages/@original", follow_up(application, token))
}

/// The path that follow-ups are posted to; after the API's URL.
///
/// It holds a secret: it must not be logged.
pub fn follow_up(application: u64, token: &Token) -> String {
    // A `Token` can stand in a path as it is.
    format!("/webhooks/{application}/{}", token.expose())
}

/// An answer's status as one of few words, whatever comes: for metrics. `none` where there was no answer.
pub fn status_word(status: Option<StatusCode>) -> &'static str {
    match status.map(|status| status.as_u16()) {
        None => "none",
        Some(200) => "200",
        Some(204) => "204",
        Some(400) => "400",
        Some(401) => "401",
        Some(403) => "403",
        Some(404) => "404",
        Some(429) => "429",
        Some(500..=599) => "5xx",
        Some(_) => "other",
    }
}

/// What an answer of Discord means for the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was carried out.
    Done,
    /// 10015: Discord has not processed the deferral yet, or never will.
    NotYet,
    /// Too many requests: the next one after a wait.
    RateLimited {
        /// How long: at most as long as a token lives.
        wait: Duration,
        /// Whether it holds for all requests of this machine, not for this one's path alone.
        is_global: bool,
    },
    /// Not Discord's API, but what stands before it refused: back off for minutes, from all requests.
    Blocked {
        /// How long at least, if it says so.
        wait: Option<Duration>,
    },
    /// Discord cannot answer now: try again later.
    Unavailable,
    /// 10008: the message is not there (any more).
    NoMessage,
    /// It will never be carried out: never repeat it.
    Refused(Refusal),
}

/// A refusal for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What of the request does not do.
    pub reason: Reason,
    /// The answer's status.
    pub status: StatusCode,
    /// Discord's own number for the error, if it gave one.
    pub code: Option<u64>,
}

/// What of a request does not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The token has expired, or is none: no request with it will do.
    Token,
    /// The message: another one may do.
    Body,
    /// Anything else.
    Other,
}

impl Verdict {
    /// A word for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::NotYet => "not_yet",
            Self::RateLimited { .. } => "rate_limited",
            Self::Blocked { .. } => "blocked",
            Self::Unavailable => "unavailable",
            Self::NoMessage => "no_message",
            Self::Refused(Refusal { reason: Reason::Token, .. }) => "token_refused",
            Self::Refused(Refusal { reason: Reason::Body, .. }) => "body_refused",
            Self::Refused(Refusal { reason: Reason::Other, .. }) => "refused",
        }
    }
}

/// For logs: nothing of the answer but Discord's number for the error.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("Discord has taken it"),
            Self::NotYet => f.write_str("Discord does not know of the deferral (yet): 404, code 10015"),
            Self::RateLimited { wait, is_global } => {
                let scope = if *is_global { "all requests" } else { "this one" };
                write!(f, "Discord asks to wait {} ms with {scope}", wait.as_millis())
            }
            Self::Blocked { .. } => {
                f.write_str("this machine's requests are blocked before they reach Discord's API")
            }
            Self::Unavailable => f.write_str("Discord cannot answer now"),
            Self::NoMessage => f.write_str("the message is not there (any more): 404, code 10008"),
            Self::Refused(refusal) => {
                let what = match refusal.reason {
                    Reason::Token => "the token",
                    Reason::Body => "the message",
                    Reason::Other => "the request",
                };
                write!(f, "Discord refuses {what}: {}", refusal.status.as_u16())?;
                refusal.code.map_or(Ok(()), |code| write!(f, ", code {code}"))
            }
        }
    }
}

/// Judges an answer.
///
/// Source: Discord's documentation, "Rate Limits", "JSON Error Codes" and "Create Followup Message".
pub fn judge(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Verdict {
    if status.is_success() {
        return Verdict::Done;
    }
    let error: Option<ApiError> = object(body);
    let code = error.as_ref().and_then(|error| error.code.as_u64());
    let refused = |reason| Verdict::Refused(Refusal { reason, status, code });
    match (status.as_u16(), code) {
        (429, _) => rate_limit(headers, error, body),
        (408 | 425 | 500.., _) => Verdict::Unavailable,
        (404, Some(10_015)) => Verdict::NotYet,
        (404, Some(10_008)) => Verdict::NoMessage,
        (_, Some(50_027 | 10_062 | 40_060)) | (401, _) => refused(Reason::Token),
        (_, Some(50_035 | 40_005 | 50_006)) | (400 | 413, _) => refused(Reason::Body),
        // Discord's API says why it forbids something.
        (403, None) => Verdict::Blocked { wait: None },
        _ => refused(Reason::Other),
    }
}

/// Whether Discord counts such an answer: 10,000 within 10 minutes block this machine's address.
///
/// Source: Discord's documentation, "Invalid Request Limit".
pub fn counts_as_invalid(status: StatusCode) -> bool {
    matches!(status.as_u16(), 401 | 403 | 429)
}

/// Whether the user still sees "thinking…" in the place of this message, as Discord gives it; `None` where that
/// cannot be told.
pub fn is_loading(message: &[u8]) -> Option<bool> {
    let message: Message = object(message)?;
    match message.flags {
        Value::Null => Some(false),
        flags => flags.as_u64().map(|flags| flags & LOADING != 0),
    }
}

/// Whether this message, as Discord gives it, says just that. Discord drops the space around a text.
pub fn has_text(message: &[u8], text: &str) -> bool {
    let message: Option<Message> = object(message);
    message.is_some_and(|message| message.content.as_str().map(str::trim) == Some(text.trim()))
}

/// When Discord made what has that id, by its own clock, counted from 1970.
///
/// Source: Discord's documentation, "Snowflakes".
pub fn created(id: u64) -> Duration {
    Duration::from_millis((id >> 22) + DISCORD_EPOCH)
}

/// Whether this message, as Discord gives it, was edited later than that, counted from 1970; `None` where that
/// cannot be told.
pub fn is_edited_after(message: &[u8], unix_time: Duration) -> Option<bool> {
    let message: Message = object(message)?;
    match message.edited_timestamp {
        Value::Null => Some(false),
        edited => Some(since_1970(edited.as_str()?)? > unix_time),
    }
}

/// A time as Discord writes it, always in UTC: `2026-01-01T00:00:00.000000+00:00`.
fn since_1970(text: &str) -> Option<Duration> {
    let text = text.strip_suffix("+00:00").or_else(|| text.strip_suffix('Z'))?;
    let time = humantime::parse_rfc3339(&format!("{text}Z")).ok()?;
    time.duration_since(std::time::UNIX_EPOCH).ok()
}

/// What matters of an error's body.
#[derive(Default, Deserialize)]
#[serde(default)]
struct ApiError {
    code: Value,
    retry_after: Value,
    global: Value,
}

/// What matters of a message.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Message {
    content: Value,
    flags: Value,
    edited_timestamp: Value,
}

/// A JSON object; serde alone would take an array for one.
fn object<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
    let is_object = body.trim_ascii_start().starts_with(b"{");
    is_object.then(|| serde_json::from_slice(body).ok()).flatten()
}

fn rate_limit(headers: &HeaderMap, error: Option<ApiError>, body: &[u8]) -> Verdict {
    let header = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let seconds = |name: &str| header(name)?.parse().ok().and_then(wait);
    // Its own headers show the API too, but none of them shows who wrote a page.
    let is_of_api = error.is_some() || (body.is_empty() && headers.contains_key("x-ratelimit-scope"));
    let error = error.unwrap_or_default();
    let waits = [
        error.retry_after.as_f64().and_then(wait),
        seconds("retry-after"),
        seconds("x-ratelimit-reset-after"),
    ];
    let is = |name: &str, value: &str| header(name).is_some_and(|text| text.eq_ignore_ascii_case(value));
    let is_global = error.global == Value::Bool(true)
        || is("x-ratelimit-scope", "global")
        || is("x-ratelimit-global", "true");
    match waits.into_iter().flatten().next() {
        Some(wait) if is_of_api => Verdict::RateLimited { wait, is_global },
        wait => Verdict::Blocked { wait },
    }
}

/// A wait that makes sense: past the token's life nothing is sent anyway.
fn wait(seconds: f64) -> Option<Duration> {
    let is_time = seconds >= 0.0;
    is_time.then(|| {
        let wait = Duration::try_from_secs_f64(seconds).unwrap_or(TOKEN_LIFETIME);
        wait.clamp(SHORTEST_WAIT, TOKEN_LIFETIME)
    })
}

#[cfg(test)]
mod tests;
