//! The tools of the command line, and the files that ship with them.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use rstest::rstest;

use crate::support::{Binary, Handler, command, json};

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Exit status, standard output, standard error.
fn run(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.code().unwrap(), text(&stdout), text(&stderr))
}

fn check(folder: &Path, config: &str) -> (i32, String, String) {
    std::fs::write(folder.join("config.toml"), config).unwrap();
    run(command().current_dir(folder).args(["check", "--config", "config.toml"]))
}

const KEY: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

#[test]
fn check_says_what_a_good_file_means() {
    let folder = tempfile::tempdir().unwrap();
    let shipped = include_str!("../../config/minimal.toml").replace("PASTE YOURS HERE", KEY);
    let (code, stdout, stderr) = check(folder.path(), &shipped);
    assert_eq!((code, stderr.as_str()), (0, ""));
    insta::assert_snapshot!(stdout);
}

#[test]
fn check_shows_every_mistake_of_a_bad_file() {
    let folder = tempfile::tempdir().unwrap();
    let (code, stdout, stderr) = check(
        folder.path(),
        "prot = 3000\npublic_key = \"abc\"\n\n[apps.mybot]\npublic_key = \"YOUR_PUBLIC_KEY\"\nhandler = \"localhost:8080\"\n",
    );
    assert_eq!((code, stdout.as_str()), (78, ""));
    insta::assert_snapshot!(stderr);
}

#[test]
fn every_shipped_config_is_checked() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut names: Vec<_> =
        std::fs::read_dir(&shipped).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["minimal.toml", "shardless.toml"]);
    for name in names {
        let (code, _, stderr) = run(command().args(["check", "--config"]).arg(shipped.join(&name)));
        assert_eq!(code, 78);
        assert!(
            stderr.contains("paste yours from the Developer Portal") && stderr.contains("1 mistake"),
            "{stderr}"
        );
    }
}

#[test]
fn the_config_can_be_named_by_the_environment() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("elsewhere.toml");
    std::fs::write(&path, "").unwrap();
    let (code, _, stderr) = run(command().arg("check").env("SHARDLESS_CONFIG", &path));
    assert_eq!(code, 78);
    assert!(stderr.contains("elsewhere.toml") && stderr.contains("there is no application"), "{stderr}");
}

#[rstest]
#[case(&[])]
#[case(&["serv"])]
#[case(&["check", "--confg", "x"])]
#[case(&["send"])]
#[case(&["send", "http://127.0.0.1:9/", "--ping", "--button", "x"])]
#[case(&["send", "http://127.0.0.1:9/", "--command", "roll", "--option", "sides"])]
#[case(&["send", "http://127.0.0.1:9/", "--autocomplete", "play"])]
#[case(&["send", "http://127.0.0.1:9/", "--option", "sides=6"])]
#[case(&["send", "http://127.0.0.1:9/", "--command", "roll", "--field", "a=b"])]
#[case(&["send", "http://127.0.0.1:9/", "--command", ""])]
fn wrong_usage_exits_with_2(#[case] arguments: &[&str]) {
    let (code, _, stderr) = run(command().args(arguments));
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("--help") || stderr.contains("Usage:"), "{stderr}");
}

#[test]
fn keygen_makes_a_pair_once() {
    let folder = tempfile::tempdir().unwrap();
    let (code, stdout, _) = run(command().current_dir(folder.path()).arg("keygen"));
    assert_eq!(code, 0);
    let public = stdout.split("public_key = \"").nth(1).unwrap().split('"').next().unwrap();
    assert!(public.parse::<shardless::discord::signature::PublicKey>().is_ok());
    let secret = std::fs::read_to_string(folder.path().join("shardless-dev.key")).unwrap();
    assert!(!stdout.contains(secret.trim()));

    let (code, _, stderr) = run(command().current_dir(folder.path()).arg("keygen"));
    assert_eq!(code, 1);
    assert!(stderr.contains("shardless-dev.key exists already"), "{stderr}");
    assert_eq!(std::fs::read_to_string(folder.path().join("shardless-dev.key")).unwrap(), secret);
}

/// `send` with these arguments, in a folder without a key.
fn send(arguments: &[&str]) -> (i32, String, String) {
    let folder = tempfile::tempdir().unwrap();
    run(command().current_dir(folder.path()).arg("send").args(arguments))
}

#[tokio::test(flavor = "multi_thread")]
async fn send_plays_discord_against_a_handler_and_judges_its_answer() {
    let handler = Handler::start(|_| async { json(r#"{"type":4,"data":{"content":"Playing"}}"#) }).await;
    let url = handler.url();
    let (code, stdout, _) =
        send(&[&url, "--command", "music play", "--option", "query=never", "--option", "times=2"]);
    assert_eq!(code, 0, "{stdout}");
    for part in [
        "→ /music play query:\"never\" times:2",
        "← 200 OK application/json in ",
        "\"content\": \"Playing\"",
        "✔ Discord would accept this answer: type 4 CHANNEL_MESSAGE_WITH_SOURCE",
        "throw-away key",
    ] {
        assert!(stdout.contains(part), "{part} is not in {stdout}");
    }
    let got: serde_json::Value = serde_json::from_slice(&handler.last().body).unwrap();
    assert_eq!(got["data"]["options"][0]["options"][1]["value"], 2);
    assert!(handler.last().headers.contains_key("x-signature-ed25519"));
}

#[rstest]
#[case(&["--ping"], "callback type 4 (CHANNEL_MESSAGE_WITH_SOURCE) is no answer to this kind of interaction (ping)")]
#[case(&["--autocomplete", "play", "--focus", "song=ne"], "(autocomplete), which takes 8")]
#[case(&["--command", "roll", "--forge"], "it took a forged signature")]
#[case(&["--event", "ENTITLEMENT_CREATE"], "Discord demands 204 without a body for an event")]
#[tokio::test(flavor = "multi_thread")]
async fn send_says_why_discord_would_refuse(#[case] arguments: &[&str], #[case] words: &str) {
    let handler = Handler::start(|_| async { json(r#"{"type":4,"data":{"content":"\u001b[31m"}}"#) }).await;
    let (code, stdout, _) = send(&[&[handler.url().as_str()], arguments].concat());
    assert_eq!(code, 1);
    assert!(
        stdout.contains("✘ Discord would not accept this answer: ") && stdout.contains(words),
        "{stdout}"
    );
    assert!(!stdout.contains('\u{1b}'), "a server steers the terminal");
}

#[rstest]
#[case(&["--button", "again"], r#"{"type":7}"#)]
#[case(&["--select", "color", "--value", "red"], r#"{"type":6}"#)]
#[case(&["--modal", "feedback", "--field", "text=nice"], r#"{"type":4}"#)]
#[case(&["--command", "roll", "--dm", "--locale", "de"], r#"{"type":9,"data":{"title":"x"}}"#)]
#[tokio::test(flavor = "multi_thread")]
async fn send_knows_every_kind(#[case] arguments: &[&str], #[case] answer: &'static str) {
    let handler = Handler::start(move |_| async move { json(answer) }).await;
    let (code, stdout, _) = send(&[&[handler.url().as_str()], arguments].concat());
    assert_eq!(code, 0, "{stdout}");
}

#[tokio::test(flavor = "multi_thread")]
async fn send_goes_through_the_daemon_with_its_key() {
    let handler = Handler::start(|_| async { json(r#"{"type":4}"#) }).await;
    let daemon = Binary::serve("", "", &handler.url()).await;
    let (url, key) = (daemon.url(), daemon.key_file());
    let key = key.to_str().unwrap();
    assert_eq!(send(&[&url, "--key", key]).0, 0, "a PING is the default");
    assert_eq!(send(&[&url, "--key", key, "--forge"]).0, 0, "401 is right for a forgery");
    let (code, stdout, _) = send(&[&url, "--key", key, "--command", "roll", "--repeat", "3"]);
    assert_eq!((code, stdout.matches("✔").count(), handler.calls()), (0, 3, 1));

    let payload = daemon.folder.path().join("payload.json");
    std::fs::write(&payload, r#"{"id":"1","type":2,"data":{"name":"roll"}}"#).unwrap();
    assert_eq!(send(&[&url, "--key", key, "--file", payload.to_str().unwrap()]).0, 0);

    let (code, stdout, _) = send(&[&url, "--command", "roll"]);
    assert_eq!(code, 1);
    assert!(stdout.contains("401") && stdout.contains("is it given the public key"), "{stdout}");
}

#[tokio::test(flavor = "multi_thread")]
async fn send_says_plainly_what_it_cannot_do() {
    let nobody = Handler::none().await;
    let (code, _, stderr) = send(&[&nobody.url()]);
    assert_eq!(code, 1);
    assert!(stderr.contains(&nobody.url()) && stderr.contains("Connection refused"), "{stderr}");
    let (code, _, stderr) = send(&[&nobody.url(), "--key", "/no/such.key"]);
    assert_eq!(code, 1);
    assert!(stderr.contains("cannot use the key in /no/such.key"), "{stderr}");
}

#[test]
fn the_demo_plays_every_step_well() {
    let (code, stdout, stderr) = run(command().args(["demo", "--once"]));
    assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
    assert_eq!(stdout.matches('✔').count(), 13, "{stdout}");
    for part in [
        "PONG",
        "/roll sides:20",
        "3 choices",
        "thinking…",
        "then \"That took a while.\"",
        "forged signature",
        "replayed",
        "with both killed",
    ] {
        assert!(stdout.contains(part), "{part} is not in {stdout}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn send_shows_what_follows_a_deferral() {
    let slow = Handler::start(|_| async {
        tokio::time::sleep(Duration::from_millis(600)).await;
        json(r#"{"type":4,"data":{"content":"at last\u001b[31m","flags":64}}"#)
    })
    .await;
    // As a developer chooses one; whoever had it has let go of it.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let settings = format!("[discord]\napi = \"http://127.0.0.1:{port}/api/v10\"");
    let daemon = Binary::serve(&settings, "answer_within = \"300ms\"", &slow.url()).await;
    let mut command = command();
    command.args(["send", &daemon.url(), "--command", "roll", "--api", &port.to_string(), "--key"]);
    command.arg(daemon.key_file());
    let (code, stdout, stderr) = tokio::task::spawn_blocking(move || run(&mut command)).await.unwrap();
    assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
    let lines: Vec<_> = stdout.lines().collect();
    assert!(
        lines.iter().any(|line| line.contains("type 5 DEFERRED_CHANNEL_MESSAGE_WITH_SOURCE")),
        "{stdout}"
    );
    assert!(lines.iter().any(|line| line.ends_with("after the interaction, for the user alone")), "{stdout}");
    assert_eq!(lines.last().unwrap().trim(), "at last\u{fffd}[31m");
}
