//! What hyper lets pass of HTTP, and we do not.
//!
//! hyper itself refuses obsolete folding, spaces before a colon, control characters, broken chunks, and lengths that are
//! no number or contradict each other; and it ends the connection after a request with both a length and an encoding,
//! which it reads by the encoding alone. What is left is what two parties could read in two ways.

use http::header::{CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, HeaderName, Version};

use super::Refusal;

/// Bytes of a request's target. Ours are a few dozen.
const MAX_TARGET: usize = 8 * 1024;

pub(super) fn require_sound(head: &Parts) -> Result<(), Refusal> {
    require_one_host(head)?;
    require_one_length(&head.headers)?;
    require_known_expectation(&head.headers)?;
    let target = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
    if target > MAX_TARGET { Err(Refusal::TargetTooLong) } else { Ok(()) }
}

fn require_one_host(head: &Parts) -> Result<(), Refusal> {
    let mut hosts = head.headers.get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.as_bytes(),
        // HTTP/1.0 knows no Host.
        (None, _) if head.version == Version::HTTP_10 => return Ok(()),
        (None, _) => return Err(Refusal::Framing("Host is missing")),
        (Some(_), Some(_)) => return Err(Refusal::Framing("Host is there twice")),
    };
    match head.uri.authority() {
        Some(authority) if !authority.as_str().as_bytes().eq_ignore_ascii_case(host) => {
            Err(Refusal::Framing("Host and target name different hosts"))
        }
        _ => Ok(()),
    }
}

fn require_one_length(headers: &HeaderMap) -> Result<(), Refusal> {
    match (only(headers, TRANSFER_ENCODING)?, only(headers, CONTENT_LENGTH)?) {
        (Some(encoding), _) if !encoding.eq_ignore_ascii_case(b"chunked") => {
            Err(Refusal::Framing("Transfer-Encoding is something other than chunked"))
        }
        (_, Some(length)) if !is_sane(length) => Err(Refusal::Framing("Content-Length is no sane number")),
        _ => Ok(()),
    }
}

/// Below 2^63, so that it is the same number to every program that it passes.
fn is_sane(length: &[u8]) -> bool {
    let number = std::str::from_utf8(length).ok().and_then(|text| text.parse::<i64>().ok());
    length.iter().all(u8::is_ascii_digit) && number.is_some()
}

fn only(headers: &HeaderMap, name: HeaderName) -> Result<Option<&[u8]>, Refusal> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value.map(|value| value.as_bytes())),
        (_, Some(_)) => Err(Refusal::Framing("a length is there twice")),
    }
}

fn require_known_expectation(headers: &HeaderMap) -> Result<(), Refusal> {
    let is_known = |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if headers.get_all(EXPECT).iter().all(is_known) { Ok(()) } else { Err(Refusal::Expectation) }
}
