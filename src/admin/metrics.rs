//! What is found out when somebody asks for the metrics, beside what is counted all the time.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::Sources;
use super::health::{self, Limit, Status};
use super::process::Process;
use super::situation::Facts;
use crate::discord::signature;
use crate::forward::ReplicaState;
use crate::outbox::Tally;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabel {
    limit: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Check {
    check: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Replica {
    handler: String,
    replica: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Certificate {
    certificate: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Build {
    version: &'static str,
    verification: &'static str,
}

/// All of it as OpenMetrics text.
///
/// # Errors
///
/// None that are known: writing to a string does not fail.
pub(super) fn encode(sources: &Sources) -> Result<String, fmt::Error> {
    let facts = sources.situation.facts();
    let mut own = Registry::with_prefix("shardless");
    add_limits(&mut own, sources);
    add_checks(&mut own, sources);
    add_replicas(&mut own, sources);
    add_outbox(&mut own, sources);
    add_facts(&mut own, &facts);
    let mut process = Registry::default();
    add_process(&mut process, &Process::read(), facts.started);
    sources.metrics.encode_with(&[own, process])
}

fn add_limits(registry: &mut Registry, sources: &Sources) {
    let used = Family::<LimitLabel, Gauge<f64, AtomicU64>>::default();
    for Limit { name, taken, limit } in health::limits(sources) {
        let part = taken as f64 / limit.max(1) as f64;
        used.get_or_create(&LimitLabel { limit: name }).set(part);
        if name == "buffered" {
            let help = "Bodies and answers held in memory";
            registry.register_with_unit(name, help, Unit::Bytes, ConstGauge::new(taken as u64));
        }
    }
    registry.register_with_unit("limit_used", "What is taken of it", Unit::Other("ratio".to_owned()), used);
}

fn add_checks(registry: &mut Registry, sources: &Sources) {
    let checks = Family::<Check, Gauge>::default();
    for check in health::checks(sources) {
        let is_ok = check.status != Status::Degraded;
        checks.get_or_create(&Check { check: check.name }).set(is_ok.into());
    }
    registry.register("check_ok", "Whether it is as it should be", checks);
}

fn add_replicas(registry: &mut Registry, sources: &Sources) {
    let (up, in_flight) = (Family::<Replica, Gauge>::default(), Family::<Replica, Gauge>::default());
    let ejections = Family::<Replica, Counter>::default();
    for (handler, _) in sources.gateway.snapshot().handlers() {
        for status in handler.replicas() {
            // Two handlers may have one name, where neither has one of its own: then both count, and the worse is told.
            let label = Replica { handler: handler.name().to_string(), replica: status.url.to_string() };
            let is_up = match status.state {
                ReplicaState::Unknown => None,
                ReplicaState::Up | ReplicaState::Failing { .. } => Some(1),
                ReplicaState::Down { .. } | ReplicaState::LeftOut { .. } => Some(0),
            };
            if let Some(is_up) = is_up {
                let known = up.get(&label).map(|gauge| gauge.get());
                up.get_or_create(&label).set(known.map_or(is_up, |known| known.min(is_up)));
            }
            in_flight.get_or_create(&label).inc_by(status.in_flight.try_into().unwrap_or(i64::MAX));
            ejections.get_or_create(&label).inc_by(status.ejections);
        }
    }
    registry.register("replica_up", "Whether it can be connected to, and is not left out", up);
    registry.register("replica_calls_in_flight", "Its calls that have not ended", in_flight);
    registry.register("replica_ejections", "Times that it was left out", ejections);
}

fn add_outbox(registry: &mut Registry, sources: &Sources) {
    let Tally { undelivered, oldest, oldest_undelivered, .. } = sources.outbox.tally();
    let help = "Deferred interactions whose end is to be brought to Discord";
    registry.register("outbox_undelivered", help, ConstGauge::new(undelivered as u64));
    let ages = [
        ("outbox_oldest_age", "Since the arrival of the oldest deferred interaction", oldest),
        ("outbox_oldest_undelivered_age", "Since it was known what to bring to Discord", oldest_undelivered),
    ];
    for (name, help, age) in ages {
        let seconds = age.unwrap_or_default().as_secs_f64();
        registry.register_with_unit(name, help, Unit::Seconds, ConstGauge::new(seconds));
    }
}

fn add_facts(registry: &mut Registry, facts: &Facts) {
    let gauge = |number: f64| ConstGauge::new(number);
    let is_successful = if facts.config.error.is_none() { 1.0 } else { 0.0 };
    let help = "Whether the config that the file holds was in force when it was last read";
    registry.register("config_last_reload_successful", help, gauge(is_successful));
    let (name, help) = ("config_last_reload_success_timestamp", "When the config in force was read");
    registry.register_with_unit(name, help, Unit::Seconds, gauge(facts.config.loaded.as_secs_f64()));
    if let Some(served) = &facts.certificate {
        let ends = Family::<Certificate, Gauge<f64, AtomicU64>>::default();
        let label = Certificate { certificate: served.file.display().to_string() };
        ends.get_or_create(&label).set(served.expires.as_secs_f64());
        let (name, help) = ("certificate_expiry_timestamp", "When the certificate ends");
        registry.register_with_unit(name, help, Unit::Seconds, ends);
    }
    let build = Build { version: env!("CARGO_PKG_VERSION"), verification: signature::backend() };
    registry.register("build", "What this program is", Info::new(build));
}

/// By the names that dashboards know.
///
/// Source: Prometheus, "Writing client libraries", section "Process metrics".
fn add_process(registry: &mut Registry, process: &Process, started: Duration) {
    if let Some(seconds) = process.cpu_seconds {
        let help = "Time that processors have spent on it";
        registry.register_with_unit("process_cpu", help, Unit::Seconds, ConstCounter::new(seconds));
    }
    let help = "When it was started";
    let started = ConstGauge::new(started.as_secs_f64());
    registry.register_with_unit("process_start_time", help, Unit::Seconds, started);
    let bytes = [
        ("process_resident_memory", "Memory", process.memory),
        ("process_virtual_memory", "Addresses", process.virtual_memory),
    ];
    for (name, help, number) in bytes {
        if let Some(number) = number {
            registry.register_with_unit(name, help, Unit::Bytes, ConstGauge::new(number));
        }
    }
    let counts = [
        ("process_open_fds", "Open descriptors", process.open_files),
        ("process_max_fds", "Descriptors that it may have open", process.max_open_files),
        ("process_threads", "Threads", process.threads),
    ];
    for (name, help, number) in counts {
        if let Some(number) = number {
            registry.register(name, help, ConstGauge::new(number));
        }
    }
}
