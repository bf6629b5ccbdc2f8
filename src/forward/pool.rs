//! Kept-alive connections to one replica.
//!
//! A connection belongs to the thread that opened it, since its I/O is done there. A call takes one of its own thread,
//! which wakes no other, and else one of another thread: a handler may serve one connection at a time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, ThreadId};
use std::time::Duration;

use http::Request;
use hyper::client::conn::http1::SendRequest;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::once::Once;

/// A connection that speaks HTTP/1.1. Whoever drops it ends it.
pub(super) struct Connection {
    pub(super) sender: SendRequest<Once>,
    /// Where its I/O is done.
    thread: ThreadId,
}

impl Connection {
    /// One that was opened just now, here.
    pub(super) fn of_this_thread(sender: SendRequest<Once>) -> Self {
        Self { sender, thread: thread::current().id() }
    }
}

/// What a connection is asked.
pub(super) type Question = Request<Once>;

/// The connections that nobody uses just now.
pub(super) struct Pool {
    /// How long one is kept.
    idle_timeout: Duration,
    shelves: Mutex<Vec<(ThreadId, Shelf)>>,
    /// Told to one who waits for a connection.
    kept: Notify,
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
        Arc::new(Self { idle_timeout, shelves: Mutex::default(), kept: Notify::new() })
    }

    /// A connection that is open, as far as we know, if there is one: of this thread, or else of another one, and there the
    /// one that was used last.
    pub(super) fn take(&self) -> Option<Connection> {
        let (now, this) = (Instant::now(), thread::current().id());
        let mut shelves = self.lock();
        let own = shelves.iter_mut().find(|(thread, _)| *thread == this);
        if let Some(taken) = own.and_then(|(_, shelf)| shelf.take(now, self.idle_timeout)) {
            return Some(taken);
        }
        shelves.iter_mut().find_map(|(_, shelf)| shelf.take(now, self.idle_timeout))
    }

    /// A connection as soon as one is kept.
    pub(super) async fn next(&self) -> Connection {
        loop {
            let kept = self.kept.notified();
            if let Some(connection) = self.take() {
                return connection;
            }
            kept.await;
        }
    }

    /// Keeps a connection whose answer was read to its end, as soon as it takes another request: the thread that it belongs
    /// to may still be busy with the end of that answer.
    pub(super) fn keep(self: &Arc<Self>, mut connection: Connection) {
        if connection.sender.is_ready() {
            return self.keep_ready(connection);
        }
        let pool = Arc::clone(self);
        tokio::spawn(async move {
            let ready = timeout(pool.idle_timeout, connection.sender.ready()).await;
            if matches!(ready, Ok(Ok(()))) {
                pool.keep_ready(connection);
            }
        });
    }

    fn keep_ready(self: &Arc<Self>, connection: Connection) {
        let (now, thread) = (Instant::now(), connection.thread);
        if !self.shelve(connection, now) {
            tokio::spawn(sweep(Arc::downgrade(self), thread, now + self.idle_timeout));
        }
        self.kept.notify_one();
    }

    /// Whether somebody lets go of it when its time is over.
    fn shelve(&self, connection: Connection, since: Instant) -> bool {
        let mut shelves = self.lock();
        let place = shelves.iter().position(|(thread, _)| *thread == connection.thread);
        let place = place.unwrap_or_else(|| {
            shelves.push((connection.thread, Shelf::default()));
            shelves.len() - 1
        });
        let Some((_, shelf)) = shelves.get_mut(place) else { return true };
        shelf.idle.push_back(Idle { connection, since });
        std::mem::replace(&mut shelf.is_swept, true)
    }

    /// Lets go of a thread's connections whose time is over. When there will be more; `None` if none is left.
    fn let_go(&self, thread: ThreadId) -> Option<Instant> {
        let now = Instant::now();
        let mut shelves = self.lock();
        let (_, shelf) = shelves.iter_mut().find(|(of, _)| *of == thread)?;
        let is_over =
            |idle: &Idle| idle.since + self.idle_timeout <= now || idle.connection.sender.is_closed();
        while shelf.idle.pop_front_if(|first| is_over(first)).is_some() {}
        let next = shelf.idle.front().map(|first| first.since + self.idle_timeout);
        shelf.is_swept = next.is_some();
        next
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(ThreadId, Shelf)>> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelf {
    /// The one that was used last; those that are closed, or whose time is over, go.
    fn take(&mut self, now: Instant, idle_timeout: Duration) -> Option<Connection> {
        while let Some(Idle { connection, since }) = self.idle.pop_back() {
            if now.saturating_duration_since(since) < idle_timeout && connection.sender.is_ready() {
                return Some(connection);
            }
        }
        None
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
    use bytes::Bytes;
    use futures_util::FutureExt;
    use http_body_util::BodyExt;
    use hyper::client::conn::http1;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;

    const IDLE: Duration = Duration::from_millis(1500);

    /// A connection, and its other end.
    async fn connection() -> (Connection, DuplexStream) {
        let (ours, theirs) = tokio::io::duplex(1024);
        let (mut sender, running) = http1::handshake(TokioIo::new(ours)).await.unwrap();
        tokio::spawn(running);
        sender.ready().await.unwrap();
        (Connection::of_this_thread(sender), theirs)
    }

    async fn is_closed(theirs: &mut DuplexStream) -> bool {
        matches!(theirs.read(&mut [0]).await, Ok(0))
    }

    #[tokio::test(start_paused = true)]
    async fn the_one_that_was_used_last_comes_first() {
        let pool = Pool::new(IDLE);
        let ((first, mut to_first), (second, to_second)) = (connection().await, connection().await);
        pool.keep(first);
        pool.keep(second);
        drop(to_second);
        tokio::task::yield_now().await;
        assert!(pool.take().is_some(), "the second one is closed, the first one is not");
        assert!(pool.take().is_none());
        assert!(is_closed(&mut to_first).await, "nobody has it any more");
    }

    #[tokio::test]
    async fn a_thread_takes_its_own_before_that_of_another_and_gives_each_back_to_whom_it_belongs() {
        let pool = Pool::new(IDLE);
        let ((mut other, _to_other), (own, _to_own)) = (connection().await, connection().await);
        let elsewhere = thread::spawn(|| thread::current().id()).join().unwrap();
        other.thread = elsewhere;
        pool.keep(other);
        pool.keep(own);
        let first = pool.take().unwrap();
        assert_eq!(first.thread, thread::current().id());
        let second = pool.take().unwrap();
        assert_eq!(second.thread, elsewhere);
        pool.keep(second);
        let kept: Vec<_> = pool.lock().iter().map(|(thread, shelf)| (*thread, shelf.idle.len())).collect();
        assert_eq!(kept, [(elsewhere, 1), (thread::current().id(), 0)]);
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
        pool.lock()[0].1.idle[0].since -= IDLE;
        assert!(pool.take().is_none());
    }

    #[tokio::test]
    async fn who_waits_gets_the_next_that_is_kept() {
        let pool = Pool::new(IDLE);
        let mut waiting = [(); 2].map(|()| {
            let pool = Arc::clone(&pool);
            Box::pin(async move { pool.next().await })
        });
        for one in &mut waiting {
            assert!(one.as_mut().now_or_never().is_none());
        }
        let (kept, _theirs) = connection().await;
        pool.keep(kept);
        let [first, second] = &mut waiting;
        let first = first.as_mut().now_or_never().unwrap();
        assert!(second.as_mut().now_or_never().is_none(), "there is but one");
        pool.keep(first);
        second.as_mut().now_or_never().unwrap();
    }

    /// As where its own thread has handed out the answer's last byte, and has yet to note that it did.
    #[tokio::test(start_paused = true)]
    async fn one_that_is_not_ready_yet_is_kept_when_it_is() {
        let pool = Pool::new(IDLE);
        let (mut early, mut theirs) = connection().await;
        let question = Request::new(Once::new(Bytes::new()));
        let (answer, ()) = tokio::join!(early.sender.try_send_request(question), async {
            assert!(theirs.read(&mut [0; 1024]).await.unwrap() > 0);
            theirs.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n").await.unwrap();
        });
        pool.keep(early);
        assert!(pool.take().is_none());
        theirs.write_all(b"ok").await.unwrap();
        assert_eq!(answer.ok().unwrap().into_body().collect().await.unwrap().to_bytes(), "ok");
        let kept = timeout(IDLE / 2, pool.next()).await;
        assert!(kept.is_ok_and(|kept| kept.sender.is_ready()));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_does_not_get_ready_in_its_time_is_not_kept() {
        let pool = Pool::new(IDLE);
        let (mut stuck, _theirs) = connection().await;
        let _answering = tokio::spawn(stuck.sender.try_send_request(Request::new(Once::new(Bytes::new()))));
        pool.keep(stuck);
        assert_eq!(Arc::strong_count(&pool), 2);
        tokio::time::sleep(IDLE + Duration::from_millis(1)).await;
        assert_eq!(Arc::strong_count(&pool), 1);
        assert!(pool.take().is_none());
    }

    #[tokio::test]
    async fn a_closed_one_is_not_kept_and_a_pool_that_is_gone_is_not_swept() {
        let pool = Pool::new(IDLE);
        let (closed, theirs) = connection().await;
        drop(theirs);
        while !closed.sender.is_closed() {
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
