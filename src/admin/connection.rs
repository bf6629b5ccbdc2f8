//! Its connections: HTTP/1, not too many, none for ever.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::error;

use super::Sources;
use super::routing::{self, Body, Routing};
use crate::budget::Budget;
use crate::listener::{self, Listener, Stream};

/// For a request's head, and between two requests.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// For what is sent to arrive: one who has gone, or does not read, has no place here.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of a request's head.
const HEAD: usize = 16 * 1024;

/// Between two attempts to accept where the system has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// All of them.
pub(super) struct Connections {
    room: Arc<Budget>,
    routing: Arc<Routing>,
}

impl Connections {
    pub(super) fn new(at_most: usize, sources: Sources) -> Self {
        // Pages that stand open leave room for those who only ask.
        let routing = Arc::new(Routing::new(sources, at_most.div_ceil(2)));
        Self { room: Budget::new(at_most), routing }
    }

    /// Takes what comes, and does what is to be done each second, for ever.
    pub(super) async fn run(&self, listeners: Vec<Listener>) {
        tokio::join!(self.accept(listeners), self.routing.run());
    }

    async fn accept(&self, listeners: Vec<Listener>) {
        let mut turn = 0_usize;
        loop {
            turn = turn.wrapping_add(1);
            let room = self.room.one().await;
            match listener::accept(&listeners, turn).await {
                Ok(accepted) => {
                    let routing = Arc::clone(&self.routing);
                    tokio::spawn(async move {
                        match accepted.stream {
                            Stream::Tcp(stream) => {
                                _ = stream.set_nodelay(true);
                                _ = SockRef::from(&stream).set_tcp_user_timeout(Some(WRITE_TIMEOUT));
                                serve(stream, &routing).await;
                            }
                            Stream::Unix(stream) => serve(stream, &routing).await,
                        }
                        drop(room);
                    });
                }
                // The main listener tells why, if it is the same for it.
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    }
}

/// What a client does wrong ends its connection, and is nobody else's business.
async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, routing: &Routing) {
    let http = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(READ_TIMEOUT)
        .max_header_size(HEAD)
        .serve_connection(TokioIo::new(stream), service_fn(|request| answer(request, routing)));
    _ = http.await;
}

async fn answer(request: Request<Incoming>, routing: &Routing) -> Result<Response<Body>, Infallible> {
    // Bodies are for nobody here.
    let (head, _) = request.into_parts();
    let mut response = guarded(head.uri.path(), routing.answer(&head)).await;
    response.headers_mut().extend(routing::ALWAYS);
    Ok(response)
}

/// A panic costs one request.
async fn guarded(path: &str, answering: impl Future<Output = Response<Body>>) -> Response<Body> {
    AssertUnwindSafe(answering).catch_unwind().await.unwrap_or_else(|_| {
        error!(path, "a request to the admin listener failed: this is a bug");
        routing::broken()
    })
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_answer() {
        let answer = guarded("/", async { panic!("on purpose") }).await;
        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
}
