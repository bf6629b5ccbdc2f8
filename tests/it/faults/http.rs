//! HTTP: what two parties could read in two ways, what asks for something else, and what is no HTTP at all.

mod connections;

use rstest::rstest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::request::{
    CHUNKED, Connection, HTTP_1_1, POST, Refused, and, assert_refused, chunked, closing, framed, kept, with,
    write,
};
use crate::support::wire::read_answer;
use crate::support::{TestDaemon, until};

#[rstest]
#[case::no_host(POST, "")]
#[case::two_hosts(POST, "host: a\r\nhost: b\r\n")]
#[case::two_hosts_though_equal(POST, "host: a\r\nhost: a\r\n")]
#[case::a_foreign_absolute_form("POST http://b/interactions HTTP/1.1", "host: a\r\n")]
#[case::an_absolute_form_with_another_port("POST http://a:81/interactions HTTP/1.1", "host: a\r\n")]
#[tokio::test]
async fn a_host_that_is_missing_or_in_doubt_is_400(#[case] start: &str, #[case] headers: &str) {
    assert_refused(&with(start, headers), closing(400, "framing")).await;
}

/// The request is read by the encoding alone, and the connection ends, so that whatever was meant to follow is not read
/// at all.
#[rstest]
#[case::length_first("content-length: {both}\r\ntransfer-encoding: chunked\r\n")]
#[case::encoding_first("transfer-encoding: chunked\r\ncontent-length: {both}\r\n")]
#[tokio::test]
async fn length_and_encoding_together_are_never_read_in_two_ways(#[case] framing: &str) {
    let daemon = TestDaemon::start().await;
    let (signed, smuggled) = (daemon.command(), daemon.command());
    let smuggled = String::from_utf8(write(&smuggled, &and("x: smuggled"))).unwrap();
    let both = chunked(&signed, "\r\n").len() + smuggled.len();
    let framing = framing.replace("{both}", &both.to_string());
    let request = write(&signed, &(framed(HTTP_1_1, &framing, "{chunked}") + &smuggled));
    let mut stream = TcpStream::connect(daemon.address).await.unwrap();
    stream.write_all(&request).await.unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).await.unwrap();
    assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "{answers}");
    assert!(answers.contains("connection: close"), "{answers}");
    assert_eq!((daemon.handler.calls(), daemon.handler.last().body), (1, signed.body().clone()));
    daemon.assert_works().await;
}

#[rstest]
#[case::gzip("gzip", "malformed_http")]
#[case::identity("identity", "malformed_http")]
#[case::empty("", "malformed_http")]
#[case::xchunked("xchunked", "malformed_http")]
#[case::chunked_with_a_parameter("chunked;q=1", "malformed_http")]
#[case::chunked_after_a_vertical_tab("\u{b}chunked", "malformed_http")]
#[case::chunked_and_then_gzip("chunked, gzip", "malformed_http")]
#[case::gzip_and_then_chunked("gzip, chunked", "framing")]
#[case::chunked_twice("chunked, chunked", "framing")]
#[case::two_headers("chunked\r\ntransfer-encoding: chunked", "framing")]
#[case::two_headers_that_differ("gzip\r\ntransfer-encoding: chunked", "framing")]
#[tokio::test]
async fn an_encoding_other_than_chunked_once_is_400(#[case] encoding: &str, #[case] reason: &'static str) {
    let framing = format!("transfer-encoding: {encoding}\r\n");
    assert_refused(&framed(HTTP_1_1, &framing, "{chunked}"), closing(400, reason)).await;
}

#[tokio::test]
async fn any_encoding_on_http_1_0_is_400() {
    assert_refused(&framed("HTTP/1.0", CHUNKED, "{chunked}"), closing(400, "malformed_http")).await;
}

#[rstest]
#[case::with_a_plus("+1", "malformed_http")]
#[case::with_a_minus("-1", "malformed_http")]
#[case::empty("", "malformed_http")]
#[case::in_hexadecimal("0x10", "malformed_http")]
#[case::list("{size}, {size}", "malformed_http")]
#[case::differing_pair("{size}\r\ncontent-length: 1", "malformed_http")]
#[case::two_to_the_63("9223372036854775808", "framing")]
#[case::two_to_the_64("18446744073709551616", "malformed_http")]
#[tokio::test]
async fn a_length_that_is_no_plain_number_is_400(#[case] length: &str, #[case] reason: &'static str) {
    let framing = format!("content-length: {length}\r\n");
    assert_refused(&framed(HTTP_1_1, &framing, "{body}"), closing(400, reason)).await;
}

#[rstest]
#[case::obsolete_folding("x: a\r\n b")]
#[case::space_before_the_colon("x : a")]
#[case::no_colon("x")]
#[case::nul_in_a_value("x: a\0b")]
#[case::bare_cr_in_a_value("x: a\rb")]
#[case::empty_name(": a")]
#[tokio::test]
async fn a_malformed_header_is_400(#[case] header: &str) {
    assert_refused(&and(header), closing(400, "malformed_http")).await;
}

#[rstest]
#[case::size_that_is_no_number("zz\r\n{}\r\n0\r\n\r\n")]
#[case::size_with_a_sign("+2\r\n{}\r\n0\r\n\r\n")]
#[case::size_with_a_prefix("0x2\r\n{}\r\n0\r\n\r\n")]
#[case::no_size("\r\n{}\r\n0\r\n\r\n")]
#[case::size_of_17_digits("10000000000000002\r\n{}\r\n0\r\n\r\n")]
#[case::size_line_that_ends_in_a_bare_lf("2\n{}\r\n0\r\n\r\n")]
#[case::extension_with_a_bare_lf("2;a\nb\r\n{}\r\n0\r\n\r\n")]
#[case::chunk_without_its_end("2\r\n{}x")]
#[tokio::test]
async fn a_broken_chunk_is_400(#[case] body: &str) {
    assert_refused(&framed(HTTP_1_1, CHUNKED, body), closing(400, "body_broken")).await;
}

#[rstest]
#[case::get("GET /interactions HTTP/1.1\r\nhost: a\r\n\r\n", kept(405, "method"))]
#[case::options("OPTIONS /interactions HTTP/1.1\r\nhost: a\r\n\r\n", kept(405, "method"))]
#[case::put(&with("PUT /interactions HTTP/1.1", "host: a\r\n"), closing(405, "method"))]
#[case::trace(&with("TRACE /interactions HTTP/1.1", "host: a\r\n"), closing(405, "method"))]
#[tokio::test]
async fn another_method_on_an_applications_path_is_405(#[case] text: &str, #[case] outcome: Refused) {
    let answer = assert_refused(text, outcome).await;
    assert!(answer.contains("\r\nallow: post\r\n"), "{answer}");
}

#[rstest]
#[case::connect("CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\n")]
#[case::get_asterisk("GET * HTTP/1.1\r\nhost: a\r\n\r\n")]
#[tokio::test]
async fn another_form_of_target_is_404(#[case] text: &str) {
    let outcome = Refused { connection: Connection::Either, ..kept(404, "unknown_path") };
    assert_refused(text, outcome).await;
}

#[rstest]
#[case::unknown("/elsewhere")]
#[case::root("/")]
#[case::below_a_parent("/../interactions")]
#[case::below_itself("/./interactions")]
#[case::slash_behind("/interactions/")]
#[case::two_slashes("//interactions")]
#[case::escape("/%69nteractions")]
#[case::capital("/Interactions")]
#[tokio::test]
async fn another_path_is_404_however_near_it_comes(#[case] path: &str) {
    let text = with(&format!("POST {path} HTTP/1.1"), "host: a\r\n");
    assert_refused(&text, closing(404, "unknown_path")).await;
}

#[rstest]
#[case::missing("")]
#[case::empty("content-type:\r\n")]
#[case::text("content-type: text/plain\r\n")]
#[case::nearly("content-type: application/jsonp\r\n")]
#[case::twice("content-type: application/json\r\ncontent-type: application/json\r\n")]
#[tokio::test]
async fn a_content_type_other_than_json_is_415(#[case] content_type: &str) {
    let signature = "x-signature-ed25519: {signature}\r\nx-signature-timestamp: {timestamp}\r\n";
    let text =
        format!("{POST}\r\nhost: a\r\n{signature}{content_type}content-length: {{size}}\r\n\r\n{{body}}");
    assert_refused(&text, closing(415, "media_type")).await;
}

/// Besides the five that a good request has.
#[rstest]
#[case::over_100(&["x: y"; 96].join("\r\n"))]
#[case::over_the_limit(&format!("x: {}", "y".repeat(17_000)))]
#[tokio::test]
async fn too_many_or_too_large_headers_are_431(#[case] headers: &str) {
    assert_refused(&and(headers), closing(431, "malformed_http")).await;
}

#[rstest]
#[case::of_9_kb(9_000, "target_too_long")]
#[case::of_20_kb(20_000, "malformed_http")]
#[case::of_100_kb(100_000, "malformed_http")]
#[tokio::test]
async fn a_very_long_target_is_414(#[case] size: usize, #[case] reason: &'static str) {
    let text = with(&format!("POST /{} HTTP/1.1", "a".repeat(size)), "host: a\r\n");
    assert_refused(&text, closing(414, reason)).await;
}

#[rstest]
#[case::another("200-ok")]
#[case::one_more("100-continue, 200-ok")]
#[case::empty("")]
#[tokio::test]
async fn an_expectation_other_than_100_continue_is_417(#[case] expectation: &str) {
    assert_refused(&and(&format!("expect: {expectation}")), closing(417, "expectation")).await;
}

#[rstest]
#[case::as_it_should_be(&and("x: y"))]
#[case::absolute_form(&with("POST http://a/interactions HTTP/1.1", "host: a\r\n"))]
#[case::exactly_100_headers(&and(&["x: y"; 95].join("\r\n")))]
#[case::equal_lengths(&and("content-length: {size}"))]
#[case::chunked(&framed(HTTP_1_1, CHUNKED, "{chunked}"))]
#[case::chunked_in_capitals(&framed(HTTP_1_1, "TRANSFER-ENCODING: Chunked\r\n", "{chunked}"))]
#[case::a_nominated_header_which_is_ignored(&and("connection: x-signature-timestamp"))]
#[case::underscores_which_are_not_believed(&and("x_signature_ed25519: spoofed\r\nx_signature_timestamp: 1"))]
#[tokio::test]
async fn what_is_sound_is_forwarded_as_it_was_signed(#[case] text: &str) {
    let daemon = TestDaemon::start().await;
    let signed = daemon.command();
    let mut stream = TcpStream::connect(daemon.address).await.unwrap();
    stream.write_all(&write(&signed, text)).await.unwrap();
    let answer = read_answer(&mut stream).await;
    assert!(answer.starts_with("http/1.1 200"), "{answer}");
    let got = daemon.handler.last();
    assert_eq!(got.body, signed.body());
    for name in ["x-signature-ed25519", "x-signature-timestamp"] {
        assert_eq!(got.headers[name], signed.headers()[name]);
        assert!(!got.headers.contains_key(name.replace('-', "_")));
    }
    daemon.assert_works().await;
}

#[tokio::test]
async fn trailers_are_dropped() {
    let daemon = TestDaemon::start().await;
    let signed = daemon.command();
    let body = chunked(&signed, "x-signature-ed25519: spoofed\r\nx-trailer: y\r\n\r\n");
    let mut stream = TcpStream::connect(daemon.address).await.unwrap();
    stream.write_all(&write(&signed, &framed(HTTP_1_1, CHUNKED, &body))).await.unwrap();
    assert!(read_answer(&mut stream).await.starts_with("http/1.1 200"));
    let got = daemon.handler.last();
    assert_eq!(got.body, signed.body());
    assert_eq!(got.headers["x-signature-ed25519"], signed.headers()["x-signature-ed25519"]);
    assert!(!got.headers.contains_key("x-trailer"));
    daemon.assert_works().await;
}

/// As Debian's Nginx writes to its upstreams by default.
#[rstest]
#[case::with_a_host("host: a\r\n")]
#[case::without_a_host("")]
#[tokio::test]
async fn http_1_0_with_connection_close_is_200(#[case] host: &str) {
    let daemon = TestDaemon::start().await;
    let signed = daemon.command();
    let text = with("POST /interactions HTTP/1.0", &format!("{host}connection: close\r\n"));
    let mut stream = TcpStream::connect(daemon.address).await.unwrap();
    stream.write_all(&write(&signed, &text)).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    daemon.assert_works().await;
}

const PREFACE: Refused = Refused { status: None, reason: "malformed_http", connection: Connection::Closes };

#[rstest]
#[case::tls("\x16\x03\x01\x02\0\x01\0\x01\u{fc}\x03\x03\r\n\r\n", closing(400, "tls_on_plain_port"))]
#[case::http_2_preface("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", PREFACE)]
#[case::nonsense("nonsense\r\n\r\n", closing(400, "malformed_http"))]
#[tokio::test]
async fn what_is_no_http_1_is_refused_and_counted(#[case] bytes: &str, #[case] outcome: Refused) {
    assert_refused(bytes, outcome).await;
}

/// Sent by someone who goes without reading all of the answer, which resets the connection.
#[rstest]
#[case::tls(b"\x16\x03\x01\x02\0\x01\0\r\n\r\n", "tls_on_plain_port")]
#[case::http_2_preface(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "malformed_http")]
#[tokio::test]
async fn what_is_no_http_1_is_counted_though_its_sender_resets_the_connection(
    #[case] bytes: &[u8],
    #[case] reason: &str,
) {
    let daemon = TestDaemon::start().await;
    let mut stream = TcpStream::connect(daemon.address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    _ = stream.read(&mut [0; 5]).await;
    drop(stream);
    until(reason, || async { daemon.faults(reason) == 1.0 }).await;
    daemon.assert_works().await;
}

/// A client that says nonsense and then waits does not hide it.
#[tokio::test]
async fn what_is_no_http_1_is_counted_though_its_sender_stays() {
    let daemon = TestDaemon::start().await;
    let mut stream = TcpStream::connect(daemon.address).await.unwrap();
    stream.write_all(b"nonsense\r\n\r\n").await.unwrap();
    until("it is counted", || async { daemon.faults("malformed_http") == 1.0 }).await;
}
