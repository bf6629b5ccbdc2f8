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
    seen: Arc<Seen>,
    serving: JoinHandle<()>,
}

/// What came.
#[derive(Default)]
struct Seen {
    headers: Mutex<Vec<HeaderMap>>,
    /// The interactions' ids.
    ids: Mutex<Vec<String>>,
}

/// How long the handler thinks about a command of that name.
type Thinking = dyn Fn(&str) -> Duration + Send + Sync;

impl Handler {
    pub(crate) async fn start() -> Self {
        Self::listen(|_| Duration::ZERO).await
    }

    /// A handler that thinks so long about every command.
    pub(crate) async fn start_slow(thinking: Duration) -> Self {
        Self::listen(move |_| thinking).await
    }

    /// A handler that thinks as long as it is told about a command of that name.
    pub(crate) async fn listen(thinking: impl Fn(&str) -> Duration + Send + Sync + 'static) -> Self {
        Self::listen_on(0, thinking).await
    }

    /// The same, on that port.
    pub(crate) async fn listen_on(
        port: u16,
        thinking: impl Fn(&str) -> Duration + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Seen::default());
        let serving = tokio::spawn(serve(listener, Arc::clone(&seen), Arc::new(thinking)));
        Self { port, seen, serving }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The headers of every request that came.
    pub(crate) fn seen(&self) -> Vec<HeaderMap> {
        self.seen.headers.lock().unwrap().clone()
    }

    /// The ids of the interactions that came.
    pub(crate) fn ids(&self) -> Vec<String> {
        self.seen.ids.lock().unwrap().clone()
    }

    /// Whether that interaction has come.
    pub(crate) fn has_seen(&self, id: &str) -> bool {
        // The latest first: it is asked for while it is on its way.
        self.seen.ids.lock().unwrap().iter().rev().any(|seen| seen == id)
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(listener: TcpListener, seen: Arc<Seen>, thinking: Arc<Thinking>) {
    // Dropped with this task, and then its connections are too.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (seen, thinking) = (Arc::clone(&seen), Arc::clone(&thinking));
        let service = service_fn(move |request: Request<Incoming>| {
            seen.headers.lock().unwrap().push(request.headers().clone());
            answer(request, Arc::clone(&seen), Arc::clone(&thinking))
        });
        connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn answer(
    request: Request<Incoming>,
    seen: Arc<Seen>,
    thinking: Arc<Thinking>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let interaction: Value = serde_json::from_slice(&body).unwrap_or_default();
    let id = interaction["id"].as_str().unwrap_or_default();
    seen.ids.lock().unwrap().push(id.to_owned());
    let text = interaction["data"]["options"][0]["value"].as_str().unwrap_or_default();
    tokio::time::sleep(thinking(interaction["data"]["name"].as_str().unwrap_or_default())).await;
    let callback = message(4, id, text);
    let mut response = Response::new(Full::new(Bytes::from(callback.to_string())));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}
