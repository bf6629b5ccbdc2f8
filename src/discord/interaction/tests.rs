use rstest::rstest;

use super::*;

fn parse(body: &str) -> Result<Interaction<'_>, InteractionError> {
    Interaction::parse(body.as_bytes())
}

#[rstest]
#[case::ping(r#"{"id":"1","type":1}"#, Kind::Ping, None)]
#[case::command(
    r#"{"id":"1","type":2,"data":{"name":"roll","options":[{"name":"n","type":4,"value":6}]}}"#,
    Kind::Command,
    Some("roll")
)]
#[case::subcommand(
    r#"{"id":"1","type":2,"data":{"name":"music","options":[{"name":"play","type":1}]}}"#,
    Kind::Command,
    Some("music play")
)]
#[case::group(r#"{"id":"1","type":4,"data":{"name":"a","options":[{"name":"b","type":2,"options":[{"name":"c","type":1,"options":[{"name":"q","type":3}]}]}]}}"#, Kind::Autocomplete, Some("a b c"))]
#[case::null_options(
    r#"{"id":"1","type":2,"data":{"name":"roll","options":null}}"#,
    Kind::Command,
    Some("roll")
)]
#[case::button(
    r#"{"id":"1","type":3,"data":{"custom_id":"x:1"},"message":{"id":"2"}}"#,
    Kind::Component,
    Some("x:1")
)]
#[case::escapes(r#"{"id":"1","type":3,"data":{"custom_id":"\u00e9\n"}}"#, Kind::Component, Some("é\n"))]
#[case::not_known_yet(r#"{"id":"1","type":99,"data":null}"#, Kind::Unknown(99), None)]
#[case::leading_white_space(" \n\t{\"id\":\"1\",\"type\":1}", Kind::Ping, None)]
fn the_deciding_fields_are_read(#[case] body: &str, #[case] kind: Kind, #[case] name: Option<&str>) {
    let interaction = parse(body).unwrap();
    assert_eq!((interaction.id, interaction.kind, interaction.name.as_deref()), (1, kind, name));
    assert_eq!(interaction.has_message, body.contains("message"));
}

#[rstest]
#[case::empty("")]
#[case::array(r#"["1",1]"#)]
#[case::number("7")]
#[case::no_fields("{}")]
#[case::byte_order_mark("\u{feff}{\"id\":\"1\",\"type\":1}")]
#[case::type_twice(r#"{"id":"1","type":1,"type":2}"#)]
#[case::type_as_text(r#"{"id":"1","type":"1"}"#)]
#[case::negative_type(r#"{"id":"1","type":-1}"#)]
#[case::id_as_number(r#"{"id":1,"type":1}"#)]
#[case::id_not_a_snowflake(r#"{"id":"one","type":1}"#)]
#[case::id_with_a_sign(r#"{"id":"+1","type":1}"#)]
#[case::data_as_array(r#"{"id":"1","type":2,"data":[1,"roll",null,[]]}"#)]
#[case::option_as_array(r#"{"id":"1","type":2,"data":{"name":"music","options":[["play",1,[]]]}}"#)]
#[case::trailing_junk(r#"{"id":"1","type":1}x"#)]
#[case::second_object(r#"{"id":"1","type":1}{}"#)]
#[case::token_as_number(r#"{"id":"1","type":1,"token":7}"#)]
#[case::token_twice(r#"{"id":"1","type":1,"token":"a","token":"b"}"#)]
#[case::application_as_number(r#"{"id":"1","type":1,"application_id":7}"#)]
#[case::cut_off(r#"{"id":"1","type":1"#)]
fn anything_else_is_refused(#[case] body: &str) {
    assert!(parse(body).is_err());
}

#[rstest]
#[case::slash(r#""type":1,"#, false)]
#[case::user(r#""type":2,"#, true)]
#[case::message(r#""type":3,"#, true)]
#[case::entry_point(r#""type":4,"#, false)]
#[case::null(r#""type":null,"#, false)]
#[case::not_said("", false)]
fn a_name_of_a_user_or_message_command_is_one_name(#[case] kind: &str, #[case] is_whole: bool) {
    let body = format!(r#"{{"id":"1","type":2,"data":{{{kind}"name":"Report Message"}}}}"#);
    assert_eq!(parse(&body).unwrap().name_is_whole, is_whole);
}

#[test]
fn a_refusal_repeats_nothing_of_the_body() {
    for body in [
        r#"{"id":"1","type":2,"data":"TOKEN"}"#,
        r#"{"id":"1","type":"TOKEN"}"#,
        r#"{"TOKEN"}"#,
        r#"{"id":"1","type":1,"token":["TOKEN"]}"#,
        r#"{"id":"1","type":1,"token":"TOKEN","token":"TOKEN"}"#,
        r#"{"id":"1","type":1,"token":"TOKEN","application_id":{"TOKEN":"TOKEN"}}"#,
        r#"{"id":"1","type":1,"token":"TOKEN\x"}"#,
        r#"{"id":"1","token":"TOKEN"}"#,
    ] {
        let text = parse(body).unwrap_err().to_string();
        assert!(!text.contains("TOKEN"), "{text}");
    }
}

#[rstest]
#[case::field("{}", "missing field `id`")]
#[case::options(
    r#"{"id":"1","type":2,"data":{"name":"a","options":7}}"#,
    "invalid type: integer `7`, expected an array of options at line 1 column 49"
)]
#[case::data(
    r#"{"id":"1","type":2,"data":[]}"#,
    "invalid type: sequence, expected an object at line 1 column 26"
)]
fn a_refusal_says_what_was_expected_where(#[case] body: &str, #[case] words: &str) {
    let text = parse(body).unwrap_err().to_string();
    assert!(text.contains(words), "{text}");
}

#[rstest]
#[case::both(r#","application_id":"7","token":"aW50ZXJhY3Rpb24_-.="}"#, Some((7, "aW50ZXJhY3Rpb24_-.=")))]
#[case::escapes(r#","application_id":"\u0037","token":"\u0061b"}"#, Some((7, "ab")))]
#[case::no_application(r#","token":"ab"}"#, None)]
#[case::no_token(r#","application_id":"7"}"#, None)]
#[case::null(r#","application_id":null,"token":null}"#, None)]
#[case::no_snowflake(r#","application_id":"seven","token":"ab"}"#, None)]
#[case::empty(r#","application_id":"7","token":""}"#, None)]
#[case::another_path(r#","application_id":"7","token":"../../users"}"#, None)]
#[case::parent_folder(r#","application_id":"7","token":".."}"#, None)]
fn what_a_late_answer_takes_is_kept_if_it_will_do(#[case] rest: &str, #[case] expected: Option<(u64, &str)>) {
    let body = format!(r#"{{"id":"1","type":1{rest}"#);
    let credentials = parse(&body).unwrap().credentials();
    let found = credentials.as_ref().map(|(application, token)| (*application, token.expose()));
    assert_eq!(found, expected);
}

#[test]
fn nothing_is_copied_and_the_token_shows_nowhere() {
    let body = r#"{"id":"1","type":3,"data":{"custom_id":"x"},"application_id":"7","token":"TOKEN"}"#;
    let interaction = parse(body).unwrap();
    assert!(matches!(interaction.name, Some(Cow::Borrowed("x"))));
    assert!(matches!(interaction.token, Some(RawToken(Cow::Borrowed("TOKEN")))));
    let shown = format!("{interaction:?} {:?}", interaction.credentials());
    assert!(shown.contains("application: Some(7)") && !shown.contains("TOKEN"), "{shown}");
    assert!(shown.contains("token: Some(RawToken(…))") && shown.contains("Token(…)))"), "{shown}");
}

#[test]
fn invalid_utf8_is_refused_in_fields_that_are_passed_over_too() {
    assert!(matches!(
        Interaction::parse(b"{\"id\":\"1\",\"type\":1,\"x\":\"\xff\"}"),
        Err(InteractionError::NotUtf8)
    ));
}

#[test]
fn depth_is_bounded_wherever_it_is() {
    let nested =
        |depth: usize| format!(r#"{{"id":"1","type":1,"x":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
    assert!(parse(&nested(MAX_DEPTH - 1)).is_ok());
    assert!(matches!(parse(&nested(MAX_DEPTH)), Err(InteractionError::TooDeep)));
    assert!(matches!(parse(&nested(100_000)), Err(InteractionError::TooDeep)));
    let options = r#"{"name":"a","type":1,"options":["#.repeat(100_000);
    assert!(parse(&format!(r#"{{"id":"1","type":2,"data":{{"name":"a","options":[{options}"#)).is_err());
    let many_but_flat = format!(r#"{{"id":"1","type":1,"x":[{}"\"[[[["]}}"#, "[],".repeat(1000));
    assert!(parse(&many_but_flat).is_ok());
    let as_deep_as_it_may_be = nested(MAX_DEPTH - 1).replace("\"x\"", "\"y\":[],\"x\"");
    assert!(parse(&as_deep_as_it_may_be).is_ok());
}

/// A user may write brackets, quotes and backslashes, as many as there is room for.
#[rstest]
#[case::brackets("[".repeat(1000))]
#[case::after_a_quote(format!("\"{}", "{[".repeat(1000)))]
#[case::between_quotes(format!("\"{}\"", "[".repeat(1000)))]
#[case::after_backslashes(format!("\\\\{}\\\"", "[".repeat(1000)))]
fn what_a_user_writes_is_not_deep(#[case] text: String) {
    let written = serde_json::to_string(&text).unwrap();
    assert!(parse(&format!(r#"{{"id":"1","type":1,"x":{written}}}"#)).is_ok());
    let deep = format!("{}1{}", "[".repeat(1000), "]".repeat(1000));
    let behind_it = format!(r#"{{"id":"1","type":1,"x":{written},"y":{deep}}}"#);
    assert!(matches!(parse(&behind_it), Err(InteractionError::TooDeep)));
}
