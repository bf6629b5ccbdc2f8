//! The real proxies, with the site files that ship.

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::process::{self, Process, free_port};

/// Which proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proxy {
    Nginx,
    Apache,
}

/// A proxy that is running.
pub(crate) struct Front {
    port: u16,
    // In this order: the folder goes last.
    process: Process,
    _folder: TempDir,
}

impl Proxy {
    /// Starts the proxy in front of that port of 127.0.0.1.
    pub(crate) async fn in_front_of(self, upstream: u16) -> Front {
        let (folder, port) = (process::folder(), free_port());
        let command = match self {
            Self::Nginx => nginx(folder.path(), port, upstream),
            Self::Apache => apache(folder.path(), port, upstream),
        };
        let log = folder.path().join("error.log");
        Front { port, process: Process::start(self.name(), command, &log, port).await, _folder: folder }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Apache => "apache2",
        }
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
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

fn nginx(folder: &Path, port: u16, upstream: u16) -> Command {
    let program = process::program("nginx");
    let site = site(
        "nginx/shardless.conf",
        &[
            ("server_name bot.example.com;", "server_name 127.0.0.1;".to_owned()),
            ("listen 80;", format!("listen {port};")),
            ("listen [::]:80;", format!("listen [::]:{port};")),
            ("server 127.0.0.1:3000 ", format!("server 127.0.0.1:{upstream} ")),
        ],
    );
    fs::write(folder.join("site.conf"), site).unwrap();
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
    let mut command = Command::new(program);
    command.args(["-e", "stderr", "-g", "daemon off;", "-c", &main]);
    command
}

/// The workers are as many as Debian's Apache has.
fn apache(folder: &Path, port: u16, upstream: u16) -> Command {
    let program = process::program("apache2");
    let site = site(
        "apache/shardless.conf",
        &[
            ("ServerName bot.example.com", "ServerName 127.0.0.1".to_owned()),
            ("<VirtualHost *:80>", format!("<VirtualHost *:{port}>")),
            ("http://127.0.0.1:3000/", format!("http://127.0.0.1:{upstream}/")),
        ],
    );
    fs::write(folder.join("site.conf"), site).unwrap();
    let folder = folder.display();
    let modules = ["mpm_event", "authz_core", "reqtimeout", "proxy", "proxy_http", "headers"];
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
    let mut command = Command::new(program);
    command.args(["-DFOREGROUND", "-f", &main]);
    command
}

/// A shipped site file for a test: the domain and the ports are replaced, and nothing else.
fn site(file: &str, replacements: &[(&str, String)]) -> String {
    let mut text = fs::read_to_string(process::source(file)).unwrap();
    for (shipped, ours) in replacements {
        assert_eq!(text.matches(shipped).count(), 1, "{file} is to have {shipped:?} once");
        text = text.replace(shipped, ours);
    }
    text
}
