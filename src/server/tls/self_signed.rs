//! A certificate of our own making, for the way between the proxy and the daemon.
//!
//! Proxies pin it, so it is made once and never replaced by the daemon.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType};
use time::OffsetDateTime;

use super::TlsError;
use crate::config::{Address, StateDir};

const LIFETIME: time::Duration = time::Duration::days(3650);

/// The two files of the pair, side by side.
pub(super) struct Pair {
    folder: PathBuf,
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

impl Pair {
    pub(super) fn in_folder(state_dir: &StateDir) -> Result<Self, TlsError> {
        let folder = state_dir.path().ok_or(TlsError::NoStateDir)?;
        let (certificate, key) = (folder.join("self-signed.pem"), folder.join("self-signed.key"));
        Ok(Self { folder, certificate, key })
    }

    /// Whether it was made already; half a pair is an error, since a new one would break whoever pins the old.
    pub(super) fn exists(&self) -> Result<bool, TlsError> {
        let half = |present: &Path, missing: &Path| TlsError::Half {
            present: present.display().to_string(),
            missing: missing.display().to_string(),
        };
        let is_there = |path: &Path| {
            let unreadable = |source| TlsError::Unreadable { path: path.display().to_string(), source };
            path.try_exists().map_err(unreadable)
        };
        match (is_there(&self.certificate)?, is_there(&self.key)?) {
            (true, true) => Ok(true),
            (false, false) => Ok(false),
            (true, false) => Err(half(&self.certificate, &self.key)),
            (false, true) => Err(half(&self.key, &self.certificate)),
        }
    }

    pub(super) fn make(&self, address: &Address, now: Duration) -> Result<(), TlsError> {
        self.try_make(address, now).map_err(|error| TlsError::NotMade {
            folder: self.folder.display().to_string(),
            reason: error.to_string(),
        })
    }

    fn try_make(&self, address: &Address, now: Duration) -> Result<(), Box<dyn std::error::Error>> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let certificate = params(address, now)?.self_signed(&key)?;
        fs::DirBuilder::new().recursive(true).mode(0o750).create(&self.folder)?;
        let key = Unplaced::write(&self.key, 0o600, &key.serialize_pem())?;
        let certificate = Unplaced::write(&self.certificate, 0o644, &certificate.pem())?;
        // Both are whole on disk before either has its name, so a crash hardly finds a time to leave half a pair. Of two
        // daemons that start at once, one gets its key in place, and the other does not come to the certificate.
        key.place()?;
        certificate.place()?;
        // The names too are to outlive a loss of power: proxies pin what they have seen once.
        fs::File::open(&self.folder)?.sync_all()?;
        Ok(())
    }
}

fn params(address: &Address, now: Duration) -> Result<CertificateParams, Box<dyn std::error::Error>> {
    let mut names = vec![
        SanType::DnsName("localhost".try_into()?),
        SanType::IpAddress(Ipv4Addr::LOCALHOST.into()),
        SanType::IpAddress(Ipv6Addr::LOCALHOST.into()),
    ];
    if let Address::Ip(ip) = address
        && !ip.is_unspecified()
        && ![IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()].contains(ip)
    {
        names.push(SanType::IpAddress(*ip));
    }
    let now = OffsetDateTime::from_unix_timestamp(i64::try_from(now.as_secs())?)?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "shardless");
    params.subject_alt_names = names;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    // A proxy whose clock is a little behind takes it too.
    params.not_before = now - time::Duration::days(1);
    params.not_after = now + LIFETIME;
    Ok(params)
}

/// A file that is whole on disk, under a name of this process until it is placed; gone if it never is.
struct Unplaced<'a> {
    path: PathBuf,
    place: &'a Path,
}

impl<'a> Unplaced<'a> {
    fn write(place: &'a Path, mode: u32, text: &str) -> io::Result<Self> {
        let mut path = place.as_os_str().to_owned();
        path.push(format!(".{}", std::process::id()));
        let unplaced = Self { path: path.into(), place };
        _ = fs::remove_file(&unplaced.path);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&unplaced.path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        Ok(unplaced)
    }

    /// Gives it its name, if no file has that already.
    fn place(&self) -> io::Result<()> {
        fs::hard_link(&self.path, self.place)
    }
}

impl Drop for Unplaced<'_> {
    fn drop(&mut self) {
        _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("self-signed.key");
        let write = |text| Unplaced::write(&path, 0o600, text).unwrap().place();
        write("first").unwrap();
        assert_eq!(write("second").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "first");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
