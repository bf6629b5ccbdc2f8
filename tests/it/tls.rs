//! TLS on the port.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, HandshakeKind, ProtocolVersion, RootCertStore};
use shardless::clock::{Clock, SystemClock};
use shardless::rehearsal::{Author, StandIn};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::certificates::Signed;
use crate::support::wire::{read_answer, with_length};
use crate::support::{Binary, Handler, TestDaemon, command, until};

/// A client that trusts the certificates in that file and no others.
fn client(ca: &Path, versions: &[&'static rustls::SupportedProtocolVersion]) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    for certificate in shardless::pem::read(ca).unwrap().certificates {
        roots.add(certificate).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    TlsConnector::from(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

async fn connect(
    client: &TlsConnector,
    port: u16,
    name: &'static str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    client.connect(ServerName::try_from(name).unwrap(), stream).await
}

fn self_signed(state: &TempDir) -> String {
    format!("state_dir = \"{}\"\n[tls]\nself_signed = true\n", state.path().display())
}

#[tokio::test]
async fn a_self_signed_certificate_is_made_once_and_holds_for_every_local_name() {
    let state = tempfile::tempdir().unwrap();
    let daemon = TestDaemon::with(&self_signed(&state), "", Handler::fine().await).await;
    let certificate = state.path().join("self-signed.pem");
    let first = std::fs::read(&certificate).unwrap();
    for versions in [&[&rustls::version::TLS12], &[&rustls::version::TLS13]] {
        let client = client(&certificate, versions);
        for name in ["localhost", "127.0.0.1", "::1"] {
            let mut stream = connect(&client, daemon.address.port(), name).await.unwrap();
            stream.write_all(&with_length(&daemon.command())).await.unwrap();
            assert!(read_answer(&mut stream).await.starts_with("http/1.1 200"), "{name}");
        }
    }
    use std::os::unix::fs::PermissionsExt;
    let mode = |name: &str| std::fs::metadata(state.path().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("self-signed.key"), mode("self-signed.pem")), (0o600, 0o644));
    let mut files: Vec<_> = std::fs::read_dir(state.path())
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with("outbox"))
        .collect();
    files.sort();
    assert_eq!(files, ["lock", "self-signed.key", "self-signed.pem"]);

    let again = TestDaemon::with(&self_signed(&state), "", Handler::fine().await).await;
    assert_eq!(std::fs::read(&certificate).unwrap(), first);
    assert!(
        connect(&client(&certificate, rustls::ALL_VERSIONS), again.address.port(), "localhost").await.is_ok()
    );
}

/// Several daemons that start at once on one folder: there is one pair in the end, whole, whoever made it.
#[test]
fn a_race_for_the_first_start_leaves_one_sound_pair() {
    for _ in 0..5 {
        let state = tempfile::tempdir().unwrap();
        let racers: Vec<_> = (0..4)
            .map(|_| {
                let settings = self_signed(&state);
                std::thread::spawn(move || run(&settings))
            })
            .collect();
        racers.into_iter().for_each(|racer| _ = racer.join().unwrap());
        let [(code, said), _] = run(&self_signed(&state));
        assert_eq!(code, Some(0), "{said}");
        assert_eq!(std::fs::read_dir(state.path()).unwrap().count(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_trust_the_certificate_is_told_of_in_the_log() {
    let (state, stranger) = (tempfile::tempdir().unwrap(), Signed::for_days(90));
    let daemon = Binary::serve(&self_signed(&state), "", "http://127.0.0.1:9/").await;
    let client = client(&stranger.path("root.pem"), rustls::ALL_VERSIONS);
    assert!(connect(&client, daemon.address.port(), "localhost").await.is_err());
    daemon.until_log("a TLS handshake failed: received fatal alert: UnknownCA").await;
}

#[tokio::test]
async fn sessions_are_resumed() {
    let state = tempfile::tempdir().unwrap();
    let daemon = TestDaemon::with(&self_signed(&state), "", Handler::fine().await).await;
    for (version, expected) in [
        (&rustls::version::TLS12, ProtocolVersion::TLSv1_2),
        (&rustls::version::TLS13, ProtocolVersion::TLSv1_3),
    ] {
        let client = client(&state.path().join("self-signed.pem"), &[version]);
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let mut stream = connect(&client, daemon.address.port(), "localhost").await.unwrap();
            // A ticket comes with the first answer.
            stream.write_all(&with_length(&daemon.command())).await.unwrap();
            assert!(read_answer(&mut stream).await.starts_with("http/1.1 200"));
            let (_, connection) = stream.get_ref();
            assert_eq!(connection.handshake_kind(), Some(kind));
            assert_eq!(connection.protocol_version(), Some(expected));
        }
    }
}

#[tokio::test]
async fn plain_http_on_the_tls_port_is_told_so() {
    let state = tempfile::tempdir().unwrap();
    let daemon = TestDaemon::with(&self_signed(&state), "", Handler::fine().await).await;
    let mut stream = TcpStream::connect(daemon.address).await.unwrap();
    stream.write_all(&with_length(&daemon.command())).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("this port speaks TLS"), "{answer}");
    drop(stream);
    let counted = "shardless_connection_faults_total{reason=\"http_on_tls_port\"}";
    until("it is counted", || async { daemon.metric(counted) == 1.0 }).await;
    assert_eq!(daemon.handler.calls(), 0);
}

#[tokio::test]
async fn what_is_neither_tls_nor_http_is_not_taken_for_http() {
    let state = tempfile::tempdir().unwrap();
    let daemon = TestDaemon::with(&self_signed(&state), "", Handler::fine().await).await;
    let mut stream = TcpStream::connect(daemon.address).await.unwrap();
    // The hello of SSL 2.0.
    stream.write_all(&[0x80, 0x2e, 1, 0, 2]).await.unwrap();
    let counted = "shardless_connection_faults_total{reason=\"handshake\"}";
    until("it is counted", || async { daemon.metric(counted) == 1.0 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn send_trusts_the_certificate_that_it_is_given_and_no_stranger() {
    let (state, handler) = (tempfile::tempdir().unwrap(), Handler::fine().await);
    let daemon = Binary::serve(&self_signed(&state), "", &handler.url()).await;
    let url = format!("https://localhost:{}/interactions", daemon.address.port());
    let key = daemon.key_file();
    let send = |more: &[&str]| {
        let output = command().args(["send", &url, "--key"]).arg(&key).args(more).output().unwrap();
        (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    let certificate = state.path().join("self-signed.pem");
    let (code, said) = send(&["--command", "roll", "--ca", certificate.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = send(&[]);
    assert_eq!(code, Some(1));
    assert!(said.contains("certificate"), "{said}");
    let (code, said) = send(&["--ca", "/no/such.pem"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("cannot use /no/such.pem"), "{said}");
}

/// One that never finishes its handshake holds nothing up, and goes.
#[tokio::test]
async fn handshakes_are_bounded_and_off_the_accept_loop() {
    let state = tempfile::tempdir().unwrap();
    let settings = format!("{}[limits]\nhandshake_timeout = \"300ms\"\n", self_signed(&state));
    let daemon = TestDaemon::with(&settings, "", Handler::fine().await).await;
    let mut slow = Vec::new();
    for _ in 0..50 {
        let mut stream = TcpStream::connect(daemon.address).await.unwrap();
        stream.write_all(&[0x16, 3, 1]).await.unwrap();
        slow.push(stream);
    }
    let client = client(&state.path().join("self-signed.pem"), rustls::ALL_VERSIONS);
    let mut stream = connect(&client, daemon.address.port(), "localhost").await.unwrap();
    stream.write_all(&with_length(&daemon.command())).await.unwrap();
    assert!(read_answer(&mut stream).await.starts_with("http/1.1 200"));
    let counted = "shardless_connection_faults_total{reason=\"slow_handshake\"}";
    until("all are cut off", || async { daemon.metric(counted) == 50.0 }).await;
    for mut stream in slow {
        let end = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut [0; 16])).await;
        assert!(matches!(end, Ok(Ok(0) | Err(_))), "{end:?}");
    }
}

#[tokio::test]
async fn an_own_certificate_is_served_with_its_chain() {
    let signed = Signed::for_days(90);
    let daemon = TestDaemon::with(&signed.settings("chain.pem", "key.pem"), "", Handler::fine().await).await;
    let client = client(&signed.path("root.pem"), rustls::ALL_VERSIONS);
    let mut stream = connect(&client, daemon.address.port(), "localhost").await.unwrap();
    stream.write_all(&with_length(&daemon.command())).await.unwrap();
    assert!(read_answer(&mut stream).await.starts_with("http/1.1 200"));
}

/// The status of a command.
async fn roll(daemon: &Binary) -> u16 {
    let discord = StandIn::new(daemon.signer.clone(), Arc::new(SystemClock)).unwrap();
    let payload = Author::new(SystemClock.unix_time(), 0).command("roll", &[]);
    discord.send(&daemon.url(), &discord.sign(&payload)).await.unwrap().status.as_u16()
}

/// `check` and `serve` with these settings: exit status and all that they say.
fn run(settings: &str) -> [(Option<i32>, String); 2] {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    let key = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    let app = format!("[apps.mybot]\npublic_key = \"{key}\"\nhandler = \"http://127.0.0.1:9/\"\n");
    std::fs::write(&path, format!("address = \"203.0.113.1\"\n{settings}{app}")).unwrap();
    ["check", "serve"].map(|name| {
        let output = command().args([name, "--config"]).arg(&path).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    })
}

#[test]
fn what_is_wrong_with_a_certificate_is_told_by_check_and_serve_alike() {
    let signed = Signed::for_days(90);
    signed.set_mode("other.pem", 0o644);
    for (certificate, key, words) in [
        ("missing.pem", "key.pem", "missing.pem: No such file"),
        ("chain.pem", "missing.pem", "missing.pem: No such file"),
        ("empty.pem", "key.pem", "holds no certificate in PEM"),
        ("chain.pem", "empty.pem", "holds no private key in PEM"),
        ("root.pem", "key.pem", "do not belong together"),
        ("upside-down.pem", "key.pem", "the server's own certificate must come first"),
        ("chain.pem", "other.pem", "everyone can read"),
    ] {
        for (code, said) in run(&signed.settings(certificate, key)) {
            assert_eq!(code, Some(78), "{said}");
            assert!(said.contains(words), "{words:?} is not in {said}");
            assert_eq!(said.lines().count(), 1, "{said}");
        }
    }
}

#[test]
fn what_will_be_trouble_with_a_certificate_is_warned_of() {
    for (days, name, words) in [
        (90, "chain.pem", ""),
        (10, "chain.pem", "ends in 10 days"),
        (-1, "chain.pem", "has expired"),
        (90, "out-of-order.pem", "out of order"),
    ] {
        let signed = Signed::for_days(days);
        let [(code, said), _] = run(&signed.settings(name, "key.pem"));
        assert_eq!(code, Some(0), "{said}");
        assert_eq!(said.contains("warning: "), !words.is_empty(), "{said}");
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn check_makes_no_certificate_and_half_a_pair_is_left_alone() {
    let state = tempfile::tempdir().unwrap();
    let [(code, said), _] = run(&self_signed(&state));
    assert_eq!(code, Some(0));
    assert!(said.contains("its certificate is made at the first start"), "{said}");
    // `serve` has made the pair before it found that its address does not exist.
    assert_eq!(std::fs::read_dir(state.path()).unwrap().count(), 2);

    std::fs::remove_file(state.path().join("self-signed.key")).unwrap();
    for (code, said) in run(&self_signed(&state)) {
        assert_eq!(code, Some(78));
        assert!(said.contains("self-signed.pem is there, but") && said.contains("put it back"), "{said}");
    }

    let nowhere = "state_dir = \"/proc/none\"\n[tls]\nself_signed = true\n";
    let [_, (code, said)] = run(nowhere);
    assert_eq!(code, Some(78));
    assert!(said.contains("cannot make a self-signed certificate in /proc/none"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wrong_protocol_is_one_warning_that_says_which_it_is() {
    let handler = Handler::fine().await;
    let daemon = Binary::serve("", "", &handler.url()).await;
    let signed = Signed::for_days(90);
    let client = client(&signed.path("root.pem"), rustls::ALL_VERSIONS);
    for _ in 0..50 {
        assert!(connect(&client, daemon.address.port(), "localhost").await.is_err());
    }
    daemon.until_log("TLS came to where plain HTTP is spoken: let the proxy use http://").await;
    assert_eq!(roll(&daemon).await, 200);
    let lines = daemon.log().matches("TLS came").count();
    assert!((1..=20).contains(&lines), "{lines} lines");

    let state = tempfile::tempdir().unwrap();
    let daemon = Binary::serve(&self_signed(&state), "", &handler.url()).await;
    daemon.until_log("the port speaks TLS with the certificate in").await;
    let mut stream = TcpStream::connect(daemon.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    daemon.until_log("plain HTTP came to where TLS is spoken: let the proxy use https://").await;
}

/// As a renewal does it: new files in the place of the old ones, then a reload.
#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_served_after_a_reload_and_half_a_renewal_changes_nothing() {
    let (old, new, files) = (Signed::for_days(90), Signed::for_days(90), Signed::for_days(90));
    let put = |from: &Signed, name: &str| _ = std::fs::copy(from.path(name), files.path(name)).unwrap();
    let put_both = |from: &Signed| ["chain.pem", "key.pem"].into_iter().for_each(|name| put(from, name));
    put_both(&old);
    let daemon = Binary::serve(&files.settings("chain.pem", "key.pem"), "", "http://127.0.0.1:9/").await;
    let port = daemon.address.port();
    let serves = async |signed: &Signed| {
        connect(&client(&signed.path("root.pem"), rustls::ALL_VERSIONS), port, "localhost").await.is_ok()
    };
    assert!(serves(&old).await && !serves(&new).await);

    put(&new, "chain.pem");
    daemon.signal("HUP");
    daemon.until_log("do not belong together").await;
    assert!(serves(&old).await && !serves(&new).await);

    put_both(&new);
    daemon.signal("HUP");
    daemon.until_log("is in force now").await;
    assert!(!serves(&old).await && serves(&new).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_comes_and_goes_with_a_reload() {
    let handler = Handler::fine().await;
    let daemon = Binary::serve("", "", &handler.url()).await;
    let (port, state) = (daemon.address.port(), daemon.folder.path().join("state"));
    let speaks_tls = async || {
        let certificate = state.join("self-signed.pem");
        connect(&client(&certificate, rustls::ALL_VERSIONS), port, "localhost").await.is_ok()
    };
    daemon.rewrite("[tls]\nself_signed = true", "", &handler.url());
    daemon.signal("HUP");
    daemon.until_log("the port speaks TLS with the certificate in").await;
    assert!(speaks_tls().await);
    // Another folder for state takes a restart: until then the certificate is the one that proxies know.
    let elsewhere = daemon.folder.path().join("elsewhere");
    daemon.rewrite(&format!("state_dir = {elsewhere:?}\n[tls]\nself_signed = true"), "", &handler.url());
    daemon.signal("HUP");
    daemon.until_log("`state_dir` has changed").await;
    assert!(speaks_tls().await && !elsewhere.exists());
    daemon.rewrite("", "", &handler.url());
    daemon.signal("HUP");
    daemon.until_log("the port speaks plain HTTP").await;
    assert!(!speaks_tls().await);
}
