//! Interaction callbacks: which answer Discord takes for which interaction.

use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use thiserror::Error;

use super::describe;
use super::interaction::Kind;
use super::object::Object;

/// `flags`: only the user who started the interaction sees the message.
pub(super) const EPHEMERAL: u64 = 1 << 6;

/// The type of an answer.
///
/// Source: Discord's documentation, "Interaction Callback Type"; 13 is in its OpenAPI description only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallbackType {
    /// 1
    Pong,
    /// 4
    ChannelMessageWithSource,
    /// 5
    DeferredChannelMessageWithSource,
    /// 6
    DeferredUpdateMessage,
    /// 7
    UpdateMessage,
    /// 8
    AutocompleteResult,
    /// 9
    Modal,
    /// 10, deprecated
    PremiumRequired,
    /// 12
    LaunchActivity,
    /// 13
    SkuPurchaseEligibility,
}

impl CallbackType {
    const ALL: [Self; 10] = [
        Self::Pong,
        Self::ChannelMessageWithSource,
        Self::DeferredChannelMessageWithSource,
        Self::DeferredUpdateMessage,
        Self::UpdateMessage,
        Self::AutocompleteResult,
        Self::Modal,
        Self::PremiumRequired,
        Self::LaunchActivity,
        Self::SkuPurchaseEligibility,
    ];

    /// The number that stands in `type`.
    pub fn number(self) -> u64 {
        match self {
            Self::Pong => 1,
            Self::ChannelMessageWithSource => 4,
            Self::DeferredChannelMessageWithSource => 5,
            Self::DeferredUpdateMessage => 6,
            Self::UpdateMessage => 7,
            Self::AutocompleteResult => 8,
            Self::Modal => 9,
            Self::PremiumRequired => 10,
            Self::LaunchActivity => 12,
            Self::SkuPurchaseEligibility => 13,
        }
    }

    /// The name in Discord's documentation.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pong => "PONG",
            Self::ChannelMessageWithSource => "CHANNEL_MESSAGE_WITH_SOURCE",
            Self::DeferredChannelMessageWithSource => "DEFERRED_CHANNEL_MESSAGE_WITH_SOURCE",
            Self::DeferredUpdateMessage => "DEFERRED_UPDATE_MESSAGE",
            Self::UpdateMessage => "UPDATE_MESSAGE",
            Self::AutocompleteResult => "APPLICATION_COMMAND_AUTOCOMPLETE_RESULT",
            Self::Modal => "MODAL",
            Self::PremiumRequired => "PREMIUM_REQUIRED",
            Self::LaunchActivity => "LAUNCH_ACTIVITY",
            Self::SkuPurchaseEligibility => "SKU_PURCHASE_ELIGIBILITY",
        }
    }

    /// Whether Discord takes this answer to an interaction of that kind; of an unknown kind nothing is known.
    pub fn may_answer(self, to: Question) -> bool {
        match (self, to.kind) {
            (_, Kind::Unknown(_)) => true,
            (Self::Pong, Kind::Ping) => true,
            (
                Self::ChannelMessageWithSource
                | Self::DeferredChannelMessageWithSource
                | Self::PremiumRequired
                | Self::LaunchActivity,
                Kind::Command | Kind::Component | Kind::Modal,
            ) => true,
            (Self::DeferredUpdateMessage | Self::UpdateMessage, Kind::Component) => true,
            (Self::DeferredUpdateMessage | Self::UpdateMessage, Kind::Modal) => to.has_message,
            (Self::AutocompleteResult, Kind::Autocomplete) => true,
            (Self::Modal, Kind::Command | Kind::Component) => true,
            (Self::SkuPurchaseEligibility, Kind::SkuEligibility) => true,
            _ => false,
        }
    }
}

/// What an answer answers.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// The interaction's kind.
    pub kind: Kind,
    /// Whether the interaction came with a message, so that this message can be updated.
    pub has_message: bool,
}

/// What a JSON answer was found to be.
#[derive(Debug)]
pub struct Checked {
    /// Its type, which may answer the interaction.
    pub callback: CallbackType,
    /// Documented limits that it breaks; Discord refuses such an answer.
    pub broken_limits: Vec<String>,
    /// The numbers of the attachments that it names.
    pub attachments: Vec<u64>,
}

/// Why an answer is no callback for its interaction.
#[derive(Debug, Error)]
pub enum CallbackError {
    /// No body at all.
    #[error("the body is empty; Discord needs a callback: {{\"type\":…,\"data\":{{…}}}}")]
    Empty,
    /// Not JSON, or not an object with a numeric `type`.
    #[error("the body is not a callback ({0}); Discord needs a JSON object with a numeric `type`")]
    NotACallback(String),
    /// A `type` that Discord does not document.
    #[error("callback type {0} does not exist")]
    UnknownType(u64),
    /// A type that does not fit the interaction.
    #[error("callback type {found} ({name}) is no answer to this kind of interaction ({kind}), which takes {allowed}", found = .found.number(), name = .found.name())]
    NotAllowed {
        /// The answer's type.
        found: CallbackType,
        /// A word for the interaction's kind.
        kind: &'static str,
        /// The types that would do.
        allowed: String,
    },
}

/// Looks at a JSON answer without changing it.
///
/// # Errors
///
/// A [`CallbackError`] that tells the bot's author what to change.
pub fn check(body: &[u8], question: Question) -> Result<Checked, CallbackError> {
    if body.trim_ascii().is_empty() {
        return Err(CallbackError::Empty);
    }
    // Checked here, since the JSON parser does not look into strings of fields that it passes over.
    let text =
        std::str::from_utf8(body).map_err(|_| CallbackError::NotACallback("it is not UTF-8".to_owned()))?;
    let Object::<Answer>(answer) = serde_json::from_str(text).map_err(not_a_callback)?;
    let callback = CallbackType::ALL
        .into_iter()
        .find(|known| known.number() == answer.kind)
        .ok_or(CallbackError::UnknownType(answer.kind))?;
    if !callback.may_answer(question) {
        return Err(CallbackError::NotAllowed {
            found: callback,
            kind: question.kind.as_str(),
            allowed: allowed_types(question),
        });
    }
    let data = answer.data.map(|Object(data)| data).unwrap_or_default();
    Ok(Checked { callback, broken_limits: data.broken_limits(callback), attachments: data.attachment_ids() })
}

/// A ready reply, as it answers such an interaction: while somebody types, there is nothing to suggest beside it.
///
/// # Errors
///
/// A [`CallbackError`] where the reply is none to this interaction.
pub fn ready(reply: Bytes, question: Question) -> Result<Bytes, CallbackError> {
    match (check(&reply, question), question.kind) {
        (Ok(_), _) => Ok(reply),
        (Err(_), Kind::Autocomplete) => Ok(no_choices()),
        (Err(error), _) => Err(error),
    }
}

fn not_a_callback(error: serde_json::Error) -> CallbackError {
    CallbackError::NotACallback(describe(&error))
}

fn allowed_types(question: Question) -> String {
    let allowed: Vec<_> = CallbackType::ALL
        .into_iter()
        .filter(|callback| callback.may_answer(question))
        .map(|callback| format!("{} ({})", callback.number(), callback.name()))
        .collect();
    allowed.join(", ")
}

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "type")]
    kind: u64,
    data: Option<Object<AnswerData>>,
}

#[derive(Default, Deserialize)]
struct AnswerData {
    content: Option<String>,
    embeds: Option<Vec<IgnoredAny>>,
    attachments: Option<Vec<Value>>,
    choices: Option<Vec<IgnoredAny>>,
    title: Option<String>,
}

impl AnswerData {
    /// Source of the figures: Discord's documentation, "Create Message" and "Interaction Callback Data Structure".
    fn broken_limits(&self, callback: CallbackType) -> Vec<String> {
        let characters = |text: &Option<String>| text.as_ref().map_or(0, |text| text.chars().count());
        let elements = |list: &Option<Vec<IgnoredAny>>| list.as_ref().map_or(0, Vec::len);
        let attachments = self.attachments.as_ref().map_or(0, Vec::len);
        let title = if callback == CallbackType::Modal { characters(&self.title) } else { 0 };
        [
            ("`content` has", characters(&self.content), 2000, "characters"),
            ("there are", elements(&self.embeds), 10, "embeds"),
            ("there are", attachments, 10, "attachments"),
            ("there are", elements(&self.choices), 25, "choices"),
            ("the modal's title has", title, 45, "characters"),
        ]
        .into_iter()
        .filter(|(_, found, most, _)| found > most)
        .map(|(what, found, most, unit)| format!("{what} {found} {unit}; Discord takes at most {most}"))
        .collect()
    }

    /// Discord takes a number as a number or as a text.
    fn attachment_ids(&self) -> Vec<u64> {
        let id = |attachment: &Value| {
            let id = attachment.get("id")?;
            id.as_u64().or_else(|| id.as_str()?.parse().ok())
        };
        self.attachments.iter().flatten().filter_map(id).collect()
    }
}

/// The answer to a PING.
pub const PONG: Bytes = Bytes::from_static(br#"{"type":1}"#);

/// Nothing to suggest for what is being typed.
pub fn no_choices() -> Bytes {
    let callback = json!({ "type": CallbackType::AutocompleteResult.number(), "data": { "choices": [] } });
    Bytes::from(callback.to_string())
}

/// What the user sees in place of an answer that failed: a message for them alone, or an empty list of choices.
/// `None` where the kind of interaction leaves no way to show a text.
pub fn failure(kind: Kind, text: &str) -> Option<Bytes> {
    let callback = match kind {
        Kind::Command | Kind::Component | Kind::Modal => json!({
            "type": CallbackType::ChannelMessageWithSource.number(),
            "data": { "content": text, "flags": EPHEMERAL },
        }),
        Kind::Autocomplete => return Some(no_choices()),
        Kind::Ping | Kind::SkuEligibility | Kind::Unknown(_) => return None,
    };
    Some(Bytes::from(callback.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn question(kind: Kind, has_message: bool) -> Question {
        Question { kind, has_message }
    }

    /// The table of DISCORD's documentation: callback type → the interaction types it may answer.
    #[rstest]
    #[case(1, &[1])]
    #[case(4, &[2, 3, 5])]
    #[case(5, &[2, 3, 5])]
    #[case(6, &[3])]
    #[case(7, &[3])]
    #[case(8, &[4])]
    #[case(9, &[2, 3])]
    #[case(10, &[2, 3, 5])]
    #[case(12, &[2, 3, 5])]
    #[case(13, &[6])]
    fn each_callback_answers_its_interactions_and_no_others(#[case] callback: u64, #[case] answers: &[u64]) {
        for interaction in 1..=6 {
            let body = format!(r#"{{"type":{callback},"data":{{}}}}"#);
            let result = check(body.as_bytes(), question(Kind::from_type(interaction), false));
            assert_eq!(result.is_ok(), answers.contains(&interaction), "{callback} to {interaction}");
        }
    }

    #[test]
    fn a_modal_from_a_message_may_update_it() {
        for callback in [6, 7] {
            let body = format!(r#"{{"type":{callback}}}"#);
            assert!(check(body.as_bytes(), question(Kind::Modal, true)).is_ok());
            assert!(check(body.as_bytes(), question(Kind::Modal, false)).is_err());
        }
    }

    #[rstest]
    #[case("", "the body is empty")]
    #[case("<html>", "not a callback (no valid JSON at line 1 column 1)")]
    #[case("[4]", "not a callback (invalid type: sequence, expected an object at line 1 column 0)")]
    #[case(r#"{"type":4,"data":["hi"]}"#, "not a callback (invalid type: sequence, expected an object at")]
    #[case(r#"{"type":4,"data":{"content":"hi"#, "not a callback (it breaks off at line 1 column 31)")]
    #[case("{}", "missing field `type`")]
    #[case(r#"{"type":"4"}"#, "not a callback (a value has the wrong type at line 1 column 11)")]
    #[case(r#"{"type":3}"#, "callback type 3 does not exist")]
    #[case(
        r#"{"type":8}"#,
        "callback type 8 (APPLICATION_COMMAND_AUTOCOMPLETE_RESULT) is no answer to this kind of interaction (command), which takes 4 (CHANNEL_"
    )]
    fn what_is_wrong_is_said(#[case] body: &str, #[case] words: &str) {
        let error = check(body.as_bytes(), question(Kind::Command, false)).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }

    #[test]
    fn what_is_not_utf8_is_no_callback_wherever_it_is() {
        let error =
            check(b"{\"type\":4,\"x\":\"\xff\"}", question(Kind::Command, false)).unwrap_err().to_string();
        assert!(error.contains("not a callback (it is not UTF-8)"), "{error}");
    }

    #[test]
    fn broken_limits_are_named() {
        let long =
            json!({ "type": 4, "data": { "content": "é".repeat(2001), "embeds": vec![json!({}); 11] } });
        let checked = check(long.to_string().as_bytes(), question(Kind::Command, false)).unwrap();
        assert_eq!(checked.broken_limits.len(), 2, "{:?}", checked.broken_limits);
        let fits = json!({ "type": 4, "data": { "content": "é".repeat(2000), "title": "t".repeat(99) } });
        let checked = check(fits.to_string().as_bytes(), question(Kind::Command, false)).unwrap();
        assert!(checked.broken_limits.is_empty());
    }

    #[rstest]
    #[case::fits(r#"{"type":4, "data":{}}"#, Kind::Command, Some(r#"{"type":4, "data":{}}"#))]
    #[case::nobody_is_told_while_typing(
        r#"{"type":4,"data":{}}"#,
        Kind::Autocomplete,
        Some(r#"{"data":{"choices":[]},"type":8}"#)
    )]
    #[case::does_not_fit(r#"{"type":8,"data":{"choices":[]}}"#, Kind::Command, None)]
    fn a_ready_reply_is_one_that_fits(
        #[case] reply: &'static str,
        #[case] kind: Kind,
        #[case] answer: Option<&str>,
    ) {
        let ready = ready(Bytes::from_static(reply.as_bytes()), question(kind, false));
        assert_eq!(ready.ok().as_deref(), answer.map(str::as_bytes));
    }

    #[rstest]
    #[case(Kind::Command)]
    #[case(Kind::Component)]
    #[case(Kind::Autocomplete)]
    #[case(Kind::Modal)]
    fn a_failure_answer_is_one_that_discord_takes(#[case] kind: Kind) {
        let body = failure(kind, "Sorry \"you\"").unwrap();
        assert!(check(&body, question(kind, false)).unwrap().broken_limits.is_empty());
    }
}
