//! Bad input and faults: what must come out.
//!
//! For every row: nothing unverified is forwarded, a counter with the reason goes up, no token, body or signature reaches
//! a log, metric or error text, and the next good request works. The rows stand in `faults/table.md`, each with its
//! tests; those whose faults take machinery of their own (crashes, full disks, systemd) are elsewhere.

mod handlers;
mod http;
mod replays;
mod request;
mod running;
mod table;
mod verification;
