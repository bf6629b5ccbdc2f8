//! Taking connections, and speaking HTTP on them.

mod connection;
mod listener;
pub mod tls;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};

use crate::clock::Clock;
use crate::config::{Limits, Listen};
use crate::gateway::Gateway;
use crate::logging::Flood;
use crate::metrics::Metrics;
use connection::Open;
pub use listener::BindError;
use listener::Listener;
use tls::ServerTls;

/// Time between two attempts to accept where the system has no file descriptor left for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The listeners and the connections that come from them. Independent of what the gateway's snapshot says.
pub struct Server {
    listeners: Vec<Listener>,
    connections: Connections,
}

/// What every connection is served with.
#[derive(Clone)]
struct Connections {
    shared: Shared,
    limits: Limits,
    /// For connections to the port; absent for plain HTTP.
    tls: Option<TlsAcceptor>,
    /// One permit a connection.
    permits: Arc<Semaphore>,
}

/// What a server shares with the rest of the daemon.
#[derive(Clone)]
pub struct Shared {
    /// Answers the requests.
    pub gateway: Arc<Gateway>,
    /// The daemon's clock.
    pub clock: Arc<dyn Clock>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Holds lines back that strangers cause.
    pub flood: Arc<Flood>,
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
        tls: Option<&ServerTls>,
        shared: Shared,
    ) -> Result<Self, BindError> {
        let listeners = listener::bind(listen)?;
        let permits = Arc::new(Semaphore::new(limits.connections));
        let tls = tls.map(|tls| TlsAcceptor::from(Arc::clone(&tls.config)));
        Ok(Self { listeners, connections: Connections { shared, limits, tls, permits } })
    }

    /// The TCP addresses that are bound.
    ///
    /// # Errors
    ///
    /// If the system does not tell.
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        let tcp = self.listeners.iter().filter_map(|listener| match listener {
            Listener::Tcp(listener) => Some(listener.local_addr()),
            Listener::Unix(..) => None,
        });
        tcp.collect()
    }

    /// All that is listened on, for the log.
    pub fn names(&self) -> Vec<String> {
        self.listeners.iter().map(Listener::to_string).collect()
    }

    /// Serves until `stop` is true; then accepts no more, and lets connections finish what they have begun.
    pub async fn run(self, stop: watch::Receiver<bool>) {
        self.connections.accept(&self.listeners, stop).await;
        drop(self.listeners);
        let all = u32::try_from(self.connections.limits.connections).unwrap_or(u32::MAX);
        let finished = async {
            _ = self.connections.permits.acquire_many(all).await;
            // A client that has hung up leaves no connection, but its call goes on.
            self.connections.shared.gateway.all_answered().await;
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
    async fn accept(&self, listeners: &[Listener], mut stop: watch::Receiver<bool>) {
        let mut failing = false;
        loop {
            let next = async {
                // The permit first: what cannot be served waits in the system's queue.
                let permit = Arc::clone(&self.permits).acquire_owned().await;
                (permit, listener::accept(listeners).await)
            };
            let accepted = tokio::select! {
                accepted = next => accepted,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            match accepted {
                (Ok(permit), Ok(accepted)) => {
                    if std::mem::take(&mut failing) {
                        info!("connections are accepted again");
                    }
                    let open = Open::new(permit, Arc::clone(&self.shared.metrics));
                    tokio::spawn(self.clone().serve(accepted, open, stop.clone()));
                }
                (_, Err(error)) if is_of_one_connection(&error) => {}
                (_, Err(error)) => {
                    self.shared.metrics.accept_errors.inc();
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

/// The peer hung up before it was accepted; the listener is sound.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}
