//! HTTP as bytes.

use std::time::Duration;

use shardless::rehearsal::stand_in::Signed;
use tokio::io::{AsyncRead, AsyncReadExt};

/// A request as it stands on the wire, with these headers besides the signature's.
pub(crate) fn raw(signed: &Signed, version: &str, headers: &str) -> Vec<u8> {
    let mut head = format!("POST /interactions {version}\r\nhost: test\r\n{headers}");
    for (name, value) in signed.headers() {
        head += &format!("{name}: {}\r\n", value.to_str().unwrap());
    }
    [head.as_bytes(), b"\r\n", signed.body()].concat()
}

pub(crate) fn with_length(signed: &Signed) -> Vec<u8> {
    raw(signed, "HTTP/1.1", &format!("content-length: {}\r\n", signed.body().len()))
}

/// One whole answer: head and body.
pub(crate) async fn read_answer(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&answer).to_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if length.is_none_or(|length| body.len() >= length.parse().unwrap()) {
                return text;
            }
        }
        match stream.read(&mut buffer).await.unwrap_or_default() {
            0 => return text,
            count => answer.extend_from_slice(&buffer[..count]),
        }
    }
}

/// The peer closes, in that time.
pub(crate) async fn assert_closes(stream: &mut (impl AsyncRead + Unpin), within: Duration) {
    let mut rest = Vec::new();
    let closed = tokio::time::timeout(within, stream.read_to_end(&mut rest)).await;
    assert!(closed.is_ok(), "still open after {within:?}");
}
