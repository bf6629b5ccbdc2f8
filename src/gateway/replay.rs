//! The replay guard: no interaction is forwarded twice, whoever sends it again.
//!
//! Proxies send a request again over a connection that broke, and whoever has seen a signed request can send it again
//! as long as its timestamp is inside the window. Ids are kept by application until then. The guard lives by its own
//! clock, which only goes forward: if the time of day steps back, so that old timestamps fit the window once more,
//! everything up to the newest timestamp that was ever forgotten is taken for a replay. So is it where ids were forgotten
//! for want of room. Applications share the room, but nothing else: one that fills it forgets its own.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::call::Call;
use crate::discord::signature::PublicKey;
use crate::metrics::Metrics;

/// Ids that are kept of all applications; beyond them, the application that has the most forgets its oldest.
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
    applications: HashMap<u64, Seen>,
    /// Of all of them.
    ids: usize,
    /// Answers that are kept, in the order of their end.
    answers: VecDeque<KeptAnswer>,
    answer_bytes: usize,
}

/// What was seen of one application.
#[derive(Default)]
struct Seen {
    calls: HashMap<u64, Known>,
    /// Those of them that were turned away before they were forwarded.
    shed: HashSet<u64>,
    /// The same ids by their timestamp, since that is what they expire by.
    seconds: BTreeMap<u64, Second>,
    /// The newest timestamp of which an id was forgotten.
    forgotten_up_to: Option<u64>,
}

/// What is known of an interaction, in eight bytes: there may be many.
enum Known {
    /// It is under way, or its answer is kept.
    Call(Arc<Call>),
    /// It was forwarded, and its answer is not kept any more; or it was shed.
    Spent,
}

struct Second {
    expires: Instant,
    ids: VecDeque<u64>,
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
        let memory = &mut *self.lock();
        memory.tidy_answers(now);
        let seen = memory.applications.entry(key.application).or_default();
        memory.ids -= seen.tidy(now);
        match seen.calls.get_mut(&key.id) {
            Some(Known::Call(call)) => return Admission::Again(Arc::clone(call)),
            Some(shed) if seen.shed.remove(&key.id) => {
                let call = Call::new();
                *shed = Known::Call(Arc::clone(&call));
                return Admission::First(call);
            }
            Some(Known::Spent) => return Admission::Spent,
            None if seen.forgotten_up_to >= Some(timestamp) => return Admission::Spent,
            None => {}
        }
        let call = Call::new();
        // The window counts whole seconds, so it is open until the last one is over.
        let closes = Duration::from_secs(timestamp) + window + Duration::from_secs(1);
        let expires = now + closes.saturating_sub(unix_time);
        seen.insert(key.id, timestamp, expires, Arc::clone(&call));
        memory.ids += 1;
        if memory.ids > MAX_IDS {
            memory.tidy(now);
        }
        if memory.ids > MAX_IDS {
            memory.make_room();
            self.metrics.replay_forgotten.inc();
        }
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
        memory.tidy_answers(now);
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
        self.lock().shed(key);
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
        self.tidy_answers(now);
        self.ids -= self.applications.values_mut().map(|seen| seen.tidy(now)).sum::<usize>();
    }

    fn tidy_answers(&mut self, now: Instant) {
        while let Some(answer) = self.answers.pop_front_if(|first| first.until <= now) {
            self.let_go(&answer);
        }
    }

    fn let_go(&mut self, answer: &KeptAnswer) {
        self.answer_bytes -= answer.size;
        self.set(answer.key, Known::Spent);
    }

    fn set(&mut self, key: InteractionKey, to: Known) {
        let seen = self.applications.get_mut(&key.application);
        if let Some(known) = seen.and_then(|seen| seen.calls.get_mut(&key.id)) {
            *known = to;
        }
    }

    fn shed(&mut self, key: InteractionKey) {
        let Some(seen) = self.applications.get_mut(&key.application) else { return };
        // It may be forgotten already, where room is short.
        if let Some(known) = seen.calls.get_mut(&key.id) {
            *known = Known::Spent;
            seen.shed.insert(key.id);
        }
    }

    /// For one id, by what the application with the most of them knows.
    fn make_room(&mut self) {
        let most = self.applications.values_mut().max_by_key(|seen| seen.calls.len());
        self.ids -= most.map(Seen::forget_oldest).unwrap_or_default();
    }
}

impl Seen {
    fn insert(&mut self, id: u64, timestamp: u64, expires: Instant, call: Arc<Call>) {
        self.calls.insert(id, Known::Call(call));
        let second = self.seconds.entry(timestamp).or_insert(Second { expires, ids: VecDeque::new() });
        second.expires = second.expires.max(expires);
        second.ids.push_back(id);
    }

    /// Forgets what is over. How many ids that were.
    fn tidy(&mut self, now: Instant) -> usize {
        let before = self.calls.len();
        while let Some(second) = self.seconds.first_entry().filter(|second| second.get().expires <= now) {
            let (timestamp, second) = second.remove_entry();
            self.forgotten_up_to = self.forgotten_up_to.max(Some(timestamp));
            for id in second.ids {
                self.forget(id);
            }
        }
        before - self.calls.len()
    }

    fn forget(&mut self, id: u64) -> Option<Known> {
        self.shed.remove(&id);
        self.calls.remove(&id)
    }

    /// Forgets one id, and closes its second: what is not known of it any more is taken for a replay. How many that were.
    fn forget_oldest(&mut self) -> usize {
        let Some(mut second) = self.seconds.first_entry() else { return 0 };
        self.forgotten_up_to = self.forgotten_up_to.max(Some(*second.key()));
        let oldest = second.get_mut().ids.pop_front();
        if second.get().ids.is_empty() {
            second.remove();
        }
        oldest.and_then(|id| self.forget(id)).iter().count()
    }
}

#[cfg(test)]
mod tests;
