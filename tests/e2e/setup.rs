//! The whole way of an interaction, ready for a test.

use futures_util::future::join_all;

use crate::daemon::{Daemon, Settings, Way};
use crate::discord::Discord;
use crate::handler::Handler;
use crate::proxies::{Front, Proxy};

/// The daemon between a proxy and a handler.
pub(crate) struct Setup {
    pub(crate) discord: Discord,
    pub(crate) handler: Handler,
    pub(crate) daemon: Daemon,
    pub(crate) front: Front,
}

/// One that is ready, with a quick handler.
pub(crate) async fn setup(proxy: Proxy, settings: impl Into<Settings>) -> Setup {
    setup_with(proxy, Handler::start().await, settings.into()).await
}

/// The same, with that handler.
pub(crate) async fn setup_with(proxy: Proxy, handler: Handler, settings: Settings) -> Setup {
    let discord = Discord::new();
    let daemon = Daemon::start(&discord, handler.port(), settings).await;
    let front = proxy.in_front_of(daemon.upstream()).await;
    Setup { discord, handler, daemon, front }
}

/// A test that mostly waits: it is run for every proxy and every way at once. What it returns ends when all are over, since
/// an end may take a moment, and the others watch the time.
pub(crate) async fn through_every_front(test: impl AsyncFn(Proxy, Way) -> Setup) {
    let ways = [Way::Plain, Way::SelfSigned, Way::Unix];
    let fronts = [Proxy::Nginx, Proxy::Apache].into_iter().flat_map(|proxy| ways.map(|way| (proxy, way)));
    join_all(fronts.map(|(proxy, way)| test(proxy, way))).await;
}
