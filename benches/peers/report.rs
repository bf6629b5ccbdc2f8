//! What was measured, as a table and as a plot.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use crate::contestants::Contestant;
use crate::plot::{self, Bars};
use crate::table::{machine, mebibytes, spread};

const LOADS: [&str; 2] = ["32 connections", "1 connection"];

/// CPU time per request of each contestant, under each load.
pub(crate) type Round = Vec<[Duration; 2]>;

/// Everything. The first contestant is the measure of the others.
pub(crate) struct Report<'a> {
    pub(crate) contestants: &'a [Contestant],
    pub(crate) versions: String,
    pub(crate) body_bytes: usize,
    pub(crate) rounds: Vec<Round>,
}

/// Ratios of one round, at the large load.
pub(crate) fn line(contestants: &[Contestant], round: &Round) -> String {
    let ratios = contestants.iter().zip(round).skip(1);
    let ratios = ratios.map(|(contestant, costs)| {
        format!("{} {:.2}", contestant.name, costs[0].as_secs_f64() / round[0][0].as_secs_f64())
    });
    ratios.collect::<Vec<_>>().join("; ")
}

impl Report<'_> {
    /// The least, the median, and the most, in microseconds.
    fn costs(&self, contestant: usize, load: usize) -> [f64; 3] {
        spread(self.rounds.iter().map(|round| round[contestant][load].as_secs_f64() * 1e6))
    }

    /// The same of the ratio to the first contestant in the same round.
    fn ratios(&self, contestant: usize, load: usize) -> [f64; 3] {
        let ratio = |round: &Round| round[contestant][load].as_secs_f64() / round[0][load].as_secs_f64();
        spread(self.rounds.iter().map(ratio))
    }

    /// Writes it, and tells where.
    pub(crate) fn plot(&self) -> Result<PathBuf> {
        let median = |contestant, load| self.costs(contestant, load)[1];
        let row = |(index, contestant): (usize, &Contestant)| {
            (contestant.name.to_owned(), (0..LOADS.len()).map(|load| median(index, load)).collect())
        };
        let rows: Vec<_> = self.contestants.iter().enumerate().map(row).collect();
        plot::bars(
            "peers",
            &Bars { title: "CPU time of the server for a command", unit: "µs", kinds: &LOADS, rows: &rows },
        )
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}; {};", machine(), self.versions)?;
        writeln!(f, "commands of {} bytes; medians of {} rounds.\n", self.body_bytes, self.rounds.len())?;
        let [many, single] = LOADS;
        writeln!(f, "| CPU time per command | {many} | / Nginx | {single} | / Nginx | memory after it |")?;
        writeln!(f, "|---|--:|--:|--:|--:|--:|")?;
        for (index, contestant) in self.contestants.iter().enumerate() {
            write!(f, "| {} |", contestant.name)?;
            for load in 0..LOADS.len() {
                let [_, cost, _] = self.costs(index, load);
                let [least, ratio, most] = self.ratios(index, load);
                write!(f, " {cost:.1} µs |")?;
                match index {
                    0 => write!(f, " 1 |")?,
                    _ => write!(f, " {ratio:.2} ({least:.2}–{most:.2}) |")?,
                }
            }
            let memory = contestant.server.resident_bytes().map_or_else(|error| error.to_string(), mebibytes);
            // Nginx has several processes, which share much of theirs.
            writeln!(f, " {} |", if index == 0 { "–" } else { &memory })?;
        }
        Ok(())
    }
}
