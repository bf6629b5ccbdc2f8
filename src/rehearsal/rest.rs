//! A stand-in for Discord's REST API: where late answers go. It has no faults but those that a script asks for.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! use shardless::rehearsal::rest::{Api, Fault};
//!
//! let api = Api::with_faults(0, |call| (call.nth == 1).then_some(Fault::UnknownWebhook)).await?;
//! let interaction = br#"{"id":"1","application_id":"2","token":"secret","type":2}"#;
//! assert!(api.answered(interaction, br#"{"type":5}"#));
//! assert!(api.view("secret").and_then(|view| view.original).is_some_and(|message| message.is_loading()));
//! # Ok::<_, std::io::Error>(())
//! # })?;
//! # Ok::<_, std::io::Error>(())
//! ```

pub mod call;
mod conversation;
pub mod fault;
pub mod message;
pub mod post;
mod reply;
mod service;
mod state;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::clock::{Clock, SystemClock};
pub use call::{Call, Target};
pub use fault::{Fault, Scope, Told};
pub use message::{Attachment, Message};
pub use post::{Post, Upload};
use state::State;

/// Every path begins with it.
const BASE: &str = "/api/v10";

/// What goes wrong, by the call that it happens to.
type Faults = dyn Fn(&Call) -> Option<Fault> + Send + Sync;

/// A stand-in for Discord's REST API that is listening; it stops, its connections included, when dropped.
pub struct Api {
    address: SocketAddr,
    state: Arc<State>,
    serving: JoinHandle<()>,
}

/// How a stand-in behaves.
pub struct Script {
    faults: Box<Faults>,
    race: Race,
    clock: Arc<dyn Clock>,
    keeps_bodies: bool,
}

/// Discord may answer a request before it has itself dealt with the deferral; until then the token's webhook is unknown
/// to its REST API (404, code 10015).
#[derive(Clone, Copy, Debug, Default)]
pub enum Race {
    /// The deferral is dealt with at once.
    #[default]
    None,
    /// For so many calls with that token.
    Calls(usize),
    /// For so long after the deferral.
    For(Duration),
}

/// What the user sees of one interaction.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// `@original`: the answer, or the message that the interaction came with if that is what is updated. It stays here
    /// when it is deleted.
    pub original: Option<Message>,
    /// The messages after it, the oldest first.
    pub follow_ups: Vec<Message>,
}

impl View {
    /// The message that came last.
    pub fn last(&self) -> Option<&Message> {
        self.follow_ups.last().or(self.original.as_ref())
    }
}

impl Default for Script {
    fn default() -> Self {
        Self {
            faults: Box::new(|_| None),
            race: Race::None,
            clock: Arc::new(SystemClock),
            keeps_bodies: true,
        }
    }
}

impl Script {
    /// What goes wrong, asked once for each call, when all of it has been read.
    pub fn faults(mut self, faults: impl Fn(&Call) -> Option<Fault> + Send + Sync + 'static) -> Self {
        self.faults = Box::new(faults);
        self
    }

    /// How far Discord lags behind its own requests.
    pub fn race(mut self, race: Race) -> Self {
        self.race = race;
        self
    }

    /// The clock that tokens expire by, instead of the machine's.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Calls are kept without their bodies: for very many of them.
    pub fn without_bodies(mut self) -> Self {
        self.keeps_bodies = false;
        self
    }
}

impl Api {
    /// Listens on a port of 127.0.0.1; 0 lets the system choose. Nothing goes wrong.
    ///
    /// # Errors
    ///
    /// If the port cannot be had.
    pub async fn start(port: u16) -> io::Result<Self> {
        Self::following(Script::default(), port).await
    }

    /// The same, with what goes wrong: asked once for each call, when all of it has been read.
    ///
    /// # Errors
    ///
    /// If the port cannot be had.
    pub async fn with_faults(
        port: u16,
        faults: impl Fn(&Call) -> Option<Fault> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        Self::following(Script::default().faults(faults), port).await
    }

    /// The same, as a script says.
    ///
    /// # Errors
    ///
    /// If the port cannot be had.
    pub async fn following(script: Script, port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let address = listener.local_addr()?;
        let state = Arc::new(State::new(script));
        let serving = tokio::spawn(service::serve(listener, Arc::clone(&state)));
        Ok(Self { address, state, serving })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL to put into a config, as `discord.api`.
    pub fn url(&self) -> String {
        format!("http://{}{BASE}", self.address)
    }

    /// An interaction goes out: from now on its token is known, and its handler may answer by a call. False if it has no
    /// `application_id` or `token`.
    pub fn sent(&self, interaction: &[u8]) -> bool {
        self.state.send(interaction)
    }

    /// Discord has taken this callback, in JSON, as the answer to that interaction. False if it would not: it is no
    /// callback, or its message is no message, or the interaction has been answered before.
    pub fn answered(&self, interaction: &[u8], callback: &[u8]) -> bool {
        self.state.send(interaction) && self.state.answer(interaction, callback)
    }

    /// Takes that callback, in JSON, as the answer to that interaction, and waits for what follows if it is a deferral:
    /// then this is what the user sees. `None` if it is none.
    pub async fn follow(&self, interaction: &[u8], callback: &[u8]) -> Option<View> {
        let json = |bytes| serde_json::from_slice::<Value>(bytes).unwrap_or_default();
        let is_update = match json(callback).get("type").and_then(Value::as_u64) {
            Some(5) => false,
            Some(6) => true,
            _ => return None,
        };
        let interaction_json = json(interaction);
        let token = text(&interaction_json, "token")?;
        if !self.answered(interaction, callback) {
            return None;
        }
        let has_followed = |view: &View| {
            let is_written =
                |message: &Message| if is_update { message.edited.is_some() } else { !message.is_loading() };
            let original = view.original.as_ref().filter(|message| message.deleted.is_none());
            !view.follow_ups.is_empty() || original.is_some_and(is_written)
        };
        self.until(|api| api.view(token).as_ref().is_some_and(has_followed)).await;
        self.view(token)
    }

    /// The interaction's 15 minutes are over.
    pub fn expire(&self, token: &str) {
        self.state.expire(token);
    }

    /// What the user sees of the interaction with that token; `None` if there is no such interaction.
    pub fn view(&self, token: &str) -> Option<View> {
        self.state.view(token)
    }

    /// How many users see "thinking…".
    pub fn loading(&self) -> usize {
        self.state.loading()
    }

    /// Every call, in the order in which they were read.
    pub fn calls(&self) -> Vec<Call> {
        self.state.calls()
    }

    /// How many calls are such; cheaper than [`Api::calls`].
    pub fn count(&self, is_such: impl Fn(&Call) -> bool) -> usize {
        self.state.count(is_such)
    }

    /// Returns when that holds. It is asked now, and after each call and whatever else changes.
    pub async fn until(&self, holds: impl Fn(&Self) -> bool) {
        loop {
            let mut change = std::pin::pin!(self.state.changed());
            // From here on, or a change between the question and the wait would be missed.
            change.as_mut().enable();
            if holds(self) {
                return;
            }
            change.await;
        }
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// The text at that key.
fn text<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object.get(key)?.as_str()
}

#[cfg(test)]
mod tests;
