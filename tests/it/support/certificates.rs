//! Certificates of a made-up authority.

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use shardless::clock::Clock;
use shardless::pem;
use tempfile::TempDir;

/// A certificate with its key, and who signed it.
pub(crate) struct Signed {
    folder: TempDir,
}

impl Signed {
    /// Root, an intermediate, and a server certificate for localhost that ends in so many days.
    pub(crate) fn for_days(days: i64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = || rcgen::KeyPair::generate().unwrap();
        let ca = |name: &str| {
            let mut params = rcgen::CertificateParams::default();
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            params
        };
        let (root_key, middle_key, leaf_key) = (key(), key(), key());
        let root = ca("root").self_signed(&root_key).unwrap();
        let root_issuer = rcgen::Issuer::new(ca("root"), &root_key);
        let middle = ca("middle").signed_by(&middle_key, &root_issuer).unwrap();
        let middle_issuer = rcgen::Issuer::new(ca("middle"), &middle_key);
        let mut leaf = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        let now = shardless::clock::SystemClock.unix_time().as_secs();
        let now = time::OffsetDateTime::from_unix_timestamp(i64::try_from(now).unwrap()).unwrap();
        leaf.not_before = now - time::Duration::days(100);
        leaf.not_after = now + time::Duration::days(days) + time::Duration::hours(1);
        let leaf = leaf.signed_by(&leaf_key, &middle_issuer).unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("root.pem", &root.pem());
        write("chain.pem", &format!("{}{}", leaf.pem(), middle.pem()));
        write("out-of-order.pem", &format!("{}{}{}", leaf.pem(), root.pem(), middle.pem()));
        write("upside-down.pem", &format!("{}{}", middle.pem(), leaf.pem()));
        write("key.pem", &leaf_key.serialize_pem());
        write("other.pem", &root_key.serialize_pem());
        write("empty.pem", "nothing\n");
        let signed = Self { folder };
        for name in ["key.pem", "other.pem", "empty.pem"] {
            signed.set_mode(name, 0o600);
        }
        signed
    }

    pub(crate) fn set_mode(&self, name: &str, mode: u32) {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(self.path(name), std::fs::Permissions::from_mode(mode)).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn settings(&self, certificate: &str, key: &str) -> String {
        let (certificate, key) = (self.path(certificate), self.path(key));
        format!("[tls]\ncertificate = \"{}\"\nkey = \"{}\"\n", certificate.display(), key.display())
    }

    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        pem::read(&self.path("key.pem")).unwrap().key.unwrap()
    }

    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        pem::read(&self.path("chain.pem")).unwrap().certificates
    }
}
