//! Conversations: what became of one interaction, from its sending to its token's end.

use http::Method;
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::call::Target;
use super::message::Message;
use super::post::Post;
use super::reply::{Problem, Reply};
use super::{Race, View};
use crate::discord::{TOKEN_LIFETIME, Token};

/// One interaction, and what became of it.
pub(super) struct Conversation {
    pub(super) token: Token,
    application: String,
    /// The message that the interaction came with.
    came_with: Option<Map<String, Value>>,
    sent: Instant,
    answered: Option<Instant>,
    is_ended: bool,
    view: View,
    /// Calls that lost the race against the deferral.
    raced: usize,
}

/// What a change of a conversation needs besides.
pub(super) struct Moment<'a> {
    pub(super) now: Instant,
    pub(super) unix_seconds: u64,
    pub(super) race: Race,
    /// The snowflake that was given last.
    pub(super) last_id: &'a mut u64,
}

impl Conversation {
    /// Nothing, if the interaction does not name its application.
    pub(super) fn new(token: Token, interaction: &Value, sent: Instant) -> Option<Self> {
        Some(Self {
            token,
            application: super::text(interaction, "application_id")?.to_owned(),
            came_with: interaction.get("message").and_then(Value::as_object).cloned(),
            sent,
            answered: None,
            is_ended: false,
            view: View::default(),
            raced: 0,
        })
    }

    pub(super) fn view(&self) -> &View {
        &self.view
    }

    pub(super) fn answered(&self) -> Option<Instant> {
        self.answered
    }

    pub(super) fn is_expired(&self, now: Instant) -> bool {
        self.is_ended || now.saturating_duration_since(self.sent) >= TOKEN_LIFETIME
    }

    pub(super) fn end(&mut self) {
        self.is_ended = true;
    }

    /// Discord takes a callback.
    pub(super) fn answer(&mut self, callback: Post, moment: &mut Moment<'_>) -> Result<(), Problem> {
        if self.is_expired(moment.now) {
            return Err(Problem::UNKNOWN_INTERACTION);
        }
        if self.answered.is_some() {
            return Err(Problem::ACKNOWLEDGED);
        }
        let kind = callback.payload.get("type").and_then(Value::as_u64).ok_or(Problem::INVALID_FORM)?;
        let data = callback.payload.get("data").and_then(Value::as_object).cloned().unwrap_or_default();
        let post = Post { payload: data, files: callback.files };
        let (now, unix_seconds) = (moment.now, moment.unix_seconds);
        let mut ids = || moment.next_id();
        let found = |id| self.came_with.as_ref().map(|message| Message::found(message, id, now));
        self.view.original = match kind {
            4 => Some(Message::created(&post, now, &mut ids)?),
            5 => Some(Message::loading(ids(), &post.payload, now)),
            6 => Some(found(ids()).ok_or(Problem::INVALID_FORM)?),
            7 => {
                let old = found(ids()).ok_or(Problem::INVALID_FORM)?;
                Some(old.edited(&post, now, unix_seconds, &mut ids)?)
            }
            1 | 8..=13 => None,
            _ => return Err(Problem::INVALID_FORM),
        };
        self.answered = Some(now);
        Ok(())
    }

    /// A call of a webhook's route.
    pub(super) fn webhook(
        &mut self,
        application: &str,
        (method, target): (&Method, Target),
        post: impl FnOnce() -> Result<Post, Problem>,
        moment: &mut Moment<'_>,
    ) -> Result<Reply, Problem> {
        if application != self.application {
            return Err(Problem::UNKNOWN_WEBHOOK);
        }
        if self.is_expired(moment.now) {
            return Err(Problem::EXPIRED_TOKEN);
        }
        if self.is_too_early(moment) {
            return Err(Problem::UNKNOWN_WEBHOOK);
        }
        if target == Target::FollowUp {
            return self.follow_up(&post()?, moment);
        }
        let original = self.view.original.as_mut().filter(|message| message.deleted.is_none());
        let original = original.ok_or(Problem::UNKNOWN_MESSAGE)?;
        if method == Method::DELETE {
            original.deleted = Some(moment.now);
            return Ok(Reply::empty(204));
        }
        if method == Method::PATCH {
            *original = moment.edit(original, &post()?)?;
        }
        Ok(Reply::json(200, &original.json(&self.application)))
    }

    /// Whether Discord does not know of the answer yet.
    fn is_too_early(&mut self, moment: &Moment<'_>) -> bool {
        let Some(answered) = self.answered else { return true };
        match moment.race {
            Race::None => false,
            Race::For(time) => moment.now.saturating_duration_since(answered) < time,
            Race::Calls(calls) => {
                self.raced += 1;
                self.raced <= calls
            }
        }
    }

    /// The first one takes the place of a "thinking…", and is seen by whom that is seen, whatever it says itself.
    fn follow_up(&mut self, post: &Post, moment: &mut Moment<'_>) -> Result<Reply, Problem> {
        let message = match self.view.original.as_mut().filter(|message| message.is_loading()) {
            Some(original) => {
                *original = moment.edit(original, post)?;
                original
            }
            None => {
                let message = Message::created(post, moment.now, &mut || moment.next_id())?;
                self.view.follow_ups.push(message);
                self.view.follow_ups.last_mut().ok_or(Problem::UNKNOWN_MESSAGE)?
            }
        };
        Ok(Reply::json(200, &message.json(&self.application)))
    }
}

impl Moment<'_> {
    fn next_id(&mut self) -> u64 {
        *self.last_id += 1;
        *self.last_id
    }

    fn edit(&mut self, message: &Message, post: &Post) -> Result<Message, Problem> {
        let (now, unix_seconds) = (self.now, self.unix_seconds);
        message.edited(post, now, unix_seconds, &mut || self.next_id())
    }
}
