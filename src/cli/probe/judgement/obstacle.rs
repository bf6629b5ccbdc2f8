//! What answers in place of shardless, and what to do about it.

use http::{HeaderName, StatusCode, header};

use crate::cli::probe::client::Answer;
use crate::cli::probe::report::plain;
use crate::cli::probe::target::Target;
use crate::gateway::Refusal;

/// Cloudflare's, on what it answers itself in place of a request that it does not let through.
const CF_MITIGATED: HeaderName = HeaderName::from_static("cf-mitigated");

/// The answer in words, and what to do.
pub(super) fn describe(answer: &Answer, refusal: Option<&Refusal>, target: &Target) -> (String, String) {
    if let Some(refusal) = refusal {
        return (format!("{} from shardless: {refusal}", status(answer)), refused(refusal, target));
    }
    let text = format!("{}{}", status(answer), by(answer));
    if answer.headers.contains_key(CF_MITIGATED) {
        return (format!("{text}, which puts a challenge in the way"), challenged(target));
    }
    match answer.status {
        status if status.is_redirection() => redirected(answer, target),
        status if status.is_success() => (format!("{text} with a web page: another program answers"), elsewhere(target)),
        StatusCode::UNAUTHORIZED => (
            format!("{text}, which asks for a password"),
            "Discord has none: take the password off for this path (Nginx: auth_basic off; Apache: Require all granted)."
                .to_owned(),
        ),
        other => (text, by_status(other, answer, target)),
    }
}

/// Where shardless itself says why.
fn refused(refusal: &Refusal, target: &Target) -> String {
    match refusal {
        Refusal::UnknownPath => format!(
            "shardless is reached, but no application in its config has the path {}: see `path` under [apps.NAME]; without \
             it, that is /interactions. Or does the proxy change the path? (Nginx: nothing after the port in proxy_pass)",
            plain(target.url().path(), 80)
        ),
        Refusal::MediaType => {
            "Something on the way takes the Content-Type header away, or changes it.".to_owned()
        }
        Refusal::Method => "Something on the way makes another request of the POST.".to_owned(),
        Refusal::BodyTimeout | Refusal::BodyBroken => {
            "Something on the way holds the body back: see the proxy's error log.".to_owned()
        }
        _ => "See shardless' log: journalctl -u shardless".to_owned(),
    }
}

fn by_status(status: StatusCode, answer: &Answer, target: &Target) -> String {
    let path = plain(target.url().path(), 80);
    match status.as_u16() {
        400 if speaks_tls(answer) && target.is_https() => {
            "The proxy passes plain HTTP on to a port that speaks TLS. If shardless' config has [tls], take the site file \
             whose name ends in -self-signed.conf; or take [tls] out, and restart shardless."
                .to_owned()
        }
        400 if speaks_tls(answer) => {
            format!("The port speaks TLS, and this was plain HTTP:\n  shardless probe {}", target.as_https())
        }
        403 => format!(
            "Something before shardless forbids it: a firewall (ModSecurity, a CDN's), or a line in the proxy's site (deny, \
             Require). Let POST {path} through."
        ),
        404 | 405 | 410 | 421 => elsewhere(target),
        429 => format!(
            "A rate limit. Discord's requests come in bursts, and all from few addresses: take the limit off for {path}, \
             since shardless has its own."
        ),
        500 => "The program that answers fails. Does the proxy pass requests on to the bot itself? Let it pass them to \
                shardless (port 3000), whose `handler` is the bot. If it does, the proxy's error log says more."
            .to_owned(),
        502..=504 => "The proxy does not reach shardless. Does it run (systemctl status shardless), and on the port that \
                      the proxy's site names (3000, unless you changed it)? The proxy's error log says more."
            .to_owned(),
        521..=523 => "Cloudflare does not reach your server: does the proxy run there, and does the firewall let \
                      Cloudflare's addresses in on port 443?"
            .to_owned(),
        525 | 526 => "Cloudflare does not trust your server's own certificate: get one there too (certbot, or an origin \
                      certificate of Cloudflare's)."
            .to_owned(),
        520 | 527 | 530 => "Cloudflare got no sound answer from your server: see the proxy's error log there.".to_owned(),
        _ => "Discord demands 401 for this. See the logs of the proxy and of shardless.".to_owned(),
    }
}

fn elsewhere(target: &Target) -> String {
    let host = target.host();
    format!(
        "It is not shardless that answers. Is {host} the server_name (Apache: ServerName) of its site file, is that file \
         enabled, is it the one that certbot has changed, and does no other site have the same name?"
    )
}

fn challenged(target: &Target) -> String {
    format!(
        "Discord cannot solve a challenge. In Cloudflare's dashboard, let a rule skip all checks for the path {} \
         (Security, WAF, Custom rules), and switch Bot Fight Mode off; or let the name bypass Cloudflare's proxy (DNS only).",
        plain(target.url().path(), 80)
    )
}

fn redirected(answer: &Answer, target: &Target) -> (String, String) {
    let location =
        answer.headers.get(header::LOCATION).map(|value| String::from_utf8_lossy(value.as_bytes()));
    let Some(location) = location else {
        return (format!("{}{}, which says not where to", status(answer), by(answer)), elsewhere(target));
    };
    let text = format!("{}{}, to {}", status(answer), by(answer), plain(&location, 200));
    let (from, to) = (target.url(), target.url().join(&location).ok());
    let bare = |host: Option<&str>| host.unwrap_or_default().trim_start_matches("www.").to_owned();
    let cause = match to {
        Some(to) if to == *from => {
            "It redirects to itself. If Cloudflare is before it, set SSL/TLS there to Full (strict): it asks your server \
             over plain HTTP."
                .to_owned()
        }
        Some(to) if bare(to.host_str()) != bare(from.host_str()) => elsewhere(target),
        Some(to) if to.host() != from.host() => {
            format!("The site goes by another name. If this one is good, give it to Discord:\n  shardless probe {}", shown(&to))
        }
        Some(to) if to.scheme() != from.scheme() => {
            format!("The endpoint is at https:\n  shardless probe {}", shown(&to))
        }
        Some(to) if to.path().trim_end_matches('/') == from.path().trim_end_matches('/') => {
            "The slash at the end makes the difference, for shardless too: let the proxy's location, `path` in shardless' \
             config and the URL for Discord be the same."
                .to_owned()
        }
        _ => elsewhere(target),
    };
    (text, format!("Discord does not follow redirects. {cause}"))
}

fn shown(url: &reqwest::Url) -> String {
    plain(url.as_str(), 200)
}

fn speaks_tls(answer: &Answer) -> bool {
    [
        "this port speaks TLS",
        "plain HTTP request was sent to HTTPS port",
        "speaking plain HTTP to an SSL-enabled",
    ]
    .iter()
    .any(|words| answer.body.contains(words))
}

/// Whether the answer is for people.
pub(super) fn is_page(answer: &Answer) -> bool {
    let content_type = answer.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    content_type.is_some_and(|value| value.contains("html")) || answer.body.trim_start().starts_with('<')
}

/// `404 Not Found`.
pub(super) fn status(answer: &Answer) -> String {
    match answer.status.canonical_reason() {
        Some(reason) => format!("{} {reason}", answer.status.as_u16()),
        None => answer.status.as_u16().to_string(),
    }
}

/// Who says it, as far as they say so.
pub(super) fn by(answer: &Answer) -> String {
    let server = answer.headers.get(header::SERVER);
    server.map_or_else(String::new, |server| {
        format!(" from {}", plain(&String::from_utf8_lossy(server.as_bytes()), 60))
    })
}
