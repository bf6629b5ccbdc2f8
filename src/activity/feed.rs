//! What the status page shows of interactions. Bounded, whatever comes; nothing is kept where there is no page.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::charts::{Charts, Column, LENGTHS, Point};
use super::recent::Recent;
use super::{End, Outcome, Record};
use crate::clock::Clock;

/// Interactions that are remembered.
const ROWS: usize = 200;

/// Later steps of one interaction that are remembered: whatever Discord makes of a late answer, it ends.
const STEPS: usize = 24;

/// Seconds that count as lately.
const LATELY: u64 = 300;

/// Seconds by which the time of day may be off before it is taken for another.
const CLOCK_IS_THE_SAME: u64 = 2;

/// Applications with charts of their own, the first by name; together with those of all they take at most 7 MiB.
const APPS_WITH_CHARTS: usize = 24;

/// What happens in the daemon, for the status page. Cheap to copy: all copies are the same one.
#[derive(Clone, Default)]
pub struct Activity(Option<Arc<Feed>>);

struct Feed {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

struct State {
    began: Began,
    all: Charts,
    apps: HashMap<Arc<str>, OfApp>,
    refusals: BTreeMap<&'static str, u64>,
    faults: BTreeMap<&'static str, u64>,
    /// Ends of deferred interactions.
    ends: BTreeMap<&'static str, u64>,
    /// Requests to Discord's REST API.
    requests: BTreeMap<&'static str, u64>,
    /// Those of them without an answer to go by, since the last one that had one; and the second of the last one of all.
    in_vain: (u32, Option<u64>),
    /// Refusals and faults of the last minutes.
    recent: Recent,
    /// The newest last.
    rows: VecDeque<Arc<Row>>,
    /// Counts what is remembered, and each change of it.
    revision: u64,
}

/// When charts began: where their slots lie, whatever the time of day does.
struct Began {
    at: Instant,
    /// The second that they count from, by the time of day: a round one, until the clock is set.
    round: u64,
    /// What the time of day had above that.
    above: Duration,
}

#[derive(Default)]
struct OfApp {
    totals: Totals,
    charts: Option<Charts>,
}

/// Interactions of an application since the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    counts: [u64; Outcome::ALL.len()],
    /// When the last one came, since 1970.
    pub last: Option<Duration>,
}

impl Totals {
    /// How many ended how.
    pub fn by_outcome(&self) -> impl Iterator<Item = (Outcome, u64)> {
        Outcome::ALL.into_iter().zip(self.counts)
    }
}

/// An interaction that is remembered.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its number, from the start on.
    pub key: u64,
    /// When it last changed, in numbers of [`View::revision`].
    pub revision: u64,
    /// The time of day when its first byte came, since 1970.
    pub arrived: Duration,
    /// What it is.
    pub record: Record,
    /// How Discord was answered.
    pub end: End,
    /// What came after that.
    pub later: Vec<Step>,
    /// Whether nothing more is to come.
    pub is_over: bool,
}

/// Something that happened with an interaction.
#[derive(Clone, Debug)]
pub struct Step {
    /// Since its first byte.
    pub at: Duration,
    /// What, for people.
    pub what: Cow<'static, str>,
}

impl Activity {
    /// Remembers from now on.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let state = State {
            began: Began::new(&*clock),
            all: Charts::default(),
            apps: HashMap::new(),
            refusals: BTreeMap::new(),
            faults: BTreeMap::new(),
            ends: BTreeMap::new(),
            requests: BTreeMap::new(),
            in_vain: (0, None),
            recent: Recent::default(),
            rows: VecDeque::with_capacity(ROWS),
            revision: 0,
        };
        Self(Some(Arc::new(Feed { clock, state: Mutex::new(state) })))
    }

    /// Forgets what it knows of applications that are not among these, which are all that are served from now on.
    pub fn serve<'a>(&self, names: impl IntoIterator<Item = &'a Arc<str>>) {
        let Some(feed) = &self.0 else { return };
        let mut state = feed.lock();
        let mut names: Vec<_> = names.into_iter().cloned().collect();
        names.sort();
        let mut before = std::mem::take(&mut state.apps);
        let mut carry_over = |(index, name): (usize, Arc<str>)| {
            let OfApp { totals, charts } = before.remove(&name).unwrap_or_default();
            let charts = (index < APPS_WITH_CHARTS).then(|| charts.unwrap_or_default());
            (name, OfApp { totals, charts })
        };
        state.apps = names.into_iter().enumerate().map(&mut carry_over).collect();
    }

    /// Discord was answered.
    pub fn answered(&self, record: &Record, end: End) {
        let Some(feed) = &self.0 else { return };
        let arrived = feed.clock.unix_time().saturating_sub(end.elapsed);
        let waited = end.outcome.is_an_answer().then_some(end.elapsed);
        let point = Point { column: Column::Outcome(end.outcome), waited };
        let is_over = end.outcome != Outcome::Deferred;
        let record = record.clone();
        let mut state = feed.lock();
        let second = state.began.second(feed.clock.now());
        state.all.count(second, point);
        if let Some(app) = state.apps.get_mut(&record.app) {
            if let Some(count) = app.totals.counts.get_mut(end.outcome as usize) {
                *count += 1;
            }
            app.totals.last = Some(arrived);
            if let Some(charts) = &mut app.charts {
                charts.count(second, point);
            }
        }
        state.revision += 1;
        let (key, later) = (state.revision, Vec::new());
        let row = Row { key, revision: key, arrived, record, end, later, is_over };
        let oldest = (state.rows.len() >= ROWS).then(|| state.rows.pop_front());
        state.rows.push_back(Arc::new(row));
        drop(state);
        drop(oldest);
    }

    /// Something happened with an interaction after Discord was answered.
    pub fn later(&self, app: &str, id: u64, what: impl Into<Cow<'static, str>>) {
        self.add(app, id, || what.into(), false);
    }

    /// The last thing happened with an interaction that was deferred.
    pub fn over(&self, app: &str, id: u64, what: impl Into<Cow<'static, str>>) {
        self.add(app, id, || what.into(), true);
    }

    fn add(&self, app: &str, id: u64, what: impl FnOnce() -> Cow<'static, str>, is_over: bool) {
        let Some(feed) = &self.0 else { return };
        let now = feed.clock.now();
        let state = &mut *feed.lock();
        let revision = state.revision + 1;
        let is_it = |row: &&mut Arc<Row>| {
            row.record.id == id && *row.record.app == *app && row.end.outcome != Outcome::Duplicate
        };
        let Some(row) = state.rows.iter_mut().rev().find(is_it) else { return };
        // Whoever reads it has a copy of their own from now on.
        let row = Arc::make_mut(row);
        if row.later.len() < STEPS || is_over {
            let at = now.saturating_duration_since(row.record.received);
            row.later.push(Step { at, what: what() });
        }
        row.is_over |= is_over;
        row.revision = revision;
        state.revision = revision;
    }

    /// A request was refused, for a reason that is a word of ours.
    pub fn refused(&self, reason: &'static str, is_forged: bool) {
        let Some(feed) = &self.0 else { return };
        let column = if is_forged { Column::Forged } else { Column::Refused };
        let mut state = feed.lock();
        let second = state.began.second(feed.clock.now());
        state.all.count(second, Point { column, waited: None });
        *state.refusals.entry(reason).or_default() += 1;
        state.recent.count(second, reason);
    }

    /// A connection ended by its peer's fault.
    pub fn connection_ended(&self, reason: &'static str) {
        let Some(feed) = &self.0 else { return };
        let mut state = feed.lock();
        let second = state.began.second(feed.clock.now());
        *state.faults.entry(reason).or_default() += 1;
        state.recent.count(second, reason);
    }

    /// A deferred interaction came to its end.
    pub fn delivered(&self, result: &'static str) {
        let Some(feed) = &self.0 else { return };
        *feed.lock().ends.entry(result).or_default() += 1;
    }

    /// A request to Discord's REST API was made; its answer had that status, or was nothing to go by.
    pub fn requested(&self, status: &'static str, is_in_vain: bool) {
        let Some(feed) = &self.0 else { return };
        let mut state = feed.lock();
        let second = state.began.second(feed.clock.now());
        let in_vain = if is_in_vain { state.in_vain.0.saturating_add(1) } else { 0 };
        state.in_vain = (in_vain, Some(second));
        *state.requests.entry(status).or_default() += 1;
    }

    /// Looks at what is remembered; `None` where nothing is.
    pub fn look<T>(&self, look: impl FnOnce(View<'_>) -> T) -> Option<T> {
        let feed = self.0.as_ref()?;
        let (now, unix_time) = (feed.clock.now(), feed.clock.unix_time());
        let mut state = feed.lock();
        let second = state.began.second(now);
        let zero = state.began.zero(second, unix_time);
        Some(look(View { now: second, zero, unix_time, state: &state }))
    }
}

/// What is remembered, at one moment. Whoever looks holds everybody up: to be done with soon.
pub struct View<'a> {
    /// The second that charts count for now.
    pub now: u64,
    /// When they count from, in seconds since 1970.
    pub zero: u64,
    /// The time of day, since 1970.
    pub unix_time: Duration,
    state: &'a State,
}

impl View<'_> {
    /// Of one application, if it is served.
    pub fn totals(&self, app: &str) -> Option<Totals> {
        self.state.apps.get(app).map(|app| app.totals)
    }

    /// Of one application, if it has charts, or of all together.
    pub fn charts(&self, app: Option<&str>) -> Option<&Charts> {
        match app {
            None => Some(&self.state.all),
            Some(app) => self.state.apps.get(app)?.charts.as_ref(),
        }
    }

    /// All applications that have charts.
    pub fn apps_with_charts(&self) -> impl Iterator<Item = (&str, &Charts)> {
        self.state.apps.iter().filter_map(|(name, app)| Some((&**name, app.charts.as_ref()?)))
    }

    /// Requests that were refused, by reason.
    pub fn refusals(&self) -> &BTreeMap<&'static str, u64> {
        &self.state.refusals
    }

    /// Connections that ended by their peer's fault, by reason.
    pub fn faults(&self) -> &BTreeMap<&'static str, u64> {
        &self.state.faults
    }

    /// Ends of deferred interactions.
    pub fn ends(&self) -> &BTreeMap<&'static str, u64> {
        &self.state.ends
    }

    /// Requests to Discord's REST API, by the answer's status.
    pub fn requests(&self) -> &BTreeMap<&'static str, u64> {
        &self.state.requests
    }

    /// Requests to Discord's REST API without an answer to go by, since the last one that had one. `None` where none
    /// was made in the last five minutes.
    pub fn in_vain_lately(&self) -> Option<u32> {
        let (in_vain, last) = self.state.in_vain;
        last.filter(|last| last + LATELY > self.now).map(|_| in_vain)
    }

    /// Requests that were refused and connections that ended by their peer's fault in the last five minutes, by reason.
    pub fn recently_turned_away(&self) -> BTreeMap<&'static str, u64> {
        self.state.recent.seen_from(self.now)
    }

    /// Counts what is remembered, and each change of it.
    pub fn revision(&self) -> u64 {
        self.state.revision
    }

    /// Interactions that have come, or have changed, since that revision: the newest first.
    pub fn rows_since(&self, revision: u64) -> Vec<Arc<Row>> {
        self.state.rows.iter().rev().filter(|row| row.revision > revision).cloned().collect()
    }
}

impl Began {
    fn new(clock: &dyn Clock) -> Self {
        // So that slots begin on the round minutes of the day.
        let (unix_time, round) = (clock.unix_time(), LENGTHS.map(|(_, step, _)| step).into_iter().max());
        let second = unix_time.as_secs();
        let above = second % round.unwrap_or(1);
        let round = second - above;
        Self { at: clock.now(), round, above: unix_time.saturating_sub(Duration::from_secs(round)) }
    }

    fn second(&self, now: Instant) -> u64 {
        (now.saturating_duration_since(self.at) + self.above).as_secs()
    }

    /// When seconds are counted from, by a clock that may have been set since.
    fn zero(&mut self, second: u64, unix_time: Duration) -> u64 {
        let by_now = unix_time.as_secs().saturating_sub(second);
        if by_now.abs_diff(self.round) > CLOCK_IS_THE_SAME {
            self.round = by_now;
        }
        self.round
    }
}

impl Feed {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
