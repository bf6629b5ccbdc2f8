//! Discord: requests that are written and signed before the clock starts, and answers that are all checked.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use shardless::clock::{Clock, SystemClock};
use shardless::discord::interaction::Interaction;
use shardless::discord::signature::PublicKey;
use shardless::rehearsal::payload::CommandOption;
use shardless::rehearsal::{Author, Payload, Signer};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::handler::CALLBACK;
use crate::process::Server;
use crate::wire::{Message, Wire};

const PONG: &str = r#"{"type":1}"#;
/// Where everything goes but for a bot that takes it elsewhere.
const PATH: &str = "/interactions";
/// What the user gives with each command.
const OPTION: &str = "never gonna give you up";

/// Far longer than any load takes; one that hangs ends.
const PATIENCE: Duration = Duration::from_secs(60);
/// For a server to write its log out and fall asleep; only then is its CPU time exact.
const SETTLE: Duration = Duration::from_millis(100);
/// For a server to start.
const START_PATIENCE: Duration = Duration::from_secs(10);

/// Writes and signs requests, each interaction with an id of its own, so that the replay guard meets no duplicate.
pub(crate) struct Discord {
    author: Author,
    signer: Signer,
    /// Signs the forgeries: well formed, so that it takes a whole verification to refuse them.
    stranger: Signer,
}

/// Requests, and the status that each is to be answered with.
pub(crate) struct Batch {
    requests: Vec<Request>,
    status: &'static [u8],
}

struct Request {
    bytes: Vec<u8>,
    answer: Answer,
}

/// The body of an answer.
#[derive(Clone)]
enum Answer {
    Any,
    Is(&'static str),
    /// JSON of a message with that text.
    Message(String),
}

/// Who answers a command.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answerer {
    /// [`crate::handler`], through a server that forwards.
    Handler,
    /// A bot that tells the command's id and option.
    Bot,
}

/// Connections that are open.
pub(crate) struct Clients {
    address: SocketAddr,
    wires: Vec<Wire>,
}

/// What a request took, on average of a load.
#[derive(Clone, Copy)]
pub(crate) struct Spent {
    /// CPU time of the server.
    pub(crate) cpu: Duration,
    /// Time on the clock, of the whole load by its number of requests: one by this is the throughput.
    pub(crate) clock: Duration,
}

impl Discord {
    pub(crate) fn new() -> Result<Self> {
        let author = Author::new(SystemClock.unix_time(), 0);
        Ok(Self { author, signer: Signer::generate()?, stranger: Signer::generate()? })
    }

    /// Another one of the same application. Each with a `part` of its own write no id twice, if none writes 16 million.
    pub(crate) fn beside(&self, part: u64) -> Self {
        let author = Author::new(SystemClock.unix_time(), part << 24);
        Self { author, signer: self.signer.clone(), stranger: self.stranger.clone() }
    }

    pub(crate) fn public_key(&self) -> &PublicKey {
        self.signer.public_key()
    }

    pub(crate) fn commands(&mut self, count: usize) -> Result<Batch> {
        let payloads = self.command_payloads("music play", count)?;
        Ok(batch(&self.signer, &payloads, b"200", &Answer::Is(CALLBACK)))
    }

    /// One command to that path, as bytes; with this text as its option.
    pub(crate) fn command(&mut self, path: &str, command: &str, text: &str) -> Result<Vec<u8>> {
        let option = CommandOption::parse(&format!("query:string={text}")).map_err(anyhow::Error::msg)?;
        Ok(bytes(&self.signer, path, &self.author.command(command, &[option])))
    }

    /// Commands without a subcommand, which the simplest bots can read, to that path.
    pub(crate) fn plain_commands(&mut self, path: &str, answerer: Answerer, count: usize) -> Result<Batch> {
        let payloads = self.command_payloads("music", count)?;
        let request = |payload: &Payload| {
            let answer = match answerer {
                Answerer::Handler => Answer::Is(CALLBACK),
                Answerer::Bot => {
                    Answer::Message(format!("{}: {OPTION}", Interaction::parse(&payload.body)?.id))
                }
            };
            Ok(Request { bytes: bytes(&self.signer, path, payload), answer })
        };
        Ok(Batch { requests: payloads.iter().map(request).collect::<Result<_>>()?, status: b"200" })
    }

    /// A forgery to that path, and the status that refuses it there.
    pub(crate) fn forgery(&mut self, path: &str, status: &'static [u8]) -> Result<Batch> {
        let payloads = self.command_payloads("music", 1)?;
        let request = |payload| Request { bytes: bytes(&self.stranger, path, payload), answer: Answer::Any };
        Ok(Batch { requests: payloads.iter().map(request).collect(), status })
    }

    pub(crate) fn forgeries(&mut self, count: usize) -> Result<Batch> {
        let payloads = self.command_payloads("music play", count)?;
        Ok(batch(&self.stranger, &payloads, b"401", &Answer::Any))
    }

    pub(crate) fn pings(&mut self, count: usize) -> Batch {
        let payloads: Vec<_> = (0..count).map(|_| self.author.ping()).collect();
        batch(&self.signer, &payloads, b"200", &Answer::Is(PONG))
    }

    fn command_payloads(&mut self, command: &str, count: usize) -> Result<Vec<Payload>> {
        let option = CommandOption::parse(&format!("query={OPTION}")).map_err(anyhow::Error::msg)?;
        let options = [option];
        Ok((0..count).map(|_| self.author.command(command, &options)).collect())
    }
}

impl Batch {
    /// Commands that were made one by one, for [`crate::handler`].
    pub(crate) fn of_commands(requests: Vec<Vec<u8>>) -> Self {
        let request = |bytes| Request { bytes, answer: Answer::Is(CALLBACK) };
        Self { requests: requests.into_iter().map(request).collect(), status: b"200" }
    }

    /// Commands that came before: the replay guard is to refuse them.
    pub(crate) fn of_replays(requests: Vec<Vec<u8>>) -> Self {
        let request = |bytes| Request { bytes, answer: Answer::Any };
        Self { requests: requests.into_iter().map(request).collect(), status: b"409" }
    }

    /// The bytes of each request.
    pub(crate) fn requests(&self) -> impl Iterator<Item = &[u8]> {
        self.requests.iter().map(|request| &*request.bytes)
    }

    pub(crate) fn len(&self) -> usize {
        self.requests.len()
    }

    /// Bytes of one request's body.
    pub(crate) fn body_length(&self) -> usize {
        let Some(Request { bytes, .. }) = self.requests.first() else { return 0 };
        let head = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        head.map_or(0, |head| bytes.len() - head - 4)
    }

    /// The first requests, as a batch of their own.
    pub(crate) fn split_first(&mut self, count: usize) -> Self {
        Self { requests: self.requests.drain(..count).collect(), status: self.status }
    }

    /// Checks the answer to a request of this batch whose like are all that it has.
    pub(crate) fn check_any(&self, answer: &Message<'_>) -> Result<()> {
        self.check(self.requests.first().context("no request")?, answer)
    }

    fn check(&self, request: &Request, answer: &Message<'_>) -> Result<()> {
        let status = answer.head.get(9..12).unwrap_or_default();
        let expected = status == self.status && request.answer.is(answer.body);
        let text = || String::from_utf8_lossy(&[answer.head, answer.body].concat()).into_owned();
        ensure!(expected, "a wrong answer:\n{}", text());
        Ok(())
    }
}

impl Answer {
    fn is(&self, body: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::Is(text) => text.as_bytes() == body,
            Self::Message(text) => {
                let callback: Value = serde_json::from_slice(body).unwrap_or_default();
                callback["type"] == 4 && callback["data"]["content"] == text.as_str()
            }
        }
    }
}

impl Clients {
    /// Opens connections to a server that may be starting still.
    pub(crate) async fn connect(address: SocketAddr, count: usize) -> Result<Self> {
        let streams = Self::streams(address, count).await?;
        Ok(Self { address, wires: streams.into_iter().map(Wire::new).collect::<Result<_, _>>()? })
    }

    /// The same, for one who reads and writes by other means.
    pub(crate) async fn streams(address: SocketAddr, count: usize) -> Result<Vec<TcpStream>> {
        let start = Instant::now();
        let mut streams = Vec::with_capacity(count);
        while streams.len() < count {
            match TcpStream::connect(address).await {
                Ok(stream) => streams.push(stream),
                Err(error) if start.elapsed() > START_PATIENCE => return Err(error).context("no connection"),
                Err(_) => tokio::task::yield_now().await,
            }
        }
        Ok(streams)
    }

    /// All connections of both, to the same server.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.wires.extend(other.wires);
        self
    }

    /// Sends the whole batch, one request at a time on each connection, and checks each answer. A connection that the
    /// server ends after an answer is followed by another.
    pub(crate) async fn play(self, batch: Batch) -> Result<Self> {
        let (batch, count, address) = (Arc::new(batch), self.wires.len(), self.address);
        let mut playing = JoinSet::new();
        for (first, mut wire) in self.wires.into_iter().enumerate() {
            let batch = Arc::clone(&batch);
            playing.spawn(async move {
                for request in batch.requests.iter().skip(first).step_by(count) {
                    if wire.has_ended() {
                        wire = Wire::new(TcpStream::connect(address).await?)?;
                    }
                    wire.write(&request.bytes).await?;
                    batch.check(request, &wire.read().await?.context("hung up without an answer")?)?;
                }
                anyhow::Ok(wire)
            });
        }
        let played = timeout(PATIENCE, playing.join_all()).await.context("the load hangs")?;
        Ok(Self { address, wires: played.into_iter().collect::<Result<_>>()? })
    }
}

/// CPU time of the server alone.
pub(crate) async fn cost_per_request(server: &Server, batch: Batch, connections: usize) -> Result<Duration> {
    Ok(spent_per_request(server, batch, connections).await?.cpu)
}

/// CPU time of the server alone, and time on the clock. The first request of each connection goes before the clock
/// starts, so that the server's own connections to the handler are open.
pub(crate) async fn spent_per_request(
    server: &Server,
    mut batch: Batch,
    connections: usize,
) -> Result<Spent> {
    let first = batch.split_first(connections);
    let clients = Clients::connect(server.address, connections).await?.play(first).await?;
    let count = u32::try_from(batch.len())?;
    tokio::time::sleep(SETTLE).await;
    let (before, start) = (server.cpu_time()?, Instant::now());
    let clients = clients.play(batch).await?;
    let clock = start.elapsed() / count;
    tokio::time::sleep(SETTLE).await;
    let cpu = (server.cpu_time()? - before) / count;
    drop(clients);
    Ok(Spent { cpu, clock })
}

fn batch(signer: &Signer, payloads: &[Payload], status: &'static [u8], answer: &Answer) -> Batch {
    let request = |payload| Request { bytes: bytes(signer, PATH, payload), answer: answer.clone() };
    Batch { requests: payloads.iter().map(request).collect(), status }
}

fn bytes(signer: &Signer, path: &str, payload: &Payload) -> Vec<u8> {
    let mut request = format!("POST {path} HTTP/1.1\r\nHost: bot.example\r\n").into_bytes();
    request.extend_from_slice(b"User-Agent: Discord-Interactions/1.0 (+https://discord.com)\r\n");
    request.extend_from_slice(b"Content-Type: application/json\r\n");
    for (name, value) in &signer.sign(SystemClock.unix_time().as_secs(), &payload.body) {
        let name: &[u8] = name.as_ref();
        request.extend_from_slice(&[name, b": ", value.as_bytes(), b"\r\n"].concat());
    }
    request.extend_from_slice(format!("Content-Length: {}\r\n\r\n", payload.body.len()).as_bytes());
    request.extend_from_slice(&payload.body);
    request
}
