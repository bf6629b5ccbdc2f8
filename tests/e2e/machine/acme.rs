//! Certificates as Let's Encrypt gives them: its own test server, for names that lead to this machine.

use std::fs;

use super::sh;
use crate::discord::Discord;
use crate::process::{program, until};

/// The server that Discord reaches.
pub(crate) const DOMAIN: &str = "bot.example.test";
/// Where certbot finds the authority.
pub(crate) const DIRECTORY: &str = "https://localhost:14000/dir";
/// What the authority's own certificate is trusted by.
const CA: &str = "/etc/pebble/cert.pem";

/// What its certificates are signed by, at last.
const ROOT: &str = "/etc/pebble/root.pem";

/// The authority. It runs until the machine ends.
pub(crate) struct Acme {
    /// What its certificates are signed by, at last.
    root: String,
}

impl Acme {
    /// Starts it, and lets the names lead here.
    pub(crate) async fn start() -> Self {
        for name in ["certbot", "pebble"] {
            program(name);
        }
        let mut hosts = fs::read_to_string("/etc/hosts").unwrap();
        hosts.push_str(&format!("\n127.0.0.1 {DOMAIN} bot.example.com\n"));
        fs::write("/etc/hosts", hosts).unwrap();
        fs::create_dir_all("/etc/pebble").unwrap();
        let config = r#"{"pebble": {
            "listenAddress": "127.0.0.1:14000", "managementListenAddress": "127.0.0.1:15000",
            "certificate": "/etc/pebble/cert.pem", "privateKey": "/etc/pebble/key.pem",
            "httpPort": 80, "tlsPort": 443, "ocspResponderURL": "", "externalAccountBindingRequired": false
        }}"#;
        fs::write("/etc/pebble/config.json", config).unwrap();
        // Nonces are not refused at random, since certbot 2.1 can die of that, and nothing waits at random either.
        sh(&format!(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=pebble \
                -addext subjectAltName=DNS:localhost -keyout /etc/pebble/key.pem -out {CA} 2>/dev/null
            systemd-run --quiet --unit=pebble --setenv=PEBBLE_VA_NOSLEEP=1 --setenv=PEBBLE_WFE_NONCEREJECT=0 \
                --setenv=PEBBLE_AUTHZREUSE=0 pebble -config /etc/pebble/config.json
            mkdir -p /etc/letsencrypt
            echo 'server = {DIRECTORY}' >> /etc/letsencrypt/cli.ini
            systemctl set-environment REQUESTS_CA_BUNDLE={CA}"
        ))
        .await;
        let mut root = String::new();
        until("pebble gives its root", async || {
            let curl = format!("curl --silent --cacert {CA} https://localhost:15000/roots/0 || true");
            root = sh(&curl).await;
            root.contains("BEGIN CERTIFICATE")
        })
        .await;
        fs::write(ROOT, &root).unwrap();
        Self { root }
    }

    /// Has `shardless probe` look at the endpoint: nothing is in Discord's way.
    pub(crate) async fn probe(&self) {
        let said = sh(&format!("shardless probe --ca {ROOT} https://{DOMAIN}/interactions")).await;
        println!("{said}");
    }

    /// Runs a shell script as on a machine that trusts the authority.
    pub(crate) async fn sh(&self, script: &str) -> String {
        sh(&format!("export REQUESTS_CA_BUNDLE={CA}\n{script}")).await
    }

    /// Someone who trusts no other certificates than these.
    pub(crate) fn discord(&self) -> Discord {
        let mut discord = Discord::new();
        discord.trust(&self.root);
        discord
    }

    /// Has every certificate renewed, and waits until the new one of [`DOMAIN`] is served.
    pub(crate) async fn renew(&self) {
        let before = serial().await;
        let said = self.sh("certbot renew --force-renewal --no-random-sleep-on-renew").await;
        assert!(said.contains("all renewals succeeded"), "{said}");
        until("another certificate is served", async || serial().await != before).await;
    }
}

/// The number of the certificate that is served.
pub(crate) async fn serial() -> String {
    let connect =
        format!("openssl s_client -connect {DOMAIN}:443 -servername {DOMAIN} </dev/null 2>/dev/null");
    sh(&format!("{connect} | openssl x509 -noout -serial")).await
}
