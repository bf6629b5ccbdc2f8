//! The status as JSON: what `docs/status.md` describes. Never a token, a body or a signature.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::health::{self, Limit};
use super::process::Process;
use super::{Facts, Sources};
use crate::activity::{Outcome, Row, View};
use crate::budget::Budget;
use crate::config::OnSlow;
use crate::discord::signature;
use crate::forward::{Handler, ReplicaStatus};
use crate::gateway::App;
use crate::outbox::Health;

/// Of the document's shape.
const VERSION: u32 = 1;

/// All of it, with the interactions that are new or have changed since `revision`: with 0, with all that are
/// remembered. And the revision by now.
pub(super) fn document(sources: &Sources, revision: u64) -> (Map<String, Value>, u64) {
    let (facts, snapshot) = (sources.situation.facts(), sources.gateway.snapshot());
    let checks = health::checks(sources);
    // What is taken from under the lock is copied, and made into text after it.
    let seen = sources.activity.look(|view| Seen {
        totals: snapshot.apps().iter().map(|(_, app)| totals(&view, app)).collect(),
        refusals: json!(view.refusals()),
        faults: json!(view.faults()),
        ends: json!(view.ends()),
        requests: json!(view.requests()),
        rows: view.rows_since(revision),
        revision: view.revision(),
    });
    let Seen { totals, refusals, faults, ends, requests, rows, revision } = seen.unwrap_or_default();
    let document = json!({
        "version": VERSION,
        "time": milliseconds(sources.clock.unix_time()),
        "status": health::status(facts.phase, &checks),
        "checks": checks,
        "daemon": daemon(sources, &facts),
        "config": config(&facts),
        "certificate": facts.certificate.as_ref().map(|certificate| json!({
            "file": certificate.file.display().to_string(),
            "expires": milliseconds(certificate.expires),
        })),
        "apps": snapshot.apps().into_iter().zip(totals).map(app).collect::<Value>(),
        "handlers": snapshot.handlers().into_iter().map(|used| handler(sources, used)).collect::<Value>(),
        "refusals": refusals,
        "connection_faults": faults,
        "outbox": outbox(sources, ends, requests),
        "interactions": rows.iter().map(|row| interaction(row)).collect::<Value>(),
    });
    let Value::Object(document) = document else { return (Map::new(), revision) };
    (document, revision)
}

#[derive(Default)]
struct Seen {
    totals: Vec<Value>,
    refusals: Value,
    faults: Value,
    ends: Value,
    requests: Value,
    rows: Vec<Arc<Row>>,
    revision: u64,
}

fn totals(view: &View<'_>, app: &App) -> Value {
    let totals = view.totals(&app.name).unwrap_or_default();
    let counts = totals.by_outcome().filter(|(_, count)| *count > 0);
    let counts: Map<_, _> =
        counts.map(|(outcome, count)| (outcome.as_str().to_owned(), json!(count))).collect();
    json!({ "totals": counts, "last": totals.last.map(milliseconds) })
}

fn daemon(sources: &Sources, facts: &Facts) -> Value {
    let limits = health::limits(sources);
    let limit = |Limit { name, taken, limit }: Limit| (name.to_owned(), pair(taken, limit));
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "started": milliseconds(facts.started),
        "state": facts.phase.as_str(),
        "verification": signature::backend(),
        "listens": &*facts.listens,
        "tls": facts.certificate.is_some(),
        "process": Process::read(),
        "limits": limits.into_iter().map(limit).collect::<Map<_, _>>(),
    })
}

fn taken(budget: &Budget) -> Value {
    pair(budget.used(), budget.limit())
}

/// What is taken, and the limit if there is one.
fn pair(taken: usize, limit: usize) -> Value {
    json!([taken, Some(limit).filter(|limit| *limit < usize::MAX)])
}

fn config(facts: &Facts) -> Value {
    let config = &facts.config;
    json!({
        "file": config.file.as_ref().map(|file| file.display().to_string()),
        "loaded": milliseconds(config.loaded),
        "error": config.error.as_ref().map(|error| json!({
            "time": milliseconds(error.time),
            "text": error.text,
        })),
    })
}

fn app(((path, app), seen): ((&str, &App), Value)) -> Value {
    let mut handlers: Vec<_> = Vec::new();
    for handler in app.handlers() {
        let name = handler.name();
        if !handlers.contains(&name) {
            handlers.push(name);
        }
    }
    let on_slow = match app.deadline.on_slow {
        OnSlow::Defer => "defer",
        OnSlow::Fail => "fail",
    };
    json!({
        "name": &*app.name,
        "path": path,
        "answer_within": milliseconds(app.deadline.answer_within),
        "on_slow": on_slow,
        "handlers": handlers.iter().map(|name| &**name).collect::<Value>(),
        "in_flight": taken(&app.in_flight),
        "totals": seen.get("totals"),
        "last": seen.get("last"),
    })
}

fn handler(sources: &Sources, (handler, apps): (&Arc<Handler>, Vec<&str>)) -> Value {
    json!({
        "name": &*handler.name(),
        "apps": apps,
        "in_flight": taken(&handler.in_flight),
        "deferred": taken(&handler.deferred),
        "replicas": handler.replicas().map(|status| replica(sources, &status)).collect::<Value>(),
    })
}

fn replica(sources: &Sources, status: &ReplicaStatus) -> Value {
    let (now, unix_time) = (sources.clock.now(), sources.clock.unix_time());
    let since =
        status.state.since().map(|since| unix_time.saturating_sub(now.saturating_duration_since(since)));
    json!({
        "url": &*status.url,
        "state": status.state.word(),
        "in_flight": status.in_flight,
        "text": since.map(|_| status.state.to_string()),
        "since": since.map(milliseconds),
    })
}

fn outbox(sources: &Sources, ends: Value, requests: Value) -> Value {
    let (status, text) = match sources.outbox.health() {
        Health::Durable => ("durable", None),
        Health::Unheld => ("unheld", None),
        Health::Degraded(why) => ("degraded", Some(why)),
    };
    let tally = sources.outbox.tally();
    json!({
        "status": status,
        "text": text,
        "entries": tally.entries,
        "undelivered": tally.undelivered,
        "oldest": tally.oldest.map(milliseconds),
        "oldest_undelivered": tally.oldest_undelivered.map(milliseconds),
        "ends": ends,
        "discord": requests,
    })
}

fn interaction(row: &Row) -> Value {
    let Row { record, end, .. } = row;
    json!({
        "key": row.key,
        "time": milliseconds(row.arrived),
        "app": &*record.app,
        // Too large for a number of JavaScript's.
        "id": record.id.to_string(),
        "kind": record.kind.as_str(),
        "name": record.name,
        "route": record.route.as_deref(),
        "handler": record.replica.as_deref(),
        "outcome": end.outcome.as_str(),
        "status": end.status,
        "ms": fine(end.elapsed),
        "text": end.explanation,
        "client": record.client.to_string(),
        "trace": format!("{:032x}", record.trace),
        "is_over": row.is_over,
        "steps": steps(row),
    })
}

/// What happened with an interaction, in its order.
fn steps(row: &Row) -> Value {
    let Row { record, end, .. } = row;
    let since = |time: tokio::time::Instant| time.saturating_duration_since(record.received);
    let step = |at: Duration, what: &str| json!({ "at": fine(at), "what": what });
    let mut steps = vec![step(Duration::ZERO, "first byte"), step(since(record.verified), "verified")];
    if let Some(forwarded) = record.forwarded.map(since) {
        steps.push(step(forwarded, "forwarded"));
        for tried in &record.tried {
            let what = format!("{} did not take it: {}", tried.replica, tried.why);
            steps.push(step(since(tried.at), &what));
        }
        if let Some(time) = record.handler_time {
            let who = record.replica.as_deref().unwrap_or("handler");
            let what = if end.outcome == Outcome::Failed { "failed" } else { "answered" };
            steps.push(step(forwarded + time, &format!("{who} {what}")));
        }
    }
    steps.push(step(end.elapsed, end.outcome.as_str()));
    steps.extend(row.later.iter().map(|later| step(later.at, &later.what)));
    Value::Array(steps)
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds, to a hundredth.
fn fine(time: Duration) -> f64 {
    (time.as_secs_f64() * 100_000.0).round() / 100.0
}
