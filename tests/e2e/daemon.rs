//! The daemon, as its users run it.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::discord::Discord;
use crate::process::{self, Process, free_port};

/// A running daemon, with one application.
pub(crate) struct Daemon {
    process: Option<Process>,
    folder: TempDir,
    upstream: Upstream,
}

/// A way from a proxy to the daemon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Way {
    /// HTTP to the port.
    #[default]
    Plain,
    /// TLS to the port, with a certificate of the daemon's own making.
    SelfSigned,
    /// HTTP to the unix socket.
    Unix,
}

/// Where a proxy finds the daemon.
#[derive(Clone, Debug)]
pub(crate) struct Upstream {
    pub(crate) way: Way,
    pub(crate) port: u16,
    pub(crate) socket: PathBuf,
    /// The self-signed certificate.
    pub(crate) certificate: PathBuf,
}

impl Upstream {
    /// Something else than the daemon.
    pub(crate) fn plain(port: u16) -> Self {
        Self { way: Way::Plain, port, socket: PathBuf::new(), certificate: PathBuf::new() }
    }
}

/// What a test wants to be different.
#[derive(Default)]
pub(crate) struct Settings {
    /// How the proxy comes in.
    pub(crate) way: Way,
    /// Lines for `[tls]`, where the way does not say it.
    pub(crate) tls: String,
    /// Lines for `[apps.mybot]`.
    pub(crate) app: String,
    /// Lines for `[limits]`.
    pub(crate) limits: &'static str,
    /// Discord's REST API; without it, nobody.
    pub(crate) api: String,
    /// The secret that it shares with the handler, if it does.
    pub(crate) secret: &'static str,
    /// The port of the admin listener, if there is to be one.
    pub(crate) admin: Option<u16>,
    /// The folder for state, where it is a certain one.
    pub(crate) state: Option<PathBuf>,
}

impl From<Way> for Settings {
    fn from(way: Way) -> Self {
        Self { way, ..Self::default() }
    }
}

impl Daemon {
    /// Starts a daemon that believes `discord` and hands over to `handler`, a port of 127.0.0.1.
    pub(crate) async fn start(discord: &Discord, handler: u16, settings: Settings) -> Self {
        let (folder, port, public_key) = (process::folder(), free_port(), discord.public_key());
        let Settings { way, mut tls, app, limits, api, secret, admin, state } = settings;
        let api = if api.is_empty() { "http://127.0.0.1:9/api" } else { &api };
        let socket = folder.path().join("http.sock");
        let state = state.unwrap_or_else(|| folder.path().join("state"));
        if way == Way::SelfSigned {
            tls.push_str("self_signed = true\n");
        }
        let tls = if tls.is_empty() { tls } else { format!("[tls]\n{tls}") };
        let admin = admin.map(|port| format!("[admin]\nport = {port}")).unwrap_or_default();
        let url = format!("http://127.0.0.1:{handler}/interactions");
        let (handler, handlers) = if secret.is_empty() {
            (url, String::new())
        } else {
            let file = folder.path().join("bot.secret");
            std::fs::write(&file, secret).unwrap();
            std::fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
            ("bot".to_owned(), format!("[handlers.bot]\nurls = [{url:?}]\nsecret_file = {file:?}\n"))
        };
        let config = format!(
            "port = {port}\n\
             unix_socket = {socket:?}\n\
             state_dir = {state:?}\n\
             {tls}\n\
             {admin}\n\
             [limits]\n{limits}\n\
             [discord]\napi = {api:?}\n\
             [apps.mybot]\npublic_key = \"{public_key}\"\nhandler = \"{handler}\"\n{app}\n{handlers}"
        );
        let upstream = Upstream { way, port, socket, certificate: state.join("self-signed.pem") };
        let mut daemon = Self { process: None, folder, upstream };
        std::fs::write(daemon.config(), config).unwrap();
        daemon.restart().await;
        daemon
    }

    /// Where it listens, also after a restart.
    pub(crate) fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// Stops it by that signal.
    pub(crate) async fn stop(&mut self, signal: &str) {
        self.process.take().unwrap().stop(signal).await;
    }

    /// Lets it read its config anew, with another line at its beginning; waits until it says what it made of it.
    pub(crate) async fn reload_with(&self, line: &str) {
        let (process, before) = (self.process.as_ref().unwrap(), self.log().len());
        let config = std::fs::read_to_string(self.config()).unwrap();
        let (_, config) = config.split_once("port =").unwrap();
        std::fs::write(self.config(), format!("{line}\nport ={config}")).unwrap();
        process.signal("HUP");
        process::until("the config was read", async || {
            let log = process.log();
            let new = log.get(before..).unwrap_or_default();
            ["is in force now", "stays as it was"].iter().any(|words| new.contains(words))
        })
        .await;
    }

    /// Makes it hang: the system still takes connections for it.
    pub(crate) async fn hang(&self) {
        self.process.as_ref().unwrap().hang().await;
    }

    /// Starts it once more after a stop.
    pub(crate) async fn restart(&mut self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shardless"));
        command.arg("serve").arg("--config").arg(self.config());
        let log = self.folder.path().join("log");
        self.process = Some(Process::start("shardless", command, &log, self.upstream.port).await);
        // It is bound after the port.
        let socket = &self.upstream.socket;
        process::until("the unix socket is bound", async || UnixStream::connect(socket).is_ok()).await;
    }

    /// Waits for a line in its log that holds all of `parts`.
    pub(crate) async fn logs(&self, parts: &[&str]) -> String {
        let process = self.process.as_ref().unwrap();
        let mut line = None;
        process::until(&format!("the log has a line with {parts:?}"), async || {
            let log = process.log();
            line = log.lines().find(|line| parts.iter().all(|part| line.contains(part))).map(str::to_owned);
            line.is_some()
        })
        .await;
        line.unwrap()
    }

    /// What it said so far, before restarts too.
    pub(crate) fn log(&self) -> String {
        self.process.as_ref().unwrap().log()
    }

    /// Its threads of that name.
    pub(crate) fn threads(&self, name: &str) -> Vec<u32> {
        self.process.as_ref().unwrap().threads(name)
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("config.toml")
    }
}
