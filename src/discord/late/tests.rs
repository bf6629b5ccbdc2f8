mod properties;

use std::convert::Infallible;
use std::future;

use futures_util::{FutureExt, stream};
use rstest::rstest;
use serde_json::Value;

use super::*;
use crate::discord::interaction::Kind;

const PUBLIC: Deferral = Deferral::Message { private: false };
const PRIVATE: Deferral = Deferral::Message { private: true };
const UPDATE: Deferral = Deferral::Update;
const FORM: &str = "Multipart/Form-Data; boundary=\"x y\"";

/// A component's: it takes all the callbacks of messages.
const COMPONENT: Question = Question { kind: Kind::Component, has_message: true };

fn mapped(deferral: Deferral, body: &str) -> Result<Mapped, LateError> {
    map(deferral, "application/json", &Bytes::copy_from_slice(body.as_bytes()), COMPONENT)
}

fn message(mapped: Mapped) -> (Way, String, Option<Note>) {
    let Late::Deliver(message) = mapped.late else { panic!("{mapped:?}") };
    assert_eq!(message.content_type, "application/json");
    (message.way, String::from_utf8(message.body.to_vec()).unwrap(), mapped.note)
}

/// The table of DISCORD's documentation and our inferences from it: deferral × answer → what is to be done.
#[rstest]
#[case::public(PUBLIC, r#"{"type":4,"data":{"content":"a"}}"#, Way::Edit, r#"{"content":"a"}"#, None)]
#[case::private(
    PRIVATE,
    r#"{"type":4,"data":{"content":"a","flags":64}}"#,
    Way::Edit,
    r#"{"content":"a"}"#,
    None
)]
#[case::becomes_private(
    PUBLIC,
    r#"{"type":4,"data":{"content":"a","flags":64}}"#,
    Way::Replace,
    r#"{"content":"a","flags":64}"#,
    None
)]
#[case::stays_private(
    PRIVATE,
    r#"{"type":4,"data":{"content":"a"}}"#,
    Way::Edit,
    r#"{"content":"a"}"#,
    Some(Note::StaysPrivate)
)]
#[case::update(UPDATE, r#"{"type":7,"data":{"components":[]}}"#, Way::Edit, r#"{"components":[]}"#, None)]
#[case::update_of_nothing(UPDATE, r#"{"type":7}"#, Way::Edit, "{}", None)]
#[case::update_of_null(UPDATE, r#"{"type":7,"data":null}"#, Way::Edit, "{}", None)]
#[case::update_cannot_hide(
    UPDATE,
    r#"{"type":7,"data":{"content":"a","flags":64}}"#,
    Way::Edit,
    r#"{"content":"a"}"#,
    None
)]
#[case::follow_up(UPDATE, r#"{"type":4,"data":{"content":"a"}}"#, Way::FollowUp, r#"{"content":"a"}"#, None)]
#[case::private_follow_up(
    UPDATE,
    r#"{"data":{"flags":64,"content":"a"},"type":4}"#,
    Way::FollowUp,
    r#"{"flags":64,"content":"a"}"#,
    None
)]
fn a_late_answer_takes_its_way(
    #[case] deferral: Deferral,
    #[case] answer: &str,
    #[case] way: Way,
    #[case] body: &str,
    #[case] note: Option<Note>,
) {
    assert_eq!(message(mapped(deferral, answer).unwrap()), (way, body.to_owned(), note));
}

#[rstest]
fn a_handler_that_defers_by_itself_edits_by_itself(
    #[values(PUBLIC, PRIVATE, UPDATE)] deferral: Deferral,
    #[values(r#"{"type":5}"#, r#"{"type":5,"data":{"flags":64}}"#, r#"{"type":6}"#)] answer: &str,
) {
    let mapped = mapped(deferral, answer).unwrap();
    // A 6 after a 6 promises nothing.
    let is_said = deferral == UPDATE && answer == r#"{"type":6}"#;
    assert_eq!(mapped.late, if is_said { Late::IsSaid } else { Late::EditsItself });
    let is_private = answer.contains("64");
    assert_eq!(mapped.note, (deferral == PUBLIC && is_private).then_some(Note::StaysPublic));
}

#[rstest]
#[case::modal(
    PUBLIC,
    r#"{"type":9,"data":{}}"#,
    "callback type 9 (MODAL) came after the deadline: the interaction had been deferred with type 5 (DEFERRED_CHANNEL_MESSAGE_WITH_SOURCE), and then only type 4 (CHANNEL_MESSAGE_WITH_SOURCE) can be delivered"
)]
#[case::update(
    PRIVATE,
    r#"{"type":7,"data":{"content":"a"}}"#,
    "callback type 7 (UPDATE_MESSAGE) came after"
)]
#[case::premium(
    UPDATE,
    r#"{"type":10}"#,
    "deferred with type 6 (DEFERRED_UPDATE_MESSAGE), and then only type 7 (UPDATE_MESSAGE) or 4 (CHANNEL"
)]
#[case::activity(UPDATE, r#"{"type":12}"#, "callback type 12 (LAUNCH_ACTIVITY) came after")]
#[case::choices(
    PUBLIC,
    r#"{"type":8,"data":{"choices":[]}}"#,
    "callback type 8 (APPLICATION_COMMAND_AUTOCOMPLETE_RESULT) is no answer to"
)]
#[case::html(PUBLIC, "<h1>", "the body is not a callback")]
#[case::no_data(PUBLIC, r#"{"type":4}"#, "its `data` is missing, or has none of content")]
#[case::null(UPDATE, r#"{"type":4,"data":null}"#, "its `data` is missing")]
#[case::nothing_to_show(
    PUBLIC,
    r#"{"type":4,"data":{"flags":64,"tts":true,"choices":[]}}"#,
    "its `data` is missing"
)]
#[case::text(PUBLIC, r#"{"type":4,"data":"SECRET"}"#, "the body is not a callback")]
#[case::array(
    UPDATE,
    r#"{"type":7,"data":[null,null,null,null,null]}"#,
    "the body is not a callback (invalid type: sequence"
)]
#[case::data_twice(
    PUBLIC,
    r#"{"type":4,"data":{"content":"a"},"data":{"content":"b"}}"#,
    "duplicate field `data`"
)]
#[case::content_twice(
    PUBLIC,
    r#"{"type":4,"data":{"content":"a","content":"b"}}"#,
    "duplicate field `content`"
)]
#[case::flags_twice(
    PUBLIC,
    r#"{"type":4,"data":{"content":"a","flags":64,"fl\u0061gs":0}}"#,
    "its `data` has `flags` twice"
)]
#[case::components_twice(
    UPDATE,
    r#"{"type":7,"data":{"components":[],"components":[]}}"#,
    "its `data` has `components` twice"
)]
#[case::flags_as_text(
    PUBLIC,
    r#"{"type":4,"data":{"content":"a","flags":"64"}}"#,
    "its `flags` are not a whole number"
)]
#[case::flags_as_float(PUBLIC, r#"{"type":4,"data":{"content":"a","flags":64.0}}"#, "its `flags` are not")]
#[case::negative_flags(PUBLIC, r#"{"type":4,"data":{"content":"a","flags":-1}}"#, "its `flags` are not")]
fn what_cannot_be_delivered_is_said(#[case] deferral: Deferral, #[case] answer: &str, #[case] words: &str) {
    let error = mapped(deferral, answer).unwrap_err().to_string();
    assert!(error.contains(words) && !error.contains("SECRET"), "{error}");
}

#[test]
fn what_answers_no_interaction_but_one_of_an_unknown_kind_is_no_late_answer() {
    let question = Question { kind: Kind::Unknown(9), has_message: false };
    for callback in [1, 8, 13] {
        let body = Bytes::from(format!(r#"{{"type":{callback}}}"#));
        let result = map(PUBLIC, "application/json", &body, question);
        assert!(matches!(result, Err(LateError::Unfit { .. })), "{callback}");
    }
}

/// Every field there is, written oddly.
const ALL_FIELDS: &str = r#"{ "poll" : {"a": 1.0e5} ,"x":[[{}]],"tts":true,"content":"\u00e9 \ud83d\ude00 é","allowed_mentions":{ "parse" :[]},
  "embeds":[ {"description" : "b"} ],"username":"u","attachments":[{"id":0,  "filename":"f"}],"choices":null,"title":"t","components":[]}"#;

#[rstest]
#[case::edit(
    PUBLIC,
    r#"{"poll":{"a": 1.0e5},"content":"\u00e9 \ud83d\ude00 é","allowed_mentions":{ "parse" :[]},"embeds":[ {"description" : "b"} ],"attachments":[{"id":0,  "filename":"f"}],"components":[]}"#
)]
#[case::follow_up(
    UPDATE,
    r#"{"poll":{"a": 1.0e5},"tts":true,"content":"\u00e9 \ud83d\ude00 é","allowed_mentions":{ "parse" :[]},"embeds":[ {"description" : "b"} ],"attachments":[{"id":0,  "filename":"f"}],"components":[]}"#
)]
fn what_goes_the_way_stays_as_it_was_written(#[case] deferral: Deferral, #[case] body: &str) {
    let answer = format!(r#"{{"type":4,"data":{ALL_FIELDS}}}"#);
    assert_eq!(message(mapped(deferral, &answer).unwrap()).1, body);
}

#[rstest]
#[case::edit_of_all_bits(PRIVATE, 4, "18446744073709551615", r#""flags":32772,"#)]
#[case::edit(PRIVATE, 4, "4196", r#""flags":4,"#)]
#[case::edit_unchanged(UPDATE, 7, "32768", r#""flags":32768,"#)]
#[case::nothing_remains(PRIVATE, 4, "4160", "")]
#[case::cleared(UPDATE, 7, "0", r#""flags":0,"#)]
#[case::null(UPDATE, 7, "null", "")]
#[case::follow_up_of_all_bits(UPDATE, 4, "18446744073709551615", r#""flags":36932,"#)]
#[case::follow_up_without(UPDATE, 4, "128", "")]
#[case::silent(UPDATE, 4, "4096", r#""flags":4096,"#)]
#[case::replaced(PUBLIC, 4, "4290", r#""flags":4160,"#)]
fn flags_are_those_that_the_way_can_carry(
    #[case] deferral: Deferral,
    #[case] callback: u64,
    #[case] flags: &str,
    #[case] written: &str,
) {
    let answer = format!(r#"{{"type":{callback},"data":{{"flags":{flags},"content":"a"}}}}"#);
    let body = message(mapped(deferral, &answer).unwrap()).1;
    assert_eq!(body, format!(r#"{{{written}"content":"a"}}"#));
}

#[test]
fn broken_limits_are_told_and_doubts_about_large_forms_are_not() {
    let long = format!(r#"{{"type":4,"data":{{"content":"{}"}}}}"#, "x".repeat(2001));
    assert_eq!(mapped(PUBLIC, &long).unwrap().checked.broken_limits.len(), 1);
    let body = form(r#"{"type":4,"data":{"content":"a"}}"#, &[vec![0; 200_000]]);
    let mapped = map(PUBLIC, FORM, &body, COMPONENT).unwrap();
    assert_eq!((mapped.checked.files, mapped.checked.doubt), (1, None));
}

/// A form with `payload_json` between its files.
fn form(callback: &str, files: &[Vec<u8>]) -> Bytes {
    let mut form = Vec::new();
    for (n, file) in files.iter().enumerate() {
        if n == 1 {
            form.extend(payload_part(callback));
        }
        let head = format!(
            "--x y\r\ncontent-disposition: form-data; name=\"files[{n}]\"; filename=\"é {n}.png\"\r\n\
             Content-Type: image/png\r\nX-Note:  {n} \r\n\r\n"
        );
        form.extend([head.as_bytes(), file, b"\r\n"].concat());
    }
    if files.len() < 2 {
        form.extend(payload_part(callback));
    }
    form.extend(b"--x y--\r\n");
    form.into()
}

fn payload_part(callback: &str) -> Vec<u8> {
    let head = "--x y\r\nContent-Disposition: form-data; name=\"payload_json\"\r\nContent-Length: 1\r\n\r\n";
    format!("{head}{callback}\r\n").into_bytes()
}

/// All parts of a form as another program reads it: headers in one text, and the content.
fn parts(content_type: &str, body: &Bytes) -> Vec<(String, Bytes)> {
    let boundary = multer::parse_boundary(content_type).unwrap();
    let whole = stream::once(future::ready(Ok::<_, Infallible>(body.clone())));
    let mut form = multer::Multipart::new(whole, boundary);
    let read = async {
        let mut parts = Vec::new();
        while let Some(part) = form.next_field().await.unwrap() {
            let headers = part.headers().iter();
            let headers = headers
                .map(|(name, value)| format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())));
            parts.push((headers.collect(), part.bytes().await.unwrap()));
        }
        parts
    };
    read.now_or_never().unwrap()
}

#[test]
fn a_form_keeps_its_files_and_gets_the_bare_message() {
    let callback = r#"{"type":4,"data":{"tts":true,"attachments":[{"id":0}, {"id":1}],"content":"--x y--"}}"#;
    let body = form(callback, &[b"\r\n--x\0".to_vec(), Vec::new()]);
    let Late::Deliver(message) = map(PUBLIC, FORM, &body, COMPONENT).unwrap().late else { panic!() };
    assert_eq!((message.way, message.content_type.as_str()), (Way::Edit, FORM));
    let shown = String::from_utf8_lossy(&message.body).into_owned();
    insta::assert_snapshot!(shown.replace('\0', "NUL").replace("\r\n", "\n"));
}

/// Without a list, an edit that is sent twice adds its files twice. An update may mean to keep what is there.
#[rstest]
#[case::answer(
    PUBLIC,
    r#"{"type":4,"data":{"content":"a"}}"#,
    r#"{"content":"a","attachments":[{"id":0},{"id":1}]}"#
)]
#[case::with_a_list(PUBLIC, r#"{"type":4,"data":{"attachments":[]}}"#, r#"{"attachments":[]}"#)]
#[case::update(UPDATE, r#"{"type":7,"data":{"content":"a"}}"#, r#"{"content":"a"}"#)]
#[case::follow_up(UPDATE, r#"{"type":4,"data":{"content":"a"}}"#, r#"{"content":"a"}"#)]
fn an_edit_lists_its_files(#[case] deferral: Deferral, #[case] callback: &str, #[case] payload: &str) {
    let body = form(callback, &[vec![1], vec![2]]);
    let Late::Deliver(message) = map(deferral, FORM, &body, COMPONENT).unwrap().late else { panic!() };
    assert_eq!(parts(FORM, &message.body)[0].1, payload);
}

#[test]
fn files_alone_are_an_answer() {
    let body = form(r#"{"type":4}"#, &[vec![1]]);
    let Late::Deliver(message) = map(UPDATE, FORM, &body, COMPONENT).unwrap().late else { panic!() };
    assert_eq!(message.way, Way::FollowUp);
    assert_eq!(parts(FORM, &message.body)[0].1, "{}");
    let alone = form(r#"{"type":4}"#, &[]);
    assert!(matches!(map(UPDATE, FORM, &alone, COMPONENT), Err(LateError::Empty)));
}

#[test]
fn a_private_form_becomes_a_private_follow_up() {
    let body = form(r#"{"type":4,"data":{"flags":64}}"#, &[vec![1]]);
    let Late::Deliver(message) = map(PUBLIC, FORM, &body, COMPONENT).unwrap().late else { panic!() };
    assert_eq!(message.way, Way::Replace);
    assert_eq!(parts(FORM, &message.body)[0].1, r#"{"flags":64}"#);
}

#[test]
fn a_broken_form_is_explained() {
    let body = form(r#"{"type":4,"data":{"content":"a"}}"#, &[vec![1]]);
    let cut = body.slice(..body.len() - 4);
    let error = map(PUBLIC, FORM, &cut, COMPONENT).unwrap_err().to_string();
    assert!(error.contains("of its form is broken or breaks off"), "{error}");
}

#[test]
fn fallbacks_ping_nobody_and_a_new_one_is_private() {
    let text = "Sorry \"@everyone\"";
    let edit: Value = serde_json::from_slice(&fallback_edit(text)).unwrap();
    assert_eq!(edit, json!({ "content": text, "allowed_mentions": { "parse": [] } }));
    let follow_up: Value = serde_json::from_slice(&fallback_follow_up(text)).unwrap();
    assert_eq!(follow_up["flags"], 64);
    assert_eq!(
        (&follow_up["content"], &follow_up["allowed_mentions"]),
        (&edit["content"], &edit["allowed_mentions"])
    );
}

#[rstest]
#[case(Note::StaysPrivate, "so it stays private; set ephemeral = false, or give the answer flag 64")]
#[case(
    Note::StaysPublic,
    "deferred for everyone to see, and so will be what it writes; set ephemeral = true"
)]
fn a_note_says_what_to_set(#[case] note: Note, #[case] words: &str) {
    assert!(note.to_string().ends_with(words), "{note}");
}

#[test]
fn what_users_write_is_in_no_debug_output() {
    let mapped = mapped(PUBLIC, r#"{"type":4,"data":{"content":"SECRET"}}"#).unwrap();
    let shown = format!("{mapped:?}");
    assert!(shown.contains("Edit, 20 bytes") && !shown.contains("SECRET"), "{shown}");
}
