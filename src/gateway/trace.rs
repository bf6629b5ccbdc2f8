//! The trace that an interaction belongs to, across the programs that work on it.
//!
//! Source: W3C Trace Context, level 2, "traceparent header" and "Mutating the traceparent field".

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderMap, HeaderValue};

use crate::forward::TRACE_HEADER;

/// The flags that have a meaning: sampled, and random trace id. A program that does not know a flag is to clear it.
const KNOWN_FLAGS: u8 = 0b11;

/// An interaction's place in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trace {
    /// What all parts of the trace share; not zero.
    id: u128,
    /// Our own part; not zero.
    span: u64,
    flags: u8,
}

/// Makes ids: random numbers that may be guessed, but hardly ever come again. So one hash that is keyed at random is
/// enough, where the system's own random numbers would take a call each.
#[derive(Default)]
pub(super) struct Ids {
    keyed: RandomState,
    count: AtomicU64,
}

impl Ids {
    fn next(&self) -> u64 {
        self.keyed.hash_one(self.count.fetch_add(1, Ordering::Relaxed)).max(1)
    }
}

impl Trace {
    /// Continues the trace that a request's headers name, if they name one; else begins one.
    pub(super) fn of(headers: &HeaderMap, ids: &Ids) -> Self {
        let span = ids.next();
        let mut values = headers.get_all(TRACE_HEADER).iter();
        let named = match (values.next(), values.next()) {
            (Some(value), None) => value.to_str().ok().and_then(parse),
            _ => None,
        };
        let (id, flags) = named.unwrap_or_else(|| (u128::from(ids.next()) << 64 | u128::from(ids.next()), 0));
        Self { id, span, flags: flags & KNOWN_FLAGS }
    }

    /// What all parts of the trace share.
    pub(super) fn id(&self) -> u128 {
        self.id
    }

    /// The header for whom the interaction is handed to.
    pub(super) fn header(&self) -> Option<HeaderValue> {
        let Self { id, span, flags } = self;
        HeaderValue::try_from(format!("00-{id:032x}-{span:016x}-{flags:02x}")).ok()
    }
}

/// The trace's id and its flags. What a later version has to say beyond these is passed over.
fn parse(text: &str) -> Option<(u128, u8)> {
    let mut parts = text.splitn(5, '-');
    let version = hex(parts.next()?, 2)?;
    let id = hex(parts.next()?, 32)?;
    let span = hex(parts.next()?, 16)?;
    let flags = u8::try_from(hex(parts.next()?, 2)?).ok()?;
    let is_whole = match version {
        0 => parts.next().is_none(),
        version => version != 0xff,
    };
    (is_whole && id != 0 && span != 0).then_some((id, flags))
}

/// Exactly so many digits, in lower case.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let is_digit = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if text.len() != digits || !text.bytes().all(is_digit) {
        return None;
    }
    u128::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const ID: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;

    fn trace(values: &[&str]) -> Trace {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(TRACE_HEADER, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        Trace::of(&headers, &Ids::default())
    }

    #[rstest]
    #[case("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "01")]
    #[case("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", "00")]
    #[case::random_id("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03", "03")]
    #[case::unknown_flags("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-fd", "01")]
    #[case::later_version("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "01")]
    #[case::longer("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-is-to-come", "01")]
    #[case::longer_by_nothing("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-", "01")]
    fn a_trace_that_is_named_is_continued(#[case] value: &str, #[case] flags: &str) {
        let (trace, again) = (trace(&[value]), trace(&[value]));
        assert_eq!(trace.id(), ID);
        let header = trace.header().unwrap();
        let header = header.to_str().unwrap();
        assert_eq!(header, format!("00-{ID:032x}-{:016x}-{flags}", trace.span));
        assert!(trace.span != again.span && trace.span != 0x00f0_67aa_0ba9_02b7, "{header}");
    }

    #[rstest]
    #[case::none(&[])]
    #[case::twice(&["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"; 2])]
    #[case::empty(&[""])]
    #[case::list(&["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01,00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"])]
    #[case::no_such_version(&["ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"])]
    #[case::version_of_one_digit(&["0-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"])]
    #[case::version_of_three_digits(&["000-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"])]
    #[case::no_hex_version(&["0x-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"])]
    #[case::id_of_zeros(&["00-00000000000000000000000000000000-00f067aa0ba902b7-01"])]
    #[case::span_of_zeros(&["00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01"])]
    #[case::upper_case(&["00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01"])]
    #[case::upper_case_flags(&["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0A"])]
    #[case::short_id(&["00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01"])]
    #[case::long_id(&["00-4bf92f3577b34da6a3ce929d0e0e47361-00f067aa0ba902b7-01"])]
    #[case::signed_id(&["00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"])]
    #[case::no_hex_id(&["00-.bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"])]
    #[case::short_span(&["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b-01"])]
    #[case::no_flags(&["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7"])]
    #[case::empty_flags(&["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-"])]
    #[case::short_flags(&["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1"])]
    #[case::long_flags(&["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-011"])]
    #[case::longer(&["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more"])]
    #[case::longer_by_nothing(&["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-"])]
    #[case::later_version_with_a_dot(&["cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.more"])]
    #[case::spaces(&["00- 4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"])]
    #[case::not_ascii(&["00-4bf92f3577b34da6a3ce929d0e0e473ö-00f067aa0ba902b7-01"])]
    fn without_a_trace_that_can_be_continued_one_begins(#[case] values: &[&str]) {
        let (trace, again) = (trace(values), trace(values));
        assert!(trace.id() != again.id() && trace.id() != ID && trace.id() != 0);
        assert_eq!(trace.header().unwrap(), format!("00-{:032x}-{:016x}-00", trace.id, trace.span));
    }
}
