//! The status page in a real browser: `page/page.test.mjs` looks and clicks, and is played Discord to.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::daemon::{Daemon, Settings};
use crate::discord::Discord;
use crate::handler::Handler;
use crate::process::{free_port, installed, program, source};

/// For the browser to do one thing.
const PATIENCE: Duration = Duration::from_secs(90);

/// What the browser's script asks for.
struct Driver {
    discord: Discord,
    daemon: Daemon,
    port: u16,
    /// Absent while it is killed.
    handler: Option<Handler>,
}

impl Driver {
    async fn start(admin: u16) -> Self {
        let (discord, handler) = (Discord::new(), Handler::start().await);
        let settings = Settings { admin: Some(admin), ..Settings::default() };
        let daemon = Daemon::start(&discord, handler.port(), settings).await;
        Self { discord, daemon, port: handler.port(), handler: Some(handler) }
    }

    async fn do_it(&mut self, what: &str) {
        let (verb, told) = what.split_once(' ').unwrap_or((what, "null"));
        let told: Value = serde_json::from_str(told).unwrap();
        match verb {
            "play" => self.play(&told).await,
            "forge" => self.forge(told.as_u64().unwrap()).await,
            "kill" => self.handler = None,
            "revive" => self.handler = Some(Handler::listen_on(self.port, |_| Duration::ZERO).await),
            "stop" => self.daemon.stop("TERM").await,
            "start" => self.daemon.restart().await,
            "break" => self.daemon.reload_with("this is no config").await,
            "mend" => self.daemon.reload_with("").await,
            other => panic!("nobody can {other}"),
        }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/interactions", self.daemon.upstream().port)
    }

    async fn play(&self, told: &Value) {
        let name = told["name"].as_str().unwrap();
        for _ in 0..told["times"].as_u64().unwrap() {
            let interaction = match told["kind"].as_str().unwrap() {
                "command" => self.discord.named_command(name, "played"),
                "component" => self.discord.button(name),
                other => panic!("nobody plays a {other}"),
            };
            let signed = self.discord.sign(&interaction.payload);
            let exchange = self.discord.send(&self.url(), &signed).await;
            assert_eq!(exchange.status == 200, self.handler.is_some(), "{exchange:?}");
        }
    }

    async fn forge(&self, times: u64) {
        for _ in 0..times {
            let forged = self.discord.sign(&self.discord.ping()).forge();
            assert_eq!(self.discord.send(&self.url(), &forged).await.status, 401);
        }
    }
}

/// The script, which ends when dropped.
struct Script(Child);

impl Drop for Script {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

fn say_done(stdin: &mut ChildStdin) {
    // It may have ended: its status says more.
    _ = stdin.write_all(b"done\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_what_happens_in_a_real_browser() {
    let admin = free_port();
    let mut driver = Driver::start(admin).await;
    installed("tests/e2e/page/node_modules/.installed");
    let mut script = Command::new(program("node"))
        .arg("--test-reporter=spec")
        .arg(source("tests/e2e/page/page.test.mjs"))
        .current_dir(source("tests/e2e/page"))
        .env("PAGE", format!("http://localhost:{admin}/"))
        .env("APP", "mybot")
        .env("CHROMIUM", program("chromium"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map(Script)
        .unwrap();
    let mut stdin = script.0.stdin.take().unwrap();
    let (said, mut lines) = mpsc::channel(64);
    let stdout = BufReader::new(script.0.stdout.take().unwrap());
    std::thread::spawn(move || {
        stdout.lines().map_while(Result::ok).try_for_each(|line| said.blocking_send(line))
    });
    let mut report = String::new();
    loop {
        let Ok(line) = timeout(PATIENCE, lines.recv()).await else { panic!("the script hangs:\n{report}") };
        let Some(line) = line else { break };
        match line.strip_prefix("do: ") {
            Some(what) => {
                driver.do_it(what).await;
                say_done(&mut stdin);
            }
            None => report.push_str(&format!("{line}\n")),
        }
    }
    let status = script.0.wait().unwrap();
    println!("{report}");
    assert!(status.success(), "{status}");
}
