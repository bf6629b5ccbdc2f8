//! What Discord gets.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;

use super::Failure;
use crate::discord::callback;
use crate::discord::interaction::Kind;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// An answer; cheap to copy, so that many can wait for one.
#[derive(Clone, Debug)]
pub struct Reply {
    status: StatusCode,
    content_type: Option<HeaderValue>,
    body: Bytes,
}

impl Reply {
    /// The answer to a PING.
    pub fn pong() -> Self {
        Self { status: StatusCode::OK, content_type: Some(JSON), body: callback::PONG }
    }

    /// A handler's callback, byte for byte. Both are to be copies: answers are kept, and a slice of a connection's
    /// buffer would keep all of it.
    pub fn callback(content_type: HeaderValue, body: Bytes) -> Self {
        Self { status: StatusCode::OK, content_type: Some(content_type), body }
    }

    /// A callback of our own.
    pub fn json(body: Bytes) -> Self {
        Self::callback(JSON, body)
    }

    /// A status, and nothing more.
    pub fn empty(status: StatusCode) -> Self {
        Self { status, content_type: None, body: Bytes::new() }
    }

    /// In place of a handler's answer: the `error_message` where there is one and the kind of interaction can show
    /// it, else a status at which Discord shows its own text.
    pub fn failure(failure: &Failure, kind: Kind, error_message: Option<&str>) -> Self {
        match error_message.and_then(|text| callback::failure(kind, text)) {
            Some(body) => Self::json(body),
            None => Self::empty(failure.status()),
        }
    }

    /// Its HTTP status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Bytes of its body.
    pub fn body_len(&self) -> usize {
        self.body.len()
    }

    /// The whole answer.
    pub fn to_response(&self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(self.body.clone()));
        *response.status_mut() = self.status;
        if let Some(content_type) = &self.content_type {
            response.headers_mut().insert(header::CONTENT_TYPE, content_type.clone());
        }
        response
    }
}
