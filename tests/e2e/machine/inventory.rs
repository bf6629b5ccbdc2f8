//! What there is on the machine of the daemon, and what is to be gone when it is removed.

use std::collections::BTreeSet;

use super::sh;

/// Files, users, groups and units.
pub(crate) struct Inventory(BTreeSet<String>);

impl Inventory {
    pub(crate) async fn take() -> Self {
        // Not what others write as they run, and keep: logs, certificates, records, Apache's modules.
        let others = [
            "/etc/apache2/mods-enabled",
            "/etc/letsencrypt",
            "/run/apache2",
            "/run/lock",
            "/run/log",
            "/run/nginx.pid",
            "/run/systemd",
            "/var/cache",
            "/var/lib/apache2",
            "/var/lib/dpkg",
            "/var/lib/letsencrypt",
            "/var/lib/systemd",
            "/var/log",
            "/var/tmp",
        ];
        let others = others.map(|folder| format!("-path {folder}")).join(" -o ");
        let script = format!(
            "find /etc /opt /run /srv /usr /var -xdev \\( {others} \\) -prune -o -print
            getent passwd shardless || true
            getent group shardless || true
            systemctl list-units --all --plain --no-legend 'shardless*'
            systemctl list-unit-files --no-legend 'shardless*' || true"
        );
        Self(sh(&script).await.lines().map(str::to_owned).collect())
    }

    /// Fails if there is something now that was not there before.
    pub(crate) async fn require_nothing_more(&self) {
        let now = Self::take().await;
        let more: Vec<_> = now.0.difference(&self.0).collect();
        assert!(more.is_empty(), "left behind: {more:#?}");
    }
}
