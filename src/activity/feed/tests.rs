use std::net::Ipv4Addr;

use super::*;
use crate::discord::interaction::Interaction;

/// A clock that is set by hand.
struct Hand {
    began: Instant,
    passed: Mutex<Duration>,
    off: Mutex<Duration>,
}

impl Hand {
    fn new() -> Arc<Self> {
        let (passed, off) = (Mutex::default(), Mutex::new(Duration::from_secs(1_763_796_123)));
        Arc::new(Self { began: Instant::now(), passed, off })
    }

    fn advance(&self, time: Duration) {
        *self.passed.lock().unwrap() += time;
    }
}

impl Clock for Hand {
    fn now(&self) -> Instant {
        self.began + *self.passed.lock().unwrap()
    }

    fn unix_time(&self) -> Duration {
        *self.off.lock().unwrap() + *self.passed.lock().unwrap()
    }
}

fn feed(clock: &Arc<Hand>) -> Activity {
    let activity = Activity::new(Arc::<Hand>::clone(clock));
    activity.serve([&"mybot".into()]);
    activity
}

fn answer(activity: &Activity, clock: &Hand, app: &str, id: u64, outcome: Outcome) {
    let body = format!("{{\"id\":\"{id}\",\"type\":2,\"data\":{{\"name\":\"roll\"}}}}");
    let interaction = Interaction::parse(body.as_bytes()).unwrap();
    let times = [clock.now(); 2];
    let record = Record::new(app.into(), &interaction, 0, Ipv4Addr::LOCALHOST.into(), times);
    let end = End { outcome, status: 200, elapsed: Duration::from_millis(5), explanation: None };
    activity.answered(&record, end);
}

fn rows(activity: &Activity, since: u64) -> Vec<Arc<Row>> {
    activity.look(|view| view.rows_since(since)).unwrap()
}

#[test]
fn the_newest_interactions_are_remembered_and_no_more() {
    let clock = Hand::new();
    let activity = feed(&clock);
    for id in 0..1000 {
        answer(&activity, &clock, "mybot", id, Outcome::Answered);
    }
    let ids: Vec<_> = rows(&activity, 0).iter().map(|row| row.record.id).collect();
    assert_eq!(ids, (800..1000).rev().collect::<Vec<_>>());
    let since = activity.look(|view| view.revision()).unwrap();
    assert!(rows(&activity, since).is_empty());
    let totals = activity.look(|view| view.totals("mybot")).unwrap().unwrap();
    assert_eq!(totals.by_outcome().next(), Some((Outcome::Answered, 1000)));
    assert_eq!(totals.last, Some(clock.unix_time() - Duration::from_millis(5)));
}

#[test]
fn what_comes_after_a_deferral_changes_its_row_alone() {
    let clock = Hand::new();
    let activity = feed(&clock);
    answer(&activity, &clock, "mybot", 7, Outcome::Deferred);
    answer(&activity, &clock, "mybot", 8, Outcome::Answered);
    answer(&activity, &clock, "mybot", 7, Outcome::Duplicate);
    let since = activity.look(|view| view.revision()).unwrap();
    let before = rows(&activity, 0);
    clock.advance(Duration::from_secs(4));
    activity.later("mybot", 7, "handler answered");
    activity.later("otherbot", 7, "not this one");
    activity.over("mybot", 7, "late answer delivered");
    let changed = rows(&activity, since);
    let [row] = &changed[..] else { panic!("{changed:?}") };
    assert_eq!((row.record.id, row.end.outcome, row.is_over), (7, Outcome::Deferred, true));
    let later: Vec<_> = row.later.iter().map(|step| (step.at.as_secs(), &*step.what)).collect();
    assert_eq!(later, [(4, "handler answered"), (4, "late answer delivered")]);
    assert!(before.iter().all(|row| row.later.is_empty()), "whoever has it does not see it change");
}

#[test]
fn steps_of_one_interaction_are_bounded_and_its_end_is_among_them() {
    let clock = Hand::new();
    let activity = feed(&clock);
    answer(&activity, &clock, "mybot", 7, Outcome::Deferred);
    for _ in 0..1000 {
        activity.later("mybot", 7, "Discord asks to wait");
    }
    activity.over("mybot", 7, "delivered");
    let row = rows(&activity, 0).remove(0);
    assert_eq!((row.later.len(), &*row.later[STEPS].what), (STEPS + 1, "delivered"));
}

#[test]
fn applications_that_are_not_served_any_more_are_forgotten_and_others_are_not() {
    let clock = Hand::new();
    let activity = feed(&clock);
    answer(&activity, &clock, "mybot", 1, Outcome::Answered);
    answer(&activity, &clock, "stranger", 2, Outcome::Answered);
    let count = |app: &str| {
        let totals = activity.look(|view| view.totals(app)).unwrap();
        totals.map(|totals| totals.by_outcome().map(|(_, count)| count).sum::<u64>())
    };
    assert_eq!((count("mybot"), count("stranger")), (Some(1), None));
    let names: Vec<Arc<str>> = (0..100).map(|index| format!("bot{index:02}").into()).collect();
    activity.serve(names.iter().chain([&"mybot".into()]));
    assert_eq!((count("mybot"), count("bot99")), (Some(1), Some(0)));
    let with_charts = activity.look(|view| view.apps_with_charts().count()).unwrap();
    assert_eq!(with_charts, APPS_WITH_CHARTS);
    activity.serve([&"bot00".into()]);
    assert_eq!(count("mybot"), None);
}

#[test]
fn charts_keep_their_place_in_the_day_unless_the_clock_is_set() {
    let clock = Hand::new();
    let activity = feed(&clock);
    let look = || activity.look(|view| (view.zero, view.now)).unwrap();
    let (zero, first) = look();
    assert_eq!((zero % 300, zero + first), (0, 1_763_796_123));
    clock.advance(Duration::from_millis(700_400));
    assert_eq!(look(), (zero, first + 700));
    *clock.off.lock().unwrap() += Duration::from_secs(3600);
    assert_eq!(look(), (zero + 3600, first + 700));
    for _ in 0..20 {
        clock.advance(Duration::from_millis(150));
        assert_eq!(look().0, zero + 3600, "it does not move again");
    }
}

#[test]
fn nothing_is_remembered_where_there_is_no_page() {
    let activity = Activity::default();
    activity.refused("timestamp", true);
    activity.later("mybot", 7, "handler answered");
    assert!(activity.look(|_| ()).is_none());
}
