//! The admin listener: what the operator, a supervisor and Prometheus ask.
//!
//! It has a thread and a runtime of its own, so that it answers while the daemon's are overloaded or stuck.

mod charts;
mod connection;
mod events;
mod health;
mod host;
mod looking;
mod metrics;
mod page;
mod process;
mod routing;
mod situation;
mod status;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use tokio::runtime;
use tokio::sync::oneshot;

use crate::activity::Activity;
use crate::clock::Clock;
use crate::config;
use crate::gateway::Gateway;
use crate::listener::{self, BindError, Listener};
use crate::metrics::Metrics;
use crate::outbox::Outbox;
use crate::pulse::Pulse;
use crate::systemd::Sockets;
use connection::Connections;
pub use situation::{Certificate, ConfigFile, Facts, Phase, ReloadFailure, Situation};

/// Names that are looked up at once.
const LOOKUPS: usize = 8;

/// For the thread to end.
const END: Duration = Duration::from_secs(1);

/// What it tells of.
pub struct Sources {
    /// Answers the requests.
    pub gateway: Arc<Gateway>,
    /// The deferred interactions.
    pub outbox: Outbox,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What happens.
    pub activity: Activity,
    /// The daemon's clock.
    pub clock: Arc<dyn Clock>,
    /// The accept loop's sign of life.
    pub pulse: Pulse,
    /// How the daemon is.
    pub situation: Arc<Situation>,
}

/// The admin listener; it answers until it is dropped.
pub struct Admin {
    addresses: Vec<SocketAddr>,
    stop: Option<oneshot::Sender<()>>,
    ended: Receiver<()>,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub enum AdminError {
    /// An address cannot be listened on.
    Bind(#[from] BindError),
    /// The system has no thread for it, or does not tell what was bound.
    Io(#[from] io::Error),
}

impl Admin {
    /// Binds what `config` names and `sockets` has not, and begins to answer.
    ///
    /// # Errors
    ///
    /// [`AdminError`], in words for the operator.
    pub fn bind(config: &config::Admin, sockets: Sockets, sources: Sources) -> Result<Self, AdminError> {
        let (stop, stopped) = oneshot::channel();
        let (bound, is_bound) = mpsc::sync_channel(1);
        let (end, ended) = mpsc::sync_channel::<()>(0);
        let listen = config.listen.clone();
        let connections = Connections::new(config.connections, sources);
        let work = move || {
            // Dropped with the thread, however it ends.
            let _end = end;
            let told = bound.clone();
            let run = |listeners: Bound| async {
                _ = told.send(Ok(listeners.addresses));
                tokio::select! {
                    () = connections.run(listeners.listeners) => {}
                    _ = stopped => {}
                }
            };
            if let Err(error) = serve(&listen, sockets, run) {
                _ = bound.send(Err(error));
            }
        };
        std::thread::Builder::new().name("admin".to_owned()).spawn(work)?;
        let gone = || io::Error::other("the thread of the admin listener has ended");
        let addresses = is_bound.recv().map_err(|_| gone())??;
        Ok(Self { addresses, stop: Some(stop), ended })
    }

    /// The addresses that are bound.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

/// What it listens on.
struct Bound {
    listeners: Vec<Listener>,
    addresses: Vec<SocketAddr>,
}

/// Binds in a runtime of this thread's own, and runs what is to be run with it.
fn serve<F: Future<Output = ()>>(
    listen: &config::Listen,
    sockets: Sockets,
    run: impl FnOnce(Bound) -> F,
) -> Result<(), AdminError> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        // They look names up, and where nobody answers each takes a while.
        .max_blocking_threads(LOOKUPS)
        .build()?;
    let listeners = {
        // The sockets belong to this runtime.
        let _inside = runtime.enter();
        listener::bind(listen, "admin.", sockets)?
    };
    let addresses = listeners.iter().filter_map(Listener::address).collect::<Result<_, _>>()?;
    runtime.block_on(run(Bound { listeners, addresses }));
    runtime.shutdown_background();
    Ok(())
}

impl Drop for Admin {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            _ = stop.send(());
        }
        // It says nothing: it ends. One that hangs does not hold up the daemon.
        _ = self.ended.recv_timeout(END);
    }
}
