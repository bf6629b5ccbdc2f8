//! Writes the manual and the shells' completions, as they are to be installed:
//! `cargo run --example manual -- FOLDER DATE` makes FOLDER/man1, man5, bash, zsh and fish.
//!
//! The pages of the commands come from the command line's own definition, shardless.toml(5) from the config file that
//! documents every key. All of it is the same for everyone who gives the same date.

use std::error::Error;
use std::fs::{self, File};
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, roman};
use shardless::cli::Cli;

const CONFIG: &str = include_str!("../config/shardless.toml");
const SOURCE: &str = concat!("shardless ", env!("CARGO_PKG_VERSION"));

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, date] = arguments.as_slice() else { return Err("usage: manual FOLDER DATE".into()) };
    let folder = Path::new(folder);
    for name in ["man1", "man5", "bash", "zsh", "fish"] {
        fs::create_dir_all(folder.join(name))?;
    }
    commands(&folder.join("man1"), date)?;
    config(date).to_writer(&mut File::create(folder.join("man5/shardless.toml.5"))?)?;
    for (shell, file) in [
        (Shell::Bash, "bash/shardless"),
        (Shell::Zsh, "zsh/_shardless"),
        (Shell::Fish, "fish/shardless.fish"),
    ] {
        clap_complete::generate(
            shell,
            &mut Cli::command(),
            "shardless",
            &mut File::create(folder.join(file))?,
        );
    }
    Ok(())
}

/// shardless(1), and a page for each of its commands.
fn commands(folder: &Path, date: &str) -> Result<(), Box<dyn Error>> {
    let mut shardless = Cli::command().disable_help_subcommand(true);
    shardless.build();
    let page = |command| Man::new(command).date(date).source(SOURCE).manual("shardless");
    for command in shardless.get_subcommands() {
        page(command.clone()).generate_to(folder)?;
        for part in command.get_subcommands() {
            page(part.clone()).generate_to(folder)?;
        }
    }

    let page = page(shardless);
    let mut file = File::create(folder.join("shardless.1"))?;
    page.render_title(&mut file)?;
    page.render_name_section(&mut file)?;
    page.render_synopsis_section(&mut file)?;
    page.render_description_section(&mut file)?;
    page.render_options_section(&mut file)?;
    page.render_subcommands_section(&mut file)?;
    about_the_daemon().to_writer(&mut file)?;
    Ok(())
}

/// What the definition of the command line does not know.
fn about_the_daemon() -> Roff {
    let mut page = Roff::new();
    let sections: [(&str, &[(&str, &str)]); 3] = [
        (
            "FILES",
            &[
                ("/etc/shardless/config.toml", "The config, see shardless.toml(5)."),
                ("/var/lib/shardless", "What the daemon keeps, such as its self-signed certificate."),
                ("/usr/share/shardless", "Site files for Nginx and Apache, example configs, and guides."),
            ],
        ),
        (
            "SIGNALS",
            &[
                (
                    "SIGHUP",
                    "Take over what has changed in the config; with a mistake in it, go on with the old one.",
                ),
                ("SIGTERM, SIGINT", "Answer what is in flight, then exit; a second one exits at once."),
            ],
        ),
        (
            "EXIT STATUS",
            &[
                ("0", "All went well; for send: Discord would accept the answer."),
                ("1", "It did not, such as a port that is in use."),
                ("2", "The command line is not understood."),
                ("78", "The config, or what it names, cannot be used; the message names the line."),
            ],
        ),
    ];
    for (title, entries) in sections {
        page.control("SH", [title]);
        for (term, text) in entries {
            entry(&mut page, vec![bold(*term)], text);
        }
    }
    page.control("SH", ["SEE ALSO"]);
    page.text([bold("shardless.toml"), roman("(5), "), bold("systemctl"), roman("(1)")]);
    page
}

/// shardless.toml(5): each key with its value and the comment above it.
fn config(date: &str) -> Roff {
    let mut page = Roff::new();
    page.control("TH", ["shardless.toml", "5", date, SOURCE, "shardless"]);
    page.control("SH", ["NAME"]);
    page.text([roman("shardless.toml - configuration of the shardless daemon")]);
    page.control("SH", ["SYNOPSIS"]);
    page.text([bold("/etc/shardless/config.toml")]);
    page.control("SH", ["DESCRIPTION"]);
    page.text([roman(
        "A TOML file. The values below are the defaults; a key that is marked as an example has none.",
    )]);
    let mut comment = Vec::new();
    for line in CONFIG.lines() {
        let (statement, active) = match line.strip_prefix('#') {
            Some(commented) => (commented.trim(), false),
            None => (line.trim(), true),
        };
        let is_toml = !statement.is_empty() && statement.parse::<toml::Table>().is_ok();
        let text = || comment.join(" ");
        if statement.is_empty() {
            page.text([roman(text())]);
        } else if !is_toml {
            comment.push(statement);
            continue;
        } else if let Some((key, value)) = statement.split_once(" = ") {
            let mut term = vec![bold(key), roman(format!(" = {value}"))];
            if !active {
                term.push(roman("  (example)"));
            }
            entry(&mut page, term, &text());
        } else {
            page.control("SH", [statement]);
            page.text([roman(text())]);
        }
        comment.clear();
    }
    page.control("SH", ["SEE ALSO"]);
    page.text([bold("shardless"), roman("(1), "), bold("shardless-check"), roman("(1)")]);
    page
}

fn entry(page: &mut Roff, term: Vec<Inline>, text: &str) {
    page.control("TP", []);
    page.text(term);
    page.text([roman(text)]);
}
