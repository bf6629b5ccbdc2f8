//! Requests written out by hand, for what a well-behaved client does not send.

use std::net::{IpAddr, SocketAddr};

use shardless::rehearsal::stand_in::Signed;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::process::PATIENCE;

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

impl RawAnswer {
    fn new(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
        Self { status: status.unwrap_or_else(|| panic!("this is no answer: {text:?}")), text }
    }

    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let headers = self.text.split("\r\n\r\n").next()?.lines().filter_map(|line| line.split_once(": "));
        let mut values = headers.filter(|(header, _)| header.eq_ignore_ascii_case(name));
        values.next().map(|(_, value)| value)
    }

    /// What follows the headers.
    pub(crate) fn body(&self) -> Option<&str> {
        self.text.split_once("\r\n\r\n").map(|(_, body)| body)
    }
}

/// A connection on which a test sends what it likes, when it likes.
pub(crate) struct Connection<S = TcpStream> {
    stream: S,
}

impl Connection {
    /// To a port of 127.0.0.1.
    pub(crate) async fn to(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        // Or the system would put together what is to come apart.
        stream.set_nodelay(true).unwrap();
        Self { stream }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        // A server that refuses a request early may stop reading it.
        _ = self.stream.write_all(bytes).await;
    }

    /// An answer without a body that comes before the real one.
    pub(crate) async fn interim(&mut self) -> String {
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") {
            match timeout(PATIENCE, self.stream.read_u8()).await {
                Ok(Ok(byte)) => bytes.push(byte),
                ended => panic!("{ended:?} after {:?}", String::from_utf8_lossy(&bytes)),
            }
        }
        String::from_utf8(bytes).unwrap()
    }

    /// All that comes until the other side closes.
    pub(crate) async fn answer(mut self) -> RawAnswer {
        let mut bytes = Vec::new();
        let ended = timeout(PATIENCE, self.stream.read_to_end(&mut bytes)).await;
        assert!(ended.is_ok(), "the connection stays open after {:?}", String::from_utf8_lossy(&bytes));
        RawAnswer::new(&bytes)
    }
}

/// Sends bytes to a port of 127.0.0.1, and reads until the other side closes.
pub(crate) async fn exchange(port: u16, request: &[u8]) -> RawAnswer {
    exchange_from([127, 0, 0, 1].into(), port, request).await
}

/// The same, as a client that has that address.
pub(crate) async fn exchange_from(client: IpAddr, port: u16, request: &[u8]) -> RawAnswer {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(client, 0)).unwrap();
    exchange_on(socket.connect(([127, 0, 0, 1], port).into()).await.unwrap(), request).await
}

/// The same, on a connection that is open.
pub(crate) async fn exchange_on(stream: impl AsyncRead + AsyncWrite + Unpin, request: &[u8]) -> RawAnswer {
    let mut connection = Connection { stream };
    connection.send(request).await;
    connection.answer().await
}
