//! Where Discord's REST API is. Tokens stand in the paths of its requests, so nobody on the way may read them.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use http::Uri;
use toml::de::DeValue;

use crate::config::reader::FromToml;

/// The URL that the paths of Discord's REST API are appended to: over `https`, or over `http` to this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiUrl(String);

impl ApiUrl {
    /// The URL, without a slash at its end.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for ApiUrl {
    /// Source: Discord's documentation, "API Versioning".
    fn default() -> Self {
        Self("https://discord.com/api/v10".to_owned())
    }
}

impl fmt::Display for ApiUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ApiUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let uri: Uri = text.parse().map_err(|_| String::new())?;
        let authority = uri.authority().ok_or_else(String::new)?;
        if authority.as_str().contains('@') {
            return Err("the API's URL carries no user name or password".to_owned());
        }
        // A port that is none would otherwise show with the first late answer.
        let has_sound_port = authority.as_str() == authority.host() || authority.port_u16() > Some(0);
        let is_whole = !authority.host().is_empty() && has_sound_port;
        if !is_whole || text.contains(['?', '#']) {
            return Err(String::new());
        }
        match uri.scheme_str() {
            Some("https") => {}
            Some("http") if is_loopback(authority.host()) => {}
            Some("http") => {
                return Err("expected https:// to any other machine, since tokens are secrets".to_owned());
            }
            _ => return Err(String::new()),
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }
}

impl FromToml for ApiUrl {
    const EXPECTED: &'static str = "expected a URL such as \"https://discord.com/api/v10\", without ? and #";

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        value.as_str().ok_or_else(String::new)?.parse()
    }
}

fn is_loopback(host: &str) -> bool {
    let ip = host.trim_matches(['[', ']']).parse::<IpAddr>();
    ip.map_or(host.eq_ignore_ascii_case("localhost"), |ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("https://discord.com/api/v10", "https://discord.com/api/v10")]
    #[case("https://discord.com/api/v10//", "https://discord.com/api/v10")]
    #[case("https://proxy.example:8443", "https://proxy.example:8443")]
    #[case("http://127.0.0.1:3002/api", "http://127.0.0.1:3002/api")]
    #[case("http://127.9.9.9/", "http://127.9.9.9")]
    #[case("http://[::1]:3002", "http://[::1]:3002")]
    #[case("http://LocalHost:3002/", "http://LocalHost:3002")]
    fn secrets_go_over_tls_or_nowhere_else(#[case] text: &str, #[case] url: &str) {
        let parsed: ApiUrl = text.parse().unwrap();
        assert_eq!((parsed.as_str(), parsed.to_string().as_str()), (url, url));
    }

    #[rstest]
    #[case::plain("http://discord.com/api/v10", "expected https:// to any other machine")]
    #[case::not_quite_here("http://localhost.example/", "expected https:// to any other machine")]
    #[case::everywhere("http://0.0.0.0:3002/", "expected https:// to any other machine")]
    #[case::credentials("https://user:secret@discord.com/", "no user name or password")]
    #[case::disguised("http://127.0.0.1@discord.com/", "no user name or password")]
    #[case::query("https://discord.com/api?x=1", "")]
    #[case::fragment("https://discord.com/api#x", "")]
    #[case::other_scheme("ftp://discord.com/api", "")]
    #[case::path("/api/v10", "")]
    #[case::host_alone("discord.com", "")]
    #[case::no_host("https:///api", "")]
    #[case::port_alone("https://:443/api", "")]
    #[case::no_port("https://discord.com:/api", "")]
    #[case::port_zero("https://discord.com:0/api", "")]
    #[case::large_port("https://discord.com:65536/api", "")]
    #[case::space("https://discord.com/a b", "")]
    #[case::empty("", "")]
    fn anything_else_is_refused(#[case] text: &str, #[case] words: &str) {
        let advice = text.parse::<ApiUrl>().unwrap_err();
        assert!(advice.contains(words) && advice.is_empty() == words.is_empty(), "{advice}");
        assert!(!advice.contains("secret@"), "{advice}");
    }
}
