//! A development key pair, in place of the one that only Discord has.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use data_encoding::HEXLOWER;
use ed25519_dalek::{Signer as _, SigningKey};
use http::{HeaderMap, HeaderValue};
use thiserror::Error;

use crate::discord::signature::{self, PublicKey, PublicKeyError, SIGNATURE_HEADER, TIMESTAMP_HEADER};

/// Signs requests as Discord does.
#[derive(Clone)]
pub struct Signer {
    secret: SigningKey,
    public: PublicKey,
}

/// Why there is no signer.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum SignerError {
    #[error("the system gives no random numbers: {0}")]
    Random(#[from] getrandom::Error),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it does not hold a development key: 64 hex digits, as `shardless keygen` writes them")]
    NotAKey,
    #[error("{0}")]
    Public(#[from] PublicKeyError),
}

impl Signer {
    /// A new key pair.
    ///
    /// # Errors
    ///
    /// If the system gives no random numbers.
    pub fn generate() -> Result<Self, SignerError> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed)?;
        Self::from_seed(&seed)
    }

    /// The key pair that belongs to a secret seed.
    ///
    /// # Errors
    ///
    /// None that are known: every seed makes a sound key.
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, SignerError> {
        let secret = SigningKey::from_bytes(seed);
        let public = PublicKey::from_bytes(secret.verifying_key().as_bytes())?;
        Ok(Self { secret, public })
    }

    /// Reads what [`Signer::save`] wrote.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or holds something else.
    pub fn load(path: &Path) -> Result<Self, SignerError> {
        let text = std::fs::read_to_string(path)?;
        let seed = signature::from_hex(text.trim().as_bytes()).ok_or(SignerError::NotAKey)?;
        Self::from_seed(&seed)
    }

    /// Writes the secret half to a new file that only its owner can read.
    ///
    /// # Errors
    ///
    /// If the file exists already, or cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), SignerError> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        writeln!(file, "{}", HEXLOWER.encode(self.secret.as_bytes()))?;
        Ok(())
    }

    /// The half that goes into the config.
    pub fn public_key(&self) -> &PublicKey {
        &self.public
    }

    /// The two signature headers of a body.
    pub fn sign(&self, unix_seconds: u64, body: &[u8]) -> HeaderMap {
        let timestamp = unix_seconds.to_string();
        let signature = self.secret.sign(&[timestamp.as_bytes(), body].concat());
        let signature = HEXLOWER.encode(&signature.to_bytes());
        let mut headers = HeaderMap::new();
        headers.insert(TIMESTAMP_HEADER, HeaderValue::from(unix_seconds));
        if let Ok(signature) = HeaderValue::try_from(signature) {
            headers.insert(SIGNATURE_HEADER, signature);
        }
        headers
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_file_is_private_reads_back_and_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dev.key");
        let signer = Signer::generate().unwrap();
        signer.save(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Signer::load(&path).unwrap().public_key(), signer.public_key());
        assert!(Signer::generate().unwrap().save(&path).is_err());
        assert_eq!(Signer::load(&path).unwrap().public_key(), signer.public_key());
    }
}
