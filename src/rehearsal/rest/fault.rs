//! Faults: what can go wrong with a call, as Discord's documentation and its users tell it.

use std::time::Duration;

use serde_json::json;

use super::reply::{Problem, Reply};

/// What goes wrong with a call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// 404, code 10015: as in the race after a deferral.
    UnknownWebhook,
    /// 429.
    RateLimited {
        /// Seconds.
        retry_after: f64,
        /// Whose limit it is.
        scope: Scope,
        /// How the caller gets to know.
        told: Told,
    },
    /// That status with a body that is not JSON, as a proxy in front of Discord answers: for 5xx.
    Status(u16),
    /// Any documented error.
    Code {
        /// The status.
        status: u16,
        /// Discord's own code.
        code: u32,
    },
    /// The connection is reset, and nothing is done.
    Reset,
    /// All is done, and then the connection is reset instead of an answer.
    ResetAfter,
    /// Nothing is done, and no answer ever comes.
    Hang,
    /// All is done, and the answer comes that much later.
    Slow(Duration),
}

/// Whose rate limit is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The caller's, on this route.
    User,
    /// The caller's, on all routes.
    Global,
    /// Everybody's, on this route.
    Shared,
}

/// How a 429 says when to come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// In the body, which is JSON, and in the headers.
    Json,
    /// In the headers alone; there is no body.
    HeaderOnly,
    /// Not at all: a page of HTML, as from the network in front of Discord when it blocks an address.
    NotJson,
}

impl Scope {
    fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Global => "global",
            Self::Shared => "shared",
        }
    }
}

/// The answer of a call that is over its rate. `unix_time` is in seconds.
///
/// Source: Discord's documentation, "Rate Limits".
pub(super) fn rate_limited(retry_after: f64, scope: Scope, told: Told, unix_time: f64) -> Reply {
    let is_global = scope == Scope::Global;
    let reply = match told {
        Told::NotJson => return Reply::page(429, "<html><body>You are being blocked.</body></html>"),
        Told::HeaderOnly => Reply::empty(429),
        Told::Json => Reply::json(
            429,
            &json!({
                "message": "You are being rate limited.",
                "retry_after": retry_after,
                "global": is_global,
            }),
        ),
    };
    let reply = reply
        .header("retry-after", retry_after.ceil().to_string())
        .header("x-ratelimit-scope", scope.as_str().to_owned());
    if is_global {
        return reply.header("x-ratelimit-global", "true".to_owned());
    }
    reply
        .header("x-ratelimit-limit", "5".to_owned())
        .header("x-ratelimit-remaining", "0".to_owned())
        .header("x-ratelimit-reset", format!("{:.3}", unix_time + retry_after))
        .header("x-ratelimit-reset-after", format!("{retry_after:.3}"))
        .header("x-ratelimit-bucket", "80c17d2f203122d936070c88c8d10f33".to_owned())
}

/// The answer that a fault is; `None` if it is something else.
pub(super) fn reply(fault: Fault, unix_time: f64) -> Option<Reply> {
    match fault {
        Fault::UnknownWebhook => Some(Problem::UNKNOWN_WEBHOOK.into()),
        Fault::RateLimited { retry_after, scope, told } => {
            Some(rate_limited(retry_after, scope, told, unix_time))
        }
        Fault::Status(status) => Some(Reply::page(status, "<html><body>upstream trouble</body></html>")),
        Fault::Code { status, code } => Some(Problem { status, code }.into()),
        Fault::Reset | Fault::ResetAfter | Fault::Hang | Fault::Slow(_) => None,
    }
}
