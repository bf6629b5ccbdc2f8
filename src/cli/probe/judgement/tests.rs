use std::time::Duration;

use http::HeaderMap;
use rstest::rstest;

use super::*;

/// An answer with these headers, as `name: value`, in lines.
fn answer(status: u16, headers: &str, body: &str) -> Answer {
    let mut map = HeaderMap::new();
    for line in headers.lines() {
        let (name, value) = line.split_once(": ").unwrap();
        map.insert(http::HeaderName::try_from(name).unwrap(), value.parse().unwrap());
    }
    Answer {
        status: StatusCode::from_u16(status).unwrap(),
        headers: map,
        body: body.to_owned(),
        elapsed: Duration::ZERO,
        unix_time: Duration::ZERO,
    }
}

fn judge(answer: &Answer) -> Judgement {
    Judgement::of(answer, &"https://bot.example.com/interactions".parse().unwrap())
}

#[rstest]
#[case(301, "location: https://www.bot.example.com/interactions", "  shardless probe https://www.bot.")]
#[case(301, "location: /interactions/", "The slash at the end")]
#[case(308, "location: https://bot.example.com/interactions", "redirects to itself")]
#[case(302, "location: https://login.example.org/", "It is not shardless that answers")]
#[case(302, "server: nginx", "It is not shardless that answers")]
#[case(401, "www-authenticate: Basic", "take the password off")]
#[case(403, "cf-mitigated: challenge\nserver: cloudflare", "Discord cannot solve a challenge")]
#[case(403, "", "a firewall")]
#[case(404, "server: nginx", "Is bot.example.com the server_name")]
#[case(405, "", "Is bot.example.com the server_name")]
#[case(429, "", "A rate limit")]
#[case(500, "", "to the bot itself")]
#[case(502, "", "does not reach shardless")]
#[case(503, "", "does not reach shardless")]
#[case(504, "", "does not reach shardless")]
#[case(522, "server: cloudflare", "Cloudflare does not reach your server")]
#[case(526, "server: cloudflare", "Cloudflare does not trust")]
#[case(418, "", "Discord demands 401")]
#[case(200, "content-type: text/html", "It is not shardless that answers")]
fn what_is_in_the_way_is_told_with_what_to_do(
    #[case] status: u16,
    #[case] headers: &str,
    #[case] words: &str,
) {
    match judge(&answer(status, headers, "")) {
        Judgement::InTheWay { advice, .. } => assert!(advice.contains(words), "{words} is not in {advice}"),
        other => panic!("{other:?}"),
    }
}

#[rstest]
#[case(Refusal::UnknownPath, "404 Not Found from shardless: no application has this path")]
#[case(Refusal::MediaType, "415 Unsupported Media Type from shardless")]
#[case(Refusal::NoMemory, "503 Service Unavailable from shardless")]
fn shardless_is_known_by_its_words(#[case] refusal: Refusal, #[case] words: &str) {
    let said = format!("{refusal}\n");
    match judge(&answer(refusal.status().as_u16(), "server: nginx", &said)) {
        Judgement::InTheWay { text, .. } => assert!(text.contains(words), "{words} is not in {text}"),
        other => panic!("{other:?}"),
    }
}

#[rstest]
#[case(200, r#"{"type":1}"#)]
#[case(204, "")]
fn what_takes_a_forgery_is_told_from_a_page(#[case] status: u16, #[case] body: &str) {
    assert!(matches!(judge(&answer(status, "", body)), Judgement::Took));
}

#[test]
fn a_server_does_not_steer_the_terminal() {
    let mut hostile = answer(301, "", "");
    let value = http::HeaderValue::from_bytes("\u{9b}31m\u{202e}/".as_bytes()).unwrap();
    hostile.headers.insert(header::SERVER, value.clone());
    hostile.headers.insert(header::LOCATION, value);
    let Judgement::InTheWay { text, advice } = judge(&hostile) else { panic!("a redirect") };
    let all = text + &advice;
    assert!(!all.chars().any(|c| c.is_control() || c == '\u{202e}'), "{all:?}");
}
