//! Discord: requests that are written and signed before the clock starts, and answers that are all checked.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use shardless::clock::{Clock, SystemClock};
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

/// Requests as bytes, and what each is to be answered with.
pub(crate) struct Batch {
    requests: Vec<Vec<u8>>,
    status: &'static [u8],
    body: Option<&'static str>,
}

/// Connections that are open.
pub(crate) struct Clients(Vec<Wire>);

impl Discord {
    pub(crate) fn new() -> Result<Self> {
        let author = Author::new(SystemClock.unix_time(), 0);
        Ok(Self { author, signer: Signer::generate()?, stranger: Signer::generate()? })
    }

    pub(crate) fn public_key(&self) -> &PublicKey {
        self.signer.public_key()
    }

    pub(crate) fn commands(&mut self, count: usize) -> Result<Batch> {
        let payloads = self.command_payloads(count)?;
        let requests = payloads.iter().map(|payload| request(&self.signer, payload)).collect();
        Ok(Batch { requests, status: b"200", body: Some(CALLBACK) })
    }

    pub(crate) fn forgeries(&mut self, count: usize) -> Result<Batch> {
        let payloads = self.command_payloads(count)?;
        let requests = payloads.iter().map(|payload| request(&self.stranger, payload)).collect();
        Ok(Batch { requests, status: b"401", body: None })
    }

    pub(crate) fn pings(&mut self, count: usize) -> Batch {
        let requests = (0..count).map(|_| request(&self.signer, &self.author.ping())).collect();
        Batch { requests, status: b"200", body: Some(PONG) }
    }

    fn command_payloads(&mut self, count: usize) -> Result<Vec<Payload>> {
        let option = CommandOption::parse("query=never gonna give you up").map_err(anyhow::Error::msg)?;
        let options = [option];
        Ok((0..count).map(|_| self.author.command("music play", &options)).collect())
    }
}

impl Batch {
    pub(crate) fn len(&self) -> usize {
        self.requests.len()
    }

    /// Bytes of one request's body.
    pub(crate) fn body_length(&self) -> usize {
        let body = |request: &Vec<u8>| request.windows(4).position(|window| window == b"\r\n\r\n");
        self.requests.first().and_then(|request| Some(request.len() - body(request)? - 4)).unwrap_or_default()
    }

    /// The first requests, as a batch of their own.
    pub(crate) fn split_first(&mut self, count: usize) -> Self {
        Self { requests: self.requests.drain(..count).collect(), ..*self }
    }

    fn check(&self, answer: &Message<'_>) -> Result<()> {
        let status = answer.head.get(9..12).unwrap_or_default();
        let expected = status == self.status && self.body.is_none_or(|body| body.as_bytes() == answer.body);
        let text = || String::from_utf8_lossy(&[answer.head, answer.body].concat()).into_owned();
        ensure!(expected, "a wrong answer:\n{}", text());
        Ok(())
    }
}

impl Clients {
    /// Opens connections to a server that may be starting still.
    pub(crate) async fn connect(address: SocketAddr, count: usize) -> Result<Self> {
        let start = Instant::now();
        let mut clients = Vec::with_capacity(count);
        while clients.len() < count {
            match TcpStream::connect(address).await {
                Ok(stream) => clients.push(Wire::new(stream)?),
                Err(error) if start.elapsed() > START_PATIENCE => return Err(error).context("no connection"),
                Err(_) => tokio::task::yield_now().await,
            }
        }
        Ok(Self(clients))
    }

    /// Sends the whole batch, one request at a time on each connection, and checks each answer.
    pub(crate) async fn play(self, batch: Batch) -> Result<Self> {
        let (batch, count) = (Arc::new(batch), self.0.len());
        let mut playing = JoinSet::new();
        for (first, mut wire) in self.0.into_iter().enumerate() {
            let batch = Arc::clone(&batch);
            playing.spawn(async move {
                for request in batch.requests.iter().skip(first).step_by(count) {
                    wire.write(request).await?;
                    batch.check(&wire.read().await?.context("hung up without an answer")?)?;
                }
                anyhow::Ok(wire)
            });
        }
        let played = timeout(PATIENCE, playing.join_all()).await.context("the load hangs")?;
        Ok(Self(played.into_iter().collect::<Result<_>>()?))
    }
}

/// CPU time of the server alone. The first request of each connection goes before the clock starts, so that its own
/// connections to the handler are open.
pub(crate) async fn cost_per_request(
    server: &Server,
    mut batch: Batch,
    connections: usize,
) -> Result<Duration> {
    let first = batch.split_first(connections);
    let clients = Clients::connect(server.address, connections).await?.play(first).await?;
    let count = u32::try_from(batch.len())?;
    tokio::time::sleep(SETTLE).await;
    let before = server.cpu_time()?;
    let clients = clients.play(batch).await?;
    tokio::time::sleep(SETTLE).await;
    let spent = server.cpu_time()? - before;
    drop(clients);
    Ok(spent / count)
}

fn request(signer: &Signer, payload: &Payload) -> Vec<u8> {
    let mut request = b"POST /interactions HTTP/1.1\r\nHost: bot.example\r\n".to_vec();
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
