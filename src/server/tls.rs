//! TLS on the port: the owner's own certificate, or one that is made at the first start.

mod self_signed;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;
use x509_parser::parse_x509_certificate;

use crate::config::{Address, StateDir, Tls};
use crate::pem;

/// A certificate that ends sooner is to be renewed; one of short life, in the last third of it.
const ENDS_SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);

const RENEW: &str = "renew it (a self-signed one by removing both files, a restart, and the new one for the proxies that pin it)";

/// A certificate with its key, ready to be served.
pub struct ServerTls {
    /// For the listener.
    pub(super) config: Arc<ServerConfig>,
    /// Where the certificate stands, for the operator.
    pub certificate: PathBuf,
    /// When it ends: a time of day, since 1970.
    pub expires: Duration,
    /// From when on it is to be renewed.
    pub renew_from: Duration,
    /// What the operator should know of it.
    pub warnings: Vec<String>,
}

/// Why there is no TLS.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum TlsError {
    #[error("cannot read {path}: {source}")]
    Unreadable { path: String, source: io::Error },
    #[error("{0} holds no certificate in PEM (-----BEGIN CERTIFICATE-----)")]
    NoCertificate(String),
    #[error("{0} holds no private key in PEM (-----BEGIN PRIVATE KEY-----)")]
    NoKey(String),
    #[error("{path} holds a certificate that cannot be read: {reason}")]
    BadCertificate { path: String, reason: String },
    #[error(
        "{certificate} and {key} do not belong together ({reason}); the server's own certificate must come first in its file"
    )]
    Mismatch { certificate: String, key: String, reason: rustls::Error },
    #[error(
        "{key} holds a private key that cannot be used ({reason}); ECDSA P-256 or RSA 2048, not encrypted, will do"
    )]
    BadKey { key: String, reason: rustls::Error },
    #[error("{key} is a private key that everyone can read: chmod o= {key}")]
    KeyIsOpen { key: String },
    #[error("a self-signed certificate needs a folder to be kept in: set `state_dir`")]
    NoStateDir,
    #[error("cannot make a self-signed certificate in {folder}: {reason}")]
    NotMade { folder: String, reason: String },
    #[error("{present} is there, but {missing} is not: put it back, or remove both to have a new pair made")]
    Half { present: String, missing: String },
}

impl ServerTls {
    /// Loads what `[tls]` asks for. `None` for a self-signed certificate that is still to be made.
    ///
    /// # Errors
    ///
    /// [`TlsError`], which names the file.
    pub fn load(tls: &Tls, state_dir: &StateDir, now: Duration) -> Result<Option<Self>, TlsError> {
        match tls {
            Tls::Files { certificate, key } => Self::from_files(certificate, key, now).map(Some),
            Tls::SelfSigned => {
                let pair = self_signed::Pair::in_folder(state_dir)?;
                if !pair.exists()? {
                    return Ok(None);
                }
                Self::from_files(&pair.certificate, &pair.key, now).map(Some)
            }
        }
    }

    /// The same, and a self-signed certificate is made where there is none.
    ///
    /// # Errors
    ///
    /// [`TlsError`], which names the file.
    pub fn load_or_make(
        tls: &Tls,
        state_dir: &StateDir,
        address: &Address,
        now: Duration,
    ) -> Result<Self, TlsError> {
        if let Some(loaded) = Self::load(tls, state_dir, now)? {
            return Ok(loaded);
        }
        let pair = self_signed::Pair::in_folder(state_dir)?;
        pair.make(address, now)?;
        Self::from_files(&pair.certificate, &pair.key, now)
    }

    fn from_files(certificate: &Path, key: &Path, now: Duration) -> Result<Self, TlsError> {
        let (chain, private_key) = read_pair(certificate, key)?;
        let (expires, renew_from, warnings) = judge(certificate, &chain, now)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let (certificate_name, key_name) = (certificate.display().to_string(), key.display().to_string());
        let mismatch = |reason| match reason {
            rustls::Error::InconsistentKeys(_) => {
                TlsError::Mismatch { certificate: certificate_name.clone(), key: key_name.clone(), reason }
            }
            reason => TlsError::BadKey { key: key_name.clone(), reason },
        };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private_key))
            .map_err(mismatch)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // So that a proxy that comes back resumes, with nothing kept here for it.
        config.ticketer = rustls::crypto::ring::Ticketer::new().map_err(mismatch)?;
        Ok(Self {
            config: Arc::new(config),
            certificate: certificate.to_owned(),
            expires,
            renew_from,
            warnings,
        })
    }
}

fn read_pair(
    certificate: &Path,
    key: &Path,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
    let name = |path: &Path| path.display().to_string();
    let read =
        |path: &Path| pem::read(path).map_err(|source| TlsError::Unreadable { path: name(path), source });
    let chain = read(certificate)?.certificates;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate(name(certificate)));
    }
    let private_key = read(key)?.key.ok_or_else(|| TlsError::NoKey(name(key)))?;
    if is_open_to_everyone(key) {
        return Err(TlsError::KeyIsOpen { key: name(key) });
    }
    Ok((chain, private_key))
}

fn is_open_to_everyone(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}

/// When the first one ends, and what is legal, but will be trouble: an end that is near, and issuers out of order.
fn judge(
    path: &Path,
    chain: &[CertificateDer<'_>],
    now: Duration,
) -> Result<(Duration, Duration, Vec<String>), TlsError> {
    let name = path.display();
    let bad = |reason: String| TlsError::BadCertificate { path: name.to_string(), reason };
    let mut parsed = Vec::new();
    for der in chain {
        parsed.push(parse_x509_certificate(der).map_err(|error| bad(error.to_string()))?.1);
    }
    let (mut expires, mut renew_from, mut warnings) = (Duration::ZERO, Duration::ZERO, Vec::new());
    let time_now = now;
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if let Some(leaf) = parsed.first() {
        let time = |of: x509_parser::time::ASN1Time| {
            Duration::from_secs(of.timestamp().try_into().unwrap_or_default())
        };
        expires = time(leaf.validity().not_after);
        let lifetime = expires.saturating_sub(time(leaf.validity().not_before));
        renew_from = expires.saturating_sub(ENDS_SOON.min(lifetime / 3));
        let left = leaf.validity().not_after.timestamp().saturating_sub(now);
        if left <= 0 {
            warnings.push(format!("the certificate in {name} has expired: clients refuse it; {RENEW}"));
        } else if time_now >= renew_from {
            warnings.push(format!("the certificate in {name} ends in {} days: {RENEW}", left / 86_400));
        }
        if leaf.validity().not_before.timestamp() > now {
            warnings
                .push(format!("the certificate in {name} is not valid yet: is this machine's clock right?"));
        }
    }
    let broken =
        parsed.windows(2).any(|pair| matches!(pair, [lower, upper] if lower.issuer() != upper.subject()));
    if broken {
        warnings
            .push(format!("the certificates in {name} are out of order: each must be signed by the next"));
    }
    Ok((expires, renew_from, warnings))
}
