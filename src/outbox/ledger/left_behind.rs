//! Interactions whose calls died with an earlier process, and which come once more: a proxy sends a request again where the
//! daemon was killed over it.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::discord::deferral::Deferral;
use crate::outbox::Deferred;

/// Interactions that are remembered until it is known what was left: those that were under way at the kill come first.
const EARLY: usize = 4096;

/// What became of an interaction in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::outbox) enum Came {
    /// Discord was told to wait.
    Deferred,
    /// It was answered at once.
    Answered,
}

impl Came {
    /// Whether nothing is to follow any more of what an earlier process deferred. Where Discord was told to write a new
    /// message, that shows by looking at it; else it cannot be told.
    pub(super) fn ends(self, app: &str, left: &Deferred) -> bool {
        *left.app == *app && (self == Self::Deferred || left.deferral == Deferral::Update)
    }
}

/// Both of it.
pub(super) struct LeftBehind {
    /// Entries, by their interactions.
    entries: BTreeSet<(u64, u64)>,
    /// What has come; `None` once all entries are known.
    early: Option<Vec<(Arc<str>, u64, Came)>>,
}

impl Default for LeftBehind {
    fn default() -> Self {
        Self { entries: BTreeSet::new(), early: Some(Vec::new()) }
    }
}

impl LeftBehind {
    /// An entry is found that an earlier process left.
    pub(super) fn found(&mut self, id: u64, serial: u64) {
        self.entries.insert((id, serial));
    }

    /// Nothing more will be found. What has come until now.
    pub(super) fn all_found(&mut self) -> Vec<(Arc<str>, u64, Came)> {
        self.early.take().unwrap_or_default()
    }

    /// An interaction has come.
    pub(super) fn came(&mut self, app: &Arc<str>, id: u64, how: Came) {
        if let Some(early) = self.early.as_mut().filter(|early| early.len() < EARLY) {
            early.push((Arc::clone(app), id, how));
        }
    }

    /// The entries of an interaction that are such.
    pub(super) fn of(&self, id: u64, is_such: impl Fn(u64) -> bool) -> Vec<u64> {
        let entries = self.entries.range((id, 0)..=(id, u64::MAX)).map(|(_, serial)| *serial);
        entries.filter(|serial| is_such(*serial)).collect()
    }

    /// An entry is gone.
    pub(super) fn forget(&mut self, id: u64, serial: u64) {
        self.entries.remove(&(id, serial));
    }
}
