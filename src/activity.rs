//! One record per interaction: what the log line, the metrics and the status page are made from.

mod charts;
mod feed;
mod recent;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::discord::interaction::{Interaction, Kind};
pub use charts::{Charts, Column, LENGTHS, Point, Slot, Span};
pub use feed::{Activity, Row, Step, Totals, View};

/// Characters of a command's name or a `custom_id` that are kept; Discord's own limit is 100 a part.
const NAME_CHARACTERS: usize = 120;

/// What became of an interaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The handler's answer was relayed.
    Answered,
    /// The route's own reply was the answer.
    Replied,
    /// The handler said that it answers by itself, over Discord's REST API.
    HandlerAnswersItself,
    /// The handler did not answer in time; its answer will follow.
    Deferred,
    /// The handler did not answer in time, and the user is told so, or nothing.
    Late,
    /// The handler could not be reached, or its answer was of no use.
    Failed,
    /// It came again, and got the first one's answer.
    Duplicate,
    /// A PING got its PONG.
    Pong,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Answered,
        Self::Replied,
        Self::HandlerAnswersItself,
        Self::Deferred,
        Self::Late,
        Self::Failed,
        Self::Duplicate,
        Self::Pong,
    ];

    /// Whether it says something of how long Discord waits: PINGs and duplicates wait for nobody.
    pub fn is_an_answer(self) -> bool {
        !matches!(self, Self::Pong | Self::Duplicate)
    }

    /// A word for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pong => "pong",
            Self::Answered => "answered",
            Self::Replied => "replied",
            Self::HandlerAnswersItself => "handler_answers_itself",
            Self::Failed => "failed",
            Self::Late => "late",
            Self::Deferred => "deferred",
            Self::Duplicate => "duplicate",
        }
    }
}

/// An interaction on its way, and what is to be remembered of it. Never its token or body.
#[derive(Clone, Debug)]
pub struct Record {
    /// The application's name in the config.
    pub app: Arc<str>,
    /// The interaction's snowflake.
    pub id: u64,
    /// What it is.
    pub kind: Kind,
    /// The command, or the `custom_id`, cut to a sane length.
    pub name: Option<Box<str>>,
    /// The trace that it belongs to.
    pub trace: u128,
    /// The route that it took, if it took one.
    pub route: Option<Arc<str>>,
    /// Who sent the request, as far as it can be known.
    pub client: IpAddr,
    /// When its first byte came.
    pub received: Instant,
    /// When its signature was found to hold.
    pub verified: Instant,
    /// When it was handed to its handler, if it was.
    pub forwarded: Option<Instant>,
    /// Replicas that were tried before that, in their order.
    pub tried: Vec<Tried>,
    /// The handler's replica that took it, if one did.
    pub replica: Option<Arc<str>>,
    /// From forwarding to the end of the handler's answer.
    pub handler_time: Option<Duration>,
}

/// An attempt that failed, and that another one followed.
#[derive(Clone, Debug)]
pub struct Tried {
    /// The replica that surely did not get the request.
    pub replica: Arc<str>,
    /// When the attempt ended.
    pub at: Instant,
    /// What went wrong, in at most 200 characters.
    pub why: String,
}

/// How an interaction ended.
#[derive(Clone, Debug)]
pub struct End {
    /// In a word.
    pub outcome: Outcome,
    /// The HTTP status that Discord gets.
    pub status: u16,
    /// From the first byte to the answer.
    pub elapsed: Duration,
    /// What the bot's author should know: why it failed, or why Discord may refuse the answer all the same.
    pub explanation: Option<String>,
}

impl Record {
    /// The record of an interaction that has just been verified.
    pub fn new(
        app: Arc<str>,
        interaction: &Interaction<'_>,
        trace: u128,
        client: IpAddr,
        [received, verified]: [Instant; 2],
    ) -> Self {
        let cut = |name: &str| {
            let end = name.char_indices().nth(NAME_CHARACTERS).map_or(name.len(), |(end, _)| end);
            name.get(..end).unwrap_or_default().into()
        };
        Self {
            app,
            id: interaction.id,
            kind: interaction.kind,
            name: interaction.name.as_deref().map(cut),
            trace,
            route: None,
            client,
            received,
            verified,
            forwarded: None,
            tried: Vec::new(),
            replica: None,
            handler_time: None,
        }
    }
}
