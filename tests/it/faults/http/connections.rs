//! What a connection may hold, how long each of its phases may take, and how many there may be.

use std::time::{Duration, Instant};

use rstest::rstest;
use shardless::clock::Clock;
use shardless::rehearsal::stand_in::Signed;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::faults::request::{CHUNKED, HTTP_1_1, and, framed, write};
use crate::support::wire::{assert_closes, read_answer, with_length};
use crate::support::{Handler, TestDaemon, until};

#[tokio::test]
async fn a_body_is_asked_for_only_once_its_headers_are_good() {
    let daemon = TestDaemon::start().await;
    let head = |signed: &Signed| {
        let request = write(signed, &and("expect: 100-continue"));
        request[..request.len() - signed.body().len()].to_owned()
    };
    let good = daemon.command();
    let mut stream = TcpStream::connect(daemon.address).await.unwrap();
    stream.write_all(&head(&good)).await.unwrap();
    let mut asked = [0; 25];
    stream.read_exact(&mut asked).await.unwrap();
    assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(good.body()).await.unwrap();
    assert!(read_answer(&mut stream).await.starts_with("http/1.1 200"));

    let old = daemon.discord.sign_at(1, good.body());
    let mut stream = TcpStream::connect(daemon.address).await.unwrap();
    stream.write_all(&head(&old)).await.unwrap();
    assert!(read_answer(&mut stream).await.starts_with("http/1.1 401"));
    assert_eq!((daemon.handler.calls(), daemon.refusals("timestamp")), (1, 1.0));
    daemon.assert_works().await;
}

/// By its length, before a byte of it is read; and chunk by chunk.
#[rstest]
#[case::by_length(&and("x: y"))]
#[case::by_a_chunk(&framed(HTTP_1_1, CHUNKED, "1000000\r\n{body}"))]
#[case::by_chunks(&framed(HTTP_1_1, CHUNKED, "{chunked}"))]
#[tokio::test]
async fn a_body_over_the_limit_is_413_and_a_client_that_is_still_sending_reads_so(#[case] text: &str) {
    let daemon = TestDaemon::with("[limits]\nbody = \"64KiB\"", "", Handler::fine().await).await;
    // More than the buffers on the way hold.
    let large = vec![b'x'; 16 * 1024 * 1024];
    let signed = daemon.discord.sign_at(daemon.clock.unix_time().as_secs(), &large);
    let mut stream = TcpStream::connect(daemon.address).await.unwrap();
    stream.write_all(&write(&signed, text)).await.unwrap();
    let answer = read_answer(&mut stream).await;
    assert!(answer.starts_with("http/1.1 413") && answer.contains("connection: close"), "{answer}");
    assert_eq!((daemon.handler.calls(), daemon.refusals("body_too_large")), (0, 1.0));
    daemon.assert_works().await;
}

const HASTY: &str = "[limits]\nread_timeout = \"300ms\"\nidle_timeout = \"900ms\"";

#[tokio::test]
async fn a_header_that_dribbles_in_is_cut_off() {
    let daemon = TestDaemon::with(HASTY, "", Handler::fine().await).await;
    let mut stream = TcpStream::connect(daemon.address).await.unwrap();
    let start = Instant::now();
    stream.write_all(b"POST /interactions HTTP/1.1\r\nhost: ").await.unwrap();
    assert_closes(&mut stream, Duration::from_secs(3)).await;
    assert!((Duration::from_millis(290)..Duration::from_millis(800)).contains(&start.elapsed()));
    assert_eq!(daemon.faults("slow_request"), 1.0);
    daemon.assert_works().await;
}

#[tokio::test]
async fn a_body_that_dribbles_in_is_408() {
    let daemon = TestDaemon::with(HASTY, "", Handler::fine().await).await;
    let request = with_length(&daemon.command());
    let mut stream = TcpStream::connect(daemon.address).await.unwrap();
    stream.write_all(&request[..request.len() - 1]).await.unwrap();
    let answer = read_answer(&mut stream).await;
    assert!(answer.starts_with("http/1.1 408") && answer.contains("connection: close"), "{answer}");
    assert_eq!((daemon.handler.calls(), daemon.refusals("body_timeout")), (0, 1.0));
    daemon.assert_works().await;
}

/// The other end may be gone without a word, and nobody can tell that from one that is silent.
#[rstest]
#[case::after_a_request(1)]
#[case::without_a_word(0)]
#[tokio::test]
async fn an_idle_connection_is_kept_for_its_time_then_freed(#[case] requests: usize) {
    let daemon = TestDaemon::with(HASTY, "", Handler::fine().await).await;
    let mut start = Instant::now();
    let mut stream = TcpStream::connect(daemon.address).await.unwrap();
    for _ in 0..requests {
        stream.write_all(&with_length(&daemon.command())).await.unwrap();
        assert!(read_answer(&mut stream).await.starts_with("http/1.1 200"));
        start = Instant::now();
    }
    assert_closes(&mut stream, Duration::from_secs(3)).await;
    assert!((Duration::from_millis(850)..Duration::from_millis(1500)).contains(&start.elapsed()));
    until("it is freed", || async { daemon.metric("shardless_connections") == 0.0 }).await;
    daemon.assert_works().await;
}

/// Its sender has ended its side in the middle, and will never say more.
#[rstest]
#[case::in_the_header(false, "", "broken_off")]
#[case::in_the_body(true, "http/1.1 400", "body_broken")]
#[tokio::test]
async fn a_half_open_connection_is_freed_at_once(
    #[case] is_in_the_body: bool,
    #[case] answer: &str,
    #[case] reason: &str,
) {
    let daemon = TestDaemon::start().await;
    let mut stream = TcpStream::connect(daemon.address).await.unwrap();
    let request = with_length(&daemon.command());
    let written = if is_in_the_body { request.len() - 1 } else { 60 };
    stream.write_all(&request[..written]).await.unwrap();
    stream.shutdown().await.unwrap();
    assert!(read_answer(&mut stream).await.starts_with(answer));
    assert_closes(&mut stream, Duration::from_secs(3)).await;
    until(reason, || async { daemon.faults(reason) == 1.0 }).await;
    until("it is freed", || async { daemon.metric("shardless_connections") == 0.0 }).await;
    assert_eq!(daemon.handler.calls(), 0);
    daemon.assert_works().await;
}

#[tokio::test]
async fn three_pipelined_requests_get_three_answers_in_order() {
    let daemon = TestDaemon::start().await;
    let requests =
        [daemon.command(), daemon.command().forge(), daemon.command()].map(|signed| with_length(&signed));
    let mut stream = TcpStream::connect(daemon.address).await.unwrap();
    stream.write_all(&requests.concat()).await.unwrap();
    let mut answers = Vec::new();
    let statuses = |answers: &[u8]| -> Vec<String> {
        let text = String::from_utf8_lossy(answers);
        text.split("HTTP/1.1 ").skip(1).map(|answer| answer.chars().take(3).collect()).collect()
    };
    while statuses(&answers).len() < 3 {
        assert!(stream.read_buf(&mut answers).await.unwrap() > 0, "{answers:?}");
    }
    assert_eq!(statuses(&answers), ["200", "401", "200"]);
    assert_eq!((daemon.handler.calls(), daemon.refusals("bad_signature")), (2, 1.0));
    daemon.assert_works().await;
}

#[tokio::test]
async fn connections_past_the_limit_wait_until_there_is_room() {
    let daemon = TestDaemon::with("[limits]\nconnections = 2", "", Handler::fine().await).await;
    let idle = [
        TcpStream::connect(daemon.address).await.unwrap(),
        TcpStream::connect(daemon.address).await.unwrap(),
    ];
    until("both are open", || async { daemon.metric("shardless_connections") == 2.0 }).await;
    let mut third = TcpStream::connect(daemon.address).await.unwrap();
    third.write_all(&with_length(&daemon.command())).await.unwrap();
    let mut byte = [0];
    let waiting = tokio::time::timeout(Duration::from_millis(200), third.read(&mut byte)).await;
    assert!(waiting.is_err(), "served past the limit");
    drop(idle);
    assert!(read_answer(&mut third).await.starts_with("http/1.1 200"));
    drop(third);
    daemon.assert_works().await;
}

/// Those that never said a word, and those that are between two requests; but not one whose request is being answered.
#[tokio::test]
async fn where_all_connections_are_taken_idle_ones_make_room() {
    let (handler, gate) = Handler::gated().await;
    let daemon = TestDaemon::with("[limits]\nconnections = 3", "answer_within = \"2800ms\"", handler).await;
    let connect = || TcpStream::connect(daemon.address);
    let (mut silent, mut between, mut busy) =
        (connect().await.unwrap(), connect().await.unwrap(), connect().await.unwrap());
    between.write_all(&with_length(&daemon.command().forge())).await.unwrap();
    assert!(read_answer(&mut between).await.starts_with("http/1.1 401"));
    busy.write_all(&with_length(&daemon.command())).await.unwrap();
    until("it is being answered", || async { daemon.handler.calls() == 1 }).await;
    let start = Instant::now();
    let mut others = [connect().await.unwrap(), connect().await.unwrap()];
    for other in &mut others {
        other.write_all(&with_length(&daemon.command().forge())).await.unwrap();
        assert!(read_answer(other).await.starts_with("http/1.1 401"));
    }
    assert!(start.elapsed() < Duration::from_millis(2500), "{:?}", start.elapsed());
    assert_eq!(daemon.faults("crowded"), 2.0);
    assert_closes(&mut silent, Duration::from_secs(1)).await;
    assert_closes(&mut between, Duration::from_secs(1)).await;
    gate.add_permits(1);
    assert!(read_answer(&mut busy).await.starts_with("http/1.1 200"));
}
