//! Reading PEM files.

use std::io;
use std::path::Path;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls_pemfile::Item;

/// What a PEM file holds, in its order.
#[derive(Debug, Default)]
pub struct Pem {
    /// Its certificates.
    pub certificates: Vec<CertificateDer<'static>>,
    /// Its first private key.
    pub key: Option<PrivateKeyDer<'static>>,
}

/// Reads a file; other things that may stand in it are passed over.
///
/// # Errors
///
/// If the file cannot be read, or is no PEM.
pub fn read(path: &Path) -> io::Result<Pem> {
    let text = std::fs::read(path)?;
    let mut pem = Pem::default();
    for item in rustls_pemfile::read_all(&mut text.as_slice()) {
        let key: PrivateKeyDer<'static> = match item? {
            Item::X509Certificate(certificate) => {
                pem.certificates.push(certificate);
                continue;
            }
            Item::Pkcs1Key(key) => key.into(),
            Item::Pkcs8Key(key) => key.into(),
            Item::Sec1Key(key) => key.into(),
            _ => continue,
        };
        pem.key.get_or_insert(key);
    }
    Ok(pem)
}
