//! Lines that strangers cause are let through a few at a time, and the rest is summed up.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::info;

/// How long lines are counted together.
const WINDOW: Duration = Duration::from_secs(10);
/// Lines of one reason that are let through in that time.
const LINES: u64 = 10;

/// Counts lines by reason.
#[derive(Debug, Default)]
pub struct Flood {
    windows: Mutex<HashMap<&'static str, Window>>,
}

#[derive(Debug)]
struct Window {
    since: Instant,
    seen: u64,
}

impl Flood {
    /// Whether one more line for this reason is worth writing.
    pub fn lets_through(&self, reason: &'static str, now: Instant) -> bool {
        self.sum_up(now);
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let window = windows.entry(reason).or_insert(Window { since: now, seen: 0 });
        window.seen += 1;
        window.seen <= LINES
    }

    /// Ends windows whose time is over, with one line for what was held back. Called now and then.
    pub fn sum_up(&self, now: Instant) {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        windows.retain(|reason, window| {
            let ends = now.saturating_duration_since(window.since) >= WINDOW;
            let held_back = window.seen.saturating_sub(LINES);
            if ends && held_back > 0 {
                info!(reason, requests = held_back, "refused many more in {} s", WINDOW.as_secs());
            }
            !ends
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_held_back_until_its_window_ends() {
        let flood = Flood::default();
        let start = Instant::now();
        let through = |now| (0..100).filter(|_| flood.lets_through("bad_signature", now)).count();
        assert_eq!(through(start), 10);
        assert_eq!(through(start + WINDOW / 2), 0);
        assert!(flood.lets_through("timestamp", start), "another reason has its own window");
        assert_eq!(through(start + WINDOW), 10);
    }
}
