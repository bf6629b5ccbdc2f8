//! The types of values that stand in a config file.

mod api_url;

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use http::Uri;
use toml::de::DeValue;

pub use api_url::ApiUrl;

use super::Listen;
use super::reader::FromToml;
use crate::discord::signature::PublicKey;
use crate::discord::{RESPONSE_DEADLINE, TOKEN_LIFETIME};

/// What to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// Both loopback addresses, so that a proxy that resolves `localhost` either way reaches us.
    Localhost,
    /// One address.
    Ip(IpAddr),
}

impl FromToml for Address {
    const EXPECTED: &'static str = "expected \"localhost\" or an IP address";

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        match value.as_str() {
            Some("localhost") => Ok(Self::Localhost),
            Some(text) => text.parse().map(Self::Ip).map_err(|_| String::new()),
            None => Err(String::new()),
        }
    }
}

/// The path of an endpoint, compared with a request's as it came.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EndpointPath(String);

impl EndpointPath {
    /// The path, with its leading slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for EndpointPath {
    fn default() -> Self {
        Self("/interactions".to_owned())
    }
}

impl FromToml for EndpointPath {
    const EXPECTED: &'static str = "expected a path such as \"/interactions\"";

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        let text = value.as_str().ok_or_else(String::new)?;
        let sound = text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic());
        if !sound || text.contains(['?', '#']) {
            return Err(String::new());
        }
        Ok(Self(text.to_owned()))
    }
}

/// Where a handler listens: `http://host[:port][/path]`, the same with `https`, or `unix:/path.sock[:/path]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HandlerUrl {
    /// What to ask for; over a unix socket the host is `localhost`.
    uri: Uri,
    socket: Option<PathBuf>,
}

impl HandlerUrl {
    /// The URL of the request, with scheme and authority.
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The unix socket to connect to.
    pub fn socket(&self) -> Option<&Path> {
        self.socket.as_deref()
    }

    /// Whether it is reached over TLS.
    pub fn is_https(&self) -> bool {
        self.uri.scheme_str() == Some("https")
    }

    /// Whether it leads to where the daemon itself listens.
    pub(super) fn is_at(&self, listen: &Listen) -> bool {
        let host = self.uri.host().unwrap_or_default();
        let own = listen.addresses();
        let ip = host.trim_matches(['[', ']']).parse::<IpAddr>();
        let is_own =
            |ip: IpAddr| own.iter().any(|own| *own == ip || own.is_unspecified() && ip.is_loopback());
        let is_here =
            ip.map_or(host.eq_ignore_ascii_case("localhost") && own.iter().any(is_loopback), is_own);
        let default = if self.is_https() { 443 } else { 80 };
        let has_port = is_here && self.uri.port_u16().unwrap_or(default) == listen.port;
        if self.socket.is_some() { self.socket == listen.unix_socket } else { has_port }
    }

    fn over_socket(text: &str) -> Result<Self, String> {
        let (socket, route) = text.split_once(':').unwrap_or((text, "/"));
        let uri = format!("http://localhost{route}").parse::<Uri>();
        match uri {
            Ok(uri) if socket.starts_with('/') && route.starts_with('/') => {
                Ok(Self { uri, socket: Some(PathBuf::from(socket)) })
            }
            _ => {
                Err("expected an absolute path and a route: \"unix:/run/bot.sock:/interactions\"".to_owned())
            }
        }
    }
}

fn is_loopback(ip: &IpAddr) -> bool {
    ip.is_loopback() || ip.is_unspecified()
}

impl FromStr for HandlerUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(rest) = text.strip_prefix("unix:") {
            return Self::over_socket(rest);
        }
        let uri: Uri = text.parse().map_err(|error| format!("{}: {error}", Self::EXPECTED))?;
        let authority = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
        if !matches!(uri.scheme_str(), Some("http" | "https")) || authority.is_empty() || text.contains('#') {
            return Err(String::new());
        }
        if authority.contains('@') {
            return Err("a handler's URL carries no user name or password".to_owned());
        }
        Ok(Self { uri, socket: None })
    }
}

/// Without a query, which may hold a secret.
impl fmt::Display for HandlerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(socket) = &self.socket {
            return write!(f, "unix:{}:{}", socket.display(), self.uri.path());
        }
        let authority = self.uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
        write!(f, "{}://{authority}{}", self.uri.scheme_str().unwrap_or_default(), self.uri.path())
    }
}

impl FromToml for HandlerUrl {
    const EXPECTED: &'static str = "expected a URL such as \"http://127.0.0.1:8080/interactions\"";

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        value.as_str().ok_or_else(String::new)?.parse()
    }
}

/// Where a handler's replicas listen; at least one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HandlerUrls {
    /// One of them.
    pub first: HandlerUrl,
    /// The others.
    pub others: Vec<HandlerUrl>,
}

impl HandlerUrls {
    pub(super) fn one(first: HandlerUrl) -> Self {
        Self { first, others: Vec::new() }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &HandlerUrl> {
        std::iter::once(&self.first).chain(&self.others)
    }
}

impl FromToml for HandlerUrls {
    const EXPECTED: &'static str = "expected a list of URLs such as [\"http://127.0.0.1:8080/interactions\"]";

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        let list = value.as_array().ok_or_else(String::new)?;
        let mut urls = list.iter().map(|url| HandlerUrl::from_toml(url.get_ref()));
        let first = urls.next().ok_or_else(String::new)??;
        Ok(Self { first, others: urls.collect::<Result<_, _>>()? })
    }
}

/// What an application's `handler` says: a URL, or the name of a `[handlers.NAME]`.
pub(super) enum HandlerRef {
    Url(HandlerUrl),
    Name(String),
}

impl FromToml for HandlerRef {
    const EXPECTED: &'static str = HandlerUrl::EXPECTED;

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        let text = value.as_str().ok_or_else(String::new)?;
        if is_name(text) { Ok(Self::Name(text.to_owned())) } else { text.parse().map(Self::Url) }
    }
}

/// Whether something can be named so: names stand in headers, metrics and logs.
pub(super) fn is_name(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=64).contains(&text.len()) && text.bytes().all(is_plain)
}

/// A file or folder; absolute, since a service has no folder of its own to start from.
pub(super) struct AbsolutePath(pub(super) PathBuf);

impl FromToml for AbsolutePath {
    const EXPECTED: &'static str = "expected an absolute path";

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        let path = PathBuf::from(value.as_str().ok_or_else(String::new)?);
        if path.is_absolute() { Ok(Self(path)) } else { Err(String::new()) }
    }
}

/// From a request's first byte until Discord gets an answer.
pub(super) struct AnswerWithin(pub(super) Duration);

impl FromToml for AnswerWithin {
    const EXPECTED: &'static str =
        "expected from \"100ms\" to \"2900ms\": Discord gives up after 3 s, the way there and back included";

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        let time = Duration::from_toml(value)?;
        let margin = Duration::from_millis(100);
        if (margin..=RESPONSE_DEADLINE - margin).contains(&time) {
            Ok(Self(time))
        } else {
            Err(String::new())
        }
    }
}

/// What happens at the deadline to an interaction that its handler has not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnSlow {
    /// Discord is told that the answer follows, and it is delivered when it comes.
    Defer,
    /// The user gets the failure answer, and the handler's comes to nothing.
    Fail,
}

impl FromToml for OnSlow {
    const EXPECTED: &'static str = "expected \"defer\" or \"fail\"";

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        match value.as_str() {
            Some("defer") => Ok(Self::Defer),
            Some("fail") => Ok(Self::Fail),
            _ => Err(String::new()),
        }
    }
}

/// From an interaction's arrival until its late answer is no longer waited for.
pub(super) struct GiveUpAfter(pub(super) Duration);

impl GiveUpAfter {
    /// 14 min 30 s.
    pub(super) const DEFAULT: Duration = Duration::from_secs(14 * 60 + 30);
}

impl FromToml for GiveUpAfter {
    const EXPECTED: &'static str = "expected from \"1s\" to \"14m50s\": Discord takes late answers for 15 minutes, the fallback text too";

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        let time = Duration::from_toml(value)?;
        let latest = TOKEN_LIFETIME - Duration::from_secs(10);
        if (Duration::from_secs(1)..=latest).contains(&time) { Ok(Self(time)) } else { Err(String::new()) }
    }
}

impl FromToml for PublicKey {
    const EXPECTED: &'static str = "expected 64 hex digits in quotes, from the Developer Portal";

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        let text = value.as_str().ok_or_else(String::new)?;
        text.parse().map_err(|error: crate::discord::signature::PublicKeyError| error.to_string())
    }
}

impl FromToml for u16 {
    const EXPECTED: &'static str = "expected a number from 0 to 65535";

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        u64::from_toml(value)?.try_into().map_err(|_| String::new())
    }
}

/// A number of things; never 0, which would refuse everything.
pub(super) struct Count(pub(super) usize);

impl FromToml for Count {
    const EXPECTED: &'static str = "expected a whole number from 1 to 1000000";

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        match u64::from_toml(value)? {
            number @ 1..=1_000_000 => number.try_into().map(Self).map_err(|_| String::new()),
            _ => Err(String::new()),
        }
    }
}

/// A number of bytes.
pub(super) struct Size(pub(super) usize);

impl FromToml for Size {
    const EXPECTED: &'static str = "expected a size in quotes, such as \"16KiB\" or \"1MiB\"";

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        let size: bytesize::ByteSize =
            value.as_str().and_then(|text| text.parse().ok()).ok_or_else(String::new)?;
        size.as_u64().try_into().map(Self).map_err(|_| String::new())
    }
}

impl FromToml for Duration {
    const EXPECTED: &'static str = "expected a time in quotes, such as \"300ms\", \"2s\" or \"5min\"";

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        let time =
            value.as_str().and_then(|text| humantime::parse_duration(text).ok()).ok_or_else(String::new)?;
        let sane = Self::from_millis(1)..=Self::from_secs(24 * 60 * 60);
        if sane.contains(&time) { Ok(time) } else { Err("expected between \"1ms\" and \"1day\"".to_owned()) }
    }
}
