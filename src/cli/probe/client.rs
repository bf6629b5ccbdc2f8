//! Requests as Discord sends them, but for the signature.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use reqwest::redirect::Policy;

use super::target::Target;
use crate::clock::{Clock, SystemClock};
use crate::rehearsal::{Author, Signer};

/// Longer than Discord waits, so that a slow answer can be shown with its time.
pub(super) const PATIENCE: Duration = Duration::from_secs(6);
/// What real interactions come with.
const USER_AGENT: &str = "Discord-Interactions/1.0 (+https://discord.com)";
/// Of an answer's body, so much is read.
const READ: usize = 16 * 1024;
/// As large as a command with many options, and larger than the limit of some firewalls.
pub(super) const LARGE: usize = 300 * 1000;

/// Sends to the endpoint, at the one address that was found to be open.
pub(super) struct Client {
    client: reqwest::Client,
    target: Target,
    signer: Signer,
}

/// What is asked. The answer to each is to be 401.
#[derive(Clone, Copy, Debug)]
pub(super) enum Request {
    /// A PING, with a signature of somebody who is not Discord.
    Forged,
    /// A PING without signature headers.
    Unsigned,
    /// Forged, with a body of 300 kB.
    Large,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// Its beginning.
    pub(super) body: String,
    /// From sending to its last byte; the first one includes connecting.
    pub(super) elapsed: Duration,
    /// When it was there.
    pub(super) unix_time: Duration,
}

/// Why nothing came back.
pub(super) enum NoAnswer {
    TooSlow,
    Broken(String),
}

impl Client {
    pub(super) fn new(target: &Target, address: SocketAddr) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder()
            // The certificate was judged already; what stands behind a bad one is worth knowing at the same time, and
            // nothing that is sent is a secret.
            .tls_danger_accept_invalid_certs(true)
            .resolve(target.host(), address)
            .no_proxy()
            .redirect(Policy::none())
            .referer(false)
            .timeout(PATIENCE)
            .build()
            .context("cannot set the HTTP client up")?;
        // A key that nobody has seen before: what it signs is a forgery to everyone.
        Ok(Self { client, target: target.clone(), signer: Signer::generate()? })
    }

    pub(super) async fn post(&self, request: Request) -> Result<Answer, NoAnswer> {
        let unix_time = SystemClock.unix_time();
        let mut body = Author::new(unix_time, 0).ping().body;
        if matches!(request, Request::Large) {
            // JSON may have space at its end.
            body.resize(LARGE, b' ');
        }
        let mut headers = match request {
            Request::Unsigned => HeaderMap::new(),
            Request::Forged | Request::Large => self.signer.sign(unix_time.as_secs(), &body),
        };
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        let start = SystemClock.now();
        let request = self.client.post(self.target.url().clone()).headers(headers).body(body);
        let mut response = request.send().await?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            body.extend_from_slice(&chunk);
            if body.len() >= READ {
                break;
            }
        }
        body.truncate(READ);
        Ok(Answer {
            status: response.status(),
            headers: std::mem::take(response.headers_mut()),
            body: String::from_utf8_lossy(&body).into_owned(),
            elapsed: SystemClock.now() - start,
            unix_time: SystemClock.unix_time(),
        })
    }
}

impl From<reqwest::Error> for NoAnswer {
    fn from(error: reqwest::Error) -> Self {
        if error.is_timeout() {
            return Self::TooSlow;
        }
        let mut innermost: &dyn std::error::Error = &error;
        while let Some(inner) = innermost.source() {
            innermost = inner;
        }
        Self::Broken(innermost.to_string())
    }
}
