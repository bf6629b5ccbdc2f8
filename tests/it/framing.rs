//! HTTP that two parties could read in two ways, or that is no HTTP at all, as bytes.

use std::time::Duration;

use shardless::rehearsal::stand_in::Signed;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::wire::{read_answer, with_length};
use crate::support::{TestDaemon, until};

/// A signed command's parts, to be put together wrongly.
struct Parts {
    /// Both signature headers and the content type, each with its line end.
    signature: String,
    length: String,
    body: String,
    chunked: String,
}

impl Parts {
    fn of(signed: &Signed) -> Self {
        let header = |name: &str| format!("{name}: {}\r\n", signed.headers()[name].to_str().unwrap());
        let names = ["x-signature-ed25519", "x-signature-timestamp", "content-type"];
        let body = String::from_utf8(signed.body().to_vec()).unwrap();
        Self {
            signature: names.map(header).concat(),
            length: format!("content-length: {}\r\n", body.len()),
            chunked: format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()),
            body,
        }
    }

    /// A request that is right but for its start and what stands between the host and the signature.
    fn with(&self, start: &str, headers: &str) -> String {
        format!("{start}\r\n{headers}{}{}\r\n{}", self.signature, self.length, self.body)
    }

    /// A good request with one more header.
    fn and(&self, header: &str) -> String {
        self.with("POST /interactions HTTP/1.1", &format!("host: a\r\n{header}\r\n"))
    }

    /// A request whose body is framed by these headers.
    fn framed(&self, version: &str, framing: &str, body: &str) -> String {
        format!("POST /interactions {version}\r\nhost: a\r\n{framing}{}\r\n{body}", self.signature)
    }
}

type Row = (&'static str, fn(&Parts) -> String, &'static [u16]);

const CHUNKED: &str = "transfer-encoding: chunked\r\n";
const HTTP_1_1: &str = "HTTP/1.1";

/// What must come out: one of these statuses, with the connection closed; none of them stands for a connection that is closed
/// without a word.
const REFUSED: &[Row] = &[
    ("no Host", |p| p.with("POST /interactions HTTP/1.1", ""), &[400]),
    ("two Hosts", |p| p.and("host: a"), &[400]),
    ("foreign absolute form", |p| p.with("POST http://b/interactions HTTP/1.1", "host: a\r\n"), &[400]),
    ("two encodings", |p| p.framed(HTTP_1_1, &CHUNKED.repeat(2), &p.chunked), &[400]),
    ("encoding gzip", |p| p.framed(HTTP_1_1, "transfer-encoding: gzip\r\n", &p.body), &[400]),
    (
        "encoding gzip, chunked",
        |p| p.framed(HTTP_1_1, "transfer-encoding: gzip, chunked\r\n", &p.chunked),
        &[400],
    ),
    (
        "encoding chunked twice",
        |p| p.framed(HTTP_1_1, "transfer-encoding: chunked, chunked\r\n", &p.chunked),
        &[400],
    ),
    ("encoding xchunked", |p| p.framed(HTTP_1_1, "transfer-encoding: xchunked\r\n", &p.chunked), &[400]),
    ("encoding on HTTP/1.0", |p| p.framed("HTTP/1.0", CHUNKED, &p.chunked), &[400]),
    ("length +1", |p| p.framed(HTTP_1_1, "content-length: +1\r\n", &p.body), &[400]),
    ("length empty", |p| p.framed(HTTP_1_1, "content-length:\r\n", &p.body), &[400]),
    (
        "length a list",
        |p| p.framed(HTTP_1_1, &format!("content-length: {0}, {0}\r\n", p.body.len()), &p.body),
        &[400],
    ),
    (
        "lengths that differ",
        |p| p.framed(HTTP_1_1, &format!("{}content-length: 1\r\n", p.length), &p.body),
        &[400],
    ),
    ("length 2^63", |p| p.framed(HTTP_1_1, "content-length: 9223372036854775808\r\n", &p.body), &[400]),
    ("length 2^64", |p| p.framed(HTTP_1_1, "content-length: 18446744073709551616\r\n", &p.body), &[400]),
    ("obsolete folding", |p| p.and("x: a\r\n b"), &[400]),
    ("space before the colon", |p| p.and("x : a"), &[400]),
    ("NUL in a value", |p| p.and("x: a\0b"), &[400]),
    ("bare CR in a value", |p| p.and("x: a\rb"), &[400]),
    ("empty name", |p| p.and(": a"), &[400]),
    ("broken chunk", |p| p.framed(HTTP_1_1, CHUNKED, "zz\r\n"), &[400]),
    ("chunk without end", |p| p.framed(HTTP_1_1, CHUNKED, "2\r\n{}x"), &[400]),
    ("over 100 headers", |p| p.and(&"x: y\r\n".repeat(120)), &[431]),
    ("headers over the limit", |p| p.and(&format!("x: {}", "y".repeat(17_000))), &[431]),
    ("target of 9 kB", |p| p.with(&format!("POST /{} HTTP/1.1", "a".repeat(9_000)), "host: a\r\n"), &[414]),
    ("target of 20 kB", |p| p.with(&format!("POST /{} HTTP/1.1", "a".repeat(20_000)), "host: a\r\n"), &[414]),
    (
        "target of 100 kB",
        |p| p.with(&format!("POST /{} HTTP/1.1", "a".repeat(100_000)), "host: a\r\n"),
        &[414],
    ),
    ("another expectation", |p| p.and("expect: 200-ok"), &[417]),
    ("PUT", |p| p.with("PUT /interactions HTTP/1.1", "host: a\r\n"), &[405]),
    ("TRACE", |p| p.with("TRACE /interactions HTTP/1.1", "host: a\r\n"), &[405]),
    ("a parent", |p| p.with("POST /../interactions HTTP/1.1", "host: a\r\n"), &[404]),
    ("a slash behind", |p| p.with("POST /interactions/ HTTP/1.1", "host: a\r\n"), &[404]),
    ("two slashes", |p| p.with("POST //interactions HTTP/1.1", "host: a\r\n"), &[404]),
    ("an escape", |p| p.with("POST /%69nteractions HTTP/1.1", "host: a\r\n"), &[404]),
    ("a capital", |p| p.with("POST /Interactions HTTP/1.1", "host: a\r\n"), &[404]),
    ("content type twice", |p| p.and("content-type: application/json"), &[415]),
    ("TLS", |_| "\x16\x03\x01\x02\0\x01\0\x01\u{fc}\x03\x03\r\n\r\n".to_owned(), &[400]),
    ("HTTP/2 preface", |_| "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), &[]),
];

/// The answers that close nothing, since there was no body.
const REFUSED_AND_KEPT: &[Row] = &[
    ("GET", |_| "GET /interactions HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), &[405]),
    ("CONNECT", |_| "CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\n".to_owned(), &[404, 405]),
    ("GET *", |_| "GET * HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), &[404, 405]),
];

const ACCEPTED: &[Row] = &[
    ("as it should be", |p| p.and("x: y"), &[200]),
    ("absolute form", |p| p.with("POST http://a/interactions HTTP/1.1", "host: a\r\n"), &[200]),
    ("HTTP/1.0 without Host", |p| p.with("POST /interactions HTTP/1.0", "connection: close\r\n"), &[200]),
    ("equal lengths", |p| p.framed(HTTP_1_1, &p.length.repeat(2), &p.body), &[200]),
    ("chunked", |p| p.framed(HTTP_1_1, CHUNKED, &p.chunked), &[200]),
    (
        "chunked, a name in capitals",
        |p| p.framed(HTTP_1_1, "TRANSFER-ENCODING: Chunked\r\n", &p.chunked),
        &[200],
    ),
    (
        "trailers",
        |p| {
            let trailers =
                p.chunked.replace("0\r\n\r\n", "0\r\nx-signature-ed25519: spoofed\r\nx: y\r\n\r\n");
            p.framed(HTTP_1_1, CHUNKED, &trailers)
        },
        &[200],
    ),
    ("a nominated header", |p| p.and("connection: x-signature-timestamp"), &[200]),
];

async fn exchange(daemon: &TestDaemon, row: &Row) -> (String, TcpStream) {
    let parts = Parts::of(&daemon.command());
    let mut stream = TcpStream::connect(daemon.address).await.unwrap();
    // A refusal may come, and the connection end, before all of it is written.
    _ = stream.write_all((row.1)(&parts).as_bytes()).await;
    let answer = tokio::time::timeout(Duration::from_secs(5), read_answer(&mut stream)).await;
    (answer.unwrap_or_else(|_| panic!("{}: no answer", row.0)), stream)
}

fn assert_status(row: &Row, answer: &str) {
    if row.2.is_empty() {
        assert_eq!(answer, "", "{}", row.0);
        return;
    }
    let is_one = row.2.iter().any(|status| answer.split(' ').nth(1) == Some(&status.to_string()));
    assert!(is_one, "{}: {:?} expected, not {answer:?}", row.0, row.2);
}

#[tokio::test]
async fn what_is_unsound_is_refused_and_ends_its_connection() {
    let daemon = TestDaemon::start().await;
    for row in REFUSED {
        let (answer, mut stream) = exchange(&daemon, row).await;
        assert_status(row, &answer);
        assert_eq!(answer.contains("allow: post"), row.2 == [405], "{}: {answer}", row.0);
        let rest = tokio::time::timeout(Duration::from_secs(3), stream.read(&mut [0; 64])).await;
        assert!(matches!(rest, Ok(Ok(0) | Err(_))), "{}: still open", row.0);
        assert_eq!(daemon.handler.calls(), 0, "{}: forwarded", row.0);
    }
    daemon.assert_works().await;
}

#[tokio::test]
async fn what_asks_for_something_else_is_refused() {
    let daemon = TestDaemon::start().await;
    for row in REFUSED_AND_KEPT {
        let (answer, _) = exchange(&daemon, row).await;
        assert_status(row, &answer);
        assert_eq!(answer.contains("allow: post"), answer.contains(" 405 "), "{answer}");
    }
    assert_eq!(daemon.handler.calls(), 0);
}

#[tokio::test]
async fn what_is_sound_is_forwarded_as_it_was_signed() {
    let daemon = TestDaemon::start().await;
    for (count, row) in ACCEPTED.iter().enumerate() {
        let (answer, _) = exchange(&daemon, row).await;
        assert_status(row, &answer);
        assert_eq!(daemon.handler.calls(), count + 1);
        assert_ne!(daemon.handler.last().headers["x-signature-ed25519"], "spoofed");
    }
}

/// The request is read by the encoding alone, and the connection ends, so that whatever was meant to follow is not read at all.
#[tokio::test]
async fn length_and_encoding_are_never_read_in_two_ways() {
    let daemon = TestDaemon::start().await;
    for (round, is_length_first) in [(1, true), (2, false)] {
        let parts = Parts::of(&daemon.command());
        let smuggled = Parts::of(&daemon.command()).and("x: smuggled");
        let length = format!("content-length: {}\r\n", parts.chunked.len() + smuggled.len());
        let framing =
            if is_length_first { format!("{length}{CHUNKED}") } else { format!("{CHUNKED}{length}") };
        let both = parts.framed(HTTP_1_1, &framing, &parts.chunked) + &smuggled;
        let mut stream = TcpStream::connect(daemon.address).await.unwrap();
        stream.write_all(both.as_bytes()).await.unwrap();
        let mut answers = String::new();
        stream.read_to_string(&mut answers).await.unwrap();
        assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "{answers}");
        assert!(answers.contains("connection: close"), "{answers}");
        assert_eq!(daemon.handler.calls(), round);
        assert_eq!(daemon.handler.last().body, parts.body.as_bytes());
    }
}

#[tokio::test]
async fn three_pipelined_requests_get_three_answers_in_order() {
    let daemon = TestDaemon::start().await;
    let requests =
        [daemon.command(), daemon.command().forge(), daemon.command()].map(|signed| with_length(&signed));
    let mut stream = TcpStream::connect(daemon.address).await.unwrap();
    stream.write_all(&requests.concat()).await.unwrap();
    let mut answers = Vec::new();
    let statuses = |answers: &[u8]| -> Vec<String> {
        let text = String::from_utf8_lossy(answers);
        text.split("HTTP/1.1 ").skip(1).map(|answer| answer.chars().take(3).collect()).collect()
    };
    while statuses(&answers).len() < 3 {
        assert!(stream.read_buf(&mut answers).await.unwrap() > 0, "{answers:?}");
    }
    assert_eq!(statuses(&answers), ["200", "401", "200"]);
}

#[tokio::test]
async fn a_body_is_asked_for_only_once_its_headers_are_good() {
    let daemon = TestDaemon::start().await;
    let request = |signed: &Signed| {
        let parts = Parts::of(signed);
        let request = parts.and("expect: 100-continue");
        request[..request.len() - parts.body.len()].to_owned()
    };
    let good = daemon.command();
    let mut stream = TcpStream::connect(daemon.address).await.unwrap();
    stream.write_all(request(&good).as_bytes()).await.unwrap();
    let mut asked = [0; 25];
    stream.read_exact(&mut asked).await.unwrap();
    assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(good.body()).await.unwrap();
    assert!(read_answer(&mut stream).await.starts_with("http/1.1 200"));

    let old = daemon.discord.sign_at(1, good.body());
    let mut stream = TcpStream::connect(daemon.address).await.unwrap();
    stream.write_all(request(&old).as_bytes()).await.unwrap();
    assert!(read_answer(&mut stream).await.starts_with("http/1.1 401"));
}

#[tokio::test]
async fn each_refusal_is_counted_by_its_reason() {
    let daemon = TestDaemon::start().await;
    let parts = Parts::of(&daemon.command());
    for (request, reason) in [
        (parts.and("host: a"), "framing"),
        (parts.and("expect: 200-ok"), "expectation"),
        (parts.with(&format!("POST /{} HTTP/1.1", "a".repeat(9_000)), "host: a\r\n"), "target_too_long"),
    ] {
        let mut stream = TcpStream::connect(daemon.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        read_answer(&mut stream).await;
        assert_eq!(daemon.refusals(reason), 1.0, "{reason}");
    }
    // Sent by someone who goes without reading all of the answer, which resets the connection.
    for (bytes, reason) in [
        (&b"\x16\x03\x01\x02\0\x01\0\r\n\r\n"[..], "tls_on_plain_port"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "malformed_http"),
    ] {
        let mut stream = TcpStream::connect(daemon.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        _ = stream.read(&mut [0; 5]).await;
        drop(stream);
        let counted = format!("shardless_connection_faults_total{{reason=\"{reason}\"}}");
        until(reason, || async { daemon.metric(&counted) == 1.0 }).await;
    }
}
