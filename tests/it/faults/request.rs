//! A request as a row of the table spoils it, on its way through a real connection.

use std::time::Duration;

use shardless::rehearsal::stand_in::Signed;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::wire::{assert_closes, read_answer, with_length};
use crate::support::{TestDaemon, until};

pub(super) const POST: &str = "POST /interactions HTTP/1.1";
pub(super) const HTTP_1_1: &str = "HTTP/1.1";
pub(super) const CHUNKED: &str = "transfer-encoding: chunked\r\n";

/// What becomes of the connection behind an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Connection {
    Closes,
    /// It serves the next request.
    IsKept,
    Either,
}

/// What must come out of a request that is refused.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refused {
    /// None where the connection ends without a word.
    pub(super) status: Option<u16>,
    /// The word that it is counted by.
    pub(super) reason: &'static str,
    pub(super) connection: Connection,
}

pub(super) const fn closing(status: u16, reason: &'static str) -> Refused {
    Refused { status: Some(status), reason, connection: Connection::Closes }
}

pub(super) const fn kept(status: u16, reason: &'static str) -> Refused {
    Refused { status: Some(status), reason, connection: Connection::IsKept }
}

/// A request that is right but for its start and what stands before the signature.
pub(super) fn with(start: &str, headers: &str) -> String {
    format!("{start}\r\n{headers}{{signed}}content-length: {{size}}\r\n\r\n{{body}}")
}

/// A good request with one more header.
pub(super) fn and(header: &str) -> String {
    with(POST, &format!("host: a\r\n{header}\r\n"))
}

/// A request whose body is framed by these headers.
pub(super) fn framed(version: &str, framing: &str, body: &str) -> String {
    format!("POST /interactions {version}\r\nhost: a\r\n{framing}{{signed}}\r\n{body}")
}

/// The bytes of a request, with the parts of `signed` in their places: `{signature}` and `{timestamp}` are the values of
/// those headers, `{126}` the first digits of the former, `{signed}` both headers and the content type as lines, `{size}`
/// the body's length, `{body}` the body, and `{chunked}` the body in chunks.
pub(super) fn write(signed: &Signed, text: &str) -> Vec<u8> {
    let value = |name: &str| signed.headers()[name].to_str().unwrap();
    let lines = ["x-signature-ed25519", "x-signature-timestamp", "content-type"]
        .map(|name| format!("{name}: {}\r\n", value(name)));
    let text = text
        .replace("{signed}", &lines.concat())
        .replace("{signature}", value("x-signature-ed25519"))
        .replace("{126}", &value("x-signature-ed25519")[..126])
        .replace("{timestamp}", value("x-signature-timestamp"))
        .replace("{size}", &signed.body().len().to_string());
    let text =
        if text.contains("{chunked}") { text.replace("{chunked}", &chunked(signed, "\r\n")) } else { text };
    text.replace("{body}", &String::from_utf8_lossy(signed.body())).into_bytes()
}

/// The body in chunks, and what stands behind the last of them.
pub(super) fn chunked(signed: &Signed, end: &str) -> String {
    let chunk = |piece: &[u8]| format!("{:x}\r\n{}\r\n", piece.len(), String::from_utf8_lossy(piece));
    let chunks: String = signed.body().chunks(100).map(chunk).collect();
    format!("{chunks}0\r\n{end}")
}

/// A daemon that refuses a fresh command, written so, as it must.
pub(super) async fn assert_refused(text: &str, outcome: Refused) -> String {
    let daemon = TestDaemon::start().await;
    let signed = daemon.command();
    refuses(&daemon, &signed, &write(&signed, text), outcome).await
}

/// Nothing is forwarded, the reason is counted, the client is told no more than a sentence, the connection ends or does
/// not, and the next good request works. What the client is told comes back.
pub(super) async fn refuses(
    daemon: &TestDaemon,
    signed: &Signed,
    request: &[u8],
    outcome: Refused,
) -> String {
    let (calls, counted) = (daemon.handler.calls(), daemon.faults(outcome.reason));
    let mut stream = TcpStream::connect(daemon.address).await.unwrap();
    // A refusal may come, and the connection end, before all of it is written.
    _ = stream.write_all(request).await;
    let answer = tokio::time::timeout(Duration::from_secs(5), read_answer(&mut stream)).await;
    let answer = answer.expect("an answer, or an end");
    match outcome.status {
        Some(status) => assert!(answer.starts_with(&format!("http/1.1 {status} ")), "{status}: {answer:?}"),
        None => assert_eq!(answer, ""),
    }
    assert_tells_no_secret(signed, &answer);
    assert_eq!(daemon.handler.calls(), calls, "it was forwarded");
    match outcome.connection {
        Connection::Closes => assert_closes(&mut stream, Duration::from_secs(3)).await,
        Connection::IsKept => {
            stream.write_all(&with_length(&daemon.command())).await.unwrap();
            assert!(read_answer(&mut stream).await.starts_with("http/1.1 200"), "after {answer:?}");
        }
        Connection::Either => {}
    }
    drop(stream);
    until(outcome.reason, || async { daemon.faults(outcome.reason) == counted + 1.0 }).await;
    daemon.assert_works().await;
    answer
}

/// Neither the body's beginning, nor its token, nor the signature.
fn assert_tells_no_secret(signed: &Signed, answer: &str) {
    let body = String::from_utf8_lossy(signed.body()).to_lowercase();
    let json = serde_json::from_slice::<serde_json::Value>(signed.body()).unwrap_or_default();
    let signature = signed.headers().get("x-signature-ed25519").and_then(|value| value.to_str().ok());
    let secrets = [body.get(..40), json["token"].as_str(), signature.and_then(|text| text.get(..24))];
    for secret in secrets.into_iter().flatten() {
        assert!(!answer.contains(&secret.to_lowercase()), "{secret} is in {answer}");
    }
    assert!(answer.len() < 500, "{answer}");
}
