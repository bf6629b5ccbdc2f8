//! The Debian package as `deploy/package` has built it, looked at without installing it; and installed, upgraded and purged
//! where systemd does not run, as in a container's image.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::inside::as_root;
use crate::process::{folder, program, source};

/// The package of this checkout.
pub(crate) fn package() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let start = concat!("shardless_", env!("CARGO_PKG_VERSION"), "-1_");
    let built = fs::read_dir(target.join("package")).into_iter().flatten().map(|entry| entry.unwrap().path());
    let mut ours = built.filter(|path| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.starts_with(start) && name.ends_with(".deb")
    });
    ours.next().unwrap_or_else(|| panic!("{start}….deb is missing: run deploy/package"))
}

/// What is in it, in a folder as on the machine where it is installed.
pub(crate) fn unpacked() -> TempDir {
    let root = folder();
    said(Command::new(program("dpkg-deb")).arg("-x").arg(package()).arg(root.path()));
    root
}

/// Runs a command that must succeed; what it says to both.
fn said(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{said}", output.status);
    said.into_owned()
}

/// Every file below a folder, relative to it, with its mode.
fn files(root: &Path) -> BTreeMap<String, u32> {
    let mut files = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            if metadata.is_dir() {
                assert_eq!(metadata.permissions().mode() & 0o7777, 0o755, "{name}");
                folders.push(path);
            } else {
                files.insert(name, metadata.permissions().mode() & 0o7777);
            }
        }
    }
    files
}

/// What of deploy/ makes packages and images, and is of no use on a server.
fn is_for_building(name: &str) -> bool {
    name.starts_with("debian/") || ["package", "reproducible", "Containerfile"].contains(&name)
}

/// The files of the checkout that are to be installed as they are: where to, and from where.
fn shipped() -> BTreeMap<String, PathBuf> {
    let mut shipped = BTreeMap::new();
    for folder in ["nginx", "apache", "config", "deploy"] {
        let found = files(&source(folder));
        assert!(!found.is_empty());
        for name in found.into_keys().filter(|name| folder != "deploy" || !is_for_building(name)) {
            let from = source(folder).join(&name);
            shipped.insert(format!("usr/share/shardless/{folder}/{name}"), from);
        }
    }
    let units = files(&source("systemd"));
    assert_eq!(
        units.keys().collect::<Vec<_>>(),
        ["shardless.service", "shardless.socket", "shardless.sysusers"]
    );
    for unit in ["shardless.service", "shardless.socket"] {
        shipped.insert(format!("usr/lib/systemd/system/{unit}"), source("systemd").join(unit));
    }
    let others = [
        ("usr/lib/sysusers.d/shardless.conf", "systemd/shardless.sysusers"),
        ("usr/share/doc/shardless/examples/config.toml", "config/shardless.toml"),
        ("usr/share/lintian/overrides/shardless", "deploy/debian/lintian-overrides"),
    ];
    shipped.extend(others.map(|(to, from)| (to.to_owned(), source(from))));
    shipped
}

/// The files that are made for the package, besides the commands' manual pages.
const MADE: [&str; 10] = [
    "usr/bin/shardless",
    "usr/share/bash-completion/completions/shardless",
    "usr/share/doc/shardless/changelog.Debian.gz",
    "usr/share/doc/shardless/changelog.gz",
    "usr/share/doc/shardless/copyright",
    "usr/share/fish/vendor_completions.d/shardless.fish",
    "usr/share/man/man1/shardless.1.gz",
    "usr/share/man/man5/shardless.toml.5.gz",
    "usr/share/shardless/shardless.cdx.json",
    "usr/share/zsh/vendor-completions/_shardless",
];

/// The commands, by the program's own word.
fn commands() -> Vec<String> {
    let commands = commands_of(&[]);
    assert!(commands.len() > 4);
    commands
}

/// With those below others, as in `outbox-list`.
fn commands_of(above: &[&str]) -> Vec<String> {
    let help = said(Command::new(env!("CARGO_BIN_EXE_shardless")).args(above).arg("--help"));
    let Some((_, commands)) = help.split_once("\nCommands:\n") else { return Vec::new() };
    let lines = commands.lines().take_while(|line| !line.is_empty());
    let names = lines.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help");
    let with_those_below = names.flat_map(|name| {
        let below = commands_of(&[above, &[name]].concat()).into_iter();
        std::iter::once(name.to_owned()).chain(below.map(move |below| format!("{name}-{below}")))
    });
    with_those_below.collect()
}

#[test]
fn it_holds_what_is_to_be_installed_and_nothing_else() {
    let root = unpacked();
    let found = files(root.path());
    let shipped = shipped();
    let pages = commands().into_iter().map(|command| format!("usr/share/man/man1/shardless-{command}.1.gz"));
    let mut expected: Vec<_> = shipped.keys().cloned().chain(MADE.map(str::to_owned)).chain(pages).collect();
    expected.sort_unstable();
    assert_eq!(found.keys().cloned().collect::<Vec<_>>(), expected);

    for (name, mode) in &found {
        let is_program =
            fs::read(root.path().join(name)).unwrap().starts_with(b"#!") || name.starts_with("usr/bin/");
        assert_eq!(*mode, if is_program { 0o755 } else { 0o644 }, "{name}");
    }
    for (to, from) in &shipped {
        let (installed, ours) = (fs::read(root.path().join(to)).unwrap(), fs::read(from).unwrap());
        assert!(installed == ours, "{to} is not {}: run deploy/package", from.display());
    }

    // As a list, since unpacking gives every file to whoever unpacks.
    let list = said(Command::new(program("dpkg-deb")).arg("-c").arg(package()));
    assert!(list.lines().count() > found.len());
    for line in list.lines() {
        assert!(line.contains(" root/root ") || line.contains(" 0/0 "), "{line}");
    }
    let megabytes = fs::metadata(package()).unwrap().len() as f64 / 1e6;
    println!("{}: {megabytes:.1} MB, {} files", package().display(), found.len());
}

#[test]
fn lintian_finds_nothing() {
    let mut lintian = Command::new(program("lintian"));
    lintian.args(["--allow-root", "--fail-on", "error,warning"]).arg(package());
    let found = said(&mut lintian);
    println!("lintian: {}", if found.is_empty() { "nothing" } else { &found });
    assert_eq!(found, "");
}

#[test]
fn it_names_no_folder_of_the_machine_that_built_it() {
    let root = unpacked();
    said(Command::new(program("dpkg-deb")).arg("-e").arg(package()).arg(root.path().join("DEBIAN")));
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let cargo = std::env::var("CARGO_HOME").unwrap_or_else(|_| std::env::var("HOME").unwrap() + "/.cargo");
    let told = [env!("CARGO_MANIFEST_DIR"), target.to_str().unwrap(), &cargo];
    for name in files(root.path()).keys() {
        let path = root.path().join(name);
        let content = match path.extension() {
            Some(gz) if gz == "gz" => {
                Command::new(program("gzip")).arg("-dc").arg(&path).output().unwrap().stdout
            }
            _ => fs::read(&path).unwrap(),
        };
        assert!(!content.is_empty(), "{name}");
        let content = String::from_utf8_lossy(&content);
        for folder in told {
            let told = content.split_once(folder).map(|(_, rest)| rest.chars().take(80).collect::<String>());
            assert_eq!(told, None, "{name} names {folder}");
        }
    }
}

/// A manual page as a terminal shows it; without a complaint.
fn page(root: &Path, name: &str) -> String {
    let mut man = Command::new(program("man"));
    man.args(["--warnings", "--encoding=UTF-8", "--local-file"]).arg(root.join("usr/share/man").join(name));
    man.env("LC_ALL", "C.UTF-8").env("MANWIDTH", "200").env("MAN_KEEP_STDERR", "1");
    let output = man.output().unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaints.is_empty(), "{name}: {complaints}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_manual_reads_well() {
    let root = unpacked();
    let pages: Vec<_> = files(&root.path().join("usr/share/man")).into_keys().collect();
    for name in &pages {
        let page = page(root.path(), name);
        let title = name.split_once('/').unwrap().1.trim_end_matches(".gz");
        let (title, section) = title.rsplit_once('.').unwrap();
        assert!(page.starts_with(&format!("{title}({section})")), "{page}");
        assert!(
            page.contains("NAME") && page.contains(&format!("shardless {}", env!("CARGO_PKG_VERSION"))),
            "{page}"
        );
    }

    let first = page(root.path(), "man1/shardless.1.gz");
    for command in commands().into_iter().filter(|command| !command.contains('-')) {
        assert!(first.contains(&format!("shardless-{command}(1)")), "{first}");
    }
}

#[test]
fn the_manual_has_every_key_of_the_config() {
    let root = unpacked();
    let page = page(root.path(), "man5/shardless.toml.5.gz");
    let config = fs::read_to_string(source("config/shardless.toml")).unwrap();
    let keys = config.lines().map(|line| line.trim_start_matches("# "));
    let keys = keys.filter(|line| line.contains(" = ") || line.starts_with('['));
    let mut found = 0;
    for key in keys.filter(|line| line.parse::<toml::Table>().is_ok()) {
        found += 1;
        assert!(page.lines().any(|line| line.trim().trim_end_matches("  (example)") == key), "{key}\n{page}");
    }
    assert!(found > 30, "{found} keys and tables");
}

#[test]
fn the_shells_complete_its_commands() {
    let root = unpacked();
    let bash = root.path().join("usr/share/bash-completion/completions/shardless");
    // As a shell does where somebody has typed "shardless che" and presses Tab.
    let script = "source \"$1\"; COMP_WORDS=(shardless che) COMP_CWORD=1; _shardless shardless che shardless; echo \"${COMPREPLY[*]}\"";
    let said = said(Command::new(program("bash")).args(["-euc", script, "bash"]).arg(&bash));
    assert_eq!(said, "check\n");

    for file in ["zsh/vendor-completions/_shardless", "fish/vendor_completions.d/shardless.fish"] {
        let text = fs::read_to_string(root.path().join("usr/share").join(file)).unwrap();
        assert!(text.contains("check") && text.contains("keygen"), "{file}:\n{text}");
    }
}

/// In a copy of this machine's root that is gone afterwards, without systemd.
const LIFE_WITHOUT_SYSTEMD: &str = r#"
stage=$(mktemp -d)
trap 'umount -R "$stage"; rmdir "$stage"' EXIT
mount -t tmpfs tmpfs "$stage"
mkdir "$stage/upper" "$stage/work" "$stage/root"
mount -t overlay -o "lowerdir=/,upperdir=$stage/upper,workdir=$stage/work" overlay "$stage/root"
mount -t tmpfs tmpfs "$stage/root/run"
mount -t tmpfs tmpfs "$stage/root/tmp"
mount -t proc proc "$stage/root/proc"
cp "$1" "$stage/root/tmp/shardless.deb"
chroot "$stage/root" sh -euxc '
    not() { ! "$@"; }
    traces() { find /etc /usr /var/lib /run -name "*shardless*" ! -path "/usr/src/*" | sort; }
    not getent passwd shardless
    before=$(traces)
    # Its dependencies are not what is looked at here.
    dpkg --no-triggers --force-depends --install /tmp/shardless.deb
    test "$(stat -c "%U:%G %a" /etc/shardless)" = "root:shardless 750"
    test -z "$(ls -A /etc/shardless)"
    test -L /etc/systemd/system/sockets.target.wants/shardless.socket
    test -L /etc/systemd/system/multi-user.target.wants/shardless.service

    # What the administrator made stays: a config, and that the daemon is not to be started.
    echo mine > /etc/shardless/config.toml
    systemctl disable shardless.service
    dpkg --no-triggers --force-depends --install /tmp/shardless.deb
    not test -e /etc/systemd/system/multi-user.target.wants/shardless.service

    mkdir -p /var/lib/shardless && touch /var/lib/shardless/state
    dpkg --no-triggers --remove shardless
    test "$(cat /etc/shardless/config.toml)" = mine
    test -e /var/lib/shardless/state
    getent passwd shardless

    dpkg --purge shardless
    not getent passwd shardless
    not getent group shardless
    test "$(traces)" = "$before"
    not dpkg-query --show shardless
'
"#;

#[test]
fn it_comes_and_goes_where_systemd_does_not_run() {
    let mut unshare = as_root("unshare");
    unshare.args(["--mount", "--net", "bash", "-euc", LIFE_WITHOUT_SYSTEMD, "bash"]).arg(package());
    said(&mut unshare);
}
