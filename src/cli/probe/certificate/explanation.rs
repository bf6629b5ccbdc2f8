//! What a certificate is, in words.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustls::pki_types::CertificateDer;
use rustls::{CertificateError, Error};
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;
use x509_parser::x509::X509Name;

use super::Trust;
use crate::cli::probe::report::{Finding, plain};
use crate::cli::probe::target::Target;
use crate::clock::{Clock, SystemClock};

/// With fewer days left, renewal has failed: certbot renews 30 days before the end.
const ENDS_SOON: i64 = 14;
/// Of a certificate's names, so many are shown.
const NAMES_SHOWN: usize = 4;

const DAY: i64 = 86_400;

/// One that clients take.
pub(super) fn trusted(chain: &[CertificateDer<'_>], trust: Trust) -> Finding {
    let parsed = parse(chain);
    let Some(leaf) = parsed.first() else { return unreadable() };
    let left = days_left(leaf);
    let (from, until) = (leaf.validity().not_before.timestamp(), leaf.validity().not_after.timestamp());
    let text = format!(
        "trusted, from {}, until {} ({})",
        name(leaf.issuer()),
        date(leaf.validity().not_after.to_datetime()),
        in_days(left)
    );
    // Some authorities give certificates for six days.
    if left < ENDS_SOON.min((until - from) / DAY / 3) {
        return Finding::warning(
            text,
            "It should have been renewed by now: does certbot's timer run? (systemctl status certbot.timer) If it was \
             renewed, the proxy has not been reloaded since. By hand:\n  certbot renew",
        );
    }
    match trust {
        Trust::Public => Finding::good(text),
        Trust::Own => Finding::warning(
            format!("{text}, by --ca alone"),
            "Discord trusts public authorities, such as Let's Encrypt, and no others.",
        ),
    }
}

/// One that they do not take.
pub(super) fn untrusted(chain: &[CertificateDer<'_>], error: &Error, target: &Target) -> Finding {
    let parsed = parse(chain);
    let Some(leaf) = parsed.first() else { return unreadable() };
    let Error::InvalidCertificate(error) = error else { return other(&error.to_string()) };
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => expired(&parsed, leaf),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Finding::bad(
            format!("not valid before {}", date(leaf.validity().not_before.to_datetime())),
            "Is the clock of this machine right, and that of the server? (timedatectl)",
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            wrong_name(leaf, target.host())
        }
        CertificateError::UnknownIssuer => unknown_issuer(&parsed, leaf, target),
        CertificateError::Revoked => {
            Finding::bad("revoked by its authority", "Get a new one: certbot renew --force-renewal")
        }
        error => other(&error.to_string()),
    }
}

fn parse<'a>(chain: &'a [CertificateDer<'_>]) -> Vec<X509Certificate<'a>> {
    chain
        .iter()
        .map_while(|der| parse_x509_certificate(der).ok())
        .map(|(_, certificate)| certificate)
        .collect()
}

fn unreadable() -> Finding {
    Finding::bad("cannot be read", "Get a new one: certbot makes certificates that every client can read.")
}

fn other(reason: &str) -> Finding {
    Finding::bad(
        format!("not one to trust: {}", plain(reason, 200)),
        "Get one from a public authority, such as Let's Encrypt by certbot.",
    )
}

fn expired(parsed: &[X509Certificate<'_>], leaf: &X509Certificate<'_>) -> Finding {
    let ended = |certificate: &X509Certificate<'_>| {
        let date = date(certificate.validity().not_after.to_datetime());
        format!("expired on {date}, {} ago", count(-seconds_left(certificate) / DAY))
    };
    if days_left(leaf) < 0 {
        return Finding::bad(
            ended(leaf),
            "Renew it, and let the proxy, nginx or apache2, load it:\n  certbot renew\n  systemctl reload nginx",
        );
    }
    match parsed.iter().find(|certificate| days_left(certificate) < 0) {
        Some(issuer) => Finding::bad(
            format!("the certificate of its issuer, {}, {}", name(issuer.subject()), ended(issuer)),
            "Renew it (certbot renew --force-renewal), and give the proxy the new fullchain.pem.",
        ),
        None => other("expired"),
    }
}

fn wrong_name(leaf: &X509Certificate<'_>, host: &str) -> Finding {
    let names = names(leaf);
    let shown = names.iter().take(NAMES_SHOWN).cloned().collect::<Vec<_>>().join(", ");
    let more = match names.len().saturating_sub(NAMES_SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let its = if names.is_empty() { "for no name".to_owned() } else { format!("for {shown}{more}") };
    Finding::bad(
        format!("{its}; not for {host}"),
        format!(
            "The server has no certificate for this name, or another site answers for it: is {host} the server_name \
             (Apache: ServerName) of the site file, and has certbot run with -d {host}?"
        ),
    )
}

fn unknown_issuer(parsed: &[X509Certificate<'_>], leaf: &X509Certificate<'_>, target: &Target) -> Finding {
    let issuer = name(leaf.issuer());
    let public = format!(
        "Discord trusts public authorities alone. Let's Encrypt is one that costs nothing, for Nginx or for Apache:\n{}",
        target.certbot()
    );
    if issuer.contains("STAGING") {
        return Finding::bad(
            format!("from a test authority, {issuer}"),
            "certbot was run with --staging or --test-cert: run it again without, and with --force-renewal.",
        );
    }
    if is_self_signed(leaf) {
        return Finding::bad("self-signed", public);
    }
    // From issuer to issuer, as far as they came along.
    let mut top = leaf;
    for _ in parsed {
        let next = parsed.iter().find(|other| !is_self_signed(other) && other.subject() == top.issuer());
        top = next.unwrap_or(top);
    }
    let root_came_along = parsed.iter().any(|other| is_self_signed(other) && other.subject() == top.issuer());
    if std::ptr::eq(top, leaf) && !root_came_along {
        return Finding::bad(
            format!("the chain is incomplete: the certificate of its issuer, {issuer}, does not come along"),
            "Give the proxy fullchain.pem in the place of cert.pem (Nginx: ssl_certificate; Apache: SSLCertificateFile). An \
             authority of one's own does not do: Discord trusts public ones alone.",
        );
    }
    Finding::bad(format!("from an authority that is not public, {}", name(top.issuer())), public)
}

fn is_self_signed(certificate: &X509Certificate<'_>) -> bool {
    certificate.subject() == certificate.issuer()
}

/// `R11 (Let's Encrypt)`.
fn name(name: &X509Name<'_>) -> String {
    let common = name.iter_common_name().find_map(|value| value.as_str().ok());
    let organization = name.iter_organization().find_map(|value| value.as_str().ok());
    match (common, organization) {
        (Some(common), Some(organization)) if common != organization => {
            format!("{} ({})", plain(common, 60), plain(organization, 60))
        }
        (Some(one), _) | (None, Some(one)) => plain(one, 60),
        (None, None) => plain(&name.to_string(), 60),
    }
}

/// Whom it is for.
fn names(leaf: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(names)) = leaf.subject_alternative_name() else { return Vec::new() };
    let names = names.value.general_names.iter();
    names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(plain(name, 80)),
            GeneralName::IPAddress(bytes) => address(bytes).map(|address| address.to_string()),
            _ => None,
        })
        .collect()
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(|octets| Ipv4Addr::from(octets).into());
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(|octets| Ipv6Addr::from(octets).into())).ok()
}

/// Whole days; below 0 once it is over.
fn days_left(certificate: &X509Certificate<'_>) -> i64 {
    seconds_left(certificate).div_euclid(DAY)
}

fn seconds_left(certificate: &X509Certificate<'_>) -> i64 {
    let now = i64::try_from(SystemClock.unix_time().as_secs()).unwrap_or(i64::MAX);
    certificate.validity().not_after.timestamp().saturating_sub(now)
}

fn in_days(days: i64) -> String {
    if days == 0 { "in less than a day".to_owned() } else { format!("in {}", count(days)) }
}

fn count(days: i64) -> String {
    if days == 1 { "1 day".to_owned() } else { format!("{days} days") }
}

fn date(time: OffsetDateTime) -> String {
    time.date().to_string()
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

    use super::*;

    /// A server's certificate and its issuer's, which has that name and ends so many days from now.
    fn chain(issuer: &str, days: i64) -> Vec<CertificateDer<'static>> {
        let now = i64::try_from(SystemClock.unix_time().as_secs()).unwrap();
        let ends = OffsetDateTime::from_unix_timestamp(now + days * DAY).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, issuer);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_after = ends;
        let (root_key, key, leaf_key) =
            (KeyPair::generate().unwrap(), KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let mut root = CertificateParams::default();
        root.distinguished_name.push(DnType::CommonName, "root");
        let middle = params.signed_by(&key, &Issuer::new(root, &root_key)).unwrap();
        let leaf = CertificateParams::new(["bot.example.com".to_owned()]).unwrap();
        let leaf = leaf.signed_by(&leaf_key, &Issuer::new(params, &key)).unwrap();
        vec![leaf.der().clone(), middle.der().clone()]
    }

    fn explain(chain: &[CertificateDer<'_>], error: CertificateError) -> String {
        let target = "https://bot.example.com/interactions".parse().unwrap();
        format!("{:?}", untrusted(chain, &error.into(), &target))
    }

    #[test]
    fn a_test_authority_is_told_from_an_unknown_one() {
        let words = explain(&chain("(STAGING) Ersatz Edamame E1", 90), CertificateError::UnknownIssuer);
        assert!(
            words.contains("from a test authority, (STAGING)") && words.contains("--test-cert"),
            "{words}"
        );
        let words = explain(&chain("somebody", 90), CertificateError::UnknownIssuer);
        assert!(words.contains("not public, root"), "{words}");
    }

    #[test]
    fn an_issuer_that_has_expired_is_named() {
        let words = explain(&chain("somebody", -5), CertificateError::Expired);
        assert!(
            words.contains("of its issuer, somebody, expired on ") && words.contains("5 days ago"),
            "{words}"
        );
    }

    #[test]
    fn what_is_no_certificate_is_told() {
        let words = explain(&[CertificateDer::from(vec![0; 3])], CertificateError::BadEncoding);
        assert!(words.contains("cannot be read"), "{words}");
    }
}
