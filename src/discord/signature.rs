//! The proof that a request comes from Discord: Ed25519 over the timestamp header followed by the raw body.
//!
//! ```
//! use shardless::discord::signature::PublicKey;
//!
//! assert!("paste yours here".parse::<PublicKey>().is_err());
//! ```
//!
//! The types carry the proof. A request's headers become [`SignatureHeaders`], its body is read into an
//! [`UnverifiedBody`], and only [`UnverifiedBody::verify`] makes a [`VerifiedBody`], the one thing that the
//! forwarding code takes.

mod verifier;

use std::fmt;
use std::str::FromStr;

use bytes::{Buf, Bytes, BytesMut};
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use ed25519_dalek::{Signature, VerifyingKey};
use http::{HeaderMap, HeaderName, HeaderValue};
use thiserror::Error;
pub use verifier::{Method, Verifier, backend};

/// `X-Signature-Ed25519`: 128 hexadecimal characters.
pub const SIGNATURE_HEADER: HeaderName = HeaderName::from_static("x-signature-ed25519");
/// `X-Signature-Timestamp`: decimal Unix seconds.
pub const TIMESTAMP_HEADER: HeaderName = HeaderName::from_static("x-signature-timestamp");

/// The longest accepted timestamp; a `u64` never has more digits.
const TIMESTAMP_DIGITS: usize = 20;

/// An application's public key, known to be one that a signature can be trusted under.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

/// Why a text is not a usable public key.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PublicKeyError {
    /// The text is one that guides and examples use in place of a key.
    #[error(
        "this is a placeholder: paste yours from the Developer Portal (General Information → Public Key)"
    )]
    Placeholder,
    /// The text does not have 64 characters.
    #[error("expected 64 hex digits, as the Developer Portal shows them, found {0} characters")]
    Length(usize),
    /// The text has a character that is not a hexadecimal digit.
    #[error("expected 64 hex digits, found the character {0:?}")]
    NotHex(char),
    /// The bytes are no point on the curve, or not in their one canonical form.
    #[error("these digits are no Ed25519 public key: copy it once more from the Developer Portal")]
    NotAKey,
    /// A key under which signatures can be made without the secret.
    #[error("this key is weak: anybody can sign for it; copy yours from the Developer Portal")]
    Weak,
}

impl PublicKey {
    /// A key from its 32 bytes.
    ///
    /// # Errors
    ///
    /// [`PublicKeyError::NotAKey`] for bytes that encode no point or encode one in a second way, and
    /// [`PublicKeyError::Weak`] for a point outside the prime-order group, which no honest key is.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, PublicKeyError> {
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| PublicKeyError::NotAKey)?;
        let point = key.to_edwards();
        if point.compress().as_bytes() != bytes {
            return Err(PublicKeyError::NotAKey);
        }
        if key.is_weak() || !point.is_torsion_free() {
            return Err(PublicKeyError::Weak);
        }
        Ok(Self(key))
    }

    /// The key's 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }
}

impl FromStr for PublicKey {
    type Err = PublicKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let lower = text.to_ascii_lowercase();
        let placeholder = text.is_empty()
            || ["your", "paste", "public", "key", "<", "…", "...", "xxx"]
                .iter()
                .any(|word| lower.contains(word))
            || (text.len() == 64 && text.bytes().all(|byte| Some(byte) == text.bytes().next()));
        if placeholder {
            return Err(PublicKeyError::Placeholder);
        }
        if let Some(other) = text.chars().find(|c| !c.is_ascii_hexdigit()) {
            return Err(PublicKeyError::NotHex(other));
        }
        let bytes = from_hex(text.as_bytes()).ok_or(PublicKeyError::Length(text.len()))?;
        Self::from_bytes(&bytes)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(self.as_bytes()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

/// Both signature headers of one request: each there exactly once, and well formed.
#[derive(Clone)]
pub struct SignatureHeaders {
    signature: HeaderValue,
    timestamp: HeaderValue,
    parsed: Signature,
    unix_seconds: u64,
}

/// What is wrong with a request's signature headers.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum SignatureHeadersError {
    /// One of the two headers is not there.
    #[error("the signature headers are missing")]
    Missing,
    /// One of the two headers is there more than once.
    #[error("a signature header is there more than once")]
    Repeated,
    /// The signature is not 128 hexadecimal characters.
    #[error("the signature is not 128 hex characters")]
    Signature,
    /// The timestamp is not 1 to 20 decimal digits.
    #[error("the timestamp is not decimal Unix seconds")]
    Timestamp,
}

impl SignatureHeaders {
    /// Takes both headers out of a request's header map, where names are compared without regard to case.
    ///
    /// # Errors
    ///
    /// A [`SignatureHeadersError`]; whatever it is, the request is answered 401.
    pub fn parse(headers: &HeaderMap) -> Result<Self, SignatureHeadersError> {
        let signature = only(headers, &SIGNATURE_HEADER)?;
        let timestamp = only(headers, &TIMESTAMP_HEADER)?;
        let bytes = from_hex(signature.as_bytes()).ok_or(SignatureHeadersError::Signature)?;
        let unix_seconds = decimal(timestamp.as_bytes()).ok_or(SignatureHeadersError::Timestamp)?;
        Ok(Self {
            signature: copy(signature),
            timestamp: copy(timestamp),
            parsed: Signature::from_bytes(&bytes),
            unix_seconds,
        })
    }

    /// When Discord says it signed the request, in Unix seconds. Not proven before the signature is.
    pub fn unix_seconds(&self) -> u64 {
        self.unix_seconds
    }
}

fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<&'a HeaderValue, SignatureHeadersError> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Ok(value),
        (None, _) => Err(SignatureHeadersError::Missing),
        (Some(_), Some(_)) => Err(SignatureHeadersError::Repeated),
    }
}

/// So many bytes, from twice as many hex digits of either case.
pub fn from_hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    // At any other length it would panic.
    if digits.len() != 2 * N {
        return None;
    }
    HEXLOWER_PERMISSIVE.decode_mut(digits, &mut bytes).ok()?;
    Some(bytes)
}

/// A value of its own: one that came off a connection keeps the connection's whole buffer.
pub fn copy(value: &HeaderValue) -> HeaderValue {
    HeaderValue::from_bytes(value.as_bytes()).unwrap_or_else(|_| value.clone())
}

/// Digits only: `u64::from_str` would take a leading `+` too. Too large a number saturates, far outside any window.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > TIMESTAMP_DIGITS || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(
        digits
            .iter()
            .fold(0_u64, |number, digit| number.saturating_mul(10).saturating_add(u64::from(digit - b'0'))),
    )
}

/// A body on its way in: nothing is known about who sent it.
pub struct UnverifiedBody {
    headers: SignatureHeaders,
    /// The signed message: the timestamp's digits, directly followed by the body.
    message: BytesMut,
}

/// A body that the owner of the application's key signed: the only thing that can be forwarded.
#[derive(Clone)]
pub struct VerifiedBody {
    headers: SignatureHeaders,
    bytes: Bytes,
}

/// The signature does not hold for this body, timestamp and key.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the signature does not hold")]
pub struct BadSignature;

impl UnverifiedBody {
    /// An empty body with room for `capacity` bytes.
    pub fn new(headers: SignatureHeaders, capacity: usize) -> Self {
        let mut message = BytesMut::with_capacity(TIMESTAMP_DIGITS + capacity);
        message.extend_from_slice(headers.timestamp.as_bytes());
        Self { headers, message }
    }

    /// Appends bytes as they arrive.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.message.extend_from_slice(bytes);
    }

    /// The number of body bytes so far.
    pub fn len(&self) -> usize {
        self.message.len() - self.headers.timestamp.len()
    }

    /// Whether no body byte has arrived.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Proves that the holder of the key's secret signed exactly these bytes with exactly this timestamp.
    ///
    /// # Errors
    ///
    /// [`BadSignature`], without a reason: there is none that a stranger should learn.
    pub fn verify(self, verifier: &Verifier) -> Result<VerifiedBody, BadSignature> {
        if !verifier.holds(&self.message, &self.headers.parsed) {
            return Err(BadSignature);
        }
        let mut bytes = self.message.freeze();
        bytes.advance(self.headers.timestamp.len());
        Ok(VerifiedBody { headers: self.headers, bytes })
    }
}

impl VerifiedBody {
    /// The same body, with something beside it that is dropped when the last copy of its bytes is.
    #[must_use]
    pub fn kept_with<T: Send + 'static>(self, companion: T) -> Self {
        struct Kept<T>(Bytes, T);
        impl<T> AsRef<[u8]> for Kept<T> {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }
        Self { bytes: Bytes::from_owner(Kept(self.bytes, companion)), ..self }
    }

    /// The body, byte for byte as it was signed.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The signature header and the timestamp header as they came, for handlers that verify once more, and the body.
    pub fn into_parts(self) -> (HeaderValue, HeaderValue, Bytes) {
        (self.headers.signature, self.headers.timestamp, self.bytes)
    }

    /// When Discord signed the request, in Unix seconds.
    pub fn unix_seconds(&self) -> u64 {
        self.headers.unix_seconds
    }
}

#[cfg(test)]
mod tests;
