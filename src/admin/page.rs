//! The status page: one answer with its style and its script in it, put together at the start.

use bytes::Bytes;
use data_encoding::BASE64;
use http::{HeaderValue, Response, StatusCode, header};
use ring::digest::{SHA256, digest};

use super::routing::{self, Body};

const HTML: &str = include_str!("page/page.html");
const CSS: &str = include_str!("page/page.css");
const JS: &str = concat!(
    include_str!("page/tools.js"),
    include_str!("page/charts.js"),
    include_str!("page/rows.js"),
    include_str!("page/cards.js"),
    include_str!("page/page.js"),
);

/// Where the two go.
const CSS_HERE: &str = "/*css*/";
const JS_HERE: &str = "/*js*/";

/// The page, ready to be sent.
pub(super) struct Page {
    html: Bytes,
    policy: Option<HeaderValue>,
}

impl Page {
    pub(super) fn new() -> Self {
        let html = HTML.replacen(CSS_HERE, CSS, 1).replacen(JS_HERE, JS, 1);
        // Should one get something else into the page, no browser would run or show it, or send anything elsewhere.
        let policy = format!(
            "default-src 'none'; style-src '{}'; script-src '{}'; connect-src 'self'; img-src data:; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            hash(CSS),
            hash(JS)
        );
        Self { html: html.into(), policy: HeaderValue::from_str(&policy).ok() }
    }

    pub(super) fn response(&self) -> Response<Body> {
        // Never without its policy.
        let Some(policy) = self.policy.clone() else { return routing::broken() };
        let mut response = routing::whole(StatusCode::OK, "text/html; charset=utf-8", self.html.clone());
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
        response
    }
}

/// Source: Content Security Policy Level 3, section 2.3.1, hash-source.
fn hash(text: &str) -> String {
    format!("sha256-{}", BASE64.encode(digest(&SHA256, text.as_bytes()).as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hashes are of what stands between the tags, to the byte.
    #[test]
    fn the_style_and_the_script_stand_in_the_page_as_they_are_hashed() {
        let page = Page::new();
        let html = std::str::from_utf8(&page.html).unwrap();
        let policy = page.policy.unwrap();
        let policy = policy.to_str().unwrap();
        for (tag, directive, text) in [("style", "style-src", CSS), ("script", "script-src", JS)] {
            assert_eq!(html.matches(&format!("<{tag}")).count(), 1, "one <{tag}>");
            let inside = html.split_once(&format!("<{tag}>")).unwrap().1;
            assert_eq!(inside.split_once(&format!("</{tag}>")).unwrap().0, text);
            assert!(policy.contains(&format!("{directive} '{}'", hash(text))), "{policy}");
        }
    }

    #[test]
    fn a_hash_is_as_browsers_compute_it() {
        assert_eq!(hash(""), "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
    }
}
