//! What traffic says of those around the daemon: the proxy before it, the handlers behind it, Discord's API.

use std::collections::BTreeMap;

use super::{Check, Status};
use crate::activity::{Charts, Column, Outcome, View};
use crate::gateway::Snapshot;

/// Requests of a kind that are no accident where not a single good one is among them.
const MANY: u64 = 10;

/// Connections of a kind that are no accident, likewise.
const SOME: u64 = 3;

/// Interactions that failed, from which on it may be the handler's fault rather than theirs.
const FAILED: u64 = 5;

/// So large a part of an application's interactions, in percent, may fail.
const PART: u64 = 20;

/// Requests to Discord in vain, one after the other, that are no accident.
const IN_VAIN: u32 = 3;

/// Whether the handlers can be reached, and do not fail again and again.
pub(super) fn handlers(snapshot: &Snapshot) -> Check {
    let mut troubles = Vec::new();
    for (handler, _) in snapshot.handlers() {
        let in_trouble = handler.replicas().filter(|replica| replica.state.is_in_trouble());
        troubles.extend(in_trouble.map(|replica| format!("{}: {}", replica.url, replica.state)));
    }
    let text = in_short(&troubles).unwrap_or_else(|| "no handler is known to be in trouble".to_owned());
    check("handlers", "handlers", !troubles.is_empty(), text)
}

/// Whether interactions get their answers.
pub(super) fn answers(view: &View<'_>) -> Check {
    let of_all = view.charts(None).map(|charts| ("all applications together", charts));
    let mut troubles: Vec<_> = view.apps_with_charts().collect();
    troubles.sort_by_key(|(name, _)| *name);
    let troubles: Vec<_> = troubles
        .into_iter()
        .chain(of_all)
        .filter_map(|(name, charts)| {
            let (failed, all) = failed(charts, view.now);
            let is_trouble = failed >= FAILED && failed * 100 >= all * PART;
            is_trouble.then(|| format!("{name}: {failed} of {all} interactions failed in the last 5 minutes"))
        })
        .collect();
    let text = in_short(&troubles).unwrap_or_else(|| "interactions get their answers".to_owned());
    check("answers", "handlers", !troubles.is_empty(), text)
}

/// Of the last five minutes: how many handlers gave no answer to, and how many they were to.
fn failed(charts: &Charts, now: u64) -> (u64, u64) {
    let of = |outcome| charts.recently(Column::Outcome(outcome), now);
    let failed = of(Outcome::Failed) + of(Outcome::Late);
    let others = [Outcome::Answered, Outcome::HandlerAnswersItself, Outcome::Deferred].map(of);
    (failed, failed + others.iter().sum::<u64>())
}

/// Whether what comes through the proxy is what Discord sent.
pub(super) fn endpoint(view: &View<'_>) -> Check {
    let verified = view.charts(None).map_or(0, |charts| {
        Outcome::ALL.into_iter().map(|outcome| charts.recently(Column::Outcome(outcome), view.now)).sum()
    });
    judge_endpoint(verified, &view.recently_turned_away())
}

fn judge_endpoint(verified: u64, turned_away: &BTreeMap<&'static str, u64>) -> Check {
    let of = |reason: &str| turned_away.get(reason).copied().unwrap_or_default();
    let all: u64 = turned_away.values().sum();
    let trouble = if verified > 0 {
        None
    } else if of("bad_signature") >= MANY {
        // Discord sends a few itself, and each time a PING besides that is sound.
        Some(
            "is `public_key` the one of this application, and does the proxy pass the body on as it is? \
             No signature holds",
        )
    } else if of("timestamp") >= MANY {
        Some("is this machine's clock right (timedatectl)? The time of no request is near")
    } else if of("tls_on_plain_port") >= SOME {
        Some("the proxy speaks TLS to a port of plain HTTP: let it use http://, or set [tls]")
    } else if of("http_on_tls_port") >= SOME {
        Some("the proxy speaks plain HTTP to a port of TLS: let it use https://, or remove [tls]")
    } else if of("handshake") + of("slow_handshake") >= SOME {
        Some("does the proxy trust the certificate that is served now? No TLS handshake succeeds")
    } else if of("media_type") + of("framing") + of("malformed_http") >= MANY {
        Some("does the proxy pass requests on as they come? None is sound")
    } else {
        None
    };
    let counts = format!("in the last 5 minutes {verified} verified, {all} turned away");
    match trouble {
        Some(trouble) => check("endpoint", "proxy", true, format!("{trouble} ({counts})")),
        None if verified == 0 => idle("endpoint", "proxy", format!("nothing of Discord's came: {counts}")),
        None => check("endpoint", "proxy", false, counts),
    }
}

/// Whether Discord answers when it is told of late answers.
pub(super) fn discord_api(view: &View<'_>) -> Check {
    judge_discord(view.in_vain_lately())
}

fn judge_discord(in_vain: Option<u32>) -> Check {
    const NAME: &str = "discord_api";
    match in_vain {
        None => idle(NAME, "discord", "its REST API was not needed in the last 5 minutes".to_owned()),
        Some(in_vain) if in_vain >= IN_VAIN => {
            let text = format!(
                "the last {in_vain} requests to its REST API were in vain: it is in trouble, or cannot be reached"
            );
            check(NAME, "discord", true, text)
        }
        Some(_) => check(NAME, "discord", false, "its REST API answers".to_owned()),
    }
}

fn check(name: &'static str, part: &'static str, is_trouble: bool, text: String) -> Check {
    let status = if is_trouble { Status::Degraded } else { Status::Ok };
    Check { name, part, status, text }
}

fn idle(name: &'static str, part: &'static str, text: String) -> Check {
    Check { name, part, status: Status::Idle, text }
}

fn in_short(troubles: &[String]) -> Option<String> {
    match troubles {
        [] => None,
        [one] => Some(one.clone()),
        [first, others @ ..] => Some(format!("{first} (and {} more)", others.len())),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::a_few_of_discords_own(0, &[("bad_signature", 9)], Status::Idle, "nothing of Discord's")]
    #[case::wrong_key(0, &[("bad_signature", 10)], Status::Degraded, "`public_key`")]
    #[case::a_strangers_flood(1, &[("bad_signature", 1000)], Status::Ok, "1 verified, 1000 turned away")]
    #[case::wrong_clock(0, &[("timestamp", 10)], Status::Degraded, "clock")]
    #[case::scanners(0, &[("unknown_path", 500), ("signature_headers", 50)], Status::Idle, "550 turned away")]
    #[case::proxy_with_tls(0, &[("tls_on_plain_port", 3)], Status::Degraded, "http://")]
    #[case::proxy_without_tls(0, &[("http_on_tls_port", 3)], Status::Degraded, "https://")]
    #[case::another_certificate(0, &[("handshake", 3)], Status::Degraded, "trust")]
    #[case::a_proxy_that_changes_things(0, &[("media_type", 6), ("framing", 4)], Status::Degraded, "as they come")]
    fn what_comes_tells_of_the_proxy(
        #[case] verified: u64,
        #[case] turned_away: &[(&'static str, u64)],
        #[case] status: Status,
        #[case] words: &str,
    ) {
        let check = judge_endpoint(verified, &turned_away.iter().copied().collect());
        assert_eq!(check.status, status);
        assert!(check.text.contains(words), "{}", check.text);
    }

    #[test]
    fn discord_is_in_trouble_once_a_few_requests_in_a_row_were_in_vain() {
        let status = |in_vain| judge_discord(in_vain).status;
        assert_eq!(
            [status(None), status(Some(0)), status(Some(2)), status(Some(3))],
            [Status::Idle, Status::Ok, Status::Ok, Status::Degraded]
        );
    }
}
