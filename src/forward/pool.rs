//! Kept-alive connections to one replica.
//!
//! A connection belongs to the thread that opened it, since its I/O is done there: so each thread has its own, and a call
//! finds one that wakes no other thread.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, ThreadId};
use std::time::Duration;

use http::Request;
use hyper::client::conn::http1::SendRequest;
use tokio::time::Instant;

use super::once::Once;

/// A connection that speaks HTTP/1.1, ready for a request or nearly so.
pub(super) type Connection = SendRequest<Once>;

/// What a connection is asked.
pub(super) type Question = Request<Once>;

/// The connections that nobody uses just now.
pub(super) struct Pool {
    /// How long one is kept.
    idle_timeout: Duration,
    shelves: Mutex<Vec<(ThreadId, Shelf)>>,
}

/// Those of one thread, the one that was used last at the end.
#[derive(Default)]
struct Shelf {
    idle: VecDeque<Idle>,
    /// Whether a task lets go of those whose time is over.
    is_swept: bool,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

impl Pool {
    pub(super) fn new(idle_timeout: Duration) -> Arc<Self> {
        Arc::new(Self { idle_timeout, shelves: Mutex::default() })
    }

    /// The connection of this thread that was used last, if it has one that is open, as far as we know.
    pub(super) fn take(&self) -> Option<Connection> {
        let now = Instant::now();
        self.with_shelf(|shelf| {
            while let Some(Idle { connection, since }) = shelf.idle.pop_back() {
                if now.saturating_duration_since(since) < self.idle_timeout && connection.is_ready() {
                    return Some(connection);
                }
            }
            None
        })
    }

    /// Keeps a connection whose answer was read to its end.
    pub(super) fn keep(self: &Arc<Self>, connection: Connection) {
        if connection.is_closed() {
            return;
        }
        let is_swept = self.with_shelf(|shelf| {
            shelf.idle.push_back(Idle { connection, since: Instant::now() });
            std::mem::replace(&mut shelf.is_swept, true)
        });
        if !is_swept {
            let first = Instant::now() + self.idle_timeout;
            tokio::spawn(sweep(Arc::downgrade(self), thread::current().id(), first));
        }
    }

    /// Lets go of a thread's connections whose time is over. When there will be more; `None` if none is left.
    fn let_go(&self, thread: ThreadId) -> Option<Instant> {
        let now = Instant::now();
        let mut shelves = self.lock();
        let (_, shelf) = shelves.iter_mut().find(|(of, _)| *of == thread)?;
        let is_over = |idle: &Idle| idle.since + self.idle_timeout <= now || idle.connection.is_closed();
        while shelf.idle.pop_front_if(|first| is_over(first)).is_some() {}
        let next = shelf.idle.front().map(|first| first.since + self.idle_timeout);
        shelf.is_swept = next.is_some();
        next
    }

    fn with_shelf<T>(&self, act: impl FnOnce(&mut Shelf) -> T) -> T {
        let this = thread::current().id();
        let mut shelves = self.lock();
        if let Some((_, shelf)) = shelves.iter_mut().find(|(thread, _)| *thread == this) {
            return act(shelf);
        }
        let mut shelf = Shelf::default();
        let done = act(&mut shelf);
        shelves.push((this, shelf));
        done
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(ThreadId, Shelf)>> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Handlers should not have to keep connections open for us, nor the system.
async fn sweep(pool: Weak<Pool>, thread: ThreadId, mut next: Instant) {
    loop {
        tokio::time::sleep_until(next).await;
        match pool.upgrade().and_then(|pool| pool.let_go(thread)) {
            Some(later) => next = later,
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use hyper::client::conn::http1;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt, DuplexStream};

    use super::*;

    const IDLE: Duration = Duration::from_millis(1500);

    /// A connection, and its other end.
    async fn connection() -> (Connection, DuplexStream) {
        let (ours, theirs) = tokio::io::duplex(1024);
        let (mut connection, running) = http1::handshake(TokioIo::new(ours)).await.unwrap();
        tokio::spawn(running);
        connection.ready().await.unwrap();
        (connection, theirs)
    }

    async fn is_closed(theirs: &mut DuplexStream) -> bool {
        matches!(theirs.read(&mut [0]).await, Ok(0))
    }

    #[tokio::test(start_paused = true)]
    async fn the_one_that_was_used_last_comes_first_and_to_its_thread_alone() {
        let pool = Pool::new(IDLE);
        let ((first, mut to_first), (second, to_second)) = (connection().await, connection().await);
        pool.keep(first);
        pool.keep(second);
        let elsewhere = Arc::clone(&pool);
        let taken = tokio::task::spawn_blocking(move || elsewhere.take().is_some()).await.unwrap();
        assert!(!taken, "by another thread");
        drop(to_second);
        tokio::task::yield_now().await;
        assert!(pool.take().is_some(), "the second one is closed, the first one is not");
        assert!(pool.take().is_none());
        assert!(is_closed(&mut to_first).await, "nobody has it any more");
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_uses_is_closed_when_its_time_is_over() {
        let pool = Pool::new(IDLE);
        let start = Instant::now();
        let ((first, mut to_first), (second, mut to_second)) = (connection().await, connection().await);
        pool.keep(first);
        tokio::time::advance(Duration::from_secs(1)).await;
        pool.keep(second);
        assert!(is_closed(&mut to_first).await);
        assert_eq!(start.elapsed().as_millis() / 100, 15);
        assert!(is_closed(&mut to_second).await);
        assert_eq!(start.elapsed().as_millis() / 100, 25);
        // Then they are swept anew.
        let (third, mut to_third) = connection().await;
        pool.keep(third);
        assert!(is_closed(&mut to_third).await);
        assert_eq!(start.elapsed().as_millis() / 100, 40);
    }

    #[tokio::test(start_paused = true)]
    async fn one_whose_time_is_over_is_not_given_even_if_nobody_has_swept() {
        let pool = Pool::new(IDLE);
        let (kept, _theirs) = connection().await;
        pool.keep(kept);
        pool.with_shelf(|shelf| shelf.idle[0].since -= IDLE);
        assert!(pool.take().is_none());
    }

    #[tokio::test]
    async fn a_closed_one_is_not_kept_and_a_pool_that_is_gone_is_not_swept() {
        let pool = Pool::new(IDLE);
        let (closed, theirs) = connection().await;
        drop(theirs);
        while !closed.is_closed() {
            tokio::task::yield_now().await;
        }
        pool.keep(closed);
        assert!(pool.lock().is_empty());
        let (kept, mut theirs) = connection().await;
        pool.keep(kept);
        drop(pool);
        assert!(is_closed(&mut theirs).await);
    }
}
