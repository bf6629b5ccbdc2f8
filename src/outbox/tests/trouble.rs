//! A thread that panics, and folders that cannot be used for a while.

use super::*;

#[tokio::test]
async fn a_panic_of_the_thread_is_told_and_survived() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), Arc::new(OddClock::default()));
    let kept = Kept::by(Arc::<OddClock>::clone(&clock));
    kept.outbox.keep_in(folder.path().to_owned());
    kept.until(Health::Durable).await;
    clock.panics.store(true, Ordering::SeqCst);
    let ticket = kept.begin(1);
    assert!(!ticket.committed().await);
    assert_eq!(kept.outbox.health(), Health::Degraded("its thread panicked".to_owned()));
    kept.until(Health::Durable).await;
    assert!(ticket.committed().await);
}

#[rstest]
#[case::missing(&|folder: &Path| fs::remove_dir(folder).unwrap())]
#[case::a_file(&|folder: &Path| {
    fs::remove_dir(folder).unwrap();
    fs::write(folder, "").unwrap();
})]
#[case::without_a_file(&|folder: &Path| fs::create_dir(folder.join(store::FILE)).unwrap())]
#[tokio::test]
async fn a_folder_that_cannot_be_used_is_used_once_it_can_be(#[case] harm: &dyn Fn(&Path)) {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("state");
    fs::create_dir(&folder).unwrap();
    harm(&folder);
    let kept = Kept::new();
    kept.outbox.keep_in(folder.clone());
    until(|| matches!(kept.outbox.health(), Health::Degraded(_))).await;
    let mut ticket = kept.begin(1);
    ticket.defer();
    assert!(!ticket.committed().await);
    ticket.answered(message(b"{}".to_vec()));
    fs::remove_file(&folder).or_else(|_| fs::remove_dir_all(&folder)).unwrap_or_default();
    fs::create_dir(&folder).unwrap();
    kept.until(Health::Durable).await;
    kept.outbox.close().await;
    assert!(matches!(Kept::open(&folder).await.due(), Some((1, Task::Answer { .. }))));
}

/// Who writes on into a file that is gone keeps nothing.
#[tokio::test]
async fn a_folder_that_is_swept_is_filled_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut kept = Kept::open(folder.path()).await;
    let (waiting, mut answered) = (kept.begin(1), kept.begin(2));
    answered.defer();
    answered.sent();
    let id = answered.serial;
    answered.answered(message(b"{}".to_vec()));
    let due = kept.dues.next().await.unwrap();
    assert!(waiting.committed().await && kept.outbox.committed(&due).await && due.serial == id);
    assert!(kept.outbox.content(&due).await.is_ok());
    for name in names(folder.path()) {
        fs::remove_file(folder.path().join(name)).unwrap();
    }
    assert!(!kept.begin(3).committed().await);
    kept.until(Health::Durable).await;
    assert!(waiting.committed().await && kept.outbox.committed(&due).await);
    assert!(kept.outbox.content(&due).await.is_err(), "it was nowhere else");
    std::mem::forget(waiting);
    kept.outbox.close().await;
    let mut next = Kept::open(folder.path()).await;
    assert_eq!([next.due(), next.due()], [Some((1, Task::Fallback)), Some((2, Task::Fallback))]);
}
