//! Just enough HTTP/1.1 for both ends of the load: whole messages by `Content-Length`, over kept connections.
//!
//! By hand, since the generator shares the processor with what it measures.

use std::io;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// At first; a longer message makes it grow.
const BUFFER: usize = 16 * 1024;
/// More than the daemon takes by default.
const LONGEST: usize = 2 * 1024 * 1024;

pub(crate) struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// Whether the other end closes after the answer that it gave last.
    has_ended: bool,
}

/// A request or an answer.
pub(crate) struct Message<'a> {
    /// The first line and the headers, up to the empty line.
    pub(crate) head: &'a [u8],
    pub(crate) body: &'a [u8],
}

impl Wire {
    pub(crate) fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; BUFFER], has_ended: false })
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended
    }

    pub(crate) async fn write(&mut self, message: &[u8]) -> io::Result<()> {
        self.stream.write_all(message).await
    }

    /// The next message; `None` where the other end closed between two of them. Nothing may follow it yet: neither
    /// end of this load speaks before it is asked.
    pub(crate) async fn read(&mut self) -> Result<Option<Message<'_>>> {
        let mut filled = 0;
        loop {
            let Some(room) = self.buffer.get_mut(filled..).filter(|room| !room.is_empty()) else {
                bail!("headers of more than {BUFFER} bytes")
            };
            match self.stream.read(room).await? {
                0 if filled == 0 => return Ok(None),
                0 => bail!("the connection ended inside a message"),
                count => filled += count,
            }
            let Some(head) = end_of_head(&self.buffer[..filled]) else { continue };
            let whole = head + content_length(&self.buffer[..head])?;
            if filled > whole {
                bail!("bytes behind the end of a message");
            }
            if whole > LONGEST {
                bail!("a message of {whole} bytes");
            }
            if whole > self.buffer.len() {
                self.buffer.resize(whole, 0);
            }
            if filled == whole {
                self.has_ended = ends_connection(&self.buffer[..head]);
                return Ok(Some(Message { head: &self.buffer[..head], body: &self.buffer[head..whole] }));
            }
        }
    }
}

fn end_of_head(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|start| start + 4)
}

fn content_length(head: &[u8]) -> Result<usize> {
    const NAME: &[u8] = b"\r\ncontent-length:";
    let start = find(head, NAME).context("no Content-Length")? + NAME.len();
    let value = head[start..].split(|byte| *byte == b'\r').next().unwrap_or_default();
    std::str::from_utf8(value)?.trim().parse().context("Content-Length is no number")
}

fn ends_connection(head: &[u8]) -> bool {
    head.starts_with(b"HTTP/1.0 ") || find(head, b"\r\nconnection: close\r\n").is_some()
}

fn find(head: &[u8], text: &[u8]) -> Option<usize> {
    head.windows(text.len()).position(|window| window.eq_ignore_ascii_case(text))
}
