//! Bringing late answers to Discord, each by itself: one's trouble is not another's.
//!
//! The requests go to the interaction's own address, which its token opens for 15 minutes; after that nothing is sent.

mod gate;
mod rest;
mod waits;

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::task::JoinSet;

use crate::activity::Activity;
use crate::clock::Clock;
use crate::config::ApiUrl;
use crate::discord::deferral::Deferral;
use crate::discord::late::{self, Way};
use crate::discord::rest::{self as protocol, Reason, Refusal, Verdict};
use crate::logging::{self, Delivered, Flood};
use crate::metrics::{self, Metrics};
use crate::outbox::{Due, Dues, Outbox, Task};
use rest::{Call, Ended, Message, Rest};
use waits::Waits;

/// How long an answer that is not on disk yet is waited for: a crash while it is on its way would end in the fallback text.
const SLOW_DISK: Duration = Duration::from_millis(300);

/// Delivers what becomes due.
pub struct Delivery {
    courier: Arc<Courier>,
    dues: Dues,
}

impl Delivery {
    /// A delivery to that API.
    pub fn new(
        api: &ApiUrl,
        outbox: Outbox,
        dues: Dues,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
        activity: Activity,
        flood: Arc<Flood>,
    ) -> Self {
        let (its_clock, its_metrics) = (Arc::clone(&clock), Arc::clone(&metrics));
        let rest =
            Rest::new(api, outbox.clone(), its_clock, its_metrics, activity.clone(), Arc::clone(&flood));
        Self { courier: Arc::new(Courier { outbox, rest, clock, metrics, activity, flood }), dues }
    }

    /// Delivers, until it is dropped: then what is under way is left as it is.
    pub async fn run(mut self) {
        let mut deliveries = JoinSet::new();
        loop {
            tokio::select! {
                Some(due) = self.dues.next() => {
                    let courier = Arc::clone(&self.courier);
                    deliveries.spawn(async move { courier.end(due).await });
                }
                Some(_) = deliveries.join_next() => {}
                // No outbox is left to become due.
                else => std::future::pending().await,
            }
        }
    }
}

struct Courier {
    outbox: Outbox,
    rest: Rest,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    activity: Activity,
    flood: Arc<Flood>,
}

/// What became of something due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The user has the handler's answer.
    Answered,
    /// The user has the fallback text.
    FellBack,
    /// The handler wrote by itself, which stays.
    Kept,
    /// The user's message is not there any more.
    Gone,
    /// Discord never knew of the deferral.
    Unknown,
    /// Its request came once more, after the process that deferred it was killed: this process sees to it.
    CameAgain,
    /// The token's time was over first.
    Expired,
    /// Discord takes nothing for this interaction.
    Refused(Refusal),
}

impl Courier {
    /// Delivers it, whatever comes of it. After a panic the user gets the fallback text, unless something has reached
    /// them; where that panics too, the entry is left to the next start.
    async fn end(&self, mut due: Due) {
        if AssertUnwindSafe(self.deliver(&due)).catch_unwind().await.is_err() {
            due.task = Task::FallbackUnlessEdited;
            // The panic has left its line in the log.
            _ = AssertUnwindSafe(self.deliver(&due)).catch_unwind().await;
        }
    }

    async fn deliver(&self, due: &Due) {
        tokio::time::sleep(due.at.saturating_duration_since(self.clock.now())).await;
        // Whatever comes of it, it is delivered.
        _ = tokio::time::timeout(SLOW_DISK, self.outbox.committed(due)).await;
        let end = match &due.task {
            Task::Answer { way, content_type } => self.bring(due, *way, content_type).await,
            Task::Fallback => self.fall_back(due).await,
            Task::FallbackUnlessEdited => self.fall_back_unless_edited(due).await,
        };
        self.note(due, end);
        self.outbox.done(due);
    }

    /// The handler's answer.
    async fn bring(&self, due: &Due, way: Way, content_type: &str) -> End {
        let message = Message::Answer { content_type };
        let call = match way {
            Way::Edit => Call::Edit(message),
            Way::FollowUp => Call::FollowUp(message),
            Way::Replace => match self.rest.send(due, &Call::Delete).await {
                Ended::Done(_) | Ended::NoMessage => Call::FollowUp(message),
                // It stays as it is, for everyone to see: what is private cannot take its place.
                Ended::Refused(refusal) if refusal.reason != Reason::Token => {
                    self.warn(due, &falls_back(Verdict::Refused(refusal)));
                    return self.fall_back(due).await;
                }
                ended => return ended.into(),
            },
        };
        let why = match self.rest.send(due, &call).await {
            Ended::Done(_) => return End::Answered,
            // Whatever it is about: another message may do.
            Ended::Refused(refusal) if refusal.reason != Reason::Token => {
                falls_back(Verdict::Refused(refusal))
            }
            Ended::Unreadable(error) => falls_back(format_args!("the late answer cannot be read: {error}")),
            ended => return ended.into(),
        };
        self.warn(due, &why);
        if way == Way::Replace { self.follow_up(due).await } else { self.fall_back(due).await }
    }

    /// The fallback text, where the user is still waiting.
    async fn fall_back(&self, due: &Due) -> End {
        if due.deferred.deferral == Deferral::Update {
            return self.follow_up(due).await;
        }
        let text = &due.deferred.fallback;
        let edit = Call::Edit(Message::Text(late::fallback_edit(text)));
        let mut waits = Waits::new();
        // With another look before each try: meanwhile the handler may write, or the last try may have arrived.
        loop {
            match self.rest.send(due, &Call::Get).await {
                Ended::Done(original) if protocol::is_loading(&original) == Some(true) => {}
                Ended::Done(original) if protocol::has_text(&original, text) => return End::FellBack,
                Ended::Done(_) => return End::Kept,
                ended => return ended.into(),
            }
            match self.rest.attempt(due, &edit, &mut waits).await {
                Some(Ended::Done(_)) => return End::FellBack,
                Some(ended) => return ended.into(),
                None => {}
            }
        }
    }

    async fn fall_back_unless_edited(&self, due: &Due) -> End {
        if due.deferred.deferral != Deferral::Update {
            return self.fall_back(due).await;
        }
        match self.rest.send(due, &Call::Get).await {
            Ended::Done(original)
                if protocol::is_edited_after(&original, protocol::created(due.deferred.id)) == Some(true) =>
            {
                End::Kept
            }
            Ended::Done(_) | Ended::NoMessage => self.follow_up(due).await,
            ended => ended.into(),
        }
    }

    /// The fallback text, where there is nothing to write it over.
    async fn follow_up(&self, due: &Due) -> End {
        let text = late::fallback_follow_up(&due.deferred.fallback);
        let ended = self.rest.send(due, &Call::FollowUp(Message::Text(text))).await;
        if matches!(ended, Ended::Done(_)) { End::FellBack } else { ended.into() }
    }

    fn note(&self, due: &Due, end: End) {
        let deferred = &due.deferred;
        let age = self.clock.unix_time().saturating_sub(deferred.arrived);
        let (app, result) = (Arc::clone(&deferred.app), end.as_str());
        self.metrics.late_answers.get_or_create(&metrics::LateAnswer { app, result }).inc();
        let (is_trouble, text) = end.text();
        self.say(due, age, result, is_trouble, &text);
        self.activity.delivered(result);
        if end == End::CameAgain {
            // What has this id on the page is the one that came.
            return self.activity.later(&deferred.app, deferred.id, text);
        }
        let app = metrics::App(Arc::clone(&deferred.app));
        self.metrics.late_answer_seconds.get_or_create(&app).observe(age.as_secs_f64());
        self.activity.over(&deferred.app, deferred.id, text);
    }

    fn warn(&self, due: &Due, text: &str) {
        let age = self.clock.unix_time().saturating_sub(due.deferred.arrived);
        self.say(due, age, "on_its_way", true, text);
        self.activity.later(&due.deferred.app, due.deferred.id, text.to_owned());
    }

    fn say(&self, due: &Due, age: Duration, result: &'static str, is_trouble: bool, text: &str) {
        let deferred = &due.deferred;
        let (app, id, route) = (&deferred.app, deferred.id, deferred.route.as_deref());
        let line = Delivered { app, id, route, result, age, is_trouble, text };
        logging::delivered(&self.flood, self.clock.now(), &line);
    }
}

impl End {
    /// A word for metrics and logs.
    fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::FellBack => "fell_back",
            Self::Kept => "kept",
            Self::Gone => "gone",
            Self::Unknown => "unknown",
            Self::CameAgain => "came_again",
            Self::Expired => "expired",
            Self::Refused(Refusal { reason: Reason::Token, .. }) => "token_refused",
            Self::Refused(_) => "refused",
        }
    }

    /// Whether somebody should look into it, and what to say.
    fn text(self) -> (bool, String) {
        let (is_trouble, text) = match self {
            Self::Answered => (false, "late answer delivered"),
            Self::FellBack => (false, "fallback text delivered"),
            Self::Kept => (false, "nothing to deliver: the handler has written by itself"),
            Self::Gone => (false, "nothing to deliver: the message is not there any more"),
            Self::Unknown => (true, "not delivered: Discord does not know of the deferral"),
            Self::CameAgain => (false, "nothing to deliver: its request came once more, and is seen to"),
            Self::Expired => (true, "not delivered: the interaction's token has expired"),
            Self::Refused(refusal) => {
                return (true, format!("not delivered: {}", Verdict::Refused(refusal)));
            }
        };
        (is_trouble, text.to_owned())
    }
}

/// For logs.
fn falls_back(why: impl fmt::Display) -> String {
    format!("{why}, so the user gets the fallback text")
}

impl From<Ended> for End {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Done(_) => Self::Answered,
            Ended::NoMessage => Self::Gone,
            Ended::Unknown => Self::Unknown,
            Ended::CameAgain => Self::CameAgain,
            Ended::Expired => Self::Expired,
            Ended::Refused(refused) => Self::Refused(refused),
            // Nobody gets here: the one who sent an answer sends the fallback text then.
            Ended::Unreadable(_) => Self::Unknown,
        }
    }
}
