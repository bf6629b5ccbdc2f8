//! What systemd hands to the daemon, and what the daemon tells it. Where it was not started by systemd, nothing is
//! handed over, and what is told goes nowhere.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use listenfd::ListenFd;
use sd_notify::NotifyState;

/// Characters of a status that are shown.
const STATUS_CHARACTERS: usize = 500;

/// Listening sockets that are open already, before the daemon starts and after it ends: connections wait in them
/// meanwhile.
///
/// Source: sd_listen_fds(3).
#[derive(Debug, Default)]
pub struct Sockets {
    /// TCP.
    pub tcp: Vec<TcpListener>,
    /// Unix streams.
    pub unix: Vec<UnixListener>,
    /// How many there are besides that are neither.
    pub others: usize,
}

impl Sockets {
    /// Takes those that were handed to this process. To be called once.
    pub fn take() -> Self {
        let mut handed_over = ListenFd::from_env();
        let mut sockets = Self::default();
        for index in 0..handed_over.len() {
            if let Ok(Some(listener)) = handed_over.take_tcp_listener(index) {
                sockets.tcp.push(listener);
            } else if let Ok(Some(listener)) = handed_over.take_unix_listener(index) {
                sockets.unix.push(listener);
            } else {
                sockets.others += 1;
            }
        }
        sockets
    }

    /// Parts with those TCP sockets whose address `is_wanted`.
    pub fn part(&mut self, is_wanted: impl Fn(SocketAddr) -> bool) -> Self {
        let is_wanted = |socket: &mut TcpListener| socket.local_addr().is_ok_and(&is_wanted);
        Self { tcp: self.tcp.extract_if(.., is_wanted).collect(), ..Self::default() }
    }
}

/// The service manager. It is told by a thread of its own, since it may hang, and nobody here is to wait for it.
pub struct Manager(mpsc::SyncSender<Saying>);

type Saying = Box<dyn FnOnce() + Send>;

/// Said and not heard yet; past it nothing more is said to one who hears nothing.
const UNHEARD: usize = 16;

impl Manager {
    /// Whoever started this process.
    ///
    /// # Errors
    ///
    /// If the system does not give the thread.
    pub fn new() -> io::Result<Self> {
        let (say, said) = mpsc::sync_channel::<Saying>(UNHEARD);
        let tell = move || said.iter().for_each(|saying| saying());
        thread::Builder::new().name("manager".to_owned()).spawn(tell)?;
        Ok(Self(say))
    }

    /// The daemon serves; `status` is what `systemctl status` shows. Also ends a reload.
    pub fn ready(&self, status: &str) {
        let status = one_line(status);
        self.say(move || notify(&[NotifyState::Ready, NotifyState::Status(&status)]));
    }

    /// A reload has begun.
    pub fn reloading(&self) {
        let now = NotifyState::monotonic_usec_now().ok();
        self.say(move || notify(&[NotifyState::Reloading].into_iter().chain(now).collect::<Vec<_>>()));
    }

    /// A stop has begun, and may take so long.
    pub fn stopping(&self, at_most: Duration, status: &str) {
        let microseconds = u32::try_from(at_most.as_micros()).unwrap_or(u32::MAX);
        let status = one_line(status);
        self.say(move || {
            let extend = NotifyState::ExtendTimeoutUsec(microseconds);
            notify(&[NotifyState::Stopping, NotifyState::Status(&status), extend]);
        });
    }

    fn say(&self, saying: impl FnOnce() + Send + 'static) {
        _ = self.0.try_send(Box::new(saying));
    }
}

/// The daemon is well. To be told more often than [`watchdog`] says; it may take as long as the service manager hangs.
pub fn alive() {
    notify(&[NotifyState::Watchdog]);
}

/// How long systemd waits for [`alive`] before it takes the daemon for dead; `None` if it does not.
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

/// Whether standard error goes straight to the journal.
///
/// Source: systemd.exec(5), `$JOURNAL_STREAM`.
pub fn stderr_is_the_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let stderr =
        || -> io::Result<_> { std::fs::File::from(io::stderr().as_fd().try_clone_to_owned()?).metadata() };
    stderr().is_ok_and(|file| stream == format!("{}:{}", file.dev(), file.ino()))
}

/// systemd reads one assignment a line, and no message at all that is longer than 4096 bytes.
fn one_line(status: &str) -> String {
    status.chars().map(|c| if c.is_control() { ' ' } else { c }).take(STATUS_CHARACTERS).collect()
}

/// A service manager that is not listening is no trouble of ours.
fn notify(state: &[NotifyState<'_>]) {
    _ = sd_notify::notify(state);
}
