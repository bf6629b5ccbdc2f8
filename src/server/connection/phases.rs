//! The phases of a connection, each with its own bound in time.
//!
//! hyper bounds neither how long a request takes to arrive nor how long a client takes to read an answer, so the
//! stream is watched from below: the first byte of each request, from which Discord's deadline runs too, and the end
//! of each answer.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use crate::clock::Clock;
use crate::config::Limits;

/// After its last answer, how long a client that is still sending may go on, so that it gets to read that answer:
/// closing at once would reset the connection under it.
const LINGER: Duration = Duration::from_secs(1);
/// Bytes that are read and thrown away meanwhile, at a time.
const DISCARDED: usize = 4096;

/// What a connection is doing.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Between two requests.
    Idle { since: Instant },
    /// A request is arriving.
    Reading { first_byte: Instant },
    /// It is being answered; the request path has bounds of its own.
    Answering,
    /// The client is taking the answer.
    Writing { since: Instant, all_is_handed_over: bool },
}

/// Shared by the stream, the service and the timer of one connection, which all run in one task.
#[derive(Clone)]
pub(super) struct Phases {
    phase: Arc<Mutex<Phase>>,
    clock: Arc<dyn Clock>,
}

impl Phases {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        let phase = Phase::Idle { since: clock.now() };
        Self { phase: Arc::new(Mutex::new(phase)), clock }
    }

    /// A request's headers are whole. When did its first byte come?
    pub(super) fn request_is_here(&self) -> Instant {
        let mut phase = self.lock();
        let first_byte = match *phase {
            Phase::Reading { first_byte } => first_byte,
            // It came in the wake of the one before.
            _ => self.clock.now(),
        };
        *phase = Phase::Answering;
        first_byte
    }

    /// There is an answer, to be written from now on.
    pub(super) fn answer_is_here(&self) {
        *self.lock() = Phase::Writing { since: self.clock.now(), all_is_handed_over: false };
    }

    /// Whether a request has begun to arrive.
    pub(super) fn is_reading(&self) -> bool {
        matches!(*self.lock(), Phase::Reading { .. })
    }

    /// The answer's last byte is in the connection's buffer.
    pub(super) fn answer_is_handed_over(&self) {
        if let Phase::Writing { all_is_handed_over, .. } = &mut *self.lock() {
            *all_is_handed_over = true;
        }
    }

    fn bytes_came(&self) {
        let mut phase = self.lock();
        if let Phase::Idle { .. } = *phase {
            *phase = Phase::Reading { first_byte: self.clock.now() };
        }
    }

    fn buffer_is_empty(&self) {
        let mut phase = self.lock();
        if let Phase::Writing { all_is_handed_over: true, .. } = *phase {
            *phase = Phase::Idle { since: self.clock.now() };
        }
    }

    /// Our side of the connection has ended.
    fn is_over(&self) {
        *self.lock() = Phase::Idle { since: self.clock.now() };
    }

    /// When the phase has lasted too long, and what that is called; `None` for one that is no fault.
    fn deadline(&self, limits: &Limits) -> Option<(Instant, Option<&'static str>)> {
        match *self.lock() {
            Phase::Idle { since } => Some((since + limits.idle_timeout, None)),
            Phase::Reading { first_byte } => Some((first_byte + limits.read_timeout, Some("slow_request"))),
            Phase::Answering => None,
            Phase::Writing { since, .. } => Some((since + limits.write_timeout, Some("slow_reader"))),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ready once a phase has lasted too long, with a word for it where it is the peer's fault.
///
/// To be polled after the connection, in the same task: then it needs no wake-up when the phase changes.
pub(super) struct Overdue {
    phases: Phases,
    limits: Limits,
    timer: Pin<Box<Sleep>>,
    /// What the timer is set to; it is set anew only for an earlier time, since a request takes less than a timer costs.
    set_to: Option<Instant>,
}

impl Overdue {
    pub(super) fn new(phases: Phases, limits: Limits) -> Self {
        Self { phases, limits, timer: Box::pin(tokio::time::sleep(Duration::ZERO)), set_to: None }
    }
}

impl Future for Overdue {
    type Output = Option<&'static str>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let Some((deadline, reason)) = self.phases.deadline(&self.limits) else { return Poll::Pending };
            let now = self.phases.clock.now();
            if deadline <= now {
                return Poll::Ready(reason);
            }
            if self.set_to.is_none_or(|set_to| deadline < set_to) {
                self.timer.as_mut().reset(Instant::now() + (deadline - now));
                self.set_to = Some(deadline);
            }
            ready!(self.timer.as_mut().poll(context));
            self.set_to = None;
        }
    }
}

/// A stream that notes what passes.
pub(super) struct Watched {
    stream: TcpStream,
    phases: Phases,
    lingering: Option<Pin<Box<Sleep>>>,
}

impl Watched {
    pub(super) fn new(stream: TcpStream, phases: Phases) -> Self {
        Self { stream, phases, lingering: None }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if buffer.filled().len() > before {
            self.phases.bytes_came();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper flushes when its own buffer is empty.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.phases.buffer_is_empty();
        Poll::Ready(Ok(()))
    }

    /// Ends our side, then reads what the client still sends until it ends too, or for a while.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
            self.phases.is_over();
        }
        let lingering = self.lingering.get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
        if lingering.as_mut().poll(context).is_ready() {
            return Poll::Ready(Ok(()));
        }
        loop {
            let mut discarded = [0; DISCARDED];
            let mut buffer = ReadBuf::new(&mut discarded);
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}
