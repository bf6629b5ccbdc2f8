//! What was found, as a person reads it: a line for each check, and below it what to do.

use std::io::Write;
use std::time::Duration;

use super::Target;

/// Columns of the checks' names.
const NAMES: usize = 13;
/// Advice is broken to fit into so many columns.
const WIDTH: usize = 100;

/// What one check found.
#[derive(Debug)]
pub(super) struct Finding {
    mark: Mark,
    text: String,
    advice: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Good,
    Warning,
    Bad,
}

/// All that was found so far.
#[derive(Debug, Default)]
pub(super) struct Report {
    bad: usize,
    warnings: usize,
}

impl Finding {
    /// As Discord wants it.
    pub(super) fn good(text: impl Into<String>) -> Self {
        Self { mark: Mark::Good, text: text.into(), advice: String::new() }
    }

    /// Validation can pass all the same.
    pub(super) fn warning(text: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { mark: Mark::Warning, text: text.into(), advice: advice.into() }
    }

    /// Validation cannot pass.
    pub(super) fn bad(text: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { mark: Mark::Bad, text: text.into(), advice: advice.into() }
    }
}

impl Report {
    pub(super) fn add(&mut self, name: &str, finding: Finding) {
        let mark = match finding.mark {
            Mark::Good => '✔',
            Mark::Warning => '!',
            Mark::Bad => '✘',
        };
        self.bad += usize::from(finding.mark == Mark::Bad);
        self.warnings += usize::from(finding.mark == Mark::Warning);
        say(&format!("{mark} {name:NAMES$}{}", finding.text));
        for line in wrapped(&finding.advice, WIDTH - NAMES - 2) {
            say(&format!("  {:NAMES$}{line}", ""));
        }
    }

    /// For a check that there is not always something to say of.
    pub(super) fn add_some(&mut self, name: &str, finding: Option<Finding>) {
        if let Some(finding) = finding {
            self.add(name, finding);
        }
    }

    pub(super) fn can_pass(&self) -> bool {
        self.bad == 0
    }

    /// The last words. `whole` is whether every check was made.
    pub(super) fn conclude(&self, target: &Target, whole: bool) {
        say("");
        let text = if self.can_pass() {
            let mind = if self.warnings > 0 { " Mind what is marked with ! first." } else { "" };
            format!(
                "Discord's validation can pass.{mind}\n\
                 Save {target} in the Developer Portal: your application, General Information, Interactions \
                 Endpoint URL.\n\
                 What this cannot tell, since only Discord can sign: whether `public_key` in the config is this \
                 application's, and whether something changes bodies on the way. If the portal refuses the URL all \
                 the same, it is one of these; the key is on the same page, Public Key."
            )
        } else {
            let rest = if whole { "" } else { " The checks after that were not made." };
            format!("Discord's validation cannot pass. Mend what is marked with ✘, then probe again.{rest}")
        };
        wrapped(&text, WIDTH).iter().for_each(|line| say(line));
    }
}

/// Prints a line, as soon as it is known. Whoever does not read on (`| head`) has read enough.
fn say(line: &str) {
    _ = writeln!(std::io::stdout(), "{line}");
}

/// A text in lines of at most so many characters, where its words allow it. An indented line is a command, to be copied:
/// it stays whole.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for line in text.lines() {
        if line.starts_with(' ') {
            lines.push(line.to_owned());
        } else {
            lines.extend(wrapped_line(line, width));
        }
    }
    lines
}

fn wrapped_line(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// What a stranger sent, on one line and cut: it must not steer the terminal.
pub(super) fn plain(text: &str, limit: usize) -> String {
    let mut shown = String::new();
    for (index, character) in text.trim().chars().enumerate() {
        if index == limit {
            shown.push('…');
            break;
        }
        match character {
            '"' | '\'' | '\\' => shown.push(character),
            // Escapes what is not to be seen too, such as what turns the direction of writing.
            other => shown.extend(other.escape_debug()),
        }
    }
    shown
}

/// `12 ms`, `3.2 s`.
pub(super) fn duration(time: Duration) -> String {
    match time.as_millis() {
        0 => "under 1 ms".to_owned(),
        milliseconds @ 1..1000 => format!("{milliseconds} ms"),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_does_not_steer_the_terminal() {
        assert_eq!(plain(" nginx \"1\"\\ ", 40), "nginx \"1\"\\");
        assert_eq!(plain("a\u{1b}[31m\r\nb\u{202e}c\u{9b}", 40), "a\\u{1b}[31m\\r\\nb\\u{202e}c\\u{9b}");
        assert_eq!(plain(&"ü".repeat(50), 3), "üüü…");
    }

    #[test]
    fn advice_is_broken_between_words() {
        assert_eq!(wrapped("one two  three", 7), ["one two", "three"]);
        assert_eq!(wrapped("unbreakable", 3), ["unbreakable"]);
        assert_eq!(wrapped("one two\n  a command", 3), ["one", "two", "  a command"]);
        assert!(wrapped("", 3).is_empty());
    }
}
