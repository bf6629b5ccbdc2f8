//! The guides of `deploy/README.md`, line by line: its blocks that are marked `<!-- test: NAME -->`, in the order of a reader
//! who has made a choice.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use super::acme::{Acme, DOMAIN};
use super::{on_a_machine, sh};
use crate::discord::Discord;
use crate::handler::Handler;
use crate::package::package;
use crate::process::{source, until};

/// What readers choose.
const WAYS: [&[&str]; 8] = [
    &["script", "upgrade"],
    &["by-hand", "config", "nginx"],
    &["by-hand", "config", "nginx-self-signed"],
    &["package", "config", "apache"],
    &["by-hand", "config", "apache-self-signed"],
    &["by-hand", "config", "webroot-nginx"],
    &["by-hand", "config", "webroot-apache"],
    &["by-hand", "config", "direct"],
];

/// A block and its name.
struct Block {
    name: String,
    script: String,
}

/// All blocks that are marked, in their order.
fn blocks() -> Vec<Block> {
    let text = fs::read_to_string(source("deploy/README.md")).unwrap();
    let parts = text.split("\n<!-- test: ").skip(1);
    let block = |part: &str| {
        let (name, rest) = part.split_once(" -->\n```sh\n").expect("a block of commands below the mark");
        let (script, _) = rest.split_once("\n```\n").expect("its end");
        Block { name: name.to_owned(), script: script.to_owned() }
    };
    parts.map(block).collect()
}

#[test]
fn every_block_is_on_a_way() {
    let named: BTreeSet<_> = blocks().into_iter().map(|block| block.name).collect();
    let used: BTreeSet<_> = WAYS.concat().into_iter().chain(["port"]).map(str::to_owned).collect();
    assert!(!named.is_empty());
    assert_eq!(used, named);
}

/// A reader's server: the proxies are there, shardless is a folder.
struct Reader {
    acme: Acme,
    discord: Discord,
    _handler: Handler,
}

impl Reader {
    async fn new() -> Self {
        let acme = Acme::start().await;
        // What certbot would ask a person.
        sh("printf '%s = true\\n' non-interactive agree-tos register-unsafely-without-email >> /etc/letsencrypt/cli.ini").await;
        let (repository, binary) = (source("").display().to_string(), env!("CARGO_BIN_EXE_shardless"));
        sh(&format!(
            "mkdir -p /srv/shardless/target/release
            cd {repository} && cp -r apache config deploy nginx systemd /srv/shardless
            cp {binary} /srv/shardless/target/release/
            cp {package} /srv/shardless/",
            package = package().display()
        ))
        .await;
        let handler = Handler::listen_on(8080, |_| Duration::ZERO).await;
        Self { discord: acme.discord(), acme, _handler: handler }
    }

    /// Does what stands in the blocks of these names, in one shell.
    async fn follow(&self, names: &[&str]) {
        let mut script = "cd /srv/shardless\n".to_owned();
        for name in names {
            let all = blocks();
            let named: Vec<_> = all.iter().filter(|block| block.name == *name).collect();
            assert!(!named.is_empty(), "there is no block {name:?}");
            named.iter().for_each(|block| script += &format!("{}\n", block.script));
        }
        let script =
            script.replace("bot.example.com", DOMAIN).replace("YOUR_PUBLIC_KEY", &self.discord.public_key());
        self.acme.sh(&script).await;
    }

    /// Whether Discord gets its answers.
    async fn is_answered(&self) {
        let endpoint = format!("https://{DOMAIN}/interactions");
        let mut problem = String::new();
        // A proxy's reload takes a moment after it was asked for.
        until(&format!("a command is answered over HTTPS: {problem}"), async || {
            let answer = self.discord.try_ask(&endpoint, &self.discord.command("did it work?")).await;
            problem = answer.err().unwrap_or_default();
            problem.is_empty()
        })
        .await;
    }
}

fn way(last: &str) -> &'static [&'static str] {
    let mut found = WAYS.into_iter().filter(|way| way.contains(&last));
    let way = found.next().unwrap();
    assert_eq!(found.count(), 0);
    way
}

/// From a server to an answer over HTTPS.
async fn follow(last: &str) -> Reader {
    let reader = Reader::new().await;
    reader.follow(way(last)).await;
    reader.is_answered().await;
    reader.acme.probe().await;
    reader
}

/// The same, and on to the next certificate, by the guide's own hook.
async fn follow_and_renew(last: &str) {
    let reader = follow(last).await;
    reader.acme.renew().await;
    reader.is_answered().await;
}

#[test]
fn the_script() {
    on_a_machine(the_script, async || drop(follow("script").await));
}

#[test]
fn nginx_and_another_port() {
    on_a_machine(nginx_and_another_port, async || {
        let reader = follow("nginx").await;
        reader.follow(&["port"]).await;
        // As the text below that block says.
        sh("sed -i s/127.0.0.1:3000/127.0.0.1:4000/ /etc/nginx/sites-available/shardless.conf
            nginx -t && systemctl reload nginx")
        .await;
        reader.is_answered().await;
    });
}

#[test]
fn nginx_self_signed() {
    on_a_machine(nginx_self_signed, async || drop(follow("nginx-self-signed").await));
}

#[test]
fn apache() {
    on_a_machine(apache, async || drop(follow("apache").await));
}

#[test]
fn apache_self_signed() {
    on_a_machine(apache_self_signed, async || drop(follow("apache-self-signed").await));
}

#[test]
fn webroot_with_nginx() {
    on_a_machine(webroot_with_nginx, async || follow_and_renew("webroot-nginx").await);
}

#[test]
fn webroot_with_apache() {
    on_a_machine(webroot_with_apache, async || follow_and_renew("webroot-apache").await);
}

#[test]
fn without_a_proxy() {
    on_a_machine(without_a_proxy, async || follow_and_renew("direct").await);
}
