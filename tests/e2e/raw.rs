//! Requests written out by hand, for what a well-behaved client does not send.

use std::net::{IpAddr, SocketAddr};

use shardless::rehearsal::stand_in::Signed;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

/// An answer, as it came.
pub(crate) struct RawAnswer {
    pub(crate) status: u16,
    pub(crate) text: String,
}

/// A GET.
pub(crate) fn get(path: &str) -> Vec<u8> {
    head(&format!("GET {path}"), "", None).into_bytes()
}

/// A signed request, to any path.
pub(crate) fn post(path: &str, signed: &Signed) -> Vec<u8> {
    let length = format!("Content-Length: {}\r\n", signed.body().len());
    [head(&format!("POST {path}"), &length, Some(signed)).as_bytes(), signed.body()].concat()
}

/// A signed request whose body comes in chunks of so many bytes.
pub(crate) fn post_in_chunks(path: &str, signed: &Signed, size: usize) -> Vec<u8> {
    let mut request =
        head(&format!("POST {path}"), "Transfer-Encoding: chunked\r\n", Some(signed)).into_bytes();
    for chunk in signed.body().chunks(size) {
        request.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        request.extend_from_slice(chunk);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"0\r\n\r\n");
    request
}

fn head(line: &str, framing: &str, signed: Option<&Signed>) -> String {
    let headers = signed.into_iter().flat_map(Signed::headers);
    let headers = headers.map(|(name, value)| format!("{name}: {}\r\n", value.to_str().unwrap()));
    let headers: String = headers.collect();
    format!("{line} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{framing}{headers}\r\n")
}

/// Sends bytes to a port of 127.0.0.1, and reads until the other side closes.
pub(crate) async fn exchange(port: u16, request: &[u8]) -> RawAnswer {
    exchange_from([127, 0, 0, 1].into(), port, request).await
}

/// The same, as a client that has that address.
pub(crate) async fn exchange_from(client: IpAddr, port: u16, request: &[u8]) -> RawAnswer {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(client, 0)).unwrap();
    let mut stream = socket.connect(([127, 0, 0, 1], port).into()).await.unwrap();
    // A server that refuses a request early may stop reading it.
    _ = stream.write_all(request).await;
    let mut bytes = Vec::new();
    _ = stream.read_to_end(&mut bytes).await;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    RawAnswer { status: status.unwrap_or_else(|| panic!("this is no answer: {text:?}")), text }
}
