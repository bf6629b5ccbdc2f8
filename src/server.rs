//! Taking connections, and speaking HTTP on them.

mod connection;
mod listener;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tracing::{info, warn};

use crate::clock::Clock;
use crate::config::{Limits, Listen};
use crate::gateway::Gateway;
use crate::metrics::Metrics;
use connection::Open;
pub use listener::BindError;

/// Time between two attempts to accept where the system has no file descriptor left for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The listeners and the connections that come from them. Independent of what the gateway's snapshot says.
pub struct Server {
    listeners: Vec<TcpListener>,
    connections: Connections,
}

/// What every connection is served with.
#[derive(Clone)]
struct Connections {
    gateway: Arc<Gateway>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    limits: Limits,
    /// One permit a connection.
    permits: Arc<Semaphore>,
}

impl Server {
    /// Binds the listeners; connections wait in the system's queue until [`Server::run`].
    ///
    /// # Errors
    ///
    /// [`BindError`], which names the address.
    pub fn bind(
        listen: &Listen,
        limits: Limits,
        gateway: Arc<Gateway>,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, BindError> {
        let listeners = listener::bind(listen)?;
        let permits = Arc::new(Semaphore::new(limits.connections));
        Ok(Self { listeners, connections: Connections { gateway, clock, metrics, limits, permits } })
    }

    /// The addresses that are bound.
    ///
    /// # Errors
    ///
    /// If the system does not tell.
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.listeners.iter().map(TcpListener::local_addr).collect()
    }

    /// Serves until `stop` is true; then accepts no more, and lets connections finish what they have begun.
    pub async fn run(self, stop: watch::Receiver<bool>) {
        self.connections.accept(&self.listeners, stop).await;
        drop(self.listeners);
        let all = u32::try_from(self.connections.limits.connections).unwrap_or(u32::MAX);
        let finished = async {
            _ = self.connections.permits.acquire_many(all).await;
            // A client that has hung up leaves no connection, but its call goes on.
            self.connections.gateway.all_answered().await;
        };
        if tokio::time::timeout(self.connections.limits.drain_timeout, finished).await.is_err() {
            warn!(
                connections = self.connections.open(),
                "stopping with connections that did not end in time"
            );
        }
    }
}

impl Connections {
    async fn accept(&self, listeners: &[TcpListener], mut stop: watch::Receiver<bool>) {
        let mut failing = false;
        loop {
            let next = async {
                // The permit first: what cannot be served waits in the system's queue.
                let permit = Arc::clone(&self.permits).acquire_owned().await;
                (permit, accept_any(listeners).await)
            };
            let accepted = tokio::select! {
                accepted = next => accepted,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            match accepted {
                (Ok(permit), Ok(stream)) => {
                    if std::mem::take(&mut failing) {
                        info!("connections are accepted again");
                    }
                    let open = Open::new(permit, Arc::clone(&self.metrics));
                    tokio::spawn(self.clone().serve(stream, open, stop.clone()));
                }
                (_, Err(error)) if is_of_one_connection(&error) => {}
                (_, Err(error)) => {
                    self.metrics.accept_errors.inc();
                    if !std::mem::replace(&mut failing, true) {
                        warn!(
                            "cannot accept connections: {error}; raise the limit of open files (LimitNOFILE)"
                        );
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
                (Err(_), Ok(_)) => return,
            }
        }
    }

    fn open(&self) -> usize {
        self.limits.connections - self.permits.available_permits()
    }
}

/// The next connection of whichever listener has one.
async fn accept_any(listeners: &[TcpListener]) -> io::Result<TcpStream> {
    std::future::poll_fn(|context| {
        let accepted = listeners.iter().find_map(|listener| match listener.poll_accept(context) {
            Poll::Ready(accepted) => Some(accepted.map(|(stream, _)| stream)),
            Poll::Pending => None,
        });
        accepted.map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

/// The peer hung up before it was accepted; the listener is sound.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}
