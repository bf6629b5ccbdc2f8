//! One connection: HTTP/1 on it, and how long each of its phases may take.

mod phases;

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderValue, Request, Response, header};
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::Level;

use super::Connections;
use crate::budget::Reservation;
use crate::config::Limits;
use crate::gateway::{Arrival, Handled};
use crate::listener::{Detached, Stream};
use crate::logging::{self, Ended};
use crate::metrics::{Metrics, Reason};
use crate::workers::Place;
use phases::{Overdue, Phases, Watched, linger};

/// The peer of a unix socket is on this machine.
const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// For the first request of a connection that was accepted just before a stop.
const FIRST_REQUEST: Duration = Duration::from_millis(200);

/// The first byte of a TLS connection: the content type of a handshake record.
///
/// Source: RFC 8446, section 5.1.
const TLS_HANDSHAKE: u8 = 0x16;

const NOT_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: text/plain\r\n\r\nthis port speaks TLS: use https\n";

/// hyper's buffer of a connection has room for the headers, and at least for this; bodies pass through it in pieces.
const BUFFER: usize = 16 * 1024;

/// An open connection: it counts until it is dropped.
pub(super) struct Open {
    metrics: Arc<Metrics>,
    _room: Reservation,
    _place: Place,
}

impl Open {
    pub(super) fn new(room: Reservation, place: Place, metrics: Arc<Metrics>) -> Self {
        metrics.connections.inc();
        Self { metrics, _room: room, _place: place }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.metrics.connections.dec();
    }
}

impl Connections {
    /// Serves a connection, whatever it came over, within the limits of when it came.
    pub(super) async fn serve(self: Arc<Self>, detached: Detached, _open: Open, stop: watch::Receiver<bool>) {
        let Ok(accepted) = detached.attach() else {
            self.shared.metrics.accept_errors.inc();
            return;
        };
        let limits = Arc::clone(self.shared.gateway.snapshot().limits());
        let phases = Phases::new(Arc::clone(&self.shared.clock), accepted.has_waited);
        match accepted.stream {
            Stream::Unix(stream) => self.serve_http(stream, LOCAL, phases, limits, stop).await,
            Stream::Tcp(stream) => {
                let Ok(peer) = stream.peer_addr().map(|peer| peer.ip()) else { return };
                // An answer leaves in one piece; waiting for more to send would only cost time.
                _ = stream.set_nodelay(true);
                match self.tls.acceptor() {
                    None => self.serve_http(stream, peer, phases, limits, stop).await,
                    // Most of what a TLS session takes; other connections have no use for the room.
                    Some(tls) => Box::pin(self.serve_tls(tls, stream, peer, phases, limits, stop)).await,
                }
            }
        }
    }

    async fn serve_tls(
        &self,
        tls: TlsAcceptor,
        stream: TcpStream,
        peer: IpAddr,
        phases: Phases,
        limits: Arc<Limits>,
        stop: watch::Receiver<bool>,
    ) {
        match handshake(&tls, stream, limits.handshake_timeout).await {
            Ok(stream) => self.serve_http(stream, peer, phases, limits, stop).await,
            Err(fault) => self.note(fault, peer),
        }
    }

    /// Serves requests until the connection ends, is too slow in what it does, or `stop` is true and its request is
    /// answered.
    async fn serve_http<S>(
        &self,
        stream: S,
        peer: IpAddr,
        phases: Phases,
        limits: Arc<Limits>,
        mut stop: watch::Receiver<bool>,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let stopping_now = stop.clone();
        let service = service_fn(|request| self.answer(request, peer, &phases, &stopping_now));
        let http = http1::Builder::new()
            .max_header_size(limits.headers)
            .max_buf_size(limits.headers.max(BUFFER))
            .header_read_timeout(None)
            .serve_connection(TokioIo::new(Watched::new(stream, phases.clone())), service);
        tokio::pin!(http);
        let room = Arc::clone(&self.shared.gateway.snapshot().bounds().connections);
        let overdue = Overdue::new(phases.clone(), limits, room);
        tokio::pin!(overdue);
        let stopped = async {
            _ = stop.wait_for(|stop| *stop).await;
            // Whoever opened it has a request, which may be on its way, and nobody else can take it any more.
            if phases.is_new() {
                tokio::time::sleep(FIRST_REQUEST).await;
            }
        };
        tokio::pin!(stopped);
        let mut stopping = false;
        let fault = loop {
            // In this order: what happens on the connection decides what is overdue.
            tokio::select! {
                biased;
                result = &mut http => break result.err().map(|error| fault_of(&error, &phases)),
                fault = &mut overdue => break fault,
                () = &mut stopped, if !stopping => {
                    stopping = true;
                    // A request that is arriving is still answered, and its answer ends the connection.
                    if !phases.is_reading() {
                        http.as_mut().graceful_shutdown();
                    }
                }
            }
        };
        if let Some(fault) = fault {
            self.note(fault, peer);
        }
    }

    fn note(&self, fault: Fault, peer: IpAddr) {
        let reason = fault.reason();
        self.shared.metrics.connection_faults.get_or_create(&Reason { reason }).inc();
        self.shared.activity.connection_ended(reason);
        let (level, text) = fault.text();
        let line = Ended { level, reason, peer, text: &text };
        logging::connection(&self.shared.flood, self.shared.clock.now(), &line);
    }

    fn answer(
        &self,
        request: Request<Incoming>,
        peer: IpAddr,
        phases: &Phases,
        stop: &watch::Receiver<bool>,
    ) -> impl Future<Output = Result<Response<Handed>, Infallible>> {
        let (first_byte, has_waited) = phases.request_is_here();
        let arrival = Arrival { first_byte, peer, has_waited };
        let handling = Arc::clone(&self.shared.gateway).handle(request, arrival);
        handling.map(move |Handled { mut response, receipt }| {
            if *stop.borrow() {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            phases.answer_is_here(receipt);
            Ok(response.map(|body| Handed { body, phases: phases.clone() }))
        })
    }
}

/// What a peer did, or failed to do, that ended its connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    MalformedHttp,
    BrokenOff,
    SlowRequest,
    SlowReader,
    Crowded,
    TlsOnPlainPort,
    HttpOnTlsPort,
    Handshake(String),
    SlowHandshake,
}

impl Fault {
    /// A word for metrics and logs.
    fn reason(&self) -> &'static str {
        match self {
            Self::MalformedHttp => "malformed_http",
            Self::BrokenOff => "broken_off",
            Self::SlowRequest => "slow_request",
            Self::SlowReader => "slow_reader",
            Self::Crowded => "crowded",
            Self::TlsOnPlainPort => "tls_on_plain_port",
            Self::HttpOnTlsPort => "http_on_tls_port",
            Self::Handshake(_) => "handshake",
            Self::SlowHandshake => "slow_handshake",
        }
    }

    /// How much it matters to the operator, and what to do about it.
    fn text(&self) -> (Level, String) {
        match self {
            Self::Crowded => {
                let text = "no connection is left (limits.connections, or open files): this one was idle, and makes room";
                (Level::WARN, text.to_owned())
            }
            Self::TlsOnPlainPort => {
                let text = "TLS came to where plain HTTP is spoken: let the proxy use http://, or set [tls]";
                (Level::WARN, text.to_owned())
            }
            Self::HttpOnTlsPort => {
                let text =
                    "plain HTTP came to where TLS is spoken: let the proxy use https://, or remove [tls]";
                (Level::WARN, text.to_owned())
            }
            Self::Handshake(why) => {
                let text = "if it is the proxy's, does it trust the certificate that is served now?";
                (Level::INFO, format!("a TLS handshake failed: {why}; {text}"))
            }
            _ => (Level::DEBUG, "connection ended".to_owned()),
        }
    }
}

fn fault_of(error: &hyper::Error, phases: &Phases) -> Fault {
    match error {
        error if error.is_parse() && phases.began_with(TLS_HANDSHAKE) => Fault::TlsOnPlainPort,
        error if error.is_parse() => Fault::MalformedHttp,
        _ => Fault::BrokenOff,
    }
}

/// The handshake, unless what comes is no TLS at all: then a sentence that says so.
async fn handshake(
    tls: &TlsAcceptor,
    mut stream: TcpStream,
    timeout: Duration,
) -> Result<TlsStream<TcpStream>, Fault> {
    let handshake = async {
        let mut first = [0];
        match stream.peek(&mut first).await {
            Ok(1) if first == [TLS_HANDSHAKE] => {
                tls.accept(stream).await.map_err(|error| Fault::Handshake(error.to_string()))
            }
            // A method begins with a capital letter; anything else is neither.
            Ok(1) if first.iter().all(u8::is_ascii_uppercase) => {
                _ = stream.write_all(NOT_TLS).await;
                _ = linger(&mut stream).await;
                Err(Fault::HttpOnTlsPort)
            }
            Ok(1) => Err(Fault::Handshake("what came is no TLS".to_owned())),
            _ => Err(Fault::BrokenOff),
        }
    };
    tokio::time::timeout(timeout, handshake).await.unwrap_or(Err(Fault::SlowHandshake))
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
