//! Judging a handler's answer: is it one that Discord takes?

use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::{Failure, Reply};
use crate::activity::Outcome;
use crate::discord::answer::{self, AnswerError};
use crate::discord::callback::Question;
use crate::discord::deferral::Deferral;
use crate::discord::late::{self, Mapped};
use crate::discord::signature;
use crate::forward::Answer;

/// What an answer is good for.
pub(super) struct Judged {
    pub(super) outcome: Outcome,
    pub(super) reply: Reply,
    /// It is relayed all the same, but its author should know.
    pub(super) warning: Option<String>,
}

/// Judges an answer without changing it.
pub(super) fn judge(answer: Answer, question: Question) -> Result<Judged, Failure> {
    let Some(content_type) = content_type(&answer)? else {
        let reply = Reply::empty(StatusCode::ACCEPTED);
        return Ok(Judged { outcome: Outcome::HandlerAnswersItself, reply, warning: None });
    };
    let checked = answer::check(&String::from_utf8_lossy(content_type.as_bytes()), &answer.body, question)?;
    let broken = checked.broken_limits;
    let refused = (!broken.is_empty()).then(|| format!("Discord will refuse it: {}", broken.join("; ")));
    let warning = refused.or_else(|| checked.doubt.map(|doubt| format!("Discord may not take it: {doubt}")));
    // What hyper hands out keeps the whole buffer of its connection, and answers are kept for a while.
    let reply = Reply::callback(signature::copy(content_type), answer.body);
    Ok(Judged { outcome: Outcome::Answered, reply, warning })
}

/// Judges an answer that comes after a deferral; `None` where the handler answers by itself.
pub(super) fn judge_late(
    answer: &Answer,
    deferral: Deferral,
    question: Question,
) -> Result<Option<Mapped>, Failure> {
    let Some(content_type) = content_type(answer)? else { return Ok(None) };
    let content_type = String::from_utf8_lossy(content_type.as_bytes());
    Ok(Some(late::map(deferral, &content_type, &answer.body, question)?))
}

/// The content type of an answer that has one to be judged by; `None` where the handler answers by itself.
fn content_type(answer: &Answer) -> Result<Option<&HeaderValue>, Failure> {
    match answer.status {
        StatusCode::OK => {}
        StatusCode::ACCEPTED | StatusCode::NO_CONTENT => return Ok(None),
        other => return Err(Failure::Status(other)),
    }
    let encoding = text(&answer.headers, CONTENT_ENCODING);
    if !encoding.is_empty() && !encoding.eq_ignore_ascii_case("identity") {
        return Err(Failure::ContentEncoding(encoding));
    }
    let content_type = answer.headers.get(CONTENT_TYPE);
    Ok(Some(content_type.ok_or_else(|| AnswerError::ContentType("missing".to_owned()))?))
}

/// A header as text for people, cut to a sane length.
fn text(headers: &HeaderMap, name: HeaderName) -> String {
    let value = headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
    value.map(|value| value.trim().chars().take(100).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use rstest::rstest;

    use http::HeaderValue;

    use super::*;
    use crate::discord::interaction::Kind;

    const COMMAND: Question = Question { kind: Kind::Command, has_message: false };
    const FORM: &str =
        "--x\r\ncontent-disposition: form-data; name=payload_json\r\n\r\n{\"type\":4}\r\n--x--";

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
    #[case(200, "multipart/form-data; boundary=x", FORM, 200)]
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
    #[case(
        200,
        "text/html",
        "<h1>",
        "200, but its content type is text/html; Discord needs application/json"
    )]
    #[case(200, "multipart/form-data", FORM, "multipart/form-data without a boundary")]
    #[case(200, "", r#"{"type":4}"#, "200, but its content type is missing")]
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

    /// Answers are kept for duplicates, and what hyper hands out is a part of a large buffer.
    #[test]
    fn an_answer_keeps_nothing_of_the_connection_that_it_came_by() {
        struct Buffer(#[expect(dead_code, reason = "it is counted")] Arc<()>);
        impl AsRef<[u8]> for Buffer {
            fn as_ref(&self) -> &[u8] {
                b"application/json"
            }
        }
        let buffer = Arc::new(());
        let value = HeaderValue::from_maybe_shared(Bytes::from_owner(Buffer(Arc::clone(&buffer)))).unwrap();
        let mut answer = answer(200, &[], r#"{"type":4}"#);
        answer.headers.insert(CONTENT_TYPE, value);
        let _kept = judge(answer, COMMAND).unwrap().reply;
        assert_eq!(Arc::strong_count(&buffer), 1);
    }

    #[test]
    fn an_answer_beyond_a_limit_is_relayed_with_a_warning() {
        let embeds = r#"{"type":4,"data":{"embeds":[{},{},{},{},{},{},{},{},{},{},{}]}}"#;
        let judged = judge(answer(200, &[(CONTENT_TYPE, "application/json")], embeds), COMMAND).ok().unwrap();
        assert_eq!(judged.reply.body_len(), embeds.len());
        assert_eq!(
            judged.warning.as_deref(),
            Some("Discord will refuse it: there are 11 embeds; Discord takes at most 10")
        );
    }

    /// A boundary of 70 characters makes a long content type; cut, it would be another form.
    #[test]
    fn a_form_is_relayed_with_the_content_type_as_it_came() {
        let boundary = "x".repeat(70);
        let content_type = format!("multipart/form-data; charset=\"utf-8\"; boundary=\"{boundary}\"");
        let headers = [(CONTENT_TYPE, &*content_type.clone().leak())];
        let body = &*FORM.replace("--x", &format!("--{boundary}")).leak();
        let response = judge(answer(200, &headers, body), COMMAND).unwrap().reply.to_response();
        assert_eq!(response.headers()[CONTENT_TYPE], content_type);
    }

    #[test]
    fn a_large_form_is_relayed_with_a_warning() {
        let body = format!(
            "--x\r\ncontent-disposition: form-data; name=note\r\n\r\n{}\r\n{FORM}",
            "x".repeat(150_000)
        )
        .leak();
        let judged =
            judge(answer(200, &[(CONTENT_TYPE, "multipart/form-data; boundary=x")], body), COMMAND).unwrap();
        assert_eq!(judged.reply.body_len(), body.len());
        assert!(judged.warning.unwrap().starts_with("Discord may not take it: it has 150 kB"));
    }

    #[test]
    fn a_compressed_answer_is_explained() {
        let headers = [(CONTENT_TYPE, "application/json"), (CONTENT_ENCODING, "gzip")];
        let failure = judge(answer(200, &headers, "…"), COMMAND).err().unwrap();
        assert!(failure.to_string().contains("content encoding gzip"), "{failure}");
    }
}
