//! Disks that take some and not others.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::Ordering;

use super::super::*;
use super::{Kept, OddClock, PATIENCE, message, names};

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
