//! What is counted, in one struct, one field a metric.
//!
//! Labels are names from the config and words from this code; nothing from the outside becomes one.

use std::sync::Arc;

use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::encoding::{EncodeLabelSet, LabelSetEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Bounds of the time buckets, in seconds; fine where the three-second deadline is near.
const SECONDS: [f64; 16] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 2.2, 2.5, 3.0, 10.0];

/// Bounds of the buckets of what is left of Discord's three seconds; the first one counts what came too late.
const MARGIN_SECONDS: [f64; 10] = [0.0, 0.1, 0.2, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 2.9];

/// Bounds of the buckets of late answers' times, in seconds, up to a token's end.
const LATE_SECONDS: [f64; 10] = [2.5, 3.0, 4.0, 6.0, 10.0, 30.0, 60.0, 180.0, 600.0, 900.0];

/// Bounds of the buckets of verification times, in seconds.
const VERIFICATION_SECONDS: [f64; 6] = [0.000_02, 0.000_05, 0.000_1, 0.000_25, 0.001, 0.01];

/// The labels of [`Metrics::interactions`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Interaction {
    /// The application's name in the config.
    pub app: Arc<str>,
    /// A word for the interaction's kind.
    pub kind: &'static str,
    /// A word for what became of it.
    pub outcome: &'static str,
}

impl EncodeLabelSet for Interaction {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), std::fmt::Error> {
        [("app", &*self.app), ("kind", self.kind), ("outcome", self.outcome)].encode(encoder)
    }
}

/// The label of [`Metrics::refusals`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Reason {
    /// A word for why.
    pub reason: &'static str,
}

/// The labels of [`Metrics::deferrals`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Deferral {
    /// The application's name in the config.
    pub app: Arc<str>,
    /// Whether its record was on disk by then: `yes` or `no`.
    pub durable: &'static str,
}

impl EncodeLabelSet for Deferral {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), std::fmt::Error> {
        [("app", &*self.app), ("durable", self.durable)].encode(encoder)
    }
}

/// The labels of [`Metrics::late_answers`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LateAnswer {
    /// The application's name in the config.
    pub app: Arc<str>,
    /// A word for what became of it.
    pub result: &'static str,
}

impl EncodeLabelSet for LateAnswer {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), std::fmt::Error> {
        [("app", &*self.app), ("result", self.result)].encode(encoder)
    }
}

/// The labels of [`Metrics::discord_requests`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DiscordRequest {
    /// The answer's HTTP status, as one of few words; `none` where there was no answer.
    pub status: &'static str,
    /// A word for what it meant.
    pub outcome: &'static str,
}

/// The label of [`Metrics::reloads`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Outcome {
    /// A word for what became of it.
    pub outcome: &'static str,
}

/// The label of the times of an application.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct App(pub Arc<str>);

impl EncodeLabelSet for App {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), std::fmt::Error> {
        [("app", &*self.0)].encode(encoder)
    }
}

/// All metrics of one daemon.
pub struct Metrics {
    registry: Registry,
    /// Verified interactions, by what became of them.
    pub interactions: Family<Interaction, Counter>,
    /// Requests that were refused before anything was forwarded, by reason.
    pub refusals: Family<Reason, Counter>,
    /// From a request's first byte to its answer.
    pub answer_seconds: Family<App, Histogram, fn() -> Histogram>,
    /// What was left of Discord's three seconds when the answer was there; nothing where it came too late.
    pub deadline_margin_seconds: Family<App, Histogram, fn() -> Histogram>,
    /// From forwarding a request to the end of the handler's answer.
    pub handler_seconds: Family<App, Histogram, fn() -> Histogram>,
    /// Verifying one signature.
    pub verification_seconds: Histogram,
    /// Calls that a handler is working on, those past their deadline included.
    pub calls_in_flight: Gauge,
    /// Connections open now.
    pub connections: Gauge,
    /// Connections ended for what the peer did or failed to do, by reason.
    pub connection_faults: Family<Reason, Counter>,
    /// Connections that could not be accepted.
    pub accept_errors: Counter,
    /// Interaction ids that the replay guard had to forget too early, for want of room.
    pub replay_forgotten: Counter,
    /// Deferrals that Discord was sent.
    pub deferrals: Family<Deferral, Counter>,
    /// Ends of deferred interactions, by what became of them.
    pub late_answers: Family<LateAnswer, Counter>,
    /// From a deferred interaction's arrival to its end.
    pub late_answer_seconds: Family<App, Histogram, fn() -> Histogram>,
    /// Requests to Discord's REST API, by what came of them.
    pub discord_requests: Family<DiscordRequest, Counter>,
    /// Deferred interactions that have not come to their end yet.
    pub outbox_entries: Gauge,
    /// Whether entries should be on disk, but the disk fails or is slow: 1 or 0.
    pub outbox_degraded: Gauge,
    /// Deferred interactions in the store that did not go on as they were at a start, by why: their token was over, or
    /// they were damaged.
    pub outbox_lost: Family<Reason, Counter>,
    /// Times that the config file was read anew, by what became of it.
    pub reloads: Family<Outcome, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("shardless"),
            interactions: Family::default(),
            refusals: Family::default(),
            answer_seconds: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            deadline_margin_seconds: Family::new_with_constructor(|| Histogram::new(MARGIN_SECONDS)),
            handler_seconds: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            verification_seconds: Histogram::new(VERIFICATION_SECONDS),
            calls_in_flight: Gauge::default(),
            connections: Gauge::default(),
            connection_faults: Family::default(),
            accept_errors: Counter::default(),
            replay_forgotten: Counter::default(),
            deferrals: Family::default(),
            late_answers: Family::default(),
            late_answer_seconds: Family::new_with_constructor(|| Histogram::new(LATE_SECONDS)),
            discord_requests: Family::default(),
            outbox_entries: Gauge::default(),
            outbox_degraded: Gauge::default(),
            outbox_lost: Family::default(),
            reloads: Family::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("interactions", "Verified interactions by outcome", self.interactions.clone());
        registry.register("refusals", "Requests refused before forwarding", self.refusals.clone());
        let help = "First byte to answer";
        registry.register_with_unit("answer", help, Unit::Seconds, self.answer_seconds.clone());
        let help = "What was left of Discord's 3 s";
        registry.register_with_unit(
            "deadline_margin",
            help,
            Unit::Seconds,
            self.deadline_margin_seconds.clone(),
        );
        let help = "Forwarding to the end of the handler's answer";
        registry.register_with_unit("handler", help, Unit::Seconds, self.handler_seconds.clone());
        let help = "Verifying one signature";
        registry.register_with_unit("verification", help, Unit::Seconds, self.verification_seconds.clone());
        registry.register("calls_in_flight", "Calls a handler is working on", self.calls_in_flight.clone());
        registry.register("connections", "Connections open now", self.connections.clone());
        registry.register(
            "connection_faults",
            "Connections ended by a fault",
            self.connection_faults.clone(),
        );
        registry.register(
            "accept_errors",
            "Connections that could not be accepted",
            self.accept_errors.clone(),
        );
        registry.register(
            "replay_forgotten",
            "Ids forgotten for want of room; others as old are refused",
            self.replay_forgotten.clone(),
        );
        registry.register("deferrals", "Deferrals by whether they were on disk", self.deferrals.clone());
        registry.register("late_answers", "Ends of deferred interactions", self.late_answers.clone());
        let help = "Arrival of a deferred interaction to its end";
        registry.register_with_unit("late_answer", help, Unit::Seconds, self.late_answer_seconds.clone());
        let help = "Requests to Discord's REST API by outcome";
        registry.register("discord_requests", help, self.discord_requests.clone());
        registry.register(
            "outbox_entries",
            "Deferred interactions not ended yet",
            self.outbox_entries.clone(),
        );
        registry.register(
            "outbox_degraded",
            "Whether the outbox's disk fails or is slow",
            self.outbox_degraded.clone(),
        );
        registry.register(
            "outbox_lost",
            "Deferred interactions that a start found too late or damaged",
            self.outbox_lost.clone(),
        );
        registry.register("reloads", "Config files read anew", self.reloads.clone());
    }

    /// All of it as OpenMetrics text.
    ///
    /// # Errors
    ///
    /// None that are known: writing to a string does not fail.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        self.encode_with(&[])
    }

    /// The same, and what was found out for this once.
    ///
    /// # Errors
    ///
    /// None that are known: writing to a string does not fail.
    pub fn encode_with(&self, more: &[Registry]) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        for registry in std::iter::once(&self.registry).chain(more) {
            encode_registry(&mut text, registry)?;
        }
        encode_eof(&mut text)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_shown_with_its_labels() {
        let metrics = Metrics::default();
        let labels = Interaction { app: "mybot".into(), kind: "command", outcome: "answered" };
        metrics.interactions.get_or_create(&labels).inc();
        metrics.refusals.get_or_create(&Reason { reason: "bad_signature" }).inc_by(2);
        metrics.answer_seconds.get_or_create(&App("mybot".into())).observe(2.3);
        let text = metrics.encode().unwrap();
        for line in [
            "shardless_interactions_total{app=\"mybot\",kind=\"command\",outcome=\"answered\"} 1",
            "shardless_refusals_total{reason=\"bad_signature\"} 2",
            "shardless_answer_seconds_bucket{le=\"2.5\",app=\"mybot\"} 1",
            "shardless_answer_seconds_bucket{le=\"2.2\",app=\"mybot\"} 0",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
