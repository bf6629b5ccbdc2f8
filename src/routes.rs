//! Which route of an application an interaction takes: the first one all of whose conditions hold.
//!
//! Looking it up costs the same with ten routes and with ten thousand: conditions are looked up, not tried.

use std::collections::HashMap;

use crate::config::{Conditions, Selector};
use crate::discord::interaction::{Interaction, Kind};

/// What of an interaction decides.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Its kind.
    pub kind: Kind,
    /// The command with its group and subcommand, or the `custom_id`.
    pub name: Option<&'a str>,
    /// Whether that is one name, whatever spaces it has.
    pub name_is_whole: bool,
    /// The guild that it comes from.
    pub guild: Option<u64>,
}

impl<'a> Subject<'a> {
    /// That of an interaction.
    pub fn of(interaction: &'a Interaction<'_>) -> Self {
        let Interaction { kind, name, name_is_whole, guild, .. } = interaction;
        Self { kind: *kind, name: name.as_deref(), name_is_whole: *name_is_whole, guild: *guild }
    }
}

/// Conditions made ready for looking up.
#[derive(Debug, Default)]
pub struct Routes {
    commands: HashMap<String, SelectorId>,
    custom_ids: HashMap<String, SelectorId>,
    /// In the order of their text, so that those that begin alike are neighbours.
    prefixes: Vec<Prefix>,
    /// The first route with these conditions.
    first: HashMap<(SelectorId, Option<Kind>, Option<u64>), usize>,
}

type SelectorId = usize;

const ANY: SelectorId = 0;

#[derive(Debug)]
struct Prefix {
    text: String,
    id: SelectorId,
    /// The longest other one that this one begins with.
    shorter: Option<usize>,
}

impl Routes {
    /// Routes with these conditions, the first one first.
    pub fn new<'a>(conditions: impl IntoIterator<Item = &'a Conditions>) -> Self {
        let mut routes = Self::default();
        let mut prefixes = HashMap::new();
        let mut ids = ANY;
        for (index, Conditions { selector, kind, guild }) in conditions.into_iter().enumerate() {
            let mut id_in = |map: &mut HashMap<String, SelectorId>, text: &String| {
                *map.entry(text.clone()).or_insert_with(|| {
                    ids += 1;
                    ids
                })
            };
            let id = match selector {
                Selector::Any => ANY,
                Selector::Command(path) => id_in(&mut routes.commands, path),
                Selector::CustomId(id) => id_in(&mut routes.custom_ids, id),
                Selector::CustomIdPrefix(text) => id_in(&mut prefixes, text),
            };
            routes.first.entry((id, *kind, *guild)).or_insert(index);
        }
        routes.prefixes = in_order(prefixes);
        routes
    }

    /// The first route that this interaction may take.
    pub fn find(&self, subject: Subject<'_>) -> Option<usize> {
        let Subject { kind, name, name_is_whole, guild } = subject;
        let name = name.unwrap_or_default();
        let about = match kind {
            Kind::Command | Kind::Autocomplete if name_is_whole => {
                self.first_of(self.commands.get(name).copied().into_iter(), kind, guild)
            }
            Kind::Command | Kind::Autocomplete => self.first_of(self.of_command(name), kind, guild),
            Kind::Component | Kind::Modal => {
                let exact = self.custom_ids.get(name).copied();
                self.first_of(exact.into_iter().chain(self.of_prefix(name)), kind, guild)
            }
            // No reply was checked for these.
            Kind::Ping | Kind::SkuEligibility | Kind::Unknown(_) => return None,
        };
        least(about, self.first_of([ANY].into_iter(), kind, guild))
    }

    /// The first route with one of these selectors that asks for this kind and guild, or does not ask.
    fn first_of(
        &self,
        selectors: impl Iterator<Item = SelectorId>,
        kind: Kind,
        guild: Option<u64>,
    ) -> Option<usize> {
        let guilds = [None, guild];
        let guilds = guilds.get(..1 + usize::from(guild.is_some())).unwrap_or_default();
        let mut first = None;
        for id in selectors {
            for kind in [None, Some(kind)] {
                for guild in guilds {
                    first = least(first, self.first.get(&(id, kind, *guild)).copied());
                }
            }
        }
        first
    }

    /// The command itself, and those that it is below: `"a b c"`, `"a b"`, `"a"`.
    fn of_command<'a>(&'a self, path: &'a str) -> impl Iterator<Item = SelectorId> + 'a {
        let above = path.match_indices(' ').map(|(end, _)| path.get(..end).unwrap_or_default());
        above.chain([path]).filter_map(|path| self.commands.get(path).copied())
    }

    /// Those that the `custom_id` begins with.
    fn of_prefix<'a>(&'a self, custom_id: &'a str) -> impl Iterator<Item = SelectorId> + 'a {
        // The last one that is not behind it in the order begins with all of them, or is one of them.
        let behind = self.prefixes.partition_point(|prefix| *prefix.text <= *custom_id);
        let last = behind.checked_sub(1).and_then(|last| self.prefixes.get(last));
        let chain = std::iter::successors(last, |prefix| self.prefixes.get(prefix.shorter?));
        chain.filter(|prefix| custom_id.starts_with(&prefix.text)).map(|prefix| prefix.id)
    }
}

fn in_order(prefixes: HashMap<String, SelectorId>) -> Vec<Prefix> {
    let mut prefixes: Vec<_> = prefixes.into_iter().collect();
    prefixes.sort_unstable();
    let mut ready: Vec<Prefix> = Vec::with_capacity(prefixes.len());
    for (text, id) in prefixes {
        let mut shorter = ready.len().checked_sub(1);
        while let Some(before) = shorter.and_then(|index| ready.get(index)) {
            if text.starts_with(&before.text) {
                break;
            }
            shorter = before.shorter;
        }
        ready.push(Prefix { text, id, shorter });
    }
    ready
}

fn least(a: Option<usize>, b: Option<usize>) -> Option<usize> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, other) => one.or(other),
    }
}

/// Why an interaction does not take such a route; `None` if it may.
pub fn objection(conditions: &Conditions, subject: Subject<'_>) -> Option<String> {
    let Subject { kind, name, name_is_whole, guild } = subject;
    let name = name.unwrap_or_default();
    let is_command = matches!(kind, Kind::Command | Kind::Autocomplete);
    let is_custom = matches!(kind, Kind::Component | Kind::Modal);
    match &conditions.selector {
        _ if !is_command && !is_custom => {
            return Some(format!("no route is for its kind ({})", kind.as_str()));
        }
        Selector::Command(_) if !is_command => return Some(format!("it is no command ({})", kind.as_str())),
        Selector::CustomId(_) | Selector::CustomIdPrefix(_) if !is_custom => {
            return Some(format!("it has no custom_id ({})", kind.as_str()));
        }
        Selector::Command(path)
            if name != path
                && (name_is_whole
                    || !name.strip_prefix(path.as_str()).is_some_and(|rest| rest.starts_with(' '))) =>
        {
            return Some(format!("its command is {name:?}"));
        }
        Selector::CustomId(id) if name != id => return Some(format!("its custom_id is {name:?}")),
        Selector::CustomIdPrefix(text) if !name.starts_with(text) => {
            return Some(format!("its custom_id is {name:?}"));
        }
        _ => {}
    }
    if conditions.kind.is_some_and(|wanted| wanted != kind) {
        return Some(format!("its kind is {}", kind.as_str()));
    }
    match (conditions.guild, guild) {
        (Some(wanted), Some(guild)) if wanted != guild => Some(format!("its guild is {guild}")),
        (Some(_), None) => Some("it comes from no guild".to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn conditions() -> impl Strategy<Value = Conditions> {
        let path = "[ab]( [ab]){0,2}";
        let selector = prop_oneof![
            1 => Just(Selector::Any),
            4 => path.prop_map(Selector::Command),
            4 => "[ab:]{1,3}".prop_map(Selector::CustomId),
            4 => "[ab:]{0,3}".prop_map(Selector::CustomIdPrefix),
        ];
        (selector, proptest::option::weighted(0.3, kind()), proptest::option::weighted(0.3, 1..3_u64))
            .prop_map(|(selector, kind, guild)| Conditions { selector, kind, guild })
    }

    fn kind() -> impl Strategy<Value = Kind> {
        prop_oneof![Just(Kind::Command), Just(Kind::Autocomplete), Just(Kind::Component), Just(Kind::Modal),]
    }

    fn any_kind() -> impl Strategy<Value = Kind> {
        prop_oneof![4 => kind(), 1 => Just(Kind::SkuEligibility), 1 => Just(Kind::Unknown(7))]
    }

    proptest! {
        /// The plain reference: one route after the other is tried. What no reply was checked for takes none.
        #[test]
        fn what_is_looked_up_is_what_trying_finds(
            all in proptest::collection::vec(conditions(), 0..30),
            kind in any_kind(),
            name_is_whole in any::<bool>(),
            command in "[abc]( [abc]){0,2}",
            custom_id in "[abc:]{0,5}",
            guild in proptest::option::of(1..4_u64),
        ) {
            let name = match kind {
                Kind::Command | Kind::Autocomplete => command,
                _ => custom_id,
            };
            let subject = Subject { kind, name: Some(&name), name_is_whole, guild };
            let tried = all.iter().position(|conditions| objection(conditions, subject).is_none());
            prop_assert_eq!(Routes::new(&all).find(subject), tried);
            prop_assert!(tried.is_none() || !matches!(kind, Kind::SkuEligibility | Kind::Unknown(_)));
        }
    }

    fn all_of(selectors: &[Selector]) -> Vec<Conditions> {
        let plain = |selector: &Selector| Conditions { selector: selector.clone(), kind: None, guild: None };
        selectors.iter().map(plain).collect()
    }

    #[test]
    fn a_command_covers_what_is_below_it_and_nothing_that_only_begins_alike() {
        let all =
            all_of(&[Selector::Command("music play".to_owned()), Selector::Command("music".to_owned())]);
        let routes = Routes::new(&all);
        let find =
            |kind, name| routes.find(Subject { kind, name: Some(name), name_is_whole: false, guild: None });
        assert_eq!(find(Kind::Command, "music play"), Some(0));
        assert_eq!(find(Kind::Autocomplete, "music play now"), Some(0));
        assert_eq!(find(Kind::Command, "music stop"), Some(1));
        assert_eq!(find(Kind::Command, "musicians"), None);
        assert_eq!(find(Kind::Component, "music"), None);
    }
}
