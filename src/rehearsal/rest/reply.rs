//! Replies, and the one table of what Discord refuses with.

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};

/// An answer to a call.
#[derive(Debug)]
pub(super) struct Reply(Response<Full<Bytes>>);

/// Why Discord refuses a call.
///
/// Source: Discord's documentation, "Opcodes and Status Codes".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) status: u16,
    /// 0: general.
    pub(super) code: u32,
}

impl Problem {
    pub(super) const NO_ROUTE: Self = Self { status: 404, code: 0 };
    pub(super) const NO_METHOD: Self = Self { status: 405, code: 0 };
    pub(super) const UNKNOWN_MESSAGE: Self = Self { status: 404, code: 10008 };
    pub(super) const UNKNOWN_WEBHOOK: Self = Self { status: 404, code: 10015 };
    pub(super) const UNKNOWN_INTERACTION: Self = Self { status: 404, code: 10062 };
    pub(super) const TOO_LARGE: Self = Self { status: 413, code: 40005 };
    pub(super) const ACKNOWLEDGED: Self = Self { status: 400, code: 40060 };
    pub(super) const BLOCKED: Self = Self { status: 403, code: 40333 };
    pub(super) const EMPTY_MESSAGE: Self = Self { status: 400, code: 50006 };
    pub(super) const EXPIRED_TOKEN: Self = Self { status: 401, code: 50027 };
    pub(super) const INVALID_FORM: Self = Self { status: 400, code: 50035 };
    pub(super) const INVALID_JSON: Self = Self { status: 400, code: 50109 };

    fn message(self) -> &'static str {
        match (self.status, self.code) {
            (404, 0) => "404: Not Found",
            (405, 0) => "405: Method Not Allowed",
            (_, 0) => "General error",
            (_, 10008) => "Unknown Message",
            (_, 10015) => "Unknown Webhook",
            (_, 10062) => "Unknown interaction",
            (_, 40005) => "Request entity too large",
            (_, 40060) => "Interaction has already been acknowledged.",
            (_, 40333) => "internal network error",
            (_, 50006) => "Cannot send an empty message",
            (_, 50027) => "Invalid Webhook Token",
            (_, 50035) => "Invalid Form Body",
            (_, 50109) => "The request body contains invalid JSON.",
            _ => "An error that Discord documents",
        }
    }
}

impl From<Problem> for Reply {
    fn from(problem: Problem) -> Self {
        let body = json!({ "message": problem.message(), "code": problem.code });
        Self::json(problem.status, &body)
    }
}

impl Reply {
    pub(super) fn json(status: u16, body: &Value) -> Self {
        Self::new(status, body.to_string(), Some("application/json"))
    }

    /// What is not from Discord's API itself.
    pub(super) fn page(status: u16, html: &str) -> Self {
        Self::new(status, html.to_owned(), Some("text/html"))
    }

    pub(super) fn empty(status: u16) -> Self {
        Self::new(status, String::new(), None)
    }

    fn new(status: u16, body: String, content_type: Option<&'static str>) -> Self {
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let content_type = content_type.map(HeaderValue::from_static);
        response.headers_mut().extend(content_type.map(|value| (header::CONTENT_TYPE, value)));
        Self(response)
    }

    pub(super) fn header(mut self, name: &'static str, value: String) -> Self {
        let value = HeaderValue::try_from(value).ok();
        let name = HeaderName::from_static(name);
        self.0.headers_mut().extend(value.map(|value| (name, value)));
        self
    }

    pub(super) fn status(&self) -> StatusCode {
        self.0.status()
    }

    pub(super) fn into_response(self) -> Response<Full<Bytes>> {
        self.0
    }
}
