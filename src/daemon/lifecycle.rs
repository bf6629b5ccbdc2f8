//! Signals: the first asks for a stop, the second for an end.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tracing::{info, warn};

/// Owns the process's signals and what follows from them.
pub struct Lifecycle {
    terminate: Signal,
    interrupt: Signal,
    stop: watch::Sender<bool>,
}

impl Lifecycle {
    /// Takes the signals over.
    ///
    /// # Errors
    ///
    /// If the system does not give them.
    pub fn start() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            stop: watch::Sender::new(false),
        })
    }

    /// Becomes true when the process is to stop.
    pub fn stop(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    /// Follows the signals while `work` runs, which is to end soon after [`Lifecycle::stop`] becomes true. `false` if
    /// a second signal cut it off.
    pub async fn run(mut self, work: impl Future<Output = ()>) -> bool {
        tokio::pin!(work);
        tokio::select! {
            () = &mut work => return true,
            () = next(&mut self.terminate, &mut self.interrupt) => {}
        }
        info!("stopping: finishing what is in flight; a second signal ends at once");
        self.stop.send_replace(true);
        tokio::select! {
            () = work => {
                info!("stopped");
                true
            }
            () = next(&mut self.terminate, &mut self.interrupt) => {
                warn!("ended at once by a second signal");
                false
            }
        }
    }
}

async fn next(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
