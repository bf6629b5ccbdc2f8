//! A Prometheus that asks a daemon under load.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use shardless::rehearsal::rest::Api;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::discord::Discord;
use crate::handler::Handler;
use crate::load::{self, Load, Pace};
use crate::process::{self, Process, free_port, installed, program, source, until};
use crate::raw;

use super::{Query, RULES, queries, read};

/// For each query to have something to show, on a disk that may be busy; less than any alert waits that speed can raise.
const PATIENCE: Duration = Duration::from_secs(60);

/// Panels for which there is nothing to show, and why.
const EMPTY: [(&str, &str); 3] = [
    ("Certificate", "this daemon does not speak TLS"),
    ("Lost", "no start found an entry that could not go on"),
    ("Starts", "there was one alone"),
];

/// The daemon with its admin listener, a handler with a second replica that is down, and a load.
struct Setup {
    load: Load,
    port: u16,
    admin: u16,
    // In this order: the daemon ends first, and the folder goes last.
    daemon: Process,
    _handler: Handler,
    _api: Arc<Api>,
    folder: TempDir,
}

impl Setup {
    async fn start() -> Self {
        let (folder, port, admin, nobody) = (process::folder(), free_port(), free_port(), free_port());
        let (discord, handler) = (Arc::new(Discord::new()), load::handler().await);
        let api = Arc::new(Api::start(0).await.unwrap());
        // Slow commands are deferred soon, so that late answers come soon too.
        let config = format!(
            "port = {port}\nstate_dir = {state:?}\n[admin]\nport = {admin}\n[discord]\napi = {api:?}\n\
             [handlers.bot]\nurls = [\"http://127.0.0.1:{bot}/\", \"http://127.0.0.1:{nobody}/\"]\n\
             [apps.mybot]\npublic_key = \"{key}\"\nhandler = \"bot\"\nanswer_within = \"500ms\"\n",
            state = folder.path().join("state"),
            api = api.url(),
            bot = handler.port(),
            key = discord.public_key(),
        );
        let file = folder.path().join("config.toml");
        fs::write(&file, config).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_shardless"));
        command.args(["serve", "--config"]).arg(&file);
        let daemon = Process::start("shardless", command, &folder.path().join("log"), admin).await;
        let url = format!("http://127.0.0.1:{port}/interactions");
        let load = Load::start("watched", &discord, &api, &url, Pace { rate: 100, keep_alive: true });
        Self { load, port, admin, daemon, _handler: handler, _api: api, folder }
    }

    /// What besides interactions is counted: a forged request, a request that is none, a reload.
    async fn meets_trouble(&self) {
        let (forger, url) = (Discord::new(), format!("http://127.0.0.1:{}/interactions", self.port));
        let exchange = forger.send(&url, &forger.sign(&forger.ping())).await;
        assert_eq!(exchange.status, 401);
        raw::Connection::to(self.port).await.send(b"no request\r\n\r\n").await;
        self.daemon.signal("HUP");
    }

    /// A Prometheus by the example that ships, but for the ports and the times.
    async fn prometheus(&self) -> Prometheus {
        let port = free_port();
        let example = read("deploy/monitoring/prometheus.yml");
        let parts = [
            ("localhost:3001", format!("127.0.0.1:{}", self.admin)),
            ("- prometheus-rules.yml", format!("- {}", source(RULES).display())),
            ("15s", "1s".to_owned()),
        ];
        let config = parts.iter().fold(example, |config, (ours, here)| {
            assert!(config.contains(ours), "{ours} is not in {config}");
            config.replace(ours, here)
        });
        let file = self.folder.path().join("prometheus.yml");
        fs::write(&file, config).unwrap();
        let mut command = Command::new(program("prometheus"));
        command.arg(format!("--config.file={}", file.display()));
        command.arg(format!("--storage.tsdb.path={}", self.folder.path().join("tsdb").display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}")).arg("--log.level=warn");
        let log = self.folder.path().join("prometheus.log");
        let process = Process::start("prometheus", command, &log, port).await;
        Prometheus { port, _process: process }
    }
}

struct Prometheus {
    port: u16,
    _process: Process,
}

impl Prometheus {
    /// What the API gives; it must succeed.
    fn get(&self, path: &str, parameters: &[String]) -> Value {
        let answer: Value =
            serde_json::from_str(&get(&format!("http://127.0.0.1:{}/api/v1/{path}", self.port), parameters))
                .unwrap_or_default();
        assert_eq!(answer["status"], "success", "{path} {parameters:?}: {answer}");
        answer["data"].clone()
    }

    fn query(&self, expr: &str) -> Vec<Value> {
        let data = self.get("query", &["--data-urlencode".to_owned(), format!("query={expr}")]);
        data["result"].as_array().unwrap_or_else(|| panic!("{expr}: {data}")).clone()
    }

    /// All rules, by the server's own word.
    fn rules(&self) -> Vec<Value> {
        let data = self.get("rules", &[]);
        let groups = data["groups"].as_array().unwrap().iter();
        groups.flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
    }
}

fn get(url: &str, arguments: &[String]) -> String {
    let mut curl = Command::new(program("curl"));
    let output = curl.args(["-sS", "--max-time", "10", "--get", url]).args(arguments).output().unwrap();
    assert!(output.status.success(), "{url}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn is_empty_by_right(query: &Query) -> bool {
    EMPTY.iter().any(|(title, _)| query.title == *title)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dashboards_queries_and_the_alerts_answer_from_a_real_prometheus() {
    let setup = Setup::start().await;
    let prometheus = setup.prometheus().await;
    setup.meets_trouble().await;
    let queries = queries();
    let mut empty: Vec<&Query> = queries.iter().filter(|query| !is_empty_by_right(query)).collect();
    until("Prometheus knows the daemon", async || !prometheus.query("shardless_build_info").is_empty()).await;
    let start = Instant::now();
    while !empty.is_empty() {
        empty.retain(|query| prometheus.query(&query.expr).is_empty());
        let expressions: Vec<_> = empty.iter().map(|query| (&query.title, &query.expr)).collect();
        assert!(start.elapsed() < PATIENCE, "there is nothing to show for {expressions:#?}");
        // The next scrape.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    for (title, _) in EMPTY {
        assert!(queries.iter().any(|query| query.title == title), "{title} is no panel any more");
    }
    for query in queries.iter().filter(|query| is_empty_by_right(query)) {
        assert!(prometheus.query(&query.expr).is_empty(), "{} has something to show", query.title);
    }

    let looked_at = async || prometheus.rules().iter().all(|rule| rule["health"] == "ok");
    until("each rule was looked at", looked_at).await;
    let rules = prometheus.rules();
    assert!(rules.len() > 20, "{} rules", rules.len());
    for rule in rules {
        prometheus.query(rule["query"].as_str().unwrap());
        // On a busy machine some may be pending: answers are slow, and records come after their deferrals.
        assert!(rule["state"] != "firing", "{rule:#}");
    }
    let is_told_of = async || {
        let rules = prometheus.rules();
        rules.iter().any(|rule| rule["name"] == "ShardlessReplicaDown" && rule["state"] == "pending")
    };
    until("the replica that is down on purpose is told of", is_told_of).await;
    setup.load.finish().await;
}

/// By the client of those who made the format.
#[tokio::test(flavor = "multi_thread")]
async fn what_prometheus_is_given_is_sound_openmetrics() {
    let setup = Setup::start().await;
    setup.meets_trouble().await;
    let url = format!("http://127.0.0.1:{}/metrics", setup.admin);
    let accept = ["-H", "Accept: application/openmetrics-text; version=1.0.0"].map(str::to_owned);
    let mut text = String::new();
    until("late answers are counted too", async || {
        text = get(&url, &accept);
        ["late_answer_seconds_bucket", "refusals_total", "reloads_total", "discord_requests_total"]
            .iter()
            .all(|part| text.contains(&format!("shardless_{part}")))
    })
    .await;
    let families = parsed(&text);
    for family in [
        "shardless_interactions counter -",
        "shardless_refusals counter -",
        "shardless_answer_seconds histogram seconds",
        "shardless_deadline_margin_seconds histogram seconds",
        "shardless_verification_seconds histogram seconds",
        "shardless_late_answer_seconds histogram seconds",
        "shardless_outbox_entries gauge -",
        "shardless_outbox_oldest_undelivered_age_seconds gauge seconds",
        "shardless_buffered_bytes gauge bytes",
        "shardless_limit_used_ratio gauge",
        "shardless_replica_up gauge -",
        "shardless_check_ok gauge -",
        "shardless_build info -",
        "process_cpu_seconds counter seconds",
        "process_resident_memory_bytes gauge bytes",
        "process_start_time_seconds gauge seconds",
    ] {
        let found = families.lines().any(|line| line.starts_with(&format!("{family} ")));
        assert!(found, "{family} is not in\n{families}\n{text}");
    }
    setup.load.finish().await;
}

/// The families in a text, if it is sound.
fn parsed(text: &str) -> String {
    installed("target/venv/.installed");
    let mut python = Command::new(installed("target/venv/bin/python"));
    python.arg(source("tests/e2e/monitoring/parse.py")).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = python.stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}\n{text}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
