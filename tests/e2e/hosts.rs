//! Machines on which `localhost` is not what it is on this one. Each test runs once more, alone, in a network and with an
//! /etc/hosts of its own; that takes root, or sudo that asks for no password.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, ToSocketAddrs};

use crate::daemon::{Daemon, Settings, Way};
use crate::discord::Discord;
use crate::guides::Guide;
use crate::handler::Handler;
use crate::inside;
use crate::process::{self, program};
use crate::proxies::{Front, Proxy};

const INTERACTIONS: usize = 20;

const DEBIANS: &str = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n";
const IPV6_FIRST: &str = "::1 localhost\n127.0.0.1 localhost\n";
const IPV4_ONLY: &str = "127.0.0.1 localhost\n";

const NO_IPV6: &str = "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6";

/// Runs the test `name` of this file on such a machine, where it is not there yet. True inside.
fn is_inside(name: &str, hosts: &str, prepare: &str) -> bool {
    if inside::is_inside() {
        return true;
    }
    let folder = process::folder();
    let file = folder.path().join("hosts");
    fs::write(&file, hosts).unwrap();
    let enter =
        format!("mount --bind \"$1\" /etc/hosts && ip link set lo up && {prepare} && shift && exec \"$@\"");
    let mut command = inside::as_root("unshare");
    command.args(["--net", "--mount", "sh", "-ec", &enter, "sh"]).arg(&file);
    program("ip");
    inside::rerun(command, &format!("hosts::{name}"));
    false
}

/// Every proxy finds the daemon, however it is set up.
async fn every_front_works() {
    let (discord, handler) = (Discord::new(), Handler::start().await);
    for way in [Way::Plain, Way::SelfSigned, Way::Unix] {
        let daemon = Daemon::start(&discord, handler.port(), Settings::from(way)).await;
        for proxy in [Proxy::Nginx, Proxy::Apache] {
            let front = proxy.in_front_of(daemon.upstream()).await;
            front_works(&format!("{proxy}, {way:?}"), &discord, &front).await;
        }
        for guide in Guide::ALL.into_iter().filter(|guide| guide.way() == way) {
            let front = guide.in_front_of(daemon.upstream().port).await;
            front_works(&guide.to_string(), &discord, &front).await;
        }
    }
}

async fn front_works(name: &str, discord: &Discord, front: &Front) {
    for n in 0..INTERACTIONS {
        if let Err(error) = discord.try_ask(&front.endpoint(), &discord.command(&format!("№{n}"))).await {
            panic!("{name}: {error}\n{}", front.log());
        }
    }
}

fn localhost() -> Vec<String> {
    ("localhost", 0).to_socket_addrs().unwrap().map(|address| address.ip().to_string()).collect()
}

#[tokio::test]
async fn localhost_is_ipv6_first() {
    if is_inside("localhost_is_ipv6_first", IPV6_FIRST, "true") {
        assert_eq!(localhost(), ["::1", "127.0.0.1"]);
        every_front_works().await;
    }
}

#[tokio::test]
async fn localhost_is_ipv4_only() {
    if is_inside("localhost_is_ipv4_only", IPV4_ONLY, "true") {
        assert_eq!(localhost(), ["127.0.0.1"]);
        every_front_works().await;
    }
}

/// As Debian's /etc/hosts stays when IPv6 is switched off.
#[tokio::test]
async fn ipv6_is_off_and_localhost_says_it_is_on() {
    if is_inside("ipv6_is_off_and_localhost_says_it_is_on", DEBIANS, NO_IPV6) {
        assert!(TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err());
        assert!(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).is_ok());
        every_front_works().await;
    }
}

#[tokio::test]
async fn ipv6_is_off() {
    if is_inside("ipv6_is_off", IPV4_ONLY, NO_IPV6) {
        assert!(TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err());
        every_front_works().await;
    }
}
