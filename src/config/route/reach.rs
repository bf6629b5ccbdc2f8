//! Routes that no interaction comes to: earlier ones leave nothing for them.

use std::collections::HashMap;
use std::ops::Range;

use super::kinds_of;
use crate::config::reader::Notes;
use crate::config::{Conditions, Route, Selector};
use crate::discord::interaction::Kind;

/// A command with group and subcommand has no more words.
const PATH_WORDS: usize = 3;

/// Notes them. Conditions are looked up, not compared, so that ten thousand routes take no longer than their lines.
pub(in crate::config) fn require_reachable(notes: &Notes, routes: &[(Range<usize>, Route)]) {
    let mut taken = Taken::default();
    for (index, (span, Route { conditions, .. })) in routes.iter().enumerate() {
        if let Some(earlier) = taken.by(conditions) {
            let named = earlier.iter().filter_map(|index| routes.get(*index));
            let named: Vec<_> = named.map(|(_, route)| route.conditions.to_string()).collect();
            let (what, those) = match named.len() {
                1 => ("an earlier one takes them all", "the one"),
                _ => ("earlier ones take them all", "those"),
            };
            let what = format!("no interaction comes to this route: {what}");
            notes.wrong(
                span.clone(),
                what,
                format!("put it before {those} for {}, or take it out", named.join(" and ")),
            );
        }
        taken.add(index, conditions);
    }
}

/// What routes are about.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum About<'a> {
    All,
    Command(&'a str),
    CustomId(&'a str),
    Prefix(&'a str),
}

/// What is taken: for each thing, of which kinds and guilds, and by which route first.
#[derive(Default)]
struct Taken<'a>(HashMap<About<'a>, HashMap<(Kind, Option<u64>), usize>>);

impl<'a> Taken<'a> {
    fn add(&mut self, route: usize, conditions: &'a Conditions) {
        let taken = self.0.entry(About::of(&conditions.selector)).or_default();
        for kind in kinds_of(conditions) {
            taken.entry((kind, conditions.guild)).or_insert(route);
        }
    }

    /// The routes that take all that these conditions hold for, in their order; for each kind one may do it.
    fn by(&self, conditions: &'a Conditions) -> Option<Vec<usize>> {
        let about = About::of(&conditions.selector).with_those_around();
        let taken: Vec<_> = about.iter().filter_map(|about| self.0.get(about)).collect();
        let first = |kind: Kind| {
            let guilds = [None, conditions.guild];
            let routes = taken.iter().flat_map(|taken| guilds.map(|guild| taken.get(&(kind, guild))));
            routes.flatten().min().copied()
        };
        let mut routes = kinds_of(conditions).into_iter().map(first).collect::<Option<Vec<_>>>()?;
        routes.sort_unstable();
        routes.dedup();
        Some(routes)
    }
}

impl<'a> About<'a> {
    fn of(selector: &'a Selector) -> Self {
        match selector {
            Selector::Any => Self::All,
            Selector::Command(path) => Self::Command(path),
            Selector::CustomId(id) => Self::CustomId(id),
            // Of the kinds that it is for, "*" takes what has no custom_id too.
            Selector::CustomIdPrefix(text) if text.is_empty() => Self::All,
            Selector::CustomIdPrefix(text) => Self::Prefix(text),
        }
    }

    /// All that this is a part of.
    fn with_those_around(self) -> Vec<Self> {
        let mut around = vec![Self::All];
        match self {
            Self::All => {}
            Self::Command(path) if is_path(path) => {
                let above = path.match_indices(' ').filter_map(|(end, _)| path.get(..end));
                around.extend(above.chain([path]).map(Self::Command));
            }
            Self::CustomId(text) | Self::Prefix(text) => {
                let shorter = text.char_indices().skip(1).filter_map(|(end, _)| text.get(..end));
                around.extend(shorter.chain([text]).map(Self::Prefix));
                around.push(self);
            }
            Self::Command(_) => around.push(self),
        }
        around
    }
}

/// Whether it can be a command with group and subcommand, whose names are in lower case. Else it is the name of a user or
/// message command, which is below no other.
fn is_path(command: &str) -> bool {
    command.split(' ').count() <= PATH_WORDS && !command.contains(char::is_uppercase)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn ten_thousand_routes_are_soon_checked() {
        let conditions = |n: usize| {
            let selector = match n % 3 {
                0 => Selector::Command(format!("command{n} play")),
                1 => Selector::CustomId(format!("{}{n:05}", "x".repeat(95))),
                _ => Selector::CustomIdPrefix(format!("{}{n:05}", "x".repeat(94))),
            };
            Conditions { selector, kind: None, guild: n.is_multiple_of(2).then_some(7) }
        };
        let all: Vec<_> = (0..10_000).map(conditions).collect();
        let (mut taken, start) = (Taken::default(), Instant::now());
        for (index, conditions) in all.iter().enumerate() {
            assert_eq!(taken.by(conditions), None);
            taken.add(index, conditions);
        }
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
        assert_eq!(taken.by(&all[9_999]), Some(vec![9_999]));
    }
}
