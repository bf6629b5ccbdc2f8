//! The config file: read whole, every mistake reported at its line, and turned into values that cannot be wrong.
//!
//! ```
//! use shardless::config::Config;
//!
//! let errors = Config::parse("config.toml", "prot = 3000").unwrap_err().to_string();
//! assert!(errors.contains("did you mean `port`?"));
//! ```

mod admin;
mod error;
mod file;
mod log;
mod reader;
mod route;
mod value;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use error::ConfigError;
pub use log::{Log, LogFormat, LogPart};
pub use value::{Address, ApiUrl, EndpointPath, HandlerUrl, HandlerUrls, OnSlow};

use crate::discord::interaction::Kind;
use crate::discord::signature::PublicKey;

/// Where `serve` and `check` look for the config file unless told otherwise.
pub const DEFAULT_PATH: &str = "/etc/shardless/config.toml";

/// A whole and valid config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where to listen.
    pub listen: Listen,
    /// The admin listener, for the operator; absent: none.
    pub admin: Option<Admin>,
    /// TLS on the port; absent for plain HTTP.
    pub tls: Option<Tls>,
    /// Where the daemon keeps what must outlive it.
    pub state_dir: StateDir,
    /// Bounds on what strangers can make the daemon hold or wait for.
    pub limits: Limits,
    /// The replay guard.
    pub replay: Replay,
    /// Where Discord is told of late answers.
    pub discord: Discord,
    /// The daemon's log.
    pub log: Log,
    /// The applications, at least one, by name; no two on one path.
    pub apps: Vec<App>,
}

/// `address`, `port` and `unix_socket`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Both loopback addresses, or one address.
    pub address: Address,
    /// The TCP port; 0 lets the system choose.
    pub port: u16,
    /// A unix socket besides.
    pub unix_socket: Option<PathBuf>,
}

/// `[admin]`: for the operator, who comes from this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Where to listen; no unix socket.
    pub listen: Listen,
    /// Connections open at once.
    pub connections: usize,
}

/// `[tls]`: where the certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tls {
    /// Made at the first start, and kept.
    SelfSigned,
    /// The owner's own files, in PEM.
    Files {
        /// The certificate, its issuers behind it.
        certificate: PathBuf,
        /// The private key.
        key: PathBuf,
    },
}

/// `state_dir`, or what stands for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateDir(Option<PathBuf>);

impl StateDir {
    /// The folder: the config's, else what systemd gives, else the user's own place for state.
    ///
    /// `None` where there is none of these.
    pub fn path(&self) -> Option<PathBuf> {
        let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        self.0
            .clone()
            .or_else(|| from("STATE_DIRECTORY"))
            .or_else(|| from("XDG_STATE_HOME").map(|state| state.join("shardless")))
            .or_else(|| from("HOME").map(|home| home.join(".local/state/shardless")))
    }
}

impl Listen {
    /// The addresses to bind, the one that must succeed first.
    pub fn addresses(&self) -> Vec<IpAddr> {
        match self.address {
            Address::Localhost => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
            Address::Ip(address) => vec![address],
        }
    }
}

/// `[limits]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request's line and headers.
    pub headers: usize,
    /// Bytes of a request's body.
    pub body: usize,
    /// Bytes of bodies and answers held in memory, in all.
    pub buffered: usize,
    /// Connections open at once.
    pub connections: usize,
    /// Calls not yet answered to Discord.
    pub in_flight: usize,
    /// Deferred interactions whose answer has not been delivered yet.
    pub deferred: usize,
    /// From a request's first byte to its last.
    pub read_timeout: Duration,
    /// For the client to take an answer.
    pub write_timeout: Duration,
    /// For a TLS handshake.
    pub handshake_timeout: Duration,
    /// Between two requests of a connection.
    pub idle_timeout: Duration,
    /// For a stop to wait for what is in flight.
    pub drain_timeout: Duration,
}

/// `[replay]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replay {
    /// Whether an interaction that came before is recognised.
    pub enabled: bool,
    /// The accepted distance of a request's timestamp from now, both ways.
    pub window: Duration,
}

/// `[discord]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discord {
    /// Its REST API.
    pub api: ApiUrl,
}

/// `[apps.NAME]`: one Discord application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    /// NAME.
    pub name: Arc<str>,
    /// The key that its requests are signed with.
    pub public_key: PublicKey,
    /// The path of its interactions endpoint.
    pub path: EndpointPath,
    /// Where its interactions go, unless a route says otherwise.
    pub handler: Handler,
    /// In this order.
    pub routes: Vec<Route>,
    /// Its calls not yet answered to Discord.
    pub in_flight: usize,
    /// From a request's first byte until Discord gets an answer, whatever the handler does.
    pub answer_within: Duration,
    /// What happens where the handler takes longer.
    pub on_slow: OnSlow,
    /// Whether the deferral of a command or modal, and so the answer, is for its user alone.
    pub ephemeral: bool,
    /// From an interaction's arrival until a deferred one gets the fallback text in place of its handler's answer.
    pub give_up_after: Duration,
    /// What the user sees, alone, where the handler fails.
    pub error_message: Option<String>,
}

/// `[[apps.NAME.routes]]`: where certain interactions go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Which ones.
    pub conditions: Conditions,
    /// Where to.
    pub target: Target,
    /// As the application's, for these alone.
    pub answer_within: Option<Duration>,
    /// As the application's, for these alone.
    pub on_slow: Option<OnSlow>,
    /// As the application's, for these alone.
    pub ephemeral: Option<bool>,
}

/// Which interactions take a route: those for which all that is given holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// What they are about.
    pub selector: Selector,
    /// Their kind, if only one will do.
    pub kind: Option<Kind>,
    /// The guild that they come from, if only one will do.
    pub guild: Option<u64>,
}

/// What interactions are about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// Anything.
    Any,
    /// A command, with everything below it: `"music"`, `"music play"`. Its autocomplete too.
    Command(String),
    /// The component or modal with this `custom_id`.
    CustomId(String),
    /// Components and modals whose `custom_id` begins so.
    CustomIdPrefix(String),
}

/// Where a route leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// To a handler.
    Handler(Box<Handler>),
    /// Nowhere: this callback, as JSON, is the answer.
    Reply(Arc<str>),
}

/// Where interactions go: `[handlers.NAME]`, or one URL.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Handler {
    /// NAME: two names are two handlers, each with its bounds, also where all else is the same.
    pub name: Option<Arc<str>>,
    /// Its replicas.
    pub urls: HandlerUrls,
    /// The certificates that its own must be signed by, in PEM, instead of the system's; for `https` alone.
    pub ca: Option<PathBuf>,
    /// A secret that it shares with the daemon, so that it knows what came through it.
    pub secret_file: Option<PathBuf>,
    /// Bounds on what it can make the daemon hold or wait for.
    pub bounds: HandlerBounds,
}

/// What `[handlers.NAME]` says of limits, for all its replicas together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HandlerBounds {
    /// Its calls not yet answered to Discord.
    pub max_in_flight: usize,
    /// Its calls past their deadline that it has not answered yet.
    pub max_deferred: usize,
    /// For a connection to one replica.
    pub connect_timeout: Duration,
    /// How long an unused connection is kept.
    pub idle_timeout: Duration,
    /// Bytes of an answer.
    pub max_response: usize,
}

impl Default for HandlerBounds {
    /// For a handler without a name, which the application's own bounds are for.
    fn default() -> Self {
        Self {
            max_in_flight: usize::MAX,
            max_deferred: usize::MAX,
            connect_timeout: Duration::from_millis(300),
            // Common servers close theirs after 2 s.
            idle_timeout: Duration::from_millis(1500),
            max_response: 10 * 1024 * 1024,
        }
    }
}

/// As the file says it, for logs.
impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        match &self.selector {
            Selector::Any => {}
            Selector::Command(path) => parts.push(format!("command {path}")),
            Selector::CustomId(id) => parts.push(format!("custom_id {id}")),
            Selector::CustomIdPrefix(text) => parts.push(format!("custom_id {text}*")),
        }
        parts.extend(self.kind.map(|kind| format!("kind {}", kind.as_str())));
        parts.extend(self.guild.map(|guild| format!("guild {guild}")));
        f.write_str(&parts.join(", "))
    }
}

impl Config {
    /// Reads a config file.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for a file that cannot be read, or with all mistakes that are in it.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let name = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&name, &text),
            Err(source) => Err(ConfigError::Unreadable { path: name, source }),
        }
    }

    /// Reads a config text; `name` stands for its file in errors.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Invalid`] with all mistakes that are in it.
    pub fn parse(name: &str, text: &str) -> Result<Self, ConfigError> {
        file::parse(text).map_err(|mistakes| ConfigError::invalid(name, text, mistakes))
    }
}

#[cfg(test)]
mod tests;
