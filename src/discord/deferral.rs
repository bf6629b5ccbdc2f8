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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discord::callback;
    use rstest::rstest;

    const PUBLIC: &str = r#"{"type":5}"#;
    const PRIVATE: &str = r#"{"type":5,"data":{"flags":64}}"#;
    const UPDATE: &str = r#"{"type":6}"#;

    /// The table of DISCORD's documentation: each kind, without and with a message → the callback that defers it.
    #[rstest]
    #[case::ping(Kind::Ping, [None, None])]
    #[case::command(Kind::Command, [Some(PUBLIC), Some(PUBLIC)])]
    #[case::component(Kind::Component, [Some(UPDATE), Some(UPDATE)])]
    #[case::autocomplete(Kind::Autocomplete, [None, None])]
    #[case::modal(Kind::Modal, [Some(PUBLIC), Some(UPDATE)])]
    #[case::sku_eligibility(Kind::SkuEligibility, [None, None])]
    #[case::unknown(Kind::Unknown(7), [None, None])]
    fn each_kind_is_deferred_as_discord_takes_it(#[case] kind: Kind, #[case] callbacks: [Option<&str>; 2]) {
        for (has_message, expected) in [false, true].into_iter().zip(callbacks) {
            let question = Question { kind, has_message };
            for ephemeral in [false, true] {
                // An update shows nothing that could be private.
                let expected = expected.map(|text| if ephemeral && text == PUBLIC { PRIVATE } else { text });
                let deferral = Deferral::of(question, ephemeral);
                assert_eq!(deferral.map(Deferral::callback).as_deref(), expected.map(str::as_bytes));
                if let Some(deferral) = deferral {
                    let taken = callback::check(&deferral.callback(), question).unwrap();
                    assert_eq!(taken.callback, deferral.callback_type());
                }
            }
        }
    }
}
