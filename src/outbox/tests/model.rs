//! Whatever is said of entries, a restart finds them as they should be: the outbox beside a plain map.

use std::collections::BTreeMap;
use std::fs;

use proptest::prelude::*;

use super::super::*;
use super::{Kept, message, names};

/// What may be said, to entries by number.
#[derive(Clone, Debug)]
enum Said {
    Begin(u64),
    Withdraw(u64),
    Answered(u64, usize),
    Failed(u64),
    EditsItself(u64),
    Done(u64),
    Restart { crash: bool },
}

fn said() -> impl Strategy<Value = Said> {
    let id = 0..6_u64;
    prop_oneof![
        6 => id.clone().prop_map(Said::Begin),
        1 => id.clone().prop_map(Said::Withdraw),
        2 => (id.clone(), prop_oneof![0..2000_usize, Just(300_000)]).prop_map(|(id, size)| Said::Answered(id, size)),
        1 => id.clone().prop_map(Said::Failed),
        1 => id.clone().prop_map(Said::EditsItself),
        3 => id.prop_map(Said::Done),
        2 => any::<bool>().prop_map(|crash| Said::Restart { crash }),
    ]
}

/// The outbox beside what it should hold: by number, the size of an answer, or a word.
#[derive(Default)]
struct Model {
    tickets: BTreeMap<u64, Ticket>,
    dues: BTreeMap<u64, (Due, Option<usize>)>,
}

impl Model {
    async fn say(&mut self, kept: &mut Kept, said: Said) {
        let size = if let Said::Answered(_, size) = said { Some(size) } else { None };
        match said {
            Said::Begin(id) if !self.tickets.contains_key(&id) && !self.dues.contains_key(&id) => {
                let mut ticket = kept.begin(id);
                ticket.defer();
                ticket.sent();
                self.tickets.insert(id, ticket);
            }
            Said::Withdraw(id) => drop(self.tickets.remove(&id).map(|ticket| ticket.withdraw())),
            Said::Done(id) => drop(self.dues.remove(&id).map(|(due, _)| kept.outbox.done(&due))),
            Said::Answered(id, _) | Said::Failed(id) | Said::EditsItself(id) => {
                let Some(ticket) = self.tickets.remove(&id) else { return };
                match &said {
                    Said::Answered(_, size) => ticket.answered(message(vec![b'x'; *size])),
                    Said::Failed(_) => ticket.failed(),
                    _ => ticket.edits_itself(),
                }
                let due = kept.dues.next().await.unwrap();
                assert_eq!(due.deferred.id, id);
                self.dues.insert(id, (due, size));
            }
            Said::Begin(_) | Said::Restart { .. } => {}
        }
    }

    /// Everything is as it should be in the outbox of the next process.
    async fn restarts(&mut self, kept: &mut Kept) {
        let mut before: BTreeMap<_, _> = std::mem::take(&mut self.dues)
            .into_iter()
            .map(|(id, (due, size))| (id, (due.task, size)))
            .collect();
        for (id, ticket) in std::mem::take(&mut self.tickets) {
            std::mem::forget(ticket);
            before.insert(id, (Task::Fallback, None));
        }
        while let Ok(due) = kept.dues.0.try_recv() {
            if due.deferred.id == LAST {
                kept.outbox.done(&due);
                continue;
            }
            let (task, size) = before.remove(&due.deferred.id).unwrap();
            assert_eq!(due.task, task);
            if let Some(size) = size {
                let is_whole = match kept.outbox.content(&due).await.unwrap() {
                    Content::Bytes(body) => body.len() == size,
                    Content::File { path, .. } => fs::read(path).unwrap() == vec![b'x'; size],
                };
                assert!(is_whole);
            }
            self.dues.insert(due.deferred.id, (due, size));
        }
        assert!(before.is_empty(), "lost: {before:?}");
        assert_eq!(kept.entries(), i64::try_from(self.dues.len()).unwrap());
    }
}

/// The entry that a crash comes after.
const LAST: u64 = 99;

async fn play(all: Vec<Said>) {
    let mut folder = tempfile::tempdir().unwrap();
    let (mut kept, mut model) = (Kept::open(folder.path()).await, Model::default());
    for said in all.into_iter().chain([Said::Restart { crash: false }]) {
        let Said::Restart { crash } = said else {
            model.say(&mut kept, said).await;
            continue;
        };
        if crash {
            // What was said before is on disk before it, or with it.
            let mut last = kept.begin(LAST);
            last.defer();
            assert!(last.committed().await);
            let copy = tempfile::tempdir().unwrap();
            for name in names(folder.path()).into_iter().filter(|name| !name.ends_with("-shm")) {
                fs::copy(folder.path().join(&name), copy.path().join(&name)).unwrap();
            }
            folder = copy;
        } else {
            kept.outbox.close().await;
        }
        kept = Kept::open(folder.path()).await;
        model.restarts(&mut kept).await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 50, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_said_outlives_every_restart(all in prop::collection::vec(said(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(play(all));
    }
}
