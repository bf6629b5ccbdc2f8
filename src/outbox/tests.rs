//! The outbox as those see it who defer and deliver, with the disk below it.

mod again;
mod disk;
mod model;
mod trouble;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures_util::FutureExt;
use rstest::rstest;

use super::*;
use crate::budget::Budget;
use crate::clock::SystemClock;

const PATIENCE: Duration = Duration::from_secs(20);

/// An outbox, and what it has become due.
struct Kept {
    outbox: Outbox,
    dues: Dues,
    metrics: Arc<Metrics>,
}

impl Kept {
    fn new() -> Self {
        Self::by(Arc::new(SystemClock))
    }

    fn by(clock: Arc<dyn Clock>) -> Self {
        let metrics = Arc::new(Metrics::default());
        let (outbox, dues) = Outbox::new(clock, Arc::clone(&metrics));
        Self { outbox, dues, metrics }
    }

    async fn open(folder: &Path) -> Self {
        let this = Self::new();
        this.outbox.keep_in(folder.to_owned());
        this.until(Health::Durable).await;
        this
    }

    async fn until(&self, health: Health) {
        until(|| self.outbox.health() == health).await;
    }

    fn begin(&self, id: u64) -> Ticket {
        self.outbox.begin(deferred(id), Budget::new(1).try_one().unwrap())
    }

    /// What is due next, at once.
    fn due(&mut self) -> Option<(u64, Task)> {
        self.dues.0.try_recv().ok().map(|due| (due.deferred.id, due.task))
    }

    fn entries(&self) -> i64 {
        self.metrics.outbox_entries.get()
    }
}

#[tokio::test(start_paused = true)]
async fn how_much_there_is_to_do_is_told_with_its_age() {
    let mut kept = Kept::new();
    assert_eq!(kept.outbox.tally(), Tally::default());
    let tickets: Vec<_> = (1..=3).map(|id| kept.begin(id)).collect();
    tokio::time::advance(Duration::from_secs(2)).await;
    tickets[0].failed();
    tokio::time::advance(Duration::from_secs(5)).await;
    tickets[1].failed();
    let tally = kept.outbox.tally();
    assert_eq!((tally.entries, tally.undelivered), (3, 2));
    assert_eq!(tally.oldest_undelivered, Some(Duration::from_secs(5)));
    tickets[0].sent();
    let due = kept.dues.0.try_recv().unwrap();
    kept.outbox.done(&due);
    let tally = kept.outbox.tally();
    assert_eq!((tally.undelivered, tally.oldest_undelivered), (1, Some(Duration::ZERO)));
}

pub(super) fn token(id: u64) -> Token {
    Token::new(&format!("secret-{id}-secret")).unwrap()
}

pub(super) fn deferred(id: u64) -> Deferred {
    let now = Instant::now();
    Deferred {
        app: "mybot".into(),
        id,
        application: u64::MAX - id,
        token: token(id),
        deferral: Deferral::Message { private: true },
        route: id.is_multiple_of(2).then(|| "command play".into()),
        arrived: SystemClock.unix_time(),
        give_up: now + Duration::from_secs(800),
        expires: Deferred::expiry(now),
        asleep: Duration::ZERO,
        fallback: "Später".into(),
    }
}

pub(super) fn message(body: Vec<u8>) -> Message {
    Message {
        way: Way::Replace,
        content_type: "multipart/form-data; boundary=x".to_owned(),
        body: body.into(),
    }
}

/// Whether a text is in any file below a folder.
pub(super) fn is_anywhere(text: &str, folder: &Path) -> bool {
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let mut texts = files.map(|file| fs::read(file).unwrap_or_default());
    texts.any(|bytes| bytes.windows(text.len()).any(|part| part == text.as_bytes()))
}

pub(super) fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[rstest]
#[case::small(10)]
#[case::in_the_row(256 * 1024)]
#[case::in_a_file(256 * 1024 + 1)]
#[tokio::test]
async fn an_answer_outlives_the_process(#[case] size: usize) {
    let folder = tempfile::tempdir().unwrap();
    let body: Vec<u8> = (0..size).map(|at| u8::try_from(at % 251).unwrap()).collect();
    let first = Kept::open(folder.path()).await;
    let mut ticket = first.begin(7);
    ticket.defer();
    assert!(ticket.committed().await);
    ticket.answered(message(body.clone()));
    first.outbox.close().await;

    let mut second = Kept::open(folder.path()).await;
    let due = second.dues.next().await.unwrap();
    let Task::Answer { way: Way::Replace, content_type } = &due.task else { panic!("{due:?}") };
    assert_eq!(content_type, "multipart/form-data; boundary=x");
    let committed = tokio::time::timeout(PATIENCE, second.outbox.committed(&due)).await;
    assert_eq!(committed, Ok(true), "what was read is on disk");
    let read = match second.outbox.content(&due).await.unwrap() {
        Content::Bytes(body) => body.to_vec(),
        Content::File { path, size } => {
            let body = fs::read(path).unwrap();
            assert_eq!(u64::try_from(body.len()).unwrap(), size);
            body
        }
    };
    assert!(read == body);
    second.outbox.done(&due);
    second.outbox.close().await;
    assert_eq!(names(folder.path()), ["outbox.sqlite3"]);
    assert!(!is_anywhere("secret-7", folder.path()));
}

#[tokio::test]
async fn every_field_outlives_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let first = Kept::open(folder.path()).await;
    let before = [deferred(2), Deferred { deferral: Deferral::Update, ..deferred(3) }];
    for deferred in &before {
        let mut ticket = first.outbox.begin(deferred.clone(), Budget::new(1).try_one().unwrap());
        ticket.defer();
        ticket.failed();
    }
    first.outbox.close().await;
    let mut second = Kept::open(folder.path()).await;
    for before in before {
        let due = second.dues.next().await.unwrap();
        let after = due.deferred;
        let whole = |time: Duration| time.as_millis();
        assert_eq!(
            (&after.app, after.id, after.application, &after.token, after.deferral, &after.route),
            (&before.app, before.id, before.application, &before.token, before.deferral, &before.route)
        );
        assert_eq!((whole(after.arrived), &after.fallback), (whole(before.arrived), &before.fallback));
        for (after, before) in [(after.give_up, before.give_up), (after.expires, before.expires)] {
            let off = after.max(before) - after.min(before);
            assert!(off < Duration::from_millis(50), "{off:?}");
        }
    }
}

#[tokio::test]
async fn each_entry_goes_on_as_it_was_left() {
    let folder = tempfile::tempdir().unwrap();
    let first = Kept::open(folder.path()).await;
    let mut tickets: Vec<_> = (0..6).map(|id| first.begin(id)).collect();
    for ticket in tickets.iter_mut().skip(1) {
        ticket.defer();
    }
    let last = tickets.pop().unwrap();
    last.edits_itself();
    tickets.pop().unwrap().failed();
    tickets.pop().unwrap().answered(message(b"{}".to_vec()));
    tickets.pop().unwrap().withdraw();
    // As a crash leaves them: one waits, one is not said to be deferred yet.
    std::mem::forget(tickets);
    first.outbox.close().await;

    let mut second = Kept::open(folder.path()).await;
    let mut dues = BTreeMap::new();
    for _ in 0..5 {
        let due = second.dues.next().await.unwrap();
        assert_eq!(due.at > Instant::now() + Duration::from_secs(60), due.deferred.id == 5);
        dues.insert(due.deferred.id, due.task);
    }
    let answer =
        Task::Answer { way: Way::Replace, content_type: "multipart/form-data; boundary=x".to_owned() };
    let expected = [
        (0, Task::Fallback),
        (1, Task::Fallback),
        (3, answer),
        (4, Task::Fallback),
        (5, Task::FallbackUnlessEdited),
    ];
    assert_eq!(dues, BTreeMap::from(expected));
    assert_eq!((second.due(), second.entries()), (None, 5));
}

/// One that was begun before the folder was held is written with the rest.
#[tokio::test]
async fn what_was_begun_without_a_folder_is_kept_once_there_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let first = Kept::new();
    assert_eq!(first.outbox.health(), Health::Unheld);
    let ticket = first.begin(1);
    assert!(!ticket.committed().await);
    first.outbox.keep_in(folder.path().to_owned());
    first.until(Health::Durable).await;
    assert!(ticket.committed().await);
    std::mem::forget(ticket);
    first.outbox.close().await;
    assert_eq!(Kept::open(folder.path()).await.due(), Some((1, Task::Fallback)));
}

#[tokio::test]
async fn what_goes_before_it_is_written_leaves_no_trace() {
    let folder = tempfile::tempdir().unwrap();
    let outbox = Kept::new();
    outbox.begin(1).withdraw();
    let mut due = outbox.begin(2);
    due.defer();
    due.sent();
    due.failed();
    let mut outbox = outbox;
    let due = outbox.dues.next().await.unwrap();
    outbox.outbox.done(&due);
    assert_eq!(outbox.entries(), 0);
    outbox.outbox.keep_in(folder.path().to_owned());
    outbox.until(Health::Durable).await;
    outbox.outbox.close().await;
    assert!(!is_anywhere("secret-", folder.path()));
}

#[tokio::test]
async fn a_handler_and_a_stop_end_an_entry_once() {
    for round in 0..200 {
        let mut outbox = Kept::new();
        let mut ticket = outbox.begin(round);
        ticket.defer();
        ticket.sent();
        let given_up = outbox.outbox.clone();
        let giving_up = std::thread::spawn(move || given_up.give_all_up());
        ticket.answered(message(b"{}".to_vec()));
        giving_up.join().unwrap();
        let due = outbox.dues.next().await.unwrap();
        assert_eq!((outbox.due(), outbox.entries()), (None, 1));
        let content = outbox.outbox.content(&due).await;
        assert_eq!(content.is_ok(), matches!(due.task, Task::Answer { .. }), "{:?}", due.task);
        assert!(outbox.outbox.all_delivered().now_or_never().is_none());
        outbox.outbox.done(&due);
        outbox.outbox.all_delivered().await;
        outbox.outbox.none_waits().await;
    }
}

/// Something that comes true by itself.
async fn until(mut is_so: impl FnMut() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok());
}

#[tokio::test]
async fn a_token_that_is_over_leaves_the_disk_once_it_is_quiet() {
    let folder = tempfile::tempdir().unwrap();
    let kept = Kept::open(folder.path()).await;
    let (over, stays) = (kept.begin(1), kept.begin(2));
    assert!(over.committed().await && stays.committed().await);
    assert!(is_anywhere("secret-1-", folder.path()));
    over.withdraw();
    until(|| !is_anywhere("secret-1-", folder.path())).await;
    assert!(is_anywhere("secret-2-", folder.path()));
}

#[tokio::test]
async fn a_token_that_is_over_leaves_the_disk_within_a_minute_under_load() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), Arc::new(OddClock::default()));
    let kept = Kept::by(Arc::<OddClock>::clone(&clock));
    kept.outbox.keep_in(folder.path().to_owned());
    kept.until(Health::Durable).await;
    let over = kept.begin(1);
    assert!(over.committed().await);
    over.withdraw();
    for id in 2.. {
        // Never quiet for a second.
        assert!(kept.begin(id).committed().await);
        if id == 50 {
            assert!(is_anywhere("secret-1-", folder.path()));
            clock.ahead.store(60, Ordering::SeqCst);
        }
        if id > 50 && !is_anywhere("secret-1-", folder.path()) {
            break;
        }
        assert!(id < 200);
    }
}

/// The machine's clock, some seconds ahead, or one that panics.
#[derive(Default)]
struct OddClock {
    ahead: AtomicU64,
    panics: AtomicBool,
}

impl Clock for OddClock {
    fn now(&self) -> Instant {
        SystemClock.now() + Duration::from_secs(self.ahead.load(Ordering::SeqCst))
    }

    fn unix_time(&self) -> Duration {
        assert!(!self.panics.swap(false, Ordering::SeqCst), "as the test asked for");
        SystemClock.unix_time()
    }
}

/// The commits in the write-ahead log: each ends with a page that says how many the database has.
fn commits(folder: &Path) -> usize {
    let log = fs::read(folder.join("outbox.sqlite3-wal")).unwrap();
    log[32..].chunks(24 + 4096).filter(|page| page[4..8] != [0; 4]).count()
}

#[tokio::test]
async fn many_that_begin_at_once_share_a_commit() {
    let folder = tempfile::tempdir().unwrap();
    let kept = Kept::open(folder.path()).await;
    let before = commits(folder.path());
    let tickets: Vec<_> = (0..500).map(|id| kept.begin(id)).collect();
    for ticket in &tickets {
        assert!(ticket.committed().await);
    }
    let commits = commits(folder.path()) - before;
    assert!((1..50).contains(&commits), "{commits}");
}

#[tokio::test]
async fn the_store_goes_with_those_who_use_it() {
    let folder = tempfile::tempdir().unwrap();
    let kept = Kept::open(folder.path()).await;
    drop(kept);
    until(|| names(folder.path()) == [store::FILE]).await;
}
