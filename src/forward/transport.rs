//! HTTP/1.1 to a handler, over kept-alive connections.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, Request, Uri};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper_util::client::legacy::{Client, ResponseFuture};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tower_service::Service;

use super::connector::{Connector, Trust};
use super::once::Once;
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
    client: Client<Connector, Once>,
    /// For looks: it shakes no hands, and its connections are in no pool.
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
        let connector = Connector::new(&url, trust, bounds.connect_timeout);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(bounds.idle_timeout)
            .http1_max_buf_size(MAX_HEADERS)
            .build(connector);
        Self {
            looks: Connector::new(&url, None, bounds.connect_timeout),
            connect_timeout: bounds.connect_timeout,
            max_response: bounds.max_response,
            url,
            client,
            budget,
        }
    }

    /// Whether it can fail to shake hands with us though it listens.
    pub(super) fn shakes_hands(&self) -> bool {
        self.url.is_https()
    }

    /// Opens a connection and closes it at once.
    pub(super) async fn look(&self) -> Result<(), Cause> {
        let mut looks = self.looks.clone();
        let connecting = async {
            std::future::poll_fn(|context| looks.poll_ready(context)).await?;
            looks.call(self.url.uri().clone()).await
        };
        let connected = match tokio::time::timeout(self.connect_timeout, connecting).await {
            Ok(connected) => connected.map(drop).map_err(|error| innermost(&*error)),
            Err(elapsed) => Err(elapsed.to_string()),
        };
        connected.map_err(Cause::Connect)
    }

    /// One request, once. The client sends it again by itself only where a reused connection turned out to be closed
    /// before a byte of it was written.
    pub(super) fn send(&self, attempt: Attempt) -> impl Future<Output = Result<Answer, CallError>> {
        self.answer(self.client.request(request(self.url.uri(), attempt)))
    }

    async fn answer(&self, sending: ResponseFuture) -> Result<Answer, CallError> {
        let response = sending.await.map_err(|error| {
            let reason = innermost(&error);
            if error.is_connect() && reason.contains("certificate") {
                CallError::not_sent(Cause::Trust(reason))
            } else if error.is_connect() {
                CallError::not_sent(Cause::Connect(reason))
            } else if is_no_http(&error) {
                CallError::maybe_read(Cause::NotHttp(reason))
            } else {
                CallError::maybe_read(Cause::Broken(reason))
            }
        })?;
        let (head, body) = response.into_parts();
        let read = read(body, self.max_response, self.budget.reservation()).await;
        let body = read.map_err(CallError::maybe_read)?;
        Ok(Answer { status: head.status, headers: head.headers, body })
    }
}

fn request(uri: &Uri, attempt: Attempt) -> Request<Once> {
    let (headers, body) = attempt.into_parts();
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri.clone();
    *request.headers_mut() = headers;
    request
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

fn is_no_http(error: &(dyn std::error::Error + 'static)) -> bool {
    let chain = std::iter::successors(Some(error), |error| error.source());
    let mut errors = chain.filter_map(|error| error.downcast_ref::<hyper::Error>());
    errors.any(|error| error.is_parse() && !error.is_parse_too_large())
}

/// The text of the last error in the chain: the ones above it only say that there is one.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}
