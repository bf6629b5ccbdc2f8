//! A handler that does as told, and keeps what it got.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::{BodyExt, Full};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

pub(crate) type Response = http::Response<Full<Bytes>>;

/// A request as the handler got it.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// The port of the connection's other end: tells connections apart.
    pub(crate) from: u16,
}

/// A handler on a port of its own; it dies when dropped.
pub(crate) struct Handler {
    address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    closed: Arc<AtomicUsize>,
    serving: Option<JoinHandle<()>>,
}

/// 200 with JSON.
pub(crate) fn json(body: &str) -> Response {
    let response = http::Response::builder().header("content-type", "application/json");
    response.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).unwrap()
}

impl Handler {
    /// One that answers every command.
    pub(crate) async fn fine() -> Self {
        Self::start(|_| async { json(r#"{"type":4}"#) }).await
    }

    /// One that answers a command for each permit that it is given.
    pub(crate) async fn gated() -> (Self, Arc<Semaphore>) {
        let gate = Arc::new(Semaphore::new(0));
        let opened = Arc::clone(&gate);
        let handler = Self::start(move |_| {
            let gate = Arc::clone(&gate);
            async move {
                gate.acquire().await.unwrap().forget();
                json(r#"{"type":4}"#)
            }
        });
        (handler.await, opened)
    }

    /// One that answers each request as `script` says.
    pub(crate) async fn start<F, A>(script: F) -> Self
    where
        F: Fn(Received) -> A + Send + Sync + 'static,
        A: Future<Output = Response> + Send + 'static,
    {
        Self::on(0, script).await
    }

    /// The same on a certain port.
    pub(crate) async fn on<F, A>(port: u16, script: F) -> Self
    where
        F: Fn(Received) -> A + Send + Sync + 'static,
        A: Future<Output = Response> + Send + 'static,
    {
        Self::serve(port, None, script).await
    }

    /// The same over TLS, with these certificates.
    pub(crate) async fn over_tls<F, A>(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        script: F,
    ) -> Self
    where
        F: Fn(Received) -> A + Send + Sync + 'static,
        A: Future<Output = Response> + Send + 'static,
    {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.unwrap().with_no_client_auth().with_single_cert(chain, key).unwrap();
        Self::serve(0, Some(TlsAcceptor::from(Arc::new(config))), script).await
    }

    async fn serve<F, A>(port: u16, tls: Option<TlsAcceptor>, script: F) -> Self
    where
        F: Fn(Received) -> A + Send + Sync + 'static,
        A: Future<Output = Response> + Send + 'static,
    {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let received = Arc::new(Mutex::new(Vec::new()));
        let script = Arc::new(script);
        let kept = Arc::clone(&received);
        let serving = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, peer)) = listener.accept().await {
                let (kept, script) = (Arc::clone(&kept), Arc::clone(&script));
                let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                    let (kept, script) = (Arc::clone(&kept), Arc::clone(&script));
                    async move {
                        let (head, body) = request.into_parts();
                        let body = body.collect().await?.to_bytes();
                        let path = head.uri.to_string();
                        let got = Received { path, headers: head.headers, body, from: peer.port() };
                        kept.lock().unwrap().push(got.clone());
                        Ok::<_, hyper::Error>(script(got).await)
                    }
                });
                let tls = tls.clone();
                connections.spawn(async move {
                    let http = http1::Builder::new();
                    _ = match tls {
                        None => http.serve_connection(TokioIo::new(stream), service).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => http.serve_connection(TokioIo::new(stream), service).await,
                            Err(_) => Ok(()),
                        },
                    };
                });
            }
        });
        Self { address, received, closed: Arc::default(), serving: Some(serving) }
    }

    /// One that writes these bytes for an answer, and then hangs up, or not.
    pub(crate) async fn raw(answer: impl Into<Vec<u8>>, hangs_up: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let received = Arc::new(Mutex::new(Vec::new()));
        let (kept, answer) = (Arc::clone(&received), Arc::new(answer.into()));
        let closed = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&closed);
        let serving = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, peer)) = listener.accept().await {
                let (kept, answer, counted) = (Arc::clone(&kept), Arc::clone(&answer), Arc::clone(&counted));
                connections.spawn(async move {
                    raw_exchange(stream, peer, kept, answer, hangs_up).await;
                    counted.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, received, closed, serving: Some(serving) }
    }

    /// One that nobody listens for.
    pub(crate) async fn none() -> Self {
        let mut handler = Self::raw("", true).await;
        handler.kill().await;
        handler
    }

    /// Stops listening and breaks every connection.
    pub(crate) async fn kill(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
            _ = serving.await;
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/bot", self.address)
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Connections of a raw handler that both sides have ended.
    pub(crate) fn closed(&self) -> usize {
        self.closed.load(Ordering::SeqCst)
    }

    pub(crate) fn calls(&self) -> usize {
        self.received.lock().unwrap().len()
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    pub(crate) fn last(&self) -> Received {
        self.received().pop().expect("the handler got nothing")
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        if let Some(serving) = &self.serving {
            serving.abort();
        }
    }
}

async fn raw_exchange(
    mut stream: TcpStream,
    peer: SocketAddr,
    kept: Arc<Mutex<Vec<Received>>>,
    answer: Arc<Vec<u8>>,
    hangs_up: bool,
) {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    // The tests' requests end with their JSON object.
    while !request.ends_with(b"}") {
        match stream.read(&mut buffer).await {
            Ok(count) if count > 0 => request.extend_from_slice(&buffer[..count]),
            _ => return,
        }
    }
    let body = Bytes::from(request);
    kept.lock().unwrap().push(Received {
        path: String::new(),
        headers: HeaderMap::new(),
        body,
        from: peer.port(),
    });
    if stream.write_all(&answer).await.is_err() || (hangs_up && stream.shutdown().await.is_err()) {
        return;
    }
    while stream.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
}
