//! The only table of what is refused, how it failed, and with which status.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use thiserror::Error;

use crate::discord::answer::AnswerError;
use crate::discord::callback::CallbackError;
use crate::discord::interaction::InteractionError;
use crate::discord::late::LateError;
use crate::discord::signature::{BadSignature, SignatureHeadersError};
use crate::forward::CallError;

/// Why a request is turned away before a handler sees it. The text goes to the client and to the log.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum Refusal {
    #[error("the request is not sound HTTP: {0}")]
    Framing(&'static str),
    #[error("the target is too long")]
    TargetTooLong,
    #[error("only 100-continue can be expected")]
    Expectation,
    #[error("no application has this path")]
    UnknownPath,
    #[error("interactions come by POST")]
    Method,
    #[error("the content type must be application/json")]
    MediaType,
    #[error("{0}")]
    SignatureHeaders(#[from] SignatureHeadersError),
    #[error("the timestamp is too far from now")]
    Timestamp,
    #[error("{0}")]
    Signature(#[from] BadSignature),
    #[error("the body is too large")]
    BodyTooLarge,
    #[error("the request took too long to arrive")]
    BodyTimeout,
    #[error("the body broke off")]
    BodyBroken,
    #[error("{0}")]
    Interaction(#[from] InteractionError),
    #[error("this interaction came before")]
    Replayed,
    #[error("too many interactions wait for their answers")]
    InFlight,
    #[error("too much is held in memory")]
    NoMemory,
    #[error("this request failed inside shardless")]
    Panicked,
}

impl Refusal {
    /// The table.
    fn row(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Framing(_) => (StatusCode::BAD_REQUEST, "framing"),
            Self::TargetTooLong => (StatusCode::URI_TOO_LONG, "target_too_long"),
            Self::Expectation => (StatusCode::EXPECTATION_FAILED, "expectation"),
            Self::UnknownPath => (StatusCode::NOT_FOUND, "unknown_path"),
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, "method"),
            Self::MediaType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "media_type"),
            Self::SignatureHeaders(_) => (StatusCode::UNAUTHORIZED, "signature_headers"),
            Self::Timestamp => (StatusCode::UNAUTHORIZED, "timestamp"),
            Self::Signature(_) => (StatusCode::UNAUTHORIZED, "bad_signature"),
            Self::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"),
            Self::BodyTimeout => (StatusCode::REQUEST_TIMEOUT, "body_timeout"),
            Self::BodyBroken => (StatusCode::BAD_REQUEST, "body_broken"),
            Self::Interaction(_) => (StatusCode::BAD_REQUEST, "not_an_interaction"),
            Self::Replayed => (StatusCode::CONFLICT, "replayed"),
            Self::InFlight => (StatusCode::SERVICE_UNAVAILABLE, "in_flight"),
            Self::NoMemory => (StatusCode::SERVICE_UNAVAILABLE, "no_memory"),
            Self::Panicked => (StatusCode::INTERNAL_SERVER_ERROR, "panicked"),
        }
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.row().0
    }

    /// A word for metrics and logs.
    pub fn reason(&self) -> &'static str {
        self.row().1
    }

    /// The whole answer.
    pub fn to_response(&self) -> Response<Full<Bytes>> {
        let mut response = text_response(self.status(), format!("{self}\n"));
        if matches!(self, Self::Method) {
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
        }
        response
    }

    /// Whether it is not known, or not to be believed, where the next request of the connection begins.
    pub(super) fn ends_connection(&self, has_body: bool) -> bool {
        let body_was_read =
            matches!(self, Self::Signature(_) | Self::Interaction(_) | Self::Replayed | Self::InFlight);
        matches!(self, Self::Framing(_)) || (has_body && !body_was_read)
    }
}

/// Why a handler's call gave no answer for Discord. The text is for the log: it lets the bot's author mend it.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum Failure {
    #[error("{0}")]
    Call(#[from] CallError),
    #[error("no answer after {0:?}, `answer_within`{1}")]
    Late(std::time::Duration, &'static str),
    #[error("no answer after {}; it is not waited for any longer (`give_up_after`)", humantime::format_duration(*.0))]
    GivenUp(std::time::Duration),
    #[error("no memory left for the answer (limits.buffered)")]
    NoMemory,
    #[error("it answered 200, but {0}")]
    TooLate(#[from] LateError),
    #[error("it answered {0}; Discord needs 200 with a callback{hint}", hint = status_hint(*.0))]
    Status(StatusCode),
    #[error(
        "it answered 200, but with content encoding {0}; Discord needs the callback as it is, so switch compression off"
    )]
    ContentEncoding(String),
    #[error("it answered 200, but {0}")]
    Answer(#[from] AnswerError),
    #[error("the `reply` of its route does not fit: {0}")]
    Reply(CallbackError),
    #[error("the call panicked inside shardless")]
    Panicked,
}

impl Failure {
    /// The status where no `error_message` can be shown.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Late(..) => StatusCode::GATEWAY_TIMEOUT,
            Self::Panicked => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_GATEWAY,
        }
    }
}

fn status_hint(status: StatusCode) -> &'static str {
    match status {
        status if status.is_redirection() => {
            " (redirects are not followed: put the final URL into `handler`)"
        }
        StatusCode::UNAUTHORIZED => " (does it verify with another public key?)",
        // hikari's answer to a signature that does not hold.
        StatusCode::BAD_REQUEST => " (see the bot's own log; does it verify with another public key?)",
        StatusCode::NOT_FOUND => " (is the path in `handler` the bot's own?)",
        StatusCode::METHOD_NOT_ALLOWED => " (does the bot take POST on that path?)",
        status if status.is_server_error() => " (see the bot's own log)",
        _ => "",
    }
}

pub(super) fn text_response(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}
