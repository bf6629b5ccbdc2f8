//! Whether all is as it should be: one check a part.

mod traffic;

use std::time::Duration;

use serde::Serialize;

use super::Sources;
use super::situation::{Certificate, ConfigFile, Facts, Phase};
use crate::activity::View;
use crate::outbox::Health;

const DAY: u64 = 24 * 60 * 60;

/// So much of a limit may be taken, in percent, before somebody should know.
const MUCH: u128 = 90;

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
    /// There is nothing to judge by.
    Idle,
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
    checks.push(traffic::handlers(&sources.gateway.snapshot()));
    let seen =
        |view: View<'_>| [traffic::answers(&view), traffic::endpoint(&view), traffic::discord_api(&view)];
    checks.extend(sources.activity.look(seen).into_iter().flatten());
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
        Phase::Serving if facts.stuck_threads > 0 => {
            format!("serving, but {} of its threads are stuck: a bug, please report it", facts.stuck_threads)
        }
        Phase::Serving => format!("serving for {}", roughly(now.saturating_sub(facts.started))),
        Phase::Draining => "stopping: finishing what is in flight".to_owned(),
    };
    check("serving", facts.phase == Phase::Serving && facts.stuck_threads == 0, text)
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
        _ if now >= served.renew_from => format!("the certificate in {file} ends in {days} days: renew it"),
        _ => format!("the certificate in {file} holds for {days} days"),
    };
    check("certificate", now < served.renew_from, text)
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
        let served = Certificate { file: "/cert.pem".into(), expires: 100 * day, renew_from: 87 * day };
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
        situation.has_stuck_threads(2);
        assert_eq!(word(), "degraded");
        situation.has_stuck_threads(0);
        assert_eq!(word(), "ok");
        situation.enter(Phase::Draining);
        situation.enter(Phase::Serving);
        assert_eq!(word(), "draining");
    }
}
