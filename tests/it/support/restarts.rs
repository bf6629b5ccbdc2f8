//! The command itself between slow handlers and Discord's REST API, on a port and in a folder that outlive its process.

use std::net::{Ipv6Addr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use shardless::clock::{Clock, SystemClock};
use shardless::rehearsal::rest::{Api, Script, View};
use shardless::rehearsal::stand_in::Signed;
use shardless::rehearsal::{Author, Exchange, Payload, StandIn};

use super::late::{ANSWER_WITHIN, token};
use super::{Binary, Handler, until, until_within};

/// What the user reads where the handler has no answer.
pub(crate) const TOO_LONG: &str = "This took too long. Please try again.";

/// For the slowest end of an entry: Discord is asked for 11 s whether it knows of a deferral.
pub(crate) const LONG: Duration = Duration::from_secs(40);

/// A daemon that may be killed, and what stays while it is gone.
pub(crate) struct Scene {
    pub(crate) binary: Binary,
    pub(crate) api: Arc<Api>,
    pub(crate) handler: Handler,
    discord: StandIn,
    author: Arc<Mutex<Author>>,
}

impl Scene {
    /// With an API without faults.
    pub(crate) async fn new(app: &str, handler: Handler) -> Self {
        Self::following(Script::default(), "", app, handler).await
    }

    /// With an API that behaves by a script, settings and lines of the application.
    pub(crate) async fn following(script: Script, settings: &str, app: &str, handler: Handler) -> Self {
        let api = Arc::new(Api::following(script, 0).await.unwrap());
        let settings = format!("port = {}\n{settings}\n[discord]\napi = \"{}\"\n", free_port(), api.url());
        let app = if app.contains("answer_within") {
            app.to_owned()
        } else {
            format!("answer_within = \"{}ms\"\n{app}", ANSWER_WITHIN.as_millis())
        };
        let binary = Binary::serve(&settings, &app, &handler.url()).await;
        let discord = StandIn::new(binary.signer.clone(), Arc::new(SystemClock)).unwrap();
        let author = Arc::new(Mutex::new(Author::new(SystemClock.unix_time(), 0)));
        Self { binary, api, handler, discord, author }
    }

    /// Another process on the same folder for state, before the same handler and the same API.
    pub(crate) async fn beside(&self) -> Self {
        let settings = format!("state_dir = {:?}\n[discord]\napi = \"{}\"\n", self.state(), self.api.url());
        let settings = format!("port = {}\n{settings}", free_port());
        let app = format!("answer_within = \"{}ms\"\n", ANSWER_WITHIN.as_millis());
        let binary = Binary::serve(&settings, &app, &self.handler.url()).await;
        let discord = StandIn::new(binary.signer.clone(), Arc::new(SystemClock)).unwrap();
        let author = Arc::new(Mutex::new(Author::new(SystemClock.unix_time(), 1 << 12)));
        Self { binary, api: Arc::clone(&self.api), handler: Handler::none().await, discord, author }
    }

    /// Once its store is open: what is deferred from now on is on disk.
    pub(crate) async fn durable(app: &str, handler: Handler) -> Self {
        let scene = Self::new(app, handler).await;
        scene.until_open().await;
        scene
    }

    pub(crate) async fn until_open(&self) {
        until("the store is open", || async { self.entries("").is_some() }).await;
    }

    pub(crate) fn write(&self, write: impl FnOnce(&mut Author) -> Payload) -> Payload {
        write(&mut self.author.lock().unwrap())
    }

    pub(crate) fn command(&self) -> Payload {
        self.write(|author| author.command("roll", &[]))
    }

    /// Discord, for interactions that are sent while this scene changes.
    pub(crate) fn sender(&self) -> Sender {
        Sender { discord: self.discord.clone(), url: self.binary.url() }
    }

    /// Sends an interaction as Discord does, and takes its answer as Discord does. `None` if there is no answer.
    pub(crate) async fn send(&self, payload: &Payload) -> Option<Exchange> {
        self.sender().send(&self.api, payload).await
    }

    /// Sends an interaction that is to be deferred.
    pub(crate) async fn defer(&self, payload: &Payload) {
        let exchange = self.send(payload).await.expect("no answer");
        assert!(is_deferral(&exchange), "{exchange:?}\n{}", self.binary.log());
    }

    /// An interaction as bytes, for a connection of its own.
    pub(crate) fn signed(&self, payload: &Payload) -> Signed {
        self.discord.sign(payload)
    }

    pub(crate) async fn deferred_command(&self) -> Payload {
        let payload = self.command();
        self.defer(&payload).await;
        payload
    }

    /// How many entries are on disk, by a condition of SQL; `None` while there is no store.
    pub(crate) fn entries(&self, condition: &str) -> Option<usize> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
        let store = Connection::open_with_flags(self.state().join("outbox.sqlite3"), flags).ok()?;
        store.busy_timeout(Duration::from_secs(1)).ok()?;
        let select = format!("SELECT count(*) FROM entries {condition}");
        store.query_row(&select, [], |row| row.get::<_, u32>(0)).ok().map(|count| count as usize)
    }

    /// Waits until so many entries are on disk.
    pub(crate) async fn until_entries(&self, condition: &str, count: usize) {
        until_within(LONG, "entries on disk", || async { self.entries(condition) == Some(count) }).await;
    }

    /// What the user sees of it, once nothing is waited for any more.
    pub(crate) async fn end_of(&self, payload: &Payload) -> View {
        self.until_entries("", 0).await;
        self.view(payload)
    }

    pub(crate) fn view(&self, payload: &Payload) -> View {
        self.api.view(&token(payload)).unwrap()
    }

    /// The calls of the API, each as its method and what it is about.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.api.calls().iter().map(|call| format!("{} {:?}", call.method, call.target)).collect()
    }

    /// The folder for state.
    pub(crate) fn state(&self) -> PathBuf {
        self.binary.folder.path().join("state")
    }
}

/// Sends interactions to a daemon that may be killed meanwhile.
#[derive(Clone)]
pub(crate) struct Sender {
    discord: StandIn,
    url: String,
}

impl Sender {
    pub(crate) async fn send(&self, api: &Api, payload: &Payload) -> Option<Exchange> {
        api.sent(&payload.body);
        let exchange = self.discord.send(&self.url, &self.discord.sign(payload)).await.ok()?;
        if exchange.status == 200 {
            assert!(api.answered(&payload.body, &exchange.body), "{exchange:?}");
        }
        Some(exchange)
    }
}

/// Whether Discord is told to wait.
pub(crate) fn is_deferral(exchange: &Exchange) -> bool {
    [&br#"{"type":5"#[..], br#"{"type":6"#].iter().any(|start| exchange.body.starts_with(start))
}

/// The texts of the messages after the first one.
pub(crate) fn follow_ups(view: &View) -> Vec<&str> {
    view.follow_ups.iter().map(|message| &*message.content).collect()
}

/// A port that nothing listens on, below those that the system gives to outgoing connections, and never the same twice.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let first = 10_000 + u16::try_from(std::process::id() % 1000).unwrap() * 20;
        let port = first + NEXT.fetch_add(1, Ordering::Relaxed);
        if TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).is_ok() {
            return port;
        }
    }
}
