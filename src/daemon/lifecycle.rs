//! Signals, and what the service manager is told: one owner for both.
//!
//! The first SIGTERM or SIGINT asks for a stop, a second one for an end; SIGHUP asks for the config to be read anew.

use std::io;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tracing::{info, warn};

use super::{Daemon, Reload, stuck};
use crate::pulse::Pulse;
use crate::systemd::{self, Manager};
use crate::workers::Workers;

/// What a stop may take beside two waits, for what is deferred and for what is in flight: the last deliveries.
const END: Duration = Duration::from_secs(10);

/// Owns the process's signals and what follows from them.
pub struct Lifecycle {
    manager: Manager,
    stop: StopSignals,
    hangup: Signal,
}

struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl Lifecycle {
    /// Takes the signals over.
    ///
    /// # Errors
    ///
    /// If the system does not give them.
    pub fn start() -> io::Result<Self> {
        let stop = StopSignals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        };
        Ok(Self { manager: Manager::new()?, stop, hangup: signal(SignalKind::hangup())? })
    }

    /// Waits for any signal, for a program that has nothing to reload.
    pub async fn asked_to_end(&mut self) {
        tokio::select! {
            () = self.stop.next() => {}
            _ = self.hangup.recv() => {}
        }
    }

    /// Runs the daemon until a signal stops it. `false` if it ended in another way than by finishing what is in flight.
    pub async fn run(mut self, daemon: Daemon, workers: Workers, reload: Reload) -> bool {
        let (stop, stopped) = watch::channel(false);
        let (status, reload) = (daemon.status(), Arc::new(reload));
        stuck::watch(&workers, daemon.situation());
        if let Some(patience) = systemd::watchdog() {
            let situation = daemon.situation();
            let is_well = move || situation.facts().stuck_threads == 0;
            tokio::spawn(watchdog(daemon.pulse(), stopped.clone(), patience, is_well, systemd::alive));
        }
        let mut work = tokio::spawn(daemon.run(workers, stopped));
        self.manager.ready(&status);
        loop {
            tokio::select! {
                ended = &mut work => return ended.is_ok(),
                () = self.stop.next() => break,
                // Files that hang must not make a stop hang too.
                _ = self.hangup.recv() => tokio::select! {
                    () = read_anew(&self.manager, &reload) => {}
                    () = self.stop.next() => break,
                },
            }
        }
        info!("stopping: finishing what is in flight; a second signal ends at once");
        self.manager.stopping(2 * reload.drain_timeout() + END, "Finishing what is in flight");
        stop.send_replace(true);
        tokio::select! {
            ended = &mut work => {
                info!("stopped");
                ended.is_ok()
            }
            () = self.stop.next() => {
                reload.last_words();
                warn!("ended at once by a second signal");
                false
            }
        }
    }
}

impl StopSignals {
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

async fn read_anew(manager: &Manager, reload: &Arc<Reload>) {
    manager.reloading();
    let reload = Arc::clone(reload);
    // It reads files, and this thread accepts connections.
    let status = tokio::task::spawn_blocking(move || reload.run()).await;
    manager.ready(&status.unwrap_or_else(|_| "Serving by an earlier config: see the log".to_owned()));
}

/// Says that the daemon is well, as long as the timer ticks, the accept loop goes round, and no thread is stuck.
async fn watchdog(
    pulse: Pulse,
    mut stop: watch::Receiver<bool>,
    patience: Duration,
    is_well: impl Fn() -> bool,
    say: impl Fn() + Send + 'static,
) {
    // By a thread of its own: whom it is said to may hang.
    let (well, wells) = mpsc::sync_channel(1);
    std::thread::spawn(move || wells.iter().for_each(|()| say()));
    loop {
        tokio::select! {
            () = pulse.beat() => {}
            // Nothing is accepted any more. How long a stop may take, the service manager knows.
            _ = stop.wait_for(|stop| *stop) => {}
        }
        if is_well() {
            // If what was said before is not out yet, it will do.
            _ = well.try_send(());
        }
        tokio::time::sleep(patience / 4).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn nothing_is_said_while_a_worker_or_the_accept_loop_stands_still() {
        let (pulse, said) = (Pulse::default(), Arc::new(AtomicUsize::new(0)));
        let well = Arc::new(AtomicBool::new(true));
        let is_well = {
            let well = Arc::clone(&well);
            move || well.load(Ordering::SeqCst)
        };
        let (stop, stopped) = watch::channel(false);
        let counted = Arc::clone(&said);
        let say = move || _ = counted.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(watchdog(pulse.clone(), stopped, Duration::from_millis(4), is_well, say));
        let goes_round = tokio::spawn({
            let pulse = pulse.clone();
            async move { pulse.answer_all().await }
        });
        let three_more = async || {
            let before = said.load(Ordering::SeqCst);
            while said.load(Ordering::SeqCst) < before + 3 {
                tokio::task::yield_now().await;
            }
        };
        let no_more = async || {
            // What was to be said may still be on its way.
            for _ in 0..20 {
                let before = said.load(Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(100)).await;
                if said.load(Ordering::SeqCst) == before {
                    return;
                }
            }
            panic!("it goes on");
        };
        three_more().await;
        well.store(false, Ordering::SeqCst);
        no_more().await;
        well.store(true, Ordering::SeqCst);
        three_more().await;
        goes_round.abort();
        _ = goes_round.await;
        no_more().await;
        stop.send_replace(true);
        three_more().await;
    }
}
