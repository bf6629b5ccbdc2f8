//! The threads that serve connections.
//!
//! Each has a runtime of its own, and whatever a connection causes stays on its thread: its requests, their calls, and
//! as far as there are some the connections to handlers that those use. So hardly anything has to be woken across threads.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// No more than these, however many processors there are: each takes a few descriptors, and one verifies and forwards
/// more than 15,000 interactions a second.
const MOST: usize = 16;

/// Threads of each that look names up; where nobody answers, each look takes a while.
const LOOKUPS: usize = 32;

/// Threads that serve connections, until this is dropped: then all that they do ends.
pub struct Workers(Vec<Worker>);

struct Worker {
    runtime: Handle,
    connections: Arc<AtomicUsize>,
    is_stuck: Arc<AtomicBool>,
    /// Ends the thread.
    _end: oneshot::Sender<()>,
}

/// A place at a worker, for one connection: it counts until it is dropped.
pub struct Place {
    /// The runtime to serve it in.
    pub runtime: Handle,
    connections: Arc<AtomicUsize>,
}

/// A thread of a runtime, for whoever watches over it.
pub struct Watched {
    /// Its runtime.
    pub runtime: Handle,
    /// To be told: one that is stuck gets no further connections, as long as there are others.
    pub is_stuck: Arc<AtomicBool>,
}

impl Workers {
    /// So many threads; without any, the runtime that runs the daemon serves connections, too.
    ///
    /// # Errors
    ///
    /// If the system does not give them.
    pub fn start(count: usize) -> io::Result<Self> {
        (0..count).map(|_| Worker::start()).collect::<io::Result<_>>().map(Self)
    }

    /// A thread for each processor that this process may use, but not more than 16.
    ///
    /// # Errors
    ///
    /// If the system does not give them.
    pub fn for_all_processors() -> io::Result<Self> {
        Self::start(thread::available_parallelism().map_or(1, usize::from).min(MOST))
    }

    /// All of them, to be watched over.
    pub fn watched(&self) -> impl Iterator<Item = Watched> {
        let watched = |worker: &Worker| Watched {
            runtime: worker.runtime.clone(),
            is_stuck: Arc::clone(&worker.is_stuck),
        };
        self.0.iter().map(watched)
    }

    /// A place at the one with the fewest connections; in this runtime where there are no workers.
    pub fn place(&self) -> Place {
        let load = |worker: &&Worker| {
            (worker.is_stuck.load(Ordering::Relaxed), worker.connections.load(Ordering::Relaxed))
        };
        let (runtime, connections) = self.0.iter().min_by_key(load).map_or_else(
            || (Handle::current(), Arc::default()),
            |worker| (worker.runtime.clone(), Arc::clone(&worker.connections)),
        );
        connections.fetch_add(1, Ordering::Relaxed);
        Place { runtime, connections }
    }
}

impl Worker {
    fn start() -> io::Result<Self> {
        let (started, starts) = mpsc::sync_channel(1);
        let (end, ended) = oneshot::channel::<()>();
        thread::Builder::new().name("worker".to_owned()).spawn(move || {
            let runtime = Builder::new_current_thread()
                .enable_all()
                .max_blocking_threads(LOOKUPS)
                .thread_name("lookup")
                .build();
            match runtime {
                Ok(runtime) => {
                    _ = started.send(Ok(runtime.handle().clone()));
                    // Dropping the other end is the word.
                    _ = runtime.block_on(ended);
                    runtime.shutdown_background();
                }
                Err(error) => _ = started.send(Err(error)),
            }
        })?;
        let runtime = starts.recv().map_err(io::Error::other)??;
        Ok(Self { runtime, connections: Arc::default(), is_stuck: Arc::default(), _end: end })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::mpsc;
    use tokio::time::timeout;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn each_connection_goes_to_the_worker_that_has_the_fewest() {
        let workers = Workers::start(2).unwrap();
        let (told, mut tells) = mpsc::channel(8);
        let run = |ended: oneshot::Receiver<()>| {
            let (told, place) = (told.clone(), workers.place());
            place.runtime.clone().spawn(async move {
                let _place = place;
                told.send(thread::current().id()).await.unwrap();
                _ = ended.await;
                told.send(thread::current().id()).await.unwrap();
            });
        };
        let (mut ends, mut threads) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            let (end, ended) = oneshot::channel();
            run(ended);
            ends.push(end);
            threads.push(tells.recv().await.unwrap());
        }
        assert!(threads[0] != threads[1] && !threads.contains(&thread::current().id()));
        drop(ends.remove(0));
        assert_eq!(tells.recv().await.unwrap(), threads[0]);
        while workers.0.iter().all(|worker| worker.connections.load(Ordering::Relaxed) == 1) {
            tokio::task::yield_now().await;
        }
        let (_end, ended) = oneshot::channel();
        run(ended);
        assert_eq!(tells.recv().await.unwrap(), threads[0], "the other one is at work");
        workers.0[1].is_stuck.store(true, Ordering::Relaxed);
        let (_end, ended) = oneshot::channel();
        run(ended);
        assert_eq!(tells.recv().await.unwrap(), threads[0], "the other one is stuck");
    }

    #[tokio::test]
    async fn a_panic_gives_its_place_back_and_ends_no_worker() {
        let workers = Workers::start(1).unwrap();
        let place = workers.place();
        place.runtime.clone().spawn(async move {
            let _place = place;
            panic!("on purpose");
        });
        let (told, tells) = oneshot::channel();
        workers.place().runtime.spawn(async move { _ = told.send(()) });
        timeout(PATIENCE, tells).await.unwrap().unwrap();
        while workers.0[0].connections.load(Ordering::Relaxed) > 0 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn what_they_do_ends_with_them() {
        let workers = Workers::start(1).unwrap();
        let (told, tells) = oneshot::channel::<()>();
        workers.place().runtime.spawn(async move {
            let _told = told;
            std::future::pending::<()>().await
        });
        drop(workers);
        assert!(timeout(PATIENCE, tells).await.unwrap().is_err());
    }
}
