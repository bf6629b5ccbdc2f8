//! A sample handler: a small bot behind plain HTTP, as anyone would write one, without a word about signatures.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

use crate::discord::interaction::{Interaction, Kind};

/// How long the command `slow` thinks.
pub const SLOW: Duration = Duration::from_secs(4);
/// What it answers then.
pub const SLOW_ANSWER: &str = "That took a while.";

/// A sample handler that is listening; it stops, its connections included, when dropped.
pub struct Sample {
    address: SocketAddr,
    calls: Arc<AtomicUsize>,
    serving: JoinHandle<()>,
}

impl Sample {
    /// Listens on a port of 127.0.0.1; 0 lets the system choose.
    ///
    /// # Errors
    ///
    /// If the port cannot be had.
    pub async fn start(port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let address = listener.local_addr()?;
        let calls = Arc::new(AtomicUsize::new(0));
        let serving = tokio::spawn(serve(listener, Arc::clone(&calls)));
        Ok(Self { address, calls, serving })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL to put into a config.
    pub fn url(&self) -> String {
        format!("http://{}/interactions", self.address)
    }

    /// Stops, and waits until its connections are closed.
    pub async fn stop(mut self) {
        self.serving.abort();
        _ = (&mut self.serving).await;
    }

    /// How many interactions it got.
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }
}

impl Drop for Sample {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(listener: TcpListener, calls: Arc<AtomicUsize>) {
    // Dropped with this task, and then its connections are too.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let calls = Arc::clone(&calls);
        let service = service_fn(move |request| answer(request, Arc::clone(&calls)));
        connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(
    request: Request<Incoming>,
    calls: Arc<AtomicUsize>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    calls.fetch_add(1, Ordering::Relaxed);
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let callback = callback(&body).await;
    let mut response = Response::new(Full::new(Bytes::from(callback.to_string())));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

async fn callback(body: &[u8]) -> Value {
    let Ok(interaction) = Interaction::parse(body) else { return json!({}) };
    let name = interaction.name.as_deref().unwrap_or_default();
    match (interaction.kind, name) {
        (Kind::Command, "slow") => {
            tokio::time::sleep(SLOW).await;
            message(SLOW_ANSWER)
        }
        (Kind::Command, "roll") => message(&format!("🎲 You rolled a {}.", interaction.id % 20 + 1)),
        (Kind::Autocomplete, _) => {
            let songs = ["Never Gonna Give You Up", "Neverland", "Nevermind"];
            let choices = songs.map(|song| json!({ "name": song, "value": song }));
            json!({ "type": 8, "data": { "choices": choices } })
        }
        (Kind::Component, _) => json!({ "type": 7, "data": { "content": "Rolled again." } }),
        (Kind::Modal, _) => message("Thank you for your feedback."),
        _ => message(&format!("Hello from the sample handler: you sent {name:?}.")),
    }
}

fn message(content: &str) -> Value {
    json!({ "type": 4, "data": { "content": content } })
}
