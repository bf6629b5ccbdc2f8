//! The way to the endpoint: its addresses, and whether something listens there.

use std::io::{Error, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::report::{Finding, duration, plain};
use super::target::Target;
use crate::clock::{Clock, SystemClock};

/// For the name's addresses.
const LOOKUP: Duration = Duration::from_secs(10);
/// For one connection; Discord gives no more to the whole exchange.
const CONNECT: Duration = Duration::from_secs(3);
/// Of a name's addresses, so many are tried.
const TRIED: usize = 8;

/// The host's addresses, and what there is to say of them; nothing of a host that is an address.
pub(super) async fn resolve(target: &Target) -> Result<(Option<Finding>, Vec<SocketAddr>), Finding> {
    let lookup = tokio::net::lookup_host((target.host(), target.port()));
    let unknown = |reason: &str| {
        Finding::bad(
            format!("{} has no address that this machine can find: {reason}", target.host()),
            "Is the name right? Your domain's DNS needs an A record for it with the server's IPv4 address (and an \
             AAAA record if it has IPv6). A new record can take some minutes to be seen.",
        )
    };
    let addresses = match timeout(LOOKUP, lookup).await {
        Err(_) => return Err(unknown(&format!("no answer within {} s", LOOKUP.as_secs()))),
        Ok(Err(error)) => {
            let reason = error.to_string();
            let reason = reason.trim_start_matches("failed to lookup address information: ");
            return Err(unknown(&plain(reason, 200)));
        }
        Ok(Ok(addresses)) => addresses.take(TRIED).collect::<Vec<_>>(),
    };
    if addresses.is_empty() {
        return Err(unknown("there is none"));
    }
    Ok((describe(target, &addresses), addresses))
}

fn describe(target: &Target, addresses: &[SocketAddr]) -> Option<Finding> {
    let list = addresses.iter().map(|address| address.ip().to_string()).collect::<Vec<_>>().join(", ");
    // Over plain HTTP, a port of this machine is what was asked for.
    let inside = addresses.iter().any(|address| target.is_https() && is_inside(address.ip()));
    if inside {
        return Some(Finding::warning(
            format!("{list}: only this machine or its network can reach that"),
            "Discord must find a public address. If /etc/hosts or your router gives this one in its place, that is \
             fine, but probe from a machine outside as well.",
        ));
    }
    (!target.is_address()).then(|| Finding::good(list))
}

/// Whether nobody on the internet can reach it.
fn is_inside(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [first, second, ..] = ip.octets();
            let shared = first == 100 && (64..128).contains(&second);
            ip.is_loopback() || ip.is_private() || ip.is_link_local() || ip.is_unspecified() || shared
        }
        IpAddr::V6(ip) => {
            ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local() || ip.is_unspecified()
        }
    }
}

/// Connects to every address, and gives the first connection that came about.
pub(super) async fn open(
    target: &Target,
    addresses: &[SocketAddr],
) -> (Finding, Option<(TcpStream, SocketAddr)>) {
    let attempts = join_all(addresses.iter().map(|address| attempt(*address))).await;
    let mut open = None;
    let mut failures = Vec::new();
    for (address, attempt) in addresses.iter().zip(attempts) {
        match attempt {
            Ok((stream, time)) if open.is_none() => open = Some((stream, *address, time)),
            Ok(_) => {}
            Err(error) => failures.push((*address, error)),
        }
    }
    let Some((stream, address, time)) = open else { return (unreachable(target, &failures), None) };
    let text = format!("{address}, in {}", duration(time));
    // That this machine has no way to IPv6 says nothing of others; of loopback's two addresses one will do.
    failures.retain(|(address, error)| {
        error.kind() != ErrorKind::NetworkUnreachable && !address.ip().is_loopback()
    });
    let finding = match failures.first() {
        None => Finding::good(text),
        Some((failed, error)) => Finding::warning(
            format!("{text}; but {failed}: {}", words(error)),
            format!(
                "Discord may pick any address of the name: let the server answer at {} too, or remove its DNS record.",
                failed.ip()
            ),
        ),
    };
    (finding, Some((stream, address)))
}

async fn attempt(address: SocketAddr) -> Result<(TcpStream, Duration), Error> {
    let start = SystemClock.now();
    let connected = timeout(CONNECT, TcpStream::connect(address)).await;
    let stream = connected.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))?;
    Ok((stream, SystemClock.now() - start))
}

fn unreachable(target: &Target, failures: &[(SocketAddr, Error)]) -> Finding {
    let list = failures.iter().map(|(address, error)| format!("{address}: {}", words(error)));
    let text = list.collect::<Vec<_>>().join("; ");
    let port = target.port();
    let refused = failures.iter().any(|(_, error)| error.kind() == ErrorKind::ConnectionRefused);
    let advice = if !target.is_https() {
        format!("Is shardless running, and is {port} its port? (systemctl status shardless)")
    } else if refused {
        format!(
            "Nothing listens on port {port} there. Is Nginx or Apache running (systemctl status nginx, or apache2), and \
             is HTTPS set up in it? certbot does that, for the one or the other:\n{}",
            target.certbot(),
        )
    } else {
        format!(
            "Is this the server's address, and does its firewall let port {port} in? (ufw allow {port}/tcp, and the \
             firewall in your provider's panel)"
        )
    };
    Finding::bad(text, advice)
}

fn words(error: &Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        ErrorKind::TimedOut => format!("no answer within {} s", CONNECT.as_secs()),
        ErrorKind::NetworkUnreachable => "this machine has no way there".to_owned(),
        _ => plain(&error.to_string(), 200),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("127.0.1.1", true)]
    #[case("10.1.2.3", true)]
    #[case("100.64.0.1", true)]
    #[case("100.128.0.1", false)]
    #[case("::ffff:192.168.0.1", true)]
    #[case("fd00::1", true)]
    #[case("fe80::1", true)]
    #[case("93.184.215.14", false)]
    #[case("2606:2800::1", false)]
    fn addresses_inside_are_told_from_public_ones(#[case] address: IpAddr, #[case] inside: bool) {
        assert_eq!(is_inside(address), inside);
    }
}
