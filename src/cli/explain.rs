//! Which route an interaction takes, and why: for `check` and `send`.

use bytes::Bytes;

use crate::config::{App, Config, Handler, Target};
use crate::discord::callback;
use crate::discord::interaction::{Interaction, InteractionError, Kind};
use crate::gateway::{Failure, Reply};
use crate::routes::{self, Subject};

/// Prints it for each application of the config; the payload itself does not say whose it is.
pub(super) fn print(config: &Config, body: &[u8]) -> Result<(), InteractionError> {
    let interaction = Interaction::parse(body)?;
    let name = interaction.name.as_deref().map(|name| format!(" {name:?}")).unwrap_or_default();
    println!("  it is: {}{name}", interaction.kind.as_str());
    for app in &config.apps {
        for line in explanation(app, &interaction) {
            println!("  {}: {line}", app.name);
        }
    }
    Ok(())
}

/// One line for each route that is looked at, down to the one that is taken.
fn explanation(app: &App, interaction: &Interaction<'_>) -> Vec<String> {
    if interaction.kind == Kind::Ping {
        return vec!["it is answered by shardless itself, whatever its routes and handler".to_owned()];
    }
    let mut lines = Vec::new();
    for (number, route) in app.routes.iter().enumerate() {
        let name = format!("route {}, {}", number + 1, route.conditions);
        match routes::objection(&route.conditions, Subject::of(interaction)) {
            Some(objection) => lines.push(format!("not {name}: {objection}")),
            None => {
                let end = match &route.target {
                    Target::Handler(handler) => format!("it goes to {}", urls(handler)),
                    Target::Reply(reply) => answer(app, reply, interaction),
                };
                lines.push(format!("{name}: {end}"));
                return lines;
            }
        }
    }
    lines.push(format!("it goes to the application's own handler, {}", urls(&app.handler)));
    lines
}

fn urls(handler: &Handler) -> String {
    let urls: Vec<_> = handler.urls.iter().map(ToString::to_string).collect();
    urls.join(", or ")
}

/// What becomes of a route's reply.
fn answer(app: &App, reply: &str, interaction: &Interaction<'_>) -> String {
    match callback::ready(Bytes::copy_from_slice(reply.as_bytes()), interaction.question()) {
        Ok(reply) => format!("it is answered {}", String::from_utf8_lossy(&reply)),
        Err(error) => {
            let failure = Failure::Reply(error);
            let shown = Reply::failure(&failure, interaction.kind, app.error_message.as_deref());
            let status = shown.status();
            let what = if shown.body_len() > 0 { "with error_message" } else { status.as_str() };
            format!("it is answered {what}, since {failure}")
        }
    }
}
