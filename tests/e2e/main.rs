//! The daemon in the place it is made for: behind the real Nginx and the real Apache, with the site files that ship, in
//! front of unmodified bots written with Discord's official libraries and with hikari.
//!
//! `tests/install` brings what is needed; the tests of `chaos`, `disk`, `hosts`, `machine` and `stuck` take root.
//! `SHARDLESS_FULL=1` sends ten times as many interactions, and restarts as often as the project's bars say.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that cannot go on is to fail where it stands, and to say its figures"
)]

mod bodies;
mod bots;
mod chaos;
mod connections;
mod container;
mod daemon;
mod discord;
mod disk;
mod guides;
mod handler;
mod hosts;
mod inside;
mod install;
mod lie;
mod load;
mod machine;
mod monitoring;
mod package;
mod page;
mod pinning;
mod probe;
mod process;
mod provenance;
mod proxies;
mod raw;
mod relay;
mod replicas;
mod requests;
mod setup;
mod sites;
mod stuck;
mod supply;
mod tls;
mod units;
mod volume;
