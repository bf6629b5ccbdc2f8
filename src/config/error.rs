//! Mistakes in a config file, shown where they are.

use std::fmt;
use std::ops::Range;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use thiserror::Error;

/// Why there is no config.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read the config file {path}: {source}{}", hint(source))]
    Unreadable {
        /// The file's path as it was given.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The file has mistakes.
    #[error("{0}")]
    Invalid(Mistakes),
}

fn hint(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::NotFound => "; name another with --config FILE or SHARDLESS_CONFIG",
        std::io::ErrorKind::PermissionDenied => "; the user that runs shardless must be able to read it",
        std::io::ErrorKind::InvalidData => "; a config file is UTF-8 text",
        _ => "",
    }
}

impl ConfigError {
    pub(super) fn invalid(name: &str, text: &str, mut mistakes: Vec<Mistake>) -> Self {
        for Mistake { what, advice, .. } in &mut mistakes {
            (*what, *advice) = (printable(what), printable(advice));
        }
        mistakes.sort_by_key(|mistake| mistake.span.start);
        Self::Invalid(Mistakes { name: name.to_owned(), text: text.to_owned(), mistakes })
    }

    /// The error in one line, for a log: the first mistake with its place, and how many more there are.
    pub fn brief(&self) -> String {
        match self {
            Self::Unreadable { .. } => self.to_string(),
            Self::Invalid(mistakes) => mistakes.brief(),
        }
    }

    /// The error for a terminal: with colours if `styled`.
    pub fn render(&self, styled: bool) -> String {
        match self {
            Self::Unreadable { .. } => format!("error: {self}"),
            Self::Invalid(mistakes) => mistakes.render(styled),
        }
    }
}

/// Names may hold anything: a line stays one, and nothing commands the terminal.
fn printable(text: &str) -> String {
    let escaped = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escaped).collect()
}

/// All mistakes of one file, in its order.
#[derive(Debug)]
pub struct Mistakes {
    name: String,
    text: String,
    mistakes: Vec<Mistake>,
}

/// One mistake: what it is, where, and what to do.
#[derive(Debug)]
pub(super) struct Mistake {
    pub(super) span: Range<usize>,
    pub(super) what: String,
    pub(super) advice: String,
    /// Something that is not there; where the syntax is broken it may only seem so.
    pub(super) is_missing: bool,
}

impl Mistakes {
    fn render(&self, styled: bool) -> String {
        let renderer =
            if styled { Renderer::styled() } else { Renderer::plain() }.decor_style(DecorStyle::Ascii);
        let reports: Vec<_> = self.mistakes.iter().map(|mistake| self.report(&renderer, mistake)).collect();
        let count = match self.mistakes.len() {
            1 => "1 mistake".to_owned(),
            more => format!("{more} mistakes"),
        };
        format!("{}\n\n{count} in {}", reports.join("\n\n"), self.name)
    }

    fn brief(&self) -> String {
        let Some(first) = self.mistakes.first() else { return self.name.clone() };
        // What is missing at the end is missing on the last line, not on one behind it.
        let end = self.text.strip_suffix('\n').unwrap_or(&self.text).len();
        let before = self.text.bytes().take(first.span.start.min(end));
        let line = 1 + before.filter(|byte| *byte == b'\n').count();
        let more = match self.mistakes.len() - 1 {
            0 => String::new(),
            1 => "; and 1 more mistake".to_owned(),
            more => format!("; and {more} more mistakes"),
        };
        format!("{}:{line}: {}: {}{more}", self.name, first.what, first.advice)
    }

    fn report(&self, renderer: &Renderer, mistake: &Mistake) -> String {
        let end = mistake.span.end.min(self.text.len());
        let span = mistake.span.start.min(end)..end;
        let annotation = AnnotationKind::Primary.span(span).label(mistake.advice.as_str());
        let snippet = Snippet::source(self.text.as_str()).path(self.name.as_str()).annotation(annotation);
        let group = Level::ERROR.primary_title(mistake.what.as_str()).element(snippet);
        renderer.render(&[group])
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}
