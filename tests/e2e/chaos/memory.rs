//! The resident memory of a process over time, and whether it grows.

use std::time::Duration;

/// The resident memory of a process, by its number or `self`, in MiB.
pub(super) fn of(process: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}

/// Samples, each with its time in seconds since the start.
#[derive(Default)]
pub(super) struct Samples(Vec<(f64, f64)>);

/// What is left out at the beginning of a long run: what fills up, such as ids of the last minutes, fills up then, and the
/// allocator's heaps settle.
pub(super) const WARM_UP: Duration = Duration::from_secs(1200);

/// In a shorter run, this part of it.
const PART: u32 = 3;

impl Samples {
    pub(super) fn add(&mut self, time: Duration, mebibytes: f64) {
        self.0.push((time.as_secs_f64(), mebibytes));
    }

    /// At the start, after the warm-up, and at the end of a run of that length; and the slope between the latter two, in
    /// MiB per hour.
    pub(super) fn summary(&self, length: Duration) -> [f64; 4] {
        let warm_up = WARM_UP.min(length / PART).as_secs_f64();
        let warm: Vec<_> = self.0.iter().copied().filter(|(time, _)| *time >= warm_up).collect();
        let (start, end) = (self.0.first().unwrap().1, self.0.last().unwrap().1);
        [start, warm.first().map_or(end, |sample| sample.1), end, slope(&warm) * 3600.0]
    }
}

/// Of the line that fits them best.
fn slope(samples: &[(f64, f64)]) -> f64 {
    let count = samples.len() as f64;
    let sum = |of: fn(&(f64, f64)) -> f64| samples.iter().map(of).sum::<f64>();
    let (x, y) = (sum(|sample| sample.0) / count, sum(|sample| sample.1) / count);
    let covariance: f64 = samples.iter().map(|sample| (sample.0 - x) * (sample.1 - y)).sum();
    let variance: f64 = samples.iter().map(|sample| (sample.0 - x).powi(2)).sum();
    if variance > 0.0 { covariance / variance } else { 0.0 }
}

#[test]
fn a_slope_is_that_of_the_best_line() {
    let mut samples = Samples::default();
    for second in 0..3600_u32 {
        let noise = if second % 2 == 0 { 0.5 } else { -0.5 };
        samples.add(Duration::from_secs(second.into()), 20.0 + f64::from(second) / 1800.0 + noise);
    }
    let [start, warm, end, slope] = samples.summary(Duration::from_secs(3600));
    assert_eq!((start, warm.round(), end.round()), (20.5, 21.0, 21.0 + 0.0));
    assert!((slope - 2.0).abs() < 0.01, "{slope}");
}
