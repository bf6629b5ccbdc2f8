//! The store after whatever can happen to its files.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

use rstest::rstest;
use tempfile::TempDir;

use super::*;
use crate::clock::SystemClock;
use crate::discord::late::Way;
use crate::outbox::Deferred;
use crate::outbox::tests::{deferred, is_anywhere, names};

fn moment() -> Moment {
    Moment::of(&SystemClock)
}

/// Opens a store that nothing is wrong with on the way.
fn open(folder: &Path) -> (Store, Found) {
    Store::open(folder, moment()).unwrap()
}

fn row(serial: u64, state: State) -> Row {
    Row { serial, deferred: deferred(serial).into(), state, version: 1 }
}

/// One that was answered, with a body that says by whom.
fn answered(serial: u64, size: usize) -> Row {
    let body = serial.to_string().repeat(size).into();
    row(
        serial,
        State::Answered { way: Way::Edit, content_type: "application/json".to_owned(), body: Some(body) },
    )
}

fn put(serials: impl IntoIterator<Item = u64>) -> Batch {
    let state = |serial: u64| if serial.is_multiple_of(3) { State::Failed } else { State::Waiting };
    let row = |serial| {
        if serial % 3 == 1 { answered(serial, 40) } else { row(serial, state(serial)) }
    };
    Batch { put: serials.into_iter().map(row).collect(), delete: Vec::new() }
}

fn delete(serials: impl IntoIterator<Item = u64>) -> Batch {
    Batch { put: Vec::new(), delete: serials.into_iter().collect() }
}

/// The numbers of entries, each of which is what was written.
fn right(found: &Found) -> BTreeSet<u64> {
    for (serial, read, state) in &found.entries {
        let written = deferred(*serial);
        assert_eq!(
            (&read.app, read.id, read.application, &read.token, &read.route, &read.fallback),
            (&written.app, *serial, written.application, &written.token, &written.route, &written.fallback)
        );
        let is_answered = matches!(state, State::Answered { .. });
        let is_unanswered = found.unanswered.contains(serial);
        assert_eq!(is_answered, serial % 3 == 1 && !is_unanswered, "{serial} {state:?}");
    }
    let serials: BTreeSet<_> = found.entries.iter().map(|(serial, ..)| *serial).collect();
    assert_eq!(serials, found.serials);
    serials
}

/// Thirty entries in the database, and five commits of five more in the log, as a loss of power leaves them.
fn image() -> TempDir {
    let (live, image) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut store, _) = open(live.path());
    store.write(&put(0..30), moment()).unwrap();
    store.tidy(moment()).unwrap();
    for commit in 0..5 {
        store.write(&put(30 + commit * 5..35 + commit * 5), moment()).unwrap();
    }
    for name in ["outbox.sqlite3", "outbox.sqlite3-wal"] {
        fs::copy(live.path().join(name), image.path().join(name)).unwrap();
    }
    image
}

/// The same files, the database and its log first changed.
fn changed(image: &TempDir, change: impl FnOnce(&mut Vec<u8>, &mut Vec<u8>)) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let read = |name| fs::read(image.path().join(name)).unwrap();
    let (mut database, mut log) = (read("outbox.sqlite3"), read("outbox.sqlite3-wal"));
    change(&mut database, &mut log);
    fs::write(folder.path().join("outbox.sqlite3"), database).unwrap();
    fs::write(folder.path().join("outbox.sqlite3-wal"), log).unwrap();
    folder
}

#[test]
fn a_cut_log_loses_the_commits_after_the_cut_alone() {
    let image = image();
    let size = usize::try_from(fs::metadata(image.path().join("outbox.sqlite3-wal")).unwrap().len()).unwrap();
    let mut before = 0;
    let mut counts = BTreeSet::new();
    for cut in (0..size).step_by(997).chain([size]) {
        let folder = changed(&image, |_, log| log.truncate(cut));
        let (_store, found) = open(folder.path());
        let serials = right(&found);
        let count = u64::try_from(serials.len()).unwrap();
        assert_eq!(serials, (0..count).collect(), "cut at {cut}");
        assert!(count >= before && found.damaged.is_empty() && found.unanswered.is_empty(), "cut at {cut}");
        before = count;
        counts.insert(count);
    }
    assert_eq!(counts, [30, 35, 40, 45, 50, 55].into());
}

/// Numbers that look random, and are the same each time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(end).unwrap()).unwrap()
    }
}

#[test]
fn whatever_is_damaged_the_store_opens_with_right_entries_and_works() {
    let image = image();
    let mut numbers = Numbers(7);
    let (mut set_aside, mut damaged, mut unanswered, mut all) = (0, 0, 0, 0);
    for round in 0..300 {
        let folder = changed(&image, |database, log| {
            let file = if round % 3 == 0 { log } else { database };
            match round % 20 {
                19 => file.truncate(numbers.below(file.len())),
                18 => {
                    let from = numbers.below(file.len());
                    file.iter_mut().skip(from).take(700).for_each(|byte| *byte = 0);
                }
                // The first hundred bytes say what the file is.
                flips => {
                    for _ in 0..=flips % 4 {
                        let end = if flips < 6 { 100 } else { file.len() };
                        file[numbers.below(end)] ^= 1 << numbers.below(8);
                    }
                }
            }
        });
        let (mut store, found) = open(folder.path());
        let count = right(&found).len();
        let is_aside =
            names(folder.path()).iter().any(|name| name.contains(".damaged-") || name.contains(".newer-"));
        assert!(!is_aside || count == 0, "what is set aside is not used");
        set_aside += usize::from(is_aside);
        damaged += found.damaged.len();
        unanswered += found.unanswered.len();
        all += usize::from(count == 55);
        store.write(&put(100..110), moment()).unwrap();
        store.close(moment()).unwrap();
        assert_eq!(open(folder.path()).1.serials.len(), count + 10);
    }
    println!("{set_aside} set aside, {damaged} damaged, {unanswered} unanswered, {all} whole");
    assert!(set_aside > 10 && damaged > 10 && unanswered > 5 && all > 20);
}

#[rstest]
#[case::garbage(&|path: &Path| fs::write(path, "not a database, though long enough to be looked at".repeat(99)).unwrap(), "damaged")]
#[case::newer(&|path: &Path| change(path, "PRAGMA user_version = 99"), "newer")]
#[case::of_others(&|path: &Path| change(path, "PRAGMA user_version = 0"), "damaged")]
#[case::with_other_tables(&|path: &Path| change(path, "ALTER TABLE entries RENAME COLUMN token TO secret"), "damaged")]
#[case::that_must_not_be_written(&|path: &Path| {
    let mut bytes = fs::read(path).unwrap();
    bytes[18] = 7;
    fs::write(path, bytes).unwrap();
}, "damaged")]
fn a_file_that_cannot_be_used_is_set_aside(#[case] harm: &dyn Fn(&Path), #[case] word: &str) {
    let folder = tempfile::tempdir().unwrap();
    let mut aside = Vec::new();
    for round in 0..5 {
        let (mut store, found) = open(folder.path());
        assert!(found.entries.is_empty());
        store.write(&put([round]), moment()).unwrap();
        store.close(moment()).unwrap();
        harm(&folder.path().join(FILE));
        let (store, found) = open(folder.path());
        assert!(found.entries.is_empty());
        store.close(moment()).unwrap();
        aside.extend(
            names(folder.path())
                .into_iter()
                .filter(|name| name != FILE && !aside.contains(name))
                .collect::<Vec<_>>(),
        );
    }
    assert!(aside.iter().all(|name| name.starts_with(&format!("{FILE}.{word}-"))), "{aside:?}");
    let mut expected = aside.split_off(2);
    expected.insert(0, FILE.to_owned());
    assert_eq!((aside.len(), names(folder.path())), (2, expected), "the last three are kept");
}

fn change(path: &Path, sql: &str) {
    Connection::open(path).unwrap().execute_batch(sql).unwrap();
}

#[test]
fn a_damaged_row_is_known_for_a_day_and_its_token_is_gone_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = open(folder.path());
    store.write(&put(0..3), moment()).unwrap();
    store.close(moment()).unwrap();
    change(&folder.path().join(FILE), "UPDATE entries SET application = 1 WHERE serial = 2");
    let (mut store, found) = open(folder.path());
    assert_eq!(right(&found), [0, 1].into());
    assert_eq!((found.damaged[0].serial, found.damaged[0].interaction), (2, Some(2)));
    store.tidy(moment()).unwrap();
    assert!(!is_anywhere("secret-2-", folder.path()) && is_anywhere("secret-1-", folder.path()));

    let damaged = |folder: &Path| -> i64 {
        let connection = Connection::open(folder.join(FILE)).unwrap();
        connection.query_row("SELECT count(*) FROM damaged", [], |row| row.get(0)).unwrap()
    };
    let later = |hours: u64| Moment { unix: moment().unix + Duration::from_secs(hours * 3600), ..moment() };
    store.tidy(later(23)).unwrap();
    assert_eq!(damaged(folder.path()), 1);
    store.tidy(later(25)).unwrap();
    assert_eq!(damaged(folder.path()), 0);
}

#[rstest]
#[case::in_the_row(1000, &|folder: &Path| change(&folder.join(FILE), "UPDATE entries SET body = x'00'"))]
#[case::not_in_the_row(1000, &|folder: &Path| change(&folder.join(FILE), "UPDATE entries SET body = NULL"))]
#[case::in_a_file(300_000, &|folder: &Path| {
    let path = bodies::path(folder, 1);
    let mut body = fs::read(&path).unwrap();
    body[200_000] ^= 1;
    fs::write(path, body).unwrap();
})]
#[case::in_no_file(300_000, &|folder: &Path| fs::remove_file(bodies::path(folder, 1)).unwrap())]
fn a_damaged_answer_becomes_the_fallback(#[case] size: usize, #[case] harm: &dyn Fn(&Path)) {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = open(folder.path());
    store.write(&Batch { put: vec![answered(1, size)], delete: Vec::new() }, moment()).unwrap();
    store.close(moment()).unwrap();
    harm(folder.path());
    for is_first in [true, false] {
        let (mut store, found) = open(folder.path());
        assert_eq!(found.unanswered, if is_first { vec![1] } else { vec![] });
        assert!(matches!(found.entries.as_slice(), [(1, Deferred { id: 1, .. }, State::Failed)]));
        if !is_first {
            store.write(&delete([1]), moment()).unwrap();
        }
        store.close(moment()).unwrap();
    }
    assert_eq!(names(folder.path()), [FILE]);
}

#[test]
fn what_has_expired_is_not_taken_up_again() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = open(folder.path());
    store.write(&put(0..4), moment()).unwrap();
    store.close(moment()).unwrap();
    let later = |seconds: u64| Moment { unix: moment().unix + Duration::from_secs(seconds), ..moment() };
    let (store, found) = Store::open(folder.path(), later(14 * 60 + 50)).unwrap();
    assert_eq!((right(&found).len(), found.expired), (4, 0));
    let left = found.entries[0].1.expires.saturating_duration_since(moment().now);
    assert!(left < Duration::from_secs(6), "{left:?}");
    store.close(moment()).unwrap();
    let (store, found) = Store::open(folder.path(), later(14 * 60 + 56)).unwrap();
    assert_eq!((found.entries.len(), found.expired), (0, 4));
    store.close(moment()).unwrap();
    assert!(!is_anywhere("secret-", folder.path()));
}

#[test]
fn a_time_of_day_that_steps_back_lengthens_no_token() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = open(folder.path());
    store.write(&put([0]), moment()).unwrap();
    store.close(moment()).unwrap();
    let before = Moment { unix: moment().unix - Duration::from_secs(86_400), ..moment() };
    let (_store, found) = Store::open(folder.path(), before).unwrap();
    let left = found.entries[0].1.expires.saturating_duration_since(before.now);
    assert!(left <= Duration::from_secs(15 * 60), "{left:?}");
}

#[test]
fn files_are_for_the_owner_alone_and_go_with_their_entry() {
    let folder = tempfile::tempdir().unwrap();
    let mode = |name: &str| fs::metadata(folder.path().join(name)).unwrap().permissions().mode() & 0o777;
    fs::write(folder.path().join(FILE), "").unwrap();
    fs::write(bodies::path(folder.path(), 77), "of nobody").unwrap();
    let (mut store, _) = open(folder.path());
    store.write(&Batch { put: vec![answered(1, 300_000)], delete: Vec::new() }, moment()).unwrap();
    let expected = ["outbox-1.body", "outbox.sqlite3", "outbox.sqlite3-shm", "outbox.sqlite3-wal"];
    assert_eq!(names(folder.path()), expected);
    for name in expected {
        assert_eq!(mode(name), 0o600, "{name}");
    }
    store.write(&delete([1]), moment()).unwrap();
    assert_eq!(names(folder.path()), expected[1..]);
}

/// Long enough that pages are split, merged and freed; no trace of a token may stay in a corner of one.
#[test]
fn no_file_holds_a_token_that_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = open(folder.path());
    let mut numbers = Numbers(11);
    let mut live = BTreeMap::new();
    for round in 0..150_u64 {
        let new: Vec<_> = (0..20).map(|n| round * 20 + n).collect();
        let mut batch = Batch::default();
        for serial in &new {
            batch.put.push(answered(*serial, numbers.below(900)));
            live.insert(*serial, ());
        }
        while live.len() > 60 {
            let serial = *live.keys().nth(numbers.below(live.len())).unwrap();
            live.remove(&serial);
            batch.delete.push(serial);
        }
        batch.put.retain(|row| live.contains_key(&row.serial));
        store.write(&batch, moment()).unwrap();
        if round % 50 != 49 {
            continue;
        }
        store.tidy(moment()).unwrap();
        let files: Vec<_> =
            names(folder.path()).iter().map(|name| fs::read(folder.path().join(name)).unwrap()).collect();
        let text = String::from_utf8_lossy(&files.concat()).into_owned();
        let found: BTreeSet<u64> =
            text.split("secret-").filter_map(|rest| rest.split_once('-')?.0.parse().ok()).collect();
        assert_eq!(found, live.keys().copied().collect(), "after {round} rounds");
    }
}

#[test]
fn an_answer_that_cannot_be_written_is_left_out_of_its_batch() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = open(folder.path());
    let batch =
        Batch { put: vec![answered(1, 300_000), answered(4, 300_000), answered(7, 40)], delete: Vec::new() };
    // As on a full disk.
    std::os::unix::fs::symlink("/dev/full", bodies::path(folder.path(), 1)).unwrap();
    let left_out = store.write(&batch, moment()).unwrap();
    assert_eq!(left_out.into_keys().collect::<Vec<_>>(), [1]);
    assert_eq!(names(folder.path()).iter().filter(|name| name.ends_with(".body")).count(), 1);
    drop(store);
    let (_store, found) = open(folder.path());
    let is_answered = |state: &State| matches!(state, State::Answered { .. });
    let states = found.entries.iter().map(|(serial, _, state)| (*serial, is_answered(state)));
    assert_eq!(states.collect::<BTreeMap<_, _>>(), BTreeMap::from([(1, false), (4, true), (7, true)]));
    assert!(found.unanswered.is_empty());
}
