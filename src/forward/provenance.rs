//! The proof that a request came through this daemon: the headers of Standard Webhooks, made with a secret that the
//! handler knows too.
//!
//! Source: Standard Webhooks 1.0.0, "Signature scheme" and "Webhook headers".

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use data_encoding::BASE64;
use http::{HeaderMap, HeaderName, HeaderValue};
use ring::hmac;
use thiserror::Error;

use super::Forwarding;
use crate::config;

const ID_HEADER: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP_HEADER: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE_HEADER: HeaderName = HeaderName::from_static("webhook-signature");

/// What a secret begins with.
const PREFIX: &str = "whsec_";
/// Bytes of a secret.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// Bytes of a file that are looked at; one with more holds something else.
const MAX_FILE: u64 = 1024;

/// Why a handler's `secret_file` cannot be used.
#[derive(Debug, Error)]
#[error("handler {handler}: `secret_file` {file} {reason}")]
pub struct SecretError {
    handler: String,
    file: String,
    reason: Reason,
}

/// Never holds what was in the file.
#[derive(Debug)]
enum Reason {
    Missing { file: String },
    Unreadable(io::Error),
    Open { file: String },
    NoSecret { file: String },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { file } => write!(f, "is not there; {}", how_to_make(file)),
            Self::Unreadable(error) => {
                write!(f, "cannot be read ({error}); the user that runs shardless must be able to read it")
            }
            Self::Open { file } => write!(f, "can be read by everyone: chmod o= {file}"),
            Self::NoSecret { file } => {
                let (least, most) = (SECRET_BYTES.start(), SECRET_BYTES.end());
                let one = how_to_make(file);
                write!(f, "does not hold one secret, {PREFIX} and {least} to {most} bytes in base64; {one}")
            }
        }
    }
}

fn how_to_make(file: &str) -> String {
    format!("to make one: printf '{PREFIX}%s\\n' \"$(openssl rand -base64 32)\" > {file}; chmod 640 {file}")
}

/// A secret that a handler knows too. It shows nowhere: what it is made of tells no more than the algorithm.
#[derive(Debug)]
pub(super) struct Secret(hmac::Key);

impl PartialEq for Secret {
    /// By what they make of nothing, since a key does not tell its bytes.
    fn eq(&self, other: &Self) -> bool {
        hmac::sign(&self.0, b"").as_ref() == hmac::sign(&other.0, b"").as_ref()
    }
}

impl Secret {
    /// Reads the handler's `secret_file`, if it has one.
    pub(super) fn of(handler: &config::Handler) -> Result<Option<Self>, SecretError> {
        let Some(path) = &handler.secret_file else { return Ok(None) };
        let file = path.display().to_string();
        let secret = Self::read(path, &file);
        let error = |reason| SecretError { handler: handler.urls.first.to_string(), file, reason };
        secret.map(Some).map_err(error)
    }

    fn read(path: &Path, name: &str) -> Result<Self, Reason> {
        let file = File::open(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Reason::Missing { file: name.to_owned() },
            _ => Reason::Unreadable(error),
        })?;
        let mode = file.metadata().map_err(Reason::Unreadable)?.permissions().mode();
        if mode & 0o004 != 0 {
            return Err(Reason::Open { file: name.to_owned() });
        }
        let mut text = Vec::new();
        file.take(MAX_FILE).read_to_end(&mut text).map_err(Reason::Unreadable)?;
        Self::parse(&text).ok_or_else(|| Reason::NoSecret { file: name.to_owned() })
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let encoded = text.trim_ascii().strip_prefix(PREFIX.as_bytes())?;
        // It would take several that are padded, one behind the other.
        let secret =
            BASE64.decode(encoded).ok().filter(|secret| BASE64.encode(secret).as_bytes() == encoded)?;
        SECRET_BYTES.contains(&secret.len()).then(|| Self(hmac::Key::new(hmac::HMAC_SHA256, &secret)))
    }

    /// The headers that prove where an interaction comes from.
    pub(super) fn headers(&self, forwarding: &Forwarding) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(3);
        headers.insert(ID_HEADER, HeaderValue::from(forwarding.id));
        headers.insert(TIMESTAMP_HEADER, HeaderValue::from(forwarding.unix_seconds));
        let signature =
            self.signature(&forwarding.id.to_string(), forwarding.unix_seconds, forwarding.body.bytes());
        if let Ok(signature) = HeaderValue::try_from(signature) {
            headers.insert(SIGNATURE_HEADER, signature);
        }
        headers
    }

    fn signature(&self, id: &str, unix_seconds: u64, body: &[u8]) -> String {
        let mut signing = hmac::Context::with_key(&self.0);
        signing.update(format!("{id}.{unix_seconds}.").as_bytes());
        signing.update(body);
        format!("v1,{}", BASE64.encode(signing.sign().as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const SHORTEST: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";
    const LONGEST: &str =
        "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+Pw==";

    /// The first is what the official libraries are tested with; what the others must be, the one for Python says.
    #[rstest]
    #[case(
        SECRET,
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1_614_265_330,
        r#"{"test": 2432232314}"#,
        "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )]
    #[case(
        SHORTEST,
        "1234567890123456789",
        1_700_000_000,
        r#"{"type":2,"name":"größer 🎵"}"#,
        "QDBMWUS0eLCPXsRIMskXWlyOBIioxCbowirsjBLsXVI="
    )]
    #[case(
        LONGEST,
        "1234567890123456789",
        1_700_000_000,
        r#"{"type":2,"name":"größer 🎵"}"#,
        "vCnMj5PuBxGEARq+Oae6y4VC4WlZQyd7UoBPl83CYkQ="
    )]
    fn a_signature_is_the_one_of_the_official_libraries(
        #[case] secret: &str,
        #[case] id: &str,
        #[case] unix_seconds: u64,
        #[case] body: &str,
        #[case] signature: &str,
    ) {
        let secret = Secret::parse(secret.as_bytes()).unwrap();
        assert_eq!(secret.signature(id, unix_seconds, body.as_bytes()), format!("v1,{signature}"));
    }

    #[rstest]
    #[case::empty("")]
    #[case::prefix_alone("whsec_")]
    #[case::no_prefix("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")]
    #[case::another_prefix("whsk_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")]
    #[case::upper_case("WHSEC_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")]
    #[case::two("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\nwhsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX")]
    #[case::of_23_bytes("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRY=")]
    #[case::of_65_bytes(
        "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+P0A="
    )]
    #[case::no_base64("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS!")]
    #[case::base64_for_urls("whsec_-_KQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")]
    #[case::two_padded_ones("whsec_MfKQ9r8GKYqrTwjUPD8ILA==MfKQ9r8GKYqrTwjUPD8ILA==")]
    #[case::cut_off("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwAA")]
    fn what_is_no_secret_is_refused(#[case] text: &str) {
        assert!(Secret::parse(text.as_bytes()).is_none());
    }

    #[test]
    fn a_secret_is_the_same_whatever_space_is_around_it_and_shows_nowhere() {
        let secret = |text: &str| Secret::parse(text.as_bytes()).unwrap();
        assert!(secret(SECRET) == secret(&format!(" \t{SECRET}\r\n\n")));
        assert!(secret(SECRET) != secret(SHORTEST));
        let shown = format!("{:?}", secret(SECRET));
        assert!(!shown.contains("MfKQ") && shown.contains("SHA256"), "{shown}");
    }
}
