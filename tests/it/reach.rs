//! Handlers over TLS and unix sockets, handlers with replicas, and the daemon's own unix socket.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use shardless::clock::Clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::certificates::Signed;
use crate::support::wire::{read_answer, with_length};
use crate::support::{Binary, Handler, TestDaemon, command};

/// A handler behind TLS, whose certificate `signed` is.
async fn tls_handler(signed: &Signed) -> (u16, tokio::task::JoinHandle<()>) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config =
        config.unwrap().with_no_client_auth().with_single_cert(signed.chain(), signed.key()).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = Vec::new();
            while !request.ends_with(b"}") && stream.read_buf(&mut request).await.is_ok_and(|count| count > 0)
            {
            }
            let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 10\r\nconnection: close\r\n\r\n{\"type\":4}";
            _ = stream.write_all(answer.as_bytes()).await;
            _ = stream.shutdown().await;
        }
    });
    (port, serving)
}

#[tokio::test]
async fn a_handler_over_https_is_verified_by_its_ca() {
    let signed = Signed::for_days(90);
    let (port, serving) = tls_handler(&signed).await;
    let url = format!("https://localhost:{port}/bot");
    let ca = signed.path("root.pem");
    let trusted = format!("[handlers.bot]\nurls = [\"{url}\"]\nca = \"{}\"\n", ca.display());
    let daemon = TestDaemon::before(&trusted, "", "bot").await;
    for _ in 0..3 {
        assert_eq!(daemon.send(&daemon.command()).await.status, 200);
    }
    // The system trusts no such authority.
    let daemon = TestDaemon::before("", "", &url).await;
    assert_eq!(daemon.send(&daemon.command()).await.status, 502);
    assert_eq!(daemon.interactions("command", "failed"), 1.0);
    serving.abort();
}

#[test]
fn a_ca_that_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    for (ca, words) in
        [(empty.as_path(), "there is no certificate in it"), (Path::new("/no/ca.pem"), "No such file")]
    {
        let handlers =
            format!("[handlers.bot]\nurls = [\"https://localhost/\"]\nca = \"{}\"\n", ca.display());
        let path = folder.path().join("config.toml");
        let key = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        let text = format!("{handlers}[apps.mybot]\npublic_key = \"{key}\"\nhandler = \"bot\"\n");
        std::fs::write(&path, text).unwrap();
        let output = command().args(["check", "--config"]).arg(&path).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(78));
        assert!(said.contains(words) && said.contains(&ca.display().to_string()), "{said}");
    }
}

#[tokio::test]
async fn replicas_are_tried_until_one_is_there() {
    let (gone, there) = (Handler::none().await, Handler::fine().await);
    let handlers = format!("[handlers.bot]\nurls = [\"{}\", \"{}\"]\n", gone.url(), there.url());
    let daemon = TestDaemon::before(&handlers, "", "bot").await;
    assert_eq!(daemon.send(&daemon.command()).await.status, 200);
    assert_eq!(there.calls(), 1);
}

/// One that takes the connection and never shakes hands costs its time, not the interaction.
#[tokio::test]
async fn a_replica_that_hangs_in_its_handshake_is_followed_by_the_next() {
    let signed = Signed::for_days(90);
    let (port, serving) = tls_handler(&signed).await;
    let sink = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let handlers = format!(
        "[handlers.bot]\nurls = [\"https://localhost:{}/\", \"https://localhost:{port}/\"]\nca = \"{}\"\n",
        sink.local_addr().unwrap().port(),
        signed.path("root.pem").display()
    );
    let daemon = TestDaemon::before(&handlers, "", "bot").await;
    assert_eq!(daemon.send(&daemon.command()).await.status, 200);
    serving.abort();
}

#[tokio::test]
async fn both_sides_work_over_unix_sockets() {
    let folder = tempfile::tempdir().unwrap();
    let (front, back) = (folder.path().join("http.sock"), folder.path().join("bot.sock"));
    let listener = tokio::net::UnixListener::bind(&back).unwrap();
    let serving = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"}") && stream.read_buf(&mut request).await.is_ok_and(|count| count > 0)
            {
            }
            assert!(request.starts_with(b"POST /interactions HTTP/1.1\r\n"));
            let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 10\r\nconnection: close\r\n\r\n{\"type\":4}";
            _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    let settings = format!("unix_socket = \"{}\"", front.display());
    let url = format!("unix:{}:/interactions", back.display());
    let daemon = TestDaemon::before(&settings, "", &url).await;
    for _ in 0..3 {
        let mut stream = tokio::net::UnixStream::connect(&front).await.unwrap();
        stream.write_all(&with_length(&daemon.command())).await.unwrap();
        assert!(read_answer(&mut stream).await.starts_with("http/1.1 200"));
    }
    assert_eq!(daemon.send(&daemon.command()).await.status, 200, "the port is there too");
    serving.abort();
    _ = serving.await;
    assert_eq!(daemon.send(&daemon.command()).await.status, 502);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_unix_socket_is_not_taken_over_and_a_stale_one_is() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("http.sock");
    let settings = format!("unix_socket = \"{}\"", socket.display());
    let mut first = Binary::serve(&settings, "", "http://127.0.0.1:9/").await;
    first.until_log(&format!("unix:{}", socket.display())).await;

    let text = format!(
        "port = 0\n{settings}\n[apps.mybot]\npublic_key = \"{}\"\nhandler = \"http://127.0.0.1:9/\"\n",
        first.signer.public_key()
    );
    let path = folder.path().join("config.toml");
    std::fs::write(&path, text).unwrap();
    let output = command().args(["serve", "--config"]).arg(&path).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("another program listens there"), "{said}");

    first.signal("KILL");
    first.wait();
    assert!(socket.exists());
    let second = Binary::serve(&settings, "", "http://127.0.0.1:9/").await;
    let ping = {
        let discord = shardless::rehearsal::StandIn::new(
            second.signer.clone(),
            Arc::new(shardless::clock::SystemClock),
        );
        let payload = shardless::rehearsal::Author::new(shardless::clock::SystemClock.unix_time(), 0).ping();
        with_length(&discord.unwrap().sign(&payload))
    };
    let mut stream = tokio::net::UnixStream::connect(&socket).await.unwrap();
    stream.write_all(&ping).await.unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(5), read_answer(&mut stream)).await.unwrap();
    assert!(answer.starts_with("http/1.1 200"), "{answer}");
}
