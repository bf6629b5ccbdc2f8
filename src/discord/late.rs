//! Late answers: what a handler's answer becomes after its interaction was deferred.

mod bare;

use std::fmt;

use bytes::Bytes;
use serde_json::json;
use thiserror::Error;

use super::answer::{self, AnswerError, Checked};
use super::callback::{CallbackType, EPHEMERAL, Question};
use super::deferral::Deferral;
use bare::BareMessage;

/// A message for Discord's REST API.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// Which requests bring it to the user.
    pub way: Way,
    /// `Content-Type` of the body.
    pub content_type: String,
    /// The bare message as JSON, or as a form with files.
    pub body: Bytes,
}

/// Without what users write to one another.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Message({:?}, {} bytes)", self.way, self.body.len())
    }
}

/// Which requests bring a message to the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// `PATCH …/messages/@original`.
    Edit,
    /// `DELETE …/messages/@original`, then a follow-up that only the user sees: what is private never becomes public.
    Replace,
    /// `POST`: a follow-up.
    FollowUp,
}

/// What is to be done with a late answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Late {
    /// It is to be delivered.
    Deliver(Message),
    /// Nothing: by callback 5 or 6 the handler says that it edits by itself.
    EditsItself,
    /// Nothing: it says what the deferral has said.
    IsSaid,
}

/// A late answer that will do.
#[derive(Debug)]
pub struct Mapped {
    /// What is to be done with it.
    pub late: Late,
    /// What its author should know; it will be the same each time.
    pub note: Option<Note>,
    /// What it was found to be. There is never a doubt: Discord's REST API takes larger forms.
    pub checked: Checked,
}

/// What the author of a late answer should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// Nobody but the user sees it, though it does not ask for that.
    StaysPrivate,
    /// Everyone sees what the handler will write, though it asks for the opposite.
    StaysPublic,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StaysPrivate => f.write_str(
                "it was to be public, but came late, and its interaction had been deferred for its user alone, so it \
                 stays private; set ephemeral = false, or give the answer flag 64",
            ),
            Self::StaysPublic => f.write_str(
                "it defers for its user alone (flag 64), which came late: its interaction had been deferred for everyone \
                 to see, and so will be what it writes; set ephemeral = true",
            ),
        }
    }
}

/// Why a late answer cannot be delivered.
#[derive(Debug, Error)]
pub enum LateError {
    /// It would not have done in time either.
    #[error("{0}")]
    Answer(#[from] AnswerError),
    /// It would have done in time.
    #[error(
        "callback type {} ({}) came after the deadline: the interaction had been deferred with type {} ({}), and then \
         only {takes} can be delivered; answer sooner, or set on_slow = \"fail\"",
        .found.number(), .found.name(), .deferred.number(), .deferred.name()
    )]
    Unfit {
        /// The answer's type.
        found: CallbackType,
        /// The type of the callback that it was deferred with.
        deferred: CallbackType,
        /// What would have done.
        takes: &'static str,
    },
    /// Its `data` is not the object that a message is.
    #[error("its `data` is no message ({0})")]
    Data(String),
    /// Two values of one field, of which Discord takes who knows which.
    #[error("its `data` has `{0}` twice")]
    Twice(&'static str),
    /// Whether it is private cannot be told.
    #[error("its `flags` are not a whole number")]
    Flags,
    /// There is nothing to show.
    #[error("its `data` is missing, or has none of content, embeds, components, poll and files")]
    Empty,
}

/// What an answer with status 200 becomes, once its interaction was deferred so.
///
/// Source: Discord's documentation, "Edit Original Interaction Response" and "Create Followup Message".
///
/// # Errors
///
/// A [`LateError`] that tells the bot's author what to change; the user gets the fallback text.
pub fn map(
    deferral: Deferral,
    content_type: &str,
    body: &Bytes,
    question: Question,
) -> Result<Mapped, LateError> {
    let checked = Checked { doubt: None, ..answer::check(content_type, body, question)? };
    let found = checked.callback;
    match (deferral, found) {
        // Discord was told the same already, and by a 6 nothing more is promised.
        (Deferral::Update, CallbackType::DeferredUpdateMessage) => {
            return Ok(Mapped { late: Late::IsSaid, note: None, checked });
        }
        (_, CallbackType::DeferredChannelMessageWithSource | CallbackType::DeferredUpdateMessage) => {
            let is_private = BareMessage::read(body).is_ok_and(|message| message.is_private());
            let is_public = deferral == Deferral::Message { private: false };
            let note = (is_private && is_public).then_some(Note::StaysPublic);
            return Ok(Mapped { late: Late::EditsItself, note, checked });
        }
        (_, CallbackType::ChannelMessageWithSource) | (Deferral::Update, CallbackType::UpdateMessage) => {}
        _ => return Err(unfit(deferral, found)),
    }
    let (mut way, mut note) = (Way::Edit, None);
    let body = answer::with_payload(content_type, body, |callback, files| {
        let message = BareMessage::read(callback)?;
        if found == CallbackType::ChannelMessageWithSource && checked.files == 0 && message.is_empty() {
            return Err(LateError::Empty);
        }
        (way, note) = way_of(deferral, found, message.is_private());
        // An edit without a list adds its files to those that are there: sent twice, it would add them twice. An update
        // may mean to.
        let is_answer = found == CallbackType::ChannelMessageWithSource;
        message.write(way, if is_answer { files } else { &[] })
    })?;
    let content_type = content_type.trim().to_owned();
    Ok(Mapped { late: Late::Deliver(Message { way, content_type, body }), note, checked })
}

/// The fallback text in the place of "thinking…". It reaches nobody's phone.
pub fn fallback_edit(text: &str) -> Bytes {
    Bytes::from(json!({ "content": text, "allowed_mentions": { "parse": [] } }).to_string())
}

/// The fallback text as a follow-up for the user alone.
pub fn fallback_follow_up(text: &str) -> Bytes {
    let message = json!({ "content": text, "allowed_mentions": { "parse": [] }, "flags": EPHEMERAL });
    Bytes::from(message.to_string())
}

fn way_of(deferral: Deferral, found: CallbackType, is_private: bool) -> (Way, Option<Note>) {
    match deferral {
        Deferral::Message { private: false } if is_private => (Way::Replace, None),
        Deferral::Message { private: true } if !is_private => (Way::Edit, Some(Note::StaysPrivate)),
        Deferral::Message { .. } => (Way::Edit, None),
        Deferral::Update if found == CallbackType::UpdateMessage => (Way::Edit, None),
        Deferral::Update => (Way::FollowUp, None),
    }
}

fn unfit(deferral: Deferral, found: CallbackType) -> LateError {
    let takes = match deferral {
        Deferral::Message { .. } => "type 4 (CHANNEL_MESSAGE_WITH_SOURCE)",
        Deferral::Update => "type 7 (UPDATE_MESSAGE) or 4 (CHANNEL_MESSAGE_WITH_SOURCE)",
    };
    LateError::Unfit { found, deferred: deferral.callback_type(), takes }
}

#[cfg(test)]
mod tests;
