//! What a handler with a secret can know a request of ours by.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;

use bytes::Bytes;
use data_encoding::BASE64;
use http::{HeaderMap, HeaderValue};
use ring::hmac;
use rstest::rstest;
use shardless::clock::{Clock, SystemClock};
use shardless::rehearsal::{Author, StandIn};
use tempfile::TempDir;

use crate::support::{Binary, Handler, TestDaemon, command, json, until};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const ANOTHER: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";

/// Writes a file with that mode.
fn write(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// A secret in a file.
fn secret_file(secret: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bot.secret");
    write(&path, &format!("\n  {secret} \r\n"), 0o640);
    (folder, path)
}

/// The handler `bot`, with that secret.
fn named(urls: &[String], secret: &Path) -> String {
    format!("[handlers.bot]\nurls = {urls:?}\nsecret_file = {secret:?}")
}

/// As a handler without a library would do it. The interaction's id and the time, where all holds.
fn verified(headers: &HeaderMap, body: &Bytes, secret: &str) -> Option<(String, u64)> {
    let only = |name: &str| {
        let values: Vec<_> = headers.get_all(name).iter().collect();
        let [value] = values[..] else { panic!("not one {name}: {values:?}") };
        value.to_str().unwrap()
    };
    let (id, time, signature) = (only("webhook-id"), only("webhook-timestamp"), only("webhook-signature"));
    let key = BASE64.decode(secret.strip_prefix("whsec_").unwrap().as_bytes()).unwrap();
    let tag = BASE64.decode(signature.strip_prefix("v1,").unwrap().as_bytes()).unwrap();
    let message = [id.as_bytes(), b".", time.as_bytes(), b".", body].concat();
    let holds = hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, &key), &message, &tag).is_ok();
    holds.then(|| (id.to_owned(), time.parse().unwrap()))
}

#[tokio::test]
async fn what_is_forwarded_is_signed_with_the_handlers_secret() {
    let (_folder, path) = secret_file(SECRET);
    let handler = Handler::fine().await;
    // The first replica is not there: the next one gets the same.
    let urls = [Handler::none().await.url(), handler.url()];
    let daemon = TestDaemon::before(&named(&urls, &path), "", "bot").await;
    let mut signed = daemon.command();
    for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        signed.headers_mut().insert(name, HeaderValue::from_static("v1,spoofed"));
    }
    assert_eq!(daemon.send(&signed).await.status, 200);
    let got = handler.last();
    let interaction: serde_json::Value = serde_json::from_slice(&got.body).unwrap();
    let now = daemon.clock.unix_time().as_secs();
    let expected = (interaction["id"].as_str().unwrap().to_owned(), now);
    assert_eq!(verified(&got.headers, &got.body, SECRET), Some(expected));
    assert_eq!(verified(&got.headers, &got.body, ANOTHER), None);
    assert_eq!(verified(&got.headers, &Bytes::from_static(b"{}"), SECRET), None);
    assert!(got.headers.contains_key("x-signature-ed25519"), "Discord's own signature comes along");
}

#[tokio::test]
async fn only_the_handler_that_has_a_secret_gets_its_proof() {
    let (_folder, path) = secret_file(SECRET);
    let (handler, other) = (Handler::fine().await, Handler::fine().await);
    let route = format!("[[apps.mybot.routes]]\ncommand = \"other\"\nhandler = \"{}\"", other.url());
    let daemon = TestDaemon::before(&named(&[handler.url()], &path), &route, "bot").await;
    assert_eq!(daemon.send(&daemon.command()).await.status, 200);
    let elsewhere = daemon.author(1000).command("other", &[]);
    assert_eq!(daemon.send(&daemon.discord.sign(&elsewhere)).await.status, 200);
    assert!(verified(&handler.last().headers, &handler.last().body, SECRET).is_some());
    assert!(!other.last().headers.keys().any(|name| name.as_str().starts_with("webhook-")));
}

/// `check` on a handler with that secret file: exit status, and what it says.
fn check(secret: &Path) -> (i32, String) {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.toml");
    let handler = named(&["http://127.0.0.1:9/".to_owned()], secret);
    let key = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    let app = format!("[apps.mybot]\npublic_key = \"{key}\"\nhandler = \"bot\"");
    fs::write(&config, format!("{handler}\n{app}\n")).unwrap();
    let Output { status, stdout, stderr } =
        command().args(["check", "--config"]).arg(config).output().unwrap();
    (status.code().unwrap(), String::from_utf8([stdout, stderr].concat()).unwrap())
}

#[rstest]
#[case::for_us_alone(SECRET, 0o600, 0, "no mistakes")]
#[case::for_our_group(SECRET, 0o640, 0, "no mistakes")]
#[case::for_everyone(SECRET, 0o644, 78, "can be read by everyone: chmod o= /")]
#[case::without_prefix(
    "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    0o600,
    78,
    "to make one: printf 'whsec_%s\\n' \"$(openssl"
)]
#[case::too_short("whsec_MfKQ9r8GKYqrTwjU", 0o600, 78, "does not hold one secret, whsec_ and 24 to 64 bytes")]
#[case::two("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\nwhsec_MfKQ", 0o600, 78, "does not hold one secret")]
#[case::empty("", 0o600, 78, "does not hold one secret")]
fn a_secret_file_is_checked_and_never_shown(
    #[case] text: &str,
    #[case] mode: u32,
    #[case] status: i32,
    #[case] words: &str,
) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bot.secret");
    write(&path, text, mode);
    let (code, said) = check(&path);
    assert_eq!(code, status, "{said}");
    assert!(said.contains(words) && !said.contains("MfKQ"), "{said}");
    assert!(code == 0 || said.contains(&format!("`secret_file` {}", path.display())), "{said}");
}

#[test]
fn a_secret_file_that_cannot_be_read_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("no.secret");
    let (code, said) = check(&missing);
    assert_eq!(code, 78);
    assert!(said.contains(&format!("{} is not there; to make one: printf", missing.display())), "{said}");
    let (code, said) = check(folder.path());
    assert_eq!(code, 78);
    assert!(said.contains("Is a directory") || said.contains("can be read by everyone"), "{said}");
}

/// The line that config/shardless.toml gives makes a file that will do.
#[test]
fn a_secret_is_made_as_the_example_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("music.secret");
    let example = include_str!("../../config/shardless.toml");
    let lines = example.lines().filter_map(|line| line.strip_prefix("#   "));
    let script: Vec<_> = lines.filter(|line| line.contains("/etc/shardless/music.secret")).collect();
    assert!(script.len() == 2 && script[0].starts_with("printf ") && script[1].starts_with("chmod "));
    let script = script.join("\n").replace("/etc/shardless/music.secret", path.to_str().unwrap());
    let group = fs::metadata(folder.path()).map(|metadata| std::os::unix::fs::MetadataExt::gid(&metadata));
    let script = script.replace("chgrp shardless", &format!("chgrp {}", group.unwrap()));
    let made = std::process::Command::new("sh").args(["-euc", &script]).status().unwrap();
    assert!(made.success());
    let (code, said) = check(&path);
    assert_eq!(code, 0, "{said}");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
}

/// Another secret makes another handler; the same one keeps its connections; a bad one changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_reloaded() {
    let (_folder, path) = secret_file(SECRET);
    let handler = Handler::start(|_| async { json(r#"{"type":4}"#) }).await;
    let settings = format!("{}\n[log]\nlevel = \"trace\"", named(&[handler.url()], &path));
    let daemon = Binary::serve(&settings, "", "bot").await;
    let discord = StandIn::new(daemon.signer.clone(), Arc::new(SystemClock)).unwrap();
    let secret_of_next = async |salt: u64| {
        let payload = Author::new(SystemClock.unix_time(), salt << 12).command("roll", &[]);
        assert_eq!(discord.send(&daemon.url(), &discord.sign(&payload)).await.unwrap().status, 200);
        let got = handler.last();
        let is_of = |secret: &&&str| verified(&got.headers, &got.body, secret).is_some();
        ([SECRET, ANOTHER].iter().find(is_of).copied(), got.from)
    };
    let reload = async |words: &str| {
        let lines = |log: &str| log.matches(words).count();
        let before = lines(&daemon.log());
        daemon.signal("HUP");
        until(words, || async { lines(&daemon.log()) > before }).await;
    };

    let (secret, connection) = secret_of_next(1).await;
    assert_eq!(secret, Some(SECRET));
    reload("is in force now").await;
    assert_eq!(secret_of_next(2).await, (Some(SECRET), connection), "the same handler");
    write(&path, "garbage", 0o640);
    reload("does not hold one secret").await;
    write(&path, ANOTHER, 0o644);
    reload("can be read by everyone").await;
    assert_eq!(secret_of_next(3).await, (Some(SECRET), connection), "nothing has changed");
    fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    reload("is in force now").await;
    assert_eq!(secret_of_next(4).await.0, Some(ANOTHER));
    let log = daemon.log();
    assert!(!log.contains("MfKQ") && !log.contains("AAEC") && !log.contains("v1,"), "{log}");
}
