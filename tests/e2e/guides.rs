//! The proxies as other guides set them up: word for word, but for the ports. Whoever followed one changes nothing.

use std::fmt;

use rstest::rstest;

use crate::daemon::{Daemon, Settings, Way};
use crate::discord::Discord;
use crate::handler::Handler;
use crate::process::free_port;
use crate::proxies::{Front, Server};
use crate::volume::send_all;

const INTERACTIONS: usize = 100;
/// More than a visitor, less than a load test.
const AT_ONCE: usize = 10;

/// Whose guide.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Guide {
    Nginx,
    NginxTls,
    Apache,
    ApacheTls,
    Caddy,
    HaProxy,
}

impl Guide {
    pub(crate) const ALL: [Self; 6] =
        [Self::Nginx, Self::NginxTls, Self::Apache, Self::ApacheTls, Self::Caddy, Self::HaProxy];

    /// What the daemon is told for it.
    pub(crate) fn way(self) -> Way {
        match self {
            Self::NginxTls | Self::ApacheTls => Way::SelfSigned,
            Self::Nginx | Self::Apache | Self::Caddy | Self::HaProxy => Way::Plain,
        }
    }

    /// Starts the proxy in front of that port.
    pub(crate) async fn in_front_of(self, daemon: u16) -> Front {
        let port = free_port();
        let server = match self {
            Self::Nginx | Self::NginxTls => Server::Nginx,
            Self::Apache | Self::ApacheTls => Server::Apache,
            Self::Caddy => Server::Caddy,
            Self::HaProxy => Server::HaProxy,
        };
        let text = self.text();
        assert_eq!((text.matches(":3000").count(), text.matches(":80").count()), (self.mentions(), 1));
        let site = text.replace(":3000", &format!(":{daemon}")).replace(":80", &format!(":{port}"));
        server.start(port, &site).await
    }

    /// How often the daemon's port is in it.
    fn mentions(self) -> usize {
        if matches!(self, Self::Apache | Self::ApacheTls) { 2 } else { 1 }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Nginx => {
                "server {
                    listen *:80;
                    location / {
                        proxy_pass http://localhost:3000;
                    }
                }"
            }
            Self::NginxTls => {
                "server {
                    listen *:80;
                    location / {
                        proxy_pass https://localhost:3000;
                        proxy_ssl_verify off;
                    }
                }"
            }
            Self::Apache => {
                "<VirtualHost *:80>
                    ProxyPass \"/\" \"http://localhost:3000/\"
                    ProxyPassReverse \"/\" \"http://localhost:3000/\"
                </VirtualHost>"
            }
            Self::ApacheTls => {
                "<VirtualHost *:80>
                    SSLProxyEngine on
                    SSLProxyVerify none
                    SSLProxyCheckPeerCN off
                    SSLProxyCheckPeerName off
                    ProxyPass \"/\" \"https://localhost:3000/\"
                    ProxyPassReverse \"/\" \"https://localhost:3000/\"
                </VirtualHost>"
            }
            Self::Caddy => {
                ":80 {
                    reverse_proxy localhost:3000
                }\n"
            }
            Self::HaProxy => {
                "defaults
                    mode http
                    timeout connect 5s
                    timeout client 30s
                    timeout server 30s

                frontend bot
                    bind :80
                    default_backend shardless

                backend shardless
                    server shardless localhost:3000\n"
            }
        }
    }
}

impl fmt::Display for Guide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nginx => "Nginx by its guide",
            Self::NginxTls => "Nginx by its guide, https",
            Self::Apache => "Apache by its guide",
            Self::ApacheTls => "Apache by its guide, https",
            Self::Caddy => "Caddy",
            Self::HaProxy => "HAProxy",
        })
    }
}

#[rstest]
#[tokio::test]
async fn a_guides_set_up_works_as_it_is(
    #[values(Guide::Nginx, Guide::NginxTls, Guide::Apache, Guide::ApacheTls, Guide::Caddy, Guide::HaProxy)]
    guide: Guide,
) {
    let (discord, handler) = (Discord::new(), Handler::start().await);
    let daemon = Daemon::start(&discord, handler.port(), Settings::from(guide.way())).await;
    let front = guide.in_front_of(daemon.upstream().port).await;
    for at_once in [1, AT_ONCE] {
        let interactions: Vec<_> = (0..INTERACTIONS).map(|n| discord.command(&format!("№{n}"))).collect();
        let errors = send_all(&discord, &front.endpoint(), &interactions, at_once).await;
        println!("{guide}, {at_once} at once: {INTERACTIONS} interactions, {} errors", errors.len());
        assert_eq!(errors, [""; 0]);
    }
    assert_eq!(handler.seen().len(), 2 * INTERACTIONS);
}
