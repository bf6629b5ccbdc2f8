//! Start, reload, stop, and what happens in between.

use std::net::Ipv6Addr;
use std::net::TcpListener;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::Value;
use tokio::time::Instant;

use super::service::{ENDPOINT, Service, property};
use super::{journal, journal_since_start, on_a_machine, said, sh, try_sh};
use crate::discord::Discord;
use crate::handler::Handler;
use crate::load;
use crate::process::until;

const OVER_IPV6: &str = "http://[::1]:3000/interactions";

#[test]
fn it_starts_and_tells_how_it_is() {
    on_a_machine(it_starts_and_tells_how_it_is, async || {
        let service = Service::install(Handler::start().await).await;
        sh("systemctl start shardless").await;
        // `start` comes back once the daemon has said that it is ready.
        for url in [ENDPOINT, OVER_IPV6] {
            service.answers(url).await;
        }
        assert_eq!(service.property("SubState").await, "running");
        assert_eq!(property("shardless.socket", "SubState").await, "running");
        let status = sh("systemctl --no-pager status shardless").await;
        let text = service.property("StatusText").await;
        assert!(text.contains("mybot") && text.contains("/interactions"), "{text:?}");
        assert!(status.contains(&format!("Status: \"{text}\"")), "{status}");
        // It runs as nobody in particular, and its state is its own.
        assert_eq!(service.property("User").await, "shardless");
        assert_eq!(sh("stat -c '%U:%G %a' /var/lib/shardless").await, "shardless:shardless 750\n");

        let interaction = service.discord.command("written down?");
        service.discord.try_ask(ENDPOINT, &interaction).await.unwrap();
        let entry = entry(&interaction.id()).await;
        for (field, value) in [
            ("SHARDLESS_APP", "mybot"),
            ("SHARDLESS_ID", &interaction.id()),
            ("SYSLOG_IDENTIFIER", "shardless"),
            ("_SYSTEMD_UNIT", "shardless.service"),
            ("PRIORITY", "6"),
        ] {
            assert_eq!(entry[field], value, "{field} in {entry}");
        }
        assert!(entry["SHARDLESS_OUTCOME"].is_string(), "{entry}");
        let message = entry["MESSAGE"].as_str().unwrap();
        assert!(message.starts_with("interaction answered") && !message.contains('\u{1b}'), "{message:?}");
        assert_eq!(sh("systemctl --failed --no-legend").await, "");
    });
}

/// The journal's entry of an interaction.
async fn entry(id: &str) -> Value {
    let mut entry = String::new();
    until("the journal has the interaction", async || {
        entry = sh(&format!("journalctl --output=json SHARDLESS_ID={id} | cat")).await;
        !entry.is_empty()
    })
    .await;
    serde_json::from_str(entry.lines().next().unwrap()).unwrap()
}

#[test]
fn the_first_request_starts_it() {
    on_a_machine(the_first_request_starts_it, async || {
        let service = Service::install(Handler::start().await).await;
        sh("systemctl start shardless.socket").await;
        assert!(!service.is_active().await);
        let discord = &service.discord;
        let interactions: Vec<_> = (0..20).map(|n| discord.command(&format!("№{n}"))).collect();
        let answers = interactions.iter().map(|interaction| discord.try_ask(ENDPOINT, interaction));
        let start = Instant::now();
        let errors: Vec<_> = join_all(answers).await.into_iter().filter_map(Result::err).collect();
        assert_eq!(errors, [""; 0]);
        println!("the first 20 requests, which started it, were answered within {:.2?}", start.elapsed());
        assert!(service.is_active().await);
        service.answers(OVER_IPV6).await;
    });
}

#[test]
fn a_reload_takes_a_good_config_and_refuses_a_bad_one() {
    on_a_machine(a_reload_takes_a_good_config_and_refuses_a_bad_one, async || {
        let service = Service::install(Handler::start().await).await;
        sh("systemctl start shardless").await;
        let main = service.property("MainPID").await;
        let other = ENDPOINT.replace("/interactions", "/other");
        let both = service.config("") + &service.app("other", "/other");
        service.configure(&both).await;
        sh("systemctl reload shardless").await;
        // `reload` comes back once the signal is sent.
        until("the other application is served", async || is_served(&service.discord, &other).await).await;
        service.answers(ENDPOINT).await;

        let bad = both.replace("error_message", "eror_message");
        let line = bad.lines().position(|line| line.starts_with("eror_message")).unwrap() + 1;
        let place = format!("/etc/shardless/config.toml:{line}:");
        service.configure(&bad).await;
        assert!(!try_sh("systemctl reload shardless").await.status.success());
        let log = journal("shardless").await;
        assert!(log.contains(&place) && log.contains("did you mean `error_message`?"), "{log}");
        // `check` found it, and the daemon was not told.
        assert_eq!(service.property("ActiveState").await, "active");
        for url in [ENDPOINT, &other] {
            service.answers(url).await;
        }
        let check = try_sh("shardless check").await;
        assert_eq!(check.status.code(), Some(78));
        assert!(said(&check).contains(&place), "{}", said(&check));

        let before = log.matches(&place).count();
        sh("systemctl kill --signal=HUP --kill-whom=main shardless").await;
        until("it names the mistake", async || journal("shardless").await.matches(&place).count() > before)
            .await;
        for url in [ENDPOINT, &other] {
            service.answers(url).await;
        }
        until("it is done with the reload", async || service.property("SubState").await == "running").await;

        service.configure(&service.config("")).await;
        sh("systemctl reload shardless").await;
        until("the other application is gone", async || !is_served(&service.discord, &other).await).await;
        assert_eq!(service.property("MainPID").await, main);
        assert_eq!(service.property("NRestarts").await, "0");
    });
}

async fn is_served(discord: &Discord, url: &str) -> bool {
    discord.try_ask(url, &discord.command("are you there?")).await.is_ok()
}

#[test]
fn a_bad_config_at_the_start_is_left_alone_until_it_is_mended() {
    on_a_machine(a_bad_config_at_the_start_is_left_alone_until_it_is_mended, async || {
        let service = Service::install(Handler::start().await).await;
        service.configure("port = \"3000\"\n").await;
        assert!(!try_sh("systemctl start shardless.service").await.status.success());
        let is_given_up = async || {
            assert_eq!(service.property("ActiveState").await, "failed");
            assert_eq!(service.property("ExecMainStatus").await, "78");
            assert_eq!(service.property("NRestarts").await, "0");
        };
        is_given_up().await;
        let log = journal("shardless").await;
        assert!(log.contains("/etc/shardless/config.toml:1:"), "{log}");

        // Whoever asks in the meantime brings the socket to try again, but not for ever.
        let interaction = service.discord.command("anybody?");
        let error = service.discord.try_ask(ENDPOINT, &interaction).await.unwrap_err();
        println!("who asks while the config is bad: {error}");
        is_given_up().await;

        service.configure(&service.config("")).await;
        sh("systemctl start shardless.service").await;
        service.answers(ENDPOINT).await;
        assert_eq!(property("shardless.socket", "ActiveState").await, "active");
    });
}

#[test]
fn nothing_is_lost_when_it_ends() {
    on_a_machine(nothing_is_lost_when_it_ends, async || {
        let service = Service::install(load::handler().await).await;
        let Service { discord, handler, .. } = &service;
        sh("systemctl start shardless").await;

        // A stop that meets a call, on a connection that surely did not wait for the start.
        service.answers(ENDPOINT).await;
        let slow = discord.named_command("slow", "the last one");
        let (answer, ()) = tokio::join!(discord.try_ask(ENDPOINT, &slow), async {
            until("the handler thinks", async || handler.has_seen(&slow.id())).await;
            sh("systemctl stop shardless.service").await;
        });
        answer.unwrap();
        assert_eq!(service.property("Result").await, "success");
        assert!(!service.is_active().await);

        // A hard end, with requests in the socket's queue.
        service.answers(ENDPOINT).await;
        assert!(service.is_active().await);
        let main = service.property("MainPID").await;
        let errors = while_it_hangs(&service, async {
            sh("systemctl kill --signal=KILL shardless").await;
        });
        assert_eq!(errors.await, [""; 0]);
        assert_ne!(service.property("MainPID").await, main);
        assert_eq!(service.property("NRestarts").await, "1");
    });
}

#[test]
fn the_watchdog_ends_what_hangs_and_leaves_what_is_well() {
    on_a_machine(the_watchdog_ends_what_hangs_and_leaves_what_is_well, async || {
        let service = Service::install(Handler::start().await).await;
        let interval = Duration::from_secs(2);
        Service::edit("shardless.service", &format!("[Service]\nWatchdogSec={}\n", interval.as_secs())).await;
        sh("systemctl start shardless").await;
        service.answers(ENDPOINT).await;
        // Nobody asks it anything, and it goes on to say that it is well: the one time when time itself is waited for.
        tokio::time::sleep(3 * interval).await;
        assert_eq!(service.property("NRestarts").await, "0");
        let main = service.property("MainPID").await;

        let start = Instant::now();
        assert_eq!(while_it_hangs(&service, async {}).await, [""; 0]);
        println!("hanging, it was started again, and all was answered, after {:.1?}", start.elapsed());
        assert_ne!(service.property("MainPID").await, main);
        assert_eq!(service.property("NRestarts").await, "1");
        let log = sh("journalctl --output=cat --unit=shardless").await;
        assert!(log.contains("Watchdog timeout"), "{log}");
    });
}

/// Stops the daemon's process as it is, sends requests, which wait in the socket, and does `then`. Gives the errors.
async fn while_it_hangs(service: &Service, then: impl Future<Output = ()>) -> Vec<String> {
    const AT_ONCE: usize = 20;
    sh("systemctl kill --signal=STOP --kill-whom=main shardless").await;
    // Without connections that the daemon has taken: those go with it.
    let discord = service.discord.anew();
    let interactions: Vec<_> = (0..AT_ONCE).map(|n| discord.command(&format!("№{n}"))).collect();
    let answers = join_all(interactions.iter().map(|interaction| discord.try_ask(ENDPOINT, interaction)));
    let all_wait = async || {
        let queue = sh("ss --no-header --listening --tcp --numeric src 127.0.0.1:3000").await;
        queue.split_whitespace().nth(1) == Some(&AT_ONCE.to_string())
    };
    let (answers, ()) = tokio::join!(answers, async {
        until("all requests wait in the socket", all_wait).await;
        then.await;
    });
    answers.into_iter().filter_map(Result::err).collect()
}

#[test]
fn a_port_that_the_socket_does_not_have_is_served_too_with_a_warning() {
    on_a_machine(a_port_that_the_socket_does_not_have_is_served_too_with_a_warning, async || {
        let service = Service::install(Handler::start().await).await;
        sh("systemctl start shardless").await;
        service.configure(&service.config("port = 4000")).await;
        sh("systemctl reload shardless").await;
        // Ports are not changed while it runs, and it says so.
        let log = async |part: &str| {
            until(&format!("the log says {part:?}"), async || journal("shardless").await.contains(part))
                .await;
        };
        log("restart").await;
        service.answers(ENDPOINT).await;
        sh("systemctl restart shardless").await;
        log("systemctl edit shardless.socket").await;
        for port in ["3000", "4000"] {
            service.answers(&ENDPOINT.replace("3000", port)).await;
        }

        // As the unit itself tells how to go on.
        Service::edit(
            "shardless.socket",
            "[Socket]\nListenStream=\nListenStream=127.0.0.1:4000\nListenStream=[::1]:4000\n",
        )
        .await;
        sh("systemctl stop shardless.socket shardless.service && systemctl start shardless.socket shardless.service")
            .await;
        service.answers(&ENDPOINT.replace("3000", "4000")).await;
        assert!(!is_served(&service.discord, ENDPOINT).await);
        let log = journal_since_start("shardless").await;
        assert!(!log.contains("systemctl edit shardless.socket"), "{log}");
    });
}

#[test]
fn without_ipv6_it_starts_all_the_same() {
    on_a_machine(without_ipv6_it_starts_all_the_same, async || {
        sh("echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6").await;
        assert!(TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err());
        let service = Service::install(Handler::start().await).await;
        sh("systemctl start shardless").await;
        service.answers(ENDPOINT).await;
        sh("systemctl restart shardless").await;
        service.answers(ENDPOINT).await;
        assert_eq!(sh("systemctl --failed --no-legend").await, "");
        let warnings =
            sh("journalctl --output=cat --priority=warning --unit=shardless --unit=shardless.socket").await;
        assert_eq!(warnings, "");
    });
}
