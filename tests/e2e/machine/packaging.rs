//! The Debian package's life: installed, configured, upgraded while Discord asks, removed, purged.

use super::inventory::Inventory;
use super::restarts::Loads;
use super::service::{ENDPOINT, Service, property};
use super::{front, on_a_machine, sh, try_sh};
use crate::daemon::Upstream;
use crate::load;
use crate::package::package;

const OLDER: &str = "0.0.1-1";

/// The same package with a lower version: what was installed before.
async fn older() -> &'static str {
    sh(&format!(
        "dpkg-deb --raw-extract {} /tmp/older
        sed -i 's/^Version: .*/Version: {OLDER}/' /tmp/older/DEBIAN/control
        dpkg-deb --build /tmp/older /tmp/older.deb",
        package().display()
    ))
    .await;
    "/tmp/older.deb"
}

#[test]
fn the_package_is_upgraded_under_load_and_purged_without_a_trace() {
    on_a_machine(the_package_is_upgraded_under_load_and_purged_without_a_trace, async || {
        let fronts = front::both(&Upstream::plain(3000)).await;
        let older = older().await;
        let before = Inventory::take().await;
        let service = Service::new(load::handler().await).await;

        // There is no config yet, so nothing is started and nothing has failed.
        sh(&format!("dpkg --install {older}")).await;
        for unit in ["shardless.socket", "shardless.service"] {
            assert_eq!(property(unit, "UnitFileState").await, "enabled");
            assert_eq!(property(unit, "ActiveState").await, "inactive");
        }
        sh("systemctl start shardless.socket shardless.service").await;
        assert!(!service.is_active().await);
        assert_eq!(sh("systemctl --failed --no-legend").await, "");

        service.configure(&service.config("")).await;
        sh("systemctl start shardless.socket shardless.service").await;
        service.answers(ENDPOINT).await;
        for keep_alive in [true, false] {
            sh(&format!("dpkg --install {older}")).await;
            let main = service.property("MainPID").await;
            let loads = Loads::start(&service, &fronts, keep_alive);
            let took = loads.meet(&service, &format!("dpkg --install {}", package().display())).await;
            println!("the upgrade took {took:.2?}");
            loads.finish(&service).await;
            assert_ne!(service.property("MainPID").await, main);
            assert_ne!(sh("dpkg-query --show --showformat '${Version}' shardless").await, OLDER);
        }

        // Whoever installs it again finds all as it was.
        sh("dpkg --remove shardless && test -e /etc/shardless/config.toml && test -d /var/lib/shardless")
            .await;
        assert!(service.discord.try_ask(ENDPOINT, &service.discord.command("anybody?")).await.is_err());
        assert!(!try_sh("systemctl --quiet is-active shardless.socket").await.status.success());
        sh(&format!("dpkg --install {}", package().display())).await;
        service.answers(ENDPOINT).await;

        sh("dpkg --purge shardless").await;
        before.require_nothing_more().await;
    });
}
