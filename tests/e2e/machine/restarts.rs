//! The bar: whatever is done to the daemon, every interaction is answered in time.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::service::{ENDPOINT, Service};
use super::{front, on_a_machine, sh};
use crate::daemon::Upstream;
use crate::inside::is_full_speed;
use crate::load::{self, Load, Pace};
use crate::process::until;
use crate::proxies::Proxy;

/// Through both proxies, each on a port of its own.
pub(super) struct Loads {
    loads: Vec<Load>,
}

impl Loads {
    /// Starts them.
    pub(super) fn start(service: &Service, fronts: &[(Proxy, String)], keep_alive: bool) -> Self {
        let rate = if is_full_speed() { 200 } else { 50 };
        let start = |(proxy, url): &(Proxy, String)| {
            let pace = Pace { rate, keep_alive };
            Load::start(&proxy.to_string(), &service.discord, &service.api, url, pace)
        };
        Self { loads: fronts.iter().map(start).collect() }
    }

    /// Does something while calls are in flight, then waits until all goes on.
    pub(super) async fn meet(&self, service: &Service, script: &str) -> Duration {
        join_all(self.loads.iter().map(|load| load.has_a_call_in_flight(&service.handler))).await;
        let start = Instant::now();
        sh(script).await;
        let took = start.elapsed();
        join_all(self.loads.iter().map(Load::goes_on)).await;
        took
    }

    /// Waits for the last answers, and fails if one is missing.
    pub(super) async fn finish(self, service: &Service) {
        let reports = join_all(self.loads.into_iter().map(Load::finish)).await;
        for report in &reports {
            report.require_all_answered();
        }
        let mut ids = service.handler.ids();
        let forwarded = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), forwarded, "some were forwarded twice");
    }
}

#[test]
fn restarts_and_reloads_under_load_cost_no_request() {
    on_a_machine(restarts_and_reloads_under_load_cost_no_request, async || {
        let times = if is_full_speed() { 20 } else { 3 };
        let service = Service::install(load::handler().await).await;
        sh("systemctl start shardless").await;
        let fronts = front::both(&Upstream::plain(3000)).await;
        for keep_alive in [true, false] {
            let loads = Loads::start(&service, &fronts, keep_alive);
            let mut longest = Duration::ZERO;
            for _ in 0..times {
                longest = longest.max(loads.meet(&service, "systemctl restart shardless").await);
            }
            println!("{times} restarts, at most {longest:.2?}");

            let mut longest = Duration::ZERO;
            for n in 0..times {
                let path = format!("/other-{n}");
                service.configure(&(service.config("") + &service.app("other", &path))).await;
                longest = longest.max(loads.meet(&service, "systemctl reload shardless").await);
                let (discord, url) = (&service.discord, ENDPOINT.replace("/interactions", &path));
                let is_served = async || discord.try_ask(&url, &discord.command("new?")).await.is_ok();
                until("the new config holds", is_served).await;
            }
            println!("{times} reloads, at most {longest:.2?}");
            loads.finish(&service).await;
        }
        // Not one that it did by itself.
        assert_eq!(service.property("NRestarts").await, "0");
    });
}
