//! The whole daemon: everything wired together.

pub mod lifecycle;
mod reload;
mod state;
mod stuck;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::activity::Activity;
use crate::admin::{Admin, AdminError, Certificate, Phase, Situation, Sources};
use crate::clock::Clock;
use crate::config::Config;
use crate::delivery::Delivery;
use crate::discord::signature;
use crate::gateway::{self, Gateway, Snapshot};
use crate::listener::BindError;
use crate::logging::{Flood, LogLevel};
use crate::metrics::Metrics;
use crate::outbox::{Health, Outbox};
use crate::pulse::Pulse;
use crate::server::tls::{ServerTls, TlsError};
use crate::server::{Server, Shared};
use crate::systemd::Sockets;
use crate::workers::Workers;
pub use reload::Reload;
use state::StateLock;

/// Time between two rounds of letting go of what is old.
const TIDY_INTERVAL: Duration = Duration::from_secs(5);

/// At a stop, for late answers that are on their way to Discord.
const LAST_DELIVERIES: Duration = Duration::from_secs(3);

/// At a stop, from the moment when nothing is accepted any more, where whoever connects waits for the next process: of
/// Discord's three seconds that one needs some too. Late answers that are on disk can wait for it as well.
const HANDOVER: Duration = Duration::from_millis(1500);

/// For late answers that are on their way to Discord, also where calls in flight have taken all of that.
const AT_LEAST: Duration = Duration::from_millis(300);

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
    admin: Option<Admin>,
    situation: Arc<Situation>,
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
    /// The admin listener cannot be had.
    Admin(#[from] AdminError),
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
    pub fn bind(config: Config, mut sockets: Sockets, clock: Arc<dyn Clock>) -> Result<Self, StartError> {
        let Build { snapshot, tls } = Build::new(&config, None, &*clock)?.complete(&config, &*clock)?;
        let (metrics, flood) = (Arc::new(Metrics::default()), Arc::new(Flood::default()));
        // What nobody can see is not remembered.
        let activity = config.admin.as_ref().map(|_| Activity::new(Arc::clone(&clock))).unwrap_or_default();
        let (outbox, dues) = Outbox::new(Arc::clone(&clock), Arc::clone(&metrics));
        let delivery = Delivery::new(
            &config.discord.api,
            outbox.clone(),
            dues,
            Arc::clone(&clock),
            Arc::clone(&metrics),
            activity.clone(),
            Arc::clone(&flood),
        );
        let gateway = Gateway::new(
            snapshot,
            outbox.clone(),
            Arc::clone(&clock),
            Arc::clone(&metrics),
            activity.clone(),
            Arc::clone(&flood),
        );
        let sockets_of_admin = sockets.part(|address| is_of_admin(&config, address));
        let shared = Shared {
            gateway: Arc::clone(&gateway),
            clock: Arc::clone(&clock),
            metrics: Arc::clone(&metrics),
            activity: activity.clone(),
            flood,
        };
        let server = Server::bind(&config.listen, sockets, shared)?;
        server.tls().replace(tls.as_ref());
        let situation = Situation::new(clock.unix_time(), server.names());
        situation.serves_with(tls.as_ref().map(certificate));
        let sources = Sources {
            gateway: Arc::clone(&gateway),
            outbox: outbox.clone(),
            metrics: Arc::clone(&metrics),
            activity,
            clock: Arc::clone(&clock),
            pulse: server.pulse(),
            situation: Arc::clone(&situation),
        };
        let admin =
            config.admin.as_ref().map(|admin| Admin::bind(admin, sockets_of_admin, sources)).transpose()?;
        let state = StateLock::take(&config.state_dir);
        Ok(Self { config, gateway, server, admin, situation, outbox, delivery, clock, metrics, tls, state })
    }

    /// What reads the config `file` anew while the daemon runs.
    pub fn reload(&self, file: PathBuf, level: LogLevel) -> Reload {
        self.situation.is_of_file(file.clone());
        Reload {
            file,
            started_with: self.config.clone(),
            gateway: Arc::clone(&self.gateway),
            tls: self.server.tls(),
            situation: Arc::clone(&self.situation),
            clock: Arc::clone(&self.clock),
            metrics: Arc::clone(&self.metrics),
            level,
        }
    }

    /// A sign of life, while it runs.
    pub fn pulse(&self) -> Pulse {
        self.server.pulse()
    }

    /// How it is.
    pub fn situation(&self) -> Arc<Situation> {
        Arc::clone(&self.situation)
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

    /// Those of the admin listener.
    pub fn admin_addresses(&self) -> &[SocketAddr] {
        self.admin.as_ref().map(Admin::addresses).unwrap_or_default()
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
        announce_what_is_served(&self.gateway.snapshot());
        if let Some(address) = self.admin_addresses().iter().find(|address| !address.ip().is_loopback()) {
            warn!("the status page on {address} has no password: whoever reaches it sees what goes on");
        }
        if let Some(address) = self.admin_addresses().first() {
            info!("status page on http://{address}/");
        }
    }

    /// Serves until `stop` is true, then finishes what is in flight: what is deferred too, as far as it can. Connections
    /// are served by `workers`; everything else happens here.
    pub async fn run(self, workers: Workers, stop: watch::Receiver<bool>) {
        let Self { gateway, server, admin, situation, outbox, delivery, mut state, .. } = self;
        let pulse = server.pulse();
        let begun = async {
            pulse.beat().await;
            situation.enter(Phase::Serving);
            std::future::pending::<()>().await;
        };
        let tidying = async {
            loop {
                tokio::time::sleep(TIDY_INTERVAL).await;
                gateway.tidy();
                outbox.watch_disk();
            }
        };
        tokio::select! {
            () = serve(&gateway, server, &workers, &outbox, &situation, stop) => {}
            () = begun => {}
            () = tidying => {}
            () = delivery.run() => {}
            () = state.hold(&outbox) => {}
        }
        // Nobody delivers any more, and the folder is held until all that was said is in it.
        outbox.close().await;
        drop(state);
        gateway.last_words();
        // It tells of the stop until there is nothing more to tell.
        drop(admin);
    }
}

async fn serve(
    gateway: &Gateway,
    server: Server,
    workers: &Workers,
    outbox: &Outbox,
    situation: &Situation,
    mut stop: watch::Receiver<bool>,
) {
    let (close, closed) = watch::channel(false);
    let stopping = async {
        // Its sender may be gone: a stop too.
        _ = stop.wait_for(|stop| *stop).await;
        situation.enter(Phase::Draining);
        // New interactions are still served, by this process: the next one takes over as soon as no handler is
        // waited for. Calls that have just begun may still be deferred.
        let patience = gateway.snapshot().limits().drain_timeout;
        let ends = async {
            gateway.all_ended().await;
            outbox.none_waits().await;
        };
        _ = tokio::time::timeout(patience, ends).await;
        close.send_replace(true);
        Instant::now()
    };
    let hands_over = server.was_handed_over();
    let ((), closed) = tokio::join!(server.run(workers, closed), stopping);
    outbox.give_all_up();
    let (now, is_durable) = (Instant::now(), || outbox.health() == Health::Durable);
    let end = if hands_over && is_durable() {
        (closed + HANDOVER).max(now + AT_LEAST)
    } else {
        now + LAST_DELIVERIES
    };
    if tokio::time::timeout_at(end, outbox.all_delivered()).await.is_err() {
        let next =
            if is_durable() { "the next start goes on with them" } else { "those not on disk are lost" };
        warn!("stopping with late answers that are not delivered: {next}");
    }
}

/// Whether a socket with that address is for the admin listener.
fn is_of_admin(config: &Config, address: SocketAddr) -> bool {
    config.admin.as_ref().is_some_and(|admin| {
        let is_its_own = admin.listen.addresses().contains(&address.ip());
        address.port() == admin.listen.port && (is_its_own || admin.listen.port != config.listen.port)
    })
}

fn certificate(tls: &ServerTls) -> Certificate {
    Certificate { file: tls.certificate.clone(), expires: tls.expires, renew_from: tls.renew_from }
}

fn announce_tls(tls: Option<&ServerTls>) {
    match tls {
        Some(tls) => info!("the port speaks TLS with the certificate in {}", tls.certificate.display()),
        None => info!("the port speaks plain HTTP"),
    }
}

fn announce_what_is_served(snapshot: &Snapshot) {
    let (wanted, most) = (snapshot.limits().connections, snapshot.bounds().connections.limit());
    if most < wanted {
        warn!(
            "at most {most} connections instead of limits.connections = {wanted}: that is half of the files that this process may have open (LimitNOFILE, ulimit -n)"
        );
    }
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
