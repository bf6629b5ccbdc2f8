//! Ed25519 verification under one key, of which all that the key alone decides is worked out beforehand.
//!
//! It accepts exactly what `verify_strict` of ed25519-dalek accepts under a sound key. That one has a table for the
//! base point; here the application's key has one too, and R is compared as bytes instead of being taken apart.

use curve25519_dalek::constants::{ED25519_BASEPOINT_POINT, ED25519_BASEPOINT_TABLE};
use curve25519_dalek::edwards::{EdwardsBasepointTable, EdwardsPoint, VartimeEdwardsPrecomputation};
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::{BasepointTable, VartimePrecomputedMultiscalarMul};
use ed25519_dalek::Signature;
use ring::digest::{Context, SHA512};

use super::PublicKey;

/// Verifies signatures of one application.
pub struct Verifier {
    key: PublicKey,
    tables: Tables,
}

/// How S·B − k·A is calculated. `cargo bench --bench parts` compares both with `verify_strict`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Bit by bit for both factors at once, with the points' odd multiples: 256 doublings and about 57 additions, on
    /// the processor's vectors. The better one where they multiply 52 bits at a time (AVX-512 IFMA). 20 KiB a key.
    Windows,
    /// Four bits at a time, each with a table of its own: 128 additions and hardly a doubling, in plain arithmetic.
    /// The better one everywhere else. 30 KiB a key.
    Combs,
}

enum Tables {
    Windows(VartimeEdwardsPrecomputation),
    Combs(Box<EdwardsBasepointTable>),
}

impl Method {
    /// The faster one on this processor.
    pub fn best() -> Self {
        if backend() == "avx512" { Self::Windows } else { Self::Combs }
    }
}

impl Verifier {
    /// Prepares to verify under `key`.
    pub fn new(key: PublicKey) -> Self {
        Self::by(Method::best(), key)
    }

    /// The same by a method that may not be the best.
    pub fn by(method: Method, key: PublicKey) -> Self {
        let minus_a = -key.0.to_edwards();
        let tables = match method {
            Method::Windows => {
                Tables::Windows(VartimeEdwardsPrecomputation::new([minus_a, ED25519_BASEPOINT_POINT]))
            }
            Method::Combs => Tables::Combs(Box::new(EdwardsBasepointTable::create(&minus_a))),
        };
        Self { key, tables }
    }

    /// The key.
    pub fn public_key(&self) -> &PublicKey {
        &self.key
    }

    /// Whether `signature` is the key's for exactly these bytes.
    ///
    /// Strict: one signature per message, as in RFC 8032 with S below the group's order, and no point of small order.
    /// The key itself has none, by what a [`PublicKey`] is.
    pub(super) fn holds(&self, message: &[u8], signature: &Signature) -> bool {
        let Some(s) = Scalar::from_canonical_bytes(*signature.s_bytes()).into_option() else { return false };
        let Some(k) = self.challenge(signature.r_bytes(), message) else { return false };
        let expected = self.expected_r(&k, &s);
        // An R in a second encoding differs in its bytes.
        expected.compress().as_bytes() == signature.r_bytes() && !expected.is_small_order()
    }

    /// SHA-512 over R, the key and the message, as a scalar.
    fn challenge(&self, r: &[u8; 32], message: &[u8]) -> Option<Scalar> {
        let mut hash = Context::new(&SHA512);
        for part in [r, self.key.as_bytes(), message] {
            hash.update(part);
        }
        hash.finish().as_ref().first_chunk().map(Scalar::from_bytes_mod_order_wide)
    }

    /// The R that a signature with this S must have.
    fn expected_r(&self, k: &Scalar, s: &Scalar) -> EdwardsPoint {
        match &self.tables {
            Tables::Windows(tables) => tables.vartime_multiscalar_mul([k, s]),
            Tables::Combs(table) => &**table * k + ED25519_BASEPOINT_TABLE * s,
        }
    }
}

/// The arithmetic that this processor has for curves: `avx512`, `avx2` or `portable`.
///
/// The crate chooses by the same questions to the processor, at run time, in one binary for all.
pub fn backend() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if cfg!(curve25519_dalek_backend = "avx512")
            && is_x86_feature_detected!("avx512ifma")
            && is_x86_feature_detected!("avx512vl")
        {
            return "avx512";
        }
        if is_x86_feature_detected!("avx2") {
            return "avx2";
        }
    }
    "portable"
}
