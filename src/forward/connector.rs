//! Connecting to a handler: over TCP, TLS, or a unix socket.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;
use tokio::net::{TcpStream, UnixStream};
use tower_service::Service;

use crate::config::{Handler, HandlerUrl};
use crate::pem;

/// For the TLS handshake that follows a TCP connection.
const TLS_TIMEOUT: Duration = Duration::from_millis(700);

/// Why a handler that is reached over TLS cannot be trusted.
#[derive(Debug, Error)]
#[error("handler {handler}: {reason}")]
pub struct TrustError {
    handler: String,
    reason: String,
}

/// What a handler's certificate is trusted by.
pub(super) struct Trust {
    client: ClientConfig,
    /// Tells other certificates from the same ones.
    fingerprint: u64,
}

impl PartialEq for Trust {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}

impl Trust {
    /// Reads the handler's `ca`, or what the system trusts. `None` where no replica is reached over TLS.
    pub(super) fn of(handler: &Handler) -> Result<Option<Self>, TrustError> {
        let first = &handler.urls.first;
        if !first.is_https() && !handler.urls.others.iter().any(HandlerUrl::is_https) {
            return Ok(None);
        }
        let untrusted = |reason| TrustError { handler: first.to_string(), reason };
        let certificates = match &handler.ca {
            Some(ca) => pem::read(ca).map_err(|error| unusable(ca, &error)).map(|pem| pem.certificates),
            None => Ok(rustls_native_certs::load_native_certs().certs),
        };
        let certificates = certificates.map_err(untrusted)?;
        let mut fingerprint = DefaultHasher::new();
        certificates.hash(&mut fingerprint);
        let client = client_config(certificates, handler.ca.as_deref()).map_err(untrusted)?;
        Ok(Some(Self { client, fingerprint: fingerprint.finish() }))
    }
}

fn unusable(ca: &Path, reason: &dyn std::fmt::Display) -> String {
    format!("`ca` {} cannot be used: {reason}", ca.display())
}

fn client_config(
    certificates: Vec<CertificateDer<'static>>,
    ca: Option<&Path>,
) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(ca) => {
            for certificate in certificates {
                roots.add(certificate).map_err(|error| unusable(ca, &error))?;
            }
            if roots.is_empty() {
                return Err(unusable(ca, &"there is no certificate in it"));
            }
        }
        None => {
            roots.add_parsable_certificates(certificates);
            if roots.is_empty() {
                return Err(
                    "the system trusts no certificates: install ca-certificates, or set `ca`".to_owned()
                );
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| error.to_string())?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// Makes connections to one replica.
#[derive(Clone)]
pub(super) enum Connector {
    Tcp(Timed<HttpConnector>),
    Tls(Timed<HttpsConnector<Timed<HttpConnector>>>),
    Unix(PathBuf),
}

impl Connector {
    /// One for `url`; `trust` is there for each that is https.
    pub(super) fn new(url: &HandlerUrl, trust: Option<&Trust>, connect_timeout: Duration) -> Self {
        if let Some(socket) = url.socket() {
            return Self::Unix(socket.to_owned());
        }
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(connect_timeout));
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        // By itself it would leave looking the name up out of account.
        let tcp = Timed { inner: tcp, timeout: connect_timeout };
        let Some(trust) = trust.filter(|_| url.is_https()) else { return Self::Tcp(tcp) };
        let tls = HttpsConnectorBuilder::new().with_tls_config(trust.client.clone());
        let tls = tls.https_only().enable_http1().wrap_connector(tcp);
        Self::Tls(Timed { inner: tls, timeout: connect_timeout + TLS_TIMEOUT })
    }
}

/// A connector that must be done in time, whatever it does.
#[derive(Clone)]
pub(super) struct Timed<C> {
    inner: C,
    timeout: Duration,
}

impl<C> Service<Uri> for Timed<C>
where
    C: Service<Uri, Future: Send + 'static, Error: Into<BoxError>>,
{
    type Response = C::Response;
    type Error = BoxError;
    type Future = Connecting<C::Response>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = tokio::time::timeout(self.timeout, self.inner.call(uri));
        Box::pin(async { connecting.await?.map_err(Into::into) })
    }
}

type Connecting<S> = Pin<Box<dyn Future<Output = Result<S, BoxError>> + Send>>;
pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = BoxError;
    type Future = Connecting<Stream>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match self {
            Self::Tcp(tcp) => tcp.poll_ready(context),
            Self::Tls(tls) => tls.poll_ready(context),
            Self::Unix(_) => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        match self {
            Self::Tcp(tcp) => {
                let connecting = tcp.call(uri);
                Box::pin(async { Ok(Stream::Tcp(connecting.await?)) })
            }
            Self::Tls(tls) => {
                let connecting = tls.call(uri);
                Box::pin(async { Ok(Stream::Tls(Box::new(connecting.await?))) })
            }
            Self::Unix(socket) => {
                let socket = socket.clone();
                Box::pin(async { Ok(Stream::Unix(TokioIo::new(UnixStream::connect(socket).await?))) })
            }
        }
    }
}

/// A connection to a replica.
pub(super) enum Stream {
    Tcp(TokioIo<TcpStream>),
    Tls(Box<MaybeHttpsStream<TokioIo<TcpStream>>>),
    Unix(TokioIo<UnixStream>),
}

/// The same call on whichever stream it is.
macro_rules! on_stream {
    ($self:ident, $call:ident($($argument:expr),*)) => {
        match $self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).$call($($argument),*),
            Stream::Tls(stream) => Pin::new(stream).$call($($argument),*),
            Stream::Unix(stream) => Pin::new(stream).$call($($argument),*),
        }
    };
}

impl Read for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        on_stream!(self, poll_read(context, buffer))
    }
}

impl Write for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        on_stream!(self, poll_write(context, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(self, poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(self, poll_shutdown(context))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
            Self::Unix(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on_stream!(self, poll_write_vectored(context, slices))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone)]
    struct Name;

    /// A name that nobody answers for.
    impl Service<Uri> for Name {
        type Response = ();
        type Error = io::Error;
        type Future = std::future::Pending<io::Result<()>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Uri) -> Self::Future {
            std::future::pending()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn looking_a_name_up_counts_inside_the_time_to_connect() {
        let start = tokio::time::Instant::now();
        let mut connector = Timed { inner: Name, timeout: Duration::from_millis(300) };
        let error = connector.call(Uri::from_static("http://bot.internal/")).await.unwrap_err();
        assert_eq!(error.to_string(), "deadline has elapsed");
        assert!(start.elapsed() < Duration::from_millis(400));
    }
}
