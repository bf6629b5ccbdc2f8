//! A daemon with slow handlers, and Discord's REST API behind it.

use std::time::Duration;

use bytes::Bytes;
use shardless::rehearsal::rest::{Api, Message, Script, View};
use shardless::rehearsal::{Exchange, Payload};

use super::{Handler, TestDaemon, until};

/// Soon, so that tests are quick; late enough for what is to be in time.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_millis(400);

/// A daemon that defers soon, and Discord's API for what comes late.
pub(crate) struct Stage {
    pub(crate) daemon: TestDaemon,
    pub(crate) api: Api,
}

impl Stage {
    /// With lines of the application.
    pub(crate) async fn with(app: &str, handler: Handler) -> Self {
        Self::following(Script::default(), "", app, handler).await
    }

    /// With an API that behaves by a script, and settings.
    pub(crate) async fn following(script: Script, settings: &str, app: &str, handler: Handler) -> Self {
        let api = Api::following(script, 0).await.unwrap();
        let settings = format!("{settings}\n[discord]\napi = \"{}\"\n", api.url());
        let app = if app.contains("answer_within") {
            app.to_owned()
        } else {
            format!("answer_within = \"{}ms\"\n{app}", ANSWER_WITHIN.as_millis())
        };
        Self { daemon: TestDaemon::with(&settings, &app, handler).await, api }
    }

    /// Sends an interaction as Discord does, and takes its answer as Discord does.
    pub(crate) async fn send(&self, payload: &Payload) -> Exchange {
        self.api.sent(&payload.body);
        let exchange = self.daemon.send(&self.daemon.discord.sign(payload)).await;
        if exchange.status == 200 {
            self.api.answered(&payload.body, &exchange.body);
        }
        exchange
    }

    /// Sends a command that is to be deferred.
    pub(crate) async fn deferred_command(&self) -> Payload {
        let payload = self.daemon.fresh_command();
        let exchange = self.send(&payload).await;
        assert!(exchange.body.starts_with(br#"{"type":5"#), "{exchange:?}");
        payload
    }

    /// What its user sees, once nothing is waited for any more.
    pub(crate) async fn end_of(&self, payload: &Payload) -> View {
        self.until_entries(0).await;
        self.api.view(&token(payload)).unwrap()
    }

    /// Waits until so many deferred interactions are left.
    pub(crate) async fn until_entries(&self, count: usize) {
        let count = count as f64;
        until("entries in the outbox", || async { self.daemon.metric("shardless_outbox_entries") == count })
            .await;
    }

    /// How many deferred interactions ended so.
    pub(crate) fn ended(&self, result: &str) -> f64 {
        self.daemon.metric(&format!("shardless_late_answers_total{{app=\"mybot\",result=\"{result}\"}}"))
    }

    /// The calls of the API, each as its method and what it is about.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.api.calls().iter().map(|call| format!("{} {:?}", call.method, call.target)).collect()
    }
}

/// The secret of an interaction.
pub(crate) fn token(payload: &Payload) -> String {
    let json: serde_json::Value = serde_json::from_slice(&payload.body).unwrap();
    json["token"].as_str().unwrap().to_owned()
}

/// The message that the user sees first.
pub(crate) fn original(view: &View) -> &Message {
    view.original.as_ref().expect("there is no message")
}

/// A handler that gives this answer so long after it was asked.
pub(crate) async fn slow(
    after: Duration,
    status: u16,
    content_type: &str,
    body: impl Into<Bytes>,
) -> Handler {
    let (content_type, body) = (content_type.to_owned(), body.into());
    Handler::start(move |_| {
        let response = http::Response::builder().status(status).header("content-type", &content_type);
        let response = response.body(http_body_util::Full::new(body.clone())).unwrap();
        async move {
            tokio::time::sleep(after).await;
            response
        }
    })
    .await
}

/// A handler whose answer, in JSON, is late.
pub(crate) async fn late(body: &str) -> Handler {
    slow(
        ANSWER_WITHIN + Duration::from_millis(200),
        200,
        "application/json",
        Bytes::copy_from_slice(body.as_bytes()),
    )
    .await
}
