//! Deliveries by themselves, with Discord's REST API behind them: in time that passes by itself where nothing else is to
//! be done, so that no test waits.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use shardless::activity::Activity;
use shardless::budget::Budget;
use shardless::clock::Clock;
use shardless::delivery::Delivery;
use shardless::discord::Token;
use shardless::discord::deferral::Deferral;
use shardless::discord::late::{Message, Way};
use shardless::metrics::Metrics;
use shardless::outbox::{Deferred, Health, Outbox, Ticket};
use shardless::rehearsal::rest::{Api, Script, View};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::TestClock;

/// What users are told where there is no answer.
pub(crate) const FALLBACK: &str = "Sorry.";

/// A public deferral.
pub(crate) const PUBLIC: Deferral = Deferral::Message { private: false };

/// What delivers, and Discord's API. To be used in paused time.
pub(crate) struct Courier {
    pub(crate) api: Api,
    pub(crate) outbox: Outbox,
    pub(crate) clock: Arc<TestClock>,
    metrics: Arc<Metrics>,
    running: JoinHandle<()>,
}

/// What a handler comes to.
#[derive(Clone, Debug)]
pub(crate) enum Ending {
    /// A message, in JSON.
    Answer(Way, &'static str),
    /// A message in that content type.
    Form(&'static str, Bytes),
    /// Nothing.
    Failure,
    /// It edits by itself, it says, until that much time is over.
    Own(Duration),
}

impl Courier {
    /// With an API that behaves by a script.
    pub(crate) async fn with(script: Script) -> Self {
        let clock = Arc::new(TestClock::default());
        let api = Api::following(script.clock(Arc::<TestClock>::clone(&clock)), 0).await.unwrap();
        let url = api.url();
        Self::between(api, &url, clock, None)
    }

    /// With another API than the one that users see, and another clock for the deliveries.
    pub(crate) fn between(
        api: Api,
        url: &str,
        clock: Arc<TestClock>,
        deliverys_clock: Option<Arc<dyn Clock>>,
    ) -> Self {
        let metrics = Arc::new(Metrics::default());
        let (outbox, dues) = Outbox::new(Arc::<TestClock>::clone(&clock), Arc::clone(&metrics));
        let deliverys_clock = deliverys_clock.unwrap_or_else(|| Arc::<TestClock>::clone(&clock));
        let url = url.parse().unwrap();
        let (metrics_of_it, flood) = (Arc::clone(&metrics), Arc::default());
        let activity = Activity::default();
        let delivery =
            Delivery::new(&url, outbox.clone(), dues, deliverys_clock, metrics_of_it, activity, flood);
        let running = tokio::spawn(delivery.run());
        Self { api, outbox, clock, metrics, running }
    }

    /// An interaction is deferred, and its handler comes to an end. `id` is its token too, in words.
    pub(crate) fn defer(&self, id: u64, deferral: Deferral, ending: Ending) {
        let token = token(id);
        let interaction = format!(
            r#"{{"id":"{id}","application_id":"7","token":"{token}","type":3,"message":{{"id":"5","content":"Pick one:"}}}}"#
        );
        let callback = deferral.callback();
        assert!(self.api.answered(interaction.as_bytes(), callback.as_ref()));
        let give_up = if let Ending::Own(time) = ending { time } else { Duration::from_secs(870) };
        let mut ticket = self.begin(id, deferral, give_up);
        ticket.defer();
        ticket.sent();
        let answer = |way, content_type: &str, body| {
            ticket.answered(Message { way, content_type: content_type.to_owned(), body });
        };
        match ending {
            Ending::Answer(way, body) => answer(way, "application/json", Bytes::from_static(body.as_bytes())),
            Ending::Form(content_type, body) => answer(Way::Edit, content_type, body),
            Ending::Failure => ticket.failed(),
            Ending::Own(_) => ticket.edits_itself(),
        }
    }

    fn begin(&self, id: u64, deferral: Deferral, give_up: Duration) -> Ticket {
        let now = self.clock.now();
        let deferred = Deferred {
            app: "mybot".into(),
            id,
            application: 7,
            token: Token::new(&token(id)).unwrap(),
            deferral,
            route: None,
            arrived: self.clock.unix_time(),
            give_up: now + give_up,
            expires: Deferred::expiry(now),
            asleep: self.clock.asleep(),
            fallback: FALLBACK.into(),
        };
        self.outbox.begin(deferred, Budget::new(1).try_one().unwrap())
    }

    /// A public deferral whose late answer is "hello".
    pub(crate) fn defer_hello(&self, id: u64) {
        self.defer(id, PUBLIC, Ending::Answer(Way::Edit, r#"{"content":"hello"}"#));
    }

    /// The same, with an answer of so many bytes that begins with "hello": most of it is what Discord overlooks.
    pub(crate) fn defer_large(&self, id: u64, size: usize) {
        let body = format!(r#"{{"content":"hello","padding":"{}"}}"#, "y".repeat(size));
        self.defer(id, PUBLIC, Ending::Form("application/json", Bytes::from(body)));
    }

    /// A handler writes by itself.
    pub(crate) async fn edit(&self, id: u64, content: &str) {
        let url = format!("{}/webhooks/7/{}/messages/@original", self.api.url(), token(id));
        let client = reqwest::Client::builder().no_proxy().user_agent("DiscordBot (bot, 1)").build().unwrap();
        let edit = client.patch(url).header("content-type", "application/json");
        let sent = edit.body(format!(r#"{{"content":"{content}"}}"#)).send().await.unwrap();
        assert_eq!(sent.status(), 200);
    }

    /// Waits until so many deferred interactions are left.
    pub(crate) async fn until_entries(&self, count: f64) {
        let end = Instant::now() + Duration::from_secs(1200);
        while self.metric("shardless_outbox_entries") != count {
            assert!(Instant::now() < end, "in vain: entries in the outbox");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// What the user sees in the end, when nothing is left to be done.
    pub(crate) async fn end_of(&self, id: u64) -> View {
        self.until_entries(0.0).await;
        self.view(id)
    }

    /// What the user sees now.
    pub(crate) fn view(&self, id: u64) -> View {
        self.api.view(&token(id)).unwrap()
    }

    /// The calls for one interaction, each as its method.
    pub(crate) fn calls(&self, id: u64) -> Vec<String> {
        let calls = self.api.calls();
        calls.iter().filter(|call| call.token() == token(id)).map(|call| call.method.to_string()).collect()
    }

    /// How long after its deferral the calls for one interaction came.
    pub(crate) fn times(&self, id: u64) -> Vec<Duration> {
        let calls = self.api.calls();
        calls.iter().filter(|call| call.token() == token(id)).map(|call| call.since_answer.unwrap()).collect()
    }

    /// How many deferred interactions ended so.
    pub(crate) fn ended(&self, result: &str) -> f64 {
        self.metric(&format!("shardless_late_answers_total{{app=\"mybot\",result=\"{result}\"}}"))
    }

    /// Waits until all that was said is on disk; meanwhile time stands still.
    pub(crate) async fn until_stored(&self) {
        let (outbox, here) = (self.outbox.clone(), tokio::runtime::Handle::current());
        // Once it is on disk, so is what was said before.
        let last = self.begin(0, PUBLIC, Duration::from_secs(870));
        let until_stored = move || {
            while outbox.health() != Health::Durable {
                std::thread::yield_now();
            }
            assert!(here.block_on(last.committed()));
        };
        tokio::task::spawn_blocking(until_stored).await.unwrap();
    }

    /// Delivers no more.
    pub(crate) async fn stop(&self) {
        self.running.abort();
        while !self.running.is_finished() {
            tokio::task::yield_now().await;
        }
    }

    fn metric(&self, name: &str) -> f64 {
        super::metric(&self.metrics, name)
    }
}

impl Drop for Courier {
    fn drop(&mut self) {
        self.running.abort();
    }
}

/// The secret of an interaction.
pub(crate) fn token(id: u64) -> String {
    format!("hush-{id}-hush")
}
