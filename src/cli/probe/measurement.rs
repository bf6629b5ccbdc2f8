//! What is measured: how far apart the clocks are, and how long an answer takes.

use std::time::{Duration, UNIX_EPOCH};

use http::{StatusCode, header};

use super::client::{Answer, Client, Request};
use super::judgement::Judgement;
use super::report::{Finding, duration};
use crate::discord::RESPONSE_DEADLINE;

/// Forgeries that the speed is measured with.
const ROUNDS: usize = 5;
/// No further one is sent once they took as long as this.
const ROUNDS_TIME: Duration = Duration::from_secs(6);
/// Slower is too near to Discord's deadline.
const SLOW: Duration = Duration::from_secs(1);
/// Seconds that a clock may be off; the daemon's window for timestamps is 5 minutes.
const APART: u64 = 60;

const SET_CLOCKS: &str = "One of the two is wrong: look at both with timedatectl, and let NTP set them (timedatectl \
                          set-ntp true). shardless refuses Discord's requests once its clock is 5 minutes off.";

/// The server's clock beside this machine's; nothing where the server does not tell the time.
pub(super) fn clock(answer: &Answer, judgement: &Judgement) -> Option<Finding> {
    let date = answer.headers.get(header::DATE).and_then(|value| value.to_str().ok());
    let date = date.and_then(|text| httpdate::parse_http_date(text).ok());
    let told = date.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).map(|time| time.as_secs());
    let own = answer.unix_time.as_secs();
    let apart = told.map(|told| (told.abs_diff(own), if told < own { "behind" } else { "ahead of" }));
    let off = |seconds, way| format!("the server's clock is {seconds} s {way} this machine's");
    match apart {
        _ if judgement.refuses_timestamp() => {
            let text = "the timestamp of now is too far from now for shardless";
            let off = match apart {
                Some((seconds, way)) if seconds > APART => format!("{text}: {}", off(seconds, way)),
                _ => text.to_owned(),
            };
            Some(Finding::bad(off, SET_CLOCKS))
        }
        Some((seconds, way)) if seconds > APART => Some(Finding::warning(off(seconds, way), SET_CLOCKS)),
        Some(_) => Some(Finding::good("the server's and this machine's agree")),
        None => None,
    }
}

/// Several requests in a row.
pub(super) struct Rounds {
    times: Vec<Duration>,
    /// What came once where 401 was due; nothing for no answer.
    other: Option<Option<StatusCode>>,
}

impl Rounds {
    pub(super) async fn run(client: &Client) -> Self {
        let mut rounds = Self { times: Vec::new(), other: None };
        while rounds.times.len() < ROUNDS && rounds.times.iter().sum::<Duration>() < ROUNDS_TIME {
            match client.post(Request::Forged).await {
                Ok(answer) if answer.status == StatusCode::UNAUTHORIZED => rounds.times.push(answer.elapsed),
                Ok(answer) => rounds.other = Some(Some(answer.status)),
                Err(_) => rounds.other = Some(None),
            }
            if rounds.other.is_some() {
                break;
            }
        }
        rounds.times.sort_unstable();
        rounds
    }

    pub(super) fn finding(&self, first: Duration) -> Finding {
        if let Some(other) = self.other {
            let what = other.map_or("no answer".to_owned(), |status| status.to_string());
            return Finding::warning(
                format!("of some requests in a row, one got {what}"),
                "A rate limit, or a server that fails now and then? Discord's requests come in bursts, and all from few \
                 addresses: take limits off for this path, since shardless has its own.",
            );
        }
        let median = self.times.get(self.times.len() / 2).copied().unwrap_or(first);
        if median > RESPONSE_DEADLINE {
            return too_slow(median);
        }
        let text = format!(
            "{} (median of {}), the first with connecting {}",
            duration(median),
            self.times.len(),
            duration(first)
        );
        if median > SLOW || first > SLOW {
            return Finding::warning(
                text,
                "Discord gives up 3 s after sending, and your bot needs its part of that: is the server overloaded, or \
                 far away from here?",
            );
        }
        Finding::good(text)
    }
}

/// An answer that Discord would not wait for.
pub(super) fn too_slow(time: Duration) -> Finding {
    Finding::bad(
        format!("{} for an answer; Discord gives up after 3 s", duration(time)),
        "shardless itself refuses a forgery at once: is the server overloaded, or does the proxy wait for something \
         before it passes requests on?",
    )
}
