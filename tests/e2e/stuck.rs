//! A worker that hangs in a call that should never hang: it is told of, and the service manager is told nothing.

use std::time::Duration;

use crate::daemon::{Daemon, Settings};
use crate::discord::Discord;
use crate::handler::Handler;
use crate::lie::Lie;
use crate::process::{free_port, until};

#[tokio::test]
async fn a_worker_that_is_stuck_is_told_of_until_it_gets_on() {
    let (discord, handler, admin) = (Discord::new(), Handler::start().await, free_port());
    let settings = Settings { admin: Some(admin), ..Settings::default() };
    let daemon = Daemon::start(&discord, handler.port(), settings).await;
    let url = format!("http://127.0.0.1:{}/interactions", daemon.upstream().port);
    // Its port is open before its threads have begun.
    discord.try_ask(&url, &discord.command("first")).await.unwrap();
    let command = discord.command("stuck");
    // Longer than Discord waits, and than three looks take.
    let lie = Lie::tell(&daemon.threads("worker"), "sendto,writev", "delay_enter=60000000").await;
    let asking = discord.try_ask(&url, &command);
    let is_told = async {
        daemon.logs(&["ERROR", "of its threads have been at one piece of work for 3 s"]).await;
        until("the status is degraded", async || ask(admin, "readyz").await.contains("threads are stuck"))
            .await;
        // So that whoever looks after it starts it anew.
        assert_eq!(ask(admin, "livez").await, "threads of the daemon are stuck\n");
    };
    tokio::select! {
        () = is_told => {}
        answer = asking => panic!("it was not stuck: {answer:?}"),
    }
    drop(lie);
    daemon.logs(&["no thread is stuck any more"]).await;
    assert!(!ask(admin, "readyz").await.contains("stuck"));
    assert_eq!(ask(admin, "livez").await, "ok\n");
    discord.try_ask(&url, &discord.command("well")).await.unwrap();
}

/// What the admin listener says meanwhile: it has a thread of its own.
async fn ask(admin: u16, what: &str) -> String {
    let url = format!("http://127.0.0.1:{admin}/{what}");
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build().unwrap();
    client.get(url).send().await.unwrap().text().await.unwrap()
}
