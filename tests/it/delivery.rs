//! Late answers on their way to Discord, and all that can go wrong there. Time passes by itself: see `Courier`.

mod bar;
mod own;
mod waits;
mod whole;

use std::fs;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rstest::rstest;
use shardless::clock::Clock;
use shardless::discord::deferral::Deferral;
use shardless::discord::late::Way;
use shardless::rehearsal::rest::{Api, Call, Fault, Script};
use tokio::time::Instant;

use crate::support::TestClock;
use crate::support::courier::{Courier, Ending, FALLBACK, PUBLIC};

const HELLO: Ending = Ending::Answer(Way::Edit, r#"{"content":"hello"}"#);
const BESIDE: Ending = Ending::Answer(Way::FollowUp, r#"{"content":"hello"}"#);
const SECRET: Ending = Ending::Answer(Way::Replace, r#"{"content":"secret","flags":64}"#);
/// Discord refuses it by itself.
const EMPTY: Ending = Ending::Answer(Way::Edit, r#"{"content":""}"#);
const EMPTY_SECRET: Ending = Ending::Answer(Way::Replace, r#"{"content":"","flags":64}"#);
const PRIVATE: Deferral = Deferral::Message { private: true };

/// What goes wrong, and with which calls for an interaction.
type Plan = (Range<usize>, Fault);

const FINE: Plan = (0..0, Fault::Reset);

fn first(fault: Fault) -> Plan {
    (1..2, fault)
}

fn always(fault: Fault) -> Plan {
    (1..usize::MAX, fault)
}

fn script((turns, fault): Plan) -> Script {
    Script::default().faults(move |call| turns.contains(&call.nth).then_some(fault))
}

fn refusal(status: u16, code: u32) -> Fault {
    Fault::Code { status, code }
}

/// What goes wrong, the calls for it, and what the user has in the end: the first message, those after it, in a word.
#[rstest]
#[case::nothing(PUBLIC, HELLO, FINE, "PATCH", "hello", "", "answered")]
#[case::trouble(PUBLIC, HELLO, first(Fault::Status(500)), "PATCH PATCH", "hello", "", "answered")]
#[case::bad_gateway(PUBLIC, HELLO, first(Fault::Status(502)), "PATCH PATCH", "hello", "", "answered")]
#[case::reset(PUBLIC, HELLO, first(Fault::Reset), "PATCH PATCH", "hello", "", "answered")]
#[case::an_edit_again(PUBLIC, HELLO, first(Fault::ResetAfter), "PATCH PATCH", "hello", "", "answered")]
// The first one may have arrived or not: better twice than never.
#[case::a_follow_up_twice(
    Deferral::Update,
    BESIDE,
    first(Fault::ResetAfter),
    "POST POST",
    "Pick one:",
    "hello|hello",
    "answered"
)]
#[case::hangs(PUBLIC, HELLO, first(Fault::Hang), "PATCH PATCH", "hello", "", "answered")]
#[case::slow(PUBLIC, HELLO, always(Fault::Slow(Duration::from_secs(9))), "PATCH", "hello", "", "answered")]
// For good.
#[case::expired_token(PUBLIC, HELLO, always(refusal(401, 50027)), "PATCH", "…", "", "token_refused")]
#[case::unauthorized(PUBLIC, HELLO, always(refusal(401, 0)), "PATCH", "…", "", "token_refused")]
#[case::unknown_interaction(PUBLIC, HELLO, always(refusal(404, 10062)), "PATCH", "…", "", "token_refused")]
#[case::acknowledged(PUBLIC, HELLO, always(refusal(400, 40060)), "PATCH", "…", "", "token_refused")]
#[case::forbidden(PUBLIC, HELLO, always(refusal(403, 50013)), "PATCH GET", "…", "", "refused")]
#[case::not_found(PUBLIC, HELLO, always(refusal(404, 0)), "PATCH GET", "…", "", "refused")]
#[case::redirected(PUBLIC, HELLO, always(Fault::Status(308)), "PATCH GET", "…", "", "refused")]
#[case::forbidden_fallback(PUBLIC, Ending::Failure, always(refusal(403, 50013)), "GET", "…", "", "refused")]
#[case::deleted(PUBLIC, HELLO, always(refusal(404, 10008)), "PATCH", "…", "", "gone")]
#[case::deleted_before_a_fallback(
    PUBLIC,
    Ending::Failure,
    always(refusal(404, 10008)),
    "GET",
    "…",
    "",
    "gone"
)]
// The message will not do: another one may.
#[case::bad_form(PUBLIC, HELLO, first(refusal(400, 50035)), "PATCH GET PATCH", FALLBACK, "", "fell_back")]
#[case::too_large(PUBLIC, HELLO, first(refusal(413, 40005)), "PATCH GET PATCH", FALLBACK, "", "fell_back")]
#[case::forbidden_once(
    PUBLIC,
    HELLO,
    first(refusal(403, 50013)),
    "PATCH GET PATCH",
    FALLBACK,
    "",
    "fell_back"
)]
#[case::not_found_once(
    PUBLIC,
    HELLO,
    first(refusal(404, 10003)),
    "PATCH GET PATCH",
    FALLBACK,
    "",
    "fell_back"
)]
#[case::not_allowed(PUBLIC, HELLO, first(refusal(405, 0)), "PATCH GET PATCH", FALLBACK, "", "fell_back")]
#[case::redirected_once(
    PUBLIC,
    HELLO,
    first(Fault::Status(308)),
    "PATCH GET PATCH",
    FALLBACK,
    "",
    "fell_back"
)]
#[case::empty(PUBLIC, EMPTY, FINE, "PATCH GET PATCH", FALLBACK, "", "fell_back")]
#[case::empty_update(Deferral::Update, EMPTY, FINE, "PATCH POST", "Pick one:", FALLBACK, "fell_back")]
#[case::bad_fallback(PUBLIC, Ending::Failure, (2..3, refusal(400, 50035)), "GET PATCH", "…", "", "refused")]
// What is private never becomes public.
#[case::in_private(PUBLIC, SECRET, FINE, "DELETE POST", "gone", "secret", "answered")]
#[case::delete_forbidden(
    PUBLIC,
    SECRET,
    first(refusal(403, 50013)),
    "DELETE GET PATCH",
    FALLBACK,
    "",
    "fell_back"
)]
#[case::delete_unsound(
    PUBLIC,
    SECRET,
    first(refusal(400, 50035)),
    "DELETE GET PATCH",
    FALLBACK,
    "",
    "fell_back"
)]
#[case::delete_in_trouble(PUBLIC, SECRET, (1..4, Fault::Status(503)), "DELETE DELETE DELETE DELETE POST", "gone", "secret", "answered")]
#[case::delete_after_the_end(PUBLIC, SECRET, always(refusal(401, 50027)), "DELETE", "…", "", "token_refused")]
#[case::deleted_twice(
    PUBLIC,
    SECRET,
    first(Fault::ResetAfter),
    "DELETE DELETE POST",
    "gone",
    "secret",
    "answered"
)]
#[case::forbidden_secret(
    PUBLIC,
    SECRET,
    (2..3, refusal(403, 50013)),
    "DELETE POST POST",
    "gone",
    FALLBACK,
    "fell_back"
)]
#[case::empty_secret(PUBLIC, EMPTY_SECRET, FINE, "DELETE POST POST", "gone", FALLBACK, "fell_back")]
// The fallback.
#[case::fallback(PUBLIC, Ending::Failure, FINE, "GET PATCH", FALLBACK, "", "fell_back")]
#[case::fallback_in_private(PRIVATE, Ending::Failure, FINE, "GET PATCH", FALLBACK, "", "fell_back")]
// Not without another look.
#[case::fallback_in_trouble(
    PUBLIC,
    Ending::Failure,
    (2..3, Fault::Status(503)),
    "GET PATCH GET PATCH",
    FALLBACK,
    "",
    "fell_back"
)]
#[case::fallback_that_arrived(
    PUBLIC,
    Ending::Failure,
    (2..3, Fault::ResetAfter),
    "GET PATCH GET",
    FALLBACK,
    "",
    "fell_back"
)]
#[case::fallback_beside(Deferral::Update, Ending::Failure, FINE, "POST", "Pick one:", FALLBACK, "fell_back")]
#[case::unreadable(PUBLIC, Ending::Failure, always(Fault::Status(200)), "GET", "…", "", "kept")]
#[case::unreadable_own(
    PUBLIC,
    Ending::Own(Duration::from_secs(60)),
    always(Fault::Status(200)),
    "GET",
    "…",
    "",
    "kept"
)]
#[tokio::test(start_paused = true)]
async fn every_trouble_has_its_end(
    #[case] deferral: Deferral,
    #[case] ending: Ending,
    #[case] plan: Plan,
    #[case] calls: &str,
    #[case] first: &str,
    #[case] after: &str,
    #[case] result: &str,
) {
    let courier = Courier::with(script(plan)).await;
    courier.defer(1, deferral, ending);
    let view = courier.end_of(1).await;
    let original = view.original.unwrap();
    let seen = match (original.deleted, original.is_loading()) {
        (Some(_), _) => "gone",
        (None, true) => "…",
        (None, false) => &original.content,
    };
    let after_it: Vec<_> = view.follow_ups.iter().map(|message| &*message.content).collect();
    assert_eq!((courier.calls(1).join(" ").as_str(), seen, &*after_it.join("|")), (calls, first, after));
    assert_eq!(courier.ended(result), 1.0, "{result}");
    assert_eq!(original.is_private(), deferral == PRIVATE);
    let are_private = |message: &&str| ["secret", FALLBACK].contains(message);
    for message in view.follow_ups.iter().filter(|message| are_private(&&*message.content)) {
        assert!(message.is_private(), "{message:?}");
    }
    // Never again.
    let calls = courier.api.calls().len();
    tokio::time::sleep(Duration::from_secs(20 * 60)).await;
    assert_eq!(courier.api.calls().len(), calls);
}

/// On disk, where it is safe, but not always to be had.
#[rstest]
#[case::for_a_while(Duration::from_secs(40), "hello", "answered")]
#[case::for_good(Duration::from_secs(800), FALLBACK, "fell_back")]
#[tokio::test(start_paused = true)]
async fn an_answer_that_cannot_be_read_is_tried_again(
    #[case] time: Duration,
    #[case] seen: &str,
    #[case] result: &str,
) {
    let folder = tempfile::tempdir().unwrap();
    let courier = Courier::with(script(FINE)).await;
    courier.outbox.keep_in(folder.path().to_owned());
    courier.defer_large(1, 300_000);
    courier.until_stored().await;
    let names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let body = names.into_iter().find(|path| path.extension().is_some_and(|end| end == "body")).unwrap();
    let aside = folder.path().join("aside");
    fs::rename(&body, &aside).unwrap();
    // It leads nowhere.
    std::os::unix::fs::symlink(&body, &body).unwrap();
    tokio::time::sleep(time).await;
    let calls = courier.calls(1).len();
    fs::rename(&aside, &body).unwrap();
    assert_eq!(courier.end_of(1).await.original.unwrap().content, seen);
    assert_eq!((calls, courier.ended(result)), (if result == "answered" { 0 } else { 2 }, 1.0));
}

#[tokio::test(start_paused = true)]
async fn one_s_trouble_does_not_delay_another_s() {
    let faults = |call: &Call| match call.token() {
        "hush-1-hush" => Some(Fault::Hang),
        "hush-2-hush" => Some(Fault::Status(500)),
        "hush-3-hush" => Some(Fault::UnknownWebhook),
        _ => None,
    };
    let courier = Courier::with(Script::default().faults(faults)).await;
    (1..=50).for_each(|id| courier.defer_hello(id));
    courier.until_entries(3.0).await;
    for id in 4..=50 {
        assert!(courier.times(id)[0] < Duration::from_millis(500), "{:?}", courier.times(id));
        assert_eq!(courier.view(id).original.unwrap().content, "hello");
    }
    courier.until_entries(0.0).await;
    assert_eq!(
        (courier.ended("answered"), courier.ended("unknown"), courier.ended("expired")),
        (47.0, 1.0, 2.0)
    );
}

/// A time that panics when it is asked for so often.
struct BrokenClock {
    clock: TestClock,
    asked: AtomicUsize,
    breaks: Range<usize>,
}

impl Clock for BrokenClock {
    fn now(&self) -> Instant {
        let turn = self.asked.fetch_add(1, Ordering::SeqCst);
        assert!(!self.breaks.contains(&turn), "as the test asked for");
        self.clock.now()
    }

    fn unix_time(&self) -> Duration {
        self.clock.unix_time()
    }
}

#[rstest]
#[case::before_anything(0..1, FALLBACK)]
#[case::on_the_way(2..3, FALLBACK)]
#[case::after_it(4..5, "hello")]
#[tokio::test(start_paused = true)]
async fn a_panic_ends_in_the_fallback_text(#[case] breaks: Range<usize>, #[case] seen: &str) {
    let clock = Arc::new(BrokenClock { clock: TestClock::default(), asked: AtomicUsize::new(0), breaks });
    let api = Api::start(0).await.unwrap();
    let url = api.url();
    let courier = Courier::between(api, &url, Arc::default(), Some(clock));
    courier.defer_hello(1);
    assert_eq!(courier.end_of(1).await.original.unwrap().content, seen);
    courier.defer_hello(2);
    assert_eq!(courier.end_of(2).await.original.unwrap().content, "hello");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_any_more_once_it_is_dropped() {
    let courier = Courier::with(script(always(Fault::Status(500)))).await;
    courier.defer_hello(1);
    courier.api.until(|api| api.count(|_| true) > 2).await;
    courier.stop().await;
    let calls = courier.calls(1).len();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(courier.calls(1).len(), calls);
}

/// Each try brings all of it. As it names its files, they take the place of those that are there.
#[tokio::test(start_paused = true)]
async fn a_form_is_sent_again_as_it_is() {
    let form = "--x\r\ncontent-disposition: form-data; name=payload_json\r\n\r\n\
        {\"content\":\"here\",\"attachments\":[{\"id\":0}]}\r\n\
        --x\r\ncontent-disposition: form-data; name=\"files[0]\"; filename=\"a.txt\"\r\n\r\n";
    let form = Bytes::from([form.as_bytes(), &vec![b'y'; 100_000], b"\r\n--x--\r\n"].concat());
    let courier = Courier::with(script((1..3, Fault::ResetAfter))).await;
    courier.defer(1, PUBLIC, Ending::Form("multipart/form-data; boundary=x", form.clone()));
    let original = courier.end_of(1).await.original.unwrap();
    let files: Vec<_> = original.attachments.iter().map(|file| file.size).collect();
    assert_eq!((&*original.content, files), ("here", vec![100_000]));
    let calls = courier.api.calls();
    assert_eq!(calls.len(), 3);
    assert!(
        calls.iter().all(|call| call.body == form && call.content_type == "multipart/form-data; boundary=x")
    );
}
