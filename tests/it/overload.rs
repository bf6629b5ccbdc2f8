//! Strangers who want the daemon to be busy: a flood of forgeries, and thousands of connections that are slow in whatever
//! they do. Who has Discord's key feels nothing, and memory and descriptors have their bounds.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rstest::rstest;
use shardless::clock::{Clock, SystemClock};
use shardless::rehearsal::stand_in::Signed;
use shardless::rehearsal::{Author, Payload, StandIn};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::times::Times;
use crate::support::wire::{read_answer, with_length};
use crate::support::{Binary, Handler, is_full, json, until_within};

/// Between two good interactions: 100 a second.
const PACE: Duration = Duration::from_millis(10);
/// A command with a large answer.
const LARGE: &str = "enormous";
/// Over which the forgeries come.
const CONNECTIONS: u32 = 32;

fn discord(daemon: &Binary) -> StandIn {
    let certificate = shardless::pem::read(&daemon.folder.path().join("state/self-signed.pem"));
    let trusted = certificate.map(|read| read.certificates).unwrap_or_default();
    StandIn::trusting(trusted, daemon.signer.clone(), Arc::new(SystemClock)).unwrap()
}

/// Sends good interactions at a steady rate until `end`. The time of each, from the moment it was due; and of PINGs, one
/// in ten.
async fn good_ones(discord: &StandIn, url: &str, end: Instant) -> (Times, Times) {
    let mut author = Author::new(SystemClock.unix_time(), 0);
    let mut sending = JoinSet::new();
    let mut due = Instant::now();
    while due < end {
        tokio::time::sleep_until(due).await;
        let is_ping = sending.len() % 10 == 0;
        let payload: Payload = if is_ping { author.ping() } else { author.command("roll", &[]) };
        let (discord, url) = (discord.clone(), url.to_owned());
        sending.spawn(async move {
            let exchange = discord.send(&url, &discord.sign(&payload)).await.unwrap();
            assert_eq!(exchange.status, 200, "{exchange:?}");
            (is_ping, due.elapsed())
        });
        due += PACE;
    }
    let (pings, commands): (Vec<_>, Vec<_>) =
        sending.join_all().await.into_iter().partition(|(is_ping, _)| *is_ping);
    let times = |all: Vec<(bool, Duration)>| Times::new(all.into_iter().map(|(_, time)| time).collect());
    (times(commands), times(pings))
}

/// What is signed by nobody, or by somebody else, and looks well otherwise; and one that is too old.
fn forgeries(discord: &StandIn) -> Vec<Vec<u8>> {
    let (now, mut author) = (SystemClock.unix_time(), Author::new(SystemClock.unix_time(), 1 << 12));
    let forged = |payload: Payload| with_length(&discord.sign(&payload).forge());
    let old: Signed = discord.sign_at(now.as_secs() - 3600, &author.command("roll", &[]).body);
    let mut all: Vec<_> = (0..8).map(|_| forged(author.command("roll", &[]))).collect();
    all.push(with_length(&old));
    all
}

/// Sends them one after another until `end`, so many a second. How many were answered 401; there is no other answer.
async fn flood(address: SocketAddr, forgeries: Arc<Vec<Vec<u8>>>, rate: u32, end: Instant) -> usize {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut due = tokio::time::interval(Duration::from_secs(1) / rate);
    let mut answered = 0;
    while Instant::now() < end {
        due.tick().await;
        let forgery = &forgeries[answered % forgeries.len()];
        if stream.write_all(forgery).await.is_err() {
            stream = TcpStream::connect(address).await.unwrap();
            continue;
        }
        let answer = read_answer(&mut stream).await;
        assert!(answer.starts_with("http/1.1 401"), "{answer}");
        answered += 1;
        if answer.contains("connection: close") {
            stream = TcpStream::connect(address).await.unwrap();
        }
    }
    answered
}

/// The bar: 3,000 forged requests a second beside 100 good ones for 30 s, all good ones answered, their p99 at most 250 ms.
#[tokio::test(flavor = "multi_thread")]
async fn flooded_with_forgeries_good_ones_do_not_wait() {
    let (seconds, rate) = if is_full() { (30, 3000) } else { (3, 600) };
    let handler = Handler::fine().await;
    let daemon = Binary::serve("", "", &handler.url()).await;
    let discord = discord(&daemon);
    let forgeries = Arc::new(forgeries(&discord));
    let cpu = daemon.cpu_time();
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut flooding = JoinSet::new();
    for _ in 0..CONNECTIONS {
        flooding.spawn(flood(daemon.address, Arc::clone(&forgeries), rate / CONNECTIONS, end));
    }
    let (commands, pings) = good_ones(&discord, &daemon.url(), end).await;
    let forged: usize = flooding.join_all().await.into_iter().sum();
    let (cpu, peak) = (daemon.cpu_time() - cpu, daemon.peak_memory());
    println!(
        "{forged} forged in {seconds} s, {cpu:.1?} of processors, {peak} MiB\ncommands: {commands}\nPINGs: {pings}"
    );
    assert_eq!(handler.calls(), commands.count(), "a forgery reached the handler");
    if !is_full() {
        return;
    }
    let wanted = usize::try_from(seconds * u64::from(rate)).unwrap();
    assert!(forged * 100 >= wanted * 95, "the flood was {forged} instead of {wanted}");
    assert!(commands.p99() <= Duration::from_millis(250), "{commands}");
    assert!(pings.p99() <= Duration::from_millis(250), "{pings}");
}

/// What a client is slow in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slow {
    /// Never says a word.
    Silent,
    /// Its headers come byte by byte.
    Header,
    /// So does its body.
    Body,
    /// It does not read its answer, which is a large one. It has Discord's key: others get no large answers.
    Reading,
    /// It began a TLS handshake.
    Handshake,
}

impl Slow {
    /// Holds a connection in that way, and once it is closed another one, until `end`. How often it was closed.
    async fn hold(self, address: SocketAddr, discord: StandIn, salt: u64, end: Instant) -> usize {
        let mut author = Author::new(SystemClock.unix_time(), salt << 12);
        let mut closed = 0;
        while Instant::now() < end {
            let socket = TcpSocket::new_v4().unwrap();
            // What is not read is to stay with the daemon rather than in this machine's buffers.
            socket.set_recv_buffer_size(2048).unwrap();
            let Ok(mut stream) = socket.connect(address).await else { continue };
            let request = with_length(&discord.sign(&author.command(LARGE, &[])));
            tokio::select! {
                () = self.be_slow(&mut stream, &request) => closed += 1,
                () = tokio::time::sleep_until(end) => {}
            }
        }
        closed
    }

    /// Until the connection is closed.
    async fn be_slow(self, stream: &mut TcpStream, request: &[u8]) {
        let body = request.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap() + 4;
        let (at_once, dribbled): (&[u8], &[u8]) = match self {
            Self::Silent => (b"", b""),
            Self::Handshake => (b"\x16\x03", b"\x01\x02\x00\x01"),
            Self::Header => (b"", &request[..body - 2]),
            Self::Body => (&request[..body], &request[body..request.len() - 1]),
            // What comes after its request is not looked at, but shows that the daemon has closed.
            Self::Reading => (request, &[b' '; 1000]),
        };
        let (mut read, mut write) = stream.split();
        let writing = async {
            write.write_all(at_once).await?;
            for byte in dribbled.chunks(1) {
                tokio::time::sleep(Duration::from_millis(50)).await;
                write.write_all(byte).await?;
            }
            std::future::pending::<std::io::Result<()>>().await
        };
        let closing = async {
            match self {
                Self::Reading => std::future::pending().await,
                _ => _ = read.read_to_end(&mut Vec::new()).await,
            }
        };
        tokio::select! {
            _ = writing => {}
            () = closing => {}
        }
    }
}

/// The bar: 2,000 slow connections, at most 96 MB (91 MiB) of memory, and all descriptors free again within 5 s. Meanwhile all that
/// is good is answered.
#[rstest]
#[case::silent(Slow::Silent, 0)]
#[case::in_the_headers(Slow::Header, 1)]
#[case::in_the_body(Slow::Body, 1)]
#[case::in_reading(Slow::Reading, 1)]
#[case::in_the_handshake(Slow::Handshake, 1)]
#[tokio::test(flavor = "multi_thread")]
async fn slow_connections_cost_bounded_memory_and_no_service(
    #[case] slow: Slow,
    #[case] closed_at_least: usize,
) {
    _ = rlimit::increase_nofile_limit(u64::MAX);
    let (count, seconds) = if is_full() { (2000, 15) } else { (200, 10) };
    // The bound on bytes held (64 MiB) has no room for more large answers.
    let count = if slow == Slow::Reading { count.min(200) } else { count };
    let large = format!(r#"{{"type":4,"data":{{"content":"{}"}}}}"#, "x".repeat(200_000));
    let handler = Handler::start(move |got| {
        let is_large = got.body.windows(LARGE.len()).any(|bytes| bytes == LARGE.as_bytes());
        let answer = json(if is_large { &large } else { r#"{"type":4}"# });
        async move { answer }
    })
    .await;
    let (settings, scheme) = match slow {
        Slow::Handshake => ("[tls]\nself_signed = true", "https"),
        _ => ("", "http"),
    };
    let daemon = Binary::serve(settings, "", &handler.url()).await;
    let (discord, url) =
        (discord(&daemon), format!("{scheme}://localhost:{}/interactions", daemon.address.port()));
    let (sockets, memory) = (daemon.sockets(), daemon.peak_memory());
    let end = Instant::now() + Duration::from_secs(seconds);
    let most = AtomicUsize::new(0);
    let mut holding = JoinSet::new();
    for salt in 0..count {
        let salt = u64::try_from(salt).unwrap() + 1;
        holding.spawn(slow.hold(daemon.address, discord.clone(), salt, end));
    }
    let looking = async {
        while Instant::now() < end {
            most.fetch_max(daemon.sockets().saturating_sub(sockets), Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let (good, ()) = tokio::join!(good_ones(&discord, &url, end), looking);
    let closed = holding.join_all().await;
    // Its connections are kept for the next request.
    drop(discord);
    let ended = Instant::now();
    until_within(Duration::from_secs(5), "its sockets as at the start", || async {
        daemon.sockets() == sockets
    })
    .await;
    let (most, peak, freed) = (most.into_inner(), daemon.peak_memory(), ended.elapsed());
    println!(
        "{slow:?}: {most} connections at most, {memory} MiB before, {peak} MiB at most, free after {freed:.1?}\ncommands: {}",
        good.0
    );
    assert!(most >= count * 9 / 10, "only {most} were open at once");
    assert!(closed.iter().all(|times| *times >= closed_at_least), "{closed:?}");
    // What is not built to be shipped takes more.
    assert!(peak <= if cfg!(debug_assertions) { 128 } else { 91 }, "{peak} MiB");
}
