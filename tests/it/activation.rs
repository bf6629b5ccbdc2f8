//! What a service manager has to do with the daemon: sockets that it hands over, what it is told, and its watchdog.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use shardless::clock::{Clock, SystemClock};
use shardless::rehearsal::rest::{Api, Fault};
use shardless::rehearsal::{Author, StandIn};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixStream};

use crate::support::late::{ANSWER_WITHIN, late};
use crate::support::{Binary, Handler, json, until, wire};

/// As systemd does it: the sockets are the descriptors from 3 on.
fn hands_over(sockets: Vec<OwnedFd>) -> impl FnOnce(&mut Command) {
    move |command| {
        let script = match sockets.len() {
            1 => "exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\"",
            2 => "exec 3<&0 4<&1 </dev/null >&2; LISTEN_FDS=2 LISTEN_PID=$$ exec \"$@\"",
            more => panic!("{more} sockets"),
        };
        let mut shell = Command::new("sh");
        shell.args(["-c", script, "sh"]).arg(command.get_program()).args(command.get_args());
        shell
            .envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))))
            .stderr(Stdio::piped());
        let mut sockets = sockets.into_iter();
        shell.stdin(sockets.next().unwrap());
        if let Some(second) = sockets.next() {
            shell.stdout(second);
        }
        *command = shell;
    }
}

fn socket() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn signed(daemon: &Binary, salt: u64) -> shardless::rehearsal::stand_in::Signed {
    let discord = StandIn::new(daemon.signer.clone(), std::sync::Arc::new(SystemClock)).unwrap();
    discord.sign(&Author::new(SystemClock.unix_time(), salt << 12).command("roll", &[]))
}

async fn answer(daemon: &Binary, address: SocketAddr, salt: u64) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&wire::with_length(&signed(daemon, salt))).await.unwrap();
    wire::read_answer(&mut stream).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_is_handed_over_is_served_and_the_port_is_not_bound_again() {
    let handler = Handler::fine().await;
    let (listener, address) = socket();
    let settings = format!("port = {}\naddress = \"127.0.0.1\"", address.port());
    let daemon = Binary::serve_with(&settings, "", &handler.url(), hands_over(vec![listener.into()])).await;
    assert!(answer(&daemon, address, 1).await.starts_with("http/1.1 200"));
    let log = daemon.log();
    assert!(log.contains(&format!("shardless listens on {address} ")), "{log}");
    assert!(!log.contains("systemctl edit"), "{log}");
}

/// As it does not know of it, the main listener has nothing to miss.
#[tokio::test(flavor = "multi_thread")]
async fn a_socket_for_the_admin_listener_is_served_by_it() {
    let (listener, admin) = socket();
    let (main, address) = socket();
    let settings = format!(
        "port = {}\naddress = \"127.0.0.1\"\n[admin]\nport = {}\naddress = \"127.0.0.1\"",
        address.port(),
        admin.port()
    );
    let sockets = hands_over(vec![listener.into(), main.into()]);
    let handler = Handler::fine().await;
    let daemon = Binary::serve_with(&settings, "", &handler.url(), sockets).await;
    daemon.until_log(&format!("status page on http://{admin}/")).await;
    assert!(!daemon.log().contains(" WARN "), "{}", daemon.log());
    let mut stream = TcpStream::connect(admin).await.unwrap();
    stream.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    assert!(wire::read_answer(&mut stream).await.starts_with("http/1.1 200"));
    assert!(answer(&daemon, address, 1).await.starts_with("http/1.1 200"));
}

/// Only for the main port is there a unit that could hand it over.
#[tokio::test(flavor = "multi_thread")]
async fn an_admin_listener_that_nobody_hands_over_is_bound_without_a_word() {
    let (main, address) = socket();
    let settings = format!("port = {}\naddress = \"127.0.0.1\"\n[admin]\nport = 0", address.port());
    let daemon =
        Binary::serve_with(&settings, "", "http://127.0.0.1:9/", hands_over(vec![main.into()])).await;
    daemon.until_log("status page on http://127.0.0.1:").await;
    assert!(!daemon.log().contains(" WARN "), "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket_is_taken_over_too() {
    let handler = Handler::fine().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("http.sock");
    let unix = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let (tcp, address) = socket();
    let settings = format!("port = {}\naddress = \"127.0.0.1\"\nunix_socket = {path:?}", address.port());
    let sockets = hands_over(vec![unix.into(), tcp.into()]);
    let daemon = Binary::serve_with(&settings, "", &handler.url(), sockets).await;
    assert!(answer(&daemon, address, 1).await.starts_with("http/1.1 200"));
    let mut stream = UnixStream::connect(&path).await.unwrap();
    stream.write_all(&wire::with_length(&signed(&daemon, 2))).await.unwrap();
    assert!(wire::read_answer(&mut stream).await.starts_with("http/1.1 200"));
    assert!(!daemon.log().contains(" WARN "), "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_nobody_can_connect_to_is_told_of() {
    let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let sockets = hands_over(vec![datagrams.into()]);
    let daemon = Binary::serve_with("", "", "http://127.0.0.1:9/", sockets).await;
    assert!(daemon.log().contains("hands over 1 sockets that nobody can connect to"), "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_config_names_besides_is_bound_with_a_warning() {
    let handler = Handler::fine().await;
    let (listener, handed_over) = socket();
    let daemon = Binary::serve_with("", "", &handler.url(), hands_over(vec![listener.into()])).await;
    daemon.until_log("goes to").await;
    let log = daemon.log();
    let line = log.lines().find(|line| line.contains(" WARN ")).unwrap();
    assert!(
        line.contains("systemd does not hand 127.0.0.1:")
            && line.contains("`systemctl edit shardless.socket`")
    );
    let listens = log.lines().find(|line| line.contains("listens on")).unwrap();
    let own = listens.split("127.0.0.1:").nth(2).unwrap();
    let own = own.split_whitespace().next().unwrap().parse().unwrap();
    assert_ne!(own, handed_over.port());
    for (salt, port) in [(1, handed_over.port()), (2, own)] {
        assert!(answer(&daemon, ([127, 0, 0, 1], port).into(), salt).await.starts_with("http/1.1 200"));
    }
}

/// Nobody knows how long such a request has waited, so it gets its answer soon. Those that come later have all the time.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_waited_for_the_start_is_answered_soon() {
    let slow = Handler::start(|_| async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        json(r#"{"type":4}"#)
    })
    .await;
    let (listener, address) = socket();
    let mut waiting = TcpStream::connect(address).await.unwrap();
    waiting.write_all(b"P").await.unwrap();
    let settings = format!("port = {}\naddress = \"127.0.0.1\"", address.port());
    let app = "on_slow = \"fail\"";
    let daemon = Binary::serve_with(&settings, app, &slow.url(), hands_over(vec![listener.into()])).await;
    let start = Instant::now();
    waiting.write_all(&wire::with_length(&signed(&daemon, 1))[1..]).await.unwrap();
    assert!(wire::read_answer(&mut waiting).await.starts_with("http/1.1 504"));
    assert!((450..900).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    daemon.until_log("handler is late: no answer after 500ms").await;

    waiting.write_all(&wire::with_length(&signed(&daemon, 2))).await.unwrap();
    assert!(
        wire::read_answer(&mut waiting).await.starts_with("http/1.1 200"),
        "the connection's next request"
    );
    assert!(answer(&daemon, address, 3).await.starts_with("http/1.1 200"), "another connection");
}

/// Whoever connects meanwhile waits in the socket for the next process, and Discord for them: three seconds.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_does_not_wait_for_a_discord_in_trouble() {
    let api = Api::with_faults(0, |_| Some(Fault::Status(503))).await.unwrap();
    let handler = late(r#"{"type":4,"data":{"content":"late"}}"#).await;
    let (listener, address) = socket();
    let settings = format!("port = {}\n[discord]\napi = \"{}\"", address.port(), api.url());
    let app = format!("answer_within = \"{}ms\"", ANSWER_WITHIN.as_millis());
    let handed_over = hands_over(vec![listener.into()]);
    let mut daemon = Binary::serve_with(&settings, &app, &handler.url(), handed_over).await;
    until("the outbox is open", || async { daemon.folder.path().join("state/outbox.sqlite3-wal").exists() })
        .await;
    assert!(answer(&daemon, address, 1).await.ends_with(r#"{"type":5}"#));
    api.until(|api| !api.calls().is_empty()).await;
    let stopped = Instant::now();
    daemon.signal("TERM");
    assert!(daemon.wait().success());
    assert!(stopped.elapsed() < Duration::from_millis(2800), "{:?}", stopped.elapsed());
    assert!(daemon.log().contains("the next start goes on with them"), "{}", daemon.log());
}

/// The other end of `$NOTIFY_SOCKET`.
struct Manager {
    socket: UnixDatagram,
    said: Vec<String>,
}

impl Manager {
    fn new(folder: &Path) -> Self {
        let socket = UnixDatagram::bind(folder.join("notify")).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self { socket, said: Vec::new() }
    }

    fn hear(&mut self) {
        let mut message = [0; 4096];
        while let Ok(length) = self.socket.recv(&mut message) {
            let text = std::str::from_utf8(&message[..length]).unwrap();
            self.said.extend(text.lines().map(str::to_owned));
        }
    }

    /// Waits until the daemon says a line that begins so, once more than before; all before it is forgotten.
    async fn until(&mut self, words: &str) -> String {
        let start = Instant::now();
        loop {
            self.hear();
            if let Some(at) = self.said.iter().position(|line| line.starts_with(words)) {
                return self.said.drain(..=at).next_back().unwrap();
            }
            assert!(start.elapsed() < Duration::from_secs(10), "{words} was not said");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_manager_is_told_of_every_step() {
    let handler = Handler::fine().await;
    let folder = tempfile::tempdir().unwrap();
    let mut manager = Manager::new(folder.path());
    let notify = folder.path().join("notify");
    let mut daemon = Binary::serve_with("", "", &handler.url(), |command| {
        command.env("NOTIFY_SOCKET", &notify);
    })
    .await;
    manager.until("READY=1").await;
    assert_eq!(manager.until("STATUS=").await, "STATUS=Serving mybot at /interactions");

    daemon.rewrite("", "path = \"/other\"", &handler.url());
    daemon.signal("HUP");
    manager.until("RELOADING=1").await;
    manager.until("MONOTONIC_USEC=").await;
    manager.until("READY=1").await;
    assert_eq!(manager.until("STATUS=").await, "STATUS=Serving mybot at /other");

    daemon.rewrite("prot = 1", "", &handler.url());
    daemon.signal("HUP");
    manager.until("READY=1").await;
    let status = manager.until("STATUS=").await;
    assert!(
        status.starts_with("STATUS=Serving by an earlier config: ") && status.contains("config.toml:2: "),
        "{status}"
    );

    daemon.signal("TERM");
    manager.until("STOPPING=1").await;
    assert_eq!(manager.until("EXTEND_TIMEOUT_USEC=").await, "EXTEND_TIMEOUT_USEC=30000000");
    assert_eq!(daemon.wait().code(), Some(0));
    assert!(!manager.said.iter().any(|line| line == "WATCHDOG=1"), "nobody asked for it");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_watchdog_is_fed_while_the_daemon_is_well_and_while_it_stops() {
    let (handler, gate) = Handler::gated().await;
    let folder = tempfile::tempdir().unwrap();
    let mut manager = Manager::new(folder.path());
    let notify = folder.path().join("notify");
    let mut daemon = Binary::serve_with("[limits]\nconnections = 1", "", &handler.url(), |command| {
        command.env("NOTIFY_SOCKET", &notify).env("WATCHDOG_USEC", "200000");
    })
    .await;
    manager.until("READY=1").await;
    for _ in 0..5 {
        manager.until("WATCHDOG=1").await;
    }
    // With no room for a connection, the accept loop waits, and is well.
    let mut stream = TcpStream::connect(daemon.address).await.unwrap();
    stream.write_all(&wire::with_length(&signed(&daemon, 1))).await.unwrap();
    until("it has arrived", || async { handler.calls() == 1 }).await;
    manager.hear();
    manager.said.clear();
    for _ in 0..5 {
        manager.until("WATCHDOG=1").await;
    }
    daemon.signal("TERM");
    manager.until("STOPPING=1").await;
    for _ in 0..5 {
        manager.until("WATCHDOG=1").await;
    }
    gate.add_permits(1);
    assert!(wire::read_answer(&mut stream).await.starts_with("http/1.1 200"));
    assert_eq!(daemon.wait().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn state_is_held_by_one_daemon_and_a_second_one_serves_while_it_waits_for_it() {
    let handler = Handler::fine().await;
    let folder = tempfile::tempdir().unwrap();
    let settings = format!("state_dir = {:?}", folder.path());
    let mut first = Binary::serve(&settings, "", &handler.url()).await;
    let second = Binary::serve(&settings, "", &handler.url()).await;
    second.until_log("holds").await;
    let log = second.log();
    let line = log.lines().find(|line| line.contains("the folder for state")).unwrap();
    assert!(line.contains(" WARN ") && line.contains("another shardless (process "), "{line}");
    assert!(answer(&second, second.address, 1).await.starts_with("http/1.1 200"));
    assert!(!second.log().contains("is held now"), "{}", second.log());
    first.signal("KILL");
    first.wait();
    second.until_log("is held now").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_for_state_that_cannot_be_used_is_a_warning() {
    let handler = Handler::fine().await;
    let daemon = Binary::serve("state_dir = \"/proc/none\"", "", &handler.url()).await;
    daemon.until_log("cannot write into /proc/none, the folder for state").await;
    assert!(answer(&daemon, daemon.address, 1).await.starts_with("http/1.1 200"));
}
