//! `shardless demo`: the whole of it on one machine, with nothing to set up.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use data_encoding::HEXLOWER;
use serde_json::Value;
use tokio::sync::watch;

use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::daemon::Daemon;
use crate::daemon::lifecycle::Lifecycle;
use crate::discord::signature;
use crate::rehearsal::payload::CommandOption;
use crate::rehearsal::rest::{Api, View};
use crate::rehearsal::sample::{self, Sample};
use crate::rehearsal::stand_in::Signed;
use crate::rehearsal::{Author, Exchange, Expectation, Payload, Signer, StandIn, Verdict};
use crate::systemd::Sockets;

/// For a late answer to come.
const LATE: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Exit after the last step, with 0 if all went as they should, instead of serving on
    #[arg(long)]
    once: bool,
}

pub(super) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let runtime = super::runtime()?;
    let code = runtime.block_on(play(options));
    runtime.shutdown_background();
    code
}

/// What the demo plays with: a daemon, a handler behind it, and Discord in front of it.
struct Stage {
    stand_in: StandIn,
    api: Api,
    author: Author,
    url: String,
    all_is_well: bool,
}

async fn play(options: &Options) -> anyhow::Result<ExitCode> {
    let signer = Signer::generate()?;
    let first = Sample::start(0).await.context("the sample handler cannot listen")?;
    let second = Sample::start(0).await.context("the sample handler cannot listen")?;
    // First, so that nothing is left behind however it ends.
    let mut lifecycle = Lifecycle::start()?;
    let folder = Folder::new()?;
    let api = Api::start(0).await.context("the stand-in for Discord's REST API cannot listen")?;
    let api_address = api.address();
    let config = config(&signer, [&first, &second], &api, &folder)?;
    let clock = Arc::new(SystemClock);
    let daemon = Daemon::bind(config, Sockets::default(), Arc::<SystemClock>::clone(&clock))?;
    let address = *daemon.addresses()?.first().context("no address is bound")?;
    let page = *daemon.admin_addresses().first().context("the status page has no address")?;
    let (stop, stopped) = watch::channel(false);
    let serving = tokio::spawn(daemon.run(super::workers()?, stopped));

    let mut stage = Stage {
        stand_in: StandIn::new(signer.clone(), clock)?,
        api,
        author: Author::new(SystemClock.unix_time(), 0),
        url: format!("http://{address}/interactions"),
        all_is_well: true,
    };
    println!("shardless on {address}, Ed25519 on {}", signature::backend());
    println!(
        "Discord's part is played by a stand-in with a throw-away key, the bot's by handlers on {} and {}.\n",
        first.address(),
        second.address()
    );
    let handlers = tokio::select! {
        handlers = stage.scenes(first, second) => handlers?,
        () = lifecycle.asked_to_end() => return Ok(ExitCode::FAILURE),
    };

    if options.once {
        stop.send_replace(true);
        serving.await?;
        return Ok(if stage.all_is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    signer.save(&folder.key())?;
    // `send` plays Discord from here on.
    drop(stage);
    let program = std::env::args().next().unwrap_or_else(|| "shardless".to_owned());
    println!("\nStill serving, until Ctrl-C. The status page: http://{page}/");
    println!("From another terminal, play Discord yourself:\n");
    let send = format!("  {program} send http://{address}/interactions --key {}", folder.key().display());
    println!("{send} --command roll --option sides=6");
    println!("{send} --command slow --api {}", api_address.port());
    lifecycle.asked_to_end().await;
    drop(handlers);
    Ok(ExitCode::SUCCESS)
}

fn config(signer: &Signer, handlers: [&Sample; 2], api: &Api, folder: &Folder) -> anyhow::Result<Config> {
    let text = format!(
        r#"
port = 0
state_dir = {:?}

[admin]
port = 0

[discord]
api = "{}"

[handlers.dice]
urls = {:?}

[apps.demo]
public_key = "{}"
handler = "dice"
error_message = "That did not work. Please try again."

[[apps.demo.routes]]
command = "closed"
reply = {{ type = 4, data = {{ content = "This command is closed.", flags = 64 }} }}
"#,
        folder.0,
        api.url(),
        handlers.map(Sample::url),
        signer.public_key(),
    );
    Ok(Config::parse("demo.toml", &text)?)
}

impl Stage {
    /// Every step, in the order in which they explain each other. Gives handlers back that are up.
    async fn scenes(&mut self, first: Sample, second: Sample) -> anyhow::Result<[Sample; 2]> {
        let sides = CommandOption::parse("sides=20").map_err(anyhow::Error::msg)?;

        let ping = self.author.ping();
        self.show("answered by shardless itself", &ping, |_| true).await?;
        let roll = self.author.command("roll", &[sides]);
        let rolled = self.stand_in.sign(&roll);
        let rolled_first = self.show_signed("", &roll, &rolled, Expectation::Callback, |_| true).await?;
        let typed = self.author.autocomplete("play", &[], "song", "ne");
        self.show("", &typed, |_| true).await?;
        let again = self.author.button("again");
        self.show("", &again, |_| true).await?;
        let feedback = self.author.modal("feedback", &[("text".to_owned(), "Nice dice.".to_owned())]);
        self.show("", &feedback, |_| true).await?;

        let closed = self.author.command("closed", &[]);
        self.show("a route with a ready reply", &closed, |answer| flags(answer) == 64).await?;

        let slow = self.author.command("slow", &[]);
        let start = tokio::time::Instant::now();
        let deferral = self.show("the handler needs 4 s", &slow, is_deferral).await?;
        self.show_late(&slow, &deferral, start).await;

        let forged = self.author.command("roll", &[]);
        let signed = self.stand_in.sign(&forged).forge();
        self.show_signed("forged signature", &forged, &signed, Expectation::Unauthorized, |_| true).await?;

        let calls = || first.calls() + second.calls();
        let before = calls();
        let same = |answer: &Exchange| answer.body == rolled_first.body && calls() == before;
        self.show_signed(
            "replayed: the same answer, not forwarded",
            &roll,
            &rolled,
            Expectation::Callback,
            same,
        )
        .await?;

        let ports = [first.address().port(), second.address().port()];
        // What it may have read would not be sent to the other one.
        first.stop().await;
        let roll = self.author.command("roll", &[]);
        self.show("with one of two handlers killed", &roll, |answer| flags(answer) == 0).await?;
        second.stop().await;
        let ping = self.author.ping();
        self.show("with both killed", &ping, |_| true).await?;
        let lost = self.author.command("roll", &[]);
        self.show("with both killed: error_message", &lost, |answer| flags(answer) == 64).await?;
        let back = "the sample handler cannot come back";
        let [first, second] = ports;
        Ok([Sample::start(first).await.context(back)?, Sample::start(second).await.context(back)?])
    }

    /// One line: what follows a deferral, and how long after the interaction.
    async fn show_late(&mut self, payload: &Payload, deferral: &Exchange, start: tokio::time::Instant) {
        let following = self.api.follow(&payload.body, &deferral.body);
        let view = tokio::time::timeout(LATE, following).await.ok().flatten();
        let milliseconds = start.elapsed().as_secs_f64() * 1000.0;
        let content = view.as_ref().and_then(View::last).map(|message| message.content.as_str());
        let well = content == Some(sample::SLOW_ANSWER);
        self.all_is_well &= well;
        let mark = if well { '✔' } else { '✘' };
        let content = content.unwrap_or("nothing came");
        println!("{mark} {:<30} {milliseconds:>7.1} ms  then {content:?}  (delivered late)", "");
    }

    async fn show(
        &mut self,
        note: &str,
        payload: &Payload,
        is_right: impl Fn(&Exchange) -> bool,
    ) -> anyhow::Result<Exchange> {
        let signed = self.stand_in.sign(payload);
        self.show_signed(note, payload, &signed, Expectation::Callback, is_right).await
    }

    /// One line: what was sent, what came back, how long it took.
    async fn show_signed(
        &mut self,
        note: &str,
        payload: &Payload,
        signed: &Signed,
        expectation: Expectation,
        is_right: impl Fn(&Exchange) -> bool,
    ) -> anyhow::Result<Exchange> {
        let exchange = self.stand_in.send(&self.url, signed).await?;
        let verdict = Verdict::of(payload, expectation, &exchange);
        let well = verdict.is_accepted() && is_right(&exchange);
        self.all_is_well &= well;
        let answer = match &verdict {
            Verdict::Accepted(_) => gist(&exchange),
            Verdict::Refused(reasons) => reasons.join("; "),
        };
        let mark = if well { '✔' } else { '✘' };
        let milliseconds = exchange.elapsed.as_secs_f64() * 1000.0;
        let status = exchange.status.as_u16();
        let note = if note.is_empty() { String::new() } else { format!("  ({note})") };
        println!("{mark} {:<30} {milliseconds:>7.1} ms  {status} {answer}{note}", payload.title);
        Ok(exchange)
    }
}

/// What a user would see of an answer.
fn gist(exchange: &Exchange) -> String {
    let json: Value = serde_json::from_slice(&exchange.body).unwrap_or_default();
    match json.pointer("/type").and_then(Value::as_u64) {
        Some(1) => "PONG".to_owned(),
        Some(5) => "thinking…".to_owned(),
        Some(8) => {
            let choices = json.pointer("/data/choices").and_then(Value::as_array);
            format!("{} choices", choices.map_or(0, Vec::len))
        }
        Some(_) => json.pointer("/data/content").map(Value::to_string).unwrap_or_default(),
        None => String::from_utf8_lossy(&exchange.body).trim().to_owned(),
    }
}

fn is_deferral(exchange: &Exchange) -> bool {
    gist(exchange) == "thinking…"
}

fn flags(exchange: &Exchange) -> u64 {
    let json: Value = serde_json::from_slice(&exchange.body).unwrap_or_default();
    json.pointer("/data/flags").and_then(Value::as_u64).unwrap_or_default()
}

/// Holds the daemon's state and the demo's key for `send`, and goes with the demo.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new() -> anyhow::Result<Self> {
        let mut name = [0; 8];
        getrandom::fill(&mut name).map_err(|error| anyhow::anyhow!("no random numbers: {error}"))?;
        let folder = Self(std::env::temp_dir().join(format!("shardless-demo-{}", HEXLOWER.encode(&name))));
        std::fs::create_dir(&folder.0).with_context(|| format!("cannot create {}", folder.0.display()))?;
        Ok(folder)
    }

    fn key(&self) -> std::path::PathBuf {
        self.0.join("demo.key")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.0);
    }
}
