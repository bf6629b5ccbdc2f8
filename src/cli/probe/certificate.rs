//! TLS, and the certificate: would Discord trust it, for how long, and if not, what is wrong with it?

mod explanation;

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{self, CryptoProvider};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, Error, InvalidMessage,
    RootCertStore, SignatureScheme,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::report::{Finding, plain};
use super::target::Target;

/// For the handshake; Discord gives no more to the whole exchange.
const HANDSHAKE: Duration = Duration::from_secs(3);

/// Whom to trust.
#[derive(Clone, Debug)]
pub(super) struct Roots {
    provider: Arc<CryptoProvider>,
    /// The authorities that this machine trusts, as Discord does.
    public: Option<Arc<WebPkiServerVerifier>>,
    /// Those of `--ca`.
    own: Option<Arc<WebPkiServerVerifier>>,
}

/// Who vouches for a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    /// An authority that everybody trusts.
    Public,
    /// The one of `--ca`.
    Own,
}

/// Verifies a certificate as any client does, and keeps it, trusted or not.
#[derive(Debug)]
struct Recorder {
    roots: Roots,
    seen: Mutex<Option<Seen>>,
}

/// A certificate with those that came along, and what is to be thought of it.
#[derive(Debug)]
struct Seen {
    chain: Vec<CertificateDer<'static>>,
    trust: Result<Trust, Error>,
}

impl Roots {
    /// The system's, and `own` beside them.
    pub(super) fn load(own: Vec<CertificateDer<'static>>) -> anyhow::Result<Self> {
        let provider = Arc::new(crypto::ring::default_provider());
        let mut public = RootCertStore::empty();
        public.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let mut extra = RootCertStore::empty();
        for certificate in own {
            extra.add(certificate)?;
        }
        let verifier = |roots: RootCertStore| {
            let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
            // It fails where there are no roots.
            builder.build().ok()
        };
        Ok(Self { public: verifier(public), own: verifier(extra), provider })
    }
}

/// The certificate on that connection, and whether TLS is spoken there at all.
pub(super) async fn judge(target: &Target, roots: &Roots, stream: TcpStream) -> (Finding, bool) {
    if roots.public.is_none() && roots.own.is_none() {
        let advice = "This machine has no list of authorities to trust: apt install ca-certificates";
        return (Finding::bad("cannot be judged here", advice), false);
    }
    let Ok(name) = ServerName::try_from(target.host().to_owned()) else {
        let advice = "Names of letters, digits, dots and hyphens can have one.";
        return (Finding::bad(format!("there is none for the name {}", target.host()), advice), false);
    };
    let recorder = Arc::new(Recorder { roots: roots.clone(), seen: Mutex::default() });
    let handshake = async {
        let config = ClientConfig::builder_with_provider(Arc::clone(&roots.provider))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::<Recorder>::clone(&recorder))
            .with_no_client_auth();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    };
    let outcome = tokio::time::timeout(HANDSHAKE, handshake).await;
    let seen = recorder.seen.lock().unwrap_or_else(PoisonError::into_inner).take();
    match (outcome, seen) {
        (Ok(Ok(_)), Some(Seen { chain, trust: Ok(trust) })) => (explanation::trusted(&chain, trust), true),
        (_, Some(Seen { chain, trust: Err(error) })) => {
            (explanation::untrusted(&chain, &error, target), true)
        }
        (Ok(Err(error)), _) => (handshake_failed(&error, target), false),
        (Ok(Ok(_)) | Err(_), _) => {
            let text = format!("no end of the TLS handshake within {} s", HANDSHAKE.as_secs());
            let advice = "Something accepts the connection, but does not go on: is the server overloaded, or does \
                          another program than the proxy listen there?";
            (Finding::bad(text, advice), false)
        }
    }
}

fn handshake_failed(error: &io::Error, target: &Target) -> Finding {
    let (host, port) = (target.host(), target.port());
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match tls {
        Some(Error::InvalidMessage(InvalidMessage::InvalidContentType)) => Finding::bad(
            format!("port {port} speaks plain HTTP, not TLS"),
            format!(
                "Let the proxy speak TLS there. certbot sets it up, for Nginx or for Apache:\n{}",
                target.certbot()
            ),
        ),
        Some(Error::AlertReceived(
            alert @ (AlertDescription::UnrecognisedName
            | AlertDescription::HandshakeFailure
            | AlertDescription::InternalError),
        )) => Finding::bad(
            format!("the server breaks the TLS handshake off ({alert:?})"),
            format!(
                "Most often it has no certificate for {host}: is that name in its site, and has certbot run for it?"
            ),
        ),
        _ if error.kind() == io::ErrorKind::UnexpectedEof => Finding::bad(
            "the server hangs up in the TLS handshake",
            format!(
                "Does it speak TLS on port {port}? The daemon's own port speaks plain HTTP, unless [tls] is set."
            ),
        ),
        _ => Finding::bad(
            format!("the TLS handshake fails: {}", plain(&error.to_string(), 200)),
            "Discord needs TLS 1.2 or 1.3, as Nginx and Apache offer by themselves.",
        ),
    }
}

impl Recorder {
    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<Trust, Error> {
        let verify = |roots: &Option<Arc<WebPkiServerVerifier>>, trust| match roots {
            Some(roots) => roots.verify_server_cert(leaf, intermediates, name, ocsp, now).map(|_| trust),
            None => Err(CertificateError::UnknownIssuer.into()),
        };
        verify(&self.roots.public, Trust::Public).or_else(|error| {
            // If neither knows the issuer, or both do, the first one's word is as good as the other's.
            verify(&self.roots.own, Trust::Own).map_err(|own| if is_unknown(&own) { error } else { own })
        })
    }
}

fn is_unknown(error: &Error) -> bool {
    matches!(error, Error::InvalidCertificate(CertificateError::UnknownIssuer))
}

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let trust = self.verify(end_entity, intermediates, server_name, ocsp_response, now);
        let all = std::iter::once(end_entity).chain(intermediates);
        let chain = all.map(|certificate| certificate.clone().into_owned()).collect();
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Seen { chain, trust: trust.clone() });
        trust.map(|_| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.roots.provider.signature_verification_algorithms;
        crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.roots.provider.signature_verification_algorithms;
        crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.roots.provider.signature_verification_algorithms.supported_schemes()
    }
}
