//! Listening: on sockets that systemd hands over, and on what the config names besides.

mod tcp;
mod unix;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use thiserror::Error;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::time::Instant;
use tracing::warn;

use crate::config::{Listen, LogPart};
use crate::systemd::Sockets;

/// Something that connections come from.
pub struct Listener {
    socket: Socket,
    was_handed_over: bool,
    past: Past,
}

/// What a socket that was handed over may hold at first: connections that came before this process.
#[derive(Default)]
struct Past {
    /// Until it is found empty.
    is_here: AtomicBool,
    /// Unless there was nothing.
    came: AtomicBool,
    /// When it was looked at first.
    began: OnceLock<Instant>,
}

/// In this time the runtime has learned that a connection is waiting, if one is.
const FIRST_LOOK: Duration = Duration::from_millis(50);

impl Past {
    fn of(was_handed_over: bool) -> Self {
        Self { is_here: AtomicBool::new(was_handed_over), ..Self::default() }
    }

    /// Whether what comes may have waited. `is_empty` where nothing comes.
    fn look(&self, is_empty: bool) -> bool {
        if !self.is_here.load(Ordering::Relaxed) {
            return false;
        }
        let began = *self.began.get_or_init(Instant::now);
        let is_new = !self.came.load(Ordering::Relaxed);
        // At the very first, nothing may only mean that the runtime has not looked yet.
        let is_over = if is_new { began.elapsed() > FIRST_LOOK } else { is_empty };
        if is_over {
            self.is_here.store(false, Ordering::Relaxed);
        } else if !is_empty {
            self.came.store(true, Ordering::Relaxed);
        }
        !is_over && !is_empty
    }
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

/// A connection that was accepted.
pub struct Accepted {
    /// What it runs over.
    pub stream: Stream,
    /// Whether it may have waited for this process to start.
    pub has_waited: bool,
}

/// A connection on its way from the runtime that accepted it to the one that serves it.
pub struct Detached {
    stream: DetachedStream,
    has_waited: bool,
}

enum DetachedStream {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

/// What a connection runs over.
pub enum Stream {
    /// The port.
    Tcp(TcpStream),
    /// The unix socket.
    Unix(UnixStream),
}

/// An address that cannot be listened on.
#[derive(Debug, Error)]
#[error("cannot listen on {address}: {reason}{hint}")]
pub struct BindError {
    address: String,
    reason: io::Error,
    hint: String,
}

/// Takes what was handed over, and binds what the config asks for besides. `table` is where it does, with a dot; nothing
/// for the top.
///
/// # Errors
///
/// [`BindError`], which names the address.
pub fn bind(listen: &Listen, table: &str, sockets: Sockets) -> Result<Vec<Listener>, BindError> {
    let others = sockets.others;
    if others > 0 {
        warn!(target: LogPart::Server.target(), "systemd hands over {others} sockets that nobody can connect to, which are not used");
    }
    let handed_over = take(sockets).map_err(|reason| BindError {
        address: "a socket that systemd hands over".to_owned(),
        reason,
        hint: String::new(),
    })?;
    let mut own: Vec<_> = tcp::bind(listen, table, &handed_over)?.into_iter().map(Socket::Tcp).collect();
    if let Some(path) =
        listen.unix_socket.as_deref().filter(|path| !handed_over.iter().any(|one| one.is_at(path)))
    {
        own.push(Socket::Unix(unix::bind(path)?, path.to_owned()));
    }
    let listener =
        |was_handed_over| move |socket| Listener { socket, was_handed_over, past: Past::of(was_handed_over) };
    Ok(handed_over.into_iter().map(listener(true)).chain(own.into_iter().map(listener(false))).collect())
}

/// Where systemd hands some over, warns of those that it does not.
pub fn warn_of_own(listeners: &[Listener]) {
    if !listeners.iter().any(|listener| listener.was_handed_over) {
        return;
    }
    for listener in listeners.iter().filter(|listener| !listener.was_handed_over) {
        warn!(
            target: LogPart::Server.target(),
            "systemd does not hand {listener} over, so connections to it are refused while the daemon restarts: add it with `systemctl edit shardless.socket`"
        );
    }
}

fn take(sockets: Sockets) -> io::Result<Vec<Socket>> {
    let mut taken = Vec::new();
    for socket in sockets.tcp {
        socket.set_nonblocking(true)?;
        taken.push(Socket::Tcp(TcpListener::from_std(socket)?));
    }
    for socket in sockets.unix {
        socket.set_nonblocking(true)?;
        let path = socket.local_addr()?.as_pathname().map(Path::to_owned).unwrap_or_default();
        taken.push(Socket::Unix(UnixListener::from_std(socket)?, path));
    }
    Ok(taken)
}

/// The next connection of whichever listener has one. Who is asked first goes by `turn`, so that no other has to wait for
/// one that always has some.
///
/// # Errors
///
/// If that listener has none to give: for want of descriptors, or since the peer has gone.
pub async fn accept(listeners: &[Listener], turn: usize) -> io::Result<Accepted> {
    std::future::poll_fn(|context| {
        let in_turn = listeners.iter().cycle().skip(turn % listeners.len().max(1)).take(listeners.len());
        let accepted = in_turn.into_iter().find_map(|listener| match listener.poll_accept(context) {
            Poll::Ready(accepted) => Some(accepted),
            Poll::Pending => None,
        });
        accepted.map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

impl Accepted {
    /// Away from this runtime.
    ///
    /// # Errors
    ///
    /// If the system does not let go of it.
    pub fn detach(self) -> io::Result<Detached> {
        let stream = match self.stream {
            Stream::Tcp(stream) => DetachedStream::Tcp(stream.into_std()?),
            Stream::Unix(stream) => DetachedStream::Unix(stream.into_std()?),
        };
        Ok(Detached { stream, has_waited: self.has_waited })
    }
}

impl Detached {
    /// To this runtime.
    ///
    /// # Errors
    ///
    /// If the system does not take it.
    pub fn attach(self) -> io::Result<Accepted> {
        let stream = match self.stream {
            DetachedStream::Tcp(stream) => Stream::Tcp(TcpStream::from_std(stream)?),
            DetachedStream::Unix(stream) => Stream::Unix(UnixStream::from_std(stream)?),
        };
        Ok(Accepted { stream, has_waited: self.has_waited })
    }
}

impl Listener {
    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
        let accepted = match &self.socket {
            Socket::Tcp(listener) => listener.poll_accept(context).map_ok(|(stream, _)| Stream::Tcp(stream)),
            Socket::Unix(listener, _) => {
                listener.poll_accept(context).map_ok(|(stream, _)| Stream::Unix(stream))
            }
        };
        let has_waited = self.past.look(accepted.is_pending());
        let stream = ready!(accepted)?;
        Poll::Ready(Ok(Accepted { stream, has_waited }))
    }

    /// Whether the service manager holds it too.
    pub fn was_handed_over(&self) -> bool {
        self.was_handed_over
    }

    /// The TCP address, if it is one.
    pub fn address(&self) -> Option<io::Result<std::net::SocketAddr>> {
        match &self.socket {
            Socket::Tcp(listener) => Some(listener.local_addr()),
            Socket::Unix(..) => None,
        }
    }
}

impl Socket {
    fn is_at(&self, unix_socket: &Path) -> bool {
        matches!(self, Self::Unix(_, path) if path == unix_socket)
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.socket.fmt(f)
    }
}

impl fmt::Display for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(listener) => match listener.local_addr() {
                Ok(address) => address.fmt(f),
                Err(_) => f.write_str("a port"),
            },
            Self::Unix(_, path) => write!(f, "unix:{}", path.display()),
        }
    }
}
