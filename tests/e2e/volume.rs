//! Many interactions, through each proxy to each library: one after another, and a hundred at once.

use std::time::Instant;

use futures_util::StreamExt;
use rstest::rstest;

use crate::bots::{Bot, Library};
use crate::daemon::{Daemon, Settings, Way};
use crate::discord::{Discord, Interaction};
use crate::inside::is_full;
use crate::proxies::Proxy;

const AT_ONCE: usize = 100;

fn interactions() -> usize {
    if is_full() { 1000 } else { 100 }
}

#[rstest]
#[tokio::test]
async fn every_interaction_gets_its_own_answer(
    #[values(Proxy::Nginx, Proxy::Apache)] proxy: Proxy,
    #[values(Way::Plain, Way::SelfSigned, Way::Unix)] way: Way,
    #[values(Library::Express, Library::Flask)] library: Library,
) {
    let discord = Discord::new();
    let bot = Bot::start(library, &discord).await;
    let daemon = Daemon::start(&discord, bot.port(), Settings::from(way)).await;
    let front = proxy.in_front_of(daemon.upstream()).await;
    for at_once in [1, AT_ONCE] {
        let interactions: Vec<_> = (0..interactions()).map(|n| discord.nth(n)).collect();
        let start = Instant::now();
        let errors = send_all(&discord, &front.endpoint(), &interactions, at_once).await;
        println!(
            "{proxy}, {way:?} and {library:?}, {at_once} at once: {} interactions in {:.1?}, {} errors",
            interactions.len(),
            start.elapsed(),
            errors.len(),
        );
        assert_eq!(errors, [""; 0]);
    }
}

/// The errors.
pub(crate) async fn send_all(
    discord: &Discord,
    url: &str,
    interactions: &[Interaction],
    at_once: usize,
) -> Vec<String> {
    let answers = interactions.iter().map(|interaction| discord.try_ask(url, interaction));
    let answers = futures_util::stream::iter(answers).buffer_unordered(at_once);
    answers.filter_map(async |answer| answer.err()).collect().await
}
