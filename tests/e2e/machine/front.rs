//! The proxies as services, with Debian's own settings and a site file that ships.

use super::sh;
use crate::daemon::Upstream;
use crate::proxies::Proxy;
use crate::sites;

/// A proxy's part of the machine's names, paths and commands.
#[derive(Clone, Copy)]
pub(crate) struct Names {
    /// Its unit, and its folder in /etc.
    pub(crate) unit: &'static str,
    /// Whose settings have a mistake, if they do.
    pub(crate) test: &'static str,
}

impl Proxy {
    /// What it is called here.
    pub(crate) fn names(self) -> Names {
        match self {
            Self::Nginx => Names { unit: "nginx", test: "nginx -t" },
            Self::Apache => Names { unit: "apache2", test: "apache2ctl configtest" },
        }
    }
}

/// Starts both proxies in front of the daemon, each on a port of its own.
pub(crate) async fn both(upstream: &Upstream) -> [(Proxy, String); 2] {
    [
        (Proxy::Nginx, start(Proxy::Nginx, 80, upstream).await),
        (Proxy::Apache, start(Proxy::Apache, 8080, upstream).await),
    ]
}

/// Starts a proxy in front of the daemon, and gives the endpoint's URL.
async fn start(proxy: Proxy, port: u16, upstream: &Upstream) -> String {
    let Names { unit, test } = proxy.names();
    let site = sites::shipped(proxy, port, upstream);
    std::fs::write(format!("/etc/{unit}/sites-available/shardless.conf"), site).unwrap();
    match proxy {
        Proxy::Nginx => {
            sh("rm /etc/nginx/sites-enabled/default
                ln -s ../sites-available/shardless.conf /etc/nginx/sites-enabled/")
            .await;
        }
        Proxy::Apache => {
            sh(&format!(
                "a2dissite -q 000-default
                sed -i 's/^Listen 80$/Listen {port}/' /etc/apache2/ports.conf
                a2enmod -q proxy_http headers
                a2ensite -q shardless"
            ))
            .await;
        }
    }
    sh(&format!("{test} && systemctl start {unit}")).await;
    format!("http://127.0.0.1:{port}/interactions")
}
