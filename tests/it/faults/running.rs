//! Faults of the machine that the daemon runs on, and of those who name things.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rstest::rstest;
use serde_json::json;
use shardless::clock::{Clock, SystemClock};
use shardless::rehearsal::{Author, StandIn};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::request::{with, write};
use crate::support::wire::read_answer;
use crate::support::{Binary, Handler, command};

fn discord(daemon: &Binary) -> StandIn {
    StandIn::new(daemon.signer.clone(), Arc::new(SystemClock)).unwrap()
}

async fn assert_works(daemon: &Binary) {
    let (discord, payload) = (discord(daemon), Author::new(SystemClock.unix_time(), 0).command("roll", &[]));
    assert_eq!(discord.send(&daemon.url(), &discord.sign(&payload)).await.unwrap().status, 200);
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

#[rstest]
#[case::truncated(|path: &Path| change(path, |bytes| bytes.truncate(bytes.len() / 2)))]
#[case::with_a_flipped_bit(|path: &Path| change(path, |bytes| bytes[0] ^= 1))]
#[case::of_garbage(|path: &Path| fs::write(path, "this is no database".repeat(999)).unwrap())]
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_damaged_is_set_aside_with_its_name_in_the_log(#[case] harm: impl Fn(&Path)) {
    let handler = Handler::fine().await;
    let mut daemon = Binary::serve("", "", &handler.url()).await;
    daemon.signal("TERM");
    assert!(daemon.wait().success());
    let state = daemon.folder.path().join("state");
    harm(&state.join("outbox.sqlite3"));
    daemon.restart();
    daemon.until_log("outbox.sqlite3.damaged-").await;
    let kept = fs::read_dir(&state).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let kept: Vec<_> = kept.filter(|name| name.starts_with("outbox.sqlite3.damaged-")).collect();
    let log = daemon.log();
    assert!(kept.len() == 1 && log.contains(&kept[0]), "{kept:?}: {log}");
    assert_works(&daemon).await;
}

/// Root may bind any port, unless that is taken from it.
#[test]
fn a_port_that_may_not_be_bound_is_one_clear_line() {
    let lowest = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    if lowest.trim().parse::<u16>().unwrap() <= 81 {
        return; // a machine where every port may be bound
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    let key = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    let app = format!("[apps.mybot]\npublic_key = \"{key}\"\nhandler = \"http://127.0.0.1:9/\"\n");
    fs::write(&path, format!("port = 81\nstate_dir = {:?}\n{app}", folder.path())).unwrap();
    let serve = command();
    let mut unprivileged = Command::new("setpriv");
    unprivileged.arg("--bounding-set=-net_bind_service");
    unprivileged.arg(serve.get_program()).args(serve.get_args());
    let is_root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
    let mut serve = if is_root { unprivileged } else { serve };
    let output = serve.args(["serve", "--config"]).arg(&path).stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{said}");
    assert!(said.contains("cannot listen on 127.0.0.1:81") && said.contains("ports below 1024"), "{said}");
}

/// With a line of its own, colours, and no end.
fn hostile() -> String {
    format!("roll\nFORGED line \u{1b}[31m{}", "y".repeat(5_000))
}

#[rstest]
#[case::as_text("text")]
#[case::as_json("json")]
#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_name_is_escaped_and_cut_in_the_log(#[case] format: &str) {
    let handler = Handler::fine().await;
    let settings = format!("[log]\nlevel = \"trace\"\nformat = \"{format}\"");
    let daemon = Binary::serve(&settings, "", &handler.url()).await;
    let (discord, now) = (discord(&daemon), SystemClock.unix_time().as_secs());
    let command = json!({ "id": "41", "type": 2, "token": "t", "data": { "name": hostile(), "type": 1 } });
    let button = json!({ "id": "42", "type": 3, "token": "t", "data": { "custom_id": hostile() } });
    for body in [command, button] {
        let signed = discord.sign_at(now, body.to_string().as_bytes());
        assert_eq!(discord.send(&daemon.url(), &signed).await.unwrap().status, 200);
    }
    // What else a stranger names: a path, and whom it is asked for.
    let path = format!("POST /\u{e9}\"{} HTTP/1.1", "y".repeat(5_000));
    let forwarded = "host: a\r\nx-forwarded-for: \u{e9}\"FORGED\r\n";
    let signed = discord.sign_at(now, b"{}");
    let mut stream = TcpStream::connect(daemon.address).await.unwrap();
    stream.write_all(&write(&signed, &with(&path, forwarded))).await.unwrap();
    let answer = read_answer(&mut stream).await;
    assert!(answer.starts_with("http/1.1 404"), "{answer}");
    assert_works(&daemon).await;
    for said in ["41", "42", "unknown_path", "roll\\nFORGED"] {
        daemon.until_log(said).await;
    }
    let log = daemon.log();
    assert!(!log.contains('\u{1b}'), "{log:?}");
    for line in log.lines() {
        assert!(line.len() < 1_000 && !line.starts_with("FORGED"), "{line}");
    }
}
