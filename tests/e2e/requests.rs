//! Single requests through each proxy: sound ones, and others.

use std::time::Duration;

use http::{HeaderValue, StatusCode};
use rstest::rstest;
use shardless::rehearsal::rest::Api;
use tokio::net::UnixStream;

use crate::daemon::{Daemon, Settings, Upstream, Way};
use crate::discord::Discord;
use crate::handler::Handler;
use crate::process::free_port;
use crate::proxies::Proxy;
use crate::raw;
use crate::setup::{Setup, setup, setup_with, through_every_front};

#[rstest]
#[tokio::test]
async fn a_ping_is_answered_though_the_handler_is_down(
    #[values(Proxy::Nginx, Proxy::Apache)] proxy: Proxy,
    #[values(Way::Plain, Way::SelfSigned, Way::Unix)] way: Way,
) {
    let discord = Discord::new();
    let daemon = Daemon::start(&discord, free_port(), Settings::from(way)).await;
    let front = proxy.in_front_of(daemon.upstream()).await;
    let ping = discord.ping();
    let pong = discord.send(&front.endpoint(), &discord.sign(&ping)).await;
    assert_eq!((pong.status, pong.content_type.as_str()), (StatusCode::OK, "application/json"));
    assert_eq!(pong.body, r#"{"type":1}"#);
}

#[rstest]
#[tokio::test]
async fn a_forgery_is_refused_in_the_daemons_own_words(
    #[values(Proxy::Nginx, Proxy::Apache)] proxy: Proxy,
    #[values(Way::Plain, Way::SelfSigned, Way::Unix)] way: Way,
) {
    let Setup { discord, handler, daemon, front } = &setup(proxy, way).await;
    let forged = discord.sign(&discord.ping()).forge();
    let refused = raw::exchange(front.port(), &raw::post("/interactions", &forged)).await;
    // Also over TLS, the daemon has the socket, and speaks plain HTTP on it.
    let direct = UnixStream::connect(&daemon.upstream().socket).await.unwrap();
    let direct = raw::exchange_on(direct, &raw::post("/interactions", &forged)).await;
    assert_eq!((refused.status, direct.status), (401, 401));
    assert_eq!(
        (refused.header("content-type"), refused.body()),
        (direct.header("content-type"), direct.body())
    );
    assert!(handler.seen().is_empty());
}

#[rstest]
#[tokio::test]
async fn a_get_is_told_to_post(
    #[values(Proxy::Nginx, Proxy::Apache)] proxy: Proxy,
    #[values(Way::Plain, Way::SelfSigned, Way::Unix)] way: Way,
) {
    let Setup { front, .. } = &setup(proxy, way).await;
    let answer = raw::exchange(front.port(), &raw::get("/interactions")).await;
    assert_eq!(answer.status, 405);
    assert!(answer.text.to_ascii_lowercase().contains("\r\nallow: post\r\n"), "{}", answer.text);
    assert!(answer.text.contains("interactions come by POST"), "{}", answer.text);
}

#[rstest]
#[tokio::test]
async fn a_path_reaches_the_daemon_as_it_came(
    #[values(Proxy::Nginx, Proxy::Apache)] proxy: Proxy,
    #[values(Way::Plain, Way::SelfSigned, Way::Unix)] way: Way,
) {
    let Setup { discord, daemon, front, .. } = &setup(proxy, way).await;
    for path in ["/nowhere", "/interactions/", "/a%2Fb", "/a%20b%C3%BC", "/a//b"] {
        let request = raw::post(path, &discord.sign(&discord.ping()));
        let answer = raw::exchange(front.port(), &request).await;
        assert_eq!(answer.status, 404, "{}", answer.text);
        assert!(answer.text.ends_with("no application has this path\n"), "{}", answer.text);
        daemon.logs(&["refused: no application has this path", &format!("path={path:?}")]).await;
    }
}

#[rstest]
#[tokio::test]
async fn a_client_cannot_speak_to_the_handler_in_our_name(
    #[values(Proxy::Nginx, Proxy::Apache)] proxy: Proxy,
    #[values(Way::Plain, Way::SelfSigned, Way::Unix)] way: Way,
) {
    let Setup { discord, handler, front, .. } = &setup(proxy, way).await;
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
    #[values(Way::Plain, Way::SelfSigned, Way::Unix)] way: Way,
) {
    let Setup { discord, daemon, front, .. } = &setup(proxy, way).await;
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
    assert!(line.contains(" client=127.0.0.2 "), "{line}");
}

#[rstest]
#[tokio::test]
async fn the_proxy_says_where_a_request_came_from(#[values(Proxy::Nginx, Proxy::Apache)] proxy: Proxy) {
    // In the place of the daemon; `sites` sees to it that the files for the other ways say the same.
    let (discord, daemon) = (Discord::new(), Handler::start().await);
    let front = proxy.in_front_of(&Upstream::plain(daemon.port())).await;
    let request = raw::post("/interactions", &discord.sign(&discord.ping()));
    raw::exchange_from([127, 0, 0, 2].into(), front.port(), &request).await;
    let seen = daemon.seen().remove(0);
    assert_eq!(seen["host"], "127.0.0.1");
    assert_eq!(seen["x-forwarded-for"], "127.0.0.2");
    assert_eq!(seen["x-forwarded-proto"], "http");
}

#[tokio::test]
async fn a_daemon_that_hangs_does_not_hang_the_proxy() {
    through_every_front(async |proxy, way| {
        let setup = setup(proxy, way).await;
        let Setup { discord, daemon, front, .. } = &setup;
        daemon.hang().await;
        let exchange = discord.send(&front.endpoint(), &discord.sign(&discord.ping())).await;
        assert!(exchange.status.is_server_error(), "{proxy}, {way:?}: {exchange:?}");
        // The read time-out of the site file. Nginx counts the TLS handshake as a part of connecting.
        let seconds = if (proxy, way) == (Proxy::Nginx, Way::SelfSigned) { 1 } else { 4 };
        let expected = Duration::from_secs(seconds)..Duration::from_secs(seconds + 2);
        assert!(expected.contains(&exchange.elapsed), "{proxy}, {way:?}: it took {:?}", exchange.elapsed);
        setup
    })
    .await;
}

#[tokio::test]
async fn a_slow_handler_is_answered_for_in_time_and_its_answer_follows() {
    through_every_front(async |proxy, way| {
        let handler = Handler::start_slow(Duration::from_millis(3500)).await;
        let api = Api::start(0).await.unwrap();
        let settings = Settings { way, api: api.url(), ..Settings::default() };
        let setup = setup_with(proxy, handler, settings).await;
        let Setup { discord, front, .. } = &setup;
        let command = discord.command("are you there?");
        let exchange = discord.send(&front.endpoint(), &discord.sign(&command.payload)).await;
        assert_eq!(exchange.status, StatusCode::OK, "{proxy}, {way:?}");
        assert_eq!(&exchange.body[..], br#"{"type":5}"#, "{proxy}, {way:?}");
        // `answer_within` as it ships, and Discord's deadline.
        let expected = Duration::from_millis(2200)..Duration::from_secs(3);
        assert!(expected.contains(&exchange.elapsed), "{proxy}, {way:?}: it took {:?}", exchange.elapsed);
        let view = api.follow(&command.payload.body, &exchange.body).await.unwrap();
        let content = &view.last().unwrap().content;
        assert!(content.ends_with("are you there?"), "{proxy}, {way:?}: {content}");
        setup
    })
    .await;
}

#[rstest]
#[tokio::test]
async fn a_request_that_comes_twice_is_forwarded_once(
    #[values(Proxy::Nginx, Proxy::Apache)] proxy: Proxy,
    #[values(Way::Plain, Way::SelfSigned, Way::Unix)] way: Way,
) {
    let handler = Handler::start_slow(Duration::from_millis(100)).await;
    let Setup { discord, handler, front, .. } = &setup_with(proxy, handler, Settings::from(way)).await;
    let (url, interaction) = (front.endpoint(), discord.command("once"));
    let signed = discord.sign(&interaction.payload);
    let both_at_once = tokio::join!(discord.send(&url, &signed), discord.send(&url, &signed));
    let once_more = discord.send(&url, &signed).await;
    for exchange in [both_at_once.0, both_at_once.1, once_more] {
        interaction.check(&exchange).unwrap();
    }
    assert_eq!(handler.seen().len(), 1);
}
