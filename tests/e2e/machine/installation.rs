//! `deploy/install.sh` and `deploy/uninstall.sh`: from a server with its proxy to a bot that answers over HTTPS, and back.

use std::fs;

use super::acme::{self, Acme, DIRECTORY, DOMAIN};
use super::inventory::Inventory;
use super::{on_a_machine, sh};
use crate::discord::Discord;
use crate::handler::Handler;
use crate::process::source;
use crate::proxies::Proxy;

/// One call, and what it leads to.
async fn install_and_renew(proxy: Proxy) {
    let acme = Acme::start().await;
    let (discord, handler) = (acme.discord(), Handler::start().await);
    let before = Inventory::take().await;
    let call = call(proxy, &discord, &handler)
        + &format!(" --certbot --email owner@example.test --acme-server {DIRECTORY}");
    let said = acme.sh(&call).await;
    let endpoint = format!("https://{DOMAIN}/interactions");
    assert!(said.contains(&endpoint), "{said}");
    ask(&discord, &endpoint).await;
    let plain = sh(&format!("curl --silent --include http://{DOMAIN}/interactions")).await;
    assert!(plain.starts_with("HTTP/1.1 301") && plain.contains(&format!("ocation: {endpoint}")), "{plain}");

    acme.probe().await;

    // The same call once more changes nothing.
    let before_again = state().await;
    acme.sh(&call).await;
    assert_eq!(difference(&before_again, &state().await), [""; 0]);
    ask(&discord, &endpoint).await;

    acme.renew().await;
    ask(&discord, &endpoint).await;

    uninstall(&before).await;
}

/// The same with TLS to the daemon, and without a certificate for Discord.
async fn install_self_signed(proxy: Proxy) {
    fs::write("/etc/hosts", format!("127.0.0.1 localhost {DOMAIN}\n")).unwrap();
    let (discord, handler) = (Discord::new(), Handler::start().await);
    let before = Inventory::take().await;
    let call = call(proxy, &discord, &handler) + " --self-signed";
    sh(&call).await;
    let endpoint = format!("http://{DOMAIN}/interactions");
    ask(&discord, &endpoint).await;
    let pinned = "openssl s_client -connect 127.0.0.1:3000 -CAfile /var/lib/shardless/self-signed.pem -verify_return_error";
    sh(&format!("{pinned} </dev/null")).await;
    sh(&call).await;
    ask(&discord, &endpoint).await;
    uninstall(&before).await;
}

async fn uninstall(before: &Inventory) {
    sh(&format!("{} --purge", source("deploy/uninstall.sh").display())).await;
    before.require_nothing_more().await;
}

/// What a second call is to leave alone, line by line.
async fn state() -> Vec<String> {
    // certbot adds an empty line to a site, or moves one of its own, each time that it looks at it.
    let files = "find /etc/shardless /etc/nginx /etc/apache2 /etc/systemd /usr/local/bin/shardless \
        /usr/local/lib/systemd /usr/local/lib/sysusers.d -type f \
        | while read -r file; do echo \"$file $(grep --text --invert-match '^$' \"$file\" | sort | sha256sum)\"; done";
    let service = "systemctl show --property=MainPID --property=ActiveEnterTimestampMonotonic shardless";
    let lines = sh(files).await + &sh(service).await + &acme::serial().await;
    lines.lines().map(str::to_owned).collect()
}

/// The lines that only one of them has.
fn difference<'a>(one: &'a [String], other: &'a [String]) -> Vec<&'a str> {
    let only = |one: &'a [String], other: &'a [String]| one.iter().filter(|line| !other.contains(line));
    only(one, other).chain(only(other, one)).map(String::as_str).collect()
}

fn call(proxy: Proxy, discord: &Discord, handler: &Handler) -> String {
    format!(
        "{install} --domain {DOMAIN} --proxy {proxy} --public-key {key} --handler http://127.0.0.1:{port}/interactions \
        --binary {binary}",
        install = source("deploy/install.sh").display(),
        proxy = proxy.to_string().to_lowercase(),
        key = discord.public_key(),
        port = handler.port(),
        binary = env!("CARGO_BIN_EXE_shardless"),
    )
}

async fn ask(discord: &Discord, endpoint: &str) {
    discord.try_ask(endpoint, &discord.command("over HTTPS")).await.unwrap();
}

#[test]
fn one_call_leads_to_https_through_nginx() {
    on_a_machine(one_call_leads_to_https_through_nginx, async || install_and_renew(Proxy::Nginx).await);
}

#[test]
fn one_call_leads_to_https_through_apache() {
    on_a_machine(one_call_leads_to_https_through_apache, async || install_and_renew(Proxy::Apache).await);
}

#[test]
fn one_call_leads_to_a_daemon_that_nginx_knows_by_its_certificate() {
    on_a_machine(one_call_leads_to_a_daemon_that_nginx_knows_by_its_certificate, async || {
        install_self_signed(Proxy::Nginx).await;
    });
}

#[test]
fn one_call_leads_to_a_daemon_that_apache_knows_by_its_certificate() {
    on_a_machine(one_call_leads_to_a_daemon_that_apache_knows_by_its_certificate, async || {
        install_self_signed(Proxy::Apache).await;
    });
}
