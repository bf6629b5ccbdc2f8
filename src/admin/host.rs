//! Names by which this machine may be called.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Whether a `Host` is one that nobody else can let lead here: an IP address, or `localhost`, with a port or without.
pub(super) fn is_own(host: &str) -> bool {
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let is_v6 = |ip: &str| ip.parse::<Ipv6Addr>().is_ok();
    if let Some(rest) = host.strip_prefix('[') {
        return match rest.split_once(']') {
            Some((ip, "")) => is_v6(ip),
            Some((ip, port)) => is_v6(ip) && port.strip_prefix(':').is_some_and(is_port),
            None => false,
        };
    }
    let name = match host.split_once(':') {
        Some((name, port)) if is_port(port) => name,
        Some(_) => return false,
        None => host,
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<Ipv4Addr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_and_localhost_are_its_own() {
        for host in [
            "localhost",
            "localhost:3001",
            "LocalHost:80",
            "127.0.0.1",
            "127.0.0.1:3001",
            "192.0.2.7:1",
            "[::1]",
            "[::1]:3001",
            "[2001:db8::7]",
        ] {
            assert!(is_own(host), "{host}");
        }
    }

    #[test]
    fn a_name_that_somebody_can_own_is_not() {
        for host in [
            "",
            "example.com",
            "example.com:3001",
            "localhost.example.com",
            "a.localhost",
            "localhost.",
            "127.0.0.1.",
            "127.0.0.1.example.com",
            "127.1",
            "0x7f000001",
            "2130706433",
            "::1",
            "[::1",
            "[::1]3001",
            "[::1]:",
            "[::1]:x",
            "[127.0.0.1]",
            "localhost:",
            "localhost:3001:1",
            "localhost:80@example.com",
            "localhost ",
            " localhost",
            "user@localhost",
            "[fe80::1%eth0]",
        ] {
            assert!(!is_own(host), "{host}");
        }
    }
}
