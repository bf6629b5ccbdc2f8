//! TCP ports.

use std::io;
use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tracing::info;

use super::BindError;
use crate::config::{Address, Listen};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "; another program has this port (another shardless?): stop it, or change `port`"
        }
        io::ErrorKind::PermissionDenied => "; ports below 1024 need a privilege: change `port`",
        io::ErrorKind::AddrNotAvailable => "; this machine has no such address: change `address`",
        _ => "",
    }
}

/// Binds all addresses on one port.
pub(super) fn bind(listen: &Listen) -> Result<Vec<TcpListener>, BindError> {
    let mut listeners = Vec::new();
    let mut port = listen.port;
    for ip in listen.addresses() {
        let address = SocketAddr::new(ip, port);
        match bind_one(address) {
            Ok(listener) => {
                // A port that the system chose is the same on both loopback addresses.
                port = listener.local_addr().map(|bound| bound.port()).unwrap_or(port);
                listeners.push(listener);
            }
            // A machine without IPv6 has one loopback address.
            Err(_) if is_absent(ip, listen) => info!("no IPv6 on this machine: listening on 127.0.0.1 alone"),
            Err(reason) => {
                let hint = hint(&reason);
                return Err(BindError { address: address.to_string(), reason, hint });
            }
        }
    }
    Ok(listeners)
}

fn is_absent(ip: IpAddr, listen: &Listen) -> bool {
    let probe = || bind_one(SocketAddr::new(ip, 0));
    listen.address == Address::Localhost && ip.is_ipv6() && probe().is_err()
}

fn bind_one(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
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
        let listeners = bind(&Listen { address: Address::Localhost, port: 0, unix_socket: None }).unwrap();
        let addresses: Vec<_> = listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
        assert!(addresses.iter().all(|address| address.ip().is_loopback()));
        assert!(addresses.iter().all(|address| address.port() == addresses[0].port()));
    }

    #[tokio::test]
    async fn a_port_in_use_is_named_with_what_to_do() {
        let first = bind(&Listen { address: Address::Localhost, port: 0, unix_socket: None }).unwrap();
        let port = first[0].local_addr().unwrap().port();
        let error =
            bind(&Listen { address: Address::Localhost, port, unix_socket: None }).unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot listen on 127.0.0.1:{port}: ")), "{error}");
        assert!(error.contains("change `port`"), "{error}");
    }
}
