//! The daemon's own TLS, looked at by others: a scanner, OpenSSL and curl.

use std::path::Path;
use std::process::{Command, Stdio};

use rstest::rstest;
use tempfile::TempDir;

use crate::daemon::{Daemon, Settings, Way};
use crate::discord::Discord;
use crate::handler::Handler;
use crate::process::{self, free_port, program};
use crate::raw;

/// All that rustls has: each with forward secrecy and authenticated encryption.
const CIPHERS: [&str; 6] = [
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
];

async fn self_signed() -> Daemon {
    Daemon::start(&Discord::new(), free_port(), Settings::from(Way::SelfSigned)).await
}

/// Runs a program, gives it `input`, and returns what it prints, with errors.
fn run(name: &str, arguments: &[&str], input: &[u8]) -> String {
    let mut command = Command::new(program(name));
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), input).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "{name} {arguments:?}: {}\n{said}", output.status);
    said
}

/// The values of an attribute, of those elements in a scan that hold all of `parts`.
fn values<'a>(scan: &'a str, attribute: &str, parts: &[&str]) -> Vec<&'a str> {
    let is_meant = |line: &&str| parts.iter().all(|part| line.contains(part));
    let start = format!(" {attribute}=\"");
    let value = |line: &'a str| line.split_once(&start)?.1.split('"').next();
    scan.lines().filter(is_meant).filter_map(value).collect()
}

#[tokio::test]
async fn a_scan_finds_no_weak_protocol_and_no_weak_cipher() {
    let daemon = self_signed().await;
    let target = format!("127.0.0.1:{}", daemon.upstream().port);
    let scan = run("sslscan", &["--xml=-", "--no-heartbleed", "--sni-name=localhost", &target], b"");
    let versions = |enabled: &str| values(&scan, "version", &["<protocol type=", enabled]);
    assert_eq!(versions("enabled=\"1\""), ["1.2", "1.3"], "{scan}");
    assert_eq!(versions("enabled=\"0\""), ["2", "3", "1.0", "1.1"], "{scan}");
    let mut ciphers = values(&scan, "cipher", &["<cipher status="]);
    ciphers.sort_unstable();
    assert_eq!(ciphers, CIPHERS, "{scan}");
    let groups = values(&scan, "bits", &["<group "]);
    assert!(!groups.is_empty() && groups.iter().all(|bits| bits.parse::<u32>().unwrap() >= 128), "{scan}");
}

#[rstest]
#[tokio::test]
async fn a_session_is_resumed(#[values("-tls1_2", "-tls1_3")] version: &str) {
    let daemon = self_signed().await;
    let (folder, port) = (process::folder(), daemon.upstream().port);
    let session = folder.path().join("session").display().to_string();
    let connect = |keep: &str| {
        let target = format!("127.0.0.1:{port}");
        let arguments = ["s_client", "-connect", &target, version, keep, &session, "-ign_eof"];
        // TLS 1.3 sends its tickets after the handshake: with the answer, at the latest.
        run("openssl", &arguments, &raw::get("/"))
    };
    assert!(connect("-sess_out").contains("\nNew, TLSv1."));
    let again = connect("-sess_in");
    assert!(again.contains("\nReused, TLSv1."), "{again}");
    assert!(again.contains("no application has this path"), "{again}");
}

#[tokio::test]
async fn after_a_restart_a_session_of_before_does_no_harm() {
    let mut daemon = self_signed().await;
    let (folder, port) = (process::folder(), daemon.upstream().port);
    let session = folder.path().join("session").display().to_string();
    let target = format!("127.0.0.1:{port}");
    let connect = |keep: &str| {
        run("openssl", &["s_client", "-connect", &target, keep, &session, "-ign_eof"], &raw::get("/"))
    };
    connect("-sess_out");
    daemon.stop("TERM").await;
    daemon.restart().await;
    let again = connect("-sess_in");
    assert!(again.contains("\nNew, TLSv1.3"), "{again}");
    assert!(again.contains("no application has this path"), "{again}");
}

#[tokio::test]
async fn the_self_signed_certificate_is_as_documented() {
    let daemon = self_signed().await;
    let file = daemon.upstream().certificate.display().to_string();
    let text = run("openssl", &["x509", "-in", &file, "-noout", "-text"], b"");
    for part in [
        "Version: 3",
        "id-ecPublicKey",
        "ASN1 OID: prime256v1",
        "ecdsa-with-SHA256",
        "X509v3 Basic Constraints: critical\n                CA:FALSE",
        "DNS:localhost, IP Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1\n",
        "Digital Signature",
        "TLS Web Server Authentication",
    ] {
        assert!(text.contains(part), "{part:?} is missing:\n{text}");
    }
    let days = |number: u32| (number * 24 * 60 * 60).to_string();
    let ends_after = |days: &str| {
        let mut check = Command::new(program("openssl"));
        check.args(["x509", "-in", &file, "-noout", "-checkend", days]).stdout(Stdio::null());
        !check.status().unwrap().success()
    };
    assert!(!ends_after(&days(3649)) && ends_after(&days(3651)), "{text}");
    // Not read by anybody else.
    let key = Path::new(&file).with_extension("key");
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&key.metadata().unwrap()) & 0o777, 0o600);
}

#[tokio::test]
async fn the_self_signed_certificate_holds_for_every_name_of_this_machine_and_stays() {
    let mut daemon = self_signed().await;
    let (port, file) = (daemon.upstream().port, daemon.upstream().certificate.clone());
    let before = std::fs::read(&file).unwrap();
    daemon.stop("TERM").await;
    daemon.restart().await;
    assert_eq!(std::fs::read(&file).unwrap(), before);
    for name in ["localhost", "127.0.0.1", "[::1]"] {
        assert_eq!(curl(&file, &format!("https://{name}:{port}/")), "no application has this path\n");
    }
}

/// A GET that trusts that certificate, and no other.
fn curl(trusted: &Path, url: &str) -> String {
    run("curl", &["--silent", "--show-error", "--cacert", &trusted.display().to_string(), url], b"")
}

/// A root, an intermediate that it signed, and a server's certificate that this signed.
struct Chain {
    folder: TempDir,
}

impl Chain {
    fn make() -> Self {
        let chain = Self { folder: process::folder() };
        chain.issue("root", None, "basicConstraints=critical,CA:TRUE\n");
        chain.issue("intermediate", Some("root"), "basicConstraints=critical,CA:TRUE,pathlen:0\n");
        let leaf = "basicConstraints=critical,CA:FALSE\nsubjectAltName=DNS:localhost\n";
        chain.issue("leaf", Some("intermediate"), leaf);
        let served = ["leaf", "intermediate"].map(|name| std::fs::read(chain.file(name, "pem")).unwrap());
        std::fs::write(chain.file("chain", "pem"), served.concat()).unwrap();
        chain
    }

    fn file(&self, name: &str, extension: &str) -> String {
        self.folder.path().join(format!("{name}.{extension}")).display().to_string()
    }

    fn issue(&self, name: &str, issuer: Option<&str>, extensions: &str) {
        let (key, request, subject) =
            (self.file(name, "key"), self.file(name, "csr"), format!("/CN=shardless test {name}"));
        let new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", &key];
        let arguments = [["req", "-new"].as_slice(), &new_key, &["-subj", &subject, "-out", &request]];
        run("openssl", &arguments.concat(), b"");
        let (certificate, extra) = (self.file(name, "pem"), self.file(name, "ext"));
        std::fs::write(&extra, extensions).unwrap();
        let signer = issuer.map(|issuer| (self.file(issuer, "pem"), self.file(issuer, "key")));
        let signer = match &signer {
            Some((certificate, key)) => vec!["-CA", certificate, "-CAkey", key, "-CAcreateserial"],
            None => vec!["-signkey", &key],
        };
        let out = ["-days", "30", "-extfile", &extra, "-out", &certificate];
        run("openssl", &[["x509", "-req", "-in", &request].as_slice(), &signer, &out].concat(), b"");
    }
}

#[tokio::test]
async fn an_own_certificate_is_served_with_its_issuers() {
    let (chain, discord, handler) = (Chain::make(), Discord::new(), Handler::start().await);
    let tls =
        format!("certificate = {:?}\nkey = {:?}\n", chain.file("chain", "pem"), chain.file("leaf", "key"));
    let daemon = Daemon::start(&discord, handler.port(), Settings { tls, ..Settings::default() }).await;
    let (port, root) = (daemon.upstream().port, chain.file("root", "pem"));
    assert_eq!(
        curl(Path::new(&root), &format!("https://localhost:{port}/")),
        "no application has this path\n"
    );
    let target = format!("localhost:{port}");
    let verify = ["-CAfile", &root, "-verify_return_error", "-verify_hostname", "localhost", "-showcerts"];
    let connect = [["s_client", "-connect", &target, "-ign_eof"].as_slice(), &verify].concat();
    let seen = run("openssl", &connect, &raw::get("/"));
    assert!(seen.contains("Verify return code: 0 (ok)"), "{seen}");
    assert!(seen.contains("s:CN = shardless test intermediate"), "{seen}");
}
