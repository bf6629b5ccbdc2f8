//! A relay between the proxy and the daemon that can do what a daemon does only in an unlucky moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// What happens to a request on a connection that has carried one before.
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
    port: u16,
    kept: watch::Sender<Kept>,
    counts: Arc<Counts>,
    serving: JoinHandle<()>,
}

#[derive(Default)]
struct Counts {
    opened: AtomicUsize,
    broken: AtomicUsize,
}

impl Relay {
    pub(crate) async fn start(daemon: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (kept, counts) = (watch::Sender::new(Kept::Relayed), Arc::new(Counts::default()));
        let serving = tokio::spawn(serve(listener, daemon, kept.subscribe(), Arc::clone(&counts)));
        Self { port, kept, counts, serving }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// From now on, connections that have carried a request do this with the next one.
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

async fn serve(listener: TcpListener, daemon: u16, kept: watch::Receiver<Kept>, counts: Arc<Counts>) {
    // Dropped with this task, and then its connections are too.
    let mut connections = JoinSet::new();
    while let Ok((proxy, _)) = listener.accept().await {
        counts.opened.fetch_add(1, Ordering::Relaxed);
        connections.spawn(relay(proxy, daemon, kept.clone(), Arc::clone(&counts)));
    }
}

async fn relay(mut proxy: TcpStream, daemon: u16, kept: watch::Receiver<Kept>, counts: Arc<Counts>) {
    let Ok(mut daemon) = TcpStream::connect(("127.0.0.1", daemon)).await else { return };
    let (mut request, mut answer) = (vec![0; 65_536], vec![0; 65_536]);
    let mut is_used = false;
    // What is to happen is decided as a request comes, not as its answer does.
    let mut fate = Kept::Relayed;
    loop {
        let (length, is_request) = tokio::select! {
            length = proxy.read(&mut request) => (length, true),
            length = daemon.read(&mut answer) => (length, false),
        };
        let Ok(length @ 1..) = length else { return };
        let sent = if is_request {
            if is_used {
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
            is_used = true;
            proxy.write_all(&answer[..length]).await
        };
        if sent.is_err() {
            return;
        }
    }
    counts.broken.fetch_add(1, Ordering::Relaxed);
}
