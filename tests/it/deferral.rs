//! The deadline guard: slow handlers, from the deferral to what the user sees in the end.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use rstest::rstest;
use shardless::rehearsal::{Author, Payload};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::late::{ANSWER_WITHIN, Stage, late, original, slow, token};
use crate::support::wire::with_length;
use crate::support::{Handler, json, until};

const HELLO: &str = r#"{"type":4,"data":{"content":"hello"}}"#;
const SECRET: &str = r#"{"type":4,"data":{"content":"secret","flags":64}}"#;
const UPDATE: &str = r#"{"type":7,"data":{"content":"updated"}}"#;
const TOO_LONG: &str = "This took too long. Please try again.";

fn command(author: &mut Author) -> Payload {
    author.command("roll", &[])
}

fn button(author: &mut Author) -> Payload {
    author.button("again")
}

fn modal(author: &mut Author) -> Payload {
    author.modal("feedback", &[])
}

/// DISCORD's table of late answers, row by row: what is deferred how, what comes late, by which calls it is brought, and
/// what the user sees: of the first message, and of the one after it.
#[rstest]
#[case::an_edit(command, "", HELLO, 5, &["PATCH Original"], "hello", "")]
#[case::of_a_modal(modal, "", HELLO, 5, &["PATCH Original"], "hello", "")]
#[case::both_private(command, "ephemeral = true", SECRET, 5, &["PATCH Original"], "secret", "")]
#[case::it_stays_private(command, "ephemeral = true", HELLO, 5, &["PATCH Original"], "hello", "")]
#[case::never_public(command, "", SECRET, 5, &["DELETE Original", "POST FollowUp"], "gone", "secret")]
#[case::an_update(button, "", UPDATE, 6, &["PATCH Original"], "updated", "")]
#[case::a_message_beside(button, "", HELLO, 6, &["POST FollowUp"], "Pick one:", "hello")]
#[case::a_private_one(button, "", SECRET, 6, &["POST FollowUp"], "Pick one:", "secret")]
#[case::no_update_of_nothing(modal, "", UPDATE, 5, &["GET Original", "PATCH Original"], TOO_LONG, "")]
#[case::too_late_for_a_modal(command, "", r#"{"type":9,"data":{"title":"t","custom_id":"c","components":[]}}"#, 5, &["GET Original", "PATCH Original"], TOO_LONG, "")]
#[case::or_beside_a_message(button, "", r#"{"type":12}"#, 6, &["POST FollowUp"], "Pick one:", TOO_LONG)]
#[tokio::test]
async fn late_answers_are_delivered(
    #[case] write: fn(&mut Author) -> Payload,
    #[case] app: &str,
    #[case] answer: &str,
    #[case] deferral: u64,
    #[case] calls: &[&str],
    #[case] first: &str,
    #[case] second: &str,
) {
    let stage = Stage::with(app, late(answer).await).await;
    let payload = write(&mut stage.daemon.author(1));
    let exchange = stage.send(&payload).await;
    let callback: serde_json::Value = serde_json::from_slice(&exchange.body).unwrap();
    let is_private = app.contains("ephemeral");
    assert_eq!(callback["type"], deferral);
    assert_eq!(callback["data"]["flags"] == 64, is_private);
    assert!(exchange.elapsed >= ANSWER_WITHIN, "{:?}", exchange.elapsed);
    assert!(exchange.elapsed < ANSWER_WITHIN + Duration::from_millis(150), "{:?}", exchange.elapsed);

    let view = stage.end_of(&payload).await;
    assert_eq!(stage.calls(), calls);
    let original = original(&view);
    let seen = if original.deleted.is_some() { "gone" } else { &original.content };
    assert_eq!(seen, first);
    assert!(!original.is_loading());
    let follow_ups: Vec<_> = view.follow_ups.iter().map(|message| &*message.content).collect();
    assert_eq!(follow_ups.join(""), second);
    if answer == SECRET || second == TOO_LONG {
        let message = view.follow_ups.last().unwrap_or(original);
        assert!(message.is_private(), "{message:?}");
    }
    let call = &stage.api.calls()[0];
    assert!(call.since_answer.unwrap() >= Duration::from_millis(250), "{:?}", call.since_answer);
    assert_eq!(stage.daemon.handler.calls(), 1);
}

#[rstest]
#[case::error(500, "text/plain", "")]
#[case::no_callback(200, "text/html", "<h1>")]
#[case::of_a_kind_that_is_no_answer(200, "application/json", r#"{"type":8,"data":{"choices":[]}}"#)]
#[tokio::test]
async fn a_late_failure_ends_in_the_fallback_text(
    #[case] status: u16,
    #[case] content_type: &str,
    #[case] body: &'static str,
) {
    let app = "error_message = \"Sorry.\"";
    let handler = slow(ANSWER_WITHIN * 2, status, content_type, body).await;
    let stage = Stage::with(app, handler).await;
    let payload = stage.deferred_command().await;
    assert_eq!(original(&stage.end_of(&payload).await).content, "Sorry.");
    assert_eq!(stage.ended("fell_back"), 1.0);
}

#[tokio::test]
async fn a_handler_that_dies_after_the_deferral_ends_in_the_fallback_text() {
    let (handler, _gate) = Handler::gated().await;
    let mut stage = Stage::with("", handler).await;
    let payload = stage.deferred_command().await;
    stage.daemon.handler.kill().await;
    assert_eq!(original(&stage.end_of(&payload).await).content, TOO_LONG);
}

#[tokio::test]
async fn a_handler_that_never_answers_is_given_up() {
    let (handler, _gate) = Handler::gated().await;
    let stage = Stage::with("give_up_after = \"1s\"", handler).await;
    let payload = stage.deferred_command().await;
    let view = stage.end_of(&payload).await;
    assert_eq!(original(&view).content, TOO_LONG);
    assert!(stage.api.calls()[0].since_answer.unwrap() >= Duration::from_millis(500));
}

/// Whoever says 202, or defers, edits by itself; until it does not.
#[rstest]
#[case::has_edited(command, 202, "", true, "mine", "")]
#[case::has_not(command, 202, "", false, TOO_LONG, "")]
#[case::deferred_once_more(command, 200, r#"{"type":5}"#, false, TOO_LONG, "")]
#[case::has_updated(button, 204, "", true, "mine", "")]
#[case::has_not_updated(button, 202, "", false, "Pick one:", TOO_LONG)]
#[tokio::test]
async fn a_handler_that_edits_by_itself_is_not_overwritten(
    #[case] write: fn(&mut Author) -> Payload,
    #[case] status: u16,
    #[case] body: &'static str,
    #[case] edits: bool,
    #[case] first: &str,
    #[case] second: &str,
) {
    let handler = slow(ANSWER_WITHIN * 3 / 2, status, "application/json", body).await;
    let stage = Stage::with("give_up_after = \"3s\"", handler).await;
    let payload = write(&mut stage.daemon.author(1));
    stage.send(&payload).await;
    if edits {
        // A second later than the interaction, by the seconds that Discord tells.
        tokio::time::sleep(Duration::from_millis(1100)).await;
        let url =
            format!("{}/webhooks/845027738276462632/{}/messages/@original", stage.api.url(), token(&payload));
        let client = reqwest::Client::new();
        let request = client.patch(url).header("user-agent", "DiscordBot (bot, 1)");
        let request = request.header("content-type", "application/json").body(r#"{"content":"mine"}"#);
        assert_eq!(request.send().await.unwrap().status(), 200);
    }
    let view = stage.end_of(&payload).await;
    let follow_ups: Vec<_> = view.follow_ups.iter().map(|message| &*message.content).collect();
    assert_eq!((&*original(&view).content, &*follow_ups.join("")), (first, second));
    assert_eq!(stage.ended(if edits { "kept" } else { "fell_back" }), 1.0);
}

/// A 6 that comes late says what its deferral has said.
#[tokio::test]
async fn a_late_acknowledgement_is_all_that_there_is() {
    let stage = Stage::with("give_up_after = \"1s\"", late(r#"{"type":6}"#).await).await;
    let payload = stage.daemon.author(1).button("like");
    assert_eq!(&stage.send(&payload).await.body[..], br#"{"type":6}"#);
    stage.until_entries(0).await;
    assert_eq!(stage.calls(), [""; 0]);
}

#[tokio::test]
async fn files_come_along() {
    let form = "--x\r\ncontent-disposition: form-data; name=payload_json\r\n\r\n\
        {\"type\":4,\"data\":{\"content\":\"here\",\"attachments\":[{\"id\":0,\"filename\":\"a.txt\"}]}}\r\n\
        --x\r\ncontent-disposition: form-data; name=\"files[0]\"; filename=\"a.txt\"\r\n\r\n";
    let form = [form.as_bytes(), &vec![b'y'; 700_000], b"\r\n--x--\r\n"].concat();
    let handler = slow(ANSWER_WITHIN * 2, 200, "multipart/form-data; boundary=x", form).await;
    let stage = Stage::with("", handler).await;
    let payload = stage.deferred_command().await;
    let view = stage.end_of(&payload).await;
    assert_eq!(original(&view).content, "here");
    let files: Vec<_> = original(&view).attachments.iter().map(|file| (&*file.name, file.size)).collect();
    assert_eq!(files, [("a.txt", 700_000)]);
}

#[tokio::test]
async fn what_cannot_be_deferred_is_answered_otherwise() {
    let (handler, _gate) = Handler::gated().await;
    let stage = Stage::with("", handler).await;
    let typing = stage.daemon.author(1).autocomplete("play", &[], "song", "ne");
    let exchange = stage.send(&typing).await;
    assert_eq!(
        (exchange.status.as_u16(), &exchange.body[..]),
        (200, &br#"{"data":{"choices":[]},"type":8}"#[..])
    );
    for kind in [6, 99] {
        let body = format!(r#"{{"id":"{kind}","type":{kind},"application_id":"1","token":"t"}}"#);
        let signed = stage.daemon.discord.sign_at(0, body.as_bytes());
        drop(signed);
        let seconds = shardless::clock::Clock::unix_time(&*stage.daemon.clock).as_secs();
        let exchange = stage.daemon.send(&stage.daemon.discord.sign_at(seconds, body.as_bytes())).await;
        assert_eq!(exchange.status, 504, "{kind}");
    }
    assert_eq!(stage.calls(), [""; 0]);
}

#[tokio::test]
async fn a_config_may_rather_fail_for_an_application_or_a_route() {
    let app = "on_slow = \"fail\"\n[[apps.mybot.routes]]\ncommand = \"patient\"\non_slow = \"defer\"\nephemeral = true\nhandler = \"$\"";
    let (handler, _gate) = Handler::gated().await;
    let app = app.replace('$', &handler.url());
    let stage = Stage::with(&app, handler).await;
    let exchange = stage.send(&stage.daemon.fresh_command()).await;
    assert_eq!(exchange.status, 504);
    let exchange = stage.send(&stage.daemon.author(1).command("patient", &[])).await;
    assert_eq!(&exchange.body[..], br#"{"type":5,"data":{"flags":64}}"#);
}

#[tokio::test]
async fn an_answer_in_time_leaves_nothing_behind() {
    let handler = slow(ANSWER_WITHIN - Duration::from_millis(100), 200, "application/json", HELLO).await;
    let stage = Stage::with("", handler).await;
    let exchange = stage.send(&stage.daemon.fresh_command()).await;
    assert_eq!(&exchange.body[..], HELLO.as_bytes());
    stage.until_entries(0).await;
    assert_eq!(stage.daemon.interactions("command", "deferred"), 0.0);
    assert_eq!(stage.calls(), [""; 0]);
}

#[tokio::test]
async fn all_that_ask_for_the_same_get_the_same_deferral() {
    let stage = Stage::with("", late(HELLO).await).await;
    let payload = stage.daemon.fresh_command();
    let signed = stage.daemon.discord.sign(&payload);
    stage.api.sent(&payload.body);
    let all = futures_util::future::join_all((0..20).map(|_| stage.daemon.send(&signed))).await;
    assert!(all.iter().all(|exchange| &exchange.body[..] == br#"{"type":5}"#), "{all:?}");
    stage.api.answered(&payload.body, &all[0].body);
    assert_eq!(original(&stage.end_of(&payload).await).content, "hello");
    assert_eq!((stage.calls().len(), stage.daemon.handler.calls()), (1, 1));
}

/// Discord has no deferral that an answer could follow.
#[tokio::test]
async fn a_client_that_hung_up_before_its_deferral_gets_nothing_later() {
    let (handler, gate) = Handler::gated().await;
    let stage = Stage::with("", handler).await;
    let payload = stage.daemon.fresh_command();
    let mut stream = TcpStream::connect(stage.daemon.address).await.unwrap();
    stream.write_all(&with_length(&stage.daemon.discord.sign(&payload))).await.unwrap();
    until("the handler has it", || async { stage.daemon.handler.calls() == 1 }).await;
    drop(stream);
    until("the deadline", || async { stage.daemon.interactions("command", "deferred") == 1.0 }).await;
    stage.until_entries(0).await;
    gate.add_permits(1);
    until("the end", || async { stage.daemon.metric("shardless_calls_in_flight") == 0.0 }).await;
    assert_eq!(stage.calls(), [""; 0]);
    // Nothing would follow the deferral that it could be told.
    assert_eq!(stage.send(&payload).await.status, 409);
}

/// As a proxy does whose connection broke: it sends the request once more.
#[tokio::test]
async fn a_client_that_came_again_gets_its_late_answer() {
    let stage = Stage::with("", late(HELLO).await).await;
    let payload = stage.daemon.fresh_command();
    let signed = stage.daemon.discord.sign(&payload);
    let mut stream = TcpStream::connect(stage.daemon.address).await.unwrap();
    stream.write_all(&with_length(&signed)).await.unwrap();
    until("the handler has it", || async { stage.daemon.handler.calls() == 1 }).await;
    drop(stream);
    let exchange = stage.send(&payload).await;
    assert_eq!(&exchange.body[..], br#"{"type":5}"#);
    assert_eq!(original(&stage.end_of(&payload).await).content, "hello");
    assert_eq!(stage.daemon.handler.calls(), 1);
}

#[tokio::test]
async fn deferrals_are_bounded() {
    let (handler, gate) = Handler::gated().await;
    let script = shardless::rehearsal::rest::Script::default();
    let stage = Stage::following(script, "[limits]\ndeferred = 1", "", handler).await;
    let first = stage.deferred_command().await;
    assert_eq!(stage.send(&stage.daemon.fresh_command()).await.status, 504);
    gate.add_permits(1);
    assert!(!original(&stage.end_of(&first).await).is_loading());
    stage.deferred_command().await;
}

/// The last moments before the deadline, over real connections: each interaction has one answer, in time.
#[tokio::test(flavor = "multi_thread")]
async fn handlers_around_the_deadline_have_one_outcome_each() {
    let handler = Handler::start(|got| async move {
        let json_body: serde_json::Value = serde_json::from_slice(&got.body).unwrap();
        let id: u64 = json_body["id"].as_str().unwrap().parse().unwrap();
        let around = ANSWER_WITHIN / 2 + Duration::from_millis(id % 400);
        tokio::time::sleep(around).await;
        json(HELLO)
    })
    .await;
    let stage = Stage::with("", handler).await;
    let mut author = stage.daemon.author(1);
    let payloads: Vec<_> = (0..240).map(|_| author.command("roll", &[])).collect();
    // So many at once that the machine has no part in who is first.
    let exchanges = stream::iter(&payloads).map(|payload| stage.send(payload)).buffered(24);
    let exchanges: Vec<_> = exchanges.collect().await;
    stage.until_entries(0).await;
    let (mut answered, mut deferred) = (0, 0);
    for (payload, exchange) in payloads.iter().zip(&exchanges) {
        assert_eq!(exchange.status, 200);
        let view = stage.api.view(&token(payload)).unwrap();
        assert_eq!(original(&view).content, "hello");
        assert!(view.follow_ups.is_empty());
        let calls = stage.api.count(|call| call.token() == token(payload));
        match &exchange.body[..] {
            b"{\"type\":5}" => {
                assert_eq!(calls, 1);
                deferred += 1;
            }
            body => {
                assert_eq!((body, calls), (HELLO.as_bytes(), 0));
                answered += 1;
            }
        }
    }
    assert!(answered > 20 && deferred > 20, "{answered} answered, {deferred} deferred");
}
