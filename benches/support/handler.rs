//! The bot: the fastest handler there can be, in this process, so that its time counts for neither server.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Result, ensure};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

use crate::wire::Wire;

/// What it answers to everything.
pub(crate) const CALLBACK: &str = r#"{"type":4,"data":{"content":"ok"}}"#;

/// Listens until it is dropped.
pub(crate) struct Handler {
    pub(crate) address: SocketAddr,
    calls: Arc<AtomicUsize>,
    serving: JoinHandle<()>,
}

impl Handler {
    pub(crate) async fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let calls = Arc::new(AtomicUsize::new(0));
        let serving = tokio::spawn(serve(listener, Arc::clone(&calls)));
        Ok(Self { address, calls, serving })
    }

    /// Requests that arrived since the last time this was asked.
    pub(crate) fn take_calls(&self) -> usize {
        self.calls.swap(0, Ordering::Relaxed)
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(listener: TcpListener, calls: Arc<AtomicUsize>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let calls = Arc::clone(&calls);
        // What goes wrong here shows at the other end, as a request without its answer.
        connections.spawn(async move { answer(Wire::new(stream)?, calls).await });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(mut wire: Wire, calls: Arc<AtomicUsize>) -> Result<()> {
    let length = CALLBACK.len();
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{CALLBACK}"
    );
    while let Some(request) = wire.read().await? {
        ensure!(request.head.starts_with(b"POST /interactions HTTP/1.1\r\n"));
        calls.fetch_add(1, Ordering::Relaxed);
        wire.write(answer.as_bytes()).await?;
    }
    Ok(())
}
