//! The log of `shardless serve`: what its parts say at which level, and what is left of a flood.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::Value;
use shardless::clock::{Clock, SystemClock};
use shardless::rehearsal::{Author, StandIn};

use crate::support::{Binary, Handler, json, until, until_within};

fn discord(daemon: &Binary) -> StandIn {
    StandIn::new(daemon.signer.clone(), Arc::new(SystemClock)).unwrap()
}

fn author(salt: u64) -> Author {
    Author::new(SystemClock.unix_time(), salt << 12)
}

/// Sends so many commands at once, `salt` for their ids.
async fn send_commands(daemon: &Binary, salt: u64, count: u64) {
    let discord = discord(daemon);
    let sending = (0..count).map(|n| {
        let signed = discord.sign(&author(salt + n).command("roll", &[]));
        let (discord, url) = (discord.clone(), daemon.url());
        async move { discord.send(&url, &signed).await.unwrap().status.as_u16() }
    });
    let statuses = join_all(sending).await;
    assert!(statuses.iter().all(|status| *status == 502), "{statuses:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_has_its_own_level_which_is_reloaded() {
    let levels = |words: &str| format!("[log]\nlevel = \"error\"\n[log.levels]\n{words}");
    let daemon = Binary::serve("", "", "http://127.0.0.1:9/").await;
    let reload = async |settings: &str, n| {
        daemon.rewrite(settings, "", "http://127.0.0.1:9/");
        daemon.signal("HUP");
        until("it is reloaded", || async { daemon.log().matches("is in force now").count() == n }).await;
    };
    reload(&levels("daemon = \"info\"\ninteractions = \"off\"\nrefusals = \"debug\""), 1).await;
    send_commands(&daemon, 0, 1).await;
    let forged = discord(&daemon).sign(&author(1).ping()).forge();
    assert_eq!(discord(&daemon).send(&daemon.url(), &forged).await.unwrap().status, 401);
    daemon.until_log(" INFO shardless::refusals: refused: ").await;
    assert!(!daemon.log().contains("shardless::interactions"), "{}", daemon.log());
    reload(&levels("daemon = \"info\"\ninteractions = \"warn\""), 2).await;
    assert_eq!(discord(&daemon).send(&daemon.url(), &forged).await.unwrap().status, 401);
    send_commands(&daemon, 2, 1).await;
    daemon.until_log(" WARN shardless::interactions: handler failed: ").await;
    assert_eq!(daemon.log().matches("shardless::refusals").count(), 1, "{}", daemon.log());
}

/// How many lines there are of a handler's failures, and how many failures the other ones stand for.
fn failures(log: &str) -> (usize, u64) {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let failures: Vec<_> = lines.filter(|line| line["outcome"] == "failed").collect();
    assert!(failures.iter().all(|line| line["level"] == "WARN" && line["app"] == "mybot"), "{log}");
    let held_back: Vec<_> = failures.iter().filter_map(|line| line["held_back"].as_u64()).collect();
    (failures.len() - held_back.len(), held_back.iter().sum())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_is_down_is_told_of_ten_times_and_then_in_numbers() {
    let daemon = Binary::serve("[log]\nformat = \"json\"", "", "http://127.0.0.1:9/").await;
    send_commands(&daemon, 0, 300).await;
    let ping = author(1000).ping();
    let discord = discord(&daemon);
    assert_eq!(discord.send(&daemon.url(), &discord.sign(&ping)).await.unwrap().status, 200);
    daemon.until_log("PING answered").await;
    let (written, _) = failures(&daemon.log());
    // A machine in a hurry may have seen two windows.
    assert!((10..=20).contains(&written), "{written} lines");
    let all_told = || async { failures(&daemon.log()) == (written, 300 - written as u64) };
    until_within(Duration::from_secs(20), "the others are summed up", all_told).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_counted_is_told_at_the_end_however_it_comes() {
    for signals in [1, 2] {
        let mut daemon = Binary::serve("[log]\nformat = \"json\"", "", "http://127.0.0.1:9/").await;
        let mut stuck = None;
        if signals == 2 {
            // Its request never ends, so that the stop waits.
            let mut stream = tokio::net::TcpStream::connect(daemon.address).await.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut stream, b"POST / HTTP/1.1\r\nhost: a\r\n")
                .await
                .unwrap();
            stuck = Some(stream);
        }
        send_commands(&daemon, 0, 50).await;
        daemon.signal("TERM");
        if signals == 2 {
            daemon.until_log("stopping").await;
            daemon.signal("TERM");
        }
        assert_eq!(daemon.wait().success(), signals == 1, "{}", daemon.log());
        let (written, held_back) = failures(&daemon.log());
        assert!(written as u64 + held_back == 50 && written <= 20, "{written} + {held_back}");
        drop(stuck);
    }
}

/// From the request's first byte, so that its author knows what there is to win.
#[tokio::test(flavor = "multi_thread")]
async fn how_long_a_late_handler_took_is_told() {
    let handler = Handler::start(|_| async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        json(r#"{"type":4}"#)
    })
    .await;
    let app = "answer_within = \"200ms\"\non_slow = \"fail\"";
    let daemon = Binary::serve("[log]\nformat = \"json\"", app, &handler.url()).await;
    let signed = discord(&daemon).sign(&author(0).command("roll", &[]));
    assert_eq!(discord(&daemon).send(&daemon.url(), &signed).await.unwrap().status, 504);
    let words = "handler ended too late for Discord: it answered 200 OK";
    daemon.until_log(words).await;
    let log = daemon.log();
    let line: Value = serde_json::from_str(log.lines().find(|line| line.contains(words)).unwrap()).unwrap();
    assert!(line["ms"].as_f64().unwrap() >= 500.0, "{line}");
}
