//! What is served where, and to whom.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{self, HeaderName};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use serde::Serialize;
use serde_json::Value;

use super::events::Events;
use super::health::{self, Check};
use super::page::Page;
use super::situation::Phase;
use super::{Sources, charts, host, looking, metrics, status};

/// The body of an answer, whole or as a stream.
pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// For whatever was wrong to be over.
const AFTER_A_PANIC: Duration = Duration::from_secs(1);

/// For the accept loop to give a sign of life.
const PATIENCE: Duration = Duration::from_secs(2);

/// Source: OpenMetrics 1.0, section "Overall Structure".
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream";
const TEXT: &str = "text/plain; charset=utf-8";

/// Paths that machines ask for by whatever name they know. A stranger's page that got here by that name would learn of
/// the names and rates of applications, and no more.
const FOR_MACHINES: [&str; 3] = ["/livez", "/readyz", "/metrics"];

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const CORP: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// On every answer.
pub(super) const ALWAYS: [(HeaderName, HeaderValue); 4] = [
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (CORP, HeaderValue::from_static("same-origin")),
];

/// Answers requests.
pub(super) struct Routing {
    sources: Arc<Sources>,
    page: Page,
    events: Events,
}

/// `/readyz`.
#[derive(Serialize)]
struct Readiness {
    status: &'static str,
    checks: Vec<Check>,
}

impl Routing {
    pub(super) fn new(sources: Sources, pages: usize) -> Self {
        let sources = Arc::new(sources);
        Self { page: Page::new(), events: Events::new(Arc::clone(&sources), pages), sources }
    }

    /// Does what is to be done each second, for ever.
    pub(super) async fn run(&self) {
        tokio::join!(
            again_after_a_panic(|| self.events.run()),
            again_after_a_panic(|| looking::run(&self.sources, || self.events.are_read())),
        );
    }

    /// The answer to any request.
    pub(super) async fn answer(&self, head: &Parts) -> Response<Body> {
        match refusal(head) {
            Some(refused) => refused,
            None => self.serve(head.uri.path(), head.uri.query(), is_for_us(&head.headers)).await,
        }
    }

    async fn serve(&self, path: &str, query: Option<&str>, is_for_us: bool) -> Response<Body> {
        match path {
            "/" => self.page.response(),
            "/status.json" => json(&Value::Object(status::document(&self.sources, 0).0)),
            "/charts.json" => self.charts(query),
            "/events" => self.events(),
            "/livez" => self.livez().await,
            "/readyz" => self.readyz(is_for_us),
            "/metrics" => self.metrics(),
            _ => text(StatusCode::NOT_FOUND, "there is nothing here: the status page is at /\n"),
        }
    }

    /// Whether the process is to be left alone: it accepts connections and its threads get on, or it is on its way there
    /// or from there.
    async fn livez(&self) -> Response<Body> {
        if self.sources.situation.facts().stuck_threads > 0 {
            return text(StatusCode::SERVICE_UNAVAILABLE, "threads of the daemon are stuck\n");
        }
        let is_serving = self.sources.situation.facts().phase == Phase::Serving;
        let beat = tokio::time::timeout(PATIENCE, self.sources.pulse.beat());
        if is_serving && beat.await.is_err() && self.sources.situation.facts().phase == Phase::Serving {
            return text(StatusCode::SERVICE_UNAVAILABLE, "no connection is accepted: the daemon is stuck\n");
        }
        text(StatusCode::OK, "ok\n")
    }

    /// Whether requests are to be sent here. What is degraded is served all the same, as well as it can be.
    fn readyz(&self, is_for_us: bool) -> Response<Body> {
        let phase = self.sources.situation.facts().phase;
        let mut checks = health::checks(&self.sources);
        if !is_for_us {
            checks.iter_mut().for_each(|check| check.text.clear());
        }
        let readiness = Readiness { status: health::status(phase, &checks), checks };
        let status = match phase {
            Phase::Serving => StatusCode::OK,
            Phase::Starting | Phase::Draining => StatusCode::SERVICE_UNAVAILABLE,
        };
        match serde_json::to_vec(&readiness) {
            Ok(json) => whole(status, JSON, json),
            Err(_) => broken(),
        }
    }

    fn charts(&self, query: Option<&str>) -> Response<Body> {
        // Names of applications need no escapes.
        let app = query.and_then(|query| query.strip_prefix("app="));
        match charts::document(&self.sources, app) {
            Some(charts) => json(&charts),
            None => text(StatusCode::NOT_FOUND, "there are no charts of an application with that name\n"),
        }
    }

    fn events(&self) -> Response<Body> {
        let Some(stream) = self.events.stream() else {
            return text(StatusCode::SERVICE_UNAVAILABLE, "too many pages are open (admin.connections)\n");
        };
        let mut response = Response::new(StreamBody::new(stream).boxed_unsync());
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(EVENTS));
        response
    }

    fn metrics(&self) -> Response<Body> {
        match metrics::encode(&self.sources) {
            Ok(text) => whole(StatusCode::OK, OPEN_METRICS, text),
            Err(_) => broken(),
        }
    }
}

/// A bug in what goes on all the time is not to end it.
async fn again_after_a_panic<F: Future<Output = ()>>(work: impl Fn() -> F) {
    while AssertUnwindSafe(work()).catch_unwind().await.is_err() {
        tokio::time::sleep(AFTER_A_PANIC).await;
    }
}

/// The answer to those who get nothing.
fn refusal(head: &Parts) -> Option<Response<Body>> {
    if ![Method::GET, Method::HEAD].contains(&head.method) {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "there is only GET and HEAD here\n");
        refused.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Some(refused);
    }
    // Another site's link to the page is fine: the page itself tells nothing, and no other can look into it.
    let is_cross_site = head.headers.get_all(SEC_FETCH_SITE).iter().any(|site| site == "cross-site");
    if is_cross_site && head.uri.path() != "/" {
        return Some(text(StatusCode::FORBIDDEN, "this is not for other sites\n"));
    }
    // A stranger's page can let its own name lead here (DNS rebinding), and would then be of one origin with this one.
    if !FOR_MACHINES.contains(&head.uri.path()) && !is_for_us(&head.headers) {
        let what = "this page is only for its machine's own names, so that no other site can read it: \
                    put localhost in the place of the name, from elsewhere through ssh -L PORT:localhost:PORT SERVER\n";
        return Some(text(StatusCode::MISDIRECTED_REQUEST, what));
    }
    None
}

fn is_for_us(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(one), None) => one.to_str().is_ok_and(host::is_own),
        _ => false,
    }
}

/// An answer that is known to its end.
pub(super) fn whole(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Body> {
    let mut response = Response::new(Full::new(body.into()).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn json(value: &Value) -> Response<Body> {
    whole(StatusCode::OK, JSON, value.to_string())
}

/// A sentence.
pub(super) fn text(status: StatusCode, sentence: &'static str) -> Response<Body> {
    whole(status, TEXT, sentence)
}

/// Something of ours does not work.
pub(super) fn broken() -> Response<Body> {
    text(StatusCode::INTERNAL_SERVER_ERROR, "this is a bug: see the log\n")
}
