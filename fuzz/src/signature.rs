//! The signature headers and the verifier, beside what they are to be and beside `verify_strict` itself.
//!
//! An input is a signature, a timestamp and a body, each but the last on a line. A signature that begins with `@` stands
//! for the right one, changed as the bytes behind it say, two by two.

use std::sync::LazyLock;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use http::{HeaderMap, HeaderValue};
use shardless::discord::signature::{
    Method, PublicKey, SIGNATURE_HEADER, SignatureHeaders, SignatureHeadersError, TIMESTAMP_HEADER,
    UnverifiedBody, Verifier,
};

/// The order of the group.
const L: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

/// Of the key that signs, since its tables take longer to make than anything else here.
static OWN: LazyLock<[Verifier; 2]> =
    LazyLock::new(|| verifiers(&PublicKey::from_bytes(secret().verifying_key().as_bytes()).unwrap()));

fn secret() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn verifiers(key: &PublicKey) -> [Verifier; 2] {
    [Method::Windows, Method::Combs].map(|method| Verifier::by(method, key.clone()))
}

/// Headers are taken exactly where each is there once and well formed; a body is verified exactly where `verify_strict`
/// says so, and comes out as it went in.
pub fn check(bytes: &[u8]) {
    let mut lines = bytes.splitn(3, |byte| *byte == b'\n');
    let mut next = || lines.next().unwrap_or_default();
    let (signature, timestamp, body) = (next(), next(), next());
    let (message, secret) = ([timestamp, body].concat(), secret());
    let signature = match signature.strip_prefix(b"@") {
        Some(changes) => changed(secret.sign(&message).to_bytes(), changes),
        None => signature.to_vec(),
    };
    let mut headers = HeaderMap::new();
    for (name, value) in [(SIGNATURE_HEADER, signature.as_slice()), (TIMESTAMP_HEADER, timestamp)] {
        let Ok(value) = HeaderValue::from_bytes(value) else { return };
        headers.insert(name, value);
    }
    let parsed = SignatureHeaders::parse(&headers);
    let has_signature = signature.len() == 128 && signature.iter().all(u8::is_ascii_hexdigit);
    let has_timestamp = (1..=20).contains(&timestamp.len()) && timestamp.iter().all(u8::is_ascii_digit);
    assert_eq!(parsed.is_ok(), has_signature && has_timestamp);
    assert_each_is_there_once(&headers);
    let Ok(parsed) = parsed else { return };
    let seconds: u128 = std::str::from_utf8(timestamp).unwrap().parse().unwrap();
    assert_eq!(u128::from(parsed.unix_seconds()), seconds.min(u128::from(u64::MAX)));
    assert_agrees(&*OWN, &parsed, &headers, &message, body);
    if let Some(key) = body.first_chunk().and_then(sound_key) {
        assert_agrees(&verifiers(&key), &parsed, &headers, &message, body);
    }
}

fn assert_each_is_there_once(headers: &HeaderMap) {
    for name in [SIGNATURE_HEADER, TIMESTAMP_HEADER] {
        let (mut twice, mut without) = (headers.clone(), headers.clone());
        twice.append(&name, headers[&name].clone());
        without.remove(&name);
        assert_eq!(SignatureHeaders::parse(&twice).err(), Some(SignatureHeadersError::Repeated));
        assert_eq!(SignatureHeaders::parse(&without).err(), Some(SignatureHeadersError::Missing));
    }
}

/// The key of these bytes, if it is taken: then it is one that nobody signs for without the secret.
fn sound_key(bytes: &[u8; 32]) -> Option<PublicKey> {
    let key = PublicKey::from_bytes(bytes).ok()?;
    let plain = VerifyingKey::from_bytes(bytes).unwrap();
    assert!(!plain.is_weak() && plain.to_edwards().is_torsion_free());
    assert_eq!((plain.to_edwards().compress().as_bytes(), key.as_bytes()), (bytes, bytes));
    Some(key)
}

fn assert_agrees(
    verifiers: &[Verifier],
    parsed: &SignatureHeaders,
    headers: &HeaderMap,
    message: &[u8],
    body: &[u8],
) {
    let digits = headers[SIGNATURE_HEADER].as_bytes();
    let signature = HEXLOWER_PERMISSIVE.decode(digits).unwrap().try_into().unwrap();
    for verifier in verifiers {
        let plain = VerifyingKey::from_bytes(verifier.public_key().as_bytes()).unwrap();
        let expected = plain.verify_strict(message, &Signature::from_bytes(&signature)).is_ok();
        let mut unverified = UnverifiedBody::new(parsed.clone(), 0);
        body.chunks(7).for_each(|piece| unverified.extend(piece));
        assert_eq!((unverified.len(), unverified.is_empty()), (body.len(), body.is_empty()));
        let verified = unverified.verify(verifier);
        assert_eq!(verified.is_ok(), expected);
        let Ok(verified) = verified else { continue };
        assert_eq!(verified.bytes(), body);
        let (signature, timestamp, bytes) = verified.into_parts();
        assert_eq!((&signature, &timestamp), (&headers[SIGNATURE_HEADER], &headers[TIMESTAMP_HEADER]));
        assert_eq!(bytes, body);
    }
}

/// The signature in hex, changed: a byte of it, the order added to its S, or a digit.
fn changed(mut signature: [u8; 64], changes: &[u8]) -> Vec<u8> {
    let (pairs, _) = changes.as_chunks::<2>();
    for [place, bits] in pairs {
        match usize::from(*place) {
            place @ ..64 => signature[place] ^= bits,
            255 => add_order(&mut signature),
            _ => {}
        }
    }
    let mut digits = HEXLOWER.encode(&signature).into_bytes();
    for [place, digit] in pairs {
        if let Some(place) = usize::from(*place).checked_sub(64).and_then(|place| digits.get_mut(place)) {
            *place = *digit;
        }
    }
    digits
}

fn add_order(signature: &mut [u8; 64]) {
    let mut carry = 0_u16;
    for (byte, order) in signature[32..].iter_mut().zip(L) {
        carry += u16::from(*byte) + u16::from(order);
        *byte = carry.to_le_bytes()[0];
        carry >>= 8;
    }
}
