use super::*;

const WINDOW: Duration = Duration::from_secs(300);
const SIGNED: u64 = 1_700_000_000;

/// A guard, with the two clocks of the machine in the test's hand.
struct Machine {
    guard: ReplayGuard,
    metrics: Arc<Metrics>,
    unix_time: Duration,
    now: Instant,
    buffered: usize,
}

impl Machine {
    fn new() -> Self {
        let metrics = Arc::new(Metrics::default());
        let (guard, buffered) = (ReplayGuard::new(Arc::clone(&metrics)), 64 * 1024 * 1024);
        Self { guard, metrics, unix_time: Duration::from_secs(SIGNED), now: Instant::now(), buffered }
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.unix_time += Duration::from_secs(seconds);
    }

    fn admit(&self, id: u64, timestamp: u64) -> &'static str {
        self.admit_to(1, id, timestamp)
    }

    fn admit_to(&self, application: u64, id: u64, timestamp: u64) -> &'static str {
        let key = InteractionKey { application, id };
        match self.guard.admit(key, timestamp, WINDOW, self.unix_time, self.now) {
            Admission::First(_) => "first",
            Admission::Again(_) => "again",
            Admission::Spent => "spent",
        }
    }

    fn settle(&self, id: u64, size: usize) {
        self.guard.settled(key(id), size, self.buffered, self.now);
    }

    fn sizes(&self) -> (usize, usize, usize) {
        let memory = self.guard.lock();
        let seen = || memory.applications.values();
        assert_eq!(memory.ids, seen().map(|seen| seen.calls.len()).sum::<usize>());
        assert!(seen().all(|seen| seen.shed.iter().all(|id| seen.calls.contains_key(id))));
        let by_second = seen().flat_map(|seen| seen.seconds.values()).map(|second| second.ids.len()).sum();
        (memory.ids, by_second, memory.answer_bytes)
    }
}

fn key(id: u64) -> InteractionKey {
    InteractionKey { application: 1, id }
}

#[test]
fn the_first_is_forwarded_then_its_answer_is_shared_then_it_is_spent() {
    let mut machine = Machine::new();
    assert_eq!(machine.admit(1, SIGNED), "first");
    assert_eq!(machine.admit(1, SIGNED), "again");
    machine.pass(20);
    assert_eq!(machine.admit(1, SIGNED), "again", "a call in flight is waited for, however long");
    machine.settle(1, 100);
    machine.pass(14);
    assert_eq!(machine.admit(1, SIGNED), "again");
    machine.pass(1);
    assert_eq!(machine.admit(1, SIGNED), "spent");
}

#[test]
fn a_timestamp_four_minutes_ahead_is_remembered_until_its_own_window_ends() {
    let mut machine = Machine::new();
    let ahead = SIGNED + 240;
    assert_eq!(machine.admit(1, ahead), "first");
    machine.settle(1, 100);
    machine.pass(480);
    assert_eq!(machine.admit(1, ahead), "spent");
    machine.pass(60);
    machine.guard.tidy(machine.now);
    assert_eq!(machine.sizes().0, 1, "the window's last second is not over");
    machine.pass(1);
    machine.guard.tidy(machine.now);
    assert_eq!(machine.sizes(), (0, 0, 0));
}

#[test]
fn a_clock_that_steps_back_reopens_nothing() {
    let mut machine = Machine::new();
    assert_eq!(machine.admit(1, SIGNED), "first");
    machine.settle(1, 100);
    machine.pass(400);
    machine.unix_time = Duration::from_secs(SIGNED);
    assert_eq!(machine.admit(1, SIGNED), "spent", "its id is forgotten, but its second is closed for good");
    assert_eq!(machine.admit(2, SIGNED + 1), "first");
}

#[test]
fn a_clock_that_jumps_ahead_and_back_forgets_nothing() {
    let mut machine = Machine::new();
    assert_eq!(machine.admit(1, SIGNED), "first");
    machine.settle(1, 100);
    machine.unix_time += Duration::from_secs(3600);
    machine.guard.tidy(machine.now);
    machine.unix_time -= Duration::from_secs(3600);
    machine.pass(100);
    assert_eq!(machine.admit(1, SIGNED), "spent");
}

#[test]
fn applications_do_not_share_ids() {
    let machine = Machine::new();
    assert_eq!(machine.admit(1, SIGNED), "first");
    assert_eq!(machine.admit_to(2, 1, SIGNED), "first");
}

#[test]
fn one_that_was_not_forwarded_may_come_again() {
    let machine = Machine::new();
    assert_eq!(machine.admit(1, SIGNED), "first");
    machine.guard.shed(key(1));
    assert_eq!(machine.admit(1, SIGNED), "first");
    assert_eq!(machine.admit(1, SIGNED), "again");
    assert_eq!(machine.sizes().1, 1, "it is listed once");
}

#[test]
fn an_answer_that_is_not_to_be_given_again_is_not() {
    let machine = Machine::new();
    assert_eq!(machine.admit(1, SIGNED), "first");
    machine.settle(1, 100);
    machine.guard.spend(key(1));
    assert_eq!(machine.admit(1, SIGNED), "spent");
}

#[test]
fn answers_that_just_fit_are_kept() {
    let machine = Machine { buffered: PART_OF_BUFFERED * 2 * (100 + ANSWER_OVERHEAD), ..Machine::new() };
    for id in 0..3 {
        assert_eq!(machine.admit(id, SIGNED), "first");
        machine.settle(id, 100);
    }
    assert_eq!([0, 1, 2].map(|id| machine.admit(id, SIGNED)), ["spent", "again", "again"]);
}

#[test]
fn a_large_answer_is_not_kept() {
    let machine = Machine::new();
    assert_eq!(machine.admit(1, SIGNED), "first");
    machine.settle(1, MAX_ANSWER + 1);
    assert_eq!(machine.admit(1, SIGNED), "spent");
    assert_eq!(machine.sizes().2, 0);
}

#[test]
fn answers_are_bounded_in_all_and_gone_after_their_time() {
    let mut machine = Machine::new();
    for id in 0..1000 {
        assert_eq!(machine.admit(id, SIGNED), "first");
        machine.settle(id, MAX_ANSWER);
        assert!(machine.sizes().2 <= MAX_ANSWERS);
    }
    assert_eq!(machine.admit(0, SIGNED), "spent", "the oldest made room");
    let kept = (0..1000).filter(|id| machine.admit(*id, SIGNED) == "again");
    assert_eq!(kept.collect::<Vec<_>>(), (746..1000).collect::<Vec<_>>(), "as many as fit in 16 MiB");
    machine.pass(15);
    machine.guard.tidy(machine.now);
    assert_eq!(machine.sizes(), (1000, 1000, 0));
}

#[test]
fn answers_take_only_their_part_of_what_may_be_held() {
    let machine = Machine { buffered: 400_000, ..Machine::new() };
    for id in 0..100 {
        assert_eq!(machine.admit(id, SIGNED), "first");
        machine.settle(id, 20_000);
        assert!(machine.sizes().2 <= 100_000);
    }
    assert_eq!((machine.admit(99, SIGNED), machine.admit(90, SIGNED)), ("again", "spent"));
}

#[test]
fn a_full_guard_forgets_the_oldest_and_counts_it() {
    let machine = Machine::new();
    for id in 0..MAX_IDS as u64 + 10 {
        assert_eq!(machine.admit(id, SIGNED + id / 1000), "first");
    }
    let (ids, by_second, _) = machine.sizes();
    assert_eq!((ids, by_second), (MAX_IDS, MAX_IDS));
    assert_eq!(machine.metrics.replay_forgotten.get(), 10);
    assert_eq!(machine.admit(20, SIGNED), "again", "kept");
    assert_eq!(machine.admit(0, SIGNED), "spent", "forgotten, but its second is closed");
    assert_eq!(machine.admit(MAX_IDS as u64 * 2, SIGNED), "spent", "whether it came before, nobody knows");
    assert_eq!(machine.admit(MAX_IDS as u64 * 2, SIGNED + 1), "first");
}

#[test]
fn an_application_that_fills_the_guard_forgets_its_own() {
    let machine = Machine::new();
    for id in 0..1000 {
        assert_eq!(machine.admit_to(2, id, SIGNED), "first");
    }
    // Its timestamps are those of the future, so that all others are older.
    for id in 0..MAX_IDS as u64 {
        assert_eq!(machine.admit_to(1, id, SIGNED + 200 + id / 10_000), "first");
    }
    assert_eq!(machine.sizes().0, MAX_IDS);
    assert_eq!(machine.metrics.replay_forgotten.get(), 1000);
    assert_eq!(machine.admit_to(1, 5, SIGNED + 200), "spent");
    for id in 0..1000 {
        assert_eq!(machine.admit_to(2, id, SIGNED), "again");
    }
    assert_eq!(machine.admit_to(2, 1000, SIGNED), "first", "the other one goes on");
    assert_eq!(machine.sizes().0, MAX_IDS);
}

/// What comes while it is full is as bounded as before: ids, answers, and duplicates that wait.
#[test]
fn a_full_guard_goes_on_through_answers_duplicates_and_clock_jumps() {
    let mut machine = Machine { buffered: 4_000_000, ..Machine::new() };
    let per_second = 2_000;
    for id in 0..2 * MAX_IDS as u64 {
        let timestamp = SIGNED + id / per_second;
        if id % per_second == 0 {
            machine.pass(1);
        }
        match id % 50_000 {
            10_000 => machine.unix_time -= Duration::from_secs(100),
            20_000 => machine.unix_time += Duration::from_secs(200),
            30_000 => machine.unix_time -= Duration::from_secs(100),
            _ => {}
        }
        assert_eq!(machine.admit(id, timestamp), "first");
        assert_eq!(machine.admit(id, timestamp), "again");
        if id % 3 > 0 {
            machine.settle(id, 300);
        }
    }
    let (ids, by_second, answers) = machine.sizes();
    assert!(ids <= MAX_IDS && by_second == ids && answers <= 1_000_000, "{:?}", machine.sizes());
    for id in (0..2 * MAX_IDS as u64).step_by(997) {
        assert_ne!(machine.admit(id, SIGNED + id / per_second), "first", "{id}");
    }
    machine.pass(700);
    machine.guard.tidy(machine.now);
    assert_eq!(machine.sizes(), (0, 0, 0));
}

/// Each id takes as little as can be, and there may be 262,144 of them.
#[test]
fn what_is_known_of_an_interaction_takes_eight_bytes() {
    assert_eq!(size_of::<Known>(), 8);
}

#[test]
fn ids_whose_time_is_over_make_room_before_any_is_forgotten() {
    let mut machine = Machine::new();
    for id in 0..MAX_IDS as u64 {
        assert_eq!(machine.admit_to(2, id, SIGNED), "first");
    }
    machine.pass(WINDOW.as_secs() + 1);
    assert_eq!(machine.admit(1, SIGNED + 300), "first");
    assert_eq!(machine.metrics.replay_forgotten.get(), 0);
    assert_eq!(machine.sizes().0, 1);
}

/// A full guard may forget the id that it has just admitted, if it is an old one.
#[test]
fn what_was_forgotten_before_it_was_shed_leaves_nothing_behind() {
    let machine = Machine::new();
    for id in 1..=MAX_IDS as u64 {
        assert_eq!(machine.admit(id, SIGNED + 1), "first");
    }
    assert_eq!(machine.admit(0, SIGNED), "first");
    machine.guard.shed(key(0));
    assert_eq!(machine.sizes().0, MAX_IDS);
    assert_eq!(machine.admit(0, SIGNED), "spent", "its second is closed");
}
