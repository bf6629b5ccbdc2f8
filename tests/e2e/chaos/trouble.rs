//! Trouble at Discord's REST API.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use shardless::rehearsal::rest::{Api, Call, Fault, Race, Scope, Script, Told};

use super::journal::Journal;

/// What is wrong with the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    Limited,
    Failing,
    ResetBefore,
    ResetAfter,
    Hanging,
    /// It does not know yet of what it has been answered.
    Behind,
}

/// What is wrong now, if anything is.
#[derive(Default)]
pub(super) struct Troubles(Mutex<Option<Trouble>>);

impl Troubles {
    pub(super) fn set(&self, trouble: Option<Trouble>) {
        *self.0.lock().unwrap() = trouble;
    }

    /// What happens to a call: half of them meet the trouble there is.
    fn fault(&self, call: &Call) -> Option<Fault> {
        let (trouble, lot) = ((*self.0.lock().unwrap())?, call.lot());
        if lot < 50 {
            return None;
        }
        Some(match trouble {
            Trouble::Limited => Fault::RateLimited {
                retry_after: 0.2 + (lot - 50) as f64 / 50.0,
                scope: [Scope::User, Scope::Shared, Scope::Global][lot as usize % 3],
                told: if lot % 2 == 0 { Told::Json } else { Told::HeaderOnly },
            },
            Trouble::Failing => Fault::Status([500, 502, 503][lot as usize % 3]),
            Trouble::ResetBefore => Fault::Reset,
            Trouble::ResetAfter => Fault::ResetAfter,
            Trouble::Hanging => Fault::Hang,
            // More often would mean that it never will.
            Trouble::Behind => return (call.nth <= 2).then_some(Fault::UnknownWebhook),
        })
    }
}

/// Starts the API.
pub(super) async fn start(troubles: &Arc<Troubles>, journal: &Arc<Journal>) -> Api {
    let (troubles, journal) = (Arc::clone(troubles), Arc::clone(journal));
    let faults = move |call: &Call| {
        let fault = troubles.fault(call);
        if fault.is_some() {
            journal.count("calls of Discord's API in trouble");
        }
        fault
    };
    // Each time it takes a while until Discord knows what it has been answered: longer than the daemon waits by itself.
    let script = Script::default().without_bodies().race(Race::For(Duration::from_millis(320)));
    Api::following(script.faults(faults), 0).await.unwrap()
}
