//! TCP ports.

use std::io;
use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Protocol, SockRef, Type};
use tokio::net::TcpListener;
use tracing::info;

use super::{BindError, Socket};
use crate::config::{Address, Listen, LogPart};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

fn hint(error: &io::Error, table: &str) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("; another program has this port (another shardless?): stop it, or change `{table}port`")
        }
        io::ErrorKind::PermissionDenied => {
            format!("; ports below 1024 need a privilege: change `{table}port`")
        }
        io::ErrorKind::AddrNotAvailable => {
            format!("; this machine has no such address: change `{table}address`")
        }
        _ => String::new(),
    }
}

/// Binds all addresses on one port, but for those that `handed_over` has.
pub(super) fn bind(
    listen: &Listen,
    table: &str,
    handed_over: &[Socket],
) -> Result<Vec<TcpListener>, BindError> {
    let mut listeners = Vec::new();
    let mut port = listen.port;
    for ip in listen.addresses() {
        let address = SocketAddr::new(ip, port);
        if handed_over.iter().any(|socket| socket.serves(address)) {
            continue;
        }
        match bind_one(address) {
            Ok(listener) => {
                // A port that the system chose is the same on both loopback addresses.
                port = listener.local_addr().map(|bound| bound.port()).unwrap_or(port);
                listeners.push(listener);
            }
            // A machine without IPv6 has one loopback address.
            Err(_) if is_absent(ip, listen) => {
                info!(target: LogPart::Server.target(), "no IPv6 on this machine: listening on 127.0.0.1 alone")
            }
            Err(reason) => {
                let hint = hint(&reason, table);
                return Err(BindError { address: address.to_string(), reason, hint });
            }
        }
    }
    Ok(listeners)
}

impl Socket {
    /// Whether connections to that address come to this socket.
    fn serves(&self, address: SocketAddr) -> bool {
        let Self::Tcp(listener) = self else { return false };
        let Ok(own) = listener.local_addr() else { return false };
        let takes_all_of = |ip: IpAddr| match own.ip() {
            IpAddr::V4(own) => own.is_unspecified() && ip.is_ipv4(),
            IpAddr::V6(own) => {
                own.is_unspecified()
                    && (ip.is_ipv6() || SockRef::from(listener).only_v6().is_ok_and(|only| !only))
            }
        };
        own.port() == address.port() && (own.ip() == address.ip() || takes_all_of(address.ip()))
    }
}

fn is_absent(ip: IpAddr, listen: &Listen) -> bool {
    let probe = || bind_one(SocketAddr::new(ip, 0));
    listen.address == Address::Localhost && ip.is_ipv6() && probe().is_err()
}

fn bind_one(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // So that a restart need not wait for the last connections to be forgotten.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn localhost_is_both_loopback_addresses_on_one_port() {
        let listeners =
            bind(&Listen { address: Address::Localhost, port: 0, unix_socket: None }, "", &[]).unwrap();
        let addresses: Vec<_> = listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
        assert!(addresses.iter().all(|address| address.ip().is_loopback()));
        assert!(addresses.iter().all(|address| address.port() == addresses[0].port()));
    }

    #[tokio::test]
    async fn a_socket_for_all_addresses_serves_each() {
        let for_all = |address: &str| {
            let listener = std::net::TcpListener::bind((address, 0)).unwrap();
            listener.set_nonblocking(true).unwrap();
            let port = listener.local_addr().unwrap().port();
            (Socket::Tcp(TcpListener::from_std(listener).unwrap()), port)
        };
        let serves =
            |socket: &Socket, ip: &str, port| socket.serves(SocketAddr::new(ip.parse().unwrap(), port));
        let (v4, port) = for_all("0.0.0.0");
        assert!(serves(&v4, "127.0.0.1", port) && serves(&v4, "192.0.2.1", port));
        assert!(!serves(&v4, "::1", port) && !serves(&v4, "127.0.0.1", port ^ 1));
        let (both, port) = for_all("::");
        assert!(serves(&both, "::1", port) && serves(&both, "127.0.0.1", port));
        let (one, port) = for_all("127.0.0.1");
        assert!(serves(&one, "127.0.0.1", port) && !serves(&one, "127.0.0.2", port));
    }

    #[tokio::test]
    async fn a_port_in_use_is_named_with_what_to_do() {
        let first =
            bind(&Listen { address: Address::Localhost, port: 0, unix_socket: None }, "", &[]).unwrap();
        let port = first[0].local_addr().unwrap().port();
        let error = bind(&Listen { address: Address::Localhost, port, unix_socket: None }, "", &[])
            .unwrap_err()
            .to_string();
        assert!(error.starts_with(&format!("cannot listen on 127.0.0.1:{port}: ")), "{error}");
        assert!(error.contains("change `port`"), "{error}");
    }
}
