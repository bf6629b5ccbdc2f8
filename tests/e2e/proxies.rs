//! The real proxies: each runs a site file that it is given.

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::daemon::Upstream;
use crate::process::{self, Process, free_port};
use crate::sites;

/// A proxy that site files ship for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proxy {
    Nginx,
    Apache,
}

/// Any proxy that the tests run.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Server {
    Nginx,
    Apache,
    Caddy,
    HaProxy,
}

/// A proxy that is running.
pub(crate) struct Front {
    port: u16,
    // In this order: the folder goes last.
    process: Process,
    _folder: TempDir,
}

impl Proxy {
    /// Starts the proxy in front of the daemon, with the site file for this way to it.
    pub(crate) async fn in_front_of(self, upstream: &Upstream) -> Front {
        let port = free_port();
        self.server().start(port, &sites::shipped(self, port, upstream)).await
    }

    pub(crate) fn server(self) -> Server {
        match self {
            Self::Nginx => Server::Nginx,
            Self::Apache => Server::Apache,
        }
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nginx => "Nginx",
            Self::Apache => "Apache",
        })
    }
}

impl Server {
    /// Starts the proxy with a site that listens on that port.
    pub(crate) async fn start(self, port: u16, site: &str) -> Front {
        let folder = process::folder();
        fs::write(folder.path().join("site.conf"), site).unwrap();
        let (name, command) = match self {
            Self::Nginx => ("nginx", nginx(folder.path())),
            Self::Apache => ("apache2", apache(folder.path(), port)),
            Self::Caddy => ("caddy", caddy(folder.path())),
            Self::HaProxy => ("haproxy", haproxy(folder.path())),
        };
        let log = folder.path().join("error.log");
        Front { port, process: Process::start(name, command, &log, port).await, _folder: folder }
    }
}

impl Front {
    /// The port it listens on.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The endpoint's URL, as Discord would be given it.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}/interactions", self.port)
    }

    /// What the proxy has to say.
    pub(crate) fn log(&self) -> String {
        self.process.log()
    }
}

fn nginx(folder: &Path) -> Command {
    let mut command = Command::new(process::program("nginx"));
    let folder = folder.display();
    let config = format!(
        "pid {folder}/pid;\n\
         worker_processes 2;\n\
         error_log stderr warn;\n\
         events {{ worker_connections 1024; }}\n\
         http {{\n\
           access_log off;\n\
           client_body_temp_path {folder}/body;\n\
           proxy_temp_path {folder}/proxy;\n\
           fastcgi_temp_path {folder}/fastcgi;\n\
           uwsgi_temp_path {folder}/uwsgi;\n\
           scgi_temp_path {folder}/scgi;\n\
           include {folder}/site.conf;\n\
         }}\n"
    );
    let main = format!("{folder}/nginx.conf");
    fs::write(&main, config).unwrap();
    command.args(["-e", "stderr", "-g", "daemon off;", "-c", &main]);
    command
}

/// The workers are as many as Debian's Apache has.
fn apache(folder: &Path, port: u16) -> Command {
    let mut command = Command::new(process::program("apache2"));
    let folder = folder.display();
    let modules = ["mpm_event", "authz_core", "reqtimeout", "proxy", "proxy_http", "headers", "ssl"];
    let load = |name: &&str| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n");
    let config = format!(
        "ServerRoot {folder}\n\
         DefaultRuntimeDir {folder}\n\
         PidFile {folder}/pid\n\
         ErrorLog /proc/self/fd/2\n\
         ServerName 127.0.0.1\n\
         Listen {port}\n\
         {modules}\
         StartServers 2\n\
         MinSpareThreads 25\n\
         MaxSpareThreads 75\n\
         ThreadsPerChild 25\n\
         MaxRequestWorkers 150\n\
         User www-data\n\
         Group www-data\n\
         Include {folder}/site.conf\n",
        modules = modules.iter().map(load).collect::<String>(),
    );
    let main = format!("{folder}/httpd.conf");
    fs::write(&main, config).unwrap();
    command.args(["-DFOREGROUND", "-f", &main]);
    command
}

fn caddy(folder: &Path) -> Command {
    let mut command = Command::new(process::program("caddy"));
    let main = folder.join("Caddyfile");
    // Its own port for administration would be the same in every test.
    fs::write(&main, "{\n\tadmin off\n}\nimport site.conf\n").unwrap();
    command.args(["run", "--adapter", "caddyfile", "--config"]).arg(main);
    command.env("HOME", folder).env("XDG_DATA_HOME", folder).env("XDG_CONFIG_HOME", folder);
    command
}

fn haproxy(folder: &Path) -> Command {
    let mut command = Command::new(process::program("haproxy"));
    command.args(["-db", "-f"]).arg(folder.join("site.conf"));
    command
}
