//! `shardless send`: Discord's part, against a bot on a laptop, without Discord and without a tunnel.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::builder::NonEmptyStringValueParser;

use super::{KEY_FILE, explain};
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::discord::TOKEN_LIFETIME;
use crate::discord::interaction::Interaction;
use crate::pem;
use crate::rehearsal::payload::CommandOption;
use crate::rehearsal::rest::Api;
use crate::rehearsal::signer::SignerError;
use crate::rehearsal::stand_in::Signed;
use crate::rehearsal::{Author, Exchange, Expectation, Payload, Signer, StandIn, Verdict};

/// Characters of an answer that is no JSON which are shown.
const SHOWN: usize = 500;

// clap does not ask for what conflicts with something that is there, so an option that goes with one kind of request
// names the others.
const NO_COMMANDS: [&str; 6] = ["ping", "button", "select", "modal", "event", "file"];
const NO_AUTOCOMPLETE: [&str; 7] = ["ping", "command", "button", "select", "modal", "event", "file"];
const NO_SELECT: [&str; 7] = ["ping", "command", "autocomplete", "button", "modal", "event", "file"];
const NO_MODAL: [&str; 7] = ["ping", "command", "autocomplete", "button", "select", "event", "file"];

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  shardless send http://127.0.0.1:8080/interactions --command \"music play\" --option query=\"never gonna\"
  shardless send http://127.0.0.1:8080/interactions --autocomplete \"music play\" --focus query=nev
  shardless send http://127.0.0.1:8080/interactions --button ticket:close
  shardless send http://127.0.0.1:3000/interactions --ping --forge

The exit status is 0 if Discord would accept the answer, else 1.")]
pub(super) struct Options {
    /// The endpoint: a handler's own, or the daemon's
    url: String,
    #[command(flatten)]
    what: What,
    /// Say first which route it takes by that config of the daemon, and why
    #[arg(long, value_name = "CONFIG")]
    explain: Option<PathBuf>,
    /// An option of the command: name=value, or name:type=value (integer, user, attachment …); repeatable
    #[arg(long = "option", value_name = "NAME=VALUE", value_parser = CommandOption::parse, requires = "with_options", conflicts_with_all = NO_COMMANDS)]
    options: Vec<CommandOption>,
    /// For --autocomplete: the option that is being typed, and what is typed so far
    #[arg(long, value_name = "NAME=TYPED", value_parser = pair, requires = "autocomplete", conflicts_with_all = NO_AUTOCOMPLETE)]
    focus: Option<(String, String)>,
    /// For --select: what was picked; repeatable
    #[arg(long = "value", value_name = "VALUE", requires = "select", conflicts_with_all = NO_SELECT)]
    values: Vec<String>,
    /// For --modal: a text field; repeatable
    #[arg(long = "field", value_name = "NAME=TEXT", value_parser = pair, requires = "modal", conflicts_with_all = NO_MODAL)]
    fields: Vec<(String, String)>,
    /// As if from a direct message instead of a server
    #[arg(long)]
    dm: bool,
    /// The language of the user's client
    #[arg(long, value_name = "LOCALE", default_value = "en-US")]
    locale: String,
    /// The development key to sign with, from `shardless keygen` [default: shardless-dev.key, else a throw-away key]
    #[arg(long, value_name = "FILE", env = "SHARDLESS_KEY")]
    key: Option<PathBuf>,
    /// For https: trust this certificate too, such as the daemon's self-signed.pem
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Play Discord's REST API too, on this port of 127.0.0.1, and show the answer that follows a deferral; for a daemon
    /// whose discord.api is http://127.0.0.1:PORT/api/v10
    #[arg(long, value_name = "PORT", conflicts_with_all = ["forge", "repeat"])]
    api: Option<u16>,
    /// Sign wrongly, as Discord does from time to time; 401 is the right answer
    #[arg(long)]
    forge: bool,
    /// Send the very same request so many times, as a proxy that retries or an attacker that replays would
    #[arg(long, value_name = "TIMES", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeat: u32,
}

#[derive(Debug, clap::Args)]
#[group(multiple = false)]
struct What {
    /// A PING, as Discord sends it to see whether the endpoint is alive (the default)
    #[arg(long)]
    ping: bool,
    /// A slash command, with its group and subcommand where it has them: "music play"
    #[arg(long, value_name = "NAME", group = "with_options", value_parser = NonEmptyStringValueParser::new())]
    command: Option<String>,
    /// Suggestions for the command's option that --focus names
    #[arg(long, value_name = "NAME", group = "with_options", requires = "focus", value_parser = NonEmptyStringValueParser::new())]
    autocomplete: Option<String>,
    /// A press of the button with that custom_id
    #[arg(long, value_name = "CUSTOM_ID")]
    button: Option<String>,
    /// A choice from the select menu with that custom_id
    #[arg(long, value_name = "CUSTOM_ID")]
    select: Option<String>,
    /// The modal with that custom_id, submitted
    #[arg(long, value_name = "CUSTOM_ID")]
    modal: Option<String>,
    /// A webhook event of that type, such as ENTITLEMENT_CREATE
    #[arg(long, value_name = "TYPE")]
    event: Option<String>,
    /// An interaction from a file, sent as it is
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("expected name=text, found {text:?}"))?;
    Ok((name.to_owned(), value.to_owned()))
}

pub(super) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let config = match &options.explain {
        Some(path) => match Config::load(path) {
            Ok(config) => Some(config),
            Err(error) => return Ok(super::report(&error)),
        },
        None => None,
    };
    let signer = signer(options.key.as_deref())?;
    let certificates = match &options.ca {
        Some(path) => pem::read(path).with_context(|| format!("cannot use {}", path.display()))?.certificates,
        None => Vec::new(),
    };
    let stand_in = StandIn::trusting(certificates, signer, Arc::new(SystemClock))?;
    let payload = payload(options)?;
    if let Some(config) = config.filter(|_| payload.kind.is_some()) {
        explain::print(&config, &payload.body)?;
    }
    let mut signed = stand_in.sign(&payload);
    let mut expectation = Expectation::Callback;
    if options.forge {
        signed = signed.forge();
        expectation = Expectation::Unauthorized;
    }
    let url =
        if options.url.contains("://") { options.url.clone() } else { format!("http://{}", options.url) };
    let runtime = super::runtime()?;
    let sending = async {
        let api = match options.api {
            Some(port) => {
                Some(Api::start(port).await.with_context(|| format!("cannot listen on port {port}"))?)
            }
            None => None,
        };
        send(&stand_in, &url, &payload, &signed, expectation, options.repeat, api.as_ref()).await
    };
    runtime.block_on(sending)
}

async fn send(
    stand_in: &StandIn,
    url: &str,
    payload: &Payload,
    signed: &Signed,
    expectation: Expectation,
    repeat: u32,
    api: Option<&Api>,
) -> anyhow::Result<ExitCode> {
    let forged = if expectation == Expectation::Unauthorized { ", with a forged signature" } else { "" };
    println!("→ {}, {} bytes to {url}{forged}", payload.title, payload.body.len());
    let mut all_accepted = true;
    for _ in 0..repeat {
        let start = Instant::now();
        if let Some(api) = api {
            api.sent(&payload.body);
        }
        let exchange = stand_in.send(url, signed).await.with_context(|| format!("no answer from {url}"))?;
        show(&exchange);
        let verdict = Verdict::of(payload, expectation, &exchange);
        all_accepted &= verdict.is_accepted();
        match verdict {
            Verdict::Accepted(what) => {
                println!("✔ Discord would accept this answer: {what}");
                if let Some(api) = api {
                    all_accepted &= show_late(api, payload, &exchange, start).await;
                }
            }
            Verdict::Refused(reasons) => {
                for reason in reasons {
                    println!("✘ Discord would not accept this answer: {reason}");
                }
            }
        }
    }
    Ok(if all_accepted { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What follows a deferral, for as long as Discord would take it. Whether it came, where it was to.
async fn show_late(api: &Api, payload: &Payload, exchange: &Exchange, start: Instant) -> bool {
    if !Verdict::is_deferral(exchange) {
        return true;
    }
    println!("… waiting for the answer that follows, at {}", api.url());
    let following = api.follow(&payload.body, &exchange.body);
    let Ok(Some(view)) = tokio::time::timeout(TOKEN_LIFETIME, following).await else {
        println!("✘ nothing followed: the token has expired");
        return false;
    };
    let Some(message) = view.last() else { return false };
    let to = if message.is_private() { ", for the user alone" } else { "" };
    println!("← a message, {} after the interaction{to}", rounded(start.elapsed()));
    println!("  {}", plain(&message.content));
    for file in &message.attachments {
        println!("  with {}, {} bytes", plain(&file.name), file.size);
    }
    true
}

/// To a tenth of a millisecond.
fn rounded(time: Duration) -> humantime::FormattedDuration {
    let tenths = u64::try_from(time.as_micros()).unwrap_or(u64::MAX) / 100;
    humantime::format_duration(Duration::from_micros(tenths * 100))
}

fn show(exchange: &Exchange) {
    let time = rounded(exchange.elapsed);
    println!("← {} {} in {time}", exchange.status, exchange.content_type.escape_debug());
    if exchange.body.is_empty() {
        return;
    }
    let text = match serde_json::from_slice::<serde_json::Value>(&exchange.body) {
        Ok(json) => format!("{json:#}"),
        Err(_) => String::from_utf8_lossy(&exchange.body).chars().take(SHOWN).collect::<String>(),
    };
    for line in text.lines() {
        println!("  {}", plain(line));
    }
}

/// What a server sends must not steer the terminal.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn signer(key: Option<&Path>) -> anyhow::Result<Signer> {
    let path = key.unwrap_or(Path::new(KEY_FILE));
    match Signer::load(path) {
        Ok(signer) => Ok(signer),
        Err(SignerError::Io(error)) if key.is_none() && error.kind() == ErrorKind::NotFound => {
            let signer = Signer::generate()?;
            println!("  signed with a throw-away key, fine for a handler that does not verify;");
            println!("  for one that does, make a lasting key once: shardless keygen");
            Ok(signer)
        }
        Err(error) => Err(error).with_context(|| format!("cannot use the key in {}", path.display())),
    }
}

fn payload(options: &Options) -> anyhow::Result<Payload> {
    let mut salt = [0; 2];
    getrandom::fill(&mut salt)
        .map_err(|error| anyhow::anyhow!("the system gives no random numbers: {error}"))?;
    // Two runs in one millisecond are to have different ids.
    let mut author = Author::new(SystemClock.unix_time(), u64::from(u16::from_le_bytes(salt)) << 4);
    author = author.with_locale(&options.locale);
    if options.dm {
        author = author.in_direct_message();
    }
    let what = &options.what;
    Ok(if let Some(path) = &what.command {
        author.command(path, &options.options)
    } else if let Some(path) = &what.autocomplete {
        let Some((name, typed)) = &options.focus else { bail!("--autocomplete needs --focus NAME=TYPED") };
        author.autocomplete(path, &options.options, name, typed)
    } else if let Some(custom_id) = &what.button {
        author.button(custom_id)
    } else if let Some(custom_id) = &what.select {
        author.select(custom_id, &options.values)
    } else if let Some(custom_id) = &what.modal {
        author.modal(custom_id, &options.fields)
    } else if let Some(event) = &what.event {
        author.event(event)
    } else if let Some(path) = &what.file {
        from_file(path)?
    } else {
        author.ping()
    })
}

fn from_file(path: &Path) -> anyhow::Result<Payload> {
    let body = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let interaction = Interaction::parse(&body).with_context(|| path.display().to_string())?;
    let title = format!("{} from {}", interaction.kind.as_str(), path.display());
    let (kind, has_message) = (Some(interaction.kind), interaction.has_message);
    Ok(Payload { title, kind, has_message, body })
}
