//! Discord's protocol, and nothing else: no runtime, no clock, no I/O.

pub mod answer;
pub mod callback;
pub mod deferral;
pub mod interaction;
pub mod late;
mod object;
pub mod rest;
pub mod signature;
mod token;

use std::time::Duration;

use serde_json::error::Category;

pub use token::Token;

/// From sending an interaction until Discord gives up on the first answer, network and proxy included.
///
/// Source: Discord's documentation, "Receiving and Responding to Interactions".
pub const RESPONSE_DEADLINE: Duration = Duration::from_secs(3);

/// How long an interaction's token works, counted from the interaction's arrival.
///
/// Source: Discord's documentation, "Receiving and Responding to Interactions".
pub const TOKEN_LIFETIME: Duration = Duration::from_secs(15 * 60);

/// What is wrong with a JSON text, and where: without any value from it, which may be a secret.
fn describe(error: &serde_json::Error) -> String {
    let place = format!("line {} column {}", error.line(), error.column());
    match error.classify() {
        Category::Data if !error.to_string().contains('"') => error.to_string(),
        Category::Data => format!("a value has the wrong type at {place}"),
        Category::Eof => format!("it breaks off at {place}"),
        Category::Syntax | Category::Io => format!("no valid JSON at {place}"),
    }
}
