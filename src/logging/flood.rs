//! Lines that requests cause are let through a few at a time where there are many of a kind, and the rest is summed up.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{Level, info, warn};

use crate::config::LogPart;

/// How long lines are counted together.
const WINDOW: Duration = Duration::from_secs(10);
/// Lines of one kind that are let through in that time.
const LINES: u64 = 10;

/// Counts lines by their kind. What it remembers goes after [`WINDOW`].
#[derive(Debug, Default)]
pub struct Flood {
    windows: Mutex<HashMap<Lines, Window>>,
}

/// Lines that are counted together: of one kind, and about the same. None of it is a stranger's word, so there are only
/// so many.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Lines {
    pub(super) part: LogPart,
    /// A warning, or else information.
    pub(super) level: Level,
    /// What they say.
    pub(super) what: &'static str,
    /// The word that they have for why.
    pub(super) reason: Option<&'static str>,
    /// The word that they have for what became of something.
    pub(super) outcome: Option<&'static str>,
    /// The application that they are about.
    pub(super) app: Option<Arc<str>>,
    /// The handler's replica that they are about.
    pub(super) handler: Option<Arc<str>>,
}

#[derive(Debug)]
struct Window {
    since: Instant,
    seen: u64,
}

impl Flood {
    /// Whether one more of these lines is worth writing.
    pub(super) fn lets_through(&self, lines: Lines, now: Instant) -> bool {
        let mut windows = self.lock();
        if let Some(window) = windows.get_mut(&lines) {
            if window.is_over(now) {
                window.sum_up(&lines, now);
                *window = Window::new(now);
            }
            window.seen += 1;
            return window.seen <= LINES;
        }
        windows.insert(lines, Window { seen: 1, ..Window::new(now) });
        true
    }

    /// Ends windows whose time is over, each with one line for what was held back. Called now and then.
    pub fn sum_up(&self, now: Instant) {
        self.lock().retain(|lines, window| {
            let is_over = window.is_over(now);
            if is_over {
                window.sum_up(lines, now);
            }
            !is_over
        });
    }

    /// Ends all windows: nobody will be there to do so later.
    pub fn sum_up_all(&self, now: Instant) {
        for (lines, window) in self.lock().drain() {
            window.sum_up(&lines, now);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Lines, Window>> {
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Window {
    fn new(now: Instant) -> Self {
        Self { since: now, seen: 0 }
    }

    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= WINDOW
    }

    fn sum_up(&self, lines: &Lines, now: Instant) {
        let held_back = self.seen.saturating_sub(LINES);
        if held_back > 0 {
            // One that is over was closed to further lines then.
            let time = now.saturating_duration_since(self.since).min(WINDOW);
            lines.sum_up(held_back, time.as_secs().max(1));
        }
    }
}

impl Lines {
    /// Lines that say this, whomever they are about.
    pub(super) fn new(part: LogPart, level: Level, what: &'static str) -> Self {
        Self { part, level, what, reason: None, outcome: None, app: None, handler: None }
    }

    /// The line for those that were held back, which is found where they would have been.
    fn sum_up(&self, held_back: u64, seconds: u64) {
        let Self { what, reason, outcome, .. } = *self;
        let (app, handler) = (self.app.as_deref(), self.handler.as_deref());
        macro_rules! line {
            ($level:ident, $part:ident) => {
                $level!(
                    target: LogPart::$part.target(),
                    app,
                    handler,
                    outcome,
                    reason,
                    held_back,
                    "{what}: {held_back} more in {seconds} s"
                )
            };
        }
        // The place of a line is a constant.
        macro_rules! of {
            ($($part:ident)+) => {
                match self.part {
                    $(LogPart::$part if self.level == Level::WARN => line!(warn, $part),
                    LogPart::$part => line!(info, $part),)+
                }
            };
        }
        of!(Interactions Refusals Connections Delivery Handlers Outbox Server Admin Daemon);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::captured_text;
    use super::*;

    fn of_app(app: &str) -> Lines {
        let what = "handler failed";
        let app = Some(app.into());
        Lines { outcome: Some("failed"), app, ..Lines::new(LogPart::Interactions, Level::WARN, what) }
    }

    fn forged() -> Lines {
        Lines { reason: Some("bad_signature"), ..Lines::new(LogPart::Refusals, Level::INFO, "refused") }
    }

    fn through(flood: &Flood, lines: &Lines, count: usize, now: Instant) -> usize {
        (0..count).filter(|_| flood.lets_through(lines.clone(), now)).count()
    }

    #[test]
    fn a_flood_is_held_back_until_its_window_ends() {
        let flood = Flood::default();
        let start = Instant::now();
        assert_eq!(through(&flood, &forged(), 100, start), 10);
        assert_eq!(through(&flood, &forged(), 100, start + WINDOW / 2), 0);
        assert!(flood.lets_through(of_app("one"), start), "what else there is has its own window");
        assert_eq!(through(&flood, &of_app("two"), 100, start), 10, "and so has another application");
        assert_eq!(through(&flood, &forged(), 100, start + WINDOW), 10);
    }

    #[test]
    fn what_was_held_back_is_one_line_like_those_that_it_stands_for() {
        let (flood, start) = (Flood::default(), Instant::now());
        let text = captured_text(|| {
            through(&flood, &of_app("mybot"), 1000, start);
            through(&flood, &of_app("calm"), 10, start);
            flood.sum_up(start + WINDOW / 2);
            flood.sum_up(start + WINDOW * 2);
            flood.sum_up(start + WINDOW * 3);
        });
        assert_eq!(text.lines().count(), 1, "{text}");
        let line = " WARN shardless::interactions: handler failed: 990 more in 10 s app=\"mybot\" outcome=\"failed\" held_back=990\n";
        assert!(text.ends_with(line), "{text}");
        assert!(flood.lock().is_empty(), "nothing is remembered for long");
    }

    #[test]
    fn a_window_that_nobody_has_ended_is_summed_up_by_the_next_line() {
        let (flood, start) = (Flood::default(), Instant::now());
        let text = captured_text(|| {
            through(&flood, &forged(), 15, start);
            through(&flood, &forged(), 17, start + WINDOW * 4);
            flood.sum_up(start + WINDOW * 5);
        });
        let sums: Vec<_> = text.lines().map(|line| line.split_once("shardless::").unwrap().1).collect();
        let sum = |count| {
            format!("refusals: refused: {count} more in 10 s reason=\"bad_signature\" held_back={count}")
        };
        assert_eq!(sums, [sum(5), sum(7)]);
        assert!(text.lines().all(|line| line.contains(" INFO ")), "{text}");
    }

    #[test]
    fn at_the_end_all_is_summed_up_that_was_counted() {
        let (flood, start) = (Flood::default(), Instant::now());
        let text = captured_text(|| {
            through(&flood, &of_app("mybot"), 12, start);
            flood.sum_up_all(start + Duration::from_millis(2500));
            flood.sum_up_all(start + WINDOW);
        });
        assert_eq!(text.matches("handler failed: 2 more in 2 s").count(), 1, "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}
