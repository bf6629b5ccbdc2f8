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

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use super::Fault;
use crate::budget::Budget;
use crate::clock::Clock;
use crate::config::Limits;
use crate::gateway::Receipt;

/// After its last answer, how long a client that is still sending may go on, so that it gets to read that answer:
/// closing at once would reset the connection under it.
const LINGER: Duration = Duration::from_secs(1);
/// Bytes that are read and thrown away meanwhile, at a time.
const DISCARDED: usize = 4096;

/// For bytes that were there before their connection was accepted to be read.
const AT_ONCE: Duration = Duration::from_millis(50);

const HEADERS_TOO_LARGE: &[u8] = b"HTTP/1.1 431 ";
const TARGET_TOO_LONG: &[u8] = b"HTTP/1.1 414 URI Too Long\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// Where every connection there may be is open, or no descriptor is left: one that has been idle for so long makes room. It
/// is also how often it is looked whether that is so.
const IDLE_IN_A_CROWD: Duration = Duration::from_secs(1);

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
    state: Arc<Mutex<State>>,
    clock: Arc<dyn Clock>,
}

struct State {
    phase: Phase,
    /// The connection's first byte.
    first: Option<u8>,
    /// Whether the first line of the request that is arriving has ended.
    line_has_ended: bool,
    /// Whether the next request's connection waited for this process to start.
    has_waited: bool,
    /// Of the answer that is being written; it goes with the connection.
    receipt: Option<Receipt>,
}

impl Phases {
    pub(super) fn new(clock: Arc<dyn Clock>, has_waited: bool) -> Self {
        let phase = Phase::Idle { since: clock.now() };
        let state = State { phase, first: None, line_has_ended: false, has_waited, receipt: None };
        Self { state: Arc::new(Mutex::new(state)), clock }
    }

    /// A request's headers are whole. When did its first byte come, and did it wait for us before that?
    pub(super) fn request_is_here(&self) -> (Instant, bool) {
        let mut state = self.lock();
        let first_byte = match state.phase {
            Phase::Reading { first_byte } => first_byte,
            // It came in the wake of the one before.
            _ => self.clock.now(),
        };
        state.phase = Phase::Answering;
        (first_byte, std::mem::take(&mut state.has_waited))
    }

    /// There is an answer, to be written from now on.
    pub(super) fn answer_is_here(&self, receipt: Option<Receipt>) {
        let mut state = self.lock();
        state.phase = Phase::Writing { since: self.clock.now(), all_is_handed_over: false };
        state.receipt = receipt;
    }

    /// The answer's last byte is in the connection's buffer.
    pub(super) fn answer_is_handed_over(&self) {
        if let Phase::Writing { all_is_handed_over, .. } = &mut self.lock().phase {
            *all_is_handed_over = true;
        }
    }

    /// Whether nothing came yet.
    pub(super) fn is_new(&self) -> bool {
        self.lock().first.is_none()
    }

    /// Whether a request has begun to arrive.
    pub(super) fn is_reading(&self) -> bool {
        matches!(self.lock().phase, Phase::Reading { .. })
    }

    /// Whether that was the connection's first byte.
    pub(super) fn began_with(&self, byte: u8) -> bool {
        self.lock().first == Some(byte)
    }

    fn bytes_came(&self, bytes: &[u8]) {
        let mut state = self.lock();
        state.first = state.first.or(bytes.first().copied());
        if let Phase::Idle { since } = state.phase {
            let first_byte = self.clock.now();
            // What waited was there at once.
            state.has_waited &= first_byte.saturating_duration_since(since) < AT_ONCE;
            state.phase = Phase::Reading { first_byte };
            state.line_has_ended = false;
        }
        if !state.line_has_ended {
            state.line_has_ended = bytes.contains(&b'\n');
        }
    }

    /// Whether a request is arriving whose target has no end yet.
    fn is_inside_target(&self) -> bool {
        let state = self.lock();
        matches!(state.phase, Phase::Reading { .. }) && !state.line_has_ended
    }

    fn buffer_is_empty(&self) {
        let mut state = self.lock();
        if let Phase::Writing { all_is_handed_over: true, .. } = state.phase {
            state.phase = Phase::Idle { since: self.clock.now() };
            if let Some(receipt) = state.receipt.take() {
                receipt.hand_over();
            }
        }
    }

    /// Our side of the connection has ended.
    fn is_over(&self) {
        self.lock().phase = Phase::Idle { since: self.clock.now() };
    }

    /// When the phase has lasted too long, and whose fault that is, if it is one.
    fn deadline(&self, limits: &Limits, is_crowded: bool) -> Option<(Instant, Option<Fault>)> {
        match self.lock().phase {
            Phase::Idle { since } if is_crowded => {
                Some((since + limits.idle_timeout.min(IDLE_IN_A_CROWD), Some(Fault::Crowded)))
            }
            Phase::Idle { since } => Some((since + limits.idle_timeout, None)),
            Phase::Reading { first_byte } => {
                Some((first_byte + limits.read_timeout, Some(Fault::SlowRequest)))
            }
            Phase::Answering => None,
            Phase::Writing { since, .. } => Some((since + limits.write_timeout, Some(Fault::SlowReader))),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ready once a phase has lasted too long, with the fault if it is the peer's.
///
/// To be polled after the connection, in the same task: then it needs no wake-up when the phase changes.
pub(super) struct Overdue {
    phases: Phases,
    limits: Arc<Limits>,
    /// All connections.
    room: Arc<Budget>,
    timer: Pin<Box<Sleep>>,
    /// What the timer is set to; it is set anew only for an earlier time, since a request takes less than a timer costs.
    set_to: Option<Instant>,
}

impl Overdue {
    pub(super) fn new(phases: Phases, limits: Arc<Limits>, room: Arc<Budget>) -> Self {
        Self { phases, limits, room, timer: Box::pin(tokio::time::sleep(Duration::ZERO)), set_to: None }
    }
}

impl Future for Overdue {
    type Output = Option<Fault>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let phase = self.phases.deadline(&self.limits, self.room.is_wanted());
            let Some((deadline, fault)) = phase else { return Poll::Pending };
            let now = self.phases.clock.now();
            if deadline <= now {
                return Poll::Ready(fault);
            }
            // Later than that, another one may wait for room.
            let next = deadline.min(now + IDLE_IN_A_CROWD);
            if self.set_to.is_none_or(|set_to| next < set_to) {
                self.timer.as_mut().reset(Instant::now() + (next - now));
                self.set_to = Some(next);
            }
            ready!(self.timer.as_mut().poll(context));
            self.set_to = None;
        }
    }
}

/// A stream that notes what passes.
pub(super) struct Watched<S> {
    stream: S,
    phases: Phases,
    lingering: Option<Pin<Box<Sleep>>>,
}

impl<S> Watched<S> {
    pub(super) fn new(stream: S, phases: Phases) -> Self {
        Self { stream, phases, lingering: None }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match ready!(Pin::new(&mut self.stream).poll_read(context, buffer)) {
            // Many clients end TLS without saying so; a body that is cut off shows by its length or its last chunk.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Poll::Ready(Ok(())),
            read => read?,
        }
        if let Some(new) = buffer.filled().get(before..).filter(|new| !new.is_empty()) {
            self.phases.bytes_came(new);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        // hyper says the same of a target as of headers that are too large, in one short piece of its own.
        if bytes.starts_with(HEADERS_TOO_LARGE) && self.phases.is_inside_target() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(context, TARGET_TOO_LONG))?;
            let is_whole = written == TARGET_TOO_LONG.len();
            return Poll::Ready(if is_whole {
                Ok(bytes.len())
            } else {
                Err(io::ErrorKind::WriteZero.into())
            });
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match slices {
            [only] => self.poll_write(context, only),
            slices => Pin::new(&mut self.stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper flushes when its own buffer is empty.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        self.phases.buffer_is_empty();
        Poll::Ready(Ok(()))
    }

    /// Ends our side, then reads what the client still sends until it ends too, or for a while. How that goes is nobody's
    /// fault: an error here would take the place of the one that ended the connection.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let lingering = match &mut this.lingering {
            Some(lingering) => lingering,
            none => {
                if ready!(Pin::new(&mut this.stream).poll_shutdown(context)).is_err() {
                    return Poll::Ready(Ok(()));
                }
                this.phases.is_over();
                none.insert(Box::pin(tokio::time::sleep(LINGER)))
            }
        };
        if lingering.as_mut().poll(context).is_ready() {
            return Poll::Ready(Ok(()));
        }
        poll_discard(&mut this.stream, context).map(|_| Ok(()))
    }
}

/// Ends our side of a connection whose client may still be sending, and lets it finish, for a while.
pub(super) async fn linger(stream: &mut TcpStream) -> io::Result<()> {
    stream.shutdown().await?;
    let discarding = std::future::poll_fn(|context| poll_discard(stream, context));
    tokio::time::timeout(LINGER, discarding).await.unwrap_or(Ok(()))
}

fn poll_discard<S: AsyncRead + Unpin>(stream: &mut S, context: &mut Context<'_>) -> Poll<io::Result<()>> {
    loop {
        let mut discarded = [0; DISCARDED];
        let mut buffer = ReadBuf::new(&mut discarded);
        ready!(Pin::new(&mut *stream).poll_read(context, &mut buffer))?;
        if buffer.filled().is_empty() {
            return Poll::Ready(Ok(()));
        }
    }
}
