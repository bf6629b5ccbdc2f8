//! The time that a line begins with.

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

use crate::clock::{Clock, SystemClock};

/// The end of the year 9999, behind which a date has another form.
const END: Duration = Duration::from_secs(253_402_300_799);

/// The time of day, in UTC and to the microsecond, as the library writes it, in fewer steps.
pub(super) struct Time;

impl FormatTime for Time {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write(writer, SystemClock.unix_time())
    }
}

/// A clock that is far off must not cost a line.
fn write(writer: &mut Writer<'_>, unix_time: Duration) -> fmt::Result {
    write!(writer, "{}", humantime::format_rfc3339_micros(UNIX_EPOCH + unix_time.min(END)))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::usual(Duration::from_micros(1_700_000_000_000_042), "2023-11-14T22:13:20.000042Z")]
    #[case::first(Duration::ZERO, "1970-01-01T00:00:00.000000Z")]
    #[case::latest(END, "9999-12-31T23:59:59.000000Z")]
    #[case::too_late(Duration::MAX, "9999-12-31T23:59:59.000000Z")]
    fn a_time_is_written_whatever_the_clock_says(#[case] unix_time: Duration, #[case] expected: &str) {
        let mut text = String::new();
        write(&mut Writer::new(&mut text), unix_time).unwrap();
        assert_eq!(text, expected);
    }
}
