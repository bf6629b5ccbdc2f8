//! The daemon as a service, put in place as the guides say.

use std::sync::Arc;

use shardless::rehearsal::rest::{Api, Script};

use super::{sh, try_sh};
use crate::discord::Discord;
use crate::handler::Handler;
use crate::load::ERROR_MESSAGE;
use crate::process::source;

/// Where its applications' requests go, without a proxy.
pub(crate) const ENDPOINT: &str = "http://127.0.0.1:3000/interactions";
const CONFIG: &str = "/etc/shardless/config.toml";

/// The service, with one application.
pub(crate) struct Service {
    pub(crate) discord: Arc<Discord>,
    /// Where late answers go.
    pub(crate) api: Arc<Api>,
    pub(crate) handler: Handler,
}

impl Service {
    /// What is needed for one that somebody else puts in place.
    pub(crate) async fn new(handler: Handler) -> Self {
        let api = Api::following(Script::default().without_bodies(), 0).await.unwrap();
        Self { discord: Arc::new(Discord::new()), api: Arc::new(api), handler }
    }

    /// Puts program, units and config in place, and starts nothing.
    pub(crate) async fn install(handler: Handler) -> Self {
        let service = Self::new(handler).await;
        let units = source("systemd").display().to_string();
        sh(&format!(
            "install -D {binary} /usr/local/bin/shardless
            install -D -m 644 -t /usr/local/lib/systemd/system {units}/shardless.service {units}/shardless.socket
            install -D -m 644 {units}/shardless.sysusers /usr/local/lib/sysusers.d/shardless.conf
            systemd-sysusers
            install -d -m 750 -g shardless /etc/shardless
            systemctl daemon-reload",
            binary = env!("CARGO_BIN_EXE_shardless"),
        ))
        .await;
        service.configure(&service.config("")).await;
        service
    }

    /// A config with `lines` at its top, whose application is `mybot`.
    pub(crate) fn config(&self, lines: &str) -> String {
        let api = self.api.url();
        format!("{lines}\n[discord]\napi = {api:?}\n{}", self.app("mybot", "/interactions"))
    }

    /// An application's table.
    pub(crate) fn app(&self, name: &str, path: &str) -> String {
        let (public_key, port) = (self.discord.public_key(), self.handler.port());
        format!(
            "[apps.{name}]\npath = {path:?}\npublic_key = {public_key:?}\n\
             handler = \"http://127.0.0.1:{port}/interactions\"\nerror_message = {ERROR_MESSAGE:?}\n"
        )
    }

    /// Writes the config file.
    pub(crate) async fn configure(&self, config: &str) {
        std::fs::write(CONFIG, config).unwrap();
        sh(&format!("chgrp shardless {CONFIG} && chmod 640 {CONFIG}")).await;
    }

    /// Sends a command, which is to be answered.
    pub(crate) async fn answers(&self, url: &str) {
        self.discord.try_ask(url, &self.discord.command("still there?")).await.unwrap();
    }

    /// A setting or a state of the unit.
    pub(crate) async fn property(&self, name: &str) -> String {
        property("shardless.service", name).await
    }

    /// Whether the unit is active.
    pub(crate) async fn is_active(&self) -> bool {
        try_sh("systemctl --quiet is-active shardless.service").await.status.success()
    }

    /// Adds to the unit, as `systemctl edit` does.
    pub(crate) async fn edit(unit: &str, lines: &str) {
        let folder = format!("/etc/systemd/system/{unit}.d");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(format!("{folder}/override.conf"), lines).unwrap();
        sh("systemctl daemon-reload").await;
    }
}

/// A property of any unit.
pub(crate) async fn property(unit: &str, name: &str) -> String {
    sh(&format!("systemctl show --property={name} --value {unit}")).await.trim_end().to_owned()
}
