//! What a handler gets, and what comes back.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderValue;
use http_body_util::Full;
use shardless::clock::{Clock, SystemClock};
use shardless::discord::signature::{SIGNATURE_HEADER, TIMESTAMP_HEADER};
use shardless::rehearsal::{Author, StandIn};

use crate::support::{Binary, Handler, TestDaemon, json};

#[tokio::test]
async fn a_handler_gets_the_signed_bytes_and_only_headers_that_are_on_the_list() {
    let daemon = TestDaemon::start().await;
    let payload = daemon.fresh_command();
    let mut signed = daemon.discord.sign(&payload);
    for (name, value) in [
        ("x-shardless-app", "another"),
        ("x-shardless-deadline", "1000000"),
        ("webhook-id", "spoofed"),
        ("webhook-timestamp", "1700000000"),
        ("webhook-signature", "v1,spoofed"),
        ("tracestate", "vendor=secret"),
        ("baggage", "user=secret"),
        ("x_signature_ed25519", "spoofed"),
        ("x-forwarded-for", "203.0.113.9"),
        ("cookie", "secret"),
        ("authorization", "Bearer secret"),
        ("accept-encoding", "gzip"),
        ("te", "trailers"),
    ] {
        signed.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    assert_eq!(daemon.send(&signed).await.status, 200);

    let got = daemon.handler.last();
    assert_eq!(got.body, payload.body);
    assert_eq!(got.path, "/bot");
    let mut names: Vec<_> = got.headers.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    let listed = [
        "content-length",
        "content-type",
        "host",
        "traceparent",
        "user-agent",
        "x-shardless-app",
        "x-shardless-deadline",
        "x-signature-ed25519",
        "x-signature-timestamp",
    ];
    assert_eq!(names, listed);
    for name in [SIGNATURE_HEADER, TIMESTAMP_HEADER, http::header::CONTENT_TYPE, http::header::USER_AGENT] {
        assert_eq!(got.headers[&name], signed.headers()[&name], "{name}");
    }
    assert_eq!(got.headers["x-shardless-app"], "mybot");
    let left: u64 = got.headers["x-shardless-deadline"].to_str().unwrap().parse().unwrap();
    assert!((1000..=2200).contains(&left), "{left} ms");
}

/// The trace's id and flags, and the part of it that sent this.
fn trace(headers: &http::HeaderMap) -> (String, String) {
    let values: Vec<_> = headers.get_all("traceparent").iter().collect();
    let [value] = values[..] else { panic!("not one traceparent: {values:?}") };
    let parts: Vec<_> = value.to_str().unwrap().split('-').collect();
    let [version, id, span, flags] = parts[..] else { panic!("{value:?}") };
    assert_eq!((version, id.len(), span.len()), ("00", 32, 16));
    (format!("{id} {flags}"), span.to_owned())
}

#[tokio::test]
async fn a_trace_is_continued_or_begun() {
    let daemon = TestDaemon::start().await;
    let send = async |values: &[&'static str]| {
        let mut signed = daemon.command();
        for value in values {
            signed.headers_mut().append("traceparent", HeaderValue::from_static(value));
        }
        assert_eq!(daemon.send(&signed).await.status, 200);
        trace(&daemon.handler.last().headers)
    };
    let theirs = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let (continued, span) = send(&[theirs]).await;
    assert_eq!(continued, "4bf92f3577b34da6a3ce929d0e0e4736 01");
    assert_ne!(span, "00f067aa0ba902b7", "the handler's caller is this daemon");
    assert_ne!(span, send(&[theirs]).await.1, "each call has its own");
    let mut others = vec![continued];
    for values in [&[][..], &["garbage"], &[theirs, theirs]] {
        let (begun, _) = send(values).await;
        assert!(begun.ends_with(" 00") && !others.contains(&begun), "{values:?}: {begun}");
        others.push(begun);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trace_stands_in_the_log() {
    let handler = Handler::fine().await;
    let daemon = Binary::serve("", "", &handler.url()).await;
    let discord = StandIn::new(daemon.signer.clone(), Arc::new(SystemClock)).unwrap();
    for (salt, value) in
        ["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", ""].into_iter().enumerate()
    {
        let payload = Author::new(SystemClock.unix_time(), (salt as u64) << 12).command("roll", &[]);
        let mut signed = discord.sign(&payload);
        signed.headers_mut().insert("traceparent", HeaderValue::from_static(value));
        assert_eq!(discord.send(&daemon.url(), &signed).await.unwrap().status, 200);
        let (id, _) = trace(&handler.last().headers);
        daemon.until_log(&format!("trace={}", id.trim_end_matches(" 00"))).await;
    }
}

#[tokio::test]
async fn a_json_answer_is_relayed_byte_for_byte() {
    let body = "{ \"type\": 4,\n\t\"data\": {\"content\": \"🎲 \\u00e9\", \"content2\": 1.0} }\n";
    let daemon = TestDaemon::with("", "", Handler::start(move |_| async move { json(body) }).await).await;
    let exchange = daemon.send(&daemon.command()).await;
    assert_eq!((exchange.status.as_u16(), &exchange.body[..]), (200, body.as_bytes()));
    assert_eq!(exchange.content_type, "application/json");
    assert_eq!(daemon.interactions("command", "answered"), 1.0);
}

#[tokio::test]
async fn a_multipart_answer_with_a_file_is_relayed_byte_for_byte() {
    let file: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    let body = [
        &b"--x\r\nContent-Disposition: form-data; name=\"payload_json\"\r\n\r\n{\"type\":4}\r\n"[..],
        b"--x\r\nContent-Disposition: form-data; name=\"files[0]\"; filename=\"a.bin\"\r\n\r\n",
        &file,
        b"\r\n--x--\r\n",
    ]
    .concat();
    let sent = Bytes::from(body.clone());
    let handler = Handler::start(move |_| {
        let response = http::Response::builder().header("content-type", "multipart/form-data; boundary=x");
        let response = response.body(Full::new(sent.clone())).unwrap();
        async { response }
    })
    .await;
    let daemon = TestDaemon::with("", "", handler).await;
    let exchange = daemon.send(&daemon.command()).await;
    assert_eq!((exchange.status.as_u16(), exchange.body.len()), (200, body.len()));
    assert_eq!(exchange.body, body);
    assert_eq!(exchange.content_type, "multipart/form-data; boundary=x");
}

#[tokio::test]
async fn a_handler_that_answers_by_itself_turns_into_202_without_a_body() {
    for status in [202, 204] {
        let handler = Handler::start(move |_| async move {
            http::Response::builder().status(status).body(Full::default()).unwrap()
        })
        .await;
        let daemon = TestDaemon::with("", "", handler).await;
        let exchange = daemon.send(&daemon.command()).await;
        assert_eq!((exchange.status.as_u16(), exchange.body.len(), &*exchange.content_type), (202, 0, ""));
        assert_eq!(daemon.interactions("command", "handler_answers_itself"), 1.0);
    }
}

#[tokio::test]
async fn connections_to_the_handler_are_reused() {
    let daemon = TestDaemon::start().await;
    for _ in 0..10 {
        daemon.assert_works().await;
    }
    let received = daemon.handler.received();
    assert!(received.iter().all(|got| got.from == received[0].from), "more than one connection");
}

#[tokio::test]
async fn applications_stand_side_by_side_each_with_its_key_path_and_handler() {
    let other = Handler::start(|_| async { json(r#"{"type":4,"data":{"content":"other"}}"#) }).await;
    let signer = shardless::rehearsal::Signer::generate().unwrap();
    let second = format!(
        "[apps.other]\npublic_key = \"{}\"\nhandler = \"{}\"\npath = \"/other\"\n",
        signer.public_key(),
        other.url(),
    );
    let first = Handler::start(|_| async { json(r#"{"type":4,"data":{"content":"first"}}"#) }).await;
    let daemon = TestDaemon::with("", &second, first).await;
    let discord = StandIn::new(signer, daemon.clock.clone()).unwrap();
    let url = format!("http://{}/other", daemon.address);

    // The very same body, so the very same id: each application has its own.
    let payload = daemon.fresh_command();
    let to_first = daemon.send(&daemon.discord.sign(&payload)).await;
    let to_other = discord.send(&url, &discord.sign(&payload)).await.unwrap();
    assert!(to_first.body.ends_with(b"first\"}}") && to_other.body.ends_with(b"other\"}}"));
    assert_eq!(other.last().headers["x-shardless-app"], "other");

    let crossed = discord.send(&daemon.url(), &discord.sign(&daemon.fresh_command())).await.unwrap();
    assert_eq!(crossed.status, 401);
    assert_eq!((daemon.handler.calls(), other.calls()), (1, 1));
}
