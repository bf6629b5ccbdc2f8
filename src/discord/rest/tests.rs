use http::{HeaderName, HeaderValue};
use proptest::prelude::*;
use rstest::rstest;

use super::*;

fn judged(status: u16, headers: &[(&'static str, &str)], body: &str) -> Verdict {
    let header = |(name, value): &(&'static str, &str)| {
        (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
    };
    let headers = headers.iter().map(header).collect();
    judge(StatusCode::from_u16(status).unwrap(), &headers, body.as_bytes())
}

#[rstest]
#[case(200, r#"{"id":"1","code":10015}"#, "done", "Discord has taken it")]
#[case(204, "", "done", "Discord has taken it")]
#[case(
    404,
    r#"{"message":"Unknown Webhook","code":10015}"#,
    "not_yet",
    "Discord does not know of the deferral (yet): 404, code 10015"
)]
#[case(404, r#" {"code":10008}"#, "no_message", "the message is not there (any more): 404, code 10008")]
#[case(404, r#"{"code":10003}"#, "refused", "Discord refuses the request: 404, code 10003")]
#[case(404, "<html>10015", "refused", "Discord refuses the request: 404")]
#[case(404, r#"[10015,0,false]"#, "refused", "Discord refuses the request: 404")]
#[case(404, r#"{"code":"10015"}"#, "refused", "Discord refuses the request: 404")]
#[case(
    401,
    r#"{"message":"SECRET","code":50027}"#,
    "token_refused",
    "Discord refuses the token: 401, code 50027"
)]
#[case(401, "", "token_refused", "Discord refuses the token: 401")]
#[case(404, r#"{"code":10062}"#, "token_refused", "Discord refuses the token: 404, code 10062")]
#[case(400, r#"{"code":40060}"#, "token_refused", "Discord refuses the token: 400, code 40060")]
#[case(
    400,
    r#"{"code":50035,"errors":{"x":1}}"#,
    "body_refused",
    "Discord refuses the message: 400, code 50035"
)]
#[case(400, r#"{"code":50006}"#, "body_refused", "Discord refuses the message: 400, code 50006")]
#[case(400, r#"{"code":-7}"#, "body_refused", "Discord refuses the message: 400")]
#[case(413, r#"{"code":40005}"#, "body_refused", "Discord refuses the message: 413, code 40005")]
#[case(413, "<html>", "body_refused", "Discord refuses the message: 413")]
#[case(403, r#"{"code":50013}"#, "refused", "Discord refuses the request: 403, code 50013")]
#[case(403, "<html>", "blocked", "this machine's requests are blocked before they reach Discord's API")]
#[case(405, r#"{"code":0}"#, "refused", "Discord refuses the request: 405, code 0")]
#[case(302, "", "refused", "Discord refuses the request: 302")]
#[case(408, "", "unavailable", "Discord cannot answer now")]
#[case(500, r#"{"code":0}"#, "unavailable", "Discord cannot answer now")]
#[case(502, "<html>SECRET", "unavailable", "Discord cannot answer now")]
#[case(599, r#"{"code":50027}"#, "unavailable", "Discord cannot answer now")]
fn an_answer_means_one_thing(
    #[case] status: u16,
    #[case] body: &str,
    #[case] word: &str,
    #[case] text: &str,
) {
    let verdict = judged(status, &[], body);
    assert_eq!((verdict.as_str(), verdict.to_string().as_str()), (word, text));
}

#[rstest]
#[case::float(r#"{"retry_after":1.337,"global":false}"#, &[], 1337, false)]
#[case::integer(r#"{"retry_after":2}"#, &[], 2000, false)]
#[case::the_body_goes_first(r#"{"retry_after":0.5}"#, &[("retry-after", "9")], 500, false)]
#[case::header(r#"{"message":"x"}"#, &[("retry-after", "65")], 65_000, false)]
#[case::header_float("{}", &[("retry-after", " 0.25 ")], 250, false)]
#[case::reset("{}", &[("x-ratelimit-reset-after", "7.5")], 7500, false)]
#[case::unreadable_header("{}", &[("retry-after", "soon"), ("x-ratelimit-reset-after", "1")], 1000, false)]
#[case::negative(r#"{"retry_after":-1}"#, &[("retry-after", "3")], 3000, false)]
#[case::not_a_number("{}", &[("retry-after", "NaN"), ("x-ratelimit-reset-after", "1")], 1000, false)]
#[case::text(r#"{"retry_after":"9"}"#, &[("retry-after", "3")], 3000, false)]
#[case::zero(r#"{"retry_after":0}"#, &[], 100, false)]
#[case::huge(r#"{"retry_after":1e308}"#, &[], 900_000, false)]
#[case::endless("{}", &[("retry-after", "inf")], 900_000, false)]
#[case::global(r#"{"retry_after":1,"global":true}"#, &[], 1000, true)]
#[case::global_scope(r#"{"retry_after":1}"#, &[("x-ratelimit-scope", "Global")], 1000, true)]
#[case::global_header(r#"{"retry_after":1}"#, &[("x-ratelimit-global", "true")], 1000, true)]
#[case::shared(r#"{"retry_after":1}"#, &[("x-ratelimit-scope", "shared")], 1000, false)]
fn a_wait_is_as_long_as_discord_says(
    #[case] body: &str,
    #[case] headers: &[(&'static str, &str)],
    #[case] millis: u64,
    #[case] is_global: bool,
) {
    let wait = Duration::from_millis(millis);
    assert_eq!(judged(429, headers, body), Verdict::RateLimited { wait, is_global });
}

#[test]
fn the_api_s_own_headers_do_without_a_body() {
    let wait = Duration::from_secs(3);
    for (scope, is_global) in [("user", false), ("shared", false), ("global", true)] {
        let headers = [("retry-after", "3"), ("x-ratelimit-scope", scope)];
        assert_eq!(judged(429, &headers, ""), Verdict::RateLimited { wait, is_global });
        assert_eq!(judged(429, &headers, "<html>"), Verdict::Blocked { wait: Some(wait) });
    }
}

#[rstest]
#[case::page("error code: 1015", &[("retry-after", "3")], Some(3))]
#[case::empty("", &[("retry-after", "1800")], Some(900))]
#[case::array("[0,1,true]", &[("retry-after", "3")], Some(3))]
#[case::no_time(r#"{"message":"x","global":true}"#, &[], None)]
#[case::no_time_in_headers("", &[("x-ratelimit-scope", "user")], None)]
#[case::no_sound_time(r#"{"retry_after":-1}"#, &[("retry-after", "-1"), ("x-ratelimit-reset-after", "")], None)]
#[case::out_of_range(r#"{"retry_after":1e999}"#, &[], None)]
fn a_429_that_is_not_the_api_s_own_is_a_block(
    #[case] body: &str,
    #[case] headers: &[(&'static str, &str)],
    #[case] seconds: Option<u64>,
) {
    let wait = seconds.map(Duration::from_secs);
    assert_eq!(judged(429, headers, body), Verdict::Blocked { wait });
}

#[test]
fn what_counts_towards_a_block_is_known() {
    let counted = (100..600).filter(|status| counts_as_invalid(StatusCode::from_u16(*status).unwrap()));
    assert_eq!(counted.collect::<Vec<_>>(), [401, 403, 429]);
}

/// Metrics have one line for each word, so there are few.
#[rstest]
#[case(&[200], "200")]
#[case(&[204], "204")]
#[case(&[400], "400")]
#[case(&[401], "401")]
#[case(&[403], "403")]
#[case(&[404], "404")]
#[case(&[429], "429")]
#[case(&[500, 502, 503, 504, 599], "5xx")]
#[case(&[201, 302, 405, 499, 600, 999], "other")]
fn a_status_is_one_of_few_words(#[case] statuses: &[u16], #[case] word: &str) {
    for status in statuses {
        assert_eq!(status_word(StatusCode::from_u16(*status).ok()), word, "{status}");
    }
    assert_eq!(status_word(None), "none");
}

#[rstest]
#[case(r#"{"flags":128}"#, Some(true))]
#[case(r#"{"flags":192,"content":""}"#, Some(true))]
#[case(r#"{"flags":64}"#, Some(false))]
#[case(r#"{"content":"x"}"#, Some(false))]
#[case(r#"{"flags":null}"#, Some(false))]
#[case(r#"{"flags":"128"}"#, None)]
#[case("[128,null]", None)]
#[case("", None)]
fn a_message_that_nobody_has_written_yet_is_known(#[case] message: &str, #[case] expected: Option<bool>) {
    assert_eq!(is_loading(message.as_bytes()), expected);
}

#[rstest]
#[case(r#"{"edited_timestamp":"2026-01-01T00:00:00.000001+00:00"}"#, Some(true))]
#[case(r#"{"edited_timestamp":"2026-01-01T00:00:01Z"}"#, Some(true))]
#[case(r#"{"edited_timestamp":"2026-01-01T00:00:00.000000+00:00"}"#, Some(false))]
#[case(r#"{"edited_timestamp":"2025-12-31T23:59:59.999999+00:00"}"#, Some(false))]
#[case(r#"{"edited_timestamp":null}"#, Some(false))]
#[case("{}", Some(false))]
#[case(r#"{"edited_timestamp":"2026-01-01T00:00:00+02:00"}"#, None)]
#[case(r#"{"edited_timestamp":"yesterday"}"#, None)]
#[case(r#"{"edited_timestamp":1767225601}"#, None)]
#[case("null", None)]
fn an_edit_is_known_by_its_time(#[case] message: &str, #[case] expected: Option<bool>) {
    assert_eq!(is_edited_after(message.as_bytes(), Duration::from_secs(1_767_225_600)), expected);
}

#[rstest]
#[case::of_the_documentation(175_928_847_299_117_063, 1_462_015_105_796)]
#[case::the_first(0, 1_420_070_400_000)]
#[case::the_last(u64::MAX, 5_818_116_911_103)]
fn a_snowflake_tells_its_time(#[case] id: u64, #[case] millis: u64) {
    assert_eq!(created(id), Duration::from_millis(millis));
}

#[rstest]
#[case(r#"{"content":"Sorry."}"#, true)]
#[case(r#"{"content":"Sorry. Or not?"}"#, false)]
#[case(r#"{"content":null}"#, false)]
#[case("", false)]
fn a_text_is_known_again(#[case] message: &str, #[case] expected: bool) {
    // Discord drops the space around it.
    assert_eq!(has_text(message.as_bytes(), " Sorry.\n"), expected);
}

#[test]
fn paths_are_those_of_the_documentation() {
    let token = Token::new("aW50-_.~=+:@!$&'()*,;").unwrap();
    let original = original(845_027_738_276_462_632, &token);
    assert_eq!(original, "/webhooks/845027738276462632/aW50-_.~=+:@!$&'()*,;/messages/@original");
    let follow_up = follow_up(7, &token);
    assert_eq!(follow_up, "/webhooks/7/aW50-_.~=+:@!$&'()*,;");
    // What sends them must not read them in another way.
    let url = reqwest::Url::parse(&format!("https://discord.com/api/v10{follow_up}")).unwrap();
    assert_eq!(url.path(), format!("/api/v10{follow_up}"));
    assert!(url.query().is_none());
}

proptest! {
    /// Whatever comes back, there is a verdict, no wait is longer than a token lives, and no text holds what came.
    #[test]
    fn anything_is_judged(status in 100..1000_u16, retry_after in any::<f64>(), body in ".{0,60}") {
        let body = format!(r#"{{"SECRET":{body:?},"retry_after":{retry_after},"code":{status}}}"#);
        let retry_after = retry_after.to_string();
        for body in [body.as_str(), "{}", "SECRET"] {
            let verdict = judged(status, &[("retry-after", &retry_after)], body);
            prop_assert!(!verdict.to_string().contains("SECRET"));
            if let Verdict::RateLimited { wait, .. } = verdict {
                prop_assert!((SHORTEST_WAIT..=TOKEN_LIFETIME).contains(&wait));
            }
        }
    }
}
