//! The servers under test, each a process of its own that is stopped when dropped.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use shardless::discord::signature::PublicKey;
use tempfile::TempDir;

/// A server that was started. It may not listen yet.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    child: Child,
    /// How to stop it, where killing its first process would leave others behind.
    stop: Option<Command>,
    clock: Clock,
    /// Its config and its log; goes with it.
    _folder: TempDir,
}

/// Where a server's CPU time is read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clock {
    /// At each of its threads, in nanoseconds.
    Threads,
    /// At the process, in ticks of 10 ms. For one whose threads end, and take with them what they have used.
    Process,
}

/// `nginx -v` and the like.
pub(crate) struct Nginx {
    program: PathBuf,
    pub(crate) version: String,
}

/// How Nginx is started.
#[derive(Clone, Copy)]
pub(crate) struct NginxSetup<'a> {
    /// Cores that it is confined to, as `taskset` takes them.
    pub(crate) cores: Option<&'a str>,
    /// `worker_processes`.
    pub(crate) workers: &'a str,
    /// Lines of the block `events`.
    pub(crate) events: &'a str,
    /// Lines of the block `http`.
    pub(crate) http: &'a str,
}

impl Default for NginxSetup<'_> {
    fn default() -> Self {
        Self { cores: None, workers: "auto", events: "", http: "" }
    }
}

impl Server {
    /// The daemon with its default config but for `settings`: replay guard, metrics, and a log line per interaction.
    pub(crate) fn daemon(
        program: &Path,
        key: &PublicKey,
        handler: SocketAddr,
        settings: &str,
    ) -> Result<Self> {
        Self::daemon_by(Command::new(program), key, handler, settings)
    }

    /// The same by a command that the daemon's own arguments end.
    pub(crate) fn daemon_by(
        mut command: Command,
        key: &PublicKey,
        handler: SocketAddr,
        settings: &str,
    ) -> Result<Self> {
        let (folder, address) = (tempfile::tempdir()?, free_address()?);
        let config = folder.path().join("config.toml");
        let text = format!(
            "port = {}\nstate_dir = {:?}\n{settings}\n[apps.bench]\npublic_key = \"{key}\"\nhandler = \"http://{handler}/interactions\"\n",
            address.port(),
            folder.path(),
        );
        fs::write(&config, text)?;
        command.arg("serve").arg("--config").arg(config);
        let child = spawn(command, folder.path())?;
        Ok(Self { address, child, stop: None, clock: Clock::Threads, _folder: folder })
    }

    /// A bot, which reads from its environment where it is to listen and whose signatures it is to believe.
    pub(crate) fn bot(mut command: Command, key: &PublicKey, clock: Clock) -> Result<Self> {
        let (folder, address) = (tempfile::tempdir()?, free_address()?);
        command.env("PORT", address.port().to_string()).env("PUBLIC_KEY", key.to_string());
        let child = spawn(command, folder.path())?;
        Ok(Self { address, child, stop: None, clock, _folder: folder })
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) fn end(&mut self) -> Result<()> {
        let status = Command::new("kill").arg(self.child.id().to_string()).status()?;
        anyhow::ensure!(status.success(), "it had ended already");
        self.child.wait()?;
        Ok(())
    }

    /// Lets one that was confined have all cores from now on.
    pub(crate) fn set_free(&self) -> Result<()> {
        let all = format!("0-{}", std::thread::available_parallelism()?.get() - 1);
        let mut taskset = Command::new("taskset");
        taskset.args(["--all-tasks", "--cpu-list", "--pid", &all]).arg(self.child.id().to_string());
        anyhow::ensure!(taskset.stdout(Stdio::null()).status()?.success(), "taskset did not set it free");
        Ok(())
    }

    /// How long the process and its children were on a processor.
    pub(crate) fn cpu_time(&self) -> Result<Duration> {
        match self.clock {
            Clock::Threads => self.time_of_threads(),
            Clock::Process => self.time_of_process(),
        }
    }

    fn time_of_threads(&self) -> Result<Duration> {
        let mut nanoseconds = 0;
        for process in self.processes()? {
            for thread in fs::read_dir(format!("/proc/{process}/task"))? {
                let schedstat = fs::read_to_string(thread?.path().join("schedstat"))?;
                nanoseconds += schedstat.split(' ').next().unwrap_or_default().parse::<u64>()?;
            }
        }
        Ok(Duration::from_nanos(nanoseconds))
    }

    fn time_of_process(&self) -> Result<Duration> {
        /// `USER_HZ` is 100 on all that this runs on.
        const TICK: Duration = Duration::from_millis(10);
        /// Of the fields behind the program's name.
        const USER_AND_SYSTEM: std::ops::Range<usize> = 11..13;
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let (_, fields) = stat.rsplit_once(") ").context("no such stat")?;
        let fields = fields.split(' ').enumerate().filter(|(index, _)| USER_AND_SYSTEM.contains(index));
        let ticks = fields.map(|(_, ticks)| ticks.parse::<u32>()).sum::<Result<u32, _>>()?;
        Ok(TICK * ticks)
    }

    /// Bytes of memory of the first process.
    pub(crate) fn resident_bytes(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
    }

    /// Bytes of memory of all its processes, what they share counted once.
    pub(crate) fn proportional_bytes(&self) -> Result<u64> {
        let mut kilobytes = 0;
        for process in self.processes()? {
            let rollup = fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
            let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).context("no Pss")?;
            kilobytes += line.trim().trim_end_matches(" kB").parse::<u64>()?;
        }
        Ok(kilobytes * 1024)
    }

    /// Threads of the first process that have this name.
    pub(crate) fn threads(&self, name: &str) -> Result<usize> {
        let mut count = 0;
        for thread in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            count += usize::from(fs::read_to_string(thread?.path().join("comm"))?.trim() == name);
        }
        Ok(count)
    }

    /// The process that was started, and its children.
    fn processes(&self) -> Result<Vec<u32>> {
        let parent = self.child.id();
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))?;
        let children = children.split_whitespace().map(|child| Ok(child.parse()?));
        std::iter::once(Ok(parent)).chain(children).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let asked = self.stop.as_mut().is_some_and(|stop| stop.status().is_ok_and(|status| status.success()));
        if !asked {
            _ = self.child.kill();
        }
        _ = self.child.wait();
    }
}

impl Nginx {
    /// Distributions put it where users' shells do not look.
    pub(crate) fn find() -> Result<Self> {
        for program in ["nginx", "/usr/sbin/nginx", "/usr/local/sbin/nginx"] {
            if let Ok(output) = Command::new(program).arg("-v").output() {
                let text = String::from_utf8_lossy(&output.stderr);
                let version = text.rsplit('/').next().unwrap_or_default().trim().to_owned();
                return Ok(Self { program: program.into(), version });
            }
        }
        anyhow::bail!("Nginx is what the daemon is compared with: install it (apt install nginx)")
    }

    /// A plain `proxy_pass` with kept connections on both sides, a worker per core, and the access log that Nginx
    /// writes unless told otherwise, since the daemon logs each interaction too.
    pub(crate) fn start(&self, handler: SocketAddr) -> Result<Server> {
        self.start_as(handler, &NginxSetup::default())
    }

    /// The same, set up in another way.
    pub(crate) fn start_as(&self, handler: SocketAddr, setup: &NginxSetup<'_>) -> Result<Server> {
        let (folder, address) = (tempfile::tempdir()?, free_address()?);
        let config = folder.path().join("nginx.conf");
        fs::write(&config, nginx_config(address, handler, setup))?;
        let command = || {
            let mut command = confined(&self.program, setup.cores);
            command.arg("-p").arg(folder.path()).arg("-c").arg(&config).args(["-e", "error.log"]);
            command
        };
        let child = spawn(command(), folder.path())?;
        let mut stop = command();
        stop.args(["-s", "stop"]).stderr(Stdio::null());
        Ok(Server { address, child, stop: Some(stop), clock: Clock::Threads, _folder: folder })
    }
}

/// `keepalive_requests` is raised, so that no connection is opened anew while the clock runs.
fn nginx_config(address: SocketAddr, handler: SocketAddr, setup: &NginxSetup<'_>) -> String {
    let NginxSetup { workers, events, http, .. } = setup;
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temporary = temporary.map(|name| format!("{name}_temp_path {name};\n")).concat();
    format!(
        "daemon off;
        worker_processes {workers};
        pid nginx.pid;
        events {{ {events} }}
        http {{
            {http}
            access_log access.log;
            {temporary}
            keepalive_requests 1000000;
            upstream handler {{
                server {handler};
                keepalive 64;
                keepalive_requests 1000000;
            }}
            server {{
                listen {address};
                location / {{
                    proxy_pass http://handler;
                    proxy_http_version 1.1;
                    proxy_set_header Connection \"\";
                }}
            }}
        }}"
    )
}

/// A command that runs a program on these cores alone, or on all.
pub(crate) fn confined(program: &Path, cores: Option<&str>) -> Command {
    let Some(cores) = cores else { return Command::new(program) };
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", cores]).arg(program);
    command
}

fn spawn(mut command: Command, folder: &Path) -> Result<Child> {
    let log = File::create(folder.join("stderr.log"))?;
    let program = command.get_program().to_owned();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command.spawn().with_context(|| format!("cannot start {}", program.display()))
}

/// A port that was free a moment ago.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
