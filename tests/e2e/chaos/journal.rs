//! What was done to the daemons, and when: by it each refusal is to be explained.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::Mutex;

use tokio::time::Instant;

use super::handlers::{Arrived, Notes};

/// What a fault explains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Excuse {
    /// Nothing at all: nobody outside is to notice it.
    None,
    /// That a handler gave no answer.
    Handlers,
    /// That Nginx got no answer from that daemon.
    Killing(usize),
    /// That good signatures were too old for that daemon, or not yet made.
    Clock(usize),
}

/// Milliseconds that a fault is felt beyond its end.
const AFTERWARDS: u32 = 1000;

/// One fault, from when to when, in milliseconds since the start.
#[derive(Clone, Copy, Debug)]
struct Fault {
    what: &'static str,
    excuse: Excuse,
    from: u32,
    to: Option<u32>,
}

/// A fault that is not over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ongoing(usize);

/// All that happened.
pub(super) struct Journal {
    start: Instant,
    faults: Mutex<Vec<Fault>>,
    counts: Mutex<BTreeMap<&'static str, u64>>,
    /// The processes that were killed, by their daemon's number and their own.
    killed: Mutex<BTreeSet<(usize, u16)>>,
    arrivals: Box<dyn Fn(Arrived) + Send + Sync>,
}

impl Journal {
    pub(super) fn new(start: Instant, arrivals: impl Fn(Arrived) + Send + Sync + 'static) -> Self {
        let (faults, counts, killed) = Default::default();
        Self { start, faults, counts, killed, arrivals: Box::new(arrivals) }
    }

    /// Milliseconds since the start.
    pub(super) fn now(&self) -> u32 {
        u32::try_from(self.start.elapsed().as_millis()).unwrap()
    }

    /// Counts something that happened.
    pub(super) fn count(&self, what: &'static str) {
        *self.counts.lock().unwrap().entry(what).or_default() += 1;
    }

    /// A fault begins.
    pub(super) fn begins(&self, what: &'static str, excuse: Excuse) -> Ongoing {
        self.count(what);
        let mut faults = self.faults.lock().unwrap();
        faults.push(Fault { what, excuse, from: self.now(), to: None });
        Ongoing(faults.len() - 1)
    }

    /// It is over.
    pub(super) fn ends(&self, fault: Ongoing) {
        let now = self.now();
        self.faults.lock().unwrap()[fault.0].to = Some(now);
    }

    /// That process has been killed.
    pub(super) fn killed(&self, process: (usize, u16)) {
        self.killed.lock().unwrap().insert(process);
    }

    pub(super) fn was_killed(&self, process: (usize, u16)) -> bool {
        self.killed.lock().unwrap().contains(&process)
    }

    /// Whether something explains it, that far back.
    pub(super) fn excuses(&self, excuse: Excuse, from: u32, to: u32) -> bool {
        self.faults.lock().unwrap().iter().any(|fault| fault.excuse == excuse && fault.meets(from, to))
    }

    /// What went on meanwhile.
    pub(super) fn tell(&self, from: u32, to: u32) -> String {
        let mut told = String::new();
        for fault in self.faults.lock().unwrap().iter().filter(|fault| fault.meets(from, to)) {
            writeln!(told, "    {} from {} to {:?}", fault.what, fault.from, fault.to).unwrap();
        }
        told
    }

    pub(super) fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.counts.lock().unwrap().clone()
    }
}

impl Fault {
    fn meets(&self, from: u32, to: u32) -> bool {
        self.from <= to && self.to.is_none_or(|end| end + AFTERWARDS >= from)
    }
}

impl Notes for Journal {
    fn arrived(&self, arrived: Arrived) {
        (self.arrivals)(arrived);
    }

    fn did(&self, what: &'static str) {
        self.count(what);
    }
}
