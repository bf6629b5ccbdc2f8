//! What the tests play with: a daemon on a port of its own, a handler that does as told, and a clock in their hand.

pub(crate) mod admin;
mod binary;
pub(crate) mod certificates;
mod clock;
pub(crate) mod courier;
mod handler;
pub(crate) mod late;
pub(crate) mod restarts;
pub(crate) mod times;
pub(crate) mod wire;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use shardless::clock::Clock;
use shardless::config::Config;
use shardless::daemon::Daemon;
use shardless::metrics::Metrics;
use shardless::rehearsal::stand_in::Signed;
use shardless::rehearsal::{Author, Exchange, Payload, Signer, StandIn};
use shardless::systemd::Sockets;
use shardless::workers::Workers;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub(crate) use binary::{Binary, command};
pub(crate) use clock::TestClock;
pub(crate) use handler::{Handler, Received, Response, json};

/// The seconds that a condition may take to come true before its test fails.
const PATIENCE: Duration = Duration::from_secs(10);

/// A daemon in this process; it stops when dropped.
pub(crate) struct TestDaemon {
    pub(crate) address: SocketAddr,
    /// Where the admin listener is, if there is one.
    pub(crate) admin: Option<SocketAddr>,
    pub(crate) handler: Handler,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) discord: StandIn,
    stop: watch::Sender<bool>,
    running: JoinHandle<()>,
    _state: TempDir,
}

impl TestDaemon {
    /// A daemon with defaults, before a handler that answers every interaction with a message.
    pub(crate) async fn start() -> Self {
        Self::with("", "", Handler::start(|_| async { json(r#"{"type":4,"data":{"content":"hi"}}"#) }).await)
            .await
    }

    /// A daemon with some settings (`[limits]` …) and lines of its application.
    pub(crate) async fn with(settings: &str, app: &str, handler: Handler) -> Self {
        let mut daemon = Self::before(settings, app, &handler.url()).await;
        daemon.handler = handler;
        daemon
    }

    /// A daemon before a handler of another making; its own is not there.
    pub(crate) async fn before(settings: &str, app: &str, handler: &str) -> Self {
        let signer = Signer::generate().unwrap();
        let state = tempfile::tempdir().unwrap();
        let state_dir = if settings.starts_with("state_dir") {
            String::new()
        } else {
            format!("state_dir = {:?}\n", state.path())
        };
        // Nobody listens there: Discord itself is none of the tests' business.
        let discord =
            if settings.contains("[discord]") { "" } else { "[discord]\napi = \"http://127.0.0.1:9/api\"" };
        let text = format!(
            "port = 0\n{state_dir}{settings}\n{discord}\n[apps.mybot]\npublic_key = \"{}\"\nhandler = \"{handler}\"\n{app}\n",
            signer.public_key(),
        );
        let handler = Handler::none().await;
        let clock = Arc::new(TestClock::default());
        let config = Config::parse("test.toml", &text).unwrap();
        let daemon = Daemon::bind(config, Sockets::default(), Arc::<TestClock>::clone(&clock)).unwrap();
        let address = daemon.addresses().unwrap()[0];
        let admin = daemon.admin_addresses().first().copied();
        let metrics = daemon.metrics();
        let (stop, stopped) = watch::channel(false);
        let discord = StandIn::new(signer, Arc::<TestClock>::clone(&clock)).unwrap();
        let running = tokio::spawn(daemon.run(Workers::start(2).unwrap(), stopped));
        Self { address, admin, handler, clock, metrics, discord, stop, running, _state: state }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/interactions", self.address)
    }

    /// An author of interactions, whose ids are unlike those of others with another salt.
    pub(crate) fn author(&self, salt: u64) -> Author {
        Author::new(self.clock.unix_time(), salt << 12)
    }

    /// A signed command that was never sent before.
    pub(crate) fn command(&self) -> Signed {
        self.discord.sign(&self.fresh_command())
    }

    pub(crate) fn fresh_command(&self) -> Payload {
        self.author(self.clock.next_salt()).command("roll", &[])
    }

    pub(crate) async fn send(&self, signed: &Signed) -> Exchange {
        self.discord.send(&self.url(), signed).await.unwrap()
    }

    /// The value of a counter or gauge, by its name with labels as they stand in the exposition; 0 if absent.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        metric(&self.metrics, name)
    }

    pub(crate) fn refusals(&self, reason: &str) -> f64 {
        self.metric(&format!("shardless_refusals_total{{reason=\"{reason}\"}}"))
    }

    /// How often a request was refused or a connection ended for that reason.
    pub(crate) fn faults(&self, reason: &str) -> f64 {
        self.refusals(reason)
            + self.metric(&format!("shardless_connection_faults_total{{reason=\"{reason}\"}}"))
    }

    pub(crate) fn interactions(&self, kind: &str, outcome: &str) -> f64 {
        self.metric(&format!(
            "shardless_interactions_total{{app=\"mybot\",kind=\"{kind}\",outcome=\"{outcome}\"}}"
        ))
    }

    /// The next good request works, whatever came before it.
    pub(crate) async fn assert_works(&self) {
        let before = self.handler.calls();
        let exchange = self.send(&self.command()).await;
        assert_eq!(exchange.status, 200, "{exchange:?}");
        assert_eq!(self.handler.calls(), before + 1);
    }
}

impl Drop for TestDaemon {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        self.running.abort();
    }
}

fn metric(metrics: &Metrics, name: &str) -> f64 {
    let text = metrics.encode().unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().unwrap())
}

/// Whether the bars are to be measured at full size: with the program as it ships alone.
pub(crate) fn is_full() -> bool {
    !cfg!(debug_assertions) && std::env::var_os("SHARDLESS_FULL").is_some_and(|value| value == "1")
}

/// Waits until something is so.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, is_so: impl FnMut() -> F) {
    until_within(PATIENCE, what, is_so).await;
}

/// The same, for what takes longer.
pub(crate) async fn until_within<F: Future<Output = bool>>(
    patience: Duration,
    what: &str,
    mut is_so: impl FnMut() -> F,
) {
    let wait = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(patience, wait).await.is_ok(), "in vain: {what}");
}
