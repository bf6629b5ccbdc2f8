//! The daemon from outside: in this process through its library, and as the command that people run.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "a test that cannot go on says so by panicking"
)]

mod activation;
mod admin;
mod answers;
mod burst;
mod canary;
mod commands;
mod crash;
mod deferral;
mod delivery;
mod faults;
mod forwarding;
mod fuzz;
mod handlers;
mod layers;
mod limits;
mod logs;
mod outbox;
mod overload;
mod probe;
mod provenance;
mod reach;
mod reload;
mod replica_status;
mod replicas;
mod routing;
mod security;
mod serving;
mod status;
mod stop;
mod support;
mod tls;
