//! A command's name and options, as Discord sends them.

use serde_json::{Map, Value, json};

/// An option of a command.
#[derive(Clone, Debug, PartialEq)]
pub struct CommandOption {
    pub(super) name: String,
    kind: u64,
    value: Value,
    focused: bool,
}

/// Source: Discord's documentation, "Application Command Option Type".
const OPTION_TYPES: [(&str, u64); 9] = [
    ("string", 3),
    ("integer", 4),
    ("boolean", 5),
    ("user", 6),
    ("channel", 7),
    ("role", 8),
    ("mentionable", 9),
    ("number", 10),
    ("attachment", 11),
];

impl CommandOption {
    /// A text option that is being typed.
    pub(super) fn typed(name: &str, typed: &str) -> Self {
        Self { name: name.to_owned(), kind: 3, value: Value::String(typed.to_owned()), focused: true }
    }

    /// From `name=value`, where the value tells its type, or `name:type=value`.
    ///
    /// # Errors
    ///
    /// A text that says what is expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let expected = || format!("expected name=value or name:type=value, found {text:?}");
        let (name, value) = text.split_once('=').ok_or_else(expected)?;
        let (name, kind) = match name.split_once(':') {
            Some((name, kind)) => (name, Some(kind)),
            None => (name, None),
        };
        if name.is_empty() {
            return Err(expected());
        }
        let kind = match kind {
            None => kind_of(value),
            Some(word) => {
                let known = OPTION_TYPES.iter().find(|(name, _)| *name == word);
                let names = OPTION_TYPES.map(|(name, _)| name).join(", ");
                known
                    .map(|(_, kind)| *kind)
                    .ok_or_else(|| format!("unknown option type {word:?}: expected one of {names}"))?
            }
        };
        let wrong = || format!("{value:?} is not a value for an option of that type");
        let value = match kind {
            4 => json!(value.parse::<i64>().map_err(|_| wrong())?),
            5 => json!(value.parse::<bool>().map_err(|_| wrong())?),
            10 => json!(value.parse::<f64>().map_err(|_| wrong())?),
            _ => json!(value),
        };
        Ok(Self { name: name.to_owned(), kind, value, focused: false })
    }

    fn to_json(&self) -> Value {
        let mut option = json!({ "name": self.name, "type": self.kind, "value": self.value });
        if let Some(fields) = option.as_object_mut().filter(|_| self.focused) {
            fields.insert("focused".to_owned(), json!(true));
        }
        option
    }
}

fn kind_of(value: &str) -> u64 {
    if value.parse::<i64>().is_ok() {
        4
    } else if value.parse::<bool>().is_ok() {
        5
    } else if value.parse::<f64>().is_ok_and(f64::is_finite) {
        10
    } else {
        3
    }
}

/// For people: `/music play query:"never"`.
pub(super) fn title(path: &str, options: &[CommandOption]) -> String {
    let options = options.iter().map(|option| {
        let mark = if option.focused { "…" } else { "" };
        format!(" {}:{}{mark}", option.name, option.value)
    });
    format!("/{path}{}", options.collect::<String>())
}

/// The options stand inside the subcommand, which stands inside the group, which stands inside the command.
pub(super) fn data(path: &str, options: &[CommandOption]) -> Value {
    let mut words = path.split_whitespace();
    let command = words.next().unwrap_or_default();
    let inner: Vec<_> = words.collect();
    let mut data = Value::Array(options.iter().map(CommandOption::to_json).collect());
    for (depth, name) in inner.iter().enumerate().rev() {
        let is_group = depth + 1 < inner.len();
        data = json!([{ "name": name, "type": if is_group { 2 } else { 1 }, "options": data }]);
    }
    let mut fields = json!({ "id": "845027738276462633", "name": command, "type": 1 });
    if let Some(fields) = fields.as_object_mut().filter(|_| data != json!([])) {
        fields.insert("options".to_owned(), data);
    }
    let resolved = resolved(options);
    if let Some(fields) = fields.as_object_mut().filter(|_| resolved != json!({})) {
        fields.insert("resolved".to_owned(), resolved);
    }
    fields
}

/// Options that name a user, role, channel or attachment come with what they name.
fn resolved(options: &[CommandOption]) -> Value {
    let mut resolved = Map::new();
    let mut put = |table: &str, id: &Value, value: Value| {
        let table = resolved.entry(table).or_insert_with(|| json!({}));
        if let (Some(table), Some(id)) = (table.as_object_mut(), id.as_str()) {
            table.insert(id.to_owned(), value);
        }
    };
    for option in options {
        let id = &option.value;
        match option.kind {
            6 | 9 => {
                put(
                    "users",
                    id,
                    json!({ "id": id, "username": "wumpus", "discriminator": "0", "avatar": null }),
                );
                put("members", id, json!({ "roles": [], "permissions": "2147483647" }));
            }
            7 => put(
                "channels",
                id,
                json!({ "id": id, "name": "music", "type": 0, "permissions": "2147483647" }),
            ),
            8 => put("roles", id, json!({ "id": id, "name": "dj", "color": 0, "permissions": "0" })),
            11 => put(
                "attachments",
                id,
                json!({
                    "id": id, "filename": "file.txt", "size": 5, "content_type": "text/plain",
                    "url": "https://cdn.discordapp.com/ephemeral-attachments/1/2/file.txt",
                }),
            ),
            _ => {}
        }
    }
    Value::Object(resolved)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("n=5", 4, json!(5))]
    #[case("n=-5", 4, json!(-5))]
    #[case("n=0.5", 10, json!(0.5))]
    #[case("n=true", 5, json!(true))]
    #[case("n=five", 3, json!("five"))]
    #[case("n=", 3, json!(""))]
    #[case("n=a=b", 3, json!("a=b"))]
    #[case("n=nan", 3, json!("nan"))]
    #[case("n:string=5", 3, json!("5"))]
    #[case("n:user=53908232506183680", 6, json!("53908232506183680"))]
    fn an_option_has_the_type_that_its_value_shows(
        #[case] text: &str,
        #[case] kind: u64,
        #[case] value: Value,
    ) {
        let option = CommandOption::parse(text).unwrap();
        assert_eq!((option.name.as_str(), option.kind, option.value), ("n", kind, value));
    }

    #[rstest]
    #[case("n")]
    #[case("=5")]
    #[case("n:integer=five")]
    #[case("n:text=five")]
    fn an_option_that_is_none_is_refused(#[case] text: &str) {
        assert!(CommandOption::parse(text).is_err());
    }
}
