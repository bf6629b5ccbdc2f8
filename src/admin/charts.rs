//! The charts as JSON: what `docs/status.md` describes.

use serde_json::{Value, json};

use super::Sources;
use crate::activity::{Charts, Column, LENGTHS, Slot};

/// Of the document's shape.
const VERSION: u32 = 1;

/// Parts of the answers whose percentiles are told.
const PERCENTILES: [(&str, f64); 3] = [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)];

/// Of one application, or of all together. `None` where there are no charts of that one.
pub(super) fn document(sources: &Sources, app: Option<&str>) -> Option<Value> {
    let (charts, zero, now) =
        sources.activity.look(|view| Some((view.charts(app)?.clone(), view.zero, view.now)))??;
    let columns = ["time"].into_iter().chain(Column::names()).chain(PERCENTILES.map(|(name, _)| name));
    let spans = LENGTHS.iter().zip(charts.spans()).map(|((name, step, length), span)| {
        let slots: Value = span.seen_from(now).map(|slot| numbers(slot, zero)).collect();
        json!({ "name": name, "step": step, "length": length, "slots": slots })
    });
    Some(json!({
        "version": VERSION,
        "app": app,
        "columns": columns.collect::<Value>(),
        "spans": spans.collect::<Value>(),
    }))
}

/// The slots in which something can have happened since that second: of all together, and of each application. And the
/// second by now.
pub(super) fn changes(sources: &Sources, since: u64) -> (Value, u64) {
    // What is taken from under the lock is copied, and made into text after it.
    let seen = sources.activity.look(|view| {
        let all = view.charts(None).into_iter().map(|charts| (None, changed(charts, since)));
        let of_app = |(name, charts): (&str, &Charts)| (Some(name.to_owned()), changed(charts, since));
        let all_and_each: Vec<_> = all.chain(view.apps_with_charts().map(of_app)).collect();
        (all_and_each, view.zero, view.now)
    });
    let (series, zero, now) = seen.unwrap_or_default();
    let changes = series.iter().filter(|(_, slots)| !slots.is_empty()).map(|(app, slots)| {
        let slots = slots.iter().map(|(span, slot)| json!({ "span": span, "slot": numbers(slot, zero) }));
        json!({ "app": app, "slots": slots.collect::<Value>() })
    });
    (changes.collect(), now)
}

fn changed(charts: &Charts, since: u64) -> Vec<(&'static str, Slot)> {
    let spans = LENGTHS.iter().zip(charts.spans());
    spans.flat_map(|((name, ..), span)| span.since(since).map(|slot| (*name, slot.clone()))).collect()
}

fn numbers(slot: &Slot, zero: u64) -> Value {
    let percentile = |(_, part): (&str, f64)| {
        slot.percentile(part).map(|time| (time.as_secs_f64() * 10_000.0).round() / 10.0)
    };
    let counts = slot.counts().iter().map(|count| json!(count));
    let percentiles = PERCENTILES.map(percentile).into_iter().map(|time| json!(time));
    std::iter::once(json!(zero + slot.begin)).chain(counts).chain(percentiles).collect()
}
