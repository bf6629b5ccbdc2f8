//! The outbox on disk: what is written is read again, and what is damaged is never taken for what was written.
//!
//! An input that begins with `d` is damage to a database with one entry of each kind: an offset in two bytes, and bits to
//! flip, over and over. Any other is an entry: a character for its deferral and end, then a line each for its
//! application's name, token, route, fallback text, and its answer's content type and body.

mod shelf;

use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use shardless::discord::Token;
use shardless::discord::deferral::Deferral;
use shardless::discord::late::{Message, Way};
use shardless::outbox::view::{self, Seen};
use shardless::outbox::{Content, Deferred, Task};

use shelf::Shelf;

/// How an entry's handler ends.
#[derive(Clone)]
enum End {
    Waiting,
    Answered(Message),
    Failed,
    EditsItself,
}

thread_local! {
    static SHELF: Shelf = Shelf::new();
}

/// An entry comes back as it was, or is known to be damaged; a store works, whatever was in its file.
pub fn check(bytes: &[u8]) {
    SHELF.with(|shelf| match bytes.strip_prefix(b"d") {
        Some(damage) => shelf.run(check_damage(shelf, damage)),
        None => shelf.run(check_round_trip(shelf, bytes)),
    });
}

async fn check_round_trip(shelf: &Shelf, bytes: &[u8]) {
    let Some((deferred, end)) = entry(shelf, bytes) else { return };
    let folder = shelf.folder();
    shelf.write(folder.path(), [(deferred.clone(), end.clone())]).await;
    let seen = view::look(folder.path()).unwrap();
    let [Seen::Entry(entry)] = seen.as_slice() else { panic!("{seen:?}") };
    assert_eq!(
        (&*deferred.app, deferred.id, deferred.application),
        (&*entry.app, entry.interaction, entry.application)
    );
    assert_eq!((deferred.route.as_deref(), &*deferred.fallback), (entry.route.as_deref(), &*entry.fallback));
    assert_eq!(deferred.arrived.as_millis(), entry.arrived.as_millis());
    let answer = entry.answer.as_ref().map(|answer| (&*answer.content_type, answer.size));
    match &end {
        End::Answered(message) => {
            assert_eq!(answer, Some((&*message.content_type, message.body.len() as u64)))
        }
        _ => assert_eq!(answer, None),
    }
    // Where it is no part of another text.
    let token = deferred.token.expose();
    let texts = [&*deferred.app, &deferred.fallback, deferred.route.as_deref().unwrap_or_default()];
    let content_type = answer.map(|(content_type, _)| content_type);
    if !texts.into_iter().chain(content_type).any(|text| text.contains(token)) {
        assert!(!format!("{seen:?}").contains(&format!("{token:?}")));
    }

    let (outbox, mut dues) = shelf.open(folder.path()).await;
    let due = tokio::time::timeout(Duration::from_secs(20), dues.next()).await.unwrap().unwrap();
    assert_eq!(shown(&due.deferred), shown(&deferred));
    assert_eq!(
        (due.deferred.token.expose(), due.deferred.deferral),
        (deferred.token.expose(), deferred.deferral)
    );
    match (&due.task, end) {
        (Task::Answer { way, content_type }, End::Answered(message)) => {
            assert_eq!((way, content_type), (&message.way, &message.content_type));
            assert_eq!(contents(&outbox.content(&due).await.unwrap()), message.body);
        }
        (Task::Fallback, End::Failed | End::Waiting) | (Task::FallbackUnlessEdited, End::EditsItself) => {}
        (task, _) => panic!("{task:?}"),
    }
    outbox.done(&due);
    outbox.close().await;
    assert!(view::look(folder.path()).unwrap().is_empty());
}

async fn check_damage(shelf: &Shelf, damage: &[u8]) {
    let image = shelf.image().await;
    let folder = shelf.folder();
    let mut database = image.database.clone();
    for [low, high, bits] in damage.as_chunks::<3>().0 {
        let place = usize::from(u16::from_le_bytes([*low, *high])) % database.len();
        database[place] ^= bits;
    }
    std::fs::write(folder.path().join(shelf::FILE), &database).unwrap();
    for seen in view::look(folder.path()).into_iter().flatten() {
        let shown = format!("{seen:?}");
        assert!(matches!(seen, Seen::Damaged { .. }) || image.seen.contains(&shown), "{shown}");
    }
    let (outbox, mut dues) = shelf.open(folder.path()).await;
    while let Some(Some(due)) = dues.next().now_or_never() {
        assert!(image.entries.contains(&shown(&due.deferred)), "{:?}", due.deferred);
        if let Task::Answer { .. } = due.task {
            assert_eq!(contents(&outbox.content(&due).await.unwrap()), *shelf::ANSWER);
        }
        outbox.done(&due);
    }
    let ticket = shelf.begin(&outbox, shelf.deferred(77));
    assert!(ticket.committed().await, "the store does not work any more");
    drop(ticket);
    outbox.close().await;
}

/// All that must come back of an entry, and the token.
fn shown(deferred: &Deferred) -> String {
    let Deferred { app, id, application, token, deferral, route, arrived, fallback, .. } = deferred;
    let (token, arrived) = (token.expose(), arrived.as_millis());
    format!("{app:?} {id} {application} {token} {deferral:?} {route:?} {arrived} {fallback:?}")
}

fn contents(content: &Content) -> Bytes {
    match content {
        Content::Bytes(bytes) => bytes.clone(),
        Content::File { path, .. } => std::fs::read(path).unwrap().into(),
    }
}

fn entry(shelf: &Shelf, bytes: &[u8]) -> Option<(Deferred, End)> {
    let (first, rest) = bytes.split_first()?;
    let mut lines = rest.splitn(6, |byte| *byte == b'\n');
    let mut bytes = || lines.next().unwrap_or_default();
    let mut text = || String::from_utf8_lossy(bytes()).into_owned();
    let (app, token, route, fallback, content_type) = (text(), text(), text(), text(), text());
    let body = bytes();
    // Large ones are files.
    let body = body.repeat(if first & 0x20 == 0 { 1 } else { 20_000 });
    let way = [Way::Edit, Way::Replace, Way::FollowUp][app.len() % 3];
    let end = match first & 3 {
        0 => End::Answered(Message { way, content_type, body: body.into() }),
        1 => End::Failed,
        2 => End::EditsItself,
        _ => End::Waiting,
    };
    let deferral = match (first >> 2) & 3 {
        0 => Deferral::Message { private: false },
        1 => Deferral::Message { private: true },
        _ => Deferral::Update,
    };
    // Numbers of all sizes, those that look negative to the database among them.
    let id = fallback.bytes().fold(u64::from(*first), |id, byte| id.rotate_left(7) ^ u64::from(byte));
    let route = (!route.is_empty()).then(|| route.into());
    let (token, application) = (Token::new(&token)?, !id);
    let rest = shelf.deferred(id);
    Some((
        Deferred { app: app.into(), application, token, deferral, route, fallback: fallback.into(), ..rest },
        end,
    ))
}
