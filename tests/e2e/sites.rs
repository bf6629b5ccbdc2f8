//! The site files that ship. Only the domain, the ports and the paths are replaced for a test.

use std::fs;

use rstest::rstest;

use crate::daemon::{Upstream, Way};
use crate::process;
use crate::proxies::Proxy;

/// The file for a proxy and its way to the daemon.
fn file(proxy: Proxy, way: Way) -> &'static str {
    match (proxy, way) {
        (Proxy::Nginx, Way::Plain) => "nginx/shardless.conf",
        (Proxy::Nginx, Way::SelfSigned) => "nginx/shardless-self-signed.conf",
        (Proxy::Nginx, Way::Unix) => "nginx/shardless-unix.conf",
        (Proxy::Apache, Way::Plain) => "apache/shardless.conf",
        (Proxy::Apache, Way::SelfSigned) => "apache/shardless-self-signed.conf",
        (Proxy::Apache, Way::Unix) => "apache/shardless-unix.conf",
    }
}

fn read(file: &str) -> String {
    fs::read_to_string(process::source(file)).unwrap()
}

/// That file, made to listen on `port` and to find the daemon of the test.
pub(crate) fn shipped(proxy: Proxy, port: u16, upstream: &Upstream) -> String {
    let mut replacements = match proxy {
        Proxy::Nginx => vec![
            ("server_name bot.example.com;", "server_name 127.0.0.1;".to_owned()),
            ("listen 80;", format!("listen {port};")),
            ("listen [::]:80;", format!("listen [::]:{port};")),
        ],
        Proxy::Apache => vec![
            ("ServerName bot.example.com", "ServerName 127.0.0.1".to_owned()),
            ("<VirtualHost *:80>", format!("<VirtualHost *:{port}>")),
        ],
    };
    let daemon = upstream.port;
    match (proxy, upstream.way) {
        (Proxy::Nginx, Way::Plain | Way::SelfSigned) => {
            replacements.push((" 127.0.0.1:3000 ", format!(" 127.0.0.1:{daemon} ")));
        }
        (Proxy::Apache, Way::Plain) => {
            replacements.push(("\"http://127.0.0.1:3000/\"", format!("\"http://127.0.0.1:{daemon}/\"")));
        }
        (Proxy::Apache, Way::SelfSigned) => {
            replacements.push(("\"https://localhost:3000/\"", format!("\"https://localhost:{daemon}/\"")));
        }
        (_, Way::Unix) => {
            replacements
                .push(("unix:/run/shardless/http.sock", format!("unix:{}", upstream.socket.display())));
        }
    }
    if upstream.way == Way::SelfSigned {
        let pinned = upstream.certificate.display().to_string();
        replacements.push((" /var/lib/shardless/self-signed.pem", format!(" {pinned}")));
    }
    replaced(file(proxy, upstream.way), &replacements)
}

/// A self-signed site, with its commented lines in the place of those that verify.
pub(crate) fn unverified(site: &str) -> String {
    let commented = ["# proxy_ssl_", "# SSLProxy"];
    let verifying = ["proxy_ssl_", "SSLProxyVerify", "SSLProxyCA", "SSLProxyCheck"];
    let starts = |line: &str, with: &[&str]| with.iter().any(|start| line.trim().starts_with(start));
    let kept = site.lines().filter(|line| !starts(line, &verifying));
    let used =
        kept.map(|line| if starts(line, &commented) { line.replacen("# ", "", 1) } else { line.to_owned() });
    used.map(|line| line + "\n").collect()
}

fn replaced(file: &str, replacements: &[(&str, String)]) -> String {
    let mut text = read(file);
    for (shipped, ours) in replacements {
        assert_eq!(text.matches(shipped).count(), 1, "{file} is to have {shipped:?} once");
        text = text.replace(shipped, ours);
    }
    text
}

/// The settings of a file, without its comments.
fn settings(file: &str) -> Vec<String> {
    let text = read(file);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(str::to_owned).collect()
}

/// What was learnt for one file holds for its siblings: they differ in the way to the daemon, and in nothing else.
#[rstest]
#[case(Proxy::Nginx, Way::SelfSigned, &[
    "proxy_pass https://shardless;",
    "proxy_ssl_verify on;",
    "proxy_ssl_trusted_certificate /var/lib/shardless/self-signed.pem;",
    "proxy_ssl_name localhost;",
    "proxy_ssl_server_name on;",
])]
#[case(Proxy::Nginx, Way::Unix, &["server unix:/run/shardless/http.sock max_fails=0;"])]
#[case(Proxy::Apache, Way::SelfSigned, &[
    "ProxyPreserveHost Off",
    "SSLProxyEngine on",
    "SSLProxyVerify require",
    "SSLProxyCACertificateFile /var/lib/shardless/self-signed.pem",
    "SSLProxyCheckPeerName on",
    "ProxyPass \"/\" \"https://localhost:3000/\" connectiontimeout=1 timeout=4 retry=0 disablereuse=on nocanon",
])]
#[case(Proxy::Apache, Way::Unix, &[
    "ProxyPass \"/\" \"unix:/run/shardless/http.sock|http://localhost/\" connectiontimeout=1 timeout=4 retry=0 disablereuse=on nocanon",
])]
fn the_files_differ_only_in_the_way_to_the_daemon(
    #[case] proxy: Proxy,
    #[case] way: Way,
    #[case] own: &[&str],
) {
    let (plain, other) = (settings(file(proxy, Way::Plain)), settings(file(proxy, way)));
    let added: Vec<_> = other.iter().filter(|line| !plain.contains(line)).collect();
    assert_eq!(added, own);
    let way_to_the_daemon = ["server 127.0.0.1:3000", "proxy_pass ", "ProxyPreserveHost ", "ProxyPass "];
    for removed in plain.iter().filter(|line| !other.contains(line)) {
        assert!(way_to_the_daemon.iter().any(|start| removed.starts_with(start)), "{removed} is missing");
    }
}
