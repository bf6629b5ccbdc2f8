mod faults;

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};
use rstest::rstest;
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::*;

const COMMAND: &[u8] = br#"{"id":"1","application_id":"2","token":"secret","type":2}"#;
const BUTTON: &[u8] = br#"{"id":"1","application_id":"2","token":"secret","type":3,
    "message":{"id":"77","content":"Vote!","flags":0,"embeds":[{}]}}"#;
const DEFERRED: &[u8] = br#"{"type":5}"#;
const DEFERRED_PRIVATE: &[u8] = br#"{"type":5,"data":{"flags":64}}"#;
const DEFERRED_UPDATE: &[u8] = br#"{"type":6}"#;
const ORIGINAL: &str = "/webhooks/2/secret/messages/@original";
const FOLLOW_UP: &str = "/webhooks/2/secret";
const CALLBACK: &str = "/interactions/1/secret/callback";
const TEXT: &str = r#"{"content":"Done."}"#;
const LONG: Duration = Duration::from_secs(30);

struct Caller {
    client: reqwest::Client,
    url: String,
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl Caller {
    fn of(api: &Api) -> Self {
        _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().user_agent("DiscordBot (test, 1)");
        Self { client: client.build().unwrap(), url: api.url() }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        form: bool,
        body: impl Into<reqwest::Body>,
    ) -> Option<Answer> {
        let content_type = if form { "multipart/form-data; boundary=X" } else { "application/json" };
        let request = self.client.request(method, format!("{}{path}", self.url)).body(body);
        let response = request.header(header::CONTENT_TYPE, content_type).send().await.ok()?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Some(Answer { status, headers, body: response.bytes().await.ok()? })
    }

    async fn patch(&self, body: &str) -> Answer {
        self.send(Method::PATCH, ORIGINAL, false, body.to_owned()).await.unwrap()
    }

    async fn post(&self, body: &str) -> Answer {
        self.send(Method::POST, FOLLOW_UP, false, body.to_owned()).await.unwrap()
    }

    async fn bare(&self, method: Method) -> Answer {
        self.send(method, ORIGINAL, false, "").await.unwrap()
    }
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The status and Discord's own code.
    fn problem(&self) -> (u16, u64) {
        (self.status, self.json()["code"].as_u64().unwrap())
    }
}

/// The machine's clock, moved as a test likes.
#[derive(Default)]
struct Moved(AtomicU64);

impl Moved {
    fn pass(&self, time: Duration) {
        self.0.fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::SeqCst);
    }

    fn passed(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst))
    }
}

impl Clock for Moved {
    fn now(&self) -> Instant {
        SystemClock.now() + self.passed()
    }

    fn unix_time(&self) -> Duration {
        SystemClock.unix_time() + self.passed()
    }
}

async fn started(script: Script, interaction: &[u8], callback: &[u8]) -> (Api, Caller) {
    let api = Api::following(script, 0).await.unwrap();
    assert!(api.answered(interaction, callback));
    let caller = Caller::of(&api);
    (api, caller)
}

fn original(api: &Api) -> Message {
    api.view("secret").unwrap().original.unwrap()
}

#[rstest]
#[case::public(DEFERRED, 0)]
#[case::private(DEFERRED_PRIVATE, 64)]
#[tokio::test]
async fn a_deferred_message_loads_until_it_is_edited(#[case] callback: &[u8], #[case] privacy: u64) {
    let (api, caller) = started(Script::default(), COMMAND, callback).await;
    let before = caller.bare(Method::GET).await.json();
    assert_eq!((&before["flags"], &before["content"]), (&json!(128 | privacy), &json!("")));
    assert!(before["edited_timestamp"].is_null() && original(&api).is_loading());
    assert_eq!(api.loading(), 1);
    // Privacy cannot be changed later, either way.
    assert_eq!(caller.patch(r#"{"content":"Done.","flags":68}"#).await.status, 200);
    let after = caller.bare(Method::GET).await.json();
    assert_eq!((&after["flags"], &after["content"]), (&json!(4 | privacy), &json!("Done.")));
    assert!(after["edited_timestamp"].as_str().unwrap().ends_with("+00:00"));
    let shown = original(&api);
    assert_eq!((shown.is_loading(), shown.is_private()), (false, privacy != 0));
    assert!(shown.edited.unwrap().0 >= shown.at);
    assert_eq!(api.loading(), 0);
}

#[tokio::test]
async fn a_deferred_update_is_about_the_message_that_the_interaction_came_with() {
    let (api, caller) = started(Script::default(), BUTTON, DEFERRED_UPDATE).await;
    assert_eq!(caller.bare(Method::GET).await.json()["content"], "Vote!");
    // What is not named stays.
    assert_eq!(caller.patch(r#"{"embeds":null}"#).await.status, 200);
    let shown = original(&api);
    assert_eq!((shown.id, shown.content.as_str(), shown.embeds.len()), (77, "Vote!", 0));
    assert_eq!(caller.patch(r#"{"content":""}"#).await.problem(), (400, 50006));
    assert_eq!(caller.bare(Method::DELETE).await.status, 204);
    for method in [Method::GET, Method::PATCH, Method::DELETE] {
        assert_eq!(caller.bare(method).await.problem(), (404, 10008));
    }
    assert!(original(&api).deleted.is_some());
}

#[tokio::test]
async fn the_first_follow_up_takes_the_place_of_thinking() {
    let (api, caller) = started(Script::default(), COMMAND, DEFERRED).await;
    let private = r#"{"content":"Hush.","flags":64}"#;
    assert_eq!(caller.post(private).await.json()["flags"], 0);
    assert_eq!((original(&api).content.as_str(), original(&api).is_loading()), ("Hush.", false));
    assert_eq!(caller.post(private).await.json()["flags"], 64);
    let follow_ups = api.view("secret").unwrap().follow_ups;
    assert!(follow_ups.len() == 1 && follow_ups[0].is_private() && follow_ups[0].edited.is_none());
}

#[tokio::test]
async fn a_follow_up_after_a_deletion_stands_for_itself() {
    let (api, caller) = started(Script::default(), COMMAND, DEFERRED).await;
    assert_eq!(caller.bare(Method::DELETE).await.status, 204);
    assert_eq!(caller.post(r#"{"content":"Hush.","flags":64}"#).await.json()["flags"], 64);
    assert!(api.view("secret").unwrap().follow_ups[0].is_private());
    assert_eq!((original(&api).content.as_str(), api.loading()), ("", 0));
}

#[rstest]
#[case::token(Method::PATCH, "/webhooks/2/other/messages/@original", TEXT, (404, 10015))]
#[case::application(Method::PATCH, "/webhooks/3/secret/messages/@original", TEXT, (404, 10015))]
#[case::nothing(Method::PATCH, ORIGINAL, "", (400, 50006))]
#[case::empty(Method::POST, FOLLOW_UP, r#"{"content":" "}"#, (400, 50006))]
#[case::whole_callback(Method::PATCH, ORIGINAL, r#"{"type":4,"data":{"content":"x"}}"#, (400, 50006))]
#[case::type_of_content(Method::PATCH, ORIGINAL, r#"{"content":7}"#, (400, 50035))]
#[case::array(Method::PATCH, ORIGINAL, "[]", (400, 50035))]
#[case::json(Method::PATCH, ORIGINAL, "{", (400, 50109))]
#[case::no_file(Method::PATCH, ORIGINAL, r#"{"content":"x","attachments":[{"id":0}]}"#, (400, 50035))]
#[case::method(Method::PUT, ORIGINAL, TEXT, (405, 0))]
#[case::method_of_follow_ups(Method::GET, FOLLOW_UP, "", (405, 0))]
#[case::path(Method::GET, "/users/@me", "", (404, 0))]
#[case::longer_path(Method::POST, "/interactions/1/secret/callback/x", TEXT, (404, 0))]
#[case::answered(Method::POST, CALLBACK, r#"{"type":5}"#, (400, 40060))]
#[case::interaction(Method::POST, "/interactions/1/other/callback", r#"{"type":5}"#, (404, 10062))]
#[tokio::test]
async fn a_wrong_call_is_refused(
    #[case] method: Method,
    #[case] path: &str,
    #[case] body: &'static str,
    #[case] problem: (u16, u64),
) {
    let (api, caller) = started(Script::default(), COMMAND, DEFERRED).await;
    let answer = caller.send(method, path, false, body).await.unwrap();
    assert_eq!(answer.problem(), problem);
    assert!(answer.json()["message"].as_str().unwrap().len() > 5);
    assert!(original(&api).is_loading(), "it changed something");
    assert_eq!(u16::from(api.calls()[0].status.unwrap()), problem.0);
}

#[rstest]
#[case::fits(2000, 200)]
#[case::too_long(2001, 400)]
#[tokio::test]
async fn content_is_measured_in_characters(#[case] length: usize, #[case] status: u16) {
    let (_api, caller) = started(Script::default(), COMMAND, DEFERRED).await;
    let body = json!({ "content": "é".repeat(length) }).to_string();
    assert_eq!(caller.patch(&body).await.status, status);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_and_read_to_its_end() {
    let (api, caller) = started(Script::default(), COMMAND, DEFERRED).await;
    let answer = caller.send(Method::PATCH, ORIGINAL, false, vec![b' '; (25 << 20) + 1]).await.unwrap();
    assert_eq!(answer.problem(), (413, 40005));
    assert_eq!(api.calls()[0].body.len(), 0);
    assert_eq!(caller.patch(TEXT).await.status, 200);
}

#[tokio::test]
async fn only_bots_are_let_in() {
    let (api, _) = started(Script::default(), COMMAND, DEFERRED).await;
    for agent in [None, Some("curl/8"), Some("discordbot (x, 1)")] {
        let mut request = reqwest::Client::builder().no_proxy().build().unwrap().get(api.url() + ORIGINAL);
        if let Some(agent) = agent {
            request = request.header(header::USER_AGENT, agent);
        }
        assert_eq!(request.send().await.unwrap().status(), StatusCode::FORBIDDEN, "{agent:?}");
    }
}

#[tokio::test]
async fn files_come_in_a_form_and_go_by_an_edit_that_does_not_list_them() {
    let (api, caller) = started(Script::default(), COMMAND, DEFERRED).await;
    let form = "--X\r\nContent-Disposition: form-data; name=\"payload_json\"\r\n\r\n\
        {\"content\":\"Two.\",\"attachments\":[{\"id\":0},{\"id\":\"1\"}]}\r\n\
        --X\r\nContent-Disposition: form-data; name=\"files[0]\"; filename=\"a.txt\"\r\n\r\n12345\r\n\
        --X\r\nContent-Disposition: form-data; name=\"files[1]\"; filename=\"b.txt\"\r\n\r\n\r\n--X--\r\n";
    assert_eq!(caller.send(Method::PATCH, ORIGINAL, true, form).await.unwrap().status, 200);
    let files = original(&api).attachments;
    let shown: Vec<_> = files.iter().map(|file| (file.name.as_str(), file.size)).collect();
    assert_eq!(shown, [("a.txt", 5), ("b.txt", 0)]);
    let post = api.calls()[0].post().unwrap();
    assert_eq!((post.payload["content"].as_str(), &post.files[0].content[..]), (Some("Two."), &b"12345"[..]));
    assert_eq!(caller.patch(r#"{"content":"Still two."}"#).await.status, 200);
    assert_eq!(original(&api).attachments.len(), 2);
    let one = json!({ "attachments": [{ "id": files[1].id.to_string() }] });
    assert_eq!(caller.patch(&one.to_string()).await.json()["attachments"][0]["filename"], "b.txt");
    assert_eq!(original(&api).attachments.len(), 1);
    let broken = caller.send(Method::PATCH, ORIGINAL, true, form.split_at(200).0).await.unwrap();
    assert_eq!(broken.problem(), (400, 50035));
}

#[tokio::test]
async fn a_token_lives_for_15_minutes() {
    let clock = Arc::new(Moved::default());
    let (api, caller) = started(Script::default().clock(Arc::clone(&clock) as _), COMMAND, DEFERRED).await;
    clock.pass(Duration::from_secs(14 * 60 + 30));
    assert_eq!(caller.patch(TEXT).await.status, 200);
    clock.pass(Duration::from_secs(30));
    assert_eq!(caller.patch(TEXT).await.problem(), (401, 50027));
    let seen: Vec<_> = api.calls().iter().map(|call| call.is_after_expiry).collect();
    assert_eq!(seen, [false, true]);
    assert_eq!(api.count(|call| call.is_after_expiry), 1);
}

#[tokio::test]
async fn a_token_can_be_ended() {
    let (api, caller) = started(Script::default(), COMMAND, DEFERRED).await;
    api.expire("secret");
    assert_eq!(caller.post(TEXT).await.problem(), (401, 50027));
    assert!(api.calls()[0].is_after_expiry && original(&api).is_loading());
}

#[tokio::test]
async fn a_handler_may_answer_by_a_call() {
    let api = Api::start(0).await.unwrap();
    let caller = Caller::of(&api);
    let callback =
        || caller.send(Method::POST, CALLBACK, false, r#"{"type":4,"data":{"content":"Hi.","flags":64}}"#);
    assert_eq!(callback().await.unwrap().problem(), (404, 10062));
    assert!(api.sent(COMMAND));
    assert_eq!(caller.patch(TEXT).await.problem(), (404, 10015));
    assert_eq!(callback().await.unwrap().status, 204);
    assert!(original(&api).is_private() && original(&api).content == "Hi.");
    assert_eq!(callback().await.unwrap().problem(), (400, 40060));
    assert!(!api.answered(COMMAND, DEFERRED));
    assert_eq!(api.calls()[1].target, Target::Original);
    assert_eq!((api.calls()[1].nth, api.calls()[1].since_answer), (2, None));
}

#[rstest]
#[case::no_token(br#"{"id":"1","application_id":"2"}"#, DEFERRED)]
#[case::no_application(br#"{"id":"1","token":"secret"}"#, DEFERRED)]
#[case::no_callback(COMMAND, b"Hello")]
#[case::unknown_type(COMMAND, br#"{"type":3}"#)]
#[case::no_message_to_update(COMMAND, DEFERRED_UPDATE)]
#[case::empty_message(COMMAND, br#"{"type":4}"#)]
#[tokio::test]
async fn what_discord_would_not_take_is_no_answer(#[case] interaction: &[u8], #[case] callback: &[u8]) {
    let api = Api::start(0).await.unwrap();
    assert!(!api.answered(interaction, callback));
    assert!(api.view("secret").is_none_or(|view| view.original.is_none()));
}

#[tokio::test]
async fn what_is_waited_for_is_seen() {
    let script = Script::default().faults(|_| Some(Fault::Slow(Duration::from_millis(50))));
    let (api, caller) = started(script, COMMAND, DEFERRED).await;
    let call = tokio::spawn(async move { caller.patch(TEXT).await.status });
    timeout(LONG, api.until(|api| api.count(|_| true) == 1)).await.unwrap();
    timeout(LONG, api.until(|api| api.loading() == 0)).await.unwrap();
    timeout(LONG, api.until(|api| api.count(|call| call.status.is_some()) == 1)).await.unwrap();
    assert_eq!(call.await.unwrap(), 200);
    let other = br#"{"id":"2","application_id":"2","token":"other","type":2}"#;
    assert!(api.sent(other));
    let answered = async { assert!(api.answered(other, DEFERRED)) };
    timeout(LONG, async { tokio::join!(api.until(|api| api.loading() == 1), answered) }).await.unwrap();
}

#[tokio::test]
async fn bodies_can_be_left_out() {
    for (script, size) in [(Script::default(), TEXT.len()), (Script::default().without_bodies(), 0)] {
        let script = script.faults(|call| (call.body.len() != TEXT.len()).then_some(Fault::Status(500)));
        let (api, caller) = started(script, COMMAND, DEFERRED).await;
        assert_eq!(caller.patch(TEXT).await.status, 200);
        assert_eq!((api.calls()[0].body.len(), original(&api).content.as_str()), (size, "Done."));
    }
}

#[tokio::test]
async fn it_stops_with_its_connections() {
    let (api, caller) = started(Script::default(), COMMAND, DEFERRED).await;
    assert_eq!(caller.bare(Method::GET).await.status, 200);
    let address = api.address();
    drop(api);
    // The connection that the client kept is gone too, so each try ends in a refusal.
    let gone = async { while caller.send(Method::GET, ORIGINAL, false, "").await.is_some() {} };
    timeout(LONG, gone).await.unwrap();
    let again = Api::start(address.port()).await.unwrap();
    assert_eq!(again.address(), address);
}
