//! Every row of what a request must prove before a handler sees it.

use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;
use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;
use rstest::rstest;
use shardless::clock::{Clock, SystemClock};
use shardless::discord::signature::{SIGNATURE_HEADER, TIMESTAMP_HEADER};
use shardless::rehearsal::stand_in::Signed;
use shardless::rehearsal::{Author, Signer, StandIn};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::request::{
    CHUNKED, HTTP_1_1, POST, and, assert_refused, closing, framed, kept, refuses, with, write,
};
use crate::support::wire::{read_answer, with_length};
use crate::support::{Binary, Handler, TestDaemon};

/// A request with these values of the signature headers, however many.
fn signed_by(signatures: &[&str], timestamps: &[&str]) -> String {
    let line = |name: &str, value: &&str| format!("{name}: {value}\r\n");
    let signatures: String = signatures.iter().map(|value| line("x-signature-ed25519", value)).collect();
    let timestamps: String = timestamps.iter().map(|value| line("x-signature-timestamp", value)).collect();
    let rest = "content-type: application/json\r\ncontent-length: {size}\r\n\r\n{body}";
    format!("{POST}\r\nhost: a\r\n{signatures}{timestamps}{rest}")
}

#[rstest]
#[case::missing(&[])]
#[case::empty(&[""])]
#[case::twice(&["{signature}", "{126}00"])]
#[case::twice_though_equal(&["{signature}", "{signature}"])]
#[case::not_ascii(&["éééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééé"])]
#[case::of_126_characters(&["{126}"])]
#[case::of_127_characters(&["{126}0"])]
#[case::of_129_characters(&["{signature}0"])]
#[case::of_130_characters(&["{signature}00"])]
#[case::with_a_prefix(&["0x{126}"])]
#[case::with_inner_space(&["0 {126}"])]
#[case::with_outer_space(&[" {126} "])]
#[case::not_hexadecimal(&["{126}xy"])]
#[tokio::test]
async fn a_signature_that_is_not_there_once_as_128_hex_digits_is_401(#[case] signatures: &[&str]) {
    let text = signed_by(signatures, &["{timestamp}"]);
    assert_refused(&text, closing(401, "signature_headers")).await;
}

#[rstest]
#[case::missing(&[])]
#[case::empty(&[""])]
#[case::twice(&["{timestamp}", "1"])]
#[case::twice_though_equal(&["{timestamp}", "{timestamp}"])]
#[case::not_ascii(&["١٧"])]
#[case::with_a_leading_plus(&["+{timestamp}"])]
#[case::with_a_minus(&["-{timestamp}"])]
#[case::with_letters(&["{timestamp}s"])]
#[case::with_a_space(&["1 {timestamp}"])]
#[case::with_a_fraction(&["{timestamp}.5"])]
#[case::of_21_digits(&["00000000000{timestamp}"])]
#[tokio::test]
async fn a_timestamp_that_is_not_there_once_as_digits_is_401(#[case] timestamps: &[&str]) {
    let text = signed_by(&["{signature}"], timestamps);
    assert_refused(&text, closing(401, "signature_headers")).await;
}

/// Some servers take an underscore for a hyphen.
#[tokio::test]
async fn signature_headers_with_underscores_are_none() {
    let names = "x_signature_ed25519: {signature}\r\nx_signature_timestamp: {timestamp}\r\n";
    let text = signed_by(&[], &[]).replace("content-type", &format!("{names}content-type"));
    assert_refused(&text, closing(401, "signature_headers")).await;
}

/// HTTP takes space off the ends of a value, as off any other.
#[tokio::test]
async fn space_around_a_whole_signature_is_no_part_of_it() {
    let daemon = TestDaemon::start().await;
    let request = write(&daemon.command(), &signed_by(&["  {signature} "], &["\t{timestamp} "]));
    let mut stream = TcpStream::connect(daemon.address).await.unwrap();
    stream.write_all(&request).await.unwrap();
    assert!(read_answer(&mut stream).await.starts_with("http/1.1 200"));
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

/// The clock may tick meanwhile, which takes a second of what is ahead.
#[rstest]
#[case::one_second_inside_the_past(-299, 200)]
#[case::one_second_outside_the_past(-301, 401)]
#[case::one_second_inside_the_future(299, 200)]
#[case::just_outside_the_future(302, 401)]
#[tokio::test]
async fn a_timestamp_must_be_inside_the_window_both_ways(#[case] seconds: i64, #[case] status: u16) {
    let daemon = TestDaemon::start().await;
    let signed_at = daemon.clock.unix_time().as_secs().checked_add_signed(seconds).unwrap();
    let signed = daemon.discord.sign_at(signed_at, &daemon.fresh_command().body);
    if status == 200 {
        assert_eq!(daemon.send(&signed).await.status, 200);
    } else {
        refuses(&daemon, &signed, &with_length(&signed), closing(401, "timestamp")).await;
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

async fn assert_unauthorized(daemon: &TestDaemon, signed: &Signed) {
    refuses(daemon, signed, &with_length(signed), kept(401, "bad_signature")).await;
}

#[tokio::test]
async fn another_applications_key_is_unauthorized() {
    let daemon = TestDaemon::start().await;
    let other = StandIn::new(Signer::generate().unwrap(), daemon.clock.clone()).unwrap();
    assert_unauthorized(&daemon, &other.sign(&daemon.fresh_command())).await;
}

/// Discord itself sends such probes.
#[tokio::test]
async fn a_well_formed_forgery_is_unauthorized() {
    let daemon = TestDaemon::start().await;
    assert_unauthorized(&daemon, &daemon.command().forge()).await;
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
    assert_unauthorized(&daemon, &signed).await;
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
    refuses(&daemon, &signed, &with_length(&signed), closing(401, "timestamp")).await;
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
#[case::secrets_where_none_belong(r#"{"id":"1","type":2,"token":"aW50ZXJhY3Rpb24","data":"aW50ZXJhY3Rpb24"}"#.into())]
#[case::trailing_junk(r#"{"id":"1","type":2}x"#.into())]
#[case::deep(format!(r#"{{"id":"1","type":2,"x":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000)).into())]
#[tokio::test]
async fn signed_bodies_that_are_no_interaction_are_bad_requests(#[case] body: Vec<u8>) {
    let daemon = TestDaemon::start().await;
    let signed = daemon.discord.sign_at(daemon.clock.unix_time().as_secs(), &body);
    refuses(&daemon, &signed, &with_length(&signed), kept(400, "not_an_interaction")).await;
}

#[tokio::test]
async fn a_forged_request_does_not_use_up_the_genuine_ones_id() {
    let daemon = TestDaemon::start().await;
    let genuine = daemon.command();
    assert_unauthorized(&daemon, &genuine.clone().forge()).await;
    assert_eq!(daemon.send(&genuine).await.status, 200);
    assert_eq!(daemon.handler.last().body, genuine.body());
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

/// However much is logged, and whatever a request is refused for.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_leaves_no_secret_in_the_log() {
    let handler = Handler::fine().await;
    let daemon = Binary::serve("[log]\nlevel = \"trace\"\nformat = \"json\"", "", &handler.url()).await;
    let discord = StandIn::new(daemon.signer.clone(), Arc::new(SystemClock)).unwrap();
    let mut author = Author::new(SystemClock.unix_time(), 0);
    for (text, reason) in [
        (and("host: a"), "framing"),
        (and("x : a"), "malformed_http"),
        (framed(HTTP_1_1, CHUNKED, "zz\r\n{body}"), "body_broken"),
        (with("PUT /interactions HTTP/1.1", "host: a\r\n"), "method"),
        (with("POST /elsewhere HTTP/1.1", "host: a\r\n"), "unknown_path"),
        (and("content-type: text/plain"), "media_type"),
        (and("expect: {signature}"), "expectation"),
        (signed_by(&["{signature}0"], &["{timestamp}"]), "signature_headers"),
        (signed_by(&["{signature}"], &["1"]), "timestamp"),
        (signed_by(&["{126}ff"], &["{timestamp}"]), "bad_signature"),
    ] {
        let signed = discord.sign(&author.command("roll", &[]));
        let mut stream = TcpStream::connect(daemon.address).await.unwrap();
        stream.write_all(&write(&signed, &text)).await.unwrap();
        assert!(read_answer(&mut stream).await.starts_with("http/1.1 4"), "{reason}");
        drop(stream);
        daemon.until_log(&format!("\"{reason}\"")).await;
        let body: serde_json::Value = serde_json::from_slice(signed.body()).unwrap();
        let log = daemon.log();
        for secret in [&body["token"].as_str().unwrap()[..24], &signature(signed.headers())[..24], "mason"] {
            assert!(!log.contains(secret), "{reason}: {secret} is in the log");
        }
    }
    assert_eq!(handler.calls(), 0);
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
        let signature = HEXLOWER.decode(signature(honest.headers()).as_bytes()).unwrap();
        let mut all = [&signature[..], now.to_string().as_bytes(), &body].concat();
        let bit = bit.index(all.len() * 8);
        all[bit / 8] ^= 1 << (bit % 8);
        let timestamp_end = 64 + now.to_string().len();
        let mut flipped = daemon.discord.sign_at(now, &all[timestamp_end..]);
        let headers = flipped.headers_mut();
        headers.insert(SIGNATURE_HEADER, HEXLOWER.encode(&all[..64]).parse().unwrap());
        if let Ok(timestamp) = HeaderValue::from_bytes(&all[64..timestamp_end]) {
            headers.insert(TIMESTAMP_HEADER, timestamp);
            prop_assert_eq!(runtime.block_on(daemon.send(&flipped)).status.as_u16(), 401);
        }
        prop_assert_eq!(daemon.handler.calls(), calls);

        prop_assert_eq!(runtime.block_on(daemon.send(&honest)).status.as_u16(), 200);
        prop_assert_eq!(&daemon.handler.last().body, &body);
    });
}
