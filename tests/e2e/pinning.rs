//! Behind the self-signed site files, who answers is the daemon, or nobody.

use rstest::rstest;

use crate::daemon::{Daemon, Settings, Upstream, Way};
use crate::discord::Discord;
use crate::handler::Handler;
use crate::process::free_port;
use crate::proxies::Proxy;
use crate::setup::{Setup, setup};
use crate::sites;

/// Another daemon on the port that the proxy knows: as good as any program that is quick enough while the daemon is down.
async fn impostor(discord: &Discord, handler: &Handler, known: &Upstream) -> (Daemon, Upstream) {
    let impostor = Daemon::start(discord, handler.port(), Settings::from(Way::SelfSigned)).await;
    let upstream = Upstream { certificate: known.certificate.clone(), ..impostor.upstream().clone() };
    (impostor, upstream)
}

#[rstest]
#[tokio::test]
async fn another_certificate_is_refused(#[values(Proxy::Nginx, Proxy::Apache)] proxy: Proxy) {
    let Setup { discord, handler, daemon, front } = &setup(proxy, Way::SelfSigned).await;
    let interaction = discord.command("who is there?");
    discord.try_ask(&front.endpoint(), &interaction).await.unwrap();
    let (_impostor, upstream) = impostor(discord, handler, daemon.upstream()).await;
    let front = proxy.in_front_of(&upstream).await;
    let exchange = discord.send(&front.endpoint(), &discord.sign(&discord.command("me").payload)).await;
    assert!(exchange.status.is_server_error(), "{exchange:?}");
    assert!(front.log().contains("self-signed certificate"), "{}", front.log());
    assert_eq!(handler.seen().len(), 1);
}

/// The lines that stand in the files as comments.
#[rstest]
#[tokio::test]
async fn without_verification_any_certificate_will_do(#[values(Proxy::Nginx, Proxy::Apache)] proxy: Proxy) {
    let (discord, handler) = (Discord::new(), Handler::start().await);
    let known = Daemon::start(&discord, free_port(), Settings::from(Way::SelfSigned)).await;
    let (_impostor, upstream) = impostor(&discord, &handler, known.upstream()).await;
    let port = free_port();
    let site = sites::unverified(&sites::shipped(proxy, port, &upstream));
    let front = proxy.server().start(port, &site).await;
    discord.try_ask(&front.endpoint(), &discord.command("whoever you are")).await.unwrap();
}
