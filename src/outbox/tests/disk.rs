//! Disks that do not take everything, or not in time.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::Ordering;

use futures_util::FutureExt;

use super::super::ledger::Next;
use super::super::*;
use super::{Kept, OddClock, PATIENCE, message, names, until};

const LARGE: usize = 300_000;

/// Whether it is committed, which is known soon.
async fn is_committed(ticket: &Ticket) -> bool {
    tokio::time::timeout(PATIENCE, ticket.committed()).await.unwrap()
}

#[tokio::test]
async fn an_answer_that_does_not_fit_takes_nothing_from_the_others() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), Arc::new(OddClock::default()));
    let mut kept = Kept::by(Arc::<OddClock>::clone(&clock));
    kept.outbox.keep_in(folder.path().to_owned());
    kept.until(Health::Durable).await;
    let [mut large, mut small] = [kept.begin(1), kept.begin(2)];
    for ticket in [&mut large, &mut small] {
        assert!(is_committed(ticket).await);
        ticket.defer();
        ticket.sent();
    }
    let full = folder.path().join(format!("outbox-{}.body", large.serial));
    symlink("/dev/full", &full).unwrap();
    large.answered(message(vec![b'x'; LARGE]));
    small.answered(message(vec![b'x'; 10]));
    assert!(is_committed(&small).await && !is_committed(&large).await);
    assert_eq!(kept.outbox.health(), Health::Durable);
    assert!(fs::symlink_metadata(&full).is_err());
    let due = kept.dues.next().await.unwrap();
    assert_eq!(due.deferred.id, 1);
    assert!(matches!(kept.outbox.content(&due).await.unwrap(), Content::Bytes(body) if body.len() == LARGE));

    let crashed = tempfile::tempdir().unwrap();
    for name in names(folder.path()).into_iter().filter(|name| !name.ends_with("-shm")) {
        fs::copy(folder.path().join(&name), crashed.path().join(&name)).unwrap();
    }
    let mut next = Kept::open(crashed.path()).await;
    assert_eq!(next.due(), Some((1, Task::Fallback)));
    assert!(matches!(next.due(), Some((2, Task::Answer { .. }))));

    // Opened anew, the store has room for it.
    assert!(!full.exists());
    clock.panics.store(true, Ordering::SeqCst);
    assert!(!is_committed(&kept.begin(3)).await);
    kept.until(Health::Durable).await;
    assert!(is_committed(&large).await);
    assert!(matches!(kept.outbox.content(&due).await.unwrap(), Content::File { .. }));
}

#[tokio::test]
async fn a_slow_disk_is_not_waited_for_and_told_once() {
    let clock = Arc::new(OddClock::default());
    let kept = Kept::by(Arc::<OddClock>::clone(&clock));
    let (ledger, degraded) = (&kept.outbox.ledger, || kept.metrics.outbox_degraded.get());
    ledger.opened(PathBuf::new(), &BTreeSet::new());
    let ticket = kept.begin(1);
    let Next::Write(batch) = ledger.next(PATIENCE) else { panic!("nothing to write") };
    assert!(ticket.committed().now_or_never().is_none(), "a young write is waited for");
    assert_eq!((ledger.news_of_slowness(), degraded()), (None, 0));

    clock.ahead.store(2, Ordering::SeqCst);
    assert_eq!(ticket.committed().now_or_never(), Some(false));
    assert_eq!(kept.begin(2).committed().now_or_never(), Some(false));
    assert!(matches!(kept.outbox.health(), Health::Degraded(_)));
    assert_eq!((ledger.news_of_slowness(), ledger.news_of_slowness(), degraded()), (Some(true), None, 1));

    ledger.wrote(&batch, |_| false);
    assert_eq!(ticket.committed().now_or_never(), Some(true));
    assert_eq!((ledger.news_of_slowness(), degraded()), (None, 1), "it was slow a moment ago");
    assert_eq!((ledger.news_of_slowness(), degraded()), (Some(false), 0));
}

#[tokio::test]
async fn a_disk_that_fails_shows_in_the_metrics() {
    let place = tempfile::tempdir().unwrap();
    let (folder, kept) = (place.path().join("state"), Kept::new());
    kept.outbox.keep_in(folder.clone());
    until(|| kept.metrics.outbox_degraded.get() == 1).await;
    fs::create_dir(&folder).unwrap();
    kept.until(Health::Durable).await;
    assert_eq!(kept.metrics.outbox_degraded.get(), 0);
    kept.outbox.cannot_be_kept("it is gone".to_owned());
    assert_eq!(kept.metrics.outbox_degraded.get(), 1);
}
