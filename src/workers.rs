//! The threads that serve connections.
//!
//! Each has a runtime of its own, and whatever a connection causes stays on its thread: its requests, their calls, and
//! the connections to handlers that those use. So nothing has to be woken across threads. One runtime for all that hands
//! work from thread to thread took a tenth more CPU time at 32 connections, and a quarter more at one.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// Threads that serve connections, until this is dropped: then all that they do ends.
pub struct Workers(Vec<Worker>);

struct Worker {
    runtime: Handle,
    tasks: Arc<AtomicUsize>,
    /// Ends the thread.
    _end: oneshot::Sender<()>,
}

/// A place at a worker, for one task: it counts until it is dropped.
pub struct Place {
    /// The runtime to run it in.
    pub runtime: Handle,
    tasks: Arc<AtomicUsize>,
}

impl Workers {
    /// So many threads.
    ///
    /// # Errors
    ///
    /// If the system does not give them.
    pub fn start(count: usize) -> io::Result<Self> {
        (0..count).map(|_| Worker::start()).collect::<io::Result<_>>().map(Self)
    }

    /// A thread for each processor that this process may use.
    ///
    /// # Errors
    ///
    /// If the system does not give them.
    pub fn for_all_processors() -> io::Result<Self> {
        Self::start(thread::available_parallelism().map_or(1, usize::from))
    }

    /// No threads: whoever runs the daemon serves connections, too.
    pub fn none() -> Self {
        Self(Vec::new())
    }

    /// Their runtimes.
    pub fn runtimes(&self) -> impl Iterator<Item = &Handle> {
        self.0.iter().map(|worker| &worker.runtime)
    }

    /// A place at the one with the fewest tasks; in this runtime where there is none.
    pub fn place(&self) -> Place {
        let worker = self.0.iter().min_by_key(|worker| worker.tasks.load(Ordering::Relaxed));
        let (runtime, tasks) = worker.map_or_else(
            || (Handle::current(), Arc::default()),
            |worker| (worker.runtime.clone(), Arc::clone(&worker.tasks)),
        );
        tasks.fetch_add(1, Ordering::Relaxed);
        Place { runtime, tasks }
    }
}

impl Worker {
    fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (handle, (end, ended)) = (runtime.handle().clone(), oneshot::channel());
        thread::Builder::new().name("worker".to_owned()).spawn(move || {
            // Dropping the other end is the word.
            _ = runtime.block_on(ended);
            runtime.shutdown_background();
        })?;
        Ok(Self { runtime: handle, tasks: Arc::default(), _end: end })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.tasks.fetch_sub(1, Ordering::Relaxed);
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
    async fn each_task_goes_to_the_worker_that_has_the_fewest() {
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
        while workers.0.iter().all(|worker| worker.tasks.load(Ordering::Relaxed) == 1) {
            tokio::task::yield_now().await;
        }
        let (_end, ended) = oneshot::channel();
        run(ended);
        assert_eq!(tells.recv().await.unwrap(), threads[0], "the other one is at work");
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
        while workers.0[0].tasks.load(Ordering::Relaxed) > 0 {
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
