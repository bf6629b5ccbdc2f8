//! Requests that are due at fixed times, whatever became of those before.
//!
//! A server that is late is not spared the next request, so its delay shows in all that come meanwhile.

use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::task::JoinSet;

use crate::load::{Batch, Clients};
use crate::wire::Wire;

/// Connections for the requests of so long: no server here should be silent for longer.
const RESERVE: Duration = Duration::from_millis(200);
const FEWEST_CONNECTIONS: usize = 16;
/// Far longer than an answer takes.
const PATIENCE: Duration = Duration::from_secs(10);

/// When requests are due.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) per_second: u32,
    /// The first requests, which do not count.
    pub(crate) warm_up: usize,
    /// From now to the first.
    pub(crate) after: Duration,
}

/// What one run came to.
pub(crate) struct Latencies {
    /// From when a request was due to the last byte of its answer; the least one first.
    sorted: Vec<Duration>,
    /// Requests that had to wait for a connection. Their wait is part of their latency.
    pub(crate) waited: usize,
    /// How long after they were due requests were sent, most of them at most: the generator's own part.
    pub(crate) behind: Duration,
}

/// The connection of an answer that was right, and when it was there.
type Answered = Result<(usize, Instant)>;

/// Sends the whole batch, and checks each answer.
pub(crate) async fn play(address: SocketAddr, batch: Batch, pace: Pace) -> Result<Latencies> {
    let reserve = (f64::from(pace.per_second) * RESERVE.as_secs_f64()).ceil() as usize;
    let count = reserve.max(FEWEST_CONNECTIONS);
    let batch = Arc::new(batch);
    let (answered, answers) = sync_channel(count + 1);
    let mut reading = JoinSet::new();
    let mut streams = Vec::with_capacity(count);
    for (index, stream) in Clients::streams(address, count).await?.into_iter().enumerate() {
        let stream = stream.into_std()?;
        let wire = Wire::new(tokio::net::TcpStream::from_std(stream.try_clone()?)?)?;
        streams.push(stream);
        reading.spawn(read(wire, index, Arc::clone(&batch), answered.clone()));
    }
    let sender = Sender { free: (0..count).collect(), due: vec![Instant::now(); count], streams, answers };
    // One thread that does nothing but wait and send.
    let latencies = tokio::task::spawn_blocking(move || sender.send(&batch, pace)).await??;
    reading.join_all().await;
    Ok(latencies)
}

/// Reads what comes on one connection.
async fn read(mut wire: Wire, connection: usize, batch: Arc<Batch>, answered: SyncSender<Answered>) {
    loop {
        let answer = match wire.read().await {
            Ok(None) => return,
            Ok(Some(message)) => {
                let now = Instant::now();
                batch.check_any(&message).map(|()| (connection, now))
            }
            Err(error) => Err(error),
        };
        let is_wrong = answer.is_err();
        // There is room for an answer of each connection.
        if answered.try_send(answer).is_err() || is_wrong {
            return;
        }
    }
}

struct Sender {
    streams: Vec<TcpStream>,
    /// The last one that became free is the next one taken: the others are a reserve.
    free: Vec<usize>,
    /// When the request was due that a connection has.
    due: Vec<Instant>,
    answers: Receiver<Answered>,
}

impl Sender {
    fn send(mut self, batch: &Batch, pace: Pace) -> Result<Latencies> {
        wake_in_time();
        let start = Instant::now() + pace.after;
        let count = batch.len();
        let mut latencies = Vec::with_capacity(count);
        let mut behind = Vec::with_capacity(count);
        let mut waited = 0;
        let counts_from = at(start, pace, pace.warm_up);
        for (index, request) in batch.requests().enumerate() {
            let due = at(start, pace, index);
            self.collect(&mut latencies)?;
            wait_until(due);
            if self.free.is_empty() {
                waited += 1;
                self.collect_one(&mut latencies)?;
            }
            let connection = self.free.pop().context("no free connection")?;
            self.due[connection] = due;
            // It fits into the socket's buffer, which is empty.
            (&self.streams[connection]).write_all(request)?;
            behind.push(due.elapsed());
        }
        while latencies.len() < count {
            self.collect_one(&mut latencies)?;
        }
        for stream in &self.streams {
            // Whoever reads there is done.
            stream.shutdown(Shutdown::Both)?;
        }
        let counted = latencies.into_iter().filter(|(due, _)| *due >= counts_from);
        let mut sorted: Vec<_> = counted.map(|(_, latency)| latency).collect();
        ensure!(sorted.len() == count - pace.warm_up, "requests were lost");
        sorted.sort();
        behind.sort();
        Ok(Latencies { sorted, waited, behind: percentile(&behind, 0.9) })
    }

    /// Takes the answers that are there.
    fn collect(&mut self, latencies: &mut Vec<(Instant, Duration)>) -> Result<()> {
        while let Ok(answer) = self.answers.try_recv() {
            self.take(answer, latencies)?;
        }
        Ok(())
    }

    /// Waits for an answer.
    fn collect_one(&mut self, latencies: &mut Vec<(Instant, Duration)>) -> Result<()> {
        match self.answers.recv_timeout(PATIENCE) {
            Ok(answer) => self.take(answer, latencies),
            Err(RecvTimeoutError::Timeout) => bail!("no answer for {PATIENCE:?}"),
            Err(RecvTimeoutError::Disconnected) => bail!("all connections were closed"),
        }
    }

    fn take(&mut self, answer: Answered, latencies: &mut Vec<(Instant, Duration)>) -> Result<()> {
        let (connection, now) = answer?;
        let due = self.due[connection];
        latencies.push((due, now.saturating_duration_since(due)));
        self.free.push(connection);
        Ok(())
    }
}

impl Latencies {
    /// That part of all requests took so long at most; `None` where less than one request is beyond it.
    pub(crate) fn percentile(&self, part: f64) -> Option<Duration> {
        let beyond = self.sorted.len() as f64 * (1.0 - part);
        // 100 - 99 is not 1, to a machine.
        (beyond > 0.999).then(|| percentile(&self.sorted, part))
    }
}

fn percentile(sorted: &[Duration], part: f64) -> Duration {
    let rank = (sorted.len() as f64 * part).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

/// When a request is due.
fn at(start: Instant, pace: Pace, index: usize) -> Instant {
    start + Duration::from_secs_f64(index as f64 / f64::from(pace.per_second))
}

/// Linux lets a thread sleep up to 50 µs longer than it asked for, unless told otherwise. Where that is refused, requests
/// are sent so much later, whoever gets them.
fn wake_in_time() {
    let thread = std::fs::read_link("/proc/thread-self").unwrap_or_default();
    if let Some(thread) = thread.file_name() {
        _ = std::fs::write(Path::new("/proc").join(thread).join("timerslack_ns"), "1");
    }
}

/// Sleeps until then.
fn wait_until(due: Instant) {
    loop {
        match due.saturating_duration_since(Instant::now()) {
            Duration::ZERO => return,
            left => thread::park_timeout(left),
        }
    }
}
