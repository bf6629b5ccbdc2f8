//! One connection: HTTP/1 on it, and how long each of its phases may take.

mod phases;

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tracing::debug;

use super::Connections;
use crate::gateway::Arrival;
use crate::metrics::{Metrics, Reason};
use phases::{Overdue, Phases, Watched};

/// hyper's buffer of a connection has room for the headers, and at least for this; bodies pass through it in pieces.
const BUFFER: usize = 16 * 1024;

/// An open connection: it counts until it is dropped.
pub(super) struct Open {
    metrics: Arc<Metrics>,
    _permit: OwnedSemaphorePermit,
}

impl Open {
    pub(super) fn new(permit: OwnedSemaphorePermit, metrics: Arc<Metrics>) -> Self {
        metrics.connections.inc();
        Self { metrics, _permit: permit }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.metrics.connections.dec();
    }
}

impl Connections {
    /// Serves a connection until it ends, is too slow in what it does, or `stop` is true and its request is answered.
    pub(super) async fn serve(self, stream: TcpStream, _open: Open, mut stop: watch::Receiver<bool>) {
        let Ok(peer) = stream.peer_addr() else { return };
        // An answer leaves in one piece; waiting for more to send would only cost time.
        _ = stream.set_nodelay(true);
        let phases = Phases::new(Arc::clone(&self.clock));
        let stopping_now = stop.clone();
        let service = service_fn(|request| self.answer(request, peer.ip(), &phases, &stopping_now));
        let http = http1::Builder::new()
            .max_header_size(self.limits.headers)
            .max_buf_size(self.limits.headers.max(BUFFER))
            .header_read_timeout(None)
            .serve_connection(TokioIo::new(Watched::new(stream, phases.clone())), service);
        tokio::pin!(http);
        let overdue = Overdue::new(phases.clone(), self.limits);
        tokio::pin!(overdue);
        let stopped = stop.wait_for(|stop| *stop);
        tokio::pin!(stopped);
        let mut stopping = false;
        let fault = loop {
            // In this order: what happens on the connection decides what is overdue.
            tokio::select! {
                biased;
                result = &mut http => break result.err().map(fault),
                reason = &mut overdue => break reason,
                _ = &mut stopped, if !stopping => {
                    stopping = true;
                    // A request that is arriving is still answered, and its answer ends the connection.
                    if !phases.is_reading() {
                        http.as_mut().graceful_shutdown();
                    }
                }
            }
        };
        if let Some(reason) = fault {
            self.metrics.connection_faults.get_or_create(&Reason { reason }).inc();
            debug!(%peer, reason, "connection ended");
        }
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        peer: IpAddr,
        phases: &Phases,
        stop: &watch::Receiver<bool>,
    ) -> Result<Response<Handed>, Infallible> {
        let arrival = Arrival { first_byte: phases.request_is_here(), peer };
        let mut response = Arc::clone(&self.gateway).handle(request, arrival).await;
        if *stop.borrow() {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        phases.answer_is_here();
        Ok(response.map(|body| Handed { body, phases: phases.clone() }))
    }
}

fn fault(error: hyper::Error) -> &'static str {
    match error {
        error if error.is_parse() => "malformed_http",
        error if error.is_incomplete_message() => "broken_off",
        _ => "broken",
    }
}

/// The body of an answer, which notes when the connection has taken all of it.
struct Handed {
    body: Full<Bytes>,
    phases: Phases,
}

/// Whether hyper took all of the body, or none since it is empty or not asked for: it lets go of it before it flushes.
impl Drop for Handed {
    fn drop(&mut self) {
        self.phases.answer_is_handed_over();
    }
}

impl Body for Handed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
