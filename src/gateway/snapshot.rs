//! What the config says, made ready for requests. Built whole, then never changed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use thiserror::Error;
use tokio::sync::Semaphore;

use crate::budget::Budget;
use crate::config::{self, Config, Limits, Replay};
use crate::discord::signature::PublicKey;
use crate::forward::{Handler, TrustError};

/// The applications with their handlers, and the limits.
pub struct Snapshot {
    apps: HashMap<String, Arc<App>>,
    limits: Limits,
    replay: Replay,
}

/// One application.
pub struct App {
    /// Its name in the config.
    pub name: Arc<str>,
    /// The same, ready to be sent.
    pub header: HeaderValue,
    /// The key that its requests are signed with.
    pub public_key: PublicKey,
    /// Where its interactions go.
    pub handler: Handler,
    /// Its calls not yet answered to Discord.
    pub in_flight: Arc<Semaphore>,
    /// From a request's first byte until Discord gets an answer.
    pub answer_within: Duration,
    /// What the user sees where the handler fails.
    pub error_message: Option<String>,
}

/// Why a config cannot be made ready, though each of its values is sound.
#[derive(Debug, Error)]
#[error(transparent)]
pub enum BuildError {
    /// A handler that cannot be trusted.
    Trust(#[from] TrustError),
    /// An application's name cannot stand in a header; a parsed config has no such name.
    Name(#[from] http::header::InvalidHeaderValue),
}

impl Snapshot {
    /// Makes a config ready. `check` and `serve` both do.
    ///
    /// # Errors
    ///
    /// [`BuildError`], which names what cannot be used.
    pub fn build(config: &Config, budget: &Arc<Budget>) -> Result<Self, BuildError> {
        let entry = |app: &config::App| {
            let ready = App::build(app, budget)?;
            Ok::<_, BuildError>((app.path.as_str().to_owned(), Arc::new(ready)))
        };
        let apps = config.apps.iter().map(entry).collect::<Result<_, _>>()?;
        Ok(Self { apps, limits: config.limits, replay: config.replay })
    }

    /// The application whose endpoint has exactly that path.
    pub fn app(&self, path: &str) -> Option<&Arc<App>> {
        self.apps.get(path)
    }

    /// All applications, each with its path, by name.
    pub fn apps(&self) -> Vec<(&str, &App)> {
        let mut apps: Vec<_> = self.apps.iter().map(|(path, app)| (path.as_str(), &**app)).collect();
        apps.sort_by(|(_, a), (_, b)| a.name.cmp(&b.name));
        apps
    }

    /// `[limits]`.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// `[replay]`.
    pub fn replay(&self) -> &Replay {
        &self.replay
    }
}

impl App {
    fn build(app: &config::App, budget: &Arc<Budget>) -> Result<Self, BuildError> {
        Ok(Self {
            name: Arc::clone(&app.name),
            header: HeaderValue::from_str(&app.name)?,
            public_key: app.public_key.clone(),
            handler: Handler::new(&app.handler, budget)?,
            in_flight: Arc::new(Semaphore::new(app.in_flight)),
            answer_within: app.answer_within,
            error_message: app.error_message.clone(),
        })
    }
}
