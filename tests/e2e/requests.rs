//! Single requests through each proxy: sound ones, and others.

use std::time::Duration;

use http::{HeaderValue, StatusCode};
use rstest::rstest;
use serde_json::Value;

use crate::daemon::{Daemon, Settings};
use crate::discord::Discord;
use crate::handler::Handler;
use crate::process::free_port;
use crate::proxies::{Front, Proxy};
use crate::raw;

/// The daemon between a proxy and a handler.
struct Setup {
    discord: Discord,
    handler: Handler,
    daemon: Daemon,
    front: Front,
}

async fn setup(proxy: Proxy, settings: Settings) -> Setup {
    setup_with(proxy, Handler::start().await, settings).await
}

async fn setup_with(proxy: Proxy, handler: Handler, settings: Settings) -> Setup {
    let discord = Discord::new();
    let daemon = Daemon::start(&discord, handler.port(), settings).await;
    let front = proxy.in_front_of(daemon.port()).await;
    Setup { discord, handler, daemon, front }
}

#[rstest]
#[tokio::test]
async fn a_ping_is_answered_though_the_handler_is_down(#[values(Proxy::Nginx, Proxy::Apache)] proxy: Proxy) {
    let discord = Discord::new();
    let daemon = Daemon::start(&discord, free_port(), Settings::default()).await;
    let front = proxy.in_front_of(daemon.port()).await;
    let ping = discord.ping();
    let pong = discord.send(&front.endpoint(), &discord.sign(&ping)).await;
    assert_eq!((pong.status, pong.content_type.as_str()), (StatusCode::OK, "application/json"));
    assert_eq!(pong.body, r#"{"type":1}"#);
}

#[rstest]
#[tokio::test]
async fn a_forgery_is_refused_in_the_daemons_own_words(#[values(Proxy::Nginx, Proxy::Apache)] proxy: Proxy) {
    let Setup { discord, handler, daemon, front } = &setup(proxy, Settings::default()).await;
    let forged = discord.sign(&discord.ping()).forge();
    let refused = discord.send(&front.endpoint(), &forged).await;
    let direct = discord.send(&format!("http://127.0.0.1:{}/interactions", daemon.port()), &forged).await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    assert_eq!((refused.content_type, refused.body), (direct.content_type, direct.body));
    assert!(handler.seen().is_empty());
}

#[rstest]
#[tokio::test]
async fn a_get_is_told_to_post(#[values(Proxy::Nginx, Proxy::Apache)] proxy: Proxy) {
    let Setup { front, .. } = &setup(proxy, Settings::default()).await;
    let answer = raw::exchange(front.port(), &raw::get("/interactions")).await;
    assert_eq!(answer.status, 405);
    assert!(answer.text.to_ascii_lowercase().contains("\r\nallow: post\r\n"), "{}", answer.text);
    assert!(answer.text.contains("interactions come by POST"), "{}", answer.text);
}

#[rstest]
#[tokio::test]
async fn a_body_over_the_limit_is_413(
    #[values(Proxy::Nginx, Proxy::Apache)] proxy: Proxy,
    #[values("", "body = \"100KiB\"")] limits: &'static str,
    #[values(false, true)] chunked: bool,
) {
    let Setup { discord, front, .. } = &setup(proxy, Settings { limits, app: "" }).await;
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
async fn a_large_body_within_the_limit_arrives(#[values(Proxy::Nginx, Proxy::Apache)] proxy: Proxy) {
    let Setup { discord, handler, front, .. } = &setup(proxy, Settings::default()).await;
    // An answer may be long too; Discord's own limit on its content is no matter here.
    let signed = discord.sign(&discord.command(&"🎵".repeat(1000 * 256)).payload);
    assert_eq!(discord.send(&front.endpoint(), &signed).await.status, StatusCode::OK);
    assert_eq!(handler.seen().len(), 1);
    // Its token would be on the disk.
    assert!(!front.log().contains("temporary file"), "{}", front.log());
}

#[rstest]
#[tokio::test]
async fn a_path_reaches_the_daemon_as_it_came(
    #[values(Proxy::Nginx, Proxy::Apache)] proxy: Proxy,
    #[values("/nowhere", "/interactions/", "/a%2Fb", "/a%20b%C3%BC", "/a//b")] path: &str,
) {
    let Setup { discord, daemon, front, .. } = &setup(proxy, Settings::default()).await;
    let request = raw::post(path, &discord.sign(&discord.ping()));
    let answer = raw::exchange(front.port(), &request).await;
    assert_eq!(answer.status, 404);
    assert!(answer.text.ends_with("no application has this path\n"), "{}", answer.text);
    daemon.logs(&["refused: no application has this path", &format!("path={path:?}")]).await;
}

#[rstest]
#[tokio::test]
async fn a_chunked_request_is_answered(#[values(Proxy::Nginx, Proxy::Apache)] proxy: Proxy) {
    let Setup { discord, front, .. } = &setup(proxy, Settings::default()).await;
    let interaction = discord.command("in pieces 🧩");
    let request = raw::post_in_chunks("/interactions", &discord.sign(&interaction.payload), 100);
    let answer = raw::exchange(front.port(), &request).await;
    assert_eq!(answer.status, 200);
    assert!(answer.text.contains("in pieces 🧩"), "{}", answer.text);
}

#[rstest]
#[tokio::test]
async fn a_client_cannot_speak_to_the_handler_in_our_name(
    #[values(Proxy::Nginx, Proxy::Apache)] proxy: Proxy,
) {
    let Setup { discord, handler, front, .. } = &setup(proxy, Settings::default()).await;
    let interaction = discord.command("who am I?");
    let mut signed = discord.sign(&interaction.payload);
    for name in ["x-shardless-app", "x-shardless-deadline"] {
        signed.headers_mut().insert(name, HeaderValue::from_static("999999"));
    }
    let exchange = discord.send(&front.endpoint(), &signed).await;
    interaction.check(&exchange).unwrap();
    let seen = handler.seen().remove(0);
    let values =
        |name: &str| seen.get_all(name).iter().map(|value| value.to_str().unwrap()).collect::<Vec<_>>();
    assert_eq!(values("x-shardless-app"), ["mybot"]);
    assert!(!values("x-shardless-deadline").contains(&"999999"), "{seen:?}");
}

#[rstest]
#[tokio::test]
async fn the_client_is_who_the_proxy_saw_not_who_it_claims_to_be(
    #[values(Proxy::Nginx, Proxy::Apache)] proxy: Proxy,
) {
    let Setup { discord, daemon, front, .. } = &setup(proxy, Settings::default()).await;
    let mut signed = discord.sign(&discord.ping());
    let headers = signed.headers_mut();
    for claim in ["203.0.113.9", "198.51.100.7, 203.0.113.9"] {
        headers.append("x-forwarded-for", HeaderValue::from_static(claim));
    }
    headers.insert("x-real-ip", HeaderValue::from_static("203.0.113.9"));
    headers.insert("forwarded", HeaderValue::from_static("for=203.0.113.9"));
    // Another address than the proxy's own, or the test would not see the difference.
    let answer =
        raw::exchange_from([127, 0, 0, 2].into(), front.port(), &raw::post("/interactions", &signed)).await;
    assert_eq!(answer.status, 200);
    let line = daemon.logs(&["PING answered"]).await;
    assert!(line.ends_with("client=127.0.0.2"), "{line}");
}

#[rstest]
#[tokio::test]
async fn the_proxy_says_where_a_request_came_from(#[values(Proxy::Nginx, Proxy::Apache)] proxy: Proxy) {
    let (discord, daemon) = (Discord::new(), Handler::start().await);
    let front = proxy.in_front_of(daemon.port()).await;
    let request = raw::post("/interactions", &discord.sign(&discord.ping()));
    raw::exchange_from([127, 0, 0, 2].into(), front.port(), &request).await;
    let seen = daemon.seen().remove(0);
    assert_eq!(seen["host"], "127.0.0.1");
    assert_eq!(seen["x-forwarded-for"], "127.0.0.2");
    assert_eq!(seen["x-forwarded-proto"], "http");
}

#[rstest]
#[tokio::test]
async fn a_daemon_that_hangs_does_not_hang_the_proxy(#[values(Proxy::Nginx, Proxy::Apache)] proxy: Proxy) {
    let Setup { discord, daemon, front, .. } = &setup(proxy, Settings::default()).await;
    daemon.hang();
    let exchange = discord.send(&front.endpoint(), &discord.sign(&discord.ping())).await;
    assert!(exchange.status.is_server_error(), "{exchange:?}");
    // The read time-out of the site file.
    let expected = Duration::from_secs(4)..Duration::from_secs(6);
    assert!(expected.contains(&exchange.elapsed), "it took {:?}", exchange.elapsed);
}

#[rstest]
#[tokio::test]
async fn a_slow_handler_is_answered_for_in_time(#[values(Proxy::Nginx, Proxy::Apache)] proxy: Proxy) {
    let handler = Handler::start_slow(Duration::from_secs(60)).await;
    let app = "error_message = \"That took too long ⏳\"";
    let Setup { discord, front, .. } = &setup_with(proxy, handler, Settings { app, limits: "" }).await;
    let signed = discord.sign(&discord.command("are you there?").payload);
    let exchange = discord.send(&front.endpoint(), &signed).await;
    assert_eq!(exchange.status, StatusCode::OK);
    let answer: Value = serde_json::from_slice(&exchange.body).unwrap();
    assert_eq!(answer["data"]["content"], "That took too long ⏳");
    // `answer_within` as it ships, and Discord's deadline.
    let expected = Duration::from_millis(2200)..Duration::from_secs(3);
    assert!(expected.contains(&exchange.elapsed), "it took {:?}", exchange.elapsed);
}

#[rstest]
#[tokio::test]
async fn a_request_that_comes_twice_is_forwarded_once(#[values(Proxy::Nginx, Proxy::Apache)] proxy: Proxy) {
    let handler = Handler::start_slow(Duration::from_millis(100)).await;
    let Setup { discord, handler, front, .. } = &setup_with(proxy, handler, Settings::default()).await;
    let (url, interaction) = (front.endpoint(), discord.command("once"));
    let signed = discord.sign(&interaction.payload);
    let both_at_once = tokio::join!(discord.send(&url, &signed), discord.send(&url, &signed));
    let once_more = discord.send(&url, &signed).await;
    for exchange in [both_at_once.0, both_at_once.1, once_more] {
        interaction.check(&exchange).unwrap();
    }
    assert_eq!(handler.seen().len(), 1);
}
