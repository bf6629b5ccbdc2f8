//! Judging a handler's answer: is it one that Discord takes?

use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::{Failure, Reply};
use crate::activity::Outcome;
use crate::discord::callback::{self, Question};
use crate::forward::Answer;

/// What an answer is good for.
pub(super) struct Judged {
    pub(super) outcome: Outcome,
    pub(super) reply: Reply,
    /// Limits of Discord that it breaks: it is relayed all the same, but its author should know.
    pub(super) warning: Option<String>,
}

/// Judges an answer without changing it.
pub(super) fn judge(answer: Answer, question: Question) -> Result<Judged, Failure> {
    match answer.status {
        StatusCode::OK => {}
        StatusCode::ACCEPTED | StatusCode::NO_CONTENT => {
            let reply = Reply::empty(StatusCode::ACCEPTED);
            return Ok(Judged { outcome: Outcome::HandlerAnswersItself, reply, warning: None });
        }
        other => return Err(Failure::Status(other)),
    }
    let encoding = text(&answer.headers, CONTENT_ENCODING);
    if !encoding.is_empty() && !encoding.eq_ignore_ascii_case("identity") {
        return Err(Failure::ContentEncoding(encoding));
    }
    let content_type = text(&answer.headers, CONTENT_TYPE);
    let (essence, parameters) = content_type.split_once(';').unwrap_or((&content_type, ""));
    let essence = essence.trim().to_ascii_lowercase();
    let mut warning = None;
    match essence.as_str() {
        "application/json" => {
            let broken = callback::check(&answer.body, question)?.broken_limits;
            warning = (!broken.is_empty()).then(|| broken.join("; "));
        }
        "multipart/form-data" if parameters.to_ascii_lowercase().contains("boundary=") => {}
        "" => return Err(Failure::ContentType("no content type".to_owned())),
        _ => return Err(Failure::ContentType(content_type)),
    }
    let relayed = HeaderValue::from_str(&content_type).map_err(|_| Failure::ContentType(content_type))?;
    Ok(Judged { outcome: Outcome::Answered, reply: Reply::callback(relayed, answer.body), warning })
}

/// A header as text for people: escaped where it is none.
fn text(headers: &HeaderMap, name: HeaderName) -> String {
    let value = headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
    value.map(|value| value.trim().chars().take(100).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use rstest::rstest;

    use super::*;
    use crate::discord::interaction::Kind;

    const COMMAND: Question = Question { kind: Kind::Command, has_message: false };

    fn answer(status: u16, headers: &[(HeaderName, &'static str)], body: &'static str) -> Answer {
        let headers = headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: headers.collect(),
            body: Bytes::from_static(body.as_bytes()),
        }
    }

    #[rstest]
    #[case(200, "application/json", r#"{"type":4,"data":{"content":"hi"}}"#, 200)]
    #[case(200, "application/json; charset=utf-8", r#"{"type":5}"#, 200)]
    #[case(200, "multipart/form-data; boundary=x", "--x--", 200)]
    #[case(202, "", "", 202)]
    #[case(204, "", "", 202)]
    #[case(202, "text/html", "accepted", 202)]
    fn useful_answers_are_relayed(
        #[case] status: u16,
        #[case] content_type: &'static str,
        #[case] body: &'static str,
        #[case] relayed: u16,
    ) {
        let reply = judge(answer(status, &[(CONTENT_TYPE, content_type)], body), COMMAND).unwrap().reply;
        assert_eq!(reply.status(), relayed);
        let expected = if relayed == 200 { body.len() } else { 0 };
        assert_eq!(reply.body_len(), expected);
    }

    #[rstest]
    #[case(301, "application/json", "", "it answered 301 Moved Permanently; Discord needs 200")]
    #[case(404, "text/plain", "not here", "is the path in `handler` the bot's own?")]
    #[case(500, "text/html", "<h1>", "see the bot's own log")]
    #[case(201, "application/json", r#"{"type":4}"#, "it answered 201 Created")]
    #[case(200, "text/html", "<h1>", "200 with text/html; Discord needs application/json")]
    #[case(200, "multipart/form-data", "--x--", "multipart/form-data with a boundary")]
    #[case(200, "", r#"{"type":4}"#, "200 with no content type")]
    #[case(200, "application/json", "", "it answered 200, but the body is empty")]
    #[case(
        200,
        "application/json",
        r#"{"type":1}"#,
        "callback type 1 (PONG) is no answer to this kind of interaction (command)"
    )]
    fn useless_answers_are_explained(
        #[case] status: u16,
        #[case] content_type: &'static str,
        #[case] body: &'static str,
        #[case] words: &str,
    ) {
        let failure = judge(answer(status, &[(CONTENT_TYPE, content_type)], body), COMMAND).err().unwrap();
        assert!(failure.to_string().contains(words), "{failure}");
        assert_eq!(failure.status(), StatusCode::BAD_GATEWAY);
    }

    #[test]
    fn an_answer_beyond_a_limit_is_relayed_with_a_warning() {
        let embeds = r#"{"type":4,"data":{"embeds":[{},{},{},{},{},{},{},{},{},{},{}]}}"#;
        let judged = judge(answer(200, &[(CONTENT_TYPE, "application/json")], embeds), COMMAND).ok().unwrap();
        assert_eq!(judged.reply.body_len(), embeds.len());
        assert_eq!(judged.warning.as_deref(), Some("there are 11 embeds; Discord takes at most 10"));
    }

    #[test]
    fn a_compressed_answer_is_explained() {
        let headers = [(CONTENT_TYPE, "application/json"), (CONTENT_ENCODING, "gzip")];
        let failure = judge(answer(200, &headers, "…"), COMMAND).err().unwrap();
        assert!(failure.to_string().contains("content encoding gzip"), "{failure}");
    }
}
