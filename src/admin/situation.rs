//! How the daemon is, in its own words: it writes, the admin listener reads.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

/// What is so now.
pub struct Situation(ArcSwap<Facts>);

/// All of it at one moment. Times are times of day, since 1970.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Where it is between its start and its end.
    pub phase: Phase,
    /// When it was started.
    pub started: Duration,
    /// What it listens on.
    pub listens: Arc<[String]>,
    /// The certificate that is served; `None` without TLS.
    pub certificate: Option<Certificate>,
    /// The config in force.
    pub config: ConfigFile,
    /// Threads that do not get on.
    pub stuck_threads: usize,
}

/// Where a daemon is between its start and its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing is accepted yet.
    Starting,
    /// As it should be.
    Serving,
    /// It is asked to stop, and finishes what is in flight.
    Draining,
}

/// A certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Where it stands.
    pub file: PathBuf,
    /// Its end.
    pub expires: Duration,
    /// From when on it is to be renewed.
    pub renew_from: Duration,
}

/// The config in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFile {
    /// Where it came from, if from a file.
    pub file: Option<PathBuf>,
    /// When it was read.
    pub loaded: Duration,
    /// Why it is not the one that the file holds now: the last reload failed.
    pub error: Option<ReloadFailure>,
}

/// A reload that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReloadFailure {
    /// When.
    pub time: Duration,
    /// Why, in one line.
    pub brief: String,
    /// Why, with all mistakes, each shown where it is.
    pub text: String,
}

impl Situation {
    /// Of a daemon that starts now.
    pub fn new(now: Duration, listens: Vec<String>) -> Arc<Self> {
        let config = ConfigFile { file: None, loaded: now, error: None };
        let (phase, listens) = (Phase::Starting, listens.into());
        Arc::new(Self(ArcSwap::from_pointee(Facts {
            phase,
            started: now,
            listens,
            certificate: None,
            config,
            stuck_threads: 0,
        })))
    }

    /// What is so now.
    pub fn facts(&self) -> Arc<Facts> {
        self.0.load_full()
    }

    /// It goes on to another phase; never back.
    pub fn enter(&self, phase: Phase) {
        self.change(|facts| match (facts.phase, phase) {
            (Phase::Draining, _) | (Phase::Serving, Phase::Starting) => {}
            _ => facts.phase = phase,
        });
    }

    /// Another certificate is served, or none.
    pub fn serves_with(&self, certificate: Option<Certificate>) {
        self.change(|facts| facts.certificate.clone_from(&certificate));
    }

    /// The config comes from that file.
    pub fn is_of_file(&self, file: PathBuf) {
        self.change(|facts| facts.config.file = Some(file.clone()));
    }

    /// What the file holds is in force since now.
    pub fn loaded(&self, now: Duration) {
        self.change(|facts| (facts.config.loaded, facts.config.error) = (now, None));
    }

    /// What the file holds cannot be used.
    pub fn not_loaded(&self, failure: ReloadFailure) {
        self.change(|facts| facts.config.error = Some(failure.clone()));
    }

    /// So many threads do not get on.
    pub fn has_stuck_threads(&self, count: usize) {
        if self.facts().stuck_threads != count {
            self.change(|facts| facts.stuck_threads = count);
        }
    }

    fn change(&self, change: impl Fn(&mut Facts)) {
        self.0.rcu(|facts| {
            let mut facts = Facts::clone(facts);
            change(&mut facts);
            facts
        });
    }
}

impl Phase {
    /// A word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Draining => "draining",
        }
    }
}
