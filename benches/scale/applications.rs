//! Many applications, and many routes of one.

use std::fmt::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::time::sleep;

use crate::Bench;
use crate::load::{Batch, Clients, Discord};
use crate::plot::{self, Axis, Lines};
use crate::process::Server;
use crate::table::spread;
use crate::turns::{Turns, take_turns};
use crate::units::{count, judge, megabytes, millis};

const CONNECTIONS: usize = 32;
/// Milliseconds from start to the first PONG, with one application.
const START_BAR: f64 = 15.0;
/// For a daemon to be done with its start.
const SETTLE: Duration = Duration::from_millis(300);
const APPLICATIONS: [usize; 4] = [1, 10, 100, 1_000];
const ROUTES: [usize; 3] = [10, 1_000, 10_000];

/// A daemon with a config of its own, and whoever sends commands to it.
struct Site {
    name: String,
    settings: String,
    /// By application.
    senders: Vec<Sender>,
}

/// Discord, to one application.
struct Sender {
    discord: Discord,
    path: String,
    command: String,
}

/// What a site's daemon took before any load.
struct Start {
    millis: [f64; 3],
    megabytes: f64,
}

pub(crate) async fn measure(bench: &Bench) -> Result<()> {
    println!("\n## Applications and routes\n");
    println!(
        "Applications: each has its own key and path, and gets as many commands as the others. Routes: each is"
    );
    println!(
        "of a command of its own; what is asked for is the last. {CONNECTIONS} connections; by Nginx: the ratio to"
    );
    println!("its plain forwarding in the same round. Memory: VmRSS after one PING.\n");
    let mut sites = Vec::new();
    for applications in APPLICATIONS {
        sites.push(Site::with_applications(applications, bench)?);
    }
    for routes in ROUTES {
        sites.push(Site::with_routes(routes, bench)?);
    }
    let (mut servers, mut starts) = (Vec::new(), Vec::new());
    for site in &mut sites {
        let (start, server) = site.start(bench).await?;
        starts.push(start);
        servers.push(server);
    }
    servers.push(bench.nginx.start(bench.handler.address)?);
    let servers: Vec<_> = servers.iter().collect();
    let requests = CONNECTIONS + bench.many(4_000, 2_000);
    let mut to_nginx = Discord::new()?;
    let batch = |server: usize| match sites.get_mut(server) {
        Some(site) => site.commands(requests),
        None => to_nginx.commands(requests),
    };
    let turns = take_turns(&servers, bench.many(6, 2), CONNECTIONS, &bench.handler, batch).await?;
    let (nginx, daemons) = turns.split_last().context("nothing was measured")?;
    println!("| | CPU time per command | by Nginx | of all rounds | start to first PONG | memory |");
    println!("|---|--:|--:|--:|--:|--:|");
    for ((site, start), turns) in sites.iter().zip(&starts).zip(daemons) {
        let [least, ratio, most] = turns.cpu_by(nginx);
        let [fastest, median, slowest] = start.millis;
        println!(
            "| {} | {:.1} µs | {ratio:.2} | {least:.2}–{most:.2} | {median:.1} ms ({fastest:.1}–{slowest:.1}) | {:.1} MB |",
            site.name,
            turns.cpu(),
            start.megabytes
        );
    }
    println!("| Nginx | {:.1} µs | 1 | | | |\n", nginx.cpu());
    judge("start to first PONG with one application", starts[0].millis[1], START_BAR, "ms");
    if bench.is_quick { Ok(()) } else { draw(daemons, &starts) }
}

impl Site {
    fn with_applications(applications: usize, bench: &Bench) -> Result<Self> {
        let mut settings = named_handler(bench);
        let mut senders = vec![Sender::new("/interactions", "music play")?];
        for number in 1..applications {
            let sender = Sender::new(&format!("/interactions/{number}"), "music play")?;
            write!(
                settings,
                "[apps.bench{number}]\npublic_key = \"{}\"\npath = \"{}\"\nhandler = \"all\"\n",
                sender.discord.public_key(),
                sender.path
            )?;
            senders.push(sender);
        }
        let name = match applications {
            1 => "1 application".to_owned(),
            many => format!("{} applications", count(many)),
        };
        Ok(Self { name, settings, senders })
    }

    fn with_routes(routes: usize, bench: &Bench) -> Result<Self> {
        let mut settings = named_handler(bench);
        for number in 1..=routes {
            write!(settings, "[[apps.bench.routes]]\ncommand = \"command{number}\"\nhandler = \"all\"\n")?;
        }
        let senders = vec![Sender::new("/interactions", &format!("command{routes}"))?];
        Ok(Self { name: format!("{} routes", count(routes)), settings, senders })
    }

    /// The times of several starts; the last one goes on.
    async fn start(&mut self, bench: &Bench) -> Result<(Start, Server)> {
        let mut times = Vec::new();
        let mut server = None;
        for _ in 0..bench.many(10, 3) {
            drop(server.take());
            let (time, started) = self.start_once(bench).await?;
            times.push(millis(time));
            server = Some(started);
        }
        let server = server.context("nothing was started")?;
        sleep(SETTLE).await;
        let megabytes = megabytes(server.resident_bytes()?);
        Ok((Start { millis: spread(times.into_iter()), megabytes }, server))
    }

    async fn start_once(&mut self, bench: &Bench) -> Result<(Duration, Server)> {
        let discord = &mut self.senders[0].discord;
        let ping = discord.pings(1);
        let start = Instant::now();
        let server = bench.start_daemon(discord, &self.settings)?;
        Clients::connect(server.address, 1).await?.play(ping).await?;
        Ok((start.elapsed(), server))
    }

    /// Commands to each application in turn.
    fn commands(&mut self, count: usize) -> Result<Batch> {
        let applications = self.senders.len();
        let requests = (0..count).map(|number| self.senders[number % applications].command());
        Ok(Batch::of_commands(requests.collect::<Result<_>>()?))
    }
}

impl Sender {
    fn new(path: &str, command: &str) -> Result<Self> {
        Ok(Self { discord: Discord::new()?, path: path.to_owned(), command: command.to_owned() })
    }

    fn command(&mut self) -> Result<Vec<u8>> {
        self.discord.command(&self.path, &self.command, "never gonna give you up")
    }
}

/// One handler for all, since a URL of each would be a handler of each.
fn named_handler(bench: &Bench) -> String {
    format!("[handlers.all]\nurls = [\"http://{}/interactions\"]\n", bench.handler.address)
}

fn draw(daemons: &[Turns], starts: &[Start]) -> Result<()> {
    let curve = |sizes: &[usize], from: usize, value: &dyn Fn(usize) -> f64| {
        sizes.iter().enumerate().map(|(place, size)| (*size as f64, value(from + place))).collect()
    };
    let series = |value: &dyn Fn(usize) -> f64| {
        [
            ("applications".to_owned(), curve(&APPLICATIONS, 0, value)),
            ("routes of one application".to_owned(), curve(&ROUTES, APPLICATIONS.len(), value)),
        ]
    };
    let x = Axis { name: "applications, or routes", is_logarithmic: true };
    plot::lines(
        "scale-applications",
        &Lines {
            title: "CPU time per command, by applications and by routes",
            x,
            y: Axis { name: "µs", is_logarithmic: false },
            series: &series(&|place| daemons[place].cpu()),
        },
    )?;
    plot::lines(
        "scale-start",
        &Lines {
            title: "Start to first PONG, by applications and by routes",
            x,
            y: Axis { name: "ms", is_logarithmic: true },
            series: &series(&|place| starts[place].millis[1]),
        },
    )?;
    Ok(())
}
