//! Interactions as Discord sends them, built from what a person would type.

mod command;

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::discord::interaction::Kind;
pub use command::CommandOption;

/// Milliseconds of Unix time at which Discord's snowflakes begin.
///
/// Source: Discord's documentation, "Snowflakes".
const DISCORD_EPOCH: u64 = 1_420_070_400_000;

const GUILD: &str = "290926798626357999";
const CHANNEL: &str = "645027906669510667";
const USER: &str = "53908232506183680";
const APPLICATION: &str = "845027738276462632";

/// One request's body.
#[derive(Clone, Debug)]
pub struct Payload {
    /// The bytes that are signed and sent.
    pub body: Vec<u8>,
    /// What it asks, for people: `/music play query:"never"`.
    pub title: String,
    /// What it is; `None` for a webhook event.
    pub kind: Option<Kind>,
    /// Whether it comes with a message.
    pub has_message: bool,
}

/// Writes payloads, each with an id of its own.
#[derive(Clone, Debug)]
pub struct Author {
    unix_time: Duration,
    next: u64,
    is_direct_message: bool,
    locale: String,
}

impl Author {
    /// An author who writes at that time; `salt` keeps the ids of several apart.
    pub fn new(unix_time: Duration, salt: u64) -> Self {
        Self { unix_time, next: salt, is_direct_message: false, locale: "en-US".to_owned() }
    }

    /// From now on, interactions come from a direct message instead of a server.
    pub fn in_direct_message(mut self) -> Self {
        self.is_direct_message = true;
        self
    }

    /// From now on, the user's client speaks that language.
    pub fn with_locale(mut self, locale: &str) -> Self {
        locale.clone_into(&mut self.locale);
        self
    }

    /// What Discord sends to see whether the endpoint is alive.
    pub fn ping(&mut self) -> Payload {
        self.interaction(1, "PING".to_owned(), None, false)
    }

    /// A slash command: `path` is the command, with group and subcommand where it has them.
    pub fn command(&mut self, path: &str, options: &[CommandOption]) -> Payload {
        let title = command::title(path, options);
        self.interaction(2, title, Some(command::data(path, options)), false)
    }

    /// Suggestions for the option `focused`, of which `typed` is written so far.
    pub fn autocomplete(
        &mut self,
        path: &str,
        options: &[CommandOption],
        focused: &str,
        typed: &str,
    ) -> Payload {
        let mut options = options.to_vec();
        options.retain(|option| option.name != focused);
        options.push(CommandOption::typed(focused, typed));
        let title = format!("autocomplete {}", command::title(path, &options));
        self.interaction(4, title, Some(command::data(path, &options)), false)
    }

    /// A button of a message.
    pub fn button(&mut self, custom_id: &str) -> Payload {
        let data = json!({ "component_type": 2, "custom_id": custom_id, "id": 1 });
        self.interaction(3, format!("button {custom_id}"), Some(data), true)
    }

    /// A select menu of a message, and what was picked from it.
    pub fn select(&mut self, custom_id: &str, values: &[String]) -> Payload {
        let data = json!({ "component_type": 3, "custom_id": custom_id, "id": 1, "values": values });
        self.interaction(3, format!("select {custom_id} = {}", values.join(", ")), Some(data), true)
    }

    /// A modal with its text fields.
    pub fn modal(&mut self, custom_id: &str, fields: &[(String, String)]) -> Payload {
        let row = |(name, value): &(String, String)| json!({ "type": 1, "components": [{ "type": 4, "custom_id": name, "value": value }] });
        let rows: Vec<_> = fields.iter().map(row).collect();
        let data = json!({ "custom_id": custom_id, "components": rows });
        self.interaction(5, format!("modal {custom_id}"), Some(data), false)
    }

    /// A webhook event of that type.
    pub fn event(&mut self, event: &str) -> Payload {
        let body = json!({
            "version": 1,
            "application_id": APPLICATION,
            "type": 1,
            "event": { "type": event, "timestamp": "2026-01-01T00:00:00.000000", "data": {} },
        });
        let body = body.to_string().into_bytes();
        Payload { body, title: format!("event {event}"), kind: None, has_message: false }
    }

    fn interaction(&mut self, kind: u64, title: String, data: Option<Value>, has_message: bool) -> Payload {
        let id = self.snowflake();
        let mut fields = Map::new();
        let mut put = |name: &str, value: Value| _ = fields.insert(name.to_owned(), value);
        put("app_permissions", json!("562949953601536"));
        put("application_id", json!(APPLICATION));
        put("attachment_size_limit", json!(10_485_760));
        let context = if self.is_direct_message { 1 } else { 0 };
        let owner = if self.is_direct_message { ("1", USER) } else { ("0", GUILD) };
        put("authorizing_integration_owners", json!({ owner.0: owner.1 }));
        put("entitlements", json!([]));
        put("id", json!(id.to_string()));
        put("token", json!(token(id)));
        put("type", json!(kind));
        put("version", json!(1));
        let user = user();
        if kind == 1 {
            put("user", user);
        } else {
            let channel_kind = if self.is_direct_message { 1 } else { 0 };
            put("channel", json!({ "id": CHANNEL, "name": "general", "type": channel_kind }));
            put("channel_id", json!(CHANNEL));
            put("context", json!(context));
            put("locale", json!(self.locale));
            if self.is_direct_message {
                put("user", user);
            } else {
                put("guild", json!({ "id": GUILD, "locale": "en-US", "features": ["COMMUNITY"] }));
                put("guild_id", json!(GUILD));
                put("guild_locale", json!("en-US"));
                put("member", member(user));
            }
        }
        if let Some(data) = data {
            put("data", data);
        }
        if has_message {
            put("message", message(self.snowflake(), id, &json!({ owner.0: owner.1 })));
        }
        let body = Value::Object(fields).to_string().into_bytes();
        Payload { body, title, kind: Some(Kind::from_type(kind)), has_message }
    }

    /// Milliseconds since Discord's epoch, shifted by 22 bits that tell ids of one millisecond apart.
    fn snowflake(&mut self) -> u64 {
        let milliseconds = u64::try_from(self.unix_time.as_millis()).unwrap_or(u64::MAX);
        let id = (milliseconds.saturating_sub(DISCORD_EPOCH) << 22).wrapping_add(self.next);
        self.next += 1;
        id
    }
}

fn user() -> Value {
    json!({
        "id": USER, "username": "mason", "global_name": "Mason 🦊", "discriminator": "0",
        "avatar": "a_d5efa99b3eeaa7dd43acca82f5692432", "public_flags": 131_141,
    })
}

fn member(user: Value) -> Value {
    json!({
        "user": user, "nick": null, "avatar": null, "roles": ["539082325061836999"], "pending": false,
        "joined_at": "2017-03-13T19:19:14.040000+00:00", "premium_since": null, "mute": false, "deaf": false,
        "permissions": "2147483647", "flags": 0,
    })
}

fn message(id: u64, interaction: u64, owners: &Value) -> Value {
    json!({
        "id": id.to_string(), "channel_id": CHANNEL, "type": 0, "content": "Pick one:", "flags": 0,
        "author": { "id": APPLICATION, "username": "bot", "bot": true, "discriminator": "0000", "avatar": null },
        "attachments": [], "embeds": [], "mentions": [], "mention_roles": [], "pinned": false, "tts": false,
        "timestamp": "2026-01-01T00:00:00.000000+00:00", "edited_timestamp": null, "components": [],
        "interaction_metadata": {
            "id": interaction.to_string(), "type": 2, "user": user(), "name": "roll",
            "authorizing_integration_owners": owners,
        },
    })
}

/// As long and as opaque as the real ones, and of no use to anyone.
fn token(id: u64) -> String {
    format!("rehearsal{id:016x}").repeat(8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discord::interaction::Interaction;

    fn author() -> Author {
        Author::new(Duration::from_secs(1_700_000_000), 0)
    }

    fn json_of(payload: &Payload) -> Value {
        serde_json::from_slice(&payload.body).unwrap()
    }

    #[test]
    fn payloads_read_back_as_what_they_are() {
        let mut author = author();
        let option = CommandOption::parse("query=never").unwrap();
        let fields = [("name".to_owned(), "value".to_owned())];
        let payloads = [
            (author.ping(), None),
            (author.command("music queue play", std::slice::from_ref(&option)), Some("music queue play")),
            (author.autocomplete("music play", &[option], "query", "ne"), Some("music play")),
            (author.button("again"), Some("again")),
            (author.select("color", &["red".to_owned()]), Some("color")),
            (author.modal("feedback", &fields), Some("feedback")),
        ];
        let mut ids = Vec::new();
        for (payload, name) in &payloads {
            let interaction = Interaction::parse(&payload.body).unwrap();
            assert_eq!(Some(interaction.kind), payload.kind);
            assert_eq!(interaction.name.as_deref(), *name);
            assert_eq!(interaction.has_message, payload.has_message);
            ids.push(interaction.id);
        }
        ids.dedup();
        assert_eq!(ids.len(), payloads.len());
    }

    #[test]
    fn a_snowflake_tells_its_time() {
        let id: u64 = json_of(&author().ping())["id"].as_str().unwrap().parse().unwrap();
        assert_eq!((id >> 22) + DISCORD_EPOCH, 1_700_000_000_000);
    }

    #[test]
    fn a_direct_message_has_a_user_and_no_server() {
        let direct = json_of(&author().in_direct_message().with_locale("de").command("roll", &[]));
        assert!(direct["user"].is_object() && direct["member"].is_null() && direct["guild_id"].is_null());
        assert_eq!((&direct["context"], &direct["locale"]), (&json!(1), &json!("de")));
        let server = json_of(&author().command("roll", &[]));
        assert!(server["user"].is_null() && server["member"]["user"].is_object());
    }

    #[test]
    fn what_an_option_names_comes_along() {
        let option = CommandOption::parse("who:user=42").unwrap();
        let json = json_of(&author().command("kick", &[option]));
        assert_eq!(json["data"]["resolved"]["users"]["42"]["id"], "42");
    }
}
