//! `shardless probe` through the real proxies: what the daemon says comes to it unchanged, and what they say themselves is
//! understood.

use std::process::Command;

use crate::daemon::Settings;
use crate::setup::{setup, through_every_front};

/// What it says of the endpoint. That this one is not https it says too, and goes on, since it is on this machine.
async fn probe(endpoint: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shardless"));
    command.args(["probe", endpoint]);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shipped_sites_pass_and_a_daemon_that_is_not_there_is_told() {
    through_every_front(async |proxy, way| {
        let mut setup = setup(proxy, Settings::from(way)).await;
        let said = probe(&setup.front.endpoint()).await;
        assert_eq!(
            (said.matches('✘').count(), said.matches("! ").count()),
            (2, 0),
            "{proxy}, {way:?}: {said}"
        );
        for words in [
            "✘ URL ",
            "✔ forged       refused by shardless with 401",
            "✔ headers ",
            "✔ unsigned ",
            "✔ large body ",
            "✔ clock ",
            "✔ speed ",
        ] {
            assert!(said.contains(words), "{proxy}, {way:?}: {words} is not in {said}");
        }
        setup.daemon.stop("TERM").await;
        let said = probe(&setup.front.endpoint()).await;
        assert!(said.contains("The proxy does not reach shardless."), "{proxy}, {way:?}: {said}");
        setup
    })
    .await;
}
