//! Calls: what came to the stand-in.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use tokio::time::Instant;

use super::BASE;
use super::post::Post;
use crate::discord::Token;

/// One call.
#[derive(Clone, Debug)]
pub struct Call {
    /// Its method.
    pub method: Method,
    /// What it is about.
    pub target: Target,
    /// Which call with its token it is, from 1 on.
    pub nth: usize,
    /// Which of all calls it is, from 1 on.
    pub nth_in_all: usize,
    /// When all of it had been read.
    pub at: Instant,
    /// How long before that the interaction was answered; `None` if it was not, or is not known.
    pub since_answer: Option<Duration>,
    /// Whether its token had expired: nobody should make such a call.
    pub is_after_expiry: bool,
    /// What it was answered with; `None` if it was not, or not yet.
    pub status: Option<StatusCode>,
    /// `Content-Type`, or nothing.
    pub content_type: String,
    /// The body as it came, or nothing if bodies are not kept.
    pub body: Bytes,
    pub(super) token: Option<Token>,
}

/// What a call is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// `/webhooks/{application}/{token}/messages/@original`
    Original,
    /// `/webhooks/{application}/{token}`
    FollowUp,
    /// `/interactions/{id}/{token}/callback`
    Callback,
    /// Nothing that this stand-in has.
    Other,
}

impl Call {
    /// The token, or nothing if there is none in the path.
    pub fn token(&self) -> &str {
        self.token.as_ref().map(Token::expose).unwrap_or_default()
    }

    /// Its message, if it has one.
    pub fn post(&self) -> Option<Post> {
        Post::read(&self.content_type, &self.body).ok()
    }

    /// A number from 0 to 99, as if drawn by lot, but the same in each run for the same token and turn: for faults that
    /// happen to some of many calls.
    pub fn lot(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.token(), self.nth).hash(&mut hasher);
        hasher.finish() % 100
    }
}

/// What a path names.
#[derive(Debug, PartialEq)]
pub(super) struct Path {
    pub(super) target: Target,
    /// The application; of a callback, the interaction.
    pub(super) owner: String,
    pub(super) token: Option<Token>,
}

impl Path {
    pub(super) fn read(path: &str) -> Self {
        let segments: Vec<_> =
            path.strip_prefix(BASE).unwrap_or_default().split('/').skip(1).take(6).collect();
        let (target, owner, token) = match *segments {
            ["webhooks", owner, token, "messages", "@original"] => (Target::Original, owner, token),
            ["webhooks", owner, token] => (Target::FollowUp, owner, token),
            ["interactions", owner, token, "callback"] => (Target::Callback, owner, token),
            _ => (Target::Other, "", ""),
        };
        match Token::new(token) {
            Some(token) => Self { target, owner: owner.to_owned(), token: Some(token) },
            None => Self { target: Target::Other, owner: String::new(), token: None },
        }
    }
}

impl Target {
    pub(super) fn takes(self, method: &Method) -> bool {
        match self {
            Self::Original => [Method::GET, Method::PATCH, Method::DELETE].contains(method),
            Self::FollowUp | Self::Callback => method == Method::POST,
            Self::Other => true,
        }
    }
}
