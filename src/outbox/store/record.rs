//! One entry as it stands in the database, with a checksum over all of it but the body, which has its own.

use std::time::Duration;

use ring::digest::{Context, SHA256};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, Statement};

use super::moment::Moment;
use crate::discord::deferral::Deferral;
use crate::discord::late::Way;
use crate::discord::{TOKEN_LIFETIME, Token};
use crate::outbox::ledger::{Row, State};
use crate::outbox::{Deferred, TOKEN_MARGIN};

/// The columns in the order of [`Record`]'s fields, the body's not among them.
const FIELDS: usize = 15;

const WAITING: &str = "waiting";
const ANSWERED: &str = "answered";
const FAILED: &str = "failed";
const EDITS_ITSELF: &str = "edits itself";

/// Writes one entry, in the place of what there is of it.
pub(super) const PUT: &str = "INSERT OR REPLACE INTO entries (serial, app, interaction, application, token, deferral, \
    route, arrived, give_up, expires, fallback, state, way, content_type, body_size, body_digest, checksum, body) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)";

/// Reads all entries but their bodies.
pub(in crate::outbox) const READ: &str = "SELECT serial, app, interaction, application, token, deferral, route, arrived, give_up, \
    expires, fallback, state, way, content_type, body_size, body_digest, checksum FROM entries ORDER BY arrived, serial";

/// What is known of an answer's body without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::outbox) struct BodySum {
    /// In bytes.
    pub(in crate::outbox) size: u64,
    pub(super) digest: [u8; 32],
}

impl BodySum {
    pub(super) fn of(body: &[u8]) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(body);
        Self::finish(body.len(), context)
    }

    pub(super) fn finish(size: usize, context: Context) -> Self {
        Self { size: u64::try_from(size).unwrap_or(u64::MAX), digest: finish(context) }
    }
}

/// An entry as it was read. Times are times of day, since 1970.
pub(in crate::outbox) struct Record {
    pub(super) serial: u64,
    pub(in crate::outbox) app: String,
    pub(in crate::outbox) interaction: u64,
    pub(in crate::outbox) application: u64,
    token: Token,
    pub(in crate::outbox) deferral: Deferral,
    pub(in crate::outbox) route: Option<String>,
    pub(in crate::outbox) arrived: Duration,
    pub(in crate::outbox) give_up: Duration,
    pub(in crate::outbox) expires: Duration,
    pub(in crate::outbox) fallback: String,
    pub(in crate::outbox) stage: Stage,
}

/// [`State`], without an answer's body.
pub(in crate::outbox) enum Stage {
    Waiting,
    Answered { way: Way, content_type: String, body: BodySum },
    Failed,
    EditsItself,
}

/// A row that is not as it was written.
#[derive(Debug)]
pub(in crate::outbox) struct Damaged {
    pub(in crate::outbox) serial: u64,
    /// The interaction's id, as far as it can be read.
    pub(in crate::outbox) interaction: Option<u64>,
}

impl Record {
    /// What [`READ`] gives.
    ///
    /// # Errors
    ///
    /// If the row cannot be read at all. A row that is damaged is no error.
    pub(in crate::outbox) fn decode(row: &rusqlite::Row<'_>) -> rusqlite::Result<Result<Self, Damaged>> {
        let serial: i64 = row.get(0)?;
        let mut values = [ValueRef::Null; FIELDS];
        for (index, value) in values.iter_mut().enumerate() {
            *value = row.get_ref(index + 1)?;
        }
        let is_whole = row.get_ref(FIELDS + 1)? == ValueRef::Blob(&checksum(serial, &values));
        let record = is_whole.then(|| Self::from_values(serial, &values)).flatten();
        let interaction = values[1].as_i64().ok();
        Ok(record.ok_or_else(|| Damaged {
            serial: serial.cast_unsigned(),
            interaction: interaction.map(i64::cast_unsigned),
        }))
    }

    fn from_values(serial: i64, values: &[ValueRef<'_>; FIELDS]) -> Option<Self> {
        let [
            app,
            interaction,
            application,
            token,
            deferral,
            route,
            arrived,
            give_up,
            expires,
            fallback,
            state,
            answer @ ..,
        ] = values;
        let number = |value: &ValueRef<'_>| value.as_i64().ok().map(i64::cast_unsigned);
        let time = |value: &ValueRef<'_>| number(value).map(Duration::from_millis);
        let text = |value: &ValueRef<'_>| value.as_str().ok().map(str::to_owned);
        Some(Self {
            serial: serial.cast_unsigned(),
            app: text(app)?,
            interaction: number(interaction)?,
            application: number(application)?,
            token: Token::new(token.as_str().ok()?)?,
            deferral: deferral_of(deferral.as_str().ok()?)?,
            route: route.as_str_or_null().ok()?.map(str::to_owned),
            arrived: time(arrived)?,
            give_up: time(give_up)?,
            expires: time(expires)?,
            fallback: text(fallback)?,
            stage: stage_of(state.as_str().ok()?, answer)?,
        })
    }

    /// The entry by this process's clock, and how far it is; an answer's body stays on disk.
    pub(super) fn recover(self, moment: Moment) -> (u64, Deferred, State) {
        let expires = moment.at_unix(self.expires, TOKEN_LIFETIME - TOKEN_MARGIN);
        let deferred = Deferred {
            app: self.app.into(),
            id: self.interaction,
            application: self.application,
            token: self.token,
            deferral: self.deferral,
            route: self.route.map(Into::into),
            arrived: self.arrived,
            give_up: moment.at_unix(self.give_up, TOKEN_LIFETIME).min(expires),
            expires,
            asleep: moment.asleep,
            fallback: self.fallback.into(),
        };
        let state = match self.stage {
            Stage::Waiting => State::Waiting,
            Stage::Answered { way, content_type, .. } => State::Answered { way, content_type, body: None },
            Stage::Failed => State::Failed,
            Stage::EditsItself => State::EditsItself,
        };
        (self.serial, deferred, state)
    }
}

/// Writes an entry with [`PUT`]. `body` is what is to stand in the row itself.
pub(super) fn put(
    statement: &mut CachedStatement<'_>,
    row: &Row,
    moment: Moment,
    sum: Option<BodySum>,
    body: Option<&[u8]>,
) -> rusqlite::Result<()> {
    let Row { serial, deferred, state, .. } = row;
    let serial = serial.cast_signed();
    let number = |number: u64| ValueRef::Integer(number.cast_signed());
    let time = |time: Duration| number(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    let text = |text| ValueRef::Text(str::as_bytes(text));
    let (way, content_type) = match state {
        State::Answered { way, content_type, .. } => (text(way_word(*way)), text(content_type)),
        _ => (ValueRef::Null, ValueRef::Null),
    };
    let values = [
        text(&deferred.app),
        number(deferred.id),
        number(deferred.application),
        text(deferred.token.expose()),
        text(deferral_word(deferred.deferral)),
        deferred.route.as_deref().map_or(ValueRef::Null, text),
        time(deferred.arrived),
        time(moment.unix_at(deferred.give_up)),
        time(moment.unix_at(deferred.expires)),
        text(&deferred.fallback),
        text(state_word(state)),
        way,
        content_type,
        sum.map_or(ValueRef::Null, |sum| number(sum.size)),
        sum.as_ref().map_or(ValueRef::Null, |sum| ValueRef::Blob(&sum.digest)),
    ];
    let checksum = checksum(serial, &values);
    bind(statement, 1, ValueRef::Integer(serial))?;
    for (index, value) in values.into_iter().enumerate() {
        bind(statement, index + 2, value)?;
    }
    bind(statement, FIELDS + 2, ValueRef::Blob(&checksum))?;
    bind(statement, FIELDS + 3, body.map_or(ValueRef::Null, ValueRef::Blob))?;
    statement.raw_execute()?;
    // What it was bound to is not kept for the next time.
    statement.clear_bindings();
    Ok(())
}

fn bind(statement: &mut Statement<'_>, index: usize, value: ValueRef<'_>) -> rusqlite::Result<()> {
    statement.raw_bind_parameter(index, ToSqlOutput::Borrowed(value))
}

fn checksum(serial: i64, values: &[ValueRef<'_>]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    context.update(&serial.to_le_bytes());
    let mut update = |tag: u8, bytes: &[u8]| {
        context.update(&[tag]);
        context.update(&bytes.len().to_le_bytes());
        context.update(bytes);
    };
    for value in values {
        match value {
            ValueRef::Null => update(0, &[]),
            ValueRef::Integer(number) => update(1, &number.to_le_bytes()),
            ValueRef::Real(number) => update(2, &number.to_le_bytes()),
            ValueRef::Text(text) => update(3, text),
            ValueRef::Blob(bytes) => update(4, bytes),
        }
    }
    finish(context)
}

fn finish(context: Context) -> [u8; 32] {
    // SHA-256 has 32 bytes; what cannot be is no checksum of anything.
    context.finish().as_ref().try_into().unwrap_or_default()
}

/// How it was deferred, in a word for the database and for people.
pub(in crate::outbox) fn deferral_word(deferral: Deferral) -> &'static str {
    match deferral {
        Deferral::Message { private: false } => "message",
        Deferral::Message { private: true } => "private message",
        Deferral::Update => "update",
    }
}

fn deferral_of(word: &str) -> Option<Deferral> {
    let all = [Deferral::Message { private: false }, Deferral::Message { private: true }, Deferral::Update];
    all.into_iter().find(|deferral| deferral_word(*deferral) == word)
}

/// Which requests bring an answer to the user, in such a word.
pub(in crate::outbox) fn way_word(way: Way) -> &'static str {
    match way {
        Way::Edit => "edit",
        Way::Replace => "replace",
        Way::FollowUp => "follow-up",
    }
}

fn state_word(state: &State) -> &'static str {
    match state {
        State::Waiting => WAITING,
        State::Answered { .. } => ANSWERED,
        State::Failed => FAILED,
        State::EditsItself => EDITS_ITSELF,
    }
}

impl Stage {
    /// In such a word.
    pub(in crate::outbox) fn word(&self) -> &'static str {
        match self {
            Self::Waiting => WAITING,
            Self::Answered { .. } => ANSWERED,
            Self::Failed => FAILED,
            Self::EditsItself => EDITS_ITSELF,
        }
    }
}

fn stage_of(word: &str, answer: &[ValueRef<'_>]) -> Option<Stage> {
    let [way, content_type, size, digest] = answer else { return None };
    Some(match word {
        WAITING => Stage::Waiting,
        FAILED => Stage::Failed,
        EDITS_ITSELF => Stage::EditsItself,
        ANSWERED => Stage::Answered {
            way: [Way::Edit, Way::Replace, Way::FollowUp]
                .into_iter()
                .find(|known| way.as_str() == Ok(way_word(*known)))?,
            content_type: content_type.as_str().ok()?.to_owned(),
            body: BodySum {
                size: size.as_i64().ok()?.cast_unsigned(),
                digest: digest.as_blob().ok()?.try_into().ok()?,
            },
        },
        _ => return None,
    })
}
