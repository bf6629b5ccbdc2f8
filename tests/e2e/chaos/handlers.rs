//! Handlers that die, freeze and lie when they are told to, and say of each interaction that it came.
//!
//! They speak HTTP by hand: no library would send what they are to send.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::{fmt, io};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::ANSWER_WITHIN;
use super::lots::Lots;

/// A connection that nothing comes by for so long has been forgotten by its other end.
const IDLE: Duration = Duration::from_secs(20);
/// Bytes of a request.
const LARGEST: usize = 1 << 20;
/// Headers that a liar goes on with, a kilobyte each.
const MANY_HEADERS: usize = 5000;

/// What a replica does with what comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    /// It answers.
    Well,
    /// It takes requests and never answers them.
    Frozen,
    /// Its answers are none.
    Lying,
}

/// What a liar says.
const LIES: [&str; 7] = [
    "lie: HTML",
    "lie: 500",
    "lie: wrong callback",
    "lie: broken JSON",
    "lie: wrong length",
    "lie: reset in the middle",
    "lie: endless headers",
];

/// An interaction that has come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrived {
    /// Its snowflake.
    pub(super) id: u64,
    /// The daemon that sent it, and which of its processes.
    pub(super) from: (usize, u16),
    /// Which replica it came to.
    pub(super) replica: u8,
}

impl fmt::Display for Arrived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (daemon, process) = self.from;
        write!(f, "came to replica {} from process {process} of daemon {daemon}", self.replica)
    }
}

/// Whom a replica tells.
pub(super) trait Notes: Send + Sync + 'static {
    /// An interaction has come.
    fn arrived(&self, arrived: Arrived);
    /// Something bad was done.
    fn did(&self, what: &'static str);
}

/// One replica; it ends, with its connections, when dropped.
pub(super) struct Replica {
    pub(super) port: u16,
    scene: Arc<Scene>,
    serving: Mutex<Option<JoinHandle<()>>>,
}

struct Scene {
    number: u8,
    mood: AtomicU8,
    lots: Lots,
    notes: Arc<dyn Notes>,
}

/// What matters of a request.
struct Request {
    id: u64,
    from: (usize, u16),
    kind: u64,
    name: String,
}

impl Replica {
    pub(super) async fn start(number: u8, port: u16, seed: u64, notes: Arc<dyn Notes>) -> Self {
        let lots = Lots::new(seed, ("replica", number));
        let scene = Arc::new(Scene { number, mood: AtomicU8::new(Mood::Well as u8), lots, notes });
        let replica = Self { port, scene, serving: Mutex::default() };
        replica.rise().await;
        replica
    }

    /// From now on it is like that.
    pub(super) fn turns(&self, mood: Mood) {
        self.scene.mood.store(mood as u8, Ordering::SeqCst);
    }

    /// Nobody listens any more, and all its connections are reset.
    pub(super) fn die(&self) {
        if let Some(serving) = self.serving.lock().unwrap().take() {
            serving.abort();
        }
    }

    /// It listens.
    pub(super) async fn rise(&self) {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await.unwrap();
        let serving = tokio::spawn(serve(listener, Arc::clone(&self.scene)));
        *self.serving.lock().unwrap() = Some(serving);
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.die();
    }
}

async fn serve(listener: TcpListener, scene: Arc<Scene>) {
    // Dropped with this task, and then its connections are too.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        // Closed so, a connection is reset instead of ended.
        _ = stream.set_zero_linger();
        _ = stream.set_nodelay(true);
        let scene = Arc::clone(&scene);
        connections.spawn(async move { scene.connection(stream).await });
        while connections.try_join_next().is_some() {}
    }
}

impl Scene {
    async fn connection(&self, mut stream: TcpStream) -> io::Result<()> {
        let mut read = Vec::new();
        loop {
            let Some(request) = tokio::time::timeout(IDLE, Request::read(&mut stream, &mut read)).await??
            else {
                return Ok(());
            };
            self.notes.arrived(Arrived { id: request.id, from: request.from, replica: self.number });
            let mood = self.mood.load(Ordering::SeqCst);
            if mood == Mood::Frozen as u8 {
                self.notes.did("frozen request");
                return ends(&mut stream).await;
            }
            if mood == Mood::Lying as u8 {
                if self.lie(&mut stream, &request).await? {
                    continue;
                }
                return Ok(());
            }
            let Some(time) = request.time(&self.lots) else { return ends(&mut stream).await };
            tokio::select! {
                ended = ends(&mut stream) => return ended,
                () = tokio::time::sleep(time) => {}
            }
            stream.write_all(&ok("200 OK", "application/json", &request.callback(), 0)).await?;
        }
    }

    /// True if the connection may go on.
    async fn lie(&self, stream: &mut TcpStream, request: &Request) -> io::Result<bool> {
        let lie = self.lots.pick(&LIES);
        self.notes.did(lie);
        let callback = request.callback();
        let json = |body: &str| ok("200 OK", "application/json", body, 0);
        let answer = match lie {
            "lie: HTML" => ok("200 OK", "text/html", "<html><body>hello</body></html>", 0),
            "lie: 500" => ok("500 Internal Server Error", "text/plain", "trouble", 0),
            "lie: wrong callback" => json(r#"{"type":1}"#),
            "lie: broken JSON" => json(callback.trim_end_matches('}')),
            "lie: wrong length" => {
                stream.write_all(&ok("200 OK", "application/json", &callback, 10)).await?;
                stream.shutdown().await?;
                ends(stream).await?;
                return Ok(false);
            }
            "lie: reset in the middle" => {
                let whole = json(&callback);
                stream.write_all(&whole[..whole.len() - 9]).await?;
                return Ok(false);
            }
            _ => {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n").await?;
                let header = format!("x-more: {}\r\n", "y".repeat(1000));
                for _ in 0..MANY_HEADERS {
                    stream.write_all(header.as_bytes()).await?;
                }
                return Ok(false);
            }
        };
        stream.write_all(&answer).await?;
        Ok(true)
    }
}

/// Waits until the other end hangs up.
async fn ends(stream: &mut TcpStream) -> io::Result<()> {
    let mut rest = [0; 64];
    while tokio::time::timeout(IDLE, stream.read(&mut rest)).await?? > 0 {}
    Ok(())
}

/// An answer whose length is said to be that much more.
fn ok(status: &str, content_type: &str, body: &str, more: usize) -> Vec<u8> {
    let length = body.len() + more;
    format!("HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n{body}")
        .into()
}

/// What every honest answer says.
pub(super) fn text(id: u64) -> String {
    format!("answer {id}")
}

impl Request {
    /// The next one of a connection; `None` at its end.
    async fn read(stream: &mut TcpStream, read: &mut Vec<u8>) -> io::Result<Option<Self>> {
        loop {
            if let Some((request, length)) = Self::parse(read) {
                read.drain(..length);
                return Ok(Some(request));
            }
            if read.len() > LARGEST || stream.read_buf(read).await? == 0 {
                return Ok(None);
            }
        }
    }

    /// With its length, if it is there as a whole.
    fn parse(read: &[u8]) -> Option<(Self, usize)> {
        let head = read.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
        let text = str::from_utf8(&read[..head]).unwrap().to_ascii_lowercase();
        let length = text.lines().find_map(|line| line.strip_prefix("content-length:")).unwrap();
        let length: usize = length.trim().parse().unwrap();
        let body: Value = serde_json::from_slice(read.get(head..head + length)?).unwrap();
        let mut path = text.split(' ').nth(1).unwrap().split('/').skip(1).map(|part| part.parse().unwrap());
        let (daemon, run): (u16, u16) = (path.next().unwrap(), path.next().unwrap());
        let name = body["data"]["name"].as_str().or(body["data"]["custom_id"].as_str()).unwrap_or_default();
        let request = Self {
            id: body["id"].as_str().unwrap().parse().unwrap(),
            from: (daemon.into(), run),
            kind: body["type"].as_u64().unwrap(),
            name: name.to_owned(),
        };
        Some((request, head + length))
    }

    /// How long it is thought about; `None` for ever.
    fn time(&self, lots: &Lots) -> Option<Duration> {
        let milliseconds = Duration::from_millis;
        Some(if self.name.contains("never") {
            return None;
        } else if self.name.contains("slow") {
            ANSWER_WITHIN + lots.between(milliseconds(50), milliseconds(1500))
        } else if self.name.contains("edge") {
            ANSWER_WITHIN - milliseconds(60) + lots.between(Duration::ZERO, milliseconds(120))
        } else {
            lots.between(Duration::ZERO, milliseconds(20))
        })
    }

    fn callback(&self) -> String {
        let text = text(self.id);
        let data = match self.kind {
            4 => json!({ "choices": [{ "name": text, "value": text }] }),
            _ => json!({ "content": text }),
        };
        let kind = match self.kind {
            3 if !self.name.contains("beside") => 7,
            4 => 8,
            _ => 4,
        };
        json!({ "type": kind, "data": data }).to_string()
    }
}
