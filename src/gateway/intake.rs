//! What is asked of a request before its signature is worth verifying.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, header};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::time::Instant;

use super::call::Job;
use super::{Refusal, Trace};
use crate::budget::Reservation;
use crate::discord::signature::{self, SignatureHeaders, UnverifiedBody, VerifiedBody};
use crate::forward::{Forwarding, GivenUp};
use crate::logging::Flood;

/// Reserved at once for a body that says its length; the rest grows with what really comes.
const FIRST_RESERVATION: u64 = 16 * 1024;

pub(super) fn require_post(head: &Parts) -> Result<(), Refusal> {
    if head.method == Method::POST { Ok(()) } else { Err(Refusal::Method) }
}

/// JSON, with whatever parameters; and just once.
pub(super) fn require_json(head: &Parts) -> Result<HeaderValue, Refusal> {
    let mut values = head.headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Err(Refusal::MediaType) };
    let essence = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") { Ok(value.clone()) } else { Err(Refusal::MediaType) }
}

/// Both ways, since either clock may be off.
pub(super) fn require_fresh(
    signature: &SignatureHeaders,
    unix_time: Duration,
    window: Duration,
) -> Result<(), Refusal> {
    let distance = unix_time.as_secs().abs_diff(signature.unix_seconds());
    if distance <= window.as_secs() { Ok(()) } else { Err(Refusal::Timestamp) }
}

/// The client's address: what the proxy says, if it is a proxy on this machine that says it; else the peer's own.
pub(super) fn client(headers: &HeaderMap, peer: IpAddr) -> IpAddr {
    // An IPv4 client of a socket for both kinds.
    let peer = peer.to_canonical();
    if !peer.is_loopback() {
        return peer;
    }
    // The last entry is the one that our own proxy appended; those before it may be anyone's word.
    let named = headers.get_all("x-forwarded-for").iter().next_back();
    let last = named.and_then(|value| value.to_str().ok()).and_then(|list| list.rsplit(',').next());
    last.and_then(|address| address.trim().parse().ok()).unwrap_or(peer)
}

/// How much of a body is taken, and for how long.
pub(super) struct Bounds {
    pub(super) body: usize,
    pub(super) time_left: Duration,
}

/// Reads a body into the buffer that is verified and forwarded.
pub(super) async fn read(
    body: Incoming,
    signature: SignatureHeaders,
    bounds: Bounds,
    reservation: Reservation,
) -> Result<(UnverifiedBody, Reservation), Refusal> {
    let all = read_all(body, signature, bounds.body, reservation);
    tokio::time::timeout(bounds.time_left, all).await.unwrap_or(Err(Refusal::BodyTimeout))
}

async fn read_all(
    mut body: Incoming,
    signature: SignatureHeaders,
    limit: usize,
    mut reservation: Reservation,
) -> Result<(UnverifiedBody, Reservation), Refusal> {
    let announced = body.size_hint().exact();
    if announced.is_some_and(|length| length > limit as u64) {
        return Err(Refusal::BodyTooLarge);
    }
    let capacity = announced.unwrap_or_default().min(FIRST_RESERVATION);
    let mut read = UnverifiedBody::new(signature, usize::try_from(capacity).unwrap_or_default());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Refusal::BodyBroken)?;
        let Ok(data) = frame.into_data() else { continue };
        if read.len() + data.len() > limit {
            return Err(Refusal::BodyTooLarge);
        }
        if !reservation.grow(data.len()) {
            return Err(Refusal::NoMemory);
        }
        read.extend(&data);
    }
    Ok((read, reservation))
}

/// The time when a request is forwarded.
pub(super) struct Now {
    /// Since 1970.
    pub(super) unix_time: Duration,
    /// Until Discord is to have an answer.
    pub(super) time_left: Duration,
}

/// What a handler gets of a request.
pub(super) fn forwarding(
    body: VerifiedBody,
    content_type: HeaderValue,
    headers: &HeaderMap,
    job: &Job,
    trace: Trace,
    now: Now,
    flood: Arc<Flood>,
) -> Forwarding {
    Forwarding {
        body,
        content_type: signature::copy(&content_type),
        user_agent: headers.get(header::USER_AGENT).map(signature::copy),
        id: job.record.id,
        unix_seconds: now.unix_time.as_secs(),
        app: job.app.header.clone(),
        trace: trace.header(),
        deadline: Instant::now() + now.time_left,
        given_up: GivenUp::default(),
        flood,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use rstest::rstest;

    use super::*;

    fn head(content_types: &[&'static str]) -> Parts {
        let mut request = http::Request::new(());
        for value in content_types {
            request.headers_mut().append(header::CONTENT_TYPE, HeaderValue::from_static(value));
        }
        request.into_parts().0
    }

    #[rstest]
    #[case(&["application/json"], true)]
    #[case(&["Application/JSON; charset=utf-8"], true)]
    #[case(&[], false)]
    #[case(&["text/plain"], false)]
    #[case(&["application/jsonp"], false)]
    #[case(&["application/json", "application/json"], false)]
    fn only_json_is_taken(#[case] content_types: &[&'static str], #[case] taken: bool) {
        assert_eq!(require_json(&head(content_types)).is_ok(), taken);
    }

    #[rstest]
    #[case(-301, false)]
    #[case(-300, true)]
    #[case(0, true)]
    #[case(300, true)]
    #[case(301, false)]
    fn the_window_is_in_seconds_and_has_two_sides(#[case] distance: i64, #[case] fresh: bool) {
        let now = 1_700_000_000;
        let mut headers = HeaderMap::new();
        headers.insert("x-signature-ed25519", HeaderValue::from_str(&"a".repeat(128)).unwrap());
        headers.insert("x-signature-timestamp", HeaderValue::from(now + distance));
        let signature = SignatureHeaders::parse(&headers).unwrap();
        let unix_time = Duration::from_millis(u64::try_from(now).unwrap() * 1000 + 999);
        assert_eq!(require_fresh(&signature, unix_time, Duration::from_secs(300)).is_ok(), fresh);
    }

    #[test]
    fn only_a_local_proxy_is_believed_about_the_client() {
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", HeaderValue::from_static("203.0.113.9, 198.51.100.7"));
        let told: IpAddr = Ipv4Addr::new(198, 51, 100, 7).into();
        let stranger: IpAddr = Ipv4Addr::new(192, 0, 2, 1).into();
        assert_eq!(client(&headers, Ipv6Addr::LOCALHOST.into()), told);
        assert_eq!(client(&headers, stranger), stranger);
        let mapped: IpAddr = Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped().into();
        assert_eq!(client(&headers, mapped), stranger);
        headers.insert("x-forwarded-for", HeaderValue::from_static("<script>"));
        assert_eq!(client(&headers, Ipv4Addr::LOCALHOST.into()), IpAddr::from(Ipv4Addr::LOCALHOST));
    }
}
