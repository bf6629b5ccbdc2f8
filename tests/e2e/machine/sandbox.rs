//! What the unit forbids, and what works all the same.

use std::fs;

use super::service::{ENDPOINT, Service};
use super::{front, journal_since_start, on_a_machine, sh};
use crate::daemon::{Upstream, Way};
use crate::handler::Handler;

/// Outside of loopback's range, and reserved for examples.
const FAR: &str = "198.51.100.1";

#[test]
fn a_handler_on_another_host_is_reached_over_tls() {
    on_a_machine(a_handler_on_another_host_is_reached_over_tls, async || {
        let service = Service::install(Handler::start().await).await;
        far_server(service.handler.port()).await;
        let config = format!(
            "[apps.mybot]\npublic_key = {:?}\nhandler = \"far\"\n\
             [handlers.far]\nurls = [\"https://{FAR}/interactions\"]\nca = \"/etc/shardless/far.pem\"\n",
            service.discord.public_key()
        );
        service.configure(&config).await;
        sh("systemctl start shardless").await;
        service.answers(ENDPOINT).await;
        assert_eq!(service.handler.seen().remove(0)["x-far"], "yes");

        // Under all that the unit says.
        let main = service.property("MainPID").await;
        let status = fs::read_to_string(format!("/proc/{main}/status")).unwrap();
        for line in
            ["NoNewPrivs:\t1", "Seccomp:\t2", "CapBnd:\t0000000000000000", "CapEff:\t0000000000000000"]
        {
            assert!(status.contains(line), "{line} is not in\n{status}");
        }
        let limits = fs::read_to_string(format!("/proc/{main}/limits")).unwrap();
        assert_eq!(limits.matches("20000").count(), 2);
        // Memory holds tokens: neither a core dump nor swap is to.
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().filter(|word| *word == "0").count(), 2, "{core}");
        assert_eq!(service.property("MemorySwapMax").await, "0");
    });
}

/// A TLS server with that address, in front of the handler.
async fn far_server(handler: u16) {
    sh(&format!(
        "ip link add far type veth peer name near
        ip address add {FAR}/24 dev far
        ip link set far up
        mkdir /etc/far && cd /etc/far
        new='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2'
        openssl req -x509 $new -subj '/CN=an authority' -keyout ca.key -out ca.pem
        openssl req $new -subj /CN=far -keyout far.key -out far.csr
        echo subjectAltName=IP:{FAR} > far.ext
        openssl x509 -req -in far.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile far.ext -out far.pem
        install -m 640 -g shardless ca.pem /etc/shardless/far.pem"
    ))
    .await;
    let site = format!(
        "server {{
            listen {FAR}:443 ssl;
            ssl_certificate /etc/far/far.pem;
            ssl_certificate_key /etc/far/far.key;
            location / {{
                proxy_pass http://127.0.0.1:{handler};
                proxy_set_header X-Far yes;
            }}
        }}"
    );
    fs::write("/etc/nginx/conf.d/far.conf", site).unwrap();
    sh("systemctl start nginx").await;
}

#[test]
fn the_proxies_reach_the_unix_socket() {
    on_a_machine(the_proxies_reach_the_unix_socket, async || {
        const SOCKET: &str = "/run/shardless/http.sock";
        let service = Service::install(Handler::start().await).await;
        service.configure(&service.config(&format!("unix_socket = {SOCKET:?}"))).await;
        sh("systemctl start shardless").await;
        let upstream = Upstream { way: Way::Unix, socket: SOCKET.into(), ..Upstream::plain(3000) };
        let fronts = front::both(&upstream).await;
        let answer = async || {
            for (_, url) in &fronts {
                service.answers(url).await;
            }
        };
        answer().await;
        sh("systemctl restart shardless").await;
        answer().await;

        // systemd can hold it as well, and the daemon says how.
        let advice = "systemctl edit shardless.socket";
        assert!(journal_since_start("shardless").await.contains(advice));
        Service::edit("shardless.socket", &format!("[Socket]\nListenStream={SOCKET}\n")).await;
        sh("systemctl stop shardless.service && systemctl restart shardless.socket").await;
        answer().await;
        assert!(!journal_since_start("shardless").await.contains(advice));
        sh("systemctl restart shardless").await;
        answer().await;
    });
}
