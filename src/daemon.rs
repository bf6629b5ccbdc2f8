//! The whole daemon: everything wired together.

pub mod lifecycle;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::watch;
use tracing::info;

use crate::budget::Budget;
use crate::clock::Clock;
use crate::config::Config;
use crate::discord::signature;
use crate::gateway::{Gateway, Snapshot};
use crate::metrics::Metrics;
use crate::server::{BindError, Server};

/// Time between two rounds of letting go of what is old.
const TIDY_INTERVAL: Duration = Duration::from_secs(5);

/// A daemon whose ports are bound, ready to run.
pub struct Daemon {
    snapshot: Arc<Snapshot>,
    gateway: Arc<Gateway>,
    server: Server,
    metrics: Arc<Metrics>,
}

/// Why a daemon cannot start, though its config is sound.
#[derive(Debug, Error)]
#[error(transparent)]
pub enum StartError {
    /// The snapshot cannot be built.
    Snapshot(#[from] http::header::InvalidHeaderValue),
    /// An address cannot be listened on.
    Bind(#[from] BindError),
    /// The system does not tell what was bound.
    Io(#[from] io::Error),
}

impl Daemon {
    /// Builds everything that the config asks for, and binds its ports. Connections wait until [`Daemon::run`].
    ///
    /// # Errors
    ///
    /// [`StartError`], in words for the operator.
    pub fn bind(config: &Config, clock: Arc<dyn Clock>) -> Result<Self, StartError> {
        let metrics = Arc::new(Metrics::default());
        let budget = Budget::new(config.limits.buffered);
        let snapshot = Arc::new(Snapshot::build(config, &budget)?);
        let gateway = Gateway::new(Arc::clone(&snapshot), Arc::clone(&clock), Arc::clone(&metrics), budget);
        let server =
            Server::bind(&config.listen, config.limits, Arc::clone(&gateway), clock, Arc::clone(&metrics))?;
        Ok(Self { snapshot, gateway, server, metrics })
    }

    /// The addresses that are bound.
    ///
    /// # Errors
    ///
    /// If the system does not tell.
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.server.addresses()
    }

    /// What is counted.
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.metrics)
    }

    /// Says in the log what is served where.
    ///
    /// # Errors
    ///
    /// If the system does not tell what is bound.
    pub fn announce(&self) -> io::Result<()> {
        let addresses: Vec<_> = self.addresses()?.iter().map(SocketAddr::to_string).collect();
        info!(
            version = env!("CARGO_PKG_VERSION"),
            verification = signature::backend(),
            "shardless listens on {}",
            addresses.join(" and ")
        );
        for (path, app) in self.snapshot.apps() {
            let within = humantime::format_duration(app.answer_within);
            info!(app = &*app.name, "POST {path} goes to {}, answered within {within}", app.handler);
        }
        Ok(())
    }

    /// Serves until `stop` is true, then finishes what is in flight.
    pub async fn run(self, stop: watch::Receiver<bool>) {
        let gateway = self.gateway;
        let tidying = async {
            loop {
                tokio::time::sleep(TIDY_INTERVAL).await;
                gateway.tidy();
            }
        };
        tokio::select! {
            () = self.server.run(stop) => {}
            () = tidying => {}
        }
    }
}
