//! How figures are told.

use std::time::Duration;

/// The bars' megabyte.
const MEGABYTE: f64 = 1e6;

/// Says whether a bar is held. A miss ends nothing: machines have other work too.
pub(crate) fn judge(what: &str, value: f64, most: f64, unit: &str) {
    let verdict = if value <= most { "held" } else { "missed" };
    let space = if unit.is_empty() { "" } else { " " };
    println!("- {what}: {value:.2}{space}{unit}, bar {most}{space}{unit}: **{verdict}**");
}

pub(crate) fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

pub(crate) fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / MEGABYTE
}

/// With a comma after the thousands.
pub(crate) fn count(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}
