//! Would Discord accept that answer?

use http::StatusCode;

use super::{Exchange, Payload};
use crate::discord::RESPONSE_DEADLINE;
use crate::discord::answer;
use crate::discord::callback::Question;
use crate::discord::interaction::Kind;

/// What a request is sent for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expectation {
    /// A sound request: a callback is due.
    Callback,
    /// A forged one: 401 is due.
    Unauthorized,
}

/// Discord's judgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Discord would accept the answer; the text says what it is.
    Accepted(String),
    /// It would not; the texts say why, and what to do.
    Refused(Vec<String>),
}

impl Verdict {
    /// Judges an answer as Discord would.
    pub fn of(payload: &Payload, expectation: Expectation, exchange: &Exchange) -> Self {
        let judged = match (expectation, payload.kind) {
            (Expectation::Unauthorized, _) => unauthorized(exchange),
            (Expectation::Callback, None) => event(exchange),
            (Expectation::Callback, Some(kind)) => {
                interaction(Question { kind, has_message: payload.has_message }, exchange)
            }
        };
        let late = (exchange.elapsed > RESPONSE_DEADLINE)
            .then(|| format!("it took {:.1} s; Discord gives up after 3 s", exchange.elapsed.as_secs_f64()));
        match (judged, late) {
            (Ok(what), None) => Self::Accepted(what),
            (Ok(_), Some(late)) => Self::Refused(vec![late]),
            (Err(reasons), late) => Self::Refused(reasons.into_iter().chain(late).collect()),
        }
    }

    /// Whether an answer is a deferral: another one is to follow.
    pub fn is_deferral(exchange: &Exchange) -> bool {
        let json: serde_json::Value = serde_json::from_slice(&exchange.body).unwrap_or_default();
        matches!(json.get("type").and_then(serde_json::Value::as_u64), Some(5 | 6))
    }

    /// Whether Discord would accept the answer.
    pub fn is_accepted(&self) -> bool {
        matches!(self, Self::Accepted(_))
    }
}

type Judged = Result<String, Vec<String>>;

fn unauthorized(exchange: &Exchange) -> Judged {
    match exchange.status {
        StatusCode::UNAUTHORIZED => Ok("refused with 401, as Discord demands".to_owned()),
        status if status.is_success() => Err(vec![
            "it took a forged signature: Discord sends such requests itself, and removes an endpoint that does"
                .to_owned(),
        ]),
        status => Err(vec![format!("it answered {status}; Discord demands 401 for a forged signature")]),
    }
}

fn event(exchange: &Exchange) -> Judged {
    if exchange.status == StatusCode::NO_CONTENT && exchange.body.is_empty() {
        return Ok("event acknowledged".to_owned());
    }
    Err(vec![status_text(exchange.status, "Discord demands 204 without a body for an event")])
}

fn interaction(question: Question, exchange: &Exchange) -> Judged {
    match exchange.status {
        StatusCode::OK => {}
        StatusCode::ACCEPTED if question.kind != Kind::Ping => {
            return if exchange.body.is_empty() {
                Ok("nothing yet: the handler answers by itself".to_owned())
            } else {
                Err(vec![
                    "202 means that the handler answers by itself; it must come without a body".to_owned(),
                ])
            };
        }
        other => return Err(vec![status_text(other, "Discord demands 200 with a callback")]),
    }
    let checked = answer::check(&exchange.content_type, &exchange.body, question)
        .map_err(|error| vec![error.to_string()])?;
    if !checked.broken_limits.is_empty() {
        return Err(checked.broken_limits);
    }
    let (callback, files) = (checked.callback, checked.files);
    let files = match files {
        0 => String::new(),
        1 => ", with a file".to_owned(),
        _ => format!(", with {files} files"),
    };
    let doubt = checked.doubt.map(|doubt| format!(", though {doubt}")).unwrap_or_default();
    Ok(format!("type {} {}{files}{doubt}", callback.number(), callback.name()))
}

fn status_text(status: StatusCode, demanded: &str) -> String {
    let hint = match status {
        StatusCode::UNAUTHORIZED => {
            "; it does not take this signature: is it given the public key that belongs to the one used here?"
        }
        StatusCode::NOT_FOUND => "; is the path right?",
        StatusCode::METHOD_NOT_ALLOWED => "; does it take POST on this path?",
        StatusCode::CONFLICT => "; this interaction came before: give it a new `id`",
        StatusCode::BAD_GATEWAY => "; the handler failed: the daemon's log says why",
        StatusCode::GATEWAY_TIMEOUT => "; the handler is too slow",
        status if status.is_redirection() => "; Discord does not follow redirects",
        _ => "",
    };
    format!("it answered {status}; {demanded}{hint}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use rstest::rstest;

    use super::*;
    use crate::rehearsal::Author;

    fn exchange(status: u16, content_type: &str, body: &'static str, milliseconds: u64) -> Exchange {
        Exchange {
            status: StatusCode::from_u16(status).unwrap(),
            content_type: content_type.to_owned(),
            body: Bytes::from_static(body.as_bytes()),
            elapsed: Duration::from_millis(milliseconds),
        }
    }

    fn author() -> Author {
        Author::new(Duration::from_secs(1_700_000_000), 0)
    }

    const JSON: &str = "application/json";
    const FORM: &str =
        "--x\r\ncontent-disposition: form-data; name=payload_json\r\n\r\n{\"type\":4}\r\n--x--";
    const MESSAGE: &str = r#"{"type":4,"data":{"content":"hi"}}"#;

    #[rstest]
    #[case(200, JSON, MESSAGE, 5, "")]
    #[case(202, "", "", 5, "")]
    #[case(200, "multipart/form-data; boundary=x", FORM, 5, "")]
    #[case(200, "multipart/form-data; boundary=x", "--x--", 5, "no part named payload_json")]
    #[case(200, JSON, MESSAGE, 3001, "it took 3.0 s; Discord gives up after 3 s")]
    #[case(200, "text/html", MESSAGE, 5, "its content type is text/html; Discord needs application/json")]
    #[case(200, JSON, "{}", 5, "missing field `type`")]
    #[case(202, JSON, MESSAGE, 5, "must come without a body")]
    #[case(401, "", "", 5, "is it given the public key")]
    #[case(404, "", "", 5, "is the path right?")]
    #[case(308, "", "", 5, "does not follow redirects")]
    fn commands_are_judged(
        #[case] status: u16,
        #[case] content_type: &str,
        #[case] body: &'static str,
        #[case] milliseconds: u64,
        #[case] refused_for: &str,
    ) {
        let exchange = exchange(status, content_type, body, milliseconds);
        match Verdict::of(&author().command("roll", &[]), Expectation::Callback, &exchange) {
            Verdict::Accepted(_) => assert_eq!(refused_for, ""),
            Verdict::Refused(reasons) => {
                assert!(!refused_for.is_empty() && reasons.join("; ").contains(refused_for), "{reasons:?}");
            }
        }
    }

    #[rstest]
    #[case(200, JSON, r#"{"type":1}"#, true)]
    #[case(200, "text/plain", r#"{"type":1}"#, false)]
    #[case(202, "", "", false)]
    #[case(200, JSON, MESSAGE, false)]
    fn a_ping_wants_a_pong(
        #[case] status: u16,
        #[case] content_type: &str,
        #[case] body: &'static str,
        #[case] accepted: bool,
    ) {
        let exchange = exchange(status, content_type, body, 5);
        let verdict = Verdict::of(&author().ping(), Expectation::Callback, &exchange);
        assert_eq!(verdict.is_accepted(), accepted, "{verdict:?}");
    }

    #[rstest]
    #[case(401, true)]
    #[case(200, false)]
    #[case(403, false)]
    fn a_forgery_wants_401(#[case] status: u16, #[case] accepted: bool) {
        let exchange = exchange(status, "", "", 5);
        let verdict = Verdict::of(&author().ping(), Expectation::Unauthorized, &exchange);
        assert_eq!(verdict.is_accepted(), accepted);
    }

    #[rstest]
    #[case(204, "", true)]
    #[case(200, "", false)]
    #[case(204, "x", false)]
    fn an_event_wants_204(#[case] status: u16, #[case] body: &'static str, #[case] accepted: bool) {
        let exchange = exchange(status, "", body, 5);
        let verdict = Verdict::of(&author().event("ENTITLEMENT_CREATE"), Expectation::Callback, &exchange);
        assert_eq!(verdict.is_accepted(), accepted);
    }
}
