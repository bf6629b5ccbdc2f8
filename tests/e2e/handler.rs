//! A handler inside the test, which remembers what it was sent.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

use crate::discord::message;

/// A handler for commands. It ends, with its connections, when dropped.
pub(crate) struct Handler {
    port: u16,
    seen: Arc<Mutex<Vec<HeaderMap>>>,
    serving: JoinHandle<()>,
}

impl Handler {
    pub(crate) async fn start() -> Self {
        Self::start_slow(Duration::ZERO).await
    }

    /// A handler that thinks so long about every command.
    pub(crate) async fn start_slow(thinking: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let serving = tokio::spawn(serve(listener, Arc::clone(&seen), thinking));
        Self { port, seen, serving }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The headers of every request that came.
    pub(crate) fn seen(&self) -> Vec<HeaderMap> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(listener: TcpListener, seen: Arc<Mutex<Vec<HeaderMap>>>, thinking: Duration) {
    // Dropped with this task, and then its connections are too.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let seen = Arc::clone(&seen);
        let service = service_fn(move |request: Request<Incoming>| {
            seen.lock().unwrap().push(request.headers().clone());
            answer(request, thinking)
        });
        connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn answer(request: Request<Incoming>, thinking: Duration) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let interaction: Value = serde_json::from_slice(&body).unwrap_or_default();
    let text = interaction["data"]["options"][0]["value"].as_str().unwrap_or_default();
    tokio::time::sleep(thinking).await;
    let callback = message(4, interaction["id"].as_str().unwrap_or_default(), text);
    let mut response = Response::new(Full::new(Bytes::from(callback.to_string())));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}
