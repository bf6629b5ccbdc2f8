//! Bots that take only what comes through the daemon, by the official libraries of Standard Webhooks.

use http::StatusCode;
use rstest::rstest;

use crate::bots::{Bot, Library};
use crate::daemon::{Daemon, Settings};
use crate::discord::Discord;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n";
const ANOTHER: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX\n";

async fn daemon(discord: &Discord, bot: &Bot, secret: &'static str) -> (Daemon, String) {
    let daemon = Daemon::start(discord, bot.port(), Settings { secret, ..Settings::default() }).await;
    let url = format!("http://127.0.0.1:{}/interactions", daemon.upstream().port);
    (daemon, url)
}

#[rstest]
#[tokio::test]
async fn a_bot_knows_what_came_through_the_daemon(
    #[values(Library::Express, Library::Flask)] library: Library,
) {
    let discord = Discord::new();
    let bot = Bot::start_behind(library, &discord, SECRET.trim()).await;
    let (_daemon, url) = daemon(&discord, &bot, SECRET).await;
    for interaction in (0..8).map(|n| discord.nth(n)) {
        discord.try_ask(&url, &interaction).await.unwrap();
    }

    // As Discord signed it, but past the daemon.
    let signed = discord.sign(&discord.command("past").payload);
    let direct = format!("http://127.0.0.1:{}/interactions", bot.port());
    assert_eq!(discord.send(&direct, &signed).await.status, StatusCode::FORBIDDEN);

    for secret in [ANOTHER, ""] {
        let (daemon, url) = daemon(&discord, &bot, secret).await;
        let signed = discord.sign(&discord.command("a stranger's").payload);
        assert_eq!(discord.send(&url, &signed).await.status, StatusCode::BAD_GATEWAY, "{secret:?}");
        daemon.logs(&["handler failed", "403"]).await;
    }
}
