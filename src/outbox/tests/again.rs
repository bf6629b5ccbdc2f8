//! Interactions that come once more, after a kill.

use std::collections::BTreeSet;

use rstest::rstest;

use super::{Kept, deferred};
use crate::budget::Budget;
use crate::discord::deferral::Deferral;
use crate::outbox::view::look;
use crate::outbox::{Deferred, Health};

const UPDATE: u64 = 1;
const MESSAGE: u64 = 2;
const DEFERRED: u64 = 3;
const OF_ANOTHER: u64 = 4;
const ABSENT: u64 = 5;

/// A proxy sends a request again where the daemon was killed over it, and may be faster than the next one's disk.
#[rstest]
#[case::before_the_folder_is_read(true)]
#[case::after_that(false)]
#[tokio::test]
async fn what_came_once_more_is_followed_by_nothing_of_the_process_before(#[case] is_early: bool) {
    let folder = tempfile::tempdir().unwrap();
    let first = Kept::open(folder.path()).await;
    let tickets = [UPDATE, MESSAGE, DEFERRED, OF_ANOTHER, ABSENT].map(|id| {
        let deferral = if id == MESSAGE { Deferral::Message { private: false } } else { Deferral::Update };
        let deferred = Deferred { deferral, ..deferred(id) };
        first.outbox.begin(deferred, Budget::new(1).try_one().unwrap())
    });
    std::mem::forget(tickets);
    first.outbox.close().await;

    let mut second = Kept::new();
    let open = async |second: &Kept| {
        second.outbox.keep_in(folder.path().to_owned());
        second.until(Health::Durable).await;
    };
    if !is_early {
        open(&second).await;
    }
    second.outbox.answered_at_once(&"mybot".into(), UPDATE);
    // By looking at it Discord tells whether that was seen.
    second.outbox.answered_at_once(&"mybot".into(), MESSAGE);
    second.outbox.answered_at_once(&"another".into(), OF_ANOTHER);
    let mut again = second.begin(DEFERRED);
    again.defer();
    again.sent();
    if is_early {
        open(&second).await;
    }
    let dues = std::iter::from_fn(|| second.dues.0.try_recv().ok());
    let left: BTreeSet<_> = dues.filter(|due| second.outbox.has(due)).map(|due| due.deferred.id).collect();
    assert_eq!(left, BTreeSet::from([MESSAGE, OF_ANOTHER, ABSENT]));
    assert_eq!(second.entries(), 4, "and the one that was deferred again");
}

/// A start after a kill finds nothing to follow.
#[tokio::test]
async fn what_is_erased_is_gone_from_disk_by_then() {
    let folder = tempfile::tempdir().unwrap();
    let kept = Kept::open(folder.path()).await;
    for id in 0..20 {
        let ticket = kept.begin(id);
        assert!(ticket.committed().await);
        assert_eq!(look(folder.path()).unwrap().len(), 1);
        ticket.erase().await;
        assert!(look(folder.path()).unwrap().is_empty());
    }
}
