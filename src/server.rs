//! Taking connections, and speaking HTTP on them.

mod connection;
pub mod tls;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tracing::{info, warn};

use crate::activity::Activity;
use crate::clock::Clock;
use crate::config::Listen;
use crate::gateway::Gateway;
use crate::listener::{self, BindError, Listener};
use crate::logging::Flood;
use crate::metrics::Metrics;
use crate::pulse::Pulse;
use crate::systemd::Sockets;
use crate::workers::Workers;
use connection::Open;
use tls::ServerTls;

/// Time between two attempts to accept where the system has no file descriptor left for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The listeners and the connections that come from them. Independent of what the gateway's snapshot says.
pub struct Server {
    listeners: Vec<Listener>,
    connections: Arc<Connections>,
}

/// What every connection is served with.
struct Connections {
    shared: Shared,
    tls: Arc<LiveTls>,
    pulse: Pulse,
}

/// TLS for connections to the port, as it is now; absent for plain HTTP.
#[derive(Default)]
pub struct LiveTls(ArcSwapOption<ServerConfig>);

impl LiveTls {
    /// Uses it for connections from now on. Whether there was TLS before.
    pub fn replace(&self, tls: Option<&ServerTls>) -> bool {
        self.0.swap(tls.map(|tls| Arc::clone(&tls.config))).is_some()
    }

    fn acceptor(&self) -> Option<TlsAcceptor> {
        self.0.load_full().map(TlsAcceptor::from)
    }
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
    /// What the status page shows.
    pub activity: Activity,
    /// Holds lines back that strangers cause.
    pub flood: Arc<Flood>,
}

impl Server {
    /// Binds what `listen` names and `sockets` has not; connections wait in the system's queue until [`Server::run`].
    ///
    /// # Errors
    ///
    /// [`BindError`], which names the address.
    pub fn bind(listen: &Listen, sockets: Sockets, shared: Shared) -> Result<Self, BindError> {
        let listeners = listener::bind(listen, "", sockets)?;
        listener::warn_of_own(&listeners);
        let connections = Connections { shared, tls: Arc::default(), pulse: Pulse::default() };
        Ok(Self { listeners, connections: Arc::new(connections) })
    }

    /// TLS on the port: none until it is set.
    pub fn tls(&self) -> Arc<LiveTls> {
        Arc::clone(&self.connections.tls)
    }

    /// A sign of life of the accept loop, which [`Server::run`] runs.
    pub fn pulse(&self) -> Pulse {
        self.connections.pulse.clone()
    }

    /// The TCP addresses that are bound.
    ///
    /// # Errors
    ///
    /// If the system does not tell.
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.listeners.iter().filter_map(Listener::address).collect()
    }

    /// Whether what connects after this process's end waits for the next one, in a socket of the service manager's.
    pub fn was_handed_over(&self) -> bool {
        self.listeners.iter().any(Listener::was_handed_over)
    }

    /// All that is listened on, for the log.
    pub fn names(&self) -> Vec<String> {
        self.listeners.iter().map(Listener::to_string).collect()
    }

    /// Serves, by `workers`, until `stop` is true; then accepts no more, and lets connections finish what they have begun.
    pub async fn run(self, workers: &Workers, stop: watch::Receiver<bool>) {
        self.connections.accept(&self.listeners, workers, stop).await;
        drop(self.listeners);
        let snapshot = self.connections.shared.gateway.snapshot();
        let open = &snapshot.bounds().connections;
        let finished = async {
            open.all_given_back().await;
            // A client that has hung up leaves no connection, but its call goes on.
            self.connections.shared.gateway.all_answered().await;
        };
        if tokio::time::timeout(snapshot.limits().drain_timeout, finished).await.is_err() {
            warn!(connections = open.used(), "stopping with connections that did not end in time");
        }
    }
}

impl Connections {
    async fn accept(
        self: &Arc<Self>,
        listeners: &[Listener],
        workers: &Workers,
        mut stop: watch::Receiver<bool>,
    ) {
        let bounds = self.shared.gateway.snapshot().bounds().clone();
        let (mut failing, mut turn) = (false, 0_usize);
        loop {
            turn = turn.wrapping_add(1);
            let next = async {
                // Room first: what cannot be served waits in the system's queue.
                let room = bounds.connections.one().await;
                listener::accept(listeners, turn).await.map(|accepted| (accepted, room))
            };
            let accepted = tokio::select! {
                accepted = next => accepted,
                () = self.pulse.answer_all() => return,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            match accepted {
                Ok((accepted, room)) => {
                    if std::mem::take(&mut failing) {
                        info!("connections are accepted again");
                    }
                    let Ok(detached) = accepted.detach() else {
                        self.shared.metrics.accept_errors.inc();
                        continue;
                    };
                    let place = workers.place();
                    let runtime = place.runtime.clone();
                    let open = Open::new(room, place, Arc::clone(&self.shared.metrics));
                    runtime.spawn(Arc::clone(self).serve(detached, open, stop.clone()));
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    self.shared.metrics.accept_errors.inc();
                    if !std::mem::replace(&mut failing, true) {
                        warn!(
                            "cannot accept connections: {error}{}",
                            if is_of_open_files(&error) {
                                "; raise the limit of open files (LimitNOFILE)"
                            } else {
                                ""
                            }
                        );
                    }
                    // Descriptors that are used up are had again by connections that are idle, as room is.
                    let _wanted = bounds.connections.want();
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// This process or the whole system has as many files open as it may.
fn is_of_open_files(error: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    matches!(error.raw_os_error(), Some(ENFILE | EMFILE))
}

/// The peer hung up before it was accepted; the listener is sound.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}
