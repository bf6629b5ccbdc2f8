//! `shardless probe`: before a real daemon, and before everything that can stand in its place.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::Full;
use rstest::rstest;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use crate::support::certificates::Signed;
use crate::support::{Binary, Handler, Response, command, json};

/// What the command says, and how it ends.
struct Probed {
    code: i32,
    said: String,
}

impl Probed {
    /// `probe` with these arguments.
    async fn run(arguments: &[&str]) -> Self {
        let mut command = command();
        command.arg("probe").args(arguments);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(!said.chars().any(|c| c.is_control() && c != '\n'), "a server steers the terminal: {said:?}");
        Self { code: output.status.code().unwrap(), said }
    }

    /// The same, where `ca` is taken for a public authority.
    async fn trusting(url: &str, ca: &Path) -> Self {
        Self::run(&[url, "--ca", ca.to_str().unwrap()]).await
    }

    /// The names of the checks with that mark.
    fn marked(&self, mark: char) -> Vec<&str> {
        let lines = self.said.lines().filter_map(|line| line.strip_prefix(mark)?.strip_prefix(' '));
        lines.map(|line| line.split("  ").next().unwrap()).collect()
    }

    /// What was said, with the lines of a piece of advice put together again.
    fn words(&self) -> String {
        self.said.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Validation cannot pass because of this check alone, which says these words.
    fn assert_fails(&self, check: &str, words: &[&str]) {
        assert_eq!((self.code, self.marked('✘')), (1, vec![check]), "{}", self.said);
        assert!(self.said.contains("Discord's validation cannot pass."), "{}", self.said);
        self.assert_says(words);
    }

    /// Validation can pass, and these checks have a warning.
    fn assert_passes(&self, warnings: &[&str], words: &[&str]) {
        assert_eq!((self.code, self.marked('✘')), (0, vec![]), "{}", self.said);
        assert_eq!(self.marked('!'), warnings, "{}", self.said);
        assert!(self.said.contains("Discord's validation can pass."), "{}", self.said);
        self.assert_says(words);
    }

    fn assert_says(&self, words: &[&str]) {
        for part in words {
            assert!(self.words().contains(part), "{part:?} is not in {}", self.said);
        }
    }
}

/// What there is to warn of wherever the endpoint is a test's.
const OF_A_TEST: [&str; 2] = ["DNS", "certificate"];

fn at(port: u16) -> String {
    format!("https://localhost:{port}/interactions")
}

fn answer(status: u16, headers: &[(&'static str, &str)], body: &str) -> Response {
    let mut response = http::Response::new(Full::new(Bytes::copy_from_slice(body.as_bytes())));
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
    for (name, value) in headers {
        response.headers_mut().insert(*name, value.parse().unwrap());
    }
    response
}

/// A server with a certificate to be trusted, which answers as `script` says, by the request's headers and body.
async fn server<F>(script: F) -> (Handler, Signed)
where
    F: Fn(HeaderMap, Bytes) -> Response + Send + Sync + 'static,
{
    let signed = Signed::for_days(90);
    let handler = Handler::over_tls(signed.chain(), signed.key(), move |received| {
        let response = script(received.headers, received.body);
        async { response }
    });
    (handler.await, signed)
}

/// A proxy with a certificate to be trusted, which does `alter` to the requests that it passes on to the daemon.
async fn proxy<F>(daemon: &Binary, alter: F) -> (Handler, Signed)
where
    F: Fn(&mut HeaderMap) + Send + Sync + 'static,
{
    _ = rustls::crypto::ring::default_provider().install_default();
    let (url, signed) = (daemon.url(), Signed::for_days(90));
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let handler = Handler::over_tls(signed.chain(), signed.key(), move |mut received| {
        alter(&mut received.headers);
        received.headers.remove("host");
        let request = client.post(&url).headers(received.headers).body(received.body);
        async move {
            let got = request.send().await.unwrap();
            let (status, headers) = (got.status().as_u16(), got.headers().clone());
            let mut response = answer(status, &[("server", "nginx/1.22.1")], &got.text().await.unwrap());
            response
                .headers_mut()
                .extend(headers.get("date").cloned().map(|date| (http::header::DATE, date)));
            response
        }
    });
    (handler.await, signed)
}

async fn daemon() -> Binary {
    Binary::serve("", "", "http://127.0.0.1:9/").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_as_it_is_to_be_passes() {
    let signed = Signed::for_days(90);
    let daemon = Binary::serve(&signed.settings("chain.pem", "key.pem"), "", "http://127.0.0.1:9/").await;
    let port = daemon.address.port();
    let probed = Probed::trusting(&at(port), &signed.path("root.pem")).await;
    probed.assert_passes(
        &OF_A_TEST,
        &[
            "https, host localhost, path /interactions",
            "trusted, from middle, until ",
            "(in 90 days)",
            "refused by shardless with 401, as Discord demands",
            "both signature headers come through",
            "300 kB come through",
            "the server's and this machine's agree",
            "(median of 5)",
            "What this cannot tell, since only Discord can sign",
            &format!("Save https://localhost:{port}/interactions in the Developer Portal"),
        ],
    );
    assert_eq!(probed.marked('✔').len(), 8, "{}", probed.said);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_without_tls_is_looked_at_but_does_not_pass() {
    let daemon = daemon().await;
    let probed = Probed::run(&[&daemon.url()]).await;
    probed.assert_fails("URL", &["Discord takes https:// alone"]);
    assert_eq!(
        probed.marked('✔'),
        ["connection", "forged", "headers", "unsigned", "large body", "clock", "speed"]
    );

    let probed = Probed::run(&["http://bot.example.com:80/interactions"]).await;
    probed.assert_fails("URL", &["shardless probe https://bot.example.com/interactions", "were not made"]);
    assert_eq!(probed.said.matches(" connection ").count(), 0);
}

#[rstest]
#[case(&["ftp://bot.example.com/"])]
#[case(&["https://"])]
#[case(&["https://me:secret@bot.example.com/"])]
#[case(&[])]
#[tokio::test]
async fn what_is_no_endpoint_is_wrong_usage(#[case] arguments: &[&str]) {
    let probed = Probed::run(arguments).await;
    assert_eq!(probed.code, 2, "{}", probed.said);
    assert!(!probed.said.contains("✔"), "{}", probed.said);
}

#[tokio::test]
async fn an_authority_that_cannot_be_used_is_named() {
    let signed = Signed::for_days(90);
    for (name, words) in [("missing.pem", "No such file"), ("empty.pem", "there is no certificate in it")] {
        let probed = Probed::trusting("https://bot.invalid/", &signed.path(name)).await;
        assert_eq!(probed.code, 1);
        probed.assert_says(&["shardless: cannot use ", name, words]);
    }
}

#[tokio::test]
async fn a_name_without_an_address_is_told() {
    let probed = Probed::run(&["https://bot.invalid/interactions"]).await;
    probed.assert_fails("DNS", &["bot.invalid has no address", "A record"]);
}

#[tokio::test]
async fn a_closed_port_is_told() {
    let nobody = Handler::none().await;
    let probed = Probed::run(&[&at(nobody.port())]).await;
    probed.assert_fails("connection", &["connection refused", "certbot --nginx -d localhost"]);
}

/// Who is trusted, which of the chain is served and for how many days, the host that is asked for, and what is said.
#[rstest]
#[case(true, 2, -3, "localhost", &["expired on ", "2 days ago", "certbot renew"])]
#[case(true, 2, 90, "127.0.0.1", &["for localhost; not for 127.0.0.1", "server_name"])]
#[case(true, 1, 90, "localhost", &["the chain is incomplete: the certificate of its issuer, middle,", "fullchain.pem"])]
#[case(false, 2, 90, "localhost", &["from an authority that is not public, root", "Let's Encrypt"])]
#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_certificate_is_told(
    #[case] trusted: bool,
    #[case] served: usize,
    #[case] days: i64,
    #[case] host: &str,
    #[case] words: &[&str],
) {
    let signed = Signed::for_days(days);
    let mut chain = signed.chain();
    chain.truncate(served);
    let refusing = |_| async { answer(401, &[], "the signature does not hold\n") };
    let server = Handler::over_tls(chain, signed.key(), refusing).await;
    let url = format!("https://{host}:{}/interactions", server.port());
    let probed = match trusted {
        true => Probed::trusting(&url, &signed.path("root.pem")).await,
        false => Probed::run(&[&url]).await,
    };
    probed.assert_fails("certificate", words);
    // What stands behind it is told all the same.
    assert!(probed.marked('✔').contains(&"forged"), "{}", probed.said);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_self_signed_certificate_is_told_and_so_is_an_end_that_is_near() {
    let state = tempfile::tempdir().unwrap();
    let settings = format!("state_dir = \"{}\"\n[tls]\nself_signed = true\n", state.path().display());
    let daemon = Binary::serve(&settings, "", "http://127.0.0.1:9/").await;
    let probed = Probed::run(&[&at(daemon.address.port())]).await;
    probed.assert_fails("certificate", &["self-signed", "certbot --nginx -d localhost"]);

    let signed = Signed::for_days(13);
    let server = Handler::over_tls(signed.chain(), signed.key(), |_| async { answer(401, &[], "") }).await;
    let probed = Probed::trusting(&at(server.port()), &signed.path("root.pem")).await;
    probed.assert_passes(&["DNS", "certificate", "forged"], &["(in 13 days)", "should have been renewed"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_speak_tls_is_told() {
    // The system takes the connection for it.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let probed = Probed::run(&[&at(silent.local_addr().unwrap().port())]).await;
    probed.assert_fails("certificate", &["no end of the TLS handshake within 3 s"]);

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        stream.shutdown().await.unwrap();
        std::future::pending::<()>().await;
    });
    let probed = Probed::run(&[&at(port)]).await;
    probed.assert_fails("certificate", &["speaks plain HTTP, not TLS", "certbot"]);

    let probed = Probed::run(&[&at(daemon().await.address.port())]).await;
    probed.assert_fails("certificate", &["speaks plain HTTP, not TLS"]);
}

#[rstest]
#[case(301, "location", "https://www.localhost/interactions", "Discord does not follow redirects")]
#[case(308, "location", "/interactions/", "The slash at the end makes the difference")]
#[case(404, "server", "nginx/1.22.1", "404 Not Found from nginx/1.22.1")]
#[case(403, "cf-mitigated", "challenge", "Discord cannot solve a challenge")]
#[case(401, "www-authenticate", "Basic realm=x", "asks for a password")]
#[case(502, "server", "nginx", "systemctl status shardless")]
#[case(200, "content-type", "text/html", "200 OK with a web page: another program answers")]
#[tokio::test(flavor = "multi_thread")]
async fn whoever_answers_in_place_of_the_daemon_is_told(
    #[case] status: u16,
    #[case] name: &'static str,
    #[case] value: &'static str,
    #[case] words: &str,
) {
    let body = "<html>\u{1b}[31m</html>";
    let (server, signed) = server(move |_, _| answer(status, &[(name, value)], body)).await;
    let probed = Probed::trusting(&at(server.port()), &signed.path("root.pem")).await;
    probed.assert_fails("forged", &[words, "The checks after that were not made."]);
    assert_eq!(server.calls(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_no_application_has_is_told_as_the_daemon_says_it() {
    let daemon = daemon().await;
    let url = format!("http://{}/", daemon.address);
    let said = Probed::run(&[&url]).await;
    assert_eq!(said.marked('✘'), ["URL", "forged"]);
    said.assert_says(&["404 Not Found from shardless: no application has this path", "has the path /:"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_to_a_daemon_that_speaks_tls_is_told() {
    let own = Signed::for_days(90);
    let daemon = Binary::serve(&own.settings("chain.pem", "key.pem"), "", "http://127.0.0.1:9/").await;
    let (proxy, signed) = proxy(&daemon, |_| ()).await;
    let probed = Probed::trusting(&at(proxy.port()), &signed.path("root.pem")).await;
    probed.assert_fails(
        "forged",
        &["400 Bad Request", "take the site file whose name ends in -self-signed.conf"],
    );

    let probed = Probed::run(&[&daemon.url()]).await;
    assert_eq!(probed.marked('✘'), ["URL", "forged"]);
    let https = daemon.url().replace("http:", "https:");
    probed.assert_says(&["this was plain HTTP", &format!("shardless probe {https}")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_takes_everything_does_not_pass() {
    let (server, signed) = server(|_, _| json(r#"{"type":1}"#)).await;
    let probed = Probed::trusting(&at(server.port()), &signed.path("root.pem")).await;
    probed.assert_fails(
        "forged",
        &["taken, with 200 OK", "Discord refuses endpoints that take forged requests"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_takes_what_is_not_signed_does_not_pass() {
    let (server, signed) = server(|headers, _| match headers.contains_key("x-signature-ed25519") {
        true => answer(401, &[], "invalid request signature"),
        false => json(r#"{"type":1}"#),
    })
    .await;
    let probed = Probed::trusting(&at(server.port()), &signed.path("root.pem")).await;
    probed.assert_fails("unsigned", &["anybody can play Discord", "not in shardless' words"]);
}

#[rstest]
#[case("x-signature-timestamp", &[], "a signature header is lost on the way to shardless")]
#[case("x-signature-ed25519", &["abc"], "a signature header is changed on the way to shardless")]
#[case("x-signature-timestamp", &["1", "2"], "a signature header is doubled on the way to shardless")]
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_spoils_the_signature_headers_is_found_out(
    #[case] name: &'static str,
    #[case] values: &'static [&'static str],
    #[case] words: &str,
) {
    let daemon = daemon().await;
    let alter = move |headers: &mut HeaderMap| {
        if headers.remove(name).is_some() {
            values.iter().for_each(|value| _ = headers.append(name, value.parse().unwrap()));
        }
    };
    let (proxy, signed) = proxy(&daemon, alter).await;
    let probed = Probed::trusting(&at(proxy.port()), &signed.path("root.pem")).await;
    probed.assert_fails("headers", &[words, "proxy_set_header"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_does_its_work_passes_as_the_daemon_does() {
    let daemon = daemon().await;
    let (proxy, signed) = proxy(&daemon, |_| ()).await;
    let probed = Probed::trusting(&at(proxy.port()), &signed.path("root.pem")).await;
    probed.assert_passes(&OF_A_TEST, &["both signature headers come through", "300 kB come through"]);
    // Nothing of it is worth a warning to the operator.
    assert!(!daemon.log().contains("WARN"), "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_the_proxy_is_worth_a_warning() {
    let (server, signed) = server(|_, body| match body.len() {
        100_000.. => answer(413, &[("server", "nginx")], "<html>"),
        _ => answer(401, &[], "the signature does not hold\n"),
    })
    .await;
    let probed = Probed::trusting(&at(server.port()), &signed.path("root.pem")).await;
    let warnings = ["DNS", "certificate", "large body"];
    probed.assert_passes(&warnings, &["300 kB are too large from nginx", "client_max_body_size"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_are_apart_are_told() {
    let date = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
    let (late, signed) = server(move |_, _| answer(401, &[date], "the signature does not hold\n")).await;
    let probed = Probed::trusting(&at(late.port()), &signed.path("root.pem")).await;
    probed.assert_passes(&["DNS", "certificate", "clock"], &["s behind this machine's", "timedatectl"]);

    let daemon = daemon().await;
    let old = |headers: &mut HeaderMap| {
        if headers.contains_key("x-signature-timestamp") {
            headers.insert("x-signature-timestamp", "1000000000".parse().unwrap());
        }
    };
    let (proxy, signed) = proxy(&daemon, old).await;
    let probed = Probed::trusting(&at(proxy.port()), &signed.path("root.pem")).await;
    probed.assert_fails("clock", &["too far from now for shardless", "timedatectl"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_discord_would_not_wait_for_is_told() {
    let signed = Signed::for_days(90);
    let after = |time: Duration| {
        Handler::over_tls(signed.chain(), signed.key(), move |_| async move {
            tokio::time::sleep(time).await;
            answer(401, &[], "the signature does not hold\n")
        })
    };
    let (slow, never) = (after(Duration::from_millis(3100)).await, after(Duration::MAX).await);
    let root = signed.path("root.pem");
    let urls = [at(slow.port()), at(never.port())];
    let (slow, never) = tokio::join!(Probed::trusting(&urls[0], &root), Probed::trusting(&urls[1], &root));
    slow.assert_fails("speed", &["3.1 s for an answer; Discord gives up after 3 s"]);
    never.assert_fails("forged", &["no answer within 6 s; Discord gives up after 3 s"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_requests_in_a_row_is_worth_a_warning() {
    let count = std::sync::atomic::AtomicUsize::new(0);
    let (server, signed) =
        server(move |_, _| match count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0..5 => answer(401, &[], "the signature does not hold\n"),
            _ => answer(429, &[], ""),
        })
        .await;
    let probed = Probed::trusting(&at(server.port()), &signed.path("root.pem")).await;
    probed.assert_passes(&["DNS", "certificate", "speed"], &["429 Too Many Requests", "rate limit"]);
}
