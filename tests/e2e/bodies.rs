//! Bodies through each proxy: too large, in chunks, slow, and those that wait to be asked for.

use std::time::Duration;

use http::StatusCode;
use rstest::rstest;

use crate::daemon::{Settings, Way};
use crate::proxies::Proxy;
use crate::raw::{self, Connection, RawAnswer};
use crate::setup::{Setup, setup, through_every_front};

#[rstest]
#[tokio::test]
async fn a_body_over_the_limit_is_413(
    #[values(Proxy::Nginx, Proxy::Apache)] proxy: Proxy,
    #[values(Way::Plain, Way::SelfSigned, Way::Unix)] way: Way,
    #[values("", "body = \"100KiB\"")] limits: &'static str,
    #[values(false, true)] chunked: bool,
) {
    let Setup { discord, front, .. } = &setup(proxy, Settings { way, limits, ..Settings::default() }).await;
    let kilobytes = if limits.is_empty() { 1100 } else { 200 };
    let signed = discord.sign(&discord.command(&"🎵".repeat(kilobytes * 256)).payload);
    let request = if chunked {
        raw::post_in_chunks("/interactions", &signed, 10_000)
    } else {
        raw::post("/interactions", &signed)
    };
    let answer = raw::exchange(front.port(), &request).await;
    assert_eq!(answer.status, 413, "{}", answer.text);
}

#[rstest]
#[tokio::test]
async fn a_large_body_within_the_limit_arrives(
    #[values(Proxy::Nginx, Proxy::Apache)] proxy: Proxy,
    #[values(Way::Plain, Way::SelfSigned, Way::Unix)] way: Way,
) {
    let Setup { discord, handler, front, .. } = &setup(proxy, way).await;
    // An answer may be long too; Discord's own limit on its content is no matter here.
    let signed = discord.sign(&discord.command(&"🎵".repeat(1000 * 256)).payload);
    assert_eq!(discord.send(&front.endpoint(), &signed).await.status, StatusCode::OK);
    assert_eq!(handler.seen().len(), 1);
    // Its token would be on the disk.
    assert!(!front.log().contains("temporary file"), "{}", front.log());
}

#[rstest]
#[tokio::test]
async fn a_chunked_request_is_answered(
    #[values(Proxy::Nginx, Proxy::Apache)] proxy: Proxy,
    #[values(Way::Plain, Way::SelfSigned, Way::Unix)] way: Way,
) {
    let Setup { discord, front, .. } = &setup(proxy, way).await;
    let interaction = discord.command("in pieces 🧩");
    let request = raw::post_in_chunks("/interactions", &discord.sign(&interaction.payload), 100);
    let answer = raw::exchange(front.port(), &request).await;
    assert_eq!(answer.status, 200);
    assert!(answer.text.contains("in pieces 🧩"), "{}", answer.text);
}

/// Slower than a network, faster than `read_timeout`.
#[tokio::test]
async fn a_body_that_comes_in_drops_is_answered() {
    through_every_front(async |proxy, way| {
        let setup = setup(proxy, way).await;
        let Setup { discord, front, .. } = &setup;
        for chunked in [false, true] {
            let interaction = discord.command("drop by drop 💧");
            let signed = discord.sign(&interaction.payload);
            let request = if chunked {
                raw::post_in_chunks("/interactions", &signed, 20)
            } else {
                raw::post("/interactions", &signed)
            };
            let answer = send_slowly(front.port(), &request, Duration::from_millis(800)).await;
            assert_eq!(answer.status, 200, "{proxy}, {way:?}: {}", answer.text);
            assert!(answer.text.contains("drop by drop 💧"), "{proxy}, {way:?}: {}", answer.text);
        }
        setup
    })
    .await;
}

/// Nginx waits for the whole body by itself. Apache passes on what is more than 16 KiB as it comes.
#[tokio::test]
async fn a_body_slower_than_the_daemon_waits_for_costs_only_itself() {
    through_every_front(async |proxy, way| {
        let settings = Settings { way, limits: "read_timeout = \"200ms\"", ..Settings::default() };
        let setup = setup(proxy, settings).await;
        let Setup { discord, front, .. } = &setup;
        let slow = discord.sign(&discord.command(&"🐌".repeat(20_000)).payload);
        let request = raw::post("/interactions", &slow);
        let answer = send_slowly(front.port(), &request, Duration::from_millis(500)).await;
        let expected = if proxy == Proxy::Nginx { 200 } else { 408 };
        assert_eq!(answer.status, expected, "{proxy}, {way:?}");
        discord.try_ask(&front.endpoint(), &discord.command("next")).await.unwrap();
        setup
    })
    .await;
}

/// Sends a request in ten pieces.
async fn send_slowly(port: u16, request: &[u8], duration: Duration) -> RawAnswer {
    let mut connection = Connection::to(port).await;
    for piece in request.chunks(request.len() / 10) {
        connection.send(piece).await;
        tokio::time::sleep(duration / 10).await;
    }
    connection.answer().await
}

#[rstest]
#[tokio::test]
async fn a_body_that_waits_to_be_asked_for_is_asked_for(
    #[values(Proxy::Nginx, Proxy::Apache)] proxy: Proxy,
    #[values(Way::Plain, Way::SelfSigned, Way::Unix)] way: Way,
    #[values(false, true)] chunked: bool,
) {
    let Setup { discord, handler, front, .. } = &setup(proxy, way).await;
    let interaction = discord.command("may I?");
    let mut signed = discord.sign(&interaction.payload);
    signed.headers_mut().insert("expect", "100-continue".parse().unwrap());
    let request = if chunked {
        raw::post_in_chunks("/interactions", &signed, 100)
    } else {
        raw::post("/interactions", &signed)
    };
    let head = request.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap() + 4;
    let mut connection = Connection::to(front.port()).await;
    connection.send(&request[..head]).await;
    assert_eq!(connection.interim().await, "HTTP/1.1 100 Continue\r\n\r\n");
    connection.send(&request[head..]).await;
    let answer = connection.answer().await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert!(answer.text.contains("may I?"), "{}", answer.text);
    assert_eq!(handler.seen().len(), 1);
}

#[rstest]
#[tokio::test]
async fn a_body_that_was_to_wait_and_did_not_is_answered(
    #[values(Proxy::Nginx, Proxy::Apache)] proxy: Proxy,
    #[values(Way::Plain, Way::SelfSigned, Way::Unix)] way: Way,
) {
    let Setup { discord, front, .. } = &setup(proxy, way).await;
    let interaction = discord.command("here I am");
    let mut signed = discord.sign(&interaction.payload);
    signed.headers_mut().insert("expect", "100-continue".parse().unwrap());
    let answer = raw::exchange(front.port(), &raw::post("/interactions", &signed)).await;
    assert!(answer.text.contains("here I am"), "{}", answer.text);
}
