//! Whether all is as it should be: one check a part.

use std::time::Duration;

use serde::Serialize;

use super::Sources;
use super::situation::{Certificate, ConfigFile, Facts, Phase};
use crate::activity::{Column, Outcome, View};
use crate::gateway::Snapshot;
use crate::outbox::Health;

/// A certificate that ends sooner is to be renewed now.
const ENDS_SOON: Duration = Duration::from_secs(14 * DAY);

const DAY: u64 = 24 * 60 * 60;

/// So much of a limit may be taken, in percent, before somebody should know.
const MUCH: u128 = 90;

/// Requests with a wrong signature, without a single good one among them, that are no accident.
const FORGED: u32 = 10;

/// Requests to Discord in vain, one after the other, that are no accident.
const IN_VAIN: u32 = 3;

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Check {
    /// A word for it.
    pub(super) name: &'static str,
    /// What it is about: `discord`, `proxy`, `daemon` or `handlers`.
    pub(super) part: &'static str,
    /// How it is.
    pub(super) status: Status,
    /// The same, for people.
    pub(super) text: String,
}

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    /// As it should be.
    Ok,
    /// Requests are served, but not all that well, or not for long.
    Degraded,
}

/// A limit, and what is taken of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    /// Its key in `[limits]`.
    pub(super) name: &'static str,
    /// Units that are taken.
    pub(super) taken: usize,
    /// Units that there are.
    pub(super) limit: usize,
}

/// All checks, as they are now.
pub(super) fn checks(sources: &Sources) -> Vec<Check> {
    let facts = sources.situation.facts();
    let now = sources.clock.unix_time();
    let mut checks = vec![
        serving(&facts, now),
        config(&facts.config),
        outbox(sources.outbox.health()),
        capacity(&limits(sources)),
    ];
    checks.extend(facts.certificate.as_ref().map(|served| certificate(served, now)));
    checks.push(handlers(&sources.gateway.snapshot()));
    checks.extend(
        sources
            .activity
            .look(|view| [endpoint(&Recent::of(&view)), discord_api(view.in_vain())])
            .into_iter()
            .flatten(),
    );
    checks
}

/// All of it in a word.
pub(super) fn status(phase: Phase, checks: &[Check]) -> &'static str {
    match phase {
        Phase::Starting | Phase::Draining => phase.as_str(),
        Phase::Serving if checks.iter().any(|check| check.status == Status::Degraded) => "degraded",
        Phase::Serving => "ok",
    }
}

/// The limits that all share.
pub(super) fn limits(sources: &Sources) -> [Limit; 4] {
    let snapshot = sources.gateway.snapshot();
    let bounds = snapshot.bounds();
    let limit =
        |name, budget: &crate::budget::Budget| Limit { name, taken: budget.used(), limit: budget.limit() };
    // Of its budget, the accept loop has one for the connection that may come next.
    let open = sources.metrics.connections.get();
    let connections =
        Limit { taken: open.try_into().unwrap_or_default(), ..limit("connections", &bounds.connections) };
    [
        connections,
        limit("in_flight", &bounds.in_flight),
        limit("deferred", &bounds.deferred),
        limit("buffered", &bounds.buffered),
    ]
}

fn check(name: &'static str, is_ok: bool, text: String) -> Check {
    let status = if is_ok { Status::Ok } else { Status::Degraded };
    Check { name, part: "daemon", status, text }
}

fn serving(facts: &Facts, now: Duration) -> Check {
    let text = match facts.phase {
        Phase::Starting => "starting: nothing is accepted yet".to_owned(),
        Phase::Serving => format!("serving for {}", roughly(now.saturating_sub(facts.started))),
        Phase::Draining => "stopping: finishing what is in flight".to_owned(),
    };
    check("serving", facts.phase == Phase::Serving, text)
}

fn config(config: &ConfigFile) -> Check {
    let text = match &config.error {
        Some(error) => format!("the last reload failed, an earlier config is in force: {}", error.brief),
        None => "the config that was read last is in force".to_owned(),
    };
    check("config", config.error.is_none(), text)
}

fn outbox(health: Health) -> Check {
    let is_durable = health == Health::Durable;
    let text = match health {
        Health::Durable => "deferred interactions are on disk".to_owned(),
        Health::Unheld => "the folder for state is not held (another process has it, or there is none): \
                           a crash loses what is deferred"
            .to_owned(),
        Health::Degraded(why) => format!("a crash loses what is deferred now: {why}"),
    };
    check("outbox", is_durable, text)
}

fn capacity(limits: &[Limit]) -> Check {
    let is_near = |limit: &&Limit| limit.taken as u128 * 100 >= limit.limit as u128 * MUCH;
    let near: Vec<_> = limits
        .iter()
        .filter(is_near)
        .map(|limit| format!("limits.{}: {} of {} are taken", limit.name, limit.taken, limit.limit))
        .collect();
    let text =
        if near.is_empty() { format!("less than {MUCH} % of each limit is taken") } else { near.join("; ") };
    check("capacity", near.is_empty(), text)
}

fn certificate(served: &Certificate, now: Duration) -> Check {
    let left = served.expires.saturating_sub(now);
    let (file, days) = (served.file.display(), left.as_secs() / DAY);
    let text = match left {
        Duration::ZERO => format!("the certificate in {file} has expired: clients refuse it"),
        _ if left < ENDS_SOON => format!("the certificate in {file} ends in {days} days: renew it"),
        _ => format!("the certificate in {file} holds for {days} days"),
    };
    check("certificate", left >= ENDS_SOON, text)
}

fn handlers(snapshot: &Snapshot) -> Check {
    let mut troubles = Vec::new();
    for (handler, _) in snapshot.handlers() {
        for replica in handler.replicas() {
            if replica.state.is_in_trouble() {
                troubles.push(format!("{}: {}", replica.url, replica.state));
            }
        }
    }
    let text = match &troubles[..] {
        [] => "no handler is known to be in trouble".to_owned(),
        [one] => one.clone(),
        [first, others @ ..] => format!("{first} (and {} more)", others.len()),
    };
    Check { part: "handlers", ..check("handlers", troubles.is_empty(), text) }
}

/// What came in the last five minutes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Recent {
    verified: u32,
    forged: u32,
    refused: u32,
}

impl Recent {
    fn of(view: &View<'_>) -> Self {
        let slots = view.charts(None).and_then(|charts| charts.spans().first());
        let slots = slots.into_iter().flat_map(|span| span.seen_from(view.now));
        slots.fold(Self::default(), |sum, slot| {
            let verified: u32 =
                Outcome::ALL.into_iter().map(|outcome| slot.of(Column::Outcome(outcome))).sum();
            Self {
                verified: sum.verified + verified,
                forged: sum.forged + slot.of(Column::Forged),
                refused: sum.refused + slot.of(Column::Refused),
            }
        })
    }
}

/// Whether what comes through the proxy is what Discord sent.
fn endpoint(recent: &Recent) -> Check {
    let Recent { verified, forged, refused } = *recent;
    // Discord forges a few itself, and each time sends a PING besides that is sound.
    let is_ok = verified > 0 || forged < FORGED;
    let text = if is_ok {
        format!("in the last 5 minutes: {verified} verified, {forged} forged, {refused} otherwise refused")
    } else {
        format!(
            "in the last 5 minutes {forged} requests came, and the signature of none holds: is `public_key` that of the \
             application, and does the proxy pass the body on as it is?"
        )
    };
    Check { part: "proxy", ..check("endpoint", is_ok, text) }
}

/// Whether Discord answers when it is told of late answers.
fn discord_api(in_vain: u32) -> Check {
    let text = match in_vain {
        0 => "no request to Discord's API was in vain of late".to_owned(),
        _ => format!(
            "the last {in_vain} requests to Discord's API were in vain: it is in trouble, or cannot be reached"
        ),
    };
    Check { part: "discord", ..check("discord_api", in_vain < IN_VAIN, text) }
}

/// A time without what nobody asks for.
fn roughly(time: Duration) -> humantime::FormattedDuration {
    let seconds = time.as_secs();
    let unit = match seconds {
        0..3600 => 1,
        3600..DAY => 60,
        _ => 3600,
    };
    humantime::format_duration(Duration::from_secs(seconds - seconds % unit))
}

#[cfg(test)]
mod tests {
    use super::super::situation::{ReloadFailure, Situation};
    use super::*;

    #[test]
    fn a_limit_is_near_from_nine_tenths_on() {
        let at = |taken| {
            let limit = |name, taken| Limit { name, taken, limit: 2048 };
            capacity(&[limit("connections", 0), limit("in_flight", taken)])
        };
        assert_eq!(at(1843).status, Status::Ok);
        let near = at(1844);
        assert_eq!(near.status, Status::Degraded);
        assert_eq!(near.text, "limits.in_flight: 1844 of 2048 are taken");
        let all = [Limit { name: "buffered", taken: usize::MAX, limit: usize::MAX }];
        assert_eq!(capacity(&all).status, Status::Degraded);
    }

    #[test]
    fn a_certificate_is_told_of_two_weeks_before_its_end() {
        let day = Duration::from_secs(DAY);
        let served = Certificate { file: "/cert.pem".into(), expires: 100 * day };
        let after = |days: u32| certificate(&served, days * day);
        assert_eq!((after(86).status, after(87).status), (Status::Ok, Status::Degraded));
        assert!(after(86).text.contains("holds for 14 days"), "{}", after(86).text);
        assert!(after(99).text.contains("ends in 1 days"), "{}", after(99).text);
        for over in [100, 200] {
            assert!(after(over).text.contains("/cert.pem has expired"), "{}", after(over).text);
            assert_eq!(after(over).status, Status::Degraded);
        }
    }

    #[test]
    fn a_wrong_key_is_told_from_a_few_forgeries() {
        let status = |verified, forged| endpoint(&Recent { verified, forged, refused: 0 }).status;
        assert_eq!(status(0, 9), Status::Ok, "Discord tries whether forgeries are refused");
        assert_eq!(status(0, 10), Status::Degraded);
        assert_eq!(status(1, 1000), Status::Ok, "a stranger's flood is no trouble of the endpoint's");
        assert_eq!((discord_api(2).status, discord_api(3).status), (Status::Ok, Status::Degraded));
    }

    #[test]
    fn a_disk_that_fails_is_told_of_with_its_reason() {
        assert_eq!(outbox(Health::Durable).status, Status::Ok);
        let failing = outbox(Health::Degraded("no space left".to_owned()));
        assert!(failing.status == Status::Degraded && failing.text.contains("no space left"));
        assert_eq!(outbox(Health::Unheld).status, Status::Degraded);
    }

    #[test]
    fn a_reload_that_failed_is_told_of_until_one_succeeds() {
        let situation = Situation::new(Duration::ZERO, Vec::new());
        let now = Duration::from_secs(5);
        let (brief, text) = ("config.toml:1: this is not TOML".to_owned(), String::new());
        situation.not_loaded(ReloadFailure { time: now, brief: brief.clone(), text });
        let failed = config(&situation.facts().config);
        assert!(failed.status == Status::Degraded && failed.text.contains(&brief), "{failed:?}");
        assert_eq!(situation.facts().config.loaded, Duration::ZERO);
        situation.loaded(now);
        assert_eq!(config(&situation.facts().config).status, Status::Ok);
        assert_eq!(situation.facts().config.loaded, now);
    }

    #[test]
    fn a_daemon_that_stops_never_serves_again() {
        let situation = Situation::new(Duration::ZERO, Vec::new());
        let word = || {
            let facts = situation.facts();
            status(facts.phase, &[serving(&facts, Duration::from_secs(90 * 60 + 1))])
        };
        assert_eq!(word(), "starting");
        situation.enter(Phase::Serving);
        assert_eq!(word(), "ok");
        let text = serving(&situation.facts(), Duration::from_secs(90 * 60 + 1)).text;
        assert_eq!(text, "serving for 1h 30m");
        situation.enter(Phase::Draining);
        situation.enter(Phase::Serving);
        assert_eq!(word(), "draining");
    }
}
