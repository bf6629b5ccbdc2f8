//! What comes back for a request, and who says it.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::Value;
use shardless::discord::interaction::Kind;
use shardless::rehearsal::{Exchange, Payload};

use super::handlers;

/// What a request got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Got {
    /// Its handler's answer.
    Answer,
    /// Nothing to choose from, since its handler was late.
    NoChoices,
    /// The answer follows.
    Deferral,
    Pong,
    /// A status that is no answer: whose, which and why.
    Refused(&'static str),
    /// 200, with something that is no answer to this interaction.
    Wrong(&'static str),
    /// Nothing within Discord's three seconds.
    Nothing,
    /// The connection broke.
    Broken,
}

impl Got {
    pub(super) fn is_an_answer(self) -> bool {
        matches!(self, Self::Answer | Self::NoChoices | Self::Deferral | Self::Pong)
    }
}

impl fmt::Display for Got {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Answer => "answered: by its handler",
            Self::NoChoices => "answered: no choices, its handler was late",
            Self::Deferral => "deferred",
            Self::Pong => "answered: PONG",
            Self::Refused(why) | Self::Wrong(why) => return write!(f, "refused: {why}"),
            Self::Nothing => "no answer within 3 s",
            Self::Broken => "the connection broke",
        })
    }
}

/// Reads an answer to the interaction of that id; with a number that tells answers apart.
pub(super) fn read(id: u64, payload: &Payload, exchange: &Exchange) -> (Got, u32) {
    let mut hasher = DefaultHasher::new();
    (exchange.status, &exchange.body).hash(&mut hasher);
    let digest = u32::try_from(hasher.finish() >> 32).unwrap();
    let got = match exchange.status.as_u16() {
        200 => callback(id, payload, &exchange.body),
        status => Got::Refused(refusal(status, exchange)),
    };
    (got, digest)
}

fn callback(id: u64, payload: &Payload, body: &[u8]) -> Got {
    let Ok(json) = serde_json::from_slice::<Value>(body) else { return Got::Wrong("200 without JSON") };
    let (text, kind) = (handlers::text(id), payload.kind.unwrap());
    let says = |value: &Value| value.as_str() == Some(&text);
    match (kind, json["type"].as_u64()) {
        (Kind::Ping, Some(1)) => Got::Pong,
        (Kind::Command | Kind::Modal, Some(5)) | (Kind::Component, Some(6)) => Got::Deferral,
        (Kind::Command | Kind::Modal, Some(4)) | (Kind::Component, Some(4 | 7))
            if says(&json["data"]["content"]) =>
        {
            Got::Answer
        }
        (Kind::Autocomplete, Some(8)) => match json["data"]["choices"].as_array().map(Vec::as_slice) {
            Some([]) => Got::NoChoices,
            Some([choice]) if says(&choice["value"]) => Got::Answer,
            _ => Got::Wrong("200 with choices of another"),
        },
        _ => Got::Wrong("200 with a callback of another"),
    }
}

fn refusal(status: u16, exchange: &Exchange) -> &'static str {
    let text = String::from_utf8_lossy(&exchange.body);
    let is_empty = text.is_empty();
    match status {
        502 if text.contains("nginx") => "Nginx: 502",
        504 if text.contains("nginx") => "Nginx: 504",
        _ if text.contains("nginx") => "Nginx: another status",
        502 if is_empty => "shardless: 502, the handler failed",
        503 if is_empty => "shardless: 503, the daemon ended",
        504 if is_empty => "shardless: 504, the handler was late",
        500 => "shardless: 500",
        503 => "shardless: 503, full",
        409 => "shardless: 409, it came before",
        408 => "shardless: 408, it came too slowly",
        401 if text.contains("too far from now") => "shardless: 401, clock",
        401 => "shardless: 401",
        400 => "shardless: 400",
        _ => "another status",
    }
}
