//! The parts, each counted in a process of its own: this program again, under callgrind.

use std::hint::black_box;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};

use crate::callgrind::{self, Count};
use crate::steps::{self, Meter};

/// Tells this program to take a step: its name and a number follow, and what of it is to be done.
pub(crate) const ARGUMENT: &str = "take-steps";

/// Steps of this kind take little; so many more are taken, or what surrounds them would show.
const MORE: usize = 50;

/// A step that is known by its name.
pub(crate) struct Part {
    pub(crate) name: String,
    /// Whether something is prepared for it, which is to be counted apart.
    is_prepared: bool,
}

/// Which steps there are.
pub(crate) fn all() -> Vec<Part> {
    let mut parts = Parts(Vec::new());
    steps::measure(&mut parts);
    parts.0
}

/// What the process does that is counted.
pub(crate) fn take_steps(arguments: &[String]) -> Result<()> {
    let [name, count, work] = arguments else { anyhow::bail!("expected a name, a number, and the work") };
    let whole = work == Work::Whole.as_str();
    steps::measure(&mut Steps { name, count: count.parse()?, whole });
    Ok(())
}

/// What of a step is done.
#[derive(Clone, Copy)]
enum Work {
    Preparation,
    Whole,
}

impl Work {
    fn as_str(self) -> &'static str {
        match self {
            Self::Preparation => "preparation",
            Self::Whole => "whole",
        }
    }
}

impl Part {
    /// Instructions of one step.
    pub(crate) fn count(&self, counts: [usize; 2]) -> Result<f64> {
        if self.is_prepared {
            return Ok(
                self.instructions(counts, Work::Whole)? - self.instructions(counts, Work::Preparation)?
            );
        }
        self.instructions(counts.map(|count| count * MORE), Work::Whole)
    }

    fn instructions(&self, counts: [usize; 2], work: Work) -> Result<f64> {
        let mut totals = [0.0; 2];
        for (total, steps) in totals.iter_mut().zip(counts) {
            let count = Count::new()?;
            let mut command = count.command(&std::env::current_exe()?);
            command.args([ARGUMENT, &self.name, &steps.to_string(), work.as_str()]);
            let status = command.stdout(Stdio::null()).status().context("cannot start valgrind")?;
            ensure!(status.success(), "{}: {status}", self.name);
            *total = count.total()?;
        }
        Ok(callgrind::of_one(totals, counts))
    }
}

/// Takes none, and notes which there are.
struct Parts(Vec<Part>);

impl Meter for Parts {
    fn step<O>(&mut self, name: &str, _step: impl FnMut() -> O) {
        self.0.push(Part { name: name.to_owned(), is_prepared: false });
    }

    fn prepared_step<I, O>(&mut self, name: &str, _prepare: impl FnMut() -> I, _step: impl FnMut(I) -> O) {
        self.0.push(Part { name: name.to_owned(), is_prepared: true });
    }
}

/// Takes one of them, so many times.
struct Steps<'a> {
    name: &'a str,
    count: usize,
    /// Otherwise it is only prepared.
    whole: bool,
}

impl Meter for Steps<'_> {
    fn step<O>(&mut self, name: &str, mut step: impl FnMut() -> O) {
        if name == self.name {
            (0..self.count).for_each(|_| _ = black_box(step()));
        }
    }

    fn prepared_step<I, O>(
        &mut self,
        name: &str,
        mut prepare: impl FnMut() -> I,
        mut step: impl FnMut(I) -> O,
    ) {
        if name != self.name {
            return;
        }
        for _ in 0..self.count {
            let prepared = black_box(prepare());
            if self.whole {
                black_box(step(prepared));
            }
        }
    }
}
