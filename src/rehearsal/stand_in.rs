//! A stand-in for Discord: sends signed requests and keeps what comes back.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use reqwest::redirect::Policy;
use rustls::pki_types::CertificateDer;
use thiserror::Error;

use super::{Payload, Signer};
use crate::clock::Clock;
use crate::discord::signature::SIGNATURE_HEADER;

/// Longer than Discord waits, so that a slow answer can be shown with its time.
const PATIENCE: Duration = Duration::from_secs(15);
/// What real interactions come with.
const USER_AGENT: &str = "Discord-Interactions/1.0 (+https://discord.com)";

/// Plays Discord.
#[derive(Clone)]
pub struct StandIn {
    client: reqwest::Client,
    signer: Signer,
    clock: Arc<dyn Clock>,
}

/// A request that is ready to be sent, as often as wanted.
#[derive(Clone, Debug)]
pub struct Signed {
    headers: http::HeaderMap,
    body: Bytes,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// The status.
    pub status: StatusCode,
    /// `Content-Type`, or nothing.
    pub content_type: String,
    /// The body.
    pub body: Bytes,
    /// From sending to the answer's last byte.
    pub elapsed: Duration,
}

/// Why nothing came back.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct SendError(String);

impl StandIn {
    /// A stand-in that signs with that key.
    ///
    /// # Errors
    ///
    /// If the HTTP client cannot be set up.
    pub fn new(signer: Signer, clock: Arc<dyn Clock>) -> Result<Self, SendError> {
        Self::trusting(Vec::new(), signer, clock)
    }

    /// The same, for endpoints whose certificate is one of these or signed by one, besides those that the system trusts.
    ///
    /// # Errors
    ///
    /// If the HTTP client cannot be set up, or a certificate cannot be used.
    pub fn trusting(
        certificates: Vec<CertificateDer<'_>>,
        signer: Signer,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, SendError> {
        // A provider that is installed already does as well.
        _ = rustls::crypto::ring::default_provider().install_default();
        let certificates = certificates.iter().map(|der| reqwest::Certificate::from_der(der));
        let certificates = certificates.collect::<Result<Vec<_>, _>>()?;
        let client = reqwest::Client::builder()
            .tls_certs_merge(certificates)
            .no_proxy()
            .redirect(Policy::none())
            .referer(false)
            .timeout(PATIENCE)
            .connect_timeout(Duration::from_secs(3))
            .build()
            .map_err(SendError::from)?;
        Ok(Self { client, signer, clock })
    }

    /// Signs a payload, as of now.
    pub fn sign(&self, payload: &Payload) -> Signed {
        self.sign_at(self.clock.unix_time().as_secs(), &payload.body)
    }

    /// Signs a body, as of then.
    pub fn sign_at(&self, unix_seconds: u64, body: &[u8]) -> Signed {
        let mut headers = self.signer.sign(unix_seconds, body);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        Signed { headers, body: Bytes::copy_from_slice(body) }
    }

    /// Sends a signed request.
    ///
    /// # Errors
    ///
    /// If no answer comes back, in words without the URL.
    pub async fn send(&self, url: &str, signed: &Signed) -> Result<Exchange, SendError> {
        let start = self.clock.now();
        let request = self.client.post(url).headers(signed.headers.clone()).body(signed.body.clone());
        let response = request.send().await.map_err(SendError::from)?;
        let status = response.status();
        let content_type = response.headers().get(header::CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let body = response.bytes().await.map_err(SendError::from)?;
        Ok(Exchange { status, content_type, body, elapsed: self.clock.now() - start })
    }
}

impl Signed {
    /// The same request with a signature that does not hold, as Discord itself sends from time to time.
    pub fn forge(mut self) -> Self {
        if let Some(signature) = self.headers.get_mut(SIGNATURE_HEADER) {
            let forged = signature.as_bytes().iter().map(|digit| if *digit == b'0' { b'1' } else { b'0' });
            if let Ok(forged) = HeaderValue::from_bytes(&forged.collect::<Vec<_>>()) {
                *signature = forged;
            }
        }
        self
    }

    /// The headers, to be changed at will.
    pub fn headers_mut(&mut self) -> &mut http::HeaderMap {
        &mut self.headers
    }

    /// The headers.
    pub fn headers(&self) -> &http::HeaderMap {
        &self.headers
    }

    /// The signed body.
    pub fn body(&self) -> &Bytes {
        &self.body
    }
}

impl From<reqwest::Error> for SendError {
    fn from(error: reqwest::Error) -> Self {
        if error.is_timeout() {
            return Self(format!("no answer within {} s", PATIENCE.as_secs()));
        }
        let error = error.without_url();
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(inner) = source {
            text = inner.to_string();
            source = inner.source();
        }
        Self(text)
    }
}
