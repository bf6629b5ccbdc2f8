//! What the config says, made ready for requests. Built whole, then never changed.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use thiserror::Error;

use crate::budget::Budget;
use crate::config::{self, Config, Limits, OnSlow, Replay};
use crate::discord::interaction::Interaction;
use crate::discord::signature::Verifier;
use crate::forward::{Handler, HandlerError};
use crate::routes::{Routes, Subject};

/// What a user sees of a handler without an answer, where the config has no text for that.
const FALLBACK: &str = "This took too long. Please try again.";

/// The applications with their handlers, and the limits.
pub struct Snapshot {
    apps: HashMap<String, Arc<App>>,
    limits: Arc<Limits>,
    replay: Replay,
    bounds: Bounds,
}

/// What is taken of the limits. It outlives a snapshot: what one took counts for the next.
#[derive(Clone)]
pub struct Bounds {
    /// Bytes of bodies and answers, `limits.buffered`.
    pub buffered: Arc<Budget>,
    /// Bytes of late answers that are not on disk: at most half of it.
    pub late: Arc<Budget>,
    /// Open connections, `limits.connections`; but not more than half of the files that this process may have open: the
    /// others are for the handlers' side.
    pub connections: Arc<Budget>,
    /// Calls not yet answered to Discord, `limits.in_flight`.
    pub in_flight: Arc<Budget>,
    /// Deferred interactions that have not come to their end, `limits.deferred`.
    pub deferred: Arc<Budget>,
}

/// One application.
pub struct App {
    /// Its name in the config.
    pub name: Arc<str>,
    /// The same, ready to be sent.
    pub header: HeaderValue,
    /// Verifies its requests.
    pub verifier: Arc<Verifier>,
    /// Where its interactions go, unless a route says otherwise.
    pub handler: Arc<Handler>,
    routes: Routes,
    destinations: Vec<Destination>,
    /// Its calls not yet answered to Discord.
    pub in_flight: Arc<Budget>,
    max_in_flight: usize,
    /// Where no route says otherwise.
    pub deadline: Arc<Deadline>,
    /// From an interaction's arrival, how long a handler is waited for at most.
    pub give_up_after: Duration,
    /// What the user sees where the handler fails.
    pub error_message: Option<String>,
    /// What the user sees, after a deferral, where the handler has no answer.
    pub fallback: Arc<str>,
}

/// What happens to a call that takes too long.
#[derive(Debug)]
pub struct Deadline {
    /// From a request's first byte until Discord gets an answer.
    pub answer_within: Duration,
    /// What it gets where there is none.
    pub on_slow: OnSlow,
    /// Whether a deferred message is for its user alone.
    pub ephemeral: bool,
    /// Whether it was said already that this is not what the handler wants.
    pub privacy_is_noted: AtomicBool,
}

impl Deadline {
    fn new(answer_within: Duration, on_slow: OnSlow, ephemeral: bool) -> Arc<Self> {
        Arc::new(Self { answer_within, on_slow, ephemeral, privacy_is_noted: AtomicBool::new(false) })
    }
}

/// Where a route leads.
struct Destination {
    route: Arc<str>,
    target: Target,
    deadline: Arc<Deadline>,
}

/// What an interaction goes to.
#[derive(Clone)]
pub enum Target {
    /// A handler.
    Handler(Arc<Handler>),
    /// This callback is the answer.
    Reply(Bytes),
}

/// Where an interaction goes, and by which route.
#[derive(Clone)]
pub struct Choice {
    /// The route's conditions, as the config says them; `None` for the application's own handler.
    pub route: Option<Arc<str>>,
    /// Where to.
    pub target: Target,
    /// What happens if that takes too long.
    pub deadline: Arc<Deadline>,
}

/// Why a config cannot be made ready, though each of its values is sound.
#[derive(Debug, Error)]
#[error(transparent)]
pub enum BuildError {
    /// A handler that cannot trust, or be trusted.
    Handler(#[from] HandlerError),
    /// An application's name cannot stand in a header; a parsed config has no such name.
    Name(#[from] http::header::InvalidHeaderValue),
}

impl Snapshot {
    /// Makes a config ready, to take the place of `before`: what did not change is carried over, connections and
    /// counts included. Nothing is changed by that, neither for `before`.
    ///
    /// # Errors
    ///
    /// [`BuildError`], which names what cannot be used.
    pub fn build(config: &Config, before: Option<&Self>) -> Result<Self, BuildError> {
        let bounds = before.map_or_else(|| Bounds::new(&config.limits), |before| before.bounds.clone());
        let apps_before = before.iter().flat_map(|before| before.apps.values());
        let before_by_config: HashMap<_, _> =
            apps_before.flat_map(|app| app.handlers()).map(|handler| (handler.config(), handler)).collect();
        let mut handlers = HashMap::new();
        let mut ready = |config: &config::Handler| {
            // Whoever names the same handler shares it. The files that it is made of are read once.
            if let Some(ready) = handlers.get(config) {
                return Ok(Arc::clone(ready));
            }
            let handler = match before_by_config.get(config).filter(|handler| handler.is_up_to_date()) {
                Some(unchanged) => Arc::clone(unchanged),
                None => Arc::new(Handler::new(config, &bounds.buffered)?),
            };
            handlers.insert(config.clone(), Arc::clone(&handler));
            Ok::<_, BuildError>(handler)
        };
        let entry = |app: &config::App| {
            let ready = App::build(app, &mut ready, before.and_then(|before| before.named(&app.name)))?;
            Ok::<_, BuildError>((app.path.as_str().to_owned(), Arc::new(ready)))
        };
        let apps = config.apps.iter().map(entry).collect::<Result<_, _>>()?;
        Ok(Self { apps, limits: Arc::new(config.limits), replay: config.replay, bounds })
    }

    /// Lets its limits hold from now on.
    pub(super) fn take_effect(&self) {
        self.bounds.set(&self.limits);
        for app in self.apps.values() {
            app.in_flight.set_limit(app.max_in_flight);
        }
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

    /// All handlers, each with the names of the applications that use it.
    pub fn handlers(&self) -> Vec<(&Arc<Handler>, Vec<&str>)> {
        let mut handlers: Vec<(&Arc<Handler>, Vec<&str>)> = Vec::new();
        let mut places = HashMap::new();
        for (_, app) in self.apps() {
            for handler in app.handlers() {
                let place = *places.entry(Arc::as_ptr(handler)).or_insert(handlers.len());
                if place == handlers.len() {
                    handlers.push((handler, Vec::new()));
                }
                let Some((_, users)) = handlers.get_mut(place) else { continue };
                if users.last() != Some(&&*app.name) {
                    users.push(&app.name);
                }
            }
        }
        handlers
    }

    /// The applications' names.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.apps.values().map(|app| &app.name)
    }

    fn named(&self, name: &str) -> Option<&App> {
        self.apps.values().find(|app| *app.name == *name).map(Arc::as_ref)
    }

    /// What is taken of the limits.
    pub fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    /// `[limits]`.
    pub fn limits(&self) -> &Arc<Limits> {
        &self.limits
    }

    /// `[replay]`.
    pub fn replay(&self) -> &Replay {
        &self.replay
    }
}

impl Bounds {
    fn new(limits: &Limits) -> Self {
        Self {
            buffered: Budget::new(limits.buffered),
            late: Budget::new(limits.buffered / 2),
            connections: Budget::new(connections(limits)),
            in_flight: Budget::new(limits.in_flight),
            deferred: Budget::new(limits.deferred),
        }
    }

    fn set(&self, limits: &Limits) {
        self.buffered.set_limit(limits.buffered);
        self.late.set_limit(limits.buffered / 2);
        self.connections.set_limit(connections(limits));
        self.in_flight.set_limit(limits.in_flight);
        self.deferred.set_limit(limits.deferred);
    }
}

fn connections(limits: &Limits) -> usize {
    let files = rlimit::Resource::NOFILE.get_soft().unwrap_or(u64::MAX);
    limits.connections.min(usize::try_from(files / 2).unwrap_or(usize::MAX))
}

impl App {
    /// Where an interaction goes.
    pub fn choose(&self, interaction: &Interaction<'_>) -> Choice {
        let destination =
            self.routes.find(Subject::of(interaction)).and_then(|index| self.destinations.get(index));
        match destination {
            Some(Destination { route, target, deadline }) => Choice {
                route: Some(Arc::clone(route)),
                target: target.clone(),
                deadline: Arc::clone(deadline),
            },
            None => Choice {
                route: None,
                target: Target::Handler(Arc::clone(&self.handler)),
                deadline: Arc::clone(&self.deadline),
            },
        }
    }

    /// Its routes in their order: the conditions as the config says them, and where each leads.
    pub fn routes(&self) -> impl Iterator<Item = (&str, &Target)> {
        self.destinations.iter().map(|destination| (&*destination.route, &destination.target))
    }

    /// Its own, and those of its routes.
    pub fn handlers(&self) -> impl Iterator<Item = &Arc<Handler>> {
        let of_routes = self.destinations.iter().filter_map(|destination| match &destination.target {
            Target::Handler(handler) => Some(handler),
            Target::Reply(_) => None,
        });
        std::iter::once(&self.handler).chain(of_routes)
    }

    fn build(
        app: &config::App,
        ready: &mut impl FnMut(&config::Handler) -> Result<Arc<Handler>, BuildError>,
        before: Option<&Self>,
    ) -> Result<Self, BuildError> {
        let verifier = before.map(|before| &before.verifier);
        let verifier = verifier.filter(|verifier| *verifier.public_key() == app.public_key);
        let handler = ready(&app.handler)?;
        let destination = |route: &config::Route| {
            let target = match &route.target {
                config::Target::Handler(handler) => Target::Handler(ready(handler)?),
                config::Target::Reply(reply) => Target::Reply(Bytes::copy_from_slice(reply.as_bytes())),
            };
            let deadline = Deadline::new(
                route.answer_within.unwrap_or(app.answer_within),
                route.on_slow.unwrap_or(app.on_slow),
                route.ephemeral.unwrap_or(app.ephemeral),
            );
            Ok::<_, BuildError>(Destination { route: route.conditions.to_string().into(), target, deadline })
        };
        Ok(Self {
            name: Arc::clone(&app.name),
            header: HeaderValue::from_str(&app.name)?,
            verifier: verifier.map_or_else(|| Verifier::new(app.public_key.clone()).into(), Arc::clone),
            handler,
            routes: Routes::new(app.routes.iter().map(|route| &route.conditions)),
            destinations: app.routes.iter().map(destination).collect::<Result<_, _>>()?,
            in_flight: before.map_or_else(|| Budget::new(app.in_flight), |app| Arc::clone(&app.in_flight)),
            max_in_flight: app.in_flight,
            deadline: Deadline::new(app.answer_within, app.on_slow, app.ephemeral),
            give_up_after: app.give_up_after,
            error_message: app.error_message.clone(),
            fallback: app.error_message.as_deref().unwrap_or(FALLBACK).into(),
        })
    }
}
