//! The container's image, built by buildah from deploy/Containerfile where there is no registry: the builder is this machine
//! itself. In the ordinary run the program is the one that is built already; `SHARDLESS_FULL=1` has it compiled inside.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::inside::as_root;
use crate::process::{program, source};

/// Larger, and it is no small image any more.
const MEGABYTES: f64 = 16.0;

/// Builds and runs it, with all that buildah keeps in a folder that is gone afterwards. What it is given: the checkout, the
/// program or nothing, the toolchain's folder, and Cargo's.
const BUILD_AND_RUN: &str = r#"
checkout=$1 program=$2 toolchain=$3 cargo_home=$4
stage=$(mktemp -d)
buildah() { command buildah --root "$stage/root" --runroot "$stage/run" --storage-driver vfs "$@"; }
trap 'buildah rm --all >/dev/null; rm -rf "$stage"' EXIT

# The builder: an empty image, into which this machine's own folders are mounted.
mkdir -p "$stage/builder"/{usr,etc/ssl,etc/alternatives} "$stage/tools"
ln -s usr/bin usr/sbin usr/lib usr/lib64 "$stage/builder"
path=$toolchain/bin:/usr/bin
volumes=(-v /usr:/usr:ro -v /etc/ssl:/etc/ssl:ro -v /etc/alternatives:/etc/alternatives:ro)
volumes+=(-v "$toolchain:$toolchain:ro" -v "$cargo_home:$cargo_home")
if [[ $program ]]; then
  cp "$program" "$stage/tools/shardless"
  cat > "$stage/tools/cargo" <<'END'
#!/bin/sh
# In Cargo's place: sees that all is there that it would take, and nothing besides.
set -eux
if test "$1" = install; then
  install -D -m 755 /dev/null /auditable/bin/cargo-auditable
  exit
fi
test "$RUSTC_WORKSPACE_WRAPPER" = cargo-auditable
test "$*" = "build --locked --release --bin shardless"
test -f Cargo.lock && test -f .cargo/config.toml && test -f src/main.rs
! test -e .git && ! test -e target && ! test -e tests/e2e/bots/express/node_modules || exit 1
install -D /tools/shardless target/release/shardless
END
  chmod +x "$stage/tools/cargo"
  path=/tools:$path
  volumes+=(-v "$stage/tools:/tools:ro")
fi
builder=$(buildah from scratch)
buildah add --quiet "$builder" "$stage/builder" / >/dev/null
buildah config --env "PATH=$path" --env "CARGO_HOME=$cargo_home" --env CARGO_NET_OFFLINE=true "$builder"
buildah commit --quiet "$builder" localhost/builder >/dev/null

buildah bud --isolation chroot --pull-never --build-arg BUILDER=localhost/builder "${volumes[@]}" \
  -f "$checkout/deploy/Containerfile" -t localhost/shardless "$checkout" >&2

container=$(buildah from --pull-never localhost/shardless)
image=$(buildah mount "$container")
inside() { buildah run --isolation chroot --workingdir /run/shardless "$container" -- "$@"; }
echo "bytes $(du --summarize --bytes "$image" | cut -f 1)"
(cd "$image" && find . -type f -printf 'file %P\n' && find . ! -user 0 -printf 'not of root %P\n')
buildah inspect --type image --format 'user {{.OCIv1.Config.User}} runs {{.OCIv1.Config.Entrypoint}} {{.OCIv1.Config.Cmd}}' localhost/shardless; echo
inside /usr/bin/shardless --version
inside /usr/bin/shardless demo --once
inside /usr/bin/shardless keygen >&2
stat -c "key of %u" "$image/run/shardless/shardless-dev.key"
# A handler by https needs the authorities that the image brings.
install -D -m 644 /dev/stdin "$image/etc/shardless/config.toml" <<'END'
[apps.mybot]
public_key = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
handler = "https://bot.example.com/interactions"
END
inside /usr/bin/shardless check
"#;

fn first_line(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn the_image_is_small_and_runs_as_nobody_in_particular() {
    let full = std::env::var("SHARDLESS_FULL").is_ok_and(|full| !full.is_empty());
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let release = target.join("release/shardless");
    assert!(release.exists(), "{} is missing: run deploy/package", release.display());
    let built = if full { PathBuf::new() } else { release };
    let toolchain = first_line(Command::new(program("rustc")).args(["--print", "sysroot"]));
    let cargo_home =
        std::env::var("CARGO_HOME").unwrap_or_else(|_| std::env::var("HOME").unwrap() + "/.cargo");

    program("buildah");
    let mut command = as_root("bash");
    command.args(["-euo", "pipefail", "-c", BUILD_AND_RUN, "bash"]);
    let output = command.arg(source("")).arg(built).args([toolchain, cargo_home]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{said}\n{complaints}", output.status);

    let all = |start: &str| -> Vec<String> {
        let lines = said.lines().filter_map(|line| line.strip_prefix(start));
        lines.map(str::to_owned).collect()
    };
    let megabytes = all("bytes ")[0].parse::<f64>().unwrap() / 1e6;
    println!("image: {megabytes:.1} MB");
    assert!(megabytes < MEGABYTES, "{megabytes} MB");
    let mut files = all("file ");
    files.retain(|file| !file.starts_with("lib") && !file.starts_with("usr/lib"));
    files.sort_unstable();
    assert_eq!(
        files,
        [
            "etc/group",
            "etc/nsswitch.conf",
            "etc/passwd",
            "etc/ssl/certs/ca-certificates.crt",
            "usr/bin/shardless"
        ]
    );
    let mut writable = all("not of root ");
    writable.sort_unstable();
    assert_eq!(writable, ["run/shardless", "var/lib/shardless"]);
    assert_eq!(all("user "), ["65532:65532 runs [/usr/bin/shardless] [serve]"]);
    assert_eq!(all("shardless ")[0], env!("CARGO_PKG_VERSION"));
    assert!(all("✔ ").len() >= 10, "{said}");
    assert_eq!(all("key of "), ["65532"]);
}
