//! How a replica does, for people to see. Nothing is decided by it.

use std::fmt;
use std::sync::Arc;

use tokio::time::Instant;

use super::health::FAILURES;

/// Characters of a reason.
const LONGEST_REASON: usize = 200;

/// A replica of a handler, as it is now.
#[derive(Clone, Debug)]
pub struct ReplicaStatus {
    /// Where it listens, as the log names it: without a query, which may hold a secret.
    pub url: Arc<str>,
    /// Its calls that have not ended.
    pub in_flight: usize,
    /// How it does.
    pub state: ReplicaState,
    /// How often it was left out since it was made ready.
    pub ejections: u64,
}

/// How a replica does, as far as is known. The reasons are at most 200 characters, and hold nothing that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplicaState {
    /// Nothing has been heard of it yet.
    Unknown,
    /// Its last call ended well, or it listens and nothing worse is known.
    Up,
    /// It can be connected to, and its last calls failed.
    Failing {
        /// So many in a row.
        failures: u32,
        /// The last one's reason.
        why: Arc<str>,
        /// When the first of them ended.
        since: Instant,
    },
    /// The last attempt to connect to it failed.
    Down {
        /// The last attempt's reason.
        why: Arc<str>,
        /// When the first such attempt ended.
        since: Instant,
    },
    /// It gets no calls while there are other replicas to take them.
    LeftOut {
        /// When a call finds out whether it is well again.
        until: Instant,
        /// The reason of the failure after which it was left out.
        why: Arc<str>,
        /// When it was left out first, without a call that ended well since.
        since: Instant,
    },
}

impl ReplicaState {
    /// One word for it, for programs: `unknown`, `up`, `failing`, `down` or `left_out`.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Failing { .. } => "failing",
            Self::Down { .. } => "down",
            Self::LeftOut { .. } => "left_out",
        }
    }

    /// Whether somebody should know. A failure alone may be the interaction's fault.
    pub fn is_in_trouble(&self) -> bool {
        match self {
            Self::Unknown | Self::Up => false,
            Self::Failing { failures, .. } => *failures >= FAILURES,
            Self::Down { .. } | Self::LeftOut { .. } => true,
        }
    }

    /// When the trouble began, if there is any.
    pub fn since(&self) -> Option<Instant> {
        match self {
            Self::Unknown | Self::Up => None,
            Self::Failing { since, .. } | Self::Down { since, .. } | Self::LeftOut { since, .. } => {
                Some(*since)
            }
        }
    }
}

/// For people.
impl fmt::Display for ReplicaState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("not called yet"),
            Self::Up => f.write_str("up"),
            Self::Failing { failures: 1, why, .. } => write!(f, "its last call failed: {why}"),
            Self::Failing { failures, why, .. } => write!(f, "its last {failures} calls failed: {why}"),
            Self::Down { why, .. } => f.write_str(why),
            Self::LeftOut { why, .. } => write!(f, "left out, it failed again and again: {why}"),
        }
    }
}

/// The first characters of a reason.
pub(super) fn shortened(why: &str) -> &str {
    why.char_indices().nth(LONGEST_REASON).and_then(|(end, _)| why.get(..end)).unwrap_or(why)
}

/// How a call ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum End<'a> {
    Well,
    /// Badly, and why.
    Failed(&'a str),
    /// There was no connection, and why.
    Unreachable {
        why: &'a str,
        /// Whether somebody may listen there all the same, who does not shake hands.
        may_listen: bool,
    },
}

/// What is known of a replica, by its calls and by looks at it.
#[derive(Debug, Default)]
pub(super) struct Standing {
    is_known: bool,
    /// The last attempt to connect to it failed.
    unreachable: Option<Trouble>,
    /// The calls behind that, until it is known whether they are about more than somebody who does not listen.
    doubt: Option<Trouble>,
    /// It was connected to, and the last calls failed.
    failing: Option<Trouble>,
}

#[derive(Clone, Debug)]
struct Trouble {
    times: u32,
    why: Arc<str>,
    since: Instant,
}

impl Standing {
    /// Whether another good word changes nothing.
    pub(super) fn is_up(&self) -> bool {
        self.is_known && self.unreachable.is_none() && self.failing.is_none()
    }

    /// A call has ended.
    pub(super) fn note(&mut self, end: End<'_>, now: Instant) {
        self.is_known = true;
        match end {
            End::Well => *self = Self { is_known: true, ..Self::default() },
            End::Failed(why) => {
                (self.unreachable, self.doubt) = (None, None);
                once_more(&mut self.failing, why, now);
            }
            End::Unreachable { why, may_listen } => {
                once_more(&mut self.unreachable, why, now);
                if may_listen {
                    once_more(&mut self.doubt, why, now);
                }
            }
        }
    }

    /// A connection was opened and closed, or could not be, for that reason.
    pub(super) fn note_look(&mut self, result: Result<(), &str>, now: Instant) {
        self.is_known = true;
        if let Err(why) = result {
            self.doubt = None;
            return once_more(&mut self.unreachable, why, now);
        }
        self.unreachable = None;
        // Somebody listens, so it was the handshake that those calls failed in.
        if let Some(doubt) = self.doubt.take() {
            let (times, since) =
                self.failing.as_ref().map_or((0, doubt.since), |failing| (failing.times, failing.since));
            self.failing = Some(Trouble { times: times.saturating_add(doubt.times), since, ..doubt });
        }
    }

    pub(super) fn state(&self) -> ReplicaState {
        match (&self.unreachable, &self.failing) {
            (Some(Trouble { why, since, .. }), _) => {
                ReplicaState::Down { why: Arc::clone(why), since: *since }
            }
            (None, Some(Trouble { times, why, since })) => {
                ReplicaState::Failing { failures: *times, why: Arc::clone(why), since: *since }
            }
            (None, None) if self.is_known => ReplicaState::Up,
            (None, None) => ReplicaState::Unknown,
        }
    }
}

fn once_more(trouble: &mut Option<Trouble>, why: &str, now: Instant) {
    let why = shortened(why);
    match trouble {
        Some(trouble) => {
            trouble.times = trouble.times.saturating_add(1);
            // The same reason comes again and again.
            if *trouble.why != *why {
                trouble.why = why.into();
            }
        }
        None => *trouble = Some(Trouble { times: 1, why: why.into(), since: now }),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use Event::{Call, Look};

    use super::*;

    const REFUSED: End<'_> = End::Unreachable { why: "refused", may_listen: false };
    const NO_HANDSHAKE: End<'_> = End::Unreachable { why: "no handshake", may_listen: true };

    fn down(why: &str, since: Instant) -> ReplicaState {
        ReplicaState::Down { why: why.into(), since }
    }

    fn failing(failures: u32, why: &str, since: Instant) -> ReplicaState {
        ReplicaState::Failing { failures, why: why.into(), since }
    }

    /// Each second something happens; the standing after each.
    fn after(events: &[Event]) -> (Instant, Vec<ReplicaState>) {
        let (start, mut standing) = (Instant::now(), Standing::default());
        assert_eq!(standing.state(), ReplicaState::Unknown);
        let after = |(second, event): (u64, &Event)| {
            let now = start + Duration::from_secs(second);
            match *event {
                Call(end) => standing.note(end, now),
                Look(result) => standing.note_look(result, now),
            }
            standing.state()
        };
        (start, (0..).zip(events).map(after).collect())
    }

    enum Event {
        Call(End<'static>),
        Look(Result<(), &'static str>),
    }

    #[test]
    fn calls_that_fail_count_until_one_ends_well_and_a_look_clears_none() {
        let (start, states) = after(&[
            Call(End::Failed("500")),
            Look(Ok(())),
            Call(End::Failed("503")),
            Call(End::Well),
            Call(End::Failed("500")),
        ]);
        let later = start + Duration::from_secs(4);
        let expected = [
            failing(1, "500", start),
            failing(1, "500", start),
            failing(2, "503", start),
            ReplicaState::Up,
            failing(1, "500", later),
        ];
        assert_eq!(states, expected);
    }

    #[test]
    fn one_that_cannot_be_connected_to_is_down_until_it_can() {
        let (start, states) = after(&[
            Look(Ok(())),
            Look(Err("refused")),
            Call(REFUSED),
            Look(Err("gone")),
            Look(Ok(())),
            Call(REFUSED),
            Call(End::Well),
        ]);
        let (first, second) = (start + Duration::from_secs(1), start + Duration::from_secs(5));
        let expected = [
            ReplicaState::Up,
            down("refused", first),
            down("refused", first),
            down("gone", first),
            ReplicaState::Up,
            down("refused", second),
            ReplicaState::Up,
        ];
        assert_eq!(states, expected);
    }

    /// That it listens again does not say that it works.
    #[test]
    fn one_that_failed_before_it_was_down_fails_after_that() {
        let (start, states) =
            after(&[Call(End::Failed("500")), Look(Err("refused")), Look(Ok(())), Call(REFUSED)]);
        let at = |second| start + Duration::from_secs(second);
        let expected = [
            failing(1, "500", start),
            down("refused", at(1)),
            failing(1, "500", start),
            down("refused", at(3)),
        ];
        assert_eq!(states, expected);
        let (start, states) = after(&[Call(REFUSED), Call(End::Failed("broken"))]);
        assert_eq!(states, [down("refused", start), failing(1, "broken", start + Duration::from_secs(1))]);
    }

    /// A look does not shake hands: it takes no such failure back, unless nobody listened.
    #[test]
    fn one_that_listens_and_does_not_shake_hands_is_failing() {
        let (start, states) = after(&[Call(NO_HANDSHAKE), Call(NO_HANDSHAKE), Look(Ok(())), Call(End::Well)]);
        let still = down("no handshake", start);
        assert_eq!(states, [still.clone(), still, failing(2, "no handshake", start), ReplicaState::Up]);
        let (start, states) = after(&[Call(NO_HANDSHAKE), Look(Err("refused")), Look(Ok(()))]);
        assert_eq!(states, [down("no handshake", start), down("refused", start), ReplicaState::Up]);
        let (start, states) =
            after(&[Call(End::Failed("500")), Call(NO_HANDSHAKE), Look(Ok(())), Look(Ok(()))]);
        assert_eq!(states[2..], [failing(2, "no handshake", start), failing(2, "no handshake", start)]);
    }

    #[test]
    fn a_reason_is_cut_between_characters() {
        let (long, short) = ("ß".repeat(201), "ß".repeat(200));
        assert_eq!(shortened(&long), short);
        assert_eq!(shortened(&short), short);
        let mut standing = Standing::default();
        standing.note(End::Failed(&long), Instant::now());
        let ReplicaState::Failing { why, .. } = standing.state() else { panic!("{standing:?}") };
        assert_eq!(*why, *short);
    }

    #[test]
    fn a_state_has_a_word_a_text_and_a_time() {
        let now = Instant::now();
        let left_out = ReplicaState::LeftOut { until: now, why: "it answered 500".into(), since: now };
        let states = [
            (ReplicaState::Unknown, "unknown", "not called yet", None),
            (ReplicaState::Up, "up", "up", None),
            (failing(1, "no", now), "failing", "its last call failed: no", Some(now)),
            (failing(7, "no", now), "failing", "its last 7 calls failed: no", Some(now)),
            (down("cannot connect", now), "down", "cannot connect", Some(now)),
            (left_out, "left_out", "left out, it failed again and again: it answered 500", Some(now)),
        ];
        for (state, word, text, since) in states {
            assert_eq!((state.word(), &*state.to_string(), state.since()), (word, text, since));
        }
    }
}
