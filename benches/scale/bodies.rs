//! Large bodies.

use anyhow::{Result, ensure};

use crate::Bench;
use crate::load::{Batch, Discord};
use crate::plot::{self, Axis, Lines};
use crate::process::NginxSetup;
use crate::turns::take_turns;
use crate::units::count;

const CONNECTIONS: usize = 8;
/// Bytes of a body, and how many of them are sent. The first is what a command has that is not made longer.
const BODIES: [(usize, usize); 4] = [(0, 4_000), (10_000, 3_000), (100_000, 1_000), (1_000_000, 150)];
/// It keeps bodies in memory, as the daemon does, instead of writing them to files.
const NGINX_HTTP: &str = "client_max_body_size 2m;\nclient_body_buffer_size 2m;";

pub(crate) async fn measure(bench: &Bench) -> Result<()> {
    println!("\n## Bodies\n");
    println!(
        "{CONNECTIONS} connections. Nginx takes bodies of 2 MB here, and holds them in memory as the daemon does.\n"
    );
    println!("| body | daemon | Nginx | daemon / Nginx | of all rounds |");
    println!("|--:|--:|--:|--:|--:|");
    let mut discord = Discord::new()?;
    let daemon = bench.start_daemon(&discord, "")?;
    let setup = NginxSetup { http: NGINX_HTTP, ..NginxSetup::default() };
    let nginx = bench.nginx.start_as(bench.handler.address, &setup)?;
    let mut curves = [Vec::new(), Vec::new()];
    for (bytes, requests) in BODIES {
        let requests = CONNECTIONS + bench.many(requests, requests / 3);
        let (bytes, text) = filling(&mut discord, bytes)?;
        let batch = |_| {
            let all = (0..requests).map(|_| discord.command("/interactions", "music play", &text));
            let batch = Batch::of_commands(all.collect::<Result<_>>()?);
            ensure!(batch.body_length() == bytes, "a body of {} bytes", batch.body_length());
            Ok(batch)
        };
        let rounds = bench.many(6, 2);
        let turns = take_turns(&[&daemon, &nginx], rounds, CONNECTIONS, &bench.handler, batch).await?;
        let [least, ratio, most] = turns[0].cpu_by(&turns[1]);
        println!(
            "| {} bytes | {:.1} µs | {:.1} µs | {ratio:.2} | {least:.2}–{most:.2} |",
            count(bytes),
            turns[0].cpu(),
            turns[1].cpu()
        );
        for (curve, turns) in curves.iter_mut().zip(&turns) {
            curve.push((bytes as f64, turns.cpu()));
        }
    }
    if bench.is_quick { Ok(()) } else { draw(curves) }
}

/// A text that makes a command's body so long, or as short as it is without; and how long that is.
fn filling(discord: &mut Discord, bytes: usize) -> Result<(usize, String)> {
    let bare = Batch::of_commands(vec![discord.command("/interactions", "music play", "")?]).body_length();
    let bytes = bytes.max(bare);
    Ok((bytes, "x".repeat(bytes - bare)))
}

fn draw([daemon, nginx]: [Vec<(f64, f64)>; 2]) -> Result<()> {
    plot::lines(
        "scale-bodies",
        &Lines {
            title: "CPU time per command, by its body",
            x: Axis { name: "bytes of the body", is_logarithmic: true },
            y: Axis { name: "µs", is_logarithmic: true },
            series: &[("daemon".to_owned(), daemon), ("Nginx".to_owned(), nginx)],
        },
    )?;
    Ok(())
}
