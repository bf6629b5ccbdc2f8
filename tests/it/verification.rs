//! Every row of what a request must prove before a handler sees it.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use rstest::rstest;
use shardless::clock::Clock;
use shardless::discord::signature::{SIGNATURE_HEADER, TIMESTAMP_HEADER};
use shardless::rehearsal::Signer;
use shardless::rehearsal::stand_in::Signed;

use crate::support::{Handler, TestDaemon};

/// Nothing is forwarded, the reason is counted, the client is told no more than a sentence, and the next one works.
async fn assert_refused(daemon: &TestDaemon, signed: &Signed, status: u16, reason: &str) {
    let (calls, before) = (daemon.handler.calls(), daemon.refusals(reason));
    let exchange = daemon.send(signed).await;
    assert_eq!(exchange.status.as_u16(), status, "{exchange:?}");
    assert!(exchange.body.len() < 200, "{exchange:?}");
    assert_eq!(daemon.handler.calls(), calls, "it was forwarded");
    assert_eq!(daemon.refusals(reason) - before, 1.0, "{}", daemon.metrics.encode().unwrap());
    daemon.assert_works().await;
}

/// What is done to the headers of an honest request.
type Spoil = fn(&mut HeaderMap);

const MALFORMED: [(&str, Spoil); 21] = [
    ("no signature", |headers| _ = headers.remove(SIGNATURE_HEADER)),
    ("no timestamp", |headers| _ = headers.remove(TIMESTAMP_HEADER)),
    ("neither", |headers| headers.clear()),
    ("empty signature", |headers| set(headers, SIGNATURE_HEADER, b"")),
    ("empty timestamp", |headers| set(headers, TIMESTAMP_HEADER, b"")),
    ("two equal signatures", |headers| double(headers, SIGNATURE_HEADER)),
    ("two equal timestamps", |headers| double(headers, TIMESTAMP_HEADER)),
    ("two timestamps", |headers| _ = headers.append(TIMESTAMP_HEADER, HeaderValue::from_static("1"))),
    ("signature not ASCII", |headers| set(headers, SIGNATURE_HEADER, &[0xe9; 128])),
    ("timestamp not ASCII", |headers| set(headers, TIMESTAMP_HEADER, "١٧".as_bytes())),
    ("signature of 126", |headers| alter(headers, SIGNATURE_HEADER, |text| text[..126].to_owned())),
    ("signature of 127", |headers| alter(headers, SIGNATURE_HEADER, |text| text[..127].to_owned())),
    ("signature of 129", |headers| alter(headers, SIGNATURE_HEADER, |text| format!("{text}0"))),
    ("signature of 130", |headers| alter(headers, SIGNATURE_HEADER, |text| format!("{text}00"))),
    ("signature with 0x", |headers| alter(headers, SIGNATURE_HEADER, |text| format!("0x{}", &text[2..]))),
    ("signature with a space", |headers| {
        alter(headers, SIGNATURE_HEADER, |text| format!("a {}", &text[2..]))
    }),
    ("timestamp with +", |headers| alter(headers, TIMESTAMP_HEADER, |text| format!("+{text}"))),
    ("timestamp with -", |headers| alter(headers, TIMESTAMP_HEADER, |text| format!("-{text}"))),
    ("timestamp with letters", |headers| alter(headers, TIMESTAMP_HEADER, |text| format!("{text}s"))),
    ("timestamp with a space", |headers| alter(headers, TIMESTAMP_HEADER, |text| format!("1 {text}"))),
    ("timestamp of 21 digits", |headers| alter(headers, TIMESTAMP_HEADER, |text| format!("{text:0>21}"))),
];

fn set(headers: &mut HeaderMap, name: HeaderName, value: &[u8]) {
    headers.insert(name, HeaderValue::from_bytes(value).unwrap());
}

fn double(headers: &mut HeaderMap, name: HeaderName) {
    let same = headers[&name].clone();
    headers.append(name, same);
}

fn alter(headers: &mut HeaderMap, name: HeaderName, by: fn(&str) -> String) {
    let altered = by(headers[&name].to_str().unwrap());
    set(headers, name, altered.as_bytes());
}

#[tokio::test]
async fn malformed_signature_headers_are_unauthorized() {
    let daemon = TestDaemon::start().await;
    for (name, spoil) in MALFORMED {
        let mut signed = daemon.command();
        spoil(signed.headers_mut());
        signed.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
        println!("{name}");
        assert_refused(&daemon, &signed, 401, "signature_headers").await;
    }
}

fn signature(headers: &HeaderMap) -> String {
    headers[SIGNATURE_HEADER].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn upper_case_hex_is_accepted() {
    let daemon = TestDaemon::start().await;
    let mut signed = daemon.command();
    let upper = signature(signed.headers()).to_uppercase().parse().unwrap();
    signed.headers_mut().insert(SIGNATURE_HEADER, upper);
    assert_eq!(daemon.send(&signed).await.status, 200);
}

#[rstest]
#[case(-299, 200)]
#[case(-302, 401)]
#[case(299, 200)]
#[case(302, 401)]
#[tokio::test]
async fn the_timestamp_must_be_inside_the_window_both_ways(#[case] seconds: i64, #[case] status: u16) {
    let daemon = TestDaemon::start().await;
    let signed_at = daemon.clock.unix_time().as_secs().checked_add_signed(seconds).unwrap();
    let body = daemon.fresh_command().body;
    let signed = daemon.discord.sign_at(signed_at, &body);
    if status == 200 {
        assert_eq!(daemon.send(&signed).await.status, 200);
    } else {
        assert_refused(&daemon, &signed, status, "timestamp").await;
    }
}

#[tokio::test]
async fn after_the_clock_steps_back_new_requests_work_and_old_ones_stay_refused() {
    let daemon = TestDaemon::start().await;
    let old = daemon.command();
    assert_eq!(daemon.send(&old).await.status, 200);
    daemon.clock.pass(Duration::from_secs(400));
    assert_eq!(daemon.send(&old).await.status, 401);
    daemon.assert_works().await;
    daemon.clock.step(-400);
    assert_eq!(daemon.send(&old).await.status, 409);
    daemon.clock.pass(Duration::from_secs(2));
    daemon.assert_works().await;
}

#[tokio::test]
async fn another_applications_key_is_unauthorized() {
    let daemon = TestDaemon::start().await;
    let other =
        shardless::rehearsal::StandIn::new(Signer::generate().unwrap(), daemon.clock.clone()).unwrap();
    assert_refused(&daemon, &other.sign(&daemon.fresh_command()), 401, "bad_signature").await;
}

#[tokio::test]
async fn a_forgery_is_unauthorized() {
    let daemon = TestDaemon::start().await;
    assert_refused(&daemon, &daemon.command().forge(), 401, "bad_signature").await;
}

#[tokio::test]
async fn a_body_altered_by_one_byte_is_unauthorized() {
    let daemon = TestDaemon::start().await;
    let body = daemon.fresh_command().body;
    let honest = daemon.discord.sign_at(daemon.clock.unix_time().as_secs(), &body);
    let mut altered = body;
    let last = altered.len() - 1;
    altered[last] = b' ';
    let mut signed = daemon.discord.sign_at(daemon.clock.unix_time().as_secs(), &altered);
    *signed.headers_mut() = honest.headers().clone();
    assert_refused(&daemon, &signed, 401, "bad_signature").await;
}

/// The signed bytes stay the same, so the signature holds; but what is left of the timestamp is long ago.
#[tokio::test]
async fn timestamp_digits_moved_into_the_body_are_unauthorized() {
    let daemon = TestDaemon::start().await;
    let now = daemon.clock.unix_time().as_secs();
    let honest = daemon.discord.sign_at(now, &daemon.fresh_command().body);
    let moved = [(now % 10).to_string().as_bytes(), honest.body()].concat();
    let mut signed = daemon.discord.sign_at(now / 10, &moved);
    assert_eq!(signature(signed.headers()), signature(honest.headers()));
    signed.headers_mut().insert(TIMESTAMP_HEADER, HeaderValue::from(now / 10));
    assert_refused(&daemon, &signed, 401, "timestamp").await;
}

#[rstest]
#[case::trailing_newline("\n".to_owned())]
#[case::emoji(r#","x":"🎲 für \u00e9"}"#.to_owned())]
#[case::hundred_kilobytes(format!(r#","data":{{"name":"roll","options":[{}{{"name":"z","type":3,"value":"z"}}]}}}}"#, r#"{"name":"a","type":3,"value":"ä"},"#.repeat(2600)))]
#[tokio::test]
async fn signed_bodies_reach_the_handler_byte_for_byte(#[case] tail: String) {
    let daemon = TestDaemon::start().await;
    let head = r#"{"id":"900000000000000001","type":2,"token":"t""#;
    let body = if tail == "\n" { format!("{head}}}\n") } else { format!("{head}{tail}") };
    let signed = daemon.discord.sign_at(daemon.clock.unix_time().as_secs(), body.as_bytes());
    assert_eq!(daemon.send(&signed).await.status, 200);
    assert_eq!(daemon.handler.last().body, body.as_bytes());
}

#[rstest]
#[case::not_utf8(b"{\"id\":\"1\",\"type\":2,\"x\":\"\xff\"}".to_vec())]
#[case::byte_order_mark("\u{feff}{\"id\":\"1\",\"type\":2}".into())]
#[case::array("[\"1\",2]".into())]
#[case::number("7".into())]
#[case::empty_object("{}".into())]
#[case::empty("".into())]
#[case::type_twice(r#"{"id":"1","type":2,"type":1}"#.into())]
#[case::type_as_text(r#"{"id":"1","type":"2"}"#.into())]
#[case::trailing_junk(r#"{"id":"1","type":2}x"#.into())]
#[case::deep(format!(r#"{{"id":"1","type":2,"x":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000)).into())]
#[tokio::test]
async fn signed_bodies_that_are_no_interaction_are_bad_requests(#[case] body: Vec<u8>) {
    let daemon = TestDaemon::start().await;
    let signed = daemon.discord.sign_at(daemon.clock.unix_time().as_secs(), &body);
    assert_refused(&daemon, &signed, 400, "not_an_interaction").await;
}

/// Not even the body that its sender signed comes back, nor stands in a log.
#[tokio::test]
async fn a_refusal_repeats_nothing_of_the_body() {
    let daemon = TestDaemon::start().await;
    let body = format!(r#"{{"id":"1","type":2,"data":"{}"}}"#, "TOKEN".repeat(1000));
    let signed = daemon.discord.sign_at(daemon.clock.unix_time().as_secs(), body.as_bytes());
    let exchange = daemon.send(&signed).await;
    assert_eq!(exchange.status, 400);
    assert!(
        exchange.body.len() < 200 && !exchange.body.windows(5).any(|part| part == b"TOKEN"),
        "{exchange:?}"
    );
}

#[tokio::test]
async fn a_forged_request_does_not_use_up_the_genuine_ones_id() {
    let daemon = TestDaemon::start().await;
    let genuine = daemon.command();
    assert_eq!(daemon.send(&genuine.clone().forge()).await.status, 401);
    assert_eq!(daemon.send(&genuine).await.status, 200);
}

#[tokio::test]
async fn a_ping_gets_its_pong_with_every_handler_down() {
    let daemon = TestDaemon::with("", "", Handler::none().await).await;
    for round in 0..3 {
        let ping = daemon.discord.sign(&daemon.author(round).ping());
        let exchange = daemon.send(&ping).await;
        assert_eq!((exchange.status.as_u16(), &exchange.body[..]), (200, &br#"{"type":1}"#[..]));
        assert_eq!(exchange.content_type, "application/json");
        assert_eq!(daemon.send(&ping).await.status, 200, "PINGs are not remembered");
    }
    assert_eq!(daemon.interactions("ping", "pong"), 6.0);
}

#[test]
fn whatever_bit_is_flipped_nothing_is_forwarded_and_whatever_is_signed_is_forwarded_unchanged() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let daemon = runtime.block_on(TestDaemon::start());
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) };
    proptest!(config, |(text in ".{0,200}", bit in any::<prop::sample::Index>())| {
        let id = daemon.clock.next_salt() + 1;
        let body = serde_json::json!({ "id": id.to_string(), "type": 2, "anything": text }).to_string().into_bytes();
        let now = daemon.clock.unix_time().as_secs();
        let honest = daemon.discord.sign_at(now, &body);

        let calls = daemon.handler.calls();
        let signature = hex::decode(signature(honest.headers())).unwrap();
        let mut all = [&signature[..], now.to_string().as_bytes(), &body].concat();
        let bit = bit.index(all.len() * 8);
        all[bit / 8] ^= 1 << (bit % 8);
        let timestamp_end = 64 + now.to_string().len();
        let mut flipped = daemon.discord.sign_at(now, &all[timestamp_end..]);
        let headers = flipped.headers_mut();
        headers.insert(SIGNATURE_HEADER, hex::encode(&all[..64]).parse().unwrap());
        if let Ok(timestamp) = HeaderValue::from_bytes(&all[64..timestamp_end]) {
            headers.insert(TIMESTAMP_HEADER, timestamp);
            prop_assert_eq!(runtime.block_on(daemon.send(&flipped)).status.as_u16(), 401);
        }
        prop_assert_eq!(daemon.handler.calls(), calls);

        prop_assert_eq!(runtime.block_on(daemon.send(&honest)).status.as_u16(), 200);
        prop_assert_eq!(&daemon.handler.last().body, &body);
    });
}
