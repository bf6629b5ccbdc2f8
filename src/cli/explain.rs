//! Which route an interaction takes, and why: for `check` and `send`.

use crate::config::{App, Config, Target};
use crate::discord::interaction::{Interaction, InteractionError};
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
    let mut lines = Vec::new();
    for (number, route) in app.routes.iter().enumerate() {
        let name = format!("route {}, {}", number + 1, route.conditions);
        match routes::objection(&route.conditions, Subject::of(interaction)) {
            Some(objection) => lines.push(format!("not {name}: {objection}")),
            None => {
                let end = match &route.target {
                    Target::Handler(handler) => format!("it goes to {}", handler.urls.first),
                    Target::Reply(reply) => format!("it is answered {reply}"),
                };
                lines.push(format!("{name}: {end}"));
                return lines;
            }
        }
    }
    lines.push(format!("it goes to the application's own handler, {}", app.handler.urls.first));
    lines
}
