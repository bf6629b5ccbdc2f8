//! The replay guard: no interaction is forwarded twice, whoever sends it again.
//!
//! Proxies send a request again over a connection that broke, and whoever has seen a signed request can send it again
//! as long as its timestamp is inside the window. Ids are kept by application until then. The guard lives by its own
//! clock, which only goes forward: if the time of day steps back, so that old timestamps fit the window once more,
//! everything up to the newest timestamp that was ever forgotten is taken for a replay.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::call::Call;
use crate::discord::signature::PublicKey;
use crate::metrics::Metrics;

/// Ids that are kept; beyond them the oldest is forgotten.
const MAX_IDS: usize = 262_144;
/// How long an answer is kept for duplicates.
const ANSWER_LIFETIME: Duration = Duration::from_secs(15);
/// Bytes of an answer that is kept at all.
const MAX_ANSWER: usize = 64 * 1024;
/// Bytes of all answers that are kept, and their part of what may be held in memory in all.
const MAX_ANSWERS: usize = 16 * 1024 * 1024;
const PART_OF_BUFFERED: usize = 4;
/// What an answer takes beside its body.
const ANSWER_OVERHEAD: usize = 512;

/// An interaction of an application. The application is known by the key that it signs with, whatever its name, so
/// that a request does not count anew on another path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct InteractionKey {
    application: u64,
    id: u64,
}

impl InteractionKey {
    pub(super) fn new(key: &PublicKey, id: u64) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = *key.as_bytes();
        Self { application: u64::from_le_bytes([a, b, c, d, e, f, g, h]), id }
    }
}

/// What is to be done with an interaction.
pub(super) enum Admission {
    /// It is new: the call is to be made.
    First(Arc<Call>),
    /// It is under way, or was answered just now: wait for that call's answer.
    Again(Arc<Call>),
    /// It came before, and its answer is not kept any more.
    Spent,
}

/// Remembers interactions.
pub(super) struct ReplayGuard {
    metrics: Arc<Metrics>,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    calls: HashMap<InteractionKey, Known>,
    /// The same ids by their timestamp, since that is what they expire by.
    seconds: BTreeMap<u64, Second>,
    /// Answers that are kept, in the order of their end.
    answers: VecDeque<KeptAnswer>,
    answer_bytes: usize,
    /// The newest timestamp of which an expired id was forgotten.
    forgotten_up_to: Option<u64>,
}

/// What is known of an interaction.
enum Known {
    /// It is under way, or its answer is kept.
    Call(Arc<Call>),
    /// It was forwarded, and its answer is not kept any more.
    Spent,
    /// It was turned away before it was forwarded.
    Shed,
}

struct Second {
    expires: Instant,
    keys: VecDeque<InteractionKey>,
}

struct KeptAnswer {
    until: Instant,
    key: InteractionKey,
    size: usize,
}

impl ReplayGuard {
    /// A guard that knows of no interaction yet.
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, memory: Mutex::default() }
    }

    /// Admits an interaction whose signature, with a timestamp inside `window`, was verified.
    pub(super) fn admit(
        &self,
        key: InteractionKey,
        timestamp: u64,
        window: Duration,
        unix_time: Duration,
        now: Instant,
    ) -> Admission {
        let mut memory = self.lock();
        memory.tidy(now);
        let is_too_old = memory.forgotten_up_to >= Some(timestamp);
        match memory.calls.get_mut(&key) {
            Some(Known::Call(call)) => return Admission::Again(Arc::clone(call)),
            Some(Known::Spent) => return Admission::Spent,
            Some(shed @ Known::Shed) => {
                let call = Call::new();
                *shed = Known::Call(Arc::clone(&call));
                return Admission::First(call);
            }
            None if is_too_old => return Admission::Spent,
            None => {}
        }
        if memory.calls.len() >= MAX_IDS {
            memory.forget_oldest();
            self.metrics.replay_forgotten.inc();
        }
        let call = Call::new();
        memory.calls.insert(key, Known::Call(Arc::clone(&call)));
        // The window counts whole seconds, so it is open until the last one is over.
        let closes = Duration::from_secs(timestamp) + window + Duration::from_secs(1);
        let expires = now + closes.saturating_sub(unix_time);
        let second = memory.seconds.entry(timestamp).or_insert(Second { expires, keys: VecDeque::new() });
        second.expires = second.expires.max(expires);
        second.keys.push_back(key);
        Admission::First(call)
    }

    /// A call has its answer: it is kept for a while, if it is not too large. `buffered` bytes may be held in memory in
    /// all.
    pub(super) fn settled(&self, key: InteractionKey, body: usize, buffered: usize, now: Instant) {
        let mut memory = self.lock();
        let size = body + ANSWER_OVERHEAD;
        if body > MAX_ANSWER {
            memory.set(key, Known::Spent);
            return;
        }
        memory.answers.push_back(KeptAnswer { until: now + ANSWER_LIFETIME, key, size });
        memory.answer_bytes += size;
        memory.tidy(now);
        while memory.answer_bytes > MAX_ANSWERS.min(buffered / PART_OF_BUFFERED) {
            let Some(oldest) = memory.answers.pop_front() else { break };
            memory.let_go(&oldest);
        }
    }

    /// An answer is not to be given again.
    pub(super) fn spend(&self, key: InteractionKey) {
        self.lock().set(key, Known::Spent);
    }

    /// An admitted interaction was not forwarded after all: it may come again.
    pub(super) fn shed(&self, key: InteractionKey) {
        self.lock().set(key, Known::Shed);
    }

    /// Lets go of what is over.
    pub(super) fn tidy(&self, now: Instant) {
        self.lock().tidy(now);
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    fn tidy(&mut self, now: Instant) {
        while let Some(answer) = self.answers.pop_front_if(|first| first.until <= now) {
            self.let_go(&answer);
        }
        while let Some(second) = self.seconds.first_entry().filter(|second| second.get().expires <= now) {
            let (timestamp, second) = second.remove_entry();
            self.forgotten_up_to = self.forgotten_up_to.max(Some(timestamp));
            for key in second.keys {
                self.calls.remove(&key);
            }
        }
    }

    fn let_go(&mut self, answer: &KeptAnswer) {
        self.answer_bytes -= answer.size;
        self.set(answer.key, Known::Spent);
    }

    fn set(&mut self, key: InteractionKey, to: Known) {
        if let Some(known) = self.calls.get_mut(&key) {
            *known = to;
        }
    }

    fn forget_oldest(&mut self) {
        while let Some(mut second) = self.seconds.first_entry() {
            match second.get_mut().keys.pop_front() {
                Some(key) if self.calls.remove(&key).is_some() => return,
                Some(_) => {}
                None => _ = second.remove(),
            }
        }
    }
}

#[cfg(test)]
mod tests;
