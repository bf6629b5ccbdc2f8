//! What `deploy/` says and would do. That it does it is for the tests under a real systemd.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rstest::rstest;
use tempfile::TempDir;

use crate::process::{self, program, source};

const KEY: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

/// A script among commands that only write down how they are called, and succeed.
struct Stage {
    folder: TempDir,
    script: PathBuf,
}

impl Stage {
    /// What changes a system. `systemctl is-active` and `dpkg-query` are asked by a dry run too: they know of nothing.
    const COMMANDS: [&str; 16] = [
        "a2enmod",
        "a2ensite",
        "apache2ctl",
        "apt-get",
        "certbot",
        "cp",
        "install",
        "ln",
        "mv",
        "nginx",
        "rm",
        "runuser",
        "systemctl",
        "systemd-sysusers",
        "tee",
        "touch",
    ];

    fn new(script: &str) -> Self {
        Self::with(source(script))
    }

    fn with(script: PathBuf) -> Self {
        let stage = Self { folder: process::folder(), script };
        for name in Self::COMMANDS {
            stage.command(name, "echo \"${0##*/} $*\" >> \"$CALLS\"");
        }
        stage.command(
            "systemctl",
            "case $* in *is-active*) exit 3 ;; *) echo \"systemctl $*\" >> \"$CALLS\" ;; esac",
        );
        for name in ["dpkg-query", "getent"] {
            stage.command(name, "exit 2");
        }
        stage.command("ss", "exit 0");
        stage
    }

    fn command(&self, name: &str, body: &str) {
        let file = self.folder.path().join(name);
        fs::write(&file, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn run(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
        let path = format!("{}:{}", self.folder.path().display(), std::env::var("PATH").unwrap());
        let mut command = Command::new(&self.script);
        command.args(arguments).envs(environment.iter().copied());
        command.env("PATH", path).env("CALLS", self.folder.path().join("calls")).output().unwrap()
    }

    fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.folder.path().join("calls")).unwrap_or_default();
        calls.lines().map(str::to_owned).collect()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// They are said, one after the other.
fn said_in_order(said: &str, parts: &[&str]) {
    let mut rest = said;
    for part in parts {
        let Some((_, after)) = rest.split_once(part) else {
            panic!("{part:?} is missing, or said too early:\n{said}");
        };
        rest = after;
    }
}

#[rstest]
fn a_dry_run_names_each_step_and_takes_none(
    #[values("nginx", "apache", "none")] proxy: &str,
    #[values(false, true)] self_signed: bool,
    #[values(false, true)] certbot: bool,
) {
    if proxy == "none" && certbot {
        return;
    }
    let mut arguments =
        vec!["--dry-run", "--proxy", proxy, "--domain", "bot.example.net", "--public-key", KEY];
    arguments.extend(["--handler", "http://127.0.0.1:8080/interactions"]);
    arguments.extend(["--binary", env!("CARGO_BIN_EXE_shardless")]);
    if self_signed {
        arguments.push("--self-signed");
    }
    if certbot {
        arguments.extend(["--certbot", "--email", "you@example.net", "--staging"]);
    }
    let stage = Stage::new("deploy/install.sh");
    let output = stage.run(&arguments, &[]);
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}{}", text(&output.stderr));
    assert_eq!(stage.calls(), [""; 0], "{said}");

    said_in_order(
        &said,
        &[
            "==> install ca-certificates",
            "apt-get -q -y",
            "==> install /usr/local/lib/sysusers.d/shardless.conf",
            "systemd-sysusers",
            "==> check the config",
            "check --config /etc/shardless/config.toml.unchecked",
            "==> write /etc/shardless/config.toml",
            "==> install /usr/local/bin/shardless",
            "==> install /usr/local/lib/systemd/system/shardless.service",
            "==> install /usr/local/lib/systemd/system/shardless.socket",
            "systemctl enable --now shardless.socket",
            "systemctl restart shardless.service",
        ],
    );
    let variant = if self_signed { "-self-signed" } else { "" };
    let (waits, from) =
        ("==> wait for /var/lib/shardless/self-signed.pem", format!("{proxy}/shardless{variant}.conf"));
    assert_eq!(said.contains(waits), self_signed && proxy != "none", "{said}");
    match proxy {
        "nginx" => said_in_order(
            &said,
            &[
                "systemctl restart shardless.service",
                "write /etc/nginx/sites-available/shardless.conf",
                &from,
                "/etc/nginx/sites-enabled/shardless.conf",
                "nginx -t",
                "systemctl reload-or-restart nginx",
            ],
        ),
        "apache" => said_in_order(
            &said,
            &[
                "systemctl restart shardless.service",
                "write /etc/apache2/sites-available/shardless.conf",
                &from,
                "a2ensite -q shardless",
                "apache2ctl configtest",
                "systemctl reload-or-restart apache2",
            ],
        ),
        _ => assert!(!said.contains("sites-available"), "{said}"),
    }
    let package = format!("python3-certbot-{proxy}");
    let certificate = format!("certbot --{proxy} -d bot.example.net -n --agree-tos -m you@example.net");
    if certbot {
        said_in_order(&said, &[&package, "systemctl reload-or-restart", &certificate, "--staging"]);
    } else {
        assert!(!said.contains("certbot"), "{said}");
    }
    assert!(said.ends_with("This was a dry run: nothing was changed.\n"), "{said}");
}

/// As the package has it: without units and a program beside it, since those are installed.
#[test]
fn the_packages_own_leaves_daemon_and_units_to_the_package() {
    let share = process::folder();
    let folders = ["apache", "config", "deploy", "nginx"].map(source);
    let copied = Command::new("cp").arg("-r").args(folders).arg(share.path()).status().unwrap();
    assert!(copied.success());
    let stage = Stage::with(share.path().join("deploy/install.sh"));
    stage.command("dpkg-query", "echo installed");
    let mut arguments =
        vec!["--dry-run", "--proxy", "nginx", "--domain", "bot.example.net", "--public-key", KEY];
    arguments.extend(["--handler", "http://127.0.0.1:8080/interactions"]);
    let output = stage.run(&arguments, &[]);
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}{}", text(&output.stderr));
    let kept = "kept /usr/bin/shardless and its units, which are the package's";
    said_in_order(&said, &[kept, "systemctl restart shardless.service", "from nginx/shardless.conf"]);
    assert!(!said.contains("/usr/local/"), "{said}");

    arguments.extend(["--binary", env!("CARGO_BIN_EXE_shardless")]);
    let output = stage.run(&arguments, &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("--binary is for a checkout's install.sh"), "{output:?}");
    assert_eq!(stage.calls(), [""; 0]);
}

#[rstest]
#[case::nothing(&[], &["--proxy is missing", "--domain is missing", "--public-key is missing", "--handler is missing"])]
#[case::forms(
    &["--proxy", "caddy", "--domain", "https://bot.example.net/", "--public-key", "1234567890123456789", "--handler", "8080"],
    &[
        "--proxy is to be nginx, apache or none",
        "--domain is to be a domain alone",
        "--public-key is to be 64 hex digits: the Public Key, neither the Application ID nor the bot token",
        "--handler is to be an address such as",
    ],
)]
#[case::values(
    &["--domain", "--proxy", "--public-key", "--handler"],
    &["--domain needs a value", "--proxy needs a value", "--public-key needs a value", "--handler needs a value"],
)]
#[case::one_line_an_address(
    &["--proxy=none", "--public-key", KEY, "--handler", "http://127.0.0.1:8080/\"\nport = 1"],
    &["--handler is to be an address such as"],
)]
#[case::certbot(
    &["--proxy=none", "--public-key", KEY, "--handler=http://127.0.0.1/", "--certbot", "--staging", "--acme-server=x"],
    &[
        "--email is missing",
        "--acme-server is to be the address of a directory",
        "--staging is an authority of its own",
        "--certbot needs --proxy nginx or apache",
    ],
)]
#[case::without_certbot(
    &["--proxy=none", "--public-key", KEY, "--handler=http://127.0.0.1/", "--email=you", "--staging"],
    &["--email is to be an address", "--email is for --certbot", "--staging is for --certbot"],
)]
#[case::others(
    &["--proxy=none", "--public-key", KEY, "--handler=http://127.0.0.1/", "--binary=/nowhere", "--frobnicate", "now"],
    &["--binary: there is no program /nowhere", "--frobnicate is no option", "now is no option"],
)]
fn all_mistakes_are_told_at_once(#[case] arguments: &[&str], #[case] mistakes: &[&str]) {
    let stage = Stage::new("deploy/install.sh");
    let output = stage.run(arguments, &[]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    for mistake in mistakes {
        assert!(said.contains(&format!("error: {mistake}")), "{mistake:?} is missing:\n{said}");
    }
    assert_eq!(said.matches("error: ").count(), mistakes.len(), "{said}");
    assert_eq!((text(&output.stdout), stage.calls()), (String::new(), Vec::new()));
}

#[test]
fn each_script_tells_how_it_is_used() {
    for script in ["deploy/install.sh", "deploy/uninstall.sh"] {
        let stage = Stage::new(script);
        let help = stage.run(&["--help"], &[]);
        assert!(help.status.success() && text(&help.stdout).starts_with("usage: deploy/"), "{help:?}");
        let wrong = stage.run(&["--frobnicate"], &[]);
        assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
        assert!(text(&wrong.stderr).contains("--frobnicate is no option of this script"), "{wrong:?}");
        assert_eq!(stage.calls(), [""; 0]);
    }
}

/// The deploy hook of the direct mode. For it, shardless runs.
fn hook() -> Stage {
    let stage = Stage::new("deploy/certbot/shardless-direct");
    stage.command("systemctl", "echo \"systemctl $*\" >> \"$CALLS\"");
    stage
}

#[rstest]
#[case::by_its_name("/etc/letsencrypt/live/bot.example.com", "www.example.com bot.example.com")]
#[case::by_a_domain("/etc/letsencrypt/live/bot.example.com-0001", "www.example.com bot.example.com")]
fn a_renewed_certificate_reaches_the_daemon(#[case] lineage: &str, #[case] domains: &str) {
    let stage = hook();
    let output = stage.run(&[], &[("RENEWED_LINEAGE", lineage), ("RENEWED_DOMAINS", domains)]);
    assert!(output.status.success(), "{output:?}");
    let tls = "/etc/shardless/tls";
    let expected = [
        format!("install -d -m 0750 -g shardless {tls}"),
        format!("install -m 0640 -g shardless {lineage}/fullchain.pem {tls}/cert.pem.new"),
        format!("install -m 0640 -g shardless {lineage}/privkey.pem {tls}/key.pem.new"),
        format!("mv -f {tls}/cert.pem.new {tls}/cert.pem"),
        format!("mv -f {tls}/key.pem.new {tls}/key.pem"),
        "systemctl -q is-active shardless.service".to_owned(),
        "systemctl reload shardless.service".to_owned(),
    ];
    assert_eq!(stage.calls(), expected);
}

#[test]
fn other_certificates_are_left_alone() {
    let stage = hook();
    for (lineage, domains) in
        [("www.example.com", "www.example.com"), ("my-bot.example.com", "my-bot.example.com")]
    {
        let lineage = format!("/etc/letsencrypt/live/{lineage}");
        let output = stage.run(&[], &[("RENEWED_LINEAGE", &lineage), ("RENEWED_DOMAINS", domains)]);
        assert!(output.status.success(), "{output:?}");
    }
    assert_eq!(stage.calls(), [""; 0]);
}

#[test]
fn a_certificate_that_the_daemon_does_not_take_is_reported() {
    let stage = hook();
    stage.command("systemctl", "[ \"$1\" != reload ]");
    let lineage = "/etc/letsencrypt/live/bot.example.com";
    let output = stage.run(&[], &[("RENEWED_LINEAGE", lineage), ("RENEWED_DOMAINS", "bot.example.com")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("shardless did not take it and goes on with the old one"),
        "{output:?}"
    );
}

/// The blocks of the guide that are run, by their names.
fn blocks() -> Vec<(String, String)> {
    let guide = fs::read_to_string(source("deploy/README.md")).unwrap();
    let named = guide.split("<!-- test: ").skip(1).map(|rest| {
        let (name, rest) = rest.split_once(" -->\n```sh\n").unwrap();
        (name.to_owned(), rest.split_once("```").unwrap().0.to_owned())
    });
    named.collect()
}

#[test]
fn each_block_of_commands_in_the_guide_is_marked_for_the_tests() {
    let guide = fs::read_to_string(source("deploy/README.md")).unwrap();
    assert_eq!(guide.matches("```sh\n").count(), blocks().len());
    for (name, block) in blocks() {
        let checked = Command::new("bash").args(["-n", "-c", &block]).output().unwrap();
        assert!(checked.status.success(), "{name}: {checked:?}");
    }
}

/// A file that is gone would be seen only by whoever follows the guide.
#[test]
fn the_guide_names_files_that_exist() {
    let folders = ["apache/", "config/", "deploy/", "nginx/", "systemd/"];
    let named: Vec<_> = blocks()
        .iter()
        .flat_map(|(_, block)| block.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .filter(|word| folders.iter().any(|folder| word.starts_with(folder)))
        .collect();
    for folder in folders {
        assert!(named.iter().any(|file| file.starts_with(folder)), "none of {folder}");
    }
    for file in named {
        assert!(source(&file).is_file(), "{file} is missing");
    }
}

/// All files below that folder, but for what `tests/install` brought.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let entries = entries.filter(|path| !path.ends_with("node_modules"));
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn shell_scripts_are_sound() {
    let mut all = ["deploy", "tests", ".ci"].map(|folder| files(&source(folder))).concat();
    all.push(source("fuzz/run"));
    let is_script = |file: &PathBuf| {
        let start = fs::read(file).unwrap();
        start.starts_with(b"#!/usr/bin/env bash\n") || start.starts_with(b"#!/bin/")
    };
    let scripts: Vec<_> = all.into_iter().filter(is_script).collect();
    for known in ["deploy/install.sh", "deploy/uninstall.sh", "deploy/certbot/shardless-direct", "tests/run"]
    {
        assert!(scripts.contains(&source(known)), "{known} is not among {scripts:?}");
    }
    let output = Command::new(program("shellcheck")).args(&scripts).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stdout));
}
