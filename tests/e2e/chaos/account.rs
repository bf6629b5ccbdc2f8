//! What became of each interaction, from its sending to its end.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Mutex;

use shardless::rehearsal::rest::{Api, View};

use super::answers::Got;
use super::handlers::{self, Arrived};
use super::journal::{Excuse, Journal};

/// What the user reads where the handler has no answer.
const TOO_LONG: &str = "This took too long. Please try again.";
/// What stood in the message of a button before.
const BEFORE: &str = "Pick one:";

/// What an interaction was sent for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    Good,
    /// It is alive, with all handlers down too.
    Ping,
    /// Its signature does not hold.
    Forged,
}

/// One step of an interaction's way.
#[derive(Clone, Copy, Debug)]
enum What {
    Sent,
    Arrived(Arrived),
    Got { got: Got, digest: u32 },
}

#[derive(Clone, Copy, Debug)]
struct Step {
    /// Milliseconds since the start.
    at: u32,
    what: What,
}

/// All that is known of one interaction.
#[derive(Debug)]
struct Item {
    daemon: usize,
    sort: Sort,
    name: &'static str,
    /// Where Discord was told of its answer.
    token: Option<Box<str>>,
    steps: Vec<Step>,
}

/// Of all interactions.
#[derive(Default)]
pub(super) struct Account {
    items: Mutex<HashMap<u64, Item>>,
    /// Arrivals of what nobody sent.
    strange: Mutex<Vec<Arrived>>,
}

/// What came of them all.
#[derive(Default)]
pub(super) struct Sum {
    /// How many were sent, and how often.
    pub(super) sent: usize,
    pub(super) requests: usize,
    /// Each interaction, by what became of it.
    pub(super) outcomes: BTreeMap<String, usize>,
    /// What is not to be, by what is wrong, with the history of each.
    pub(super) wrong: BTreeMap<&'static str, Vec<(u64, String)>>,
    /// Forwarded once more by the process after one that was killed, whose memory went with it.
    pub(super) again_after_kill: usize,
    /// What those got that were sent once more, beside the first of each.
    pub(super) copies: BTreeMap<String, usize>,
    /// Follow-ups that came twice with the same text.
    pub(super) repeated: usize,
}

/// What became of one.
struct Judged {
    outcome: String,
    wrong: BTreeSet<&'static str>,
}

pub(super) const LOST: &str = "lost";
pub(super) const ANSWERED_TWICE: &str = "answered twice";
pub(super) const FORWARDED_TWICE: &str = "forwarded twice";
pub(super) const FORGED_ACCEPTED: &str = "forged accepted";

impl Account {
    /// An interaction is sent for the first time.
    pub(super) fn opens(&self, id: u64, daemon: usize, sort: Sort, name: &'static str) {
        let item = Item { daemon, sort, name, token: None, steps: Vec::new() };
        assert!(self.items.lock().unwrap().insert(id, item).is_none(), "{id} was given twice");
    }

    /// Its request goes out, for the first time or again.
    pub(super) fn sent(&self, id: u64, at: u32) {
        self.step(id, at, What::Sent);
    }

    /// A request has ended.
    pub(super) fn got(&self, id: u64, at: u32, got: Got, digest: u32) {
        self.step(id, at, What::Got { got, digest });
    }

    /// Discord knows of its answer.
    pub(super) fn is_known(&self, id: u64, token: &str) {
        self.items.lock().unwrap().get_mut(&id).unwrap().token = Some(token.into());
    }

    /// It has come to a handler.
    pub(super) fn arrived(&self, arrived: Arrived, at: u32) {
        if !self.step(arrived.id, at, What::Arrived(arrived)) {
            self.strange.lock().unwrap().push(arrived);
        }
    }

    fn step(&self, id: u64, at: u32, what: What) -> bool {
        let mut items = self.items.lock().unwrap();
        let Some(item) = items.get_mut(&id) else { return false };
        item.steps.push(Step { at, what });
        true
    }

    /// How many were sent so far.
    pub(super) fn sent_so_far(&self) -> usize {
        self.items.lock().unwrap().len()
    }

    /// Sums up, when all is over.
    pub(super) fn sum(&self, journal: &Journal, api: &Api) -> Sum {
        let mut sum = Sum::default();
        for (id, item) in &*self.items.lock().unwrap() {
            let judged = item.judge(*id, journal, api, &mut sum);
            sum.sent += 1;
            sum.requests += item.steps.iter().filter(|step| matches!(step.what, What::Sent)).count();
            for wrong in &judged.wrong {
                let history = item.history(*id, &judged.outcome, journal, api);
                sum.wrong.entry(wrong).or_default().push((*id, history));
            }
            let Judged { outcome, wrong } = judged;
            let outcome = if wrong.contains(LOST) { format!("{LOST}: {outcome}") } else { outcome };
            *sum.outcomes.entry(outcome).or_default() += 1;
        }
        for strange in &*self.strange.lock().unwrap() {
            sum.wrong.entry(FORGED_ACCEPTED).or_default().push((strange.id, strange.to_string()));
        }
        sum
    }
}

impl Item {
    fn judge(&self, id: u64, journal: &Journal, api: &Api, sum: &mut Sum) -> Judged {
        let mut wrong = self.judge_arrivals(journal, sum);
        let outcome = match self.sort {
            Sort::Forged => self.judge_forged(journal, &mut wrong),
            Sort::Good | Sort::Ping => self.judge_good(id, journal, api, sum, &mut wrong),
        };
        Judged { outcome, wrong }
    }

    fn judge_arrivals(&self, journal: &Journal, sum: &mut Sum) -> BTreeSet<&'static str> {
        let mut wrong = BTreeSet::new();
        let arrivals = self.steps.iter().filter_map(|step| match step.what {
            What::Arrived(arrived) => Some(arrived.from),
            _ => None,
        });
        let arrivals: Vec<_> = arrivals.collect();
        if self.sort != Sort::Good && !arrivals.is_empty() {
            wrong.insert(FORGED_ACCEPTED);
        }
        for pair in arrivals.windows(2) {
            if pair[0] != pair[1] && journal.was_killed(pair[0]) {
                sum.again_after_kill += 1;
            } else {
                wrong.insert(FORWARDED_TWICE);
            }
        }
        wrong
    }

    /// Whether a request without an answer of the daemon's met its killing.
    fn met_a_killing(&self, journal: &Journal) -> bool {
        let (from, to) = self.time();
        journal.excuses(Excuse::Killing(self.daemon), from, to)
    }

    fn time(&self) -> (u32, u32) {
        (self.steps.first().map_or(0, |step| step.at), self.steps.last().map_or(0, |step| step.at))
    }

    fn gots(&self) -> impl Iterator<Item = (Got, u32)> {
        self.steps.iter().filter_map(|step| match step.what {
            What::Got { got, digest } => Some((got, digest)),
            _ => None,
        })
    }

    fn judge_forged(&self, journal: &Journal, wrong: &mut BTreeSet<&'static str>) -> String {
        let mut outcome = "forged: 401".to_owned();
        for (got, _) in self.gots() {
            match got {
                Got::Refused(why) if why.starts_with("shardless: 401") => {}
                Got::Refused(why) if why.starts_with("Nginx") && self.met_a_killing(journal) => {
                    outcome = format!("forged: {why}, while the daemon was killed");
                }
                Got::Nothing | Got::Broken | Got::Refused(_) => {
                    outcome = format!("forged: {got:?}");
                    wrong.insert(LOST);
                }
                _ => _ = wrong.insert(FORGED_ACCEPTED),
            }
        }
        outcome
    }

    fn judge_good(
        &self,
        id: u64,
        journal: &Journal,
        api: &Api,
        sum: &mut Sum,
        wrong: &mut BTreeSet<&'static str>,
    ) -> String {
        for (got, _) in self.gots().skip(1) {
            *sum.copies.entry(got.to_string()).or_default() += 1;
        }
        let answers: Vec<_> = self.gots().filter(|(got, _)| got.is_an_answer()).collect();
        if answers.windows(2).any(|pair| pair[0] != pair[1]) {
            wrong.insert(ANSWERED_TWICE);
        }
        if self.gots().any(|(got, _)| matches!(got, Got::Wrong(_))) {
            wrong.insert(LOST);
        }
        let view = self.token.as_ref().and_then(|token| api.view(token)).unwrap_or_default();
        match answers.first() {
            Some((Got::Deferral, _)) => judge_deferred(id, &view, sum, wrong),
            Some((got, _)) => {
                let seen = texts(&view);
                if seen.len() > 1 || view.follow_ups.iter().any(|message| message.content == TOO_LONG) {
                    wrong.insert(ANSWERED_TWICE);
                }
                got.to_string()
            }
            None => self.judge_refused(journal, wrong),
        }
    }

    /// No request of it had an answer.
    fn judge_refused(&self, journal: &Journal, wrong: &mut BTreeSet<&'static str>) -> String {
        let (from, to) = self.time();
        let mut outcome = "no request ended".to_owned();
        let mut is_explained = false;
        for (got, _) in self.gots() {
            let excuse = match got {
                Got::Refused(why) if why.starts_with("shardless: 502") => Excuse::Handlers,
                Got::Refused(why) if why.starts_with("shardless: 401, clock") => Excuse::Clock(self.daemon),
                Got::Refused(why) if why.starts_with("Nginx") => Excuse::Killing(self.daemon),
                _ => Excuse::None,
            };
            outcome = got.to_string();
            is_explained = excuse != Excuse::None && journal.excuses(excuse, from, to);
            if is_explained {
                break;
            }
        }
        if !is_explained {
            wrong.insert(LOST);
        }
        outcome
    }

    fn history(&self, id: u64, outcome: &str, journal: &Journal, api: &Api) -> String {
        let (from, to) = self.time();
        let mut told = format!("{id}, {:?} {} to daemon {}: {outcome}\n", self.sort, self.name, self.daemon);
        for step in &self.steps {
            let what = match step.what {
                What::Sent => "sent".to_owned(),
                What::Arrived(arrived) => arrived.to_string(),
                What::Got { got, digest } => format!("{got} ({digest:08x})"),
            };
            told += &format!("    {:>8} ms  {what}\n", step.at);
        }
        if let Some(view) = self.token.as_ref().and_then(|token| api.view(token)) {
            told += &format!("    the user sees {:?}\n", texts(&view));
        }
        told + "  meanwhile:\n" + &journal.tell(from, to)
    }
}

fn judge_deferred(id: u64, view: &View, sum: &mut Sum, wrong: &mut BTreeSet<&'static str>) -> String {
    let (seen, answer) = (texts(view), handlers::text(id));
    let of = |text: &str| seen.iter().filter(|seen| **seen == text).count();
    let (answers, fallbacks) = (of(&answer), of(TOO_LONG));
    if answers > 0 && fallbacks > 0 {
        wrong.insert(ANSWERED_TWICE);
    }
    if seen.is_empty() || answers + fallbacks < seen.len() {
        wrong.insert(LOST);
    }
    sum.repeated += seen.len().saturating_sub(1);
    let what = if answers > 0 { "its answer" } else { "the fallback text" };
    format!("deferred and delivered: {what}")
}

/// What the user can read, but for what was there before.
fn texts(view: &View) -> Vec<&str> {
    let original = view
        .original
        .as_ref()
        .filter(|message| message.deleted.is_none() && !message.is_loading() && message.content != BEFORE);
    original.into_iter().chain(&view.follow_ups).map(|message| &*message.content).collect()
}
