//! Servers that take turns under the same load.

use anyhow::{Result, ensure};

use crate::handler::Handler;
use crate::load::{Batch, Spent, spent_per_request};
use crate::process::Server;
use crate::table::spread;
use crate::units::micros;

/// What each round of one server took.
pub(crate) struct Turns(Vec<Spent>);

/// Plays a load on each of the servers, one after the other; who begins changes with each round, so that what else the
/// machine does meets all. `batch` is asked for the requests to a server, by its place. A first round does not count:
/// a server that was just started has its memory to get.
pub(crate) async fn take_turns(
    servers: &[&Server],
    rounds: usize,
    connections: usize,
    handler: &Handler,
    mut batch: impl FnMut(usize) -> Result<Batch>,
) -> Result<Vec<Turns>> {
    let mut turns: Vec<_> = servers.iter().map(|_| Turns(Vec::new())).collect();
    for round in 0..=rounds {
        for turn in 0..servers.len() {
            let server = (round + turn) % servers.len();
            let batch = batch(server)?;
            let expected = batch.len();
            let spent = spent_per_request(servers[server], batch, connections).await?;
            let calls = handler.take_calls();
            ensure!(calls == expected, "the handler got {calls} of {expected} requests");
            if round > 0 {
                turns[server].0.push(spent);
            }
        }
    }
    Ok(turns)
}

impl Turns {
    pub(crate) fn rounds(&self) -> usize {
        self.0.len()
    }

    /// Microseconds of CPU time per request.
    pub(crate) fn cpu(&self) -> f64 {
        spread(self.0.iter().map(|spent| micros(spent.cpu)))[1]
    }

    /// Requests a second.
    pub(crate) fn throughput(&self) -> f64 {
        spread(self.0.iter().map(|spent| spent.clock.as_secs_f64().recip()))[1]
    }

    /// How many cores the server was busy on.
    pub(crate) fn busy(&self) -> f64 {
        spread(self.0.iter().map(|spent| spent.cpu.as_secs_f64() / spent.clock.as_secs_f64()))[1]
    }

    /// CPU time by that of another in the same round: least, median, and most.
    pub(crate) fn cpu_by(&self, other: &Self) -> [f64; 3] {
        let rounds = self.0.iter().zip(&other.0);
        spread(rounds.map(|(own, other)| own.cpu.as_secs_f64() / other.cpu.as_secs_f64()))
    }
}
