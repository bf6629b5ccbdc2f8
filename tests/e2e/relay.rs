//! A relay between the proxy and the daemon that can do what a daemon does only in an unlucky moment.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::daemon::{Upstream, Way};
use crate::process;

/// What happens to a request on a connection that was open already when a test chose this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// It is relayed.
    Relayed,
    /// The connection closes as the request comes: the daemon never sees it.
    ClosedBeforeTheDaemon,
    /// The connection closes instead of giving the daemon's answer back.
    ClosedBeforeTheAnswer,
}

/// A relay to the daemon. It ends, with its connections, when dropped.
pub(crate) struct Relay {
    upstream: Upstream,
    kept: watch::Sender<Kept>,
    counts: Arc<Counts>,
    serving: JoinHandle<()>,
    _folder: TempDir,
}

#[derive(Default)]
struct Counts {
    opened: AtomicUsize,
    broken: AtomicUsize,
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl Relay {
    /// Starts a relay that is reached as the daemon is.
    pub(crate) async fn start(daemon: &Upstream) -> Self {
        let folder = process::folder();
        let (listener, upstream) = match daemon.way {
            Way::Plain | Way::SelfSigned => {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let port = listener.local_addr().unwrap().port();
                (Listener::Tcp(listener), Upstream { port, ..daemon.clone() })
            }
            Way::Unix => {
                let socket = folder.path().join("relay.sock");
                let listener = Listener::Unix(UnixListener::bind(&socket).unwrap());
                for_everyone(&socket);
                (listener, Upstream { socket, ..daemon.clone() })
            }
        };
        let (kept, counts) = (watch::Sender::new(Kept::Relayed), Arc::new(Counts::default()));
        let serving = tokio::spawn(serve(listener, daemon.clone(), kept.subscribe(), Arc::clone(&counts)));
        Self { upstream, kept, counts, serving, _folder: folder }
    }

    /// For a proxy, in the place of the daemon's own.
    pub(crate) fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// From now on, connections that are open already do this with their next request.
    pub(crate) fn kept_connections(&self, kept: Kept) {
        self.kept.send_replace(kept);
    }

    /// Connections that the proxy opened.
    pub(crate) fn opened(&self) -> usize {
        self.counts.opened.load(Ordering::Relaxed)
    }

    /// Connections that were closed at a request.
    pub(crate) fn broken(&self) -> usize {
        self.counts.broken.load(Ordering::Relaxed)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// The proxy's workers are other users.
fn for_everyone(socket: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o666)).unwrap();
}

impl Listener {
    async fn accept(&self) -> std::io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Tcp(listener) => Box::new(listener.accept().await?.0),
            Self::Unix(listener) => Box::new(listener.accept().await?.0),
        })
    }
}

async fn connect(daemon: &Upstream) -> std::io::Result<Box<dyn Stream>> {
    Ok(match daemon.way {
        Way::Plain | Way::SelfSigned => Box::new(TcpStream::connect(("127.0.0.1", daemon.port)).await?),
        Way::Unix => Box::new(UnixStream::connect(&daemon.socket).await?),
    })
}

async fn serve(listener: Listener, daemon: Upstream, kept: watch::Receiver<Kept>, counts: Arc<Counts>) {
    // Dropped with this task, and then its connections are too.
    let mut connections = JoinSet::new();
    while let Ok(proxy) = listener.accept().await {
        counts.opened.fetch_add(1, Ordering::Relaxed);
        connections.spawn(relay(proxy, daemon.clone(), kept.clone(), Arc::clone(&counts)));
    }
}

async fn relay(
    mut proxy: Box<dyn Stream>,
    daemon: Upstream,
    kept: watch::Receiver<Kept>,
    counts: Arc<Counts>,
) {
    let Ok(mut daemon) = connect(&daemon).await else { return };
    let (mut request, mut answer) = (vec![0; 65_536], vec![0; 65_536]);
    // A new connection is sound: over TLS, breaking its handshake would be another matter.
    let is_new = *kept.borrow() != Kept::Relayed;
    // What is to happen is decided as a request comes, not as its answer does.
    let mut fate = Kept::Relayed;
    loop {
        let (length, is_request) = tokio::select! {
            length = proxy.read(&mut request) => (length, true),
            length = daemon.read(&mut answer) => (length, false),
        };
        let Ok(length @ 1..) = length else { return };
        let sent = if is_request {
            if !is_new {
                fate = *kept.borrow();
            }
            if fate == Kept::ClosedBeforeTheDaemon {
                break;
            }
            daemon.write_all(&request[..length]).await
        } else {
            if fate == Kept::ClosedBeforeTheAnswer {
                break;
            }
            proxy.write_all(&answer[..length]).await
        };
        if sent.is_err() {
            return;
        }
    }
    counts.broken.fetch_add(1, Ordering::Relaxed);
}
