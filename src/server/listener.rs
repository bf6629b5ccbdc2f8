//! Binding addresses and the unix socket.

mod tcp;
mod unix;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::task::{Context, Poll};

use thiserror::Error;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::config::Listen;

/// Something that connections come from.
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

/// A connection that was accepted.
pub(super) enum Accepted {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// An address that cannot be listened on.
#[derive(Debug, Error)]
#[error("cannot listen on {address}: {reason}{hint}")]
pub struct BindError {
    address: String,
    reason: io::Error,
    hint: &'static str,
}

/// Binds all that the config asks for.
pub(super) fn bind(listen: &Listen) -> Result<Vec<Listener>, BindError> {
    let mut listeners: Vec<_> = tcp::bind(listen)?.into_iter().map(Listener::Tcp).collect();
    if let Some(path) = &listen.unix_socket {
        listeners.push(Listener::Unix(unix::bind(path)?, path.clone()));
    }
    Ok(listeners)
}

/// The next connection of whichever listener has one.
pub(super) async fn accept(listeners: &[Listener]) -> io::Result<Accepted> {
    std::future::poll_fn(|context| {
        let accepted = listeners.iter().find_map(|listener| match listener.poll_accept(context) {
            Poll::Ready(accepted) => Some(accepted),
            Poll::Pending => None,
        });
        accepted.map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

impl Listener {
    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
        match self {
            Self::Tcp(listener) => listener.poll_accept(context).map_ok(|(stream, _)| Accepted::Tcp(stream)),
            Self::Unix(listener, _) => {
                listener.poll_accept(context).map_ok(|(stream, _)| Accepted::Unix(stream))
            }
        }
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(listener) => match listener.local_addr() {
                Ok(address) => address.fmt(f),
                Err(_) => f.write_str("a port"),
            },
            Self::Unix(_, path) => write!(f, "unix:{}", path.display()),
        }
    }
}
