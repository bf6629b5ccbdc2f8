//! Deferrals: an answer in time that says that another one follows.

use bytes::Bytes;

use super::callback::{CallbackType, Question};
use super::interaction::Kind;

/// How an interaction was, or is to be, deferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deferral {
    /// 5: a message will follow; until then the user sees "thinking…".
    Message {
        /// Whether that user alone sees it, which cannot be changed later.
        private: bool,
    },
    /// 6: the message that the component belongs to may be edited later; until then it stays as it is.
    Update,
}

impl Deferral {
    /// How to defer such an interaction; `None` if it cannot be.
    ///
    /// Source: Discord's documentation, "Interaction Callback Type".
    pub fn of(question: Question, ephemeral: bool) -> Option<Self> {
        match question.kind {
            Kind::Command => Some(Self::Message { private: ephemeral }),
            Kind::Component => Some(Self::Update),
            Kind::Modal if question.has_message => Some(Self::Update),
            Kind::Modal => Some(Self::Message { private: ephemeral }),
            Kind::Ping | Kind::Autocomplete | Kind::SkuEligibility | Kind::Unknown(_) => None,
        }
    }

    /// The type of the callback that defers so.
    pub fn callback_type(self) -> CallbackType {
        match self {
            Self::Message { .. } => CallbackType::DeferredChannelMessageWithSource,
            Self::Update => CallbackType::DeferredUpdateMessage,
        }
    }

    /// The callback that defers so.
    pub fn callback(self) -> Bytes {
        Bytes::from_static(match self {
            Self::Message { private: false } => br#"{"type":5}"#,
            Self::Message { private: true } => br#"{"type":5,"data":{"flags":64}}"#,
            Self::Update => br#"{"type":6}"#,
        })
    }
}
