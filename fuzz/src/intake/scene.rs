//! A daemon with one application, on a unix socket: any number of connections take no port.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use ed25519_dalek::{Signature, Signer, SigningKey};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use shardless::clock::{Clock, SystemClock};
use shardless::config::Config;
use shardless::daemon::Daemon;
use shardless::systemd::Sockets;
use shardless::workers::Workers;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::{self, Runtime};
use tokio::sync::watch;

/// A daemon that says nothing for so long, so often, waits for more.
const QUIET: Duration = Duration::from_millis(1);
const TIMES: usize = 3;
/// For the whole of an exchange.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) struct Scene {
    /// All of it in one thread. Never dropped: that needs what is gone at a thread's end.
    runtime: &'static Runtime,
    socket: PathBuf,
    secret: SigningKey,
    /// How often the handler was called, by interaction.
    calls: Arc<Mutex<HashMap<u64, usize>>>,
    next: AtomicU64,
    _stop: watch::Sender<bool>,
    _folder: TempDir,
}

impl Scene {
    pub(super) fn start() -> Self {
        let runtime =
            Box::leak(Box::new(runtime::Builder::new_current_thread().enable_all().build().unwrap()));
        let folder = tempfile::tempdir().unwrap();
        let (socket, bot) = (folder.path().join("http"), folder.path().join("bot"));
        let secret = SigningKey::from_bytes(&[7; 32]);
        let calls = Arc::<Mutex<HashMap<_, _>>>::default();
        let (stop, stopped) = watch::channel(false);
        let text = format!(
            "port = 0\nunix_socket = {socket:?}\nstate_dir = {:?}\n[limits]\nread_timeout = \"1min\"\n[discord]\n\
             api = \"http://127.0.0.1:9/api\"\n[apps.mybot]\npublic_key = \"{}\"\nhandler = \"unix:{}:/bot\"\n",
            folder.path(),
            HEXLOWER.encode(secret.verifying_key().as_bytes()),
            bot.display(),
        );
        runtime.block_on(async {
            tokio::spawn(serve(UnixListener::bind(&bot).unwrap(), secret.clone(), Arc::clone(&calls)));
            let config = Config::parse("test.toml", &text).unwrap();
            let daemon = Daemon::bind(config, Sockets::default(), Arc::new(SystemClock)).unwrap();
            // In this runtime: then it has done what it can when nothing more happens here.
            tokio::spawn(daemon.run(Workers::start(0).unwrap(), stopped));
        });
        Self { runtime, socket, secret, calls, next: AtomicU64::new(1), _stop: stop, _folder: folder }
    }

    /// Sends it with a command in the place of what stands for one. Whether the handler got the command, and the statuses
    /// of all answers.
    pub(super) fn send(&self, bytes: &[u8]) -> (bool, Vec<String>) {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let pieces = self.filled(bytes, id);
        let answers = self.runtime.block_on(async {
            let exchange = self.exchange(&pieces);
            tokio::time::timeout(PATIENCE, exchange).await.expect("the connection neither ends nor answers")
        });
        let text = String::from_utf8_lossy(&answers);
        assert!(text.is_empty() || text.starts_with("HTTP/1."), "{text}");
        let statuses = text.split("HTTP/1.").skip(1).map(|answer| answer.chars().skip(2).take(3).collect());
        let mut calls = self.calls.lock().unwrap();
        assert!(calls.values().all(|count| *count == 1), "the handler was called twice");
        (calls.remove(&id).is_some(), statuses.collect())
    }

    async fn exchange(&self, pieces: &[Vec<u8>]) -> Vec<u8> {
        let mut stream = UnixStream::connect(&self.socket).await.unwrap();
        let (mut reader, mut writer) = stream.split();
        let mut answers = Vec::new();
        for piece in pieces {
            // The connection may have ended already, with an answer that is still to be read.
            _ = writer.write_all(piece).await;
            let mut quiet = 0;
            while quiet < TIMES {
                match tokio::time::timeout(QUIET, reader.read_buf(&mut answers)).await {
                    Ok(Ok(1..)) => quiet = 0,
                    Ok(_) => return answers,
                    Err(_) => quiet += 1,
                }
            }
        }
        _ = writer.shutdown().await;
        _ = reader.read_to_end(&mut answers).await;
        answers
    }

    /// The pieces between pauses.
    fn filled(&self, bytes: &[u8], id: u64) -> Vec<Vec<u8>> {
        let body = body(id);
        let time = SystemClock.unix_time().as_secs().to_string();
        let signature = HEXLOWER.encode(&self.secret.sign(&[time.as_bytes(), &body].concat()).to_bytes());
        let (length, hex_length) = (body.len().to_string(), format!("{:x}", body.len()));
        let marks: [(&[u8], &[u8]); 5] = [
            (b"{sig}", signature.as_bytes()),
            (b"{time}", time.as_bytes()),
            (b"{len}", length.as_bytes()),
            (b"{hexlen}", hex_length.as_bytes()),
            (b"{body}", &body),
        ];
        let (mut pieces, mut rest) = (vec![Vec::new()], bytes);
        while let Some((first, behind)) = rest.split_first() {
            let piece = pieces.last_mut().unwrap();
            if let Some((mark, value)) = marks.iter().find(|(mark, _)| rest.starts_with(mark)) {
                piece.extend_from_slice(value);
                rest = &rest[mark.len()..];
            } else if let Some(behind) = rest.strip_prefix(b"{pause}") {
                pieces.push(Vec::new());
                rest = behind;
            } else {
                piece.push(*first);
                rest = behind;
            }
        }
        pieces
    }
}

fn body(id: u64) -> Vec<u8> {
    format!(r#"{{"id":"{id}","type":2,"application_id":"1","token":"t","data":{{"name":"roll"}}}}"#)
        .into_bytes()
}

/// The handler: it trusts nobody.
async fn serve(listener: UnixListener, secret: SigningKey, calls: Arc<Mutex<HashMap<u64, usize>>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (secret, calls) = (secret.clone(), Arc::clone(&calls));
        let service = service_fn(move |request: Request<Incoming>| {
            let (secret, calls) = (secret.clone(), Arc::clone(&calls));
            async move {
                let (head, body) = request.into_parts();
                let got = body.collect().await?.to_bytes();
                let header = |name: &str| head.headers[name].as_bytes().to_vec();
                let signature = HEXLOWER.decode(&header("x-signature-ed25519")).unwrap();
                let signature = Signature::from_slice(&signature).unwrap();
                let message = [header("x-signature-timestamp"), got.to_vec()].concat();
                let is_signed = secret.verifying_key().verify_strict(&message, &signature).is_ok();
                let id = String::from_utf8_lossy(&got).split('"').nth(3).and_then(|id| id.parse().ok());
                let is_whole = id.is_some_and(|id| got == self::body(id));
                // A panic in here would end in an answer of the daemon's: the count says the same.
                let weight = if is_signed && is_whole { 1 } else { 1000 };
                *calls.lock().unwrap().entry(id.unwrap_or_default()).or_default() += weight;
                let response = Response::builder().header("content-type", "application/json");
                Ok::<_, hyper::Error>(response.body(Full::new(Bytes::from_static(br#"{"type":4}"#))).unwrap())
            }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}
