//! What the parts of the request path cost that are this project's own: verification, envelope, callback, routes.
//!
//! `cargo bench --bench parts`; `instructions` counts the same ones.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "criterion's macros; the inputs are sound"
)]

#[path = "support/steps.rs"]
mod steps;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};

use steps::Meter;

impl Meter for Criterion {
    fn step<O>(&mut self, name: &str, mut step: impl FnMut() -> O) {
        self.bench_function(name, |bencher| bencher.iter(&mut step));
    }

    fn prepared_step<I, O>(
        &mut self,
        name: &str,
        mut prepare: impl FnMut() -> I,
        mut step: impl FnMut(I) -> O,
    ) {
        self.bench_function(name, |bencher| {
            bencher.iter_batched(&mut prepare, &mut step, BatchSize::SmallInput);
        });
    }
}

criterion_group!(benches, steps::measure);
criterion_main!(benches);
