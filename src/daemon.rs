//! The whole daemon: everything wired together.

pub mod lifecycle;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::budget::Budget;
use crate::clock::Clock;
use crate::config::Config;
use crate::discord::signature;
use crate::gateway::{self, Gateway, Snapshot};
use crate::logging::Flood;
use crate::metrics::Metrics;
use crate::server::tls::{ServerTls, TlsError};
use crate::server::{BindError, Server, Shared};

/// Time between two rounds of letting go of what is old.
const TIDY_INTERVAL: Duration = Duration::from_secs(5);

/// All that a config asks for, built but not in use: what `check` looks at, and what `serve` runs.
pub struct Build {
    /// The applications with their handlers.
    pub snapshot: Snapshot,
    /// TLS on the port; `None` for plain HTTP, or while a self-signed certificate is still to be made.
    pub tls: Option<ServerTls>,
    budget: Arc<Budget>,
}

impl Build {
    /// Builds it, without changing anything.
    ///
    /// # Errors
    ///
    /// [`BuildError`], which names the file or the key that is at fault.
    pub fn new(config: &Config, clock: &dyn Clock) -> Result<Self, BuildError> {
        let budget = Budget::new(config.limits.buffered);
        let snapshot = Snapshot::build(config, &budget)?;
        let tls = match &config.tls {
            Some(tls) => ServerTls::load(tls, &config.state_dir, clock.unix_time())?,
            None => None,
        };
        Ok(Self { snapshot, tls, budget })
    }
}

/// What a sound config names, but cannot be used.
#[derive(Debug, Error)]
#[error(transparent)]
pub enum BuildError {
    /// A handler.
    Snapshot(#[from] gateway::BuildError),
    /// The certificate.
    Tls(#[from] TlsError),
}

/// A daemon whose ports are bound, ready to run.
pub struct Daemon {
    snapshot: Arc<Snapshot>,
    gateway: Arc<Gateway>,
    server: Server,
    metrics: Arc<Metrics>,
    tls: Option<ServerTls>,
}

/// Why a daemon cannot start, though its config is sound.
#[derive(Debug, Error)]
#[error(transparent)]
pub enum StartError {
    /// Something that the config names cannot be used.
    Build(#[from] BuildError),
    /// An address cannot be listened on.
    Bind(#[from] BindError),
    /// The system does not tell what was bound.
    Io(#[from] io::Error),
}

impl StartError {
    /// Whether another try is in vain until somebody mends what the config names.
    pub fn is_of_config(&self) -> bool {
        matches!(self, Self::Build(_))
    }
}

impl Daemon {
    /// Builds everything that the config asks for, and binds its ports. Connections wait until [`Daemon::run`].
    ///
    /// # Errors
    ///
    /// [`StartError`], in words for the operator.
    pub fn bind(config: &Config, clock: Arc<dyn Clock>) -> Result<Self, StartError> {
        let Build { snapshot, mut tls, budget } = Build::new(config, &*clock)?;
        if let Some(wanted) = &config.tls
            && tls.is_none()
        {
            let made =
                ServerTls::load_or_make(wanted, &config.state_dir, &config.listen.address, clock.unix_time());
            tls = Some(made.map_err(BuildError::from)?);
        }
        let metrics = Arc::new(Metrics::default());
        let (snapshot, flood) = (Arc::new(snapshot), Arc::new(Flood::default()));
        let gateway = Gateway::new(
            Arc::clone(&snapshot),
            Arc::clone(&clock),
            Arc::clone(&metrics),
            budget,
            Arc::clone(&flood),
        );
        let shared = Shared { gateway: Arc::clone(&gateway), clock, metrics: Arc::clone(&metrics), flood };
        let server = Server::bind(&config.listen, config.limits, tls.as_ref(), shared)?;
        Ok(Self { snapshot, gateway, server, metrics, tls })
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
    pub fn announce(&self) {
        info!(
            version = env!("CARGO_PKG_VERSION"),
            verification = signature::backend(),
            "shardless listens on {}",
            self.server.names().join(" and ")
        );
        if let Some(tls) = &self.tls {
            info!("the port speaks TLS with the certificate in {}", tls.certificate.display());
            for warning in &tls.warnings {
                warn!("{warning}");
            }
        }
        for (path, app) in self.snapshot.apps() {
            let within = humantime::format_duration(app.answer_within);
            info!(app = &*app.name, "POST {path} goes to {}, answered within {within}", app.handler);
        }
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
