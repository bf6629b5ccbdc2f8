use proptest::prelude::*;
use rstest::rstest;

use super::form::{MAX_PART_HEADERS, MAX_PARTS};
use super::*;

const COMMAND: Question = Question { kind: Kind::Command, has_message: false };
const FORM: &str = "multipart/form-data; boundary=xyz";
const CALLBACK: &str = r#"{"type":4,"data":{"content":"hi"}}"#;

/// A form with these parts, each a name (with what else belongs to it) and its content.
fn form(parts: &[(&str, &str)]) -> String {
    let part = |(name, content): &(&str, &str)| {
        format!("--xyz\r\nContent-Disposition: form-data; name={name}\r\n\r\n{content}\r\n")
    };
    parts.iter().map(part).collect::<String>() + "--xyz--\r\n"
}

fn checked(content_type: &str, body: &str) -> Result<Checked, String> {
    check(content_type, &Bytes::copy_from_slice(body.as_bytes()), COMMAND).map_err(|error| error.to_string())
}

#[rstest]
#[case::payload_alone(FORM, form(&[("\"payload_json\"", CALLBACK)]), 0)]
#[case::with_a_file(FORM, form(&[("\"payload_json\"", CALLBACK), ("\"files[0]\"; filename=\"a.png\"", "\u{1}\r\n--xy")]), 1)]
#[case::payload_last(FORM, form(&[("\"files[0]\"; filename=\"a.png\"", "x"), ("payload_json", CALLBACK)]), 1)]
#[case::other_names(FORM, form(&[("payload_json", CALLBACK), ("\"file\"; filename=\"a.png\"", "x"), ("note", "n")]), 1)]
#[case::empty_file(FORM, form(&[("payload_json", CALLBACK), ("\"files[3]\"; filename=\"\"", "")]), 1)]
#[case::quoted_boundary("Multipart/Form-Data; charset=utf-8; Boundary=\"xyz\"", form(&[("payload_json", CALLBACK)]), 0)]
#[case::unquoted_signs(
    "multipart/form-data; boundary===xyz==",
    form(&[("payload_json", CALLBACK)]).replace("--xyz", "--==xyz=="),
    0
)]
#[case::words_around(FORM, format!("preamble\r\n{}epilogue", form(&[("payload_json", CALLBACK)])), 0)]
fn sound_forms_are_taken(#[case] content_type: &str, #[case] body: String, #[case] files: usize) {
    let checked = checked(content_type, &body).unwrap();
    assert_eq!((checked.callback, checked.files), (CallbackType::ChannelMessageWithSource, files));
    assert!(checked.broken_limits.is_empty() && checked.doubt.is_none(), "{checked:?}");
}

#[rstest]
#[case::no_boundary("multipart/form-data", form(&[("payload_json", CALLBACK)]), "multipart/form-data without a boundary")]
#[case::empty_boundary("multipart/form-data; boundary=", String::new(), "without a boundary")]
#[case::another_boundary("multipart/form-data; boundary=abc", form(&[("payload_json", CALLBACK)]), "no part begins with the boundary")]
#[case::empty(FORM, String::new(), "no part begins with the boundary")]
#[case::no_parts(FORM, "--xyz--".to_owned(), "no part named payload_json, which holds the callback; there is no part at all")]
#[case::no_payload(
    FORM,
    form(&[("\"files[0]\"; filename=\"a\"", "x"), ("a", "1"), ("bé", "2"), ("c", "3"), ("d", "4")]),
    r#"there is "files[0]", "a", "bé", 2 more"#
)]
#[case::two_payloads(FORM, form(&[("payload_json", CALLBACK), ("payload_json", CALLBACK)]), "the part payload_json twice")]
#[case::breaks_off(FORM, form(&[("payload_json", CALLBACK)]).replace("--xyz--", "--xy"), "part 1 of its form is broken or breaks off")]
#[case::file_breaks_off(
    FORM,
    form(&[("payload_json", CALLBACK), ("files[0]", "x")]).replace("--xyz--\r\n", ""),
    "part 2 of its form is broken or breaks off"
)]
#[case::broken_headers(FORM, form(&[("payload_json", CALLBACK), ("a\u{7}", "")]), "part 2 of its form is broken")]
#[case::bare_line_feeds(FORM, form(&[("payload_json", CALLBACK)]).replace("\r\n", "\n"), "begins with the boundary")]
#[case::too_many(FORM, form(&vec![("x", ""); 70]), "more than 64 parts")]
#[case::large_headers(FORM, form(&[(&"x".repeat(9000), "")]), "the headers of part 1 of its form have more than 8192 bytes")]
#[case::empty_payload(FORM, form(&[("payload_json", "")]), "in its part payload_json, the body is empty")]
#[case::no_json(FORM, form(&[("payload_json", "hi")]), "in its part payload_json, the body is not a callback (no valid JSON")]
#[case::bare_message(FORM, form(&[("payload_json", r#"{"content":"hi"}"#)]), "missing field `type`")]
#[case::wrong_type(FORM, form(&[("payload_json", r#"{"type":8}"#)]), "in its part payload_json, callback type 8")]
#[case::html("text/html; charset=utf-8", "<h1>".to_owned(), "its content type is text/html; charset=utf-8; Discord needs application/json")]
#[case::none("", CALLBACK.to_owned(), "its content type is missing")]
#[case::control_characters("text/\u{1b}[2J", String::new(), r"text/\u{1b}[2J;")]
fn what_is_wrong_is_said(#[case] content_type: &str, #[case] body: String, #[case] words: &str) {
    let error = checked(content_type, &body).unwrap_err();
    assert!(error.contains(words), "{error}");
    assert!(error.chars().count() < 300 && !error.contains(char::is_control), "{error}");
}

#[rstest]
#[case::cut_at_its_end("")]
#[case::cut_in_the_last_boundary("-")]
#[case::goes_on_in_another_way("+\r\n")]
fn a_broken_end_is_the_last_parts(#[case] end: &str) {
    let sound = form(&[("payload_json", CALLBACK), ("\"files[0]\"", "x")]);
    let error = checked(FORM, &sound.replace("--xyz--\r\n", &format!("--xyz{end}"))).unwrap_err();
    assert!(error.starts_with("part 2 of its form is broken or breaks off"), "{error}");
}

#[rstest]
#[case::as_many_as_there_may_be(MAX_PARTS, true)]
#[case::one_more(MAX_PARTS + 1, false)]
fn parts_are_bounded(#[case] count: usize, #[case] is_taken: bool) {
    let mut parts = vec![("note", ""); count - 1];
    parts.push(("payload_json", CALLBACK));
    assert_eq!(checked(FORM, &form(&parts)).is_ok(), is_taken);
}

#[rstest]
#[case::as_large_as_they_may_be(MAX_PART_HEADERS, true)]
#[case::one_byte_more(MAX_PART_HEADERS + 1, false)]
fn headers_of_a_part_are_bounded(#[case] size: usize, #[case] is_taken: bool) {
    let name = "x".repeat(size - "content-dispositionform-data; name=".len());
    let parts = [("payload_json", CALLBACK), (name.as_str(), "")];
    assert_eq!(checked(FORM, &form(&parts)).is_ok(), is_taken);
}

#[rstest]
#[case::as_long_as_it_may_be(70, true)]
#[case::one_more(71, false)]
fn a_boundary_is_bounded(#[case] length: usize, #[case] is_taken: bool) {
    let boundary = "b".repeat(length);
    let body = form(&[("payload_json", CALLBACK)]).replace("xyz", &boundary);
    assert_eq!(checked(&format!("multipart/form-data; boundary={boundary}"), &body).is_ok(), is_taken);
}

#[rstest]
#[case::one(1, r#"there is "a""#)]
#[case::all_that_are_shown(3, r#"there is "a", "b", "c""#)]
#[case::one_more(4, r#"there is "a", "b", "c", 1 more"#)]
fn parts_that_are_there_are_named_and_few(#[case] count: usize, #[case] end: &str) {
    let parts: Vec<_> = ["a", "b", "c", "d"].into_iter().take(count).map(|name| (name, "")).collect();
    let error = checked(FORM, &form(&parts)).unwrap_err();
    assert!(error.ends_with(end), "{error}");
}

#[test]
fn a_ping_takes_no_form() {
    let body = Bytes::from(form(&[("payload_json", r#"{"type":1}"#)]));
    let ping = Question { kind: Kind::Ping, has_message: false };
    assert!(matches!(check(FORM, &body, ping), Err(AnswerError::ContentType(_))));
}

#[rstest]
#[case::as_many_as_there_may_be(10, &[])]
#[case::one_too_many(11, &["there are 11 files; Discord takes at most 10"])]
fn limits_of_a_form_are_named(#[case] files: usize, #[case] broken_limits: &[&str]) {
    let names: Vec<_> = (0..files).map(|n| format!("\"files[{n}]\"; filename=\"{n}.png\"")).collect();
    let mut parts: Vec<_> = names.iter().map(|name| (name.as_str(), "x")).collect();
    parts.push(("payload_json", CALLBACK));
    let checked = checked(FORM, &form(&parts)).unwrap();
    assert_eq!(
        (checked.files, checked.broken_limits),
        (files, broken_limits.iter().map(ToString::to_string).collect())
    );
}

#[rstest]
#[case::both_there(r#"{"type":4,"data":{"attachments":[{"id":"0"},{"id":1,"description":"b"}]}}"#, "")]
#[case::one_missing(r#"{"type":4,"data":{"attachments":[{"id":0},{"id":"2"}]}}"#, "attachment 2 has no file")]
#[case::no_ids(r#"{"type":4,"data":{"attachments":[{},{"id":"x"},7]}}"#, "")]
#[case::kept_from_before(r#"{"type":7,"data":{"attachments":[{"id":"845027738276462632"}]}}"#, "")]
fn attachments_need_their_files(#[case] callback: &str, #[case] words: &str) {
    let parts = [("payload_json", callback), ("\"files[0]\"", "a"), ("\"files[1]\"", "b")];
    let question = Question { kind: Kind::Component, has_message: true };
    let broken = check(FORM, &Bytes::from(form(&parts)), question).unwrap().broken_limits.join("; ");
    assert!(broken.contains(words) && broken.is_empty() == words.is_empty(), "{broken}");
}

#[test]
fn a_large_form_is_doubted_and_taken() {
    let file = "x".repeat(160_000);
    let body = form(&[("payload_json", CALLBACK), ("\"files[0]\"; filename=\"a\"", &file)]);
    let checked = checked(FORM, &body).unwrap();
    assert!(checked.broken_limits.is_empty());
    assert!(checked.doubt.unwrap().starts_with("it has 160 kB, and with more than 150 kB"));
}

#[rstest]
#[case::still_fine(LARGE_FORM, false)]
#[case::one_byte_more(LARGE_FORM + 1, true)]
fn a_doubt_begins_past_the_largest_sound_form(#[case] size: usize, #[case] is_doubted: bool) {
    let with = |file: &str| form(&[("payload_json", CALLBACK), ("\"files[0]\"; filename=\"a\"", file)]);
    let body = with(&"x".repeat(size - with("").len()));
    assert_eq!((body.len(), checked(FORM, &body).unwrap().doubt.is_some()), (size, is_doubted));
}

fn question() -> impl Strategy<Value = Question> {
    (0..8_u64, any::<bool>())
        .prop_map(|(kind, has_message)| Question { kind: Kind::from_type(kind), has_message })
}

proptest! {
    /// Whatever a handler sends, there is an end to it, and a text of sane length.
    #[test]
    fn anything_is_judged(content_type in ".{0,80}", body: Vec<u8>, question in question()) {
        for content_type in [&content_type, FORM, "application/json"] {
            if let Err(error) = check(content_type, &Bytes::from(body.clone()), question) {
                prop_assert!(error.to_string().chars().count() < 1000);
            }
        }
    }

    /// A sound form of which some bytes were changed, cut out or doubled.
    #[test]
    fn a_mutated_form_is_judged(
        files in proptest::collection::vec(any::<Vec<u8>>(), 0..4),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3), 0..6),
        question in question(),
    ) {
        let mut body = form(&[("payload_json", CALLBACK)]).replace("--xyz--\r\n", "").into_bytes();
        for (n, file) in files.iter().enumerate() {
            let head = format!("--xyz\r\nContent-Disposition: form-data; name=\"files[{n}]\"; filename=\"{n}\"\r\n\r\n");
            body.extend([head.as_bytes(), file, b"\r\n"].concat());
        }
        body.extend(b"--xyz--\r\n");
        let holds_a_boundary = files.iter().any(|file| file.windows(5).any(|bytes| bytes == b"--xyz"));
        if !holds_a_boundary {
            let checked = check(FORM, &Bytes::from(body.clone()), COMMAND);
            prop_assert_eq!(checked.map(|checked| checked.files).ok(), Some(files.len()));
        }
        for (at, byte, change) in changes {
            let at = at.index(body.len());
            match change {
                0 => body[at] = byte,
                1 => drop(body.remove(at)),
                _ => body.insert(at, body[at]),
            }
        }
        if let Ok(checked) = check(FORM, &Bytes::from(body), question) {
            prop_assert!(checked.callback.may_answer(question));
        }
    }
}
