//! The URL that Discord is to be given.

use std::fmt;
use std::str::FromStr;

use reqwest::Url;

use super::report::Finding;

/// An endpoint's URL: http or https, with a host.
#[derive(Clone, Debug)]
pub(super) struct Target {
    url: Url,
    host: String,
    port: u16,
}

impl Target {
    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// The host's name, or its address without brackets.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn is_https(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// Whether the host is an address, so that there is no name to be looked up.
    pub(super) fn is_address(&self) -> bool {
        self.host.parse::<std::net::IpAddr>().is_ok()
    }

    /// Whether it is this machine's own, by its name.
    pub(super) fn is_loopback(&self) -> bool {
        match self.host.parse::<std::net::IpAddr>() {
            Ok(address) => address.is_loopback(),
            Err(_) => self.host == "localhost" || self.host.ends_with(".localhost"),
        }
    }

    pub(super) fn judge(&self) -> Finding {
        if self.is_https() {
            return Finding::good(format!("https, host {}, path {}", self.host, self.url.path()));
        }
        let text = "http: Discord takes https:// alone";
        if self.is_loopback() {
            return Finding::bad(
                text,
                "What follows is about the port itself. Discord needs the public https:// URL of the proxy before it.",
            );
        }
        Finding::bad(
            text,
            format!("Set HTTPS up (certbot does it), then:\n  shardless probe {}", self.as_https()),
        )
    }

    /// The same with https, at the port that is usual for it.
    pub(super) fn as_https(&self) -> Url {
        let mut url = self.url.clone();
        // What cannot be set stays as it was.
        _ = url.set_scheme("https");
        if self.port == 80 {
            _ = url.set_port(None);
        }
        url
    }

    /// The commands with which certbot gets a certificate for the host.
    pub(super) fn certbot(&self) -> String {
        format!("  certbot --nginx -d {host}\n  certbot --apache -d {host}", host = self.host)
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let example = "expected a URL such as https://bot.example.com/interactions";
        let text = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
        let mut url = Url::parse(&text).map_err(|error| format!("{error}; {example}"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!("{}:// is not for Discord; {example}", url.scheme()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(format!("Discord logs in nowhere: leave the user out; {example}"));
        }
        url.set_fragment(None);
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
            return Err(format!("there is no host in it; {example}"));
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { url, host, port })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("https://bot.example.com/interactions", "bot.example.com", 443, false)]
    #[case("bot.example.com", "bot.example.com", 443, false)]
    #[case("http://localhost:3000/", "localhost", 3000, true)]
    #[case("https://[::1]:8443/", "::1", 8443, true)]
    #[case("https://büro.example/", "xn--bro-hoa.example", 443, false)]
    fn urls_are_taken_apart(
        #[case] text: &str,
        #[case] host: &str,
        #[case] port: u16,
        #[case] is_loopback: bool,
    ) {
        let target: Target = text.parse().unwrap();
        assert_eq!((target.host(), target.port(), target.is_loopback()), (host, port, is_loopback));
    }
}
