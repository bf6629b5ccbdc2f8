//! Reads TOML tables key by key. A wrong value does not end the reading: it is noted, and the next key is read.

use std::cell::RefCell;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::Mistake;

/// How close a misspelt key must be to a known one to be taken for it; 1 is equal.
const SIMILAR: f64 = 0.8;

/// A type that a key's value can have.
pub(super) trait FromToml: Sized {
    /// What stands in an error after "expected".
    const EXPECTED: &'static str;

    /// The value, or what to do about it; an empty advice stands for [`Self::EXPECTED`].
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String>;
}

/// Notes of a reading.
#[derive(Default)]
pub(super) struct Notes {
    mistakes: RefCell<Vec<Mistake>>,
    #[cfg(test)]
    pub(super) keys: RefCell<std::collections::BTreeSet<String>>,
}

impl Notes {
    pub(super) fn wrong(&self, span: Range<usize>, what: impl Into<String>, advice: impl Into<String>) {
        self.push(span, what.into(), advice.into(), false);
    }

    pub(super) fn missing(&self, span: Range<usize>, what: impl Into<String>, advice: impl Into<String>) {
        self.push(span, what.into(), advice.into(), true);
    }

    fn push(&self, span: Range<usize>, what: String, advice: String, is_missing: bool) {
        self.mistakes.borrow_mut().push(Mistake { span, what, advice, is_missing });
    }

    pub(super) fn is_clean(&self) -> bool {
        self.mistakes.borrow().is_empty()
    }

    pub(super) fn into_mistakes(self) -> Vec<Mistake> {
        self.mistakes.into_inner()
    }
}

/// One table of the file, from which keys are taken one by one; what is left at the end is unknown.
pub(super) struct Table<'n, 't> {
    notes: &'n Notes,
    /// `"apps.mybot."`, for error texts.
    prefix: String,
    /// Where the table is named.
    pub(super) span: Range<usize>,
    entries: Vec<(Spanned<String>, Spanned<DeValue<'t>>)>,
    known: Vec<&'static str>,
    taken: Vec<&'static str>,
}

impl<'n, 't> Table<'n, 't> {
    pub(super) fn new(notes: &'n Notes, prefix: String, span: Range<usize>, table: DeTable<'t>) -> Self {
        let entries = table
            .into_iter()
            .map(|(key, value)| (Spanned::new(key.span(), key.get_ref().to_string()), value));
        Self { notes, prefix, span, entries: entries.collect(), known: Vec::new(), taken: Vec::new() }
    }

    pub(super) fn has_table(&self, key: &str) -> bool {
        self.entries.iter().any(|(name, value)| name.get_ref() == key && value.get_ref().is_table())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|(name, _)| name.get_ref() == key)
    }

    /// Whether `key` was there before it was taken, right or not.
    pub(super) fn was_there(&self, key: &str) -> bool {
        self.taken.contains(&key)
    }

    /// The value of `key`, if it is there and right.
    pub(super) fn optional<T: FromToml>(&mut self, key: &'static str) -> Option<Spanned<T>> {
        let (_, value) = self.take(key)?;
        match T::from_toml(value.get_ref()) {
            Ok(read) => Some(Spanned::new(value.span(), read)),
            Err(advice) => {
                self.refuse(key, value.span(), if advice.is_empty() { T::EXPECTED } else { &advice });
                None
            }
        }
    }

    /// The value of `key`, or `default` where it is not there.
    pub(super) fn or<T: FromToml>(&mut self, key: &'static str, default: T) -> T {
        self.optional(key).map_or(default, Spanned::into_inner)
    }

    /// The same with a bound: `advice` is given where `fits` says no.
    pub(super) fn or_fitting<T: FromToml>(
        &mut self,
        key: &'static str,
        default: T,
        advice: &str,
        fits: impl FnOnce(&T) -> bool,
    ) -> T {
        match self.optional(key) {
            Some(value) if fits(value.get_ref()) => value.into_inner(),
            Some(value) => {
                self.refuse(key, value.span(), advice);
                default
            }
            None => default,
        }
    }

    /// The value of a key that must be there; `advice` says where to get it.
    pub(super) fn required<T: FromToml>(&mut self, key: &'static str, advice: &str) -> Option<Spanned<T>> {
        if !self.has(key) {
            let what = format!("`{}{key}` is missing", self.prefix);
            self.notes.missing(self.span.clone(), what, advice);
        }
        self.optional(key)
    }

    /// The table of that name; an empty one where it is not there, or is no table.
    pub(super) fn table(&mut self, key: &'static str) -> Table<'n, 't> {
        let prefix = format!("{}{key}.", self.prefix);
        let table = self.take(key).and_then(|(name, value)| self.as_table(prefix.clone(), name, value));
        table.unwrap_or_else(|| Table::new(self.notes, prefix, self.span.clone(), DeTable::new()))
    }

    /// The tables of the array of that name, in their order.
    pub(super) fn array(&mut self, key: &'static str) -> Vec<Table<'n, 't>> {
        let Some((_, value)) = self.take(key) else { return Vec::new() };
        let (span, name) = (value.span(), format!("{}{key}", self.prefix));
        let DeValue::Array(elements) = value.into_inner() else {
            let advice = format!("write [[{name}]] on a line of its own, its keys below");
            self.notes.wrong(span, format!("`{name}` must be an array of tables"), advice);
            return Vec::new();
        };
        let table = |(index, value): (usize, Spanned<DeValue<'t>>)| {
            self.as_table(format!("{name}[{index}]."), value.span(), value)
        };
        elements.into_iter().enumerate().filter_map(table).collect()
    }

    /// All tables inside this one, whatever their names.
    pub(super) fn into_tables(mut self) -> Vec<(Spanned<String>, Table<'n, 't>)> {
        let entries = std::mem::take(&mut self.entries);
        let tables = entries.into_iter().filter_map(|(name, value)| {
            let prefix = format!("{}{}.", self.prefix, name.get_ref());
            let table = self.as_table(prefix, name.span(), value)?;
            Some((name, table))
        });
        tables.collect()
    }

    /// Notes every key that nobody asked for; `hint` may know what to do with one.
    pub(super) fn finish(self, hint: impl Fn(&str) -> Option<String>) {
        for (name, _) in &self.entries {
            let key = name.get_ref();
            let advice =
                hint(key).or_else(|| self.similar(key)).unwrap_or_else(|| match self.known.as_slice() {
                    [] => "this table has no keys".to_owned(),
                    known => format!("known here: {}", known.join(", ")),
                });
            self.notes.wrong(name.span(), format!("unknown key `{}{key}`", self.prefix), advice);
        }
    }

    fn similar(&self, key: &str) -> Option<String> {
        let rated = self.known.iter().map(|known| (strsim::jaro_winkler(key, known), known));
        let (score, known) = rated.max_by(|(a, _), (b, _)| a.total_cmp(b))?;
        (score >= SIMILAR).then(|| format!("did you mean `{known}`?"))
    }

    fn take(&mut self, key: &'static str) -> Option<(Range<usize>, Spanned<DeValue<'t>>)> {
        self.known.push(key);
        #[cfg(test)]
        self.notes.keys.borrow_mut().insert(format!("{}{key}", self.prefix));
        let position = self.entries.iter().position(|(name, _)| name.get_ref() == key)?;
        let (name, value) = self.entries.remove(position);
        self.taken.push(key);
        Some((name.span(), value))
    }

    fn as_table(
        &self,
        prefix: String,
        name: Range<usize>,
        value: Spanned<DeValue<'t>>,
    ) -> Option<Table<'n, 't>> {
        let span = value.span();
        match value.into_inner() {
            DeValue::Table(table) => Some(Table::new(self.notes, prefix, name, table)),
            other => {
                let key = prefix.trim_end_matches('.');
                let what = format!("`{key}` must be a table, but has a value: {}", other.type_str());
                self.notes.wrong(span, what, format!("write [{key}] on a line of its own, its keys below"));
                None
            }
        }
    }

    fn refuse(&self, key: &str, span: Range<usize>, advice: &str) {
        self.notes.wrong(span, format!("`{}{key}` cannot have this value", self.prefix), advice);
    }
}

impl FromToml for bool {
    const EXPECTED: &'static str = "expected true or false";

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        value.as_bool().ok_or_else(String::new)
    }
}

impl FromToml for String {
    const EXPECTED: &'static str = "expected a text in quotes";

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        value.as_str().map(str::to_owned).ok_or_else(String::new)
    }
}

impl FromToml for u64 {
    const EXPECTED: &'static str = "expected a whole number";

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        let integer = value.as_integer().ok_or_else(String::new)?;
        Self::from_str_radix(integer.as_str(), integer.radix()).map_err(|_| String::new())
    }
}
