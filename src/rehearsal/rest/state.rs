//! All that the stand-in knows: the interactions, and the calls about them.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::Value;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::call::{Call, Path, Target};
use super::conversation::{Conversation, Moment};
use super::fault::{self, Fault};
use super::post::Post;
use super::reply::{Problem, Reply};
use super::{Script, View, text};
use crate::discord::Token;

/// Of the first message.
const FIRST_ID: u64 = 1_300_000_000_000_000_000;

pub(super) struct State {
    script: Script,
    known: Mutex<Known>,
    changed: Notify,
}

struct Known {
    conversations: HashMap<String, Conversation>,
    calls: Vec<Call>,
    /// How many calls there were with each token, known or not.
    turns: HashMap<String, usize>,
    last_id: u64,
}

/// A call as it came.
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) content_type: String,
    pub(super) user_agent: String,
    /// `None`: it was too large.
    pub(super) body: Option<Bytes>,
}

impl State {
    pub(super) fn new(script: Script) -> Self {
        let (conversations, turns) = (HashMap::new(), HashMap::new());
        let known = Known { conversations, calls: Vec::new(), turns, last_id: FIRST_ID };
        Self { script, known: Mutex::new(known), changed: Notify::new() }
    }

    pub(super) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    pub(super) fn send(&self, interaction: &[u8]) -> bool {
        let Ok(interaction) = serde_json::from_slice::<Value>(interaction) else { return false };
        let Some(token) = text(&interaction, "token").and_then(Token::new) else { return false };
        let mut known = self.known();
        if known.conversations.contains_key(token.expose()) {
            return true;
        }
        let name = token.expose().to_owned();
        let Some(new) = Conversation::new(token, &interaction, self.script.clock.now()) else { return false };
        known.conversations.insert(name, new);
        drop(known);
        self.changed.notify_waiters();
        true
    }

    pub(super) fn answer(&self, interaction: &[u8], callback: &[u8]) -> bool {
        let Ok(interaction) = serde_json::from_slice::<Value>(interaction) else { return false };
        let callback = Post::read("application/json", &Bytes::copy_from_slice(callback));
        let (Some(token), Ok(callback)) = (text(&interaction, "token"), callback) else { return false };
        let answered = self.change(token, |conversation, moment| conversation.answer(callback, moment));
        answered.is_some_and(|answered| answered.is_ok())
    }

    pub(super) fn expire(&self, token: &str) {
        self.change(token, |conversation, _| conversation.end());
    }

    pub(super) fn view(&self, token: &str) -> Option<View> {
        self.known().conversations.get(token).map(|conversation| conversation.view().clone())
    }

    pub(super) fn loading(&self) -> usize {
        let known = self.known();
        let originals = known.conversations.values().filter_map(|one| one.view().original.as_ref());
        originals.filter(|message| message.is_loading()).count()
    }

    pub(super) fn calls(&self) -> Vec<Call> {
        self.known().calls.clone()
    }

    pub(super) fn count(&self, is_such: impl Fn(&Call) -> bool) -> usize {
        self.known().calls.iter().filter(|call| is_such(call)).count()
    }

    /// Writes a call down.
    pub(super) fn note(&self, request: &Request) -> Call {
        let Path { target, token, .. } = Path::read(&request.path);
        let now = self.script.clock.now();
        let mut known = self.known();
        let name = token.as_ref().map(Token::expose).unwrap_or_default().to_owned();
        let mut call = Call {
            method: request.method.clone(),
            target,
            nth: 0,
            nth_in_all: known.calls.len() + 1,
            at: now,
            since_answer: None,
            is_after_expiry: false,
            status: None,
            content_type: request.content_type.clone(),
            body: request.body.clone().unwrap_or_default(),
            token,
        };
        if let Some(conversation) = known.conversations.get(&name) {
            call.since_answer = conversation.answered().map(|then| now.saturating_duration_since(then));
            call.is_after_expiry = conversation.is_expired(now);
            // Shared, so that many calls cost little.
            call.token = Some(conversation.token.clone());
        }
        let turn = known.turns.entry(name).or_default();
        *turn += 1;
        call.nth = *turn;
        let body = if self.script.keeps_bodies { call.body.clone() } else { Bytes::new() };
        known.calls.push(Call { body, ..call.clone() });
        drop(known);
        self.changed.notify_waiters();
        call
    }

    pub(super) fn fault(&self, call: &Call) -> Option<Fault> {
        (self.script.faults)(call)
    }

    /// The reply that a fault is; `None` if it is something else.
    pub(super) fn refusal(&self, fault: Fault) -> Option<Reply> {
        fault::reply(fault, self.script.clock.unix_time().as_secs_f64())
    }

    /// Does what a call asks for.
    pub(super) fn process(&self, request: &Request) -> Reply {
        self.try_process(request).unwrap_or_else(Reply::from)
    }

    fn try_process(&self, request: &Request) -> Result<Reply, Problem> {
        // Source: Discord's documentation, "User Agent"; the network in front of it blocks others.
        if !request.user_agent.starts_with("DiscordBot (") {
            return Err(Problem::BLOCKED);
        }
        let Path { target, owner, token } = Path::read(&request.path);
        let token = token.ok_or(Problem::NO_ROUTE)?;
        if !target.takes(&request.method) {
            return Err(Problem::NO_METHOD);
        }
        let body = request.body.as_ref().ok_or(Problem::TOO_LARGE)?;
        let post = || Post::read(&request.content_type, body);
        if target == Target::Callback {
            let callback = post()?;
            let answer = self.change(token.expose(), |it, moment| it.answer(callback, moment));
            return answer.unwrap_or(Err(Problem::UNKNOWN_INTERACTION)).map(|()| Reply::empty(204));
        }
        let route = (&request.method, target);
        self.change(token.expose(), |it, moment| it.webhook(&owner, route, post, moment))
            .unwrap_or(Err(Problem::UNKNOWN_WEBHOOK))
    }

    /// Writes down what a call was answered with.
    pub(super) fn conclude(&self, call: &Call, status: StatusCode) {
        if let Some(call) = self.known().calls.get_mut(call.nth_in_all - 1) {
            call.status = Some(status);
        }
        self.changed.notify_waiters();
    }

    fn change<T>(
        &self,
        token: &str,
        change: impl FnOnce(&mut Conversation, &mut Moment<'_>) -> T,
    ) -> Option<T> {
        let (now, unix_seconds) = (self.script.clock.now(), self.script.clock.unix_time().as_secs());
        let mut known = self.known();
        let Known { conversations, last_id, .. } = &mut *known;
        let mut moment = Moment { now, unix_seconds, race: self.script.race, last_id };
        let changed = conversations.get_mut(token).map(|conversation| change(conversation, &mut moment));
        drop(known);
        self.changed.notify_waiters();
        changed
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
