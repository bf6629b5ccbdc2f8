//! HTTP/1.1 to a handler, over kept-alive connections.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderValue, Method, Response, Uri, header};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use tower_service::Service;

use super::connector::{BoxError, Connector, Stream, Trust};
use super::pool::{Connection, Pool, Question};
use super::replica::Attempt;
use super::{Answer, CallError, Cause};
use crate::budget::{Budget, Reservation};
use crate::config::{HandlerBounds, HandlerUrl};

/// Reserved at once for an answer that says its length; the rest grows with what really comes.
const FIRST_RESERVATION: u64 = 16 * 1024;
/// Bytes of an answer's line and headers.
const MAX_HEADERS: usize = 64 * 1024;

pub(super) struct Transport {
    url: HandlerUrl,
    /// What stands in the line of a request, and in its `Host`.
    target: Uri,
    host: HeaderValue,
    connector: Connector,
    pool: Arc<Pool>,
    /// For looks: it shakes no hands.
    looks: Connector,
    connect_timeout: Duration,
    budget: Arc<Budget>,
    max_response: usize,
}

impl Transport {
    pub(super) fn new(
        url: HandlerUrl,
        trust: Option<&Trust>,
        bounds: &HandlerBounds,
        budget: Arc<Budget>,
    ) -> Self {
        let path = url.uri().path_and_query().cloned();
        Self {
            target: path.unwrap_or_else(|| PathAndQuery::from_static("/")).into(),
            host: host(url.uri()),
            connector: Connector::new(&url, trust, bounds.connect_timeout),
            pool: Pool::new(bounds.idle_timeout),
            looks: Connector::new(&url, None, bounds.connect_timeout),
            connect_timeout: bounds.connect_timeout,
            max_response: bounds.max_response,
            url,
            budget,
        }
    }

    /// Whether it can fail to shake hands with us though it listens.
    pub(super) fn shakes_hands(&self) -> bool {
        self.url.is_https()
    }

    /// Opens a connection and closes it at once.
    pub(super) async fn look(&self) -> Result<(), Cause> {
        let connecting = connect(self.looks.clone(), self.url.uri());
        let connected = match tokio::time::timeout(self.connect_timeout, connecting).await {
            Ok(connected) => connected.map(drop).map_err(|error| innermost(&*error)),
            Err(elapsed) => Err(elapsed.to_string()),
        };
        connected.map_err(Cause::Connect)
    }

    /// One request, once. It is sent again only where a kept connection turns out to be closed before a byte of it was
    /// written.
    pub(super) async fn send(&self, attempt: Attempt) -> Result<Answer, CallError> {
        let mut question = self.question(attempt);
        let (response, connection) = loop {
            let (mut connection, is_kept) = self.connection().await?;
            match connection.sender.try_send_request(question).await {
                Ok(response) => break (response, connection),
                Err(mut error) => match error.take_message() {
                    Some(unsent) if is_kept => question = unsent,
                    Some(_) => return Err(CallError::not_sent(cause(&error.into_error()))),
                    None => return Err(CallError::maybe_read(cause(&error.into_error()))),
                },
            }
        };
        let answer = self.answer(response).await.map_err(CallError::maybe_read)?;
        self.pool.keep(connection);
        Ok(answer)
    }

    /// A connection that was kept, or else a new one; or one that is kept before that is open, as where many begin at once
    /// and the handler accepts only so many at a time. Whether it was kept.
    async fn connection(&self) -> Result<(Connection, bool), CallError> {
        if let Some(kept) = self.pool.take() {
            return Ok((kept, true));
        }
        tokio::select! {
            biased;
            kept = self.pool.next() => Ok((kept, true)),
            opened = self.open() => Ok((opened?, false)),
        }
    }

    fn question(&self, attempt: Attempt) -> Question {
        let (mut headers, body) = attempt.into_parts();
        headers.insert(header::HOST, self.host.clone());
        let mut question = Question::new(body);
        *question.method_mut() = Method::POST;
        *question.uri_mut() = self.target.clone();
        *question.headers_mut() = headers;
        question
    }

    /// A new connection. Whoever drops it ends it.
    async fn open(&self) -> Result<Connection, CallError> {
        let opened = async {
            let stream = connect(self.connector.clone(), self.url.uri()).await?;
            Ok::<_, BoxError>(http1::Builder::new().max_buf_size(MAX_HEADERS).handshake(stream).await?)
        };
        let (sender, running) = opened.await.map_err(|error| {
            let reason = innermost(&*error);
            let is_trust = reason.contains("certificate");
            CallError::not_sent(if is_trust { Cause::Trust(reason) } else { Cause::Connect(reason) })
        })?;
        // How it ends, whoever waits for an answer from it is told.
        tokio::spawn(async move { _ = running.await });
        Ok(Connection::of_this_thread(sender))
    }

    async fn answer(&self, response: Response<Incoming>) -> Result<Answer, Cause> {
        let (head, body) = response.into_parts();
        let body = read(body, self.max_response, self.budget.reservation()).await?;
        Ok(Answer { status: head.status, headers: head.headers, body })
    }
}

/// `Host`: without a port that goes without saying.
fn host(uri: &Uri) -> HeaderValue {
    let name = uri.host().unwrap_or_default();
    let usual = if uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 };
    let port = uri.port_u16().filter(|port| *port != usual);
    let host = port.map_or_else(|| name.to_owned(), |port| format!("{name}:{port}"));
    // What stands in a URI can stand in a header.
    HeaderValue::try_from(host).unwrap_or_else(|_| HeaderValue::from_static("localhost"))
}

async fn connect(mut connector: Connector, uri: &Uri) -> Result<Stream, BoxError> {
    std::future::poll_fn(|context| connector.poll_ready(context)).await?;
    connector.call(uri.clone()).await
}

/// What went wrong with a request that was on its way.
fn cause(error: &hyper::Error) -> Cause {
    let reason = innermost(error);
    let is_no_http = error.is_parse() && !error.is_parse_too_large();
    if is_no_http { Cause::NotHttp(reason) } else { Cause::Broken(reason) }
}

/// Into a buffer of its own: what hyper hands out keeps the whole buffer of its connection from being used again, and
/// answers may be kept for a while.
async fn read(mut body: Incoming, limit: usize, mut reservation: Reservation) -> Result<Bytes, Cause> {
    if body.size_hint().lower() > limit as u64 {
        return Err(Cause::TooLarge(limit));
    }
    let announced = body.size_hint().exact().unwrap_or_default().min(FIRST_RESERVATION);
    let mut read = BytesMut::with_capacity(usize::try_from(announced).unwrap_or_default());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Cause::Broken(innermost(&error)))?;
        let Ok(data) = frame.into_data() else { continue };
        if read.len() + data.len() > limit {
            return Err(Cause::TooLarge(limit));
        }
        if !reservation.grow(data.len()) {
            return Err(Cause::NoMemory);
        }
        read.extend_from_slice(&data);
    }
    Ok(reservation.hold(read.freeze()))
}

/// The text of the last error in the chain: the ones above it only say that there is one.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}
