//! The whole daemon: everything wired together.

pub mod lifecycle;
mod reload;
mod state;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::activity::Activity;
use crate::clock::Clock;
use crate::config::Config;
use crate::delivery::Delivery;
use crate::discord::signature;
use crate::gateway::{self, Gateway, Snapshot};
use crate::logging::{Flood, LogLevel};
use crate::metrics::Metrics;
use crate::outbox::{Health, Outbox};
use crate::server::tls::{ServerTls, TlsError};
use crate::server::{BindError, Pulse, Server, Shared};
use crate::systemd::Sockets;
pub use reload::Reload;
use state::StateLock;

/// Time between two rounds of letting go of what is old.
const TIDY_INTERVAL: Duration = Duration::from_secs(5);

/// At a stop, for late answers that are on their way to Discord.
const LAST_DELIVERIES: Duration = Duration::from_secs(3);

/// All that a config asks for, built but not in use: what `check` looks at, and what `serve` runs.
pub struct Build {
    /// The applications with their handlers.
    pub snapshot: Snapshot,
    /// TLS on the port; `None` for plain HTTP, or while a self-signed certificate is still to be made.
    pub tls: Option<ServerTls>,
}

impl Build {
    /// Builds it, to take the place of `before`, without changing anything.
    ///
    /// # Errors
    ///
    /// [`BuildError`], which names the file or the key that is at fault.
    pub fn new(config: &Config, before: Option<&Snapshot>, clock: &dyn Clock) -> Result<Self, BuildError> {
        let snapshot = Snapshot::build(config, before)?;
        let tls = match &config.tls {
            Some(tls) => ServerTls::load(tls, &config.state_dir, clock.unix_time())?,
            None => None,
        };
        Ok(Self { snapshot, tls })
    }

    /// Makes the self-signed certificate, if one is wanted and not there yet.
    fn complete(self, config: &Config, clock: &dyn Clock) -> Result<Self, BuildError> {
        let (None, Some(wanted)) = (&self.tls, &config.tls) else { return Ok(self) };
        let made =
            ServerTls::load_or_make(wanted, &config.state_dir, &config.listen.address, clock.unix_time())?;
        Ok(Self { tls: Some(made), ..self })
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
    config: Config,
    gateway: Arc<Gateway>,
    server: Server,
    outbox: Outbox,
    delivery: Delivery,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    tls: Option<ServerTls>,
    state: StateLock,
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
    /// Builds everything that the config asks for, and binds its ports but for those among `sockets`. Connections wait
    /// until [`Daemon::run`].
    ///
    /// # Errors
    ///
    /// [`StartError`], in words for the operator.
    pub fn bind(config: Config, sockets: Sockets, clock: Arc<dyn Clock>) -> Result<Self, StartError> {
        let Build { snapshot, tls } = Build::new(&config, None, &*clock)?.complete(&config, &*clock)?;
        let (metrics, flood) = (Arc::new(Metrics::default()), Arc::new(Flood::default()));
        let activity = Activity::new(Arc::clone(&clock));
        let (outbox, dues) = Outbox::new(Arc::clone(&clock), Arc::clone(&metrics));
        let delivery = Delivery::new(
            &config.discord.api,
            outbox.clone(),
            dues,
            Arc::clone(&clock),
            Arc::clone(&metrics),
            activity.clone(),
        );
        let gateway = Gateway::new(
            snapshot,
            outbox.clone(),
            Arc::clone(&clock),
            Arc::clone(&metrics),
            activity.clone(),
            Arc::clone(&flood),
        );
        let shared = Shared {
            gateway: Arc::clone(&gateway),
            clock: Arc::clone(&clock),
            metrics: Arc::clone(&metrics),
            activity: activity.clone(),
            flood,
        };
        let server = Server::bind(&config.listen, sockets, shared)?;
        server.tls().replace(tls.as_ref());
        let state = StateLock::take(&config.state_dir);
        Ok(Self { config, gateway, server, outbox, delivery, clock, metrics, tls, state })
    }

    /// What reads the config `file` anew while the daemon runs.
    pub fn reload(&self, file: PathBuf, level: LogLevel) -> Reload {
        Reload {
            file,
            started_with: self.config.clone(),
            gateway: Arc::clone(&self.gateway),
            tls: self.server.tls(),
            clock: Arc::clone(&self.clock),
            metrics: Arc::clone(&self.metrics),
            level,
        }
    }

    /// A sign of life, while it runs.
    pub fn pulse(&self) -> Pulse {
        self.server.pulse()
    }

    /// What it does, in a line.
    pub fn status(&self) -> String {
        status(&self.gateway.snapshot())
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
            announce_tls(Some(tls));
            for warning in &tls.warnings {
                warn!("{warning}");
            }
        }
        announce_apps(&self.gateway.snapshot());
    }

    /// Serves until `stop` is true, then finishes what is in flight: what is deferred too, as far as it can.
    pub async fn run(self, stop: watch::Receiver<bool>) {
        let Self { gateway, server, outbox, delivery, mut state, .. } = self;
        let tidying = async {
            loop {
                tokio::time::sleep(TIDY_INTERVAL).await;
                gateway.tidy();
                outbox.watch_disk();
            }
        };
        tokio::select! {
            () = serve(&gateway, server, &outbox, stop) => {}
            () = tidying => {}
            () = delivery.run() => {}
            () = state.hold(&outbox) => {}
        }
        // Nobody delivers any more, and the folder is held until all that was said is in it.
        outbox.close().await;
        drop(state);
    }
}

async fn serve(gateway: &Gateway, server: Server, outbox: &Outbox, mut stop: watch::Receiver<bool>) {
    let (close, closed) = watch::channel(false);
    let stopping = async {
        // Its sender may be gone: a stop too.
        _ = stop.wait_for(|stop| *stop).await;
        // New interactions are still served, by this process: the next one takes over as soon as no handler is
        // waited for. Calls that have just begun may still be deferred.
        let patience = gateway.snapshot().limits().drain_timeout;
        let ends = async {
            gateway.all_ended().await;
            outbox.none_waits().await;
        };
        _ = tokio::time::timeout(patience, ends).await;
        close.send_replace(true);
    };
    tokio::join!(server.run(closed), stopping);
    outbox.give_all_up();
    if tokio::time::timeout(LAST_DELIVERIES, outbox.all_delivered()).await.is_err() {
        let durable = outbox.health() == Health::Durable;
        let next = if durable { "the next start goes on with them" } else { "those not on disk are lost" };
        warn!("stopping with late answers that are not delivered: {next}");
    }
}

fn announce_tls(tls: Option<&ServerTls>) {
    match tls {
        Some(tls) => info!("the port speaks TLS with the certificate in {}", tls.certificate.display()),
        None => info!("the port speaks plain HTTP"),
    }
}

fn announce_apps(snapshot: &Snapshot) {
    for (path, app) in snapshot.apps() {
        let within = humantime::format_duration(app.deadline.answer_within);
        info!(app = &*app.name, "POST {path} goes to {}, answered within {within}", app.handler);
    }
}

fn status(snapshot: &Snapshot) -> String {
    let apps: Vec<_> =
        snapshot.apps().into_iter().map(|(path, app)| format!("{} at {path}", app.name)).collect();
    format!("Serving {}", apps.join(", "))
}
