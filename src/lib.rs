//! `shardless` lets a Discord bot run without gateway shards.
//!
//! Discord pushes each interaction as a signed HTTPS POST to a reverse proxy; the proxy passes it to this daemon,
//! which proves that it came from Discord, hands it to a local handler in any language, and answers inside the
//! three-second deadline, whatever the handler does.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use shardless::{clock::SystemClock, config::Config, daemon::Daemon, systemd::Sockets, workers::Workers};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let config = Config::load("config.toml".as_ref())?;
//! let daemon = Daemon::bind(config, Sockets::default(), Arc::new(SystemClock))?;
//! let (stop, stopped) = tokio::sync::watch::channel(false);
//! daemon.run(Workers::for_all_processors()?, stopped).await;
//! # drop(stop);
//! # Ok(())
//! # }
//! ```
//!
//! [`gateway`] is the place to begin reading: its one function is the list of what happens to a request. Modules
//! import downward only; `tests/it/layers.rs` has the table and holds the code to it.

pub mod activity;
pub mod admin;
pub mod budget;
pub mod cli;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod delivery;
pub mod discord;
pub mod forward;
pub mod gateway;
pub mod listener;
pub mod logging;
pub mod metrics;
pub mod outbox;
pub mod pem;
pub mod pulse;
pub mod rehearsal;
pub mod routes;
pub mod server;
pub mod systemd;
pub mod workers;
