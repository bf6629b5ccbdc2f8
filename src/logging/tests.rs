//! The log as its readers see it.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use super::*;
use crate::activity::{End, Outcome, Record};
use crate::discord::interaction::Interaction;
use tracing::level_filters::LevelFilter;
use tracing::{Dispatch, Level, debug, info, warn};

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Subscribers beside the one of a test. Where there is just one, tracing takes whatever thread comes first for its own,
/// and tests run side by side: lines of one would be lost by another.
static OTHERS: LazyLock<[Dispatch; 2]> =
    LazyLock::new(|| [(); 2].map(|()| Dispatch::new(tracing_subscriber::registry())));

fn captured_as(format: LogFormat, log: &Log, what: impl FnOnce(LogLevel)) -> Vec<u8> {
    LazyLock::force(&OTHERS);
    let captured = Captured::default();
    let writer = captured.clone();
    let (subscriber, level) = subscriber(format, log, false, move || writer.clone());
    tracing::subscriber::with_default(subscriber, || what(level));
    captured.0.lock().unwrap().clone()
}

fn captured(format: LogFormat, what: impl FnOnce()) -> Vec<u8> {
    captured_as(format, &at(LevelFilter::INFO), |_| what())
}

fn at(level: LevelFilter) -> Log {
    Log { format: None, level, levels: BTreeMap::new() }
}

pub(super) fn captured_text(what: impl FnOnce()) -> String {
    String::from_utf8(captured(LogFormat::Text, what)).unwrap()
}

const TRACE: &str = "00000000000000000000000000000abc";

fn a_failure() {
    let body = br#"{"id":"42","type":3,"data":{"custom_id":"a\nb\u001b[31m"}}"#;
    let parsed = Interaction::parse(body).unwrap();
    let now = tokio::time::Instant::now();
    let mut record = Record::new("mybot".into(), &parsed, 0xabc, Ipv4Addr::LOCALHOST.into(), [now; 2]);
    record.replica = Some("http://127.0.0.1:8080/".into());
    let end = End {
        outcome: Outcome::Failed,
        status: 502,
        elapsed: Duration::from_micros(12_345),
        explanation: Some("handler answered 404 Not Found".to_owned()),
    };
    interaction(&Flood::default(), now, &record, &end);
}

#[test]
fn a_line_of_text_is_one_line_whatever_a_user_named_things() {
    let text = captured_text(a_failure);
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(!text.contains('\u{1b}'), "{text:?}");
    for part in
        ["WARN", "handler failed: handler answered 404 Not Found", "app=\"mybot\"", "id=42", "ms=12.3", TRACE]
    {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}

#[test]
fn a_json_line_is_an_object_with_the_same_fields() {
    let json: serde_json::Value = serde_json::from_slice(&captured(LogFormat::Json, a_failure)).unwrap();
    assert_eq!(json["level"], "WARN");
    assert_eq!(json["id"], 42);
    assert_eq!(json["outcome"], "failed");
    assert_eq!(json["ms"], 12.3);
    assert_eq!(json["trace"], TRACE);
}

/// As systemd's own documentation of the protocol has it: name, line end, length, value, line end.
fn parse(mut entry: &[u8]) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    while !entry.is_empty() {
        let end = entry.iter().position(|byte| *byte == b'\n').unwrap();
        let (name, rest) = entry.split_at(end);
        let (length, rest) = rest[1..].split_at(8);
        let (value, rest) = rest.split_at(u64::from_le_bytes(length.try_into().unwrap()) as usize);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        assert_eq!(fields.insert(text(name), text(value)), None, "a name stands once");
        entry = rest.strip_prefix(b"\n").unwrap();
    }
    fields
}

#[test]
fn an_entry_of_the_journal_has_its_fields() {
    let fields = parse(&captured(LogFormat::Journald, a_failure));
    let field = |name: &str| fields.get(name).map(String::as_str).unwrap_or_default();
    assert_eq!(field("PRIORITY"), "4");
    assert_eq!(field("SYSLOG_IDENTIFIER"), "shardless");
    assert_eq!(field("SHARDLESS_APP"), "mybot");
    assert_eq!(field("SHARDLESS_ID"), "42");
    assert_eq!(field("SHARDLESS_OUTCOME"), "failed");
    assert_eq!(field("SHARDLESS_TRACE"), TRACE);
    assert_eq!(field("SHARDLESS_NAME"), "a\nb\u{1b}[31m", "as it is: its length comes before it");
    let message = field("MESSAGE");
    assert!(
        message.starts_with("handler failed: handler answered 404 Not Found app=\"mybot\" id=42 "),
        "{message}"
    );
}

/// The end of an interaction, whatever is known of it.
fn an_end(outcome: Outcome, change: impl FnOnce(&mut Record, &mut End)) -> impl Fn() {
    let body = br#"{"id":"1234567890123456789","type":2,"data":{"name":"a \"b\" \u001b"}}"#;
    let parsed = Interaction::parse(body).unwrap();
    let now = tokio::time::Instant::now();
    let mut record = Record::new("mybot".into(), &parsed, 1, Ipv6Addr::LOCALHOST.into(), [now; 2]);
    let mut end = End { outcome, status: 200, elapsed: Duration::from_millis(12), explanation: None };
    change(&mut record, &mut end);
    move || interaction(&Flood::default(), now, &record, &end)
}

/// What it is, and what writes it.
type Line = (&'static str, Box<dyn Fn()>);

fn lines() -> Vec<Line> {
    let now = tokio::time::Instant::now();
    let elapsed = Duration::from_micros(2_200_250);
    let one = Record::new(
        "a".into(),
        &Interaction::parse(br#"{"id":"5","type":3}"#).unwrap(),
        7,
        [192, 0, 2, 1].into(),
        [now; 2],
    );
    let again = one.clone();
    let all_known = an_end(Outcome::Failed, |record, end| {
        record.route = Some("command a, kind command".into());
        record.replica = Some("https://bot.internal/b".into());
        record.handler_time = Some(Duration::from_secs(2));
        end.explanation = Some("it answered \"no\"".to_owned());
    });
    let refused = |status| Refused {
        reason: "path",
        status,
        client: [203, 0, 113, 9].into(),
        path: "/a\n\u{1b}[31m\"b\"",
        text: "nobody is there",
    };
    let ended = |level| Ended { level, reason: "timeout", peer: [203, 0, 113, 9].into(), text: "too slow" };
    let ended_so = move |is_trouble, route| {
        let app = "a".into();
        let line = Delivered {
            app: &app,
            id: u64::MAX,
            route,
            result: "gone",
            age: elapsed,
            is_trouble,
            text: "gone",
        };
        delivered(&Flood::default(), now, &line);
    };
    let sum = move || {
        let flood = Flood::default();
        let line = Refused { path: "", ..refused(404) };
        // These are not what is looked at.
        tracing::subscriber::with_default(tracing::subscriber::NoSubscriber::new(), || {
            (0..13).for_each(|_| refusal(&flood, now, line));
        });
        flood.sum_up_all(now);
    };
    vec![
        ("a failure", Box::new(all_known)),
        ("an answer", Box::new(an_end(Outcome::Answered, |_, _| {}))),
        (
            "a doubt",
            Box::new(an_end(Outcome::Deferred, |_, end| end.explanation = Some("perhaps".to_owned()))),
        ),
        ("a late failure", Box::new(move || late_failure(&Flood::default(), now, &one, elapsed, "why"))),
        ("a deferral that nobody took", Box::new(move || unsent(&again))),
        ("a refusal", Box::new(move || refusal(&Flood::default(), now, refused(404)))),
        ("a warning refusal", Box::new(move || refusal(&Flood::default(), now, refused(503)))),
        ("a connection", Box::new(move || connection(&Flood::default(), now, &ended(Level::WARN)))),
        ("a delivery", Box::new(move || ended_so(false, Some("guild 1")))),
        ("a delivery in trouble", Box::new(move || ended_so(true, None))),
        ("a replica", Box::new(move || replica(&Flood::default(), now, &"http://b/".into(), Ok(())))),
        ("a sum", Box::new(sum)),
        (
            "a bug",
            Box::new(
                || error!(target: "shardless::daemon", at = %"src/a.rs:1:2", done = true, "a {}", "bug"),
            ),
        ),
    ]
}

#[test]
fn all_formats_have_the_same_fields_with_the_same_values() {
    for (what, line) in lines() {
        let json: serde_json::Value = serde_json::from_slice(&captured(LogFormat::Json, &line)).unwrap();
        let text = captured_text(&line);
        let entry = parse(&captured(LogFormat::Journald, &line));
        let word =
            |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);

        let mut of_json: BTreeMap<String, String> =
            json.as_object().unwrap().iter().map(|(name, value)| (name.clone(), word(value))).collect();
        let mut taken = |name: &str| of_json.remove(name).unwrap();
        let [level, target, message, _] = ["level", "target", "message", "timestamp"].map(&mut taken);
        let of_entry: BTreeMap<String, String> = entry
            .iter()
            .filter_map(|(name, value)| {
                Some((name.strip_prefix("SHARDLESS_")?.to_lowercase(), value.clone()))
            })
            .filter(|(name, _)| name != "target")
            .collect();
        assert_eq!(of_json, of_entry, "{what}");
        assert_eq!(entry["SHARDLESS_TARGET"], target, "{what}");
        let priority = match level.as_str() {
            "ERROR" => "3",
            "WARN" => "4",
            _ => "6",
        };
        assert_eq!(entry["PRIORITY"], priority, "{what}");

        let (_, line) = text.split_once(&format!(" {level} {target}: ")).unwrap();
        assert_eq!(line.trim_end_matches('\n'), entry["MESSAGE"], "{what}");
        let mut rest = line.strip_prefix(&message).unwrap().trim_end().to_owned();
        for (name, value) in &of_json {
            let forms = [format!(" {name}={value}"), format!(" {name}={value:?}")];
            let form = forms.iter().find(|form| rest.contains(*form));
            let form = form.unwrap_or_else(|| panic!("{what}: {forms:?} is not in {rest}"));
            rest = rest.replacen(form, "", 1);
        }
        assert_eq!(rest, "", "{what}: more in the text");
    }
}

/// Warns of something, in one of the ways there are.
type Warning = Box<dyn Fn(&Flood)>;

fn warnings() -> Vec<(&'static str, &'static str, Warning)> {
    let now = tokio::time::Instant::now();
    let body = br#"{"id":"5","type":2}"#;
    let record =
        Record::new("a".into(), &Interaction::parse(body).unwrap(), 7, Ipv4Addr::LOCALHOST.into(), [now; 2]);
    let with_record = |warn: fn(&Flood, tokio::time::Instant, &Record)| -> Warning {
        let record = record.clone();
        Box::new(move |flood| warn(flood, now, &record))
    };
    let ended = |outcome| -> Warning {
        let (record, elapsed) = (record.clone(), Duration::ZERO);
        let end = End { outcome, status: 200, elapsed, explanation: Some("no".to_owned()) };
        Box::new(move |flood| interaction(flood, now, &record, &end))
    };
    let long = Duration::from_secs(3);
    let left_out = move |flood: &Flood| replica(flood, now, &"http://b/".into(), Err((long, "why")));
    let undelivered = move |flood: &Flood| {
        let (app, route, is_trouble) = ("a".into(), None, true);
        let line = Delivered { app: &app, id: 1, route, result: "gone", age: long, is_trouble, text: "gone" };
        delivered(flood, now, &line);
    };
    vec![
        ("interactions: handler failed", "app=\"a\"", ended(Outcome::Failed)),
        ("interactions: handler is late", "outcome=\"late\"", ended(Outcome::Late)),
        ("interactions: interaction answered", "app=\"a\"", ended(Outcome::Answered)),
        (
            "interactions: handler ended too late",
            "app=\"a\"",
            with_record(|flood, now, record| ended_in_vain(flood, now, record, Duration::ZERO, "why")),
        ),
        (
            "interactions: handler answered late",
            "app=\"a\"",
            with_record(|flood, now, record| late_warning(flood, now, record, Duration::ZERO, "why")),
        ),
        (
            "interactions: handler failed after",
            "app=\"a\"",
            with_record(|flood, now, record| late_failure(flood, now, record, Duration::ZERO, "why")),
        ),
        ("delivery: ", "app=\"a\" outcome=\"gone\"", Box::new(undelivered)),
        (
            "delivery: Discord's API cannot be reached",
            "",
            Box::new(move |flood| reach(flood, now, Err("why"))),
        ),
        ("handlers: replica is left out", "handler=\"http://b/\"", Box::new(left_out)),
    ]
}

#[test]
fn every_warning_that_requests_cause_is_held_back_in_a_flood() {
    for (words, about, warn) in warnings() {
        let now = tokio::time::Instant::now();
        let text = captured_text(|| {
            let flood = Flood::default();
            (0..1000).for_each(|_| warn(&flood));
            flood.sum_up_all(now + Duration::from_secs(60));
        });
        let start = format!(" WARN shardless::{words}");
        assert_eq!(text.matches(&start).count(), 11, "{words}: {text}");
        let last = text.lines().last().unwrap();
        assert!(last.contains(": 990 more in 10 s") && last.contains(about), "{last}");
    }
}

#[test]
fn information_about_interactions_is_never_held_back() {
    let flood = Flood::default();
    let now = tokio::time::Instant::now();
    let body = br#"{"id":"5","type":2}"#;
    let record =
        Record::new("a".into(), &Interaction::parse(body).unwrap(), 7, Ipv4Addr::LOCALHOST.into(), [now; 2]);
    for (outcome, explanation) in
        [(Outcome::Answered, None), (Outcome::Deferred, Some("perhaps")), (Outcome::Duplicate, None)]
    {
        let explanation = explanation.map(str::to_owned);
        let end = End { outcome, status: 200, elapsed: Duration::ZERO, explanation };
        let text = captured_text(|| (0..1000).for_each(|_| interaction(&flood, now, &record, &end)));
        assert_eq!(text.matches(" INFO shardless::interactions: ").count(), 1000, "{outcome:?}");
    }
}

#[test]
fn the_level_can_be_changed() {
    let text = captured_as(LogFormat::Text, &at(LevelFilter::WARN), |level| {
        info!("one");
        level.set(&at(LevelFilter::DEBUG));
        debug!("two");
        level.set(&at(LevelFilter::ERROR));
        warn!("three");
        level.set(&at(LevelFilter::OFF));
        error!("four");
    });
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("two") && text.lines().count() == 1, "{text}");
}

#[test]
fn a_part_has_a_level_of_its_own() {
    let levels = [(LogPart::Delivery, LevelFilter::DEBUG), (LogPart::Refusals, LevelFilter::OFF)];
    let log = Log { levels: BTreeMap::from(levels), ..at(LevelFilter::WARN) };
    let all = || {
        debug!(target: "shardless::delivery::rest", "more of the delivery");
        error!(target: LogPart::Refusals.target(), "a refusal");
        info!(target: LogPart::Interactions.target(), "an interaction");
        warn!(target: LogPart::Outbox.target(), "the outbox");
        error!(target: "reqwest", "a library");
    };
    let text = captured_as(LogFormat::Text, &log, |level| {
        all();
        level.set(&at(LevelFilter::WARN));
        error!("---");
        all();
    });
    let text = String::from_utf8(text).unwrap();
    let lines: Vec<_> = text.lines().map(|line| line.rsplit(": ").next().unwrap()).collect();
    let expected = ["more of the delivery", "the outbox", "---", "a refusal", "the outbox"];
    assert_eq!(lines, expected, "{text}");
    assert!(text.contains(" WARN shardless::outbox: the outbox\n"), "{text}");
}

#[test]
fn other_crates_have_no_say() {
    let text = captured_text(|| error!(target: "hyper", "token=secret"));
    assert_eq!(text, "");
    let of_all_parts = LogPart::ALL.map(|part| (part, LevelFilter::TRACE));
    let talkative = Log { levels: BTreeMap::from(of_all_parts), ..at(LevelFilter::TRACE) };
    for target in ["hyper::client", "reqwest", "rustls", "h2", ""] {
        assert!(!ours(&talkative).would_enable(target, &Level::ERROR), "{target}");
    }
    assert!(ours(&talkative).would_enable("shardless::delivery::rest", &Level::TRACE));
}

#[test]
fn a_panics_text_is_told_unless_it_was_put_together() {
    let text = |work: fn()| text_of(&*std::panic::catch_unwind(work).unwrap_err());
    assert_eq!(text(|| panic!("the wheel came off")), ": the wheel came off");
    assert_eq!(text(|| panic!("not a number: {}", std::hint::black_box("secret"))), "");
    assert_eq!(text(|| std::panic::panic_any(5)), "");
}
