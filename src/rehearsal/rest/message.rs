//! Messages as a user sees them, and how a call changes them.

use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use tokio::time::Instant;

use super::post::Post;
use super::reply::Problem;

/// Source: Discord's documentation, "Message Flags".
const SUPPRESS_EMBEDS: u64 = 1 << 2;
const EPHEMERAL: u64 = 1 << 6;
const LOADING: u64 = 1 << 7;
const SUPPRESS_NOTIFICATIONS: u64 = 1 << 12;
const IS_COMPONENTS_V2: u64 = 1 << 15;
/// What an edit can change; the others are passed over.
const EDITABLE: u64 = SUPPRESS_EMBEDS | IS_COMPONENTS_V2;

/// Characters.
const MAX_CONTENT: usize = 2000;
const MAX_EMBEDS: usize = 10;
const MAX_FILES: usize = 10;

/// A message.
#[derive(Clone, Debug)]
pub struct Message {
    /// Its snowflake.
    pub id: u64,
    /// Its text.
    pub content: String,
    /// Its flags, 64 (private) and 128 ("thinking…") among them.
    pub flags: u64,
    /// Its embeds.
    pub embeds: Vec<Value>,
    /// Its components.
    pub components: Vec<Value>,
    /// Its poll.
    pub poll: Option<Value>,
    /// Its files.
    pub attachments: Vec<Attachment>,
    /// When it appeared.
    pub at: Instant,
    /// When it was edited last, with the seconds since 1970.
    pub edited: Option<(Instant, u64)>,
    /// When it was deleted.
    pub deleted: Option<Instant>,
}

/// A file of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Its snowflake.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Bytes.
    pub size: usize,
}

impl Message {
    /// Whether the user sees "thinking…" and nothing else.
    pub fn is_loading(&self) -> bool {
        self.flags & LOADING != 0 && self.deleted.is_none()
    }

    /// Whether one user alone sees it.
    pub fn is_private(&self) -> bool {
        self.flags & EPHEMERAL != 0
    }

    /// A message without anything.
    pub(super) fn empty(id: u64, at: Instant) -> Self {
        Self {
            id,
            content: String::new(),
            flags: 0,
            embeds: Vec::new(),
            components: Vec::new(),
            poll: None,
            attachments: Vec::new(),
            at,
            edited: None,
            deleted: None,
        }
    }

    /// "thinking…".
    pub(super) fn loading(id: u64, deferral: &Map<String, Value>, at: Instant) -> Self {
        Self { flags: LOADING | flags(deferral) & EPHEMERAL, ..Self::empty(id, at) }
    }

    /// The message that an interaction came with.
    pub(super) fn found(message: &Map<String, Value>, id: u64, at: Instant) -> Self {
        let id = message.get("id").and_then(as_id).unwrap_or(id);
        let list = |key| message.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
        let attachment = |value: Value| {
            let name = value.get("filename")?.as_str()?.to_owned();
            let size = value.get("size").and_then(Value::as_u64).unwrap_or_default();
            Some(Attachment { id: as_id(value.get("id")?)?, name, size: usize::try_from(size).ok()? })
        };
        Self {
            content: message.get("content").and_then(Value::as_str).unwrap_or_default().to_owned(),
            flags: flags(message),
            embeds: list("embeds"),
            components: list("components"),
            poll: message.get("poll").filter(|poll| !poll.is_null()).cloned(),
            attachments: list("attachments").into_iter().filter_map(attachment).collect(),
            ..Self::empty(id, at)
        }
    }

    /// A new message; `ids` gives snowflakes.
    pub(super) fn created(post: &Post, at: Instant, ids: &mut impl FnMut() -> u64) -> Result<Self, Problem> {
        let new = EDITABLE | EPHEMERAL | SUPPRESS_NOTIFICATIONS;
        let message = Self { flags: flags(&post.payload) & new, ..Self::empty(ids(), at) };
        message.with(post, ids)
    }

    /// The message as an edit leaves it: what the edit does not name stays, and so does who can see it.
    pub(super) fn edited(
        &self,
        post: &Post,
        at: Instant,
        unix_seconds: u64,
        ids: &mut impl FnMut() -> u64,
    ) -> Result<Self, Problem> {
        let mut message = self.clone().with(post, ids)?;
        if post.payload.contains_key("flags") {
            message.flags = message.flags & !EDITABLE | flags(&post.payload) & EDITABLE;
        }
        message.flags &= !LOADING;
        message.edited = Some((at, unix_seconds));
        Ok(message)
    }

    /// Takes what a post brings, if the message can be sent then.
    fn with(mut self, post: &Post, ids: &mut impl FnMut() -> u64) -> Result<Self, Problem> {
        if let Some(content) = post.payload.get("content") {
            self.content = match content {
                Value::String(text) => text.clone(),
                Value::Null => String::new(),
                _ => return Err(Problem::INVALID_FORM),
            };
        }
        replace(&mut self.embeds, &post.payload, "embeds")?;
        replace(&mut self.components, &post.payload, "components")?;
        if let Some(poll) = post.payload.get("poll") {
            self.poll = Some(poll.clone()).filter(|poll| !poll.is_null());
        }
        self.attach(post, ids)?;
        let is_too_long = self.content.chars().count() > MAX_CONTENT
            || self.embeds.len() > MAX_EMBEDS
            || self.attachments.len() > MAX_FILES;
        let has_nothing = self.content.trim().is_empty()
            && self.embeds.is_empty()
            && self.components.is_empty()
            && self.poll.is_none()
            && self.attachments.is_empty();
        match (is_too_long, has_nothing) {
            (true, _) => Err(Problem::INVALID_FORM),
            (_, true) => Err(Problem::EMPTY_MESSAGE),
            _ => Ok(self),
        }
    }

    /// `attachments` says which of the old ones stay, and describes new ones, by the number of their file.
    fn attach(&mut self, post: &Post, ids: &mut impl FnMut() -> u64) -> Result<(), Problem> {
        let mut listed = Vec::new();
        replace(&mut listed, &post.payload, "attachments")?;
        let listed: Option<Vec<_>> = listed.iter().map(|value| value.get("id").and_then(as_id)).collect();
        let listed = listed.ok_or(Problem::INVALID_FORM)?;
        let is_there = |id: &u64| {
            self.attachments.iter().any(|old| old.id == *id) || post.files.iter().any(|new| new.number == *id)
        };
        if !listed.iter().all(is_there) {
            return Err(Problem::INVALID_FORM);
        }
        if post.payload.contains_key("attachments") {
            self.attachments.retain(|old| listed.contains(&old.id));
        }
        let new = post.files.iter().map(|file| Attachment {
            id: ids(),
            name: file.name.clone(),
            size: file.content.len(),
        });
        self.attachments.extend(new);
        Ok(())
    }

    /// As Discord's API shows it.
    pub(super) fn json(&self, application: &str) -> Value {
        let attachments = self
            .attachments
            .iter()
            .map(|file| json!({ "id": file.id.to_string(), "filename": file.name, "size": file.size }));
        json!({
            "id": self.id.to_string(),
            "type": 0,
            "application_id": application,
            "webhook_id": application,
            "content": self.content,
            "flags": self.flags,
            "embeds": self.embeds,
            "components": self.components,
            "attachments": attachments.collect::<Vec<_>>(),
            "edited_timestamp": self.edited.map(|(_, unix_seconds)| iso(unix_seconds)),
        })
    }
}

fn replace(list: &mut Vec<Value>, payload: &Map<String, Value>, key: &str) -> Result<(), Problem> {
    match payload.get(key) {
        None => {}
        Some(Value::Null) => list.clear(),
        Some(Value::Array(new)) => list.clone_from(new),
        Some(_) => return Err(Problem::INVALID_FORM),
    }
    Ok(())
}

fn flags(payload: &Map<String, Value>) -> u64 {
    payload.get("flags").and_then(Value::as_u64).unwrap_or_default()
}

/// Discord takes the numbers of files both ways.
fn as_id(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

fn iso(unix_seconds: u64) -> Option<String> {
    let time = OffsetDateTime::from_unix_timestamp(i64::try_from(unix_seconds).ok()?).ok()?;
    let (date, (hours, minutes, seconds)) = (time.date(), time.to_hms());
    let (year, month, day) = date.to_calendar_date();
    let month = u8::from(month);
    Some(format!("{year}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}.000000+00:00"))
}
