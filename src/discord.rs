//! Discord's protocol, and nothing else: no runtime, no clock, no I/O.

pub mod callback;
pub mod interaction;
pub mod signature;

use std::time::Duration;

/// From sending an interaction until Discord gives up on the first answer, network and proxy included.
///
/// Source: Discord's documentation, "Receiving and Responding to Interactions".
pub const RESPONSE_DEADLINE: Duration = Duration::from_secs(3);

/// How long an interaction's token works, counted from the interaction's arrival.
///
/// Source: Discord's documentation, "Receiving and Responding to Interactions".
pub const TOKEN_LIFETIME: Duration = Duration::from_secs(15 * 60);
