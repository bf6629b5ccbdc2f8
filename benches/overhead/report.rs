//! What was measured, as a table.

use std::fmt;
use std::time::Duration;

use crate::table::{machine, mebibytes, spread};

/// CPU time per request.
#[derive(Clone, Copy)]
pub(crate) struct Cost {
    pub(crate) daemon: Duration,
    pub(crate) nginx: Duration,
}

/// One measurement of each load. For what Nginx has no part in, its forwarding of a command stands beside.
pub(crate) struct Round {
    pub(crate) many: Cost,
    pub(crate) single: Cost,
    pub(crate) ping: Cost,
    pub(crate) forged: Cost,
}

/// Everything.
#[derive(Default)]
pub(crate) struct Report {
    pub(crate) nginx_version: String,
    pub(crate) body_bytes: usize,
    pub(crate) rounds: Vec<Round>,
    pub(crate) starts: Vec<Duration>,
    pub(crate) idle_bytes: u64,
    pub(crate) loaded_bytes: u64,
    pub(crate) binary_bytes: u64,
}

impl Cost {
    fn ratio(self) -> f64 {
        self.daemon.as_secs_f64() / self.nginx.as_secs_f64()
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { many, single, ping, forged } = self;
        let [many, single, ping, forged] = [many, single, ping, forged].map(|cost| cost.ratio());
        write!(f, "command {many:.2}, at one connection {single:.2}, PING {ping:.2}, forged {forged:.2}")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}; Nginx {}, a worker per core, access log on;", machine(), self.nginx_version)?;
        writeln!(f, "commands of {} bytes; medians of {} rounds.\n", self.body_bytes, self.rounds.len())?;
        writeln!(f, "| CPU time per request | daemon | Nginx | daemon / Nginx | of all rounds |")?;
        writeln!(f, "|---|--:|--:|--:|--:|")?;
        self.row(f, "command, 32 connections", |round| round.many)?;
        self.row(f, "command, 1 connection", |round| round.single)?;
        self.row(f, "PING, 32 connections", |round| round.ping)?;
        self.row(f, "forged, 32 connections", |round| round.forged)?;
        let starts = self.starts.iter().map(Duration::as_secs_f64);
        let [least, median, most] = spread(starts).map(|seconds| seconds * 1e3);
        writeln!(f, "\n| daemon | |")?;
        writeln!(f, "|---|--:|")?;
        writeln!(
            f,
            "| start to first PONG | {median:.1} ms ({least:.1}–{most:.1}, {} starts) |",
            self.starts.len()
        )?;
        writeln!(f, "| memory, idle | {} |", mebibytes(self.idle_bytes))?;
        writeln!(f, "| memory, after the load | {} |", mebibytes(self.loaded_bytes))?;
        writeln!(f, "| binary | {} |", mebibytes(self.binary_bytes))
    }
}

impl Report {
    fn row(&self, f: &mut fmt::Formatter<'_>, name: &str, cost: fn(&Round) -> Cost) -> fmt::Result {
        let costs = || self.rounds.iter().map(cost);
        let [_, daemon, _] = spread(costs().map(|cost| cost.daemon.as_secs_f64() * 1e6));
        let [_, nginx, _] = spread(costs().map(|cost| cost.nginx.as_secs_f64() * 1e6));
        let [least, ratio, most] = spread(costs().map(Cost::ratio));
        writeln!(f, "| {name} | {daemon:.1} µs | {nginx:.1} µs | {ratio:.2} | {least:.2}–{most:.2} |")
    }
}
