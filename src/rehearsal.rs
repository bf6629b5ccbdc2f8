//! Discord's part, played on one machine: for `send`, `demo`, the tests and the benchmarks.

pub mod payload;
pub mod rest;
pub mod sample;
pub mod signer;
pub mod stand_in;
pub mod verdict;

pub use payload::{Author, Payload};
pub use signer::Signer;
pub use stand_in::{Exchange, StandIn};
pub use verdict::{Expectation, Verdict};
