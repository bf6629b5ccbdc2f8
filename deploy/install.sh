#!/usr/bin/env bash
# From a Debian server to a bot that answers over HTTPS, in one call; the same call again upgrades. README.md beside this
# tells the same steps one by one. Read from the end: main is the list of what happens.
set -euo pipefail
umask 022
# A plain `su` keeps the caller's PATH, which lacks these.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

HERE=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
# The checkout, or the package's /usr/share/shardless.
readonly FILES=${HERE%/*}
readonly BINARY=/usr/local/bin/shardless
readonly UNITS=/usr/local/lib/systemd/system
readonly SYSUSERS=/usr/local/lib/sysusers.d/shardless.conf
readonly CONFIG=/etc/shardless/config.toml
# The checksums of what this script wrote last: they tell a file of its own from one that somebody edited since.
readonly RECORD=/etc/shardless/installed.sha256
readonly STATE=/var/lib/shardless
readonly PINNED=$STATE/self-signed.pem

usage() {
  cat <<'END'
usage: deploy/install.sh --domain bot.example.com --proxy nginx|apache --public-key HEX --handler URL [OPTIONS]

Installs shardless with its units, its config and the proxy's site, and starts what is needed. The same call again
upgrades; what you or certbot edited in the meantime is kept.

  --domain NAME       what Discord reaches this server by
  --proxy NAME        who takes Discord's requests: nginx or apache; none leaves the proxies alone
  --public-key HEX    Developer Portal, your application, General Information, Public Key
  --handler URL       where your bot listens, such as http://127.0.0.1:8080/interactions
                      (both are not needed where /etc/shardless/config.toml exists)
  --self-signed       TLS between the proxy and shardless too; the proxy takes no certificate but shardless's own
  --certbot           get a certificate from Let's Encrypt by certbot, and turn the site into HTTPS
  --email ADDRESS     with --certbot: where Let's Encrypt writes to
  --staging           with --certbot: Let's Encrypt's test server, whose certificates nobody trusts
  --acme-server URL   with --certbot: another authority
  --binary FILE       the program; otherwise the package's, target/release/shardless, or what cargo builds
  --dry-run           say what would be done, and change nothing; needs no root
  --help              this text
END
}

# --- What is said

mistakes=()
done_list=()
kept_list=()

mistake() { mistakes+=("$1"); }
step() { printf '==> %s\n' "$1"; }
note() { printf '  note: %s\n' "$1"; }

kept() { printf '  kept %s\n' "$1"; }

kept_edited() {
  kept "$1"
  kept_list+=("$1")
}

changed() { done_list+=("$1"); }

die() {
  printf 'error: %s\n' "$1" >&2
  exit 1
}

# Ends with every mistake that was found, if there is one.
report_mistakes() { # STATUS
  ((${#mistakes[@]} == 0)) && return
  printf 'error: %s\n' "${mistakes[@]}" >&2
  ((${#mistakes[@]} == 1)) || printf '%s mistakes; nothing was changed\n' "${#mistakes[@]}" >&2
  exit "$1"
}

# --- How things are done: by these alone, so that --dry-run changes nothing

is_given() { [[ -v given[$1] ]]; }
option() { printf '%s' "${given[$1]-}"; }

# Runs a command, and shows what it says only if it fails.
run() {
  if is_given dry-run; then
    printf '     '
    printf ' %q' "$@"
    echo
    return
  fi
  local said status=0
  said=$("$@" 2>&1) || status=$?
  ((status == 0)) || printf '%s\n' "$said" >&2
  return "$status"
}

# Puts a text in the place of a file, in one go.
write() { # FILE MODE GROUP TEXT
  if is_given dry-run; then
    printf '      write %s (%s, root:%s)\n' "$1" "$2" "$3"
    return
  fi
  printf '%s\n' "$4" | install -m "$2" -g "$3" /dev/stdin "$1.tmp"
  mv -f "$1.tmp" "$1"
}

sum_of_text() { printf '%s\n' "$1" | sha256sum | cut -d' ' -f1; }
recorded() { awk -v file="$1" '$2 == file {print $1}' "$RECORD" 2>/dev/null || true; }

remember() { # FILE TEXT: this is what stands there, or would but for somebody's changes
  local others
  is_given dry-run && return
  [[ $(recorded "$1") != "$(sum_of_text "$2")" ]] || return 0
  others=$(awk -v file="$1" '$2 != file' "$RECORD" 2>/dev/null || true)
  write "$RECORD" 0644 root "${others:+$others$'\n'}$(sum_of_text "$2")  $1"
}

# absent, same (as the text), ours (as this script wrote it last), or edited.
state_of() { # FILE TEXT
  local sum
  [[ -e $1 ]] || { echo absent; return; }
  sum=$(sha256sum < "$1" | cut -d' ' -f1)
  if [[ $sum == "$(sum_of_text "$2")" ]]; then
    echo same
  elif [[ $sum == "$(recorded "$1")" ]]; then
    echo ours
  else
    echo edited
  fi
}

is_active() { systemctl -q is-active "$1" 2>/dev/null; }
has_package() { [[ $(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) == installed ]]; }

# --- The arguments

declare -A given=()

read_arguments() {
  while (($#)); do
    [[ $1 == --*=* ]] && set -- "${1%%=*}" "${1#*=}" "${@:2}"
    case $1 in
      --domain | --proxy | --public-key | --handler | --email | --acme-server | --binary)
        given[${1#--}]=
        if [[ -z ${2-} || $2 == --* ]]; then
          mistake "$1 needs a value"
          shift
        else
          given[${1#--}]=$2
          shift 2
        fi
        ;;
      --self-signed | --certbot | --staging | --dry-run)
        given[${1#--}]=yes
        shift
        ;;
      --help | -h)
        usage
        exit 0
        ;;
      *)
        mistake "$1 is no option of this script: see --help"
        shift
        ;;
    esac
  done
}

need() { # OPTION WHAT
  is_given "$1" || mistake "--$1 is missing: $2"
}

fits() { # OPTION PATTERN WHAT: its value, where it has one, is of that form
  [[ -z $(option "$1") || $(option "$1") =~ $2 ]] || mistake "--$1 is to be $3"
}

goes_with() { # OPTION OTHER
  ! is_given "$1" || is_given "$2" || mistake "--$1 is for --$2: give both or none"
}

check_arguments() {
  local label='[a-z0-9]([a-z0-9-]*[a-z0-9])?'
  need proxy 'nginx, apache or none'
  fits proxy '^(nginx|apache|none)$' 'nginx, apache or none'
  [[ $(option proxy) == none ]] || need domain 'what Discord reaches this server by, such as bot.example.com'
  fits domain "^($label\.)+[a-z]$label\$" 'a domain alone in small letters, without https:// and without a path'
  if [[ ! -e $CONFIG ]]; then
    need public-key 'Developer Portal, your application, General Information, Public Key'
    need handler 'where your bot listens, such as http://127.0.0.1:8080/interactions'
  else
    goes_with public-key handler
    goes_with handler public-key
  fi
  fits public-key '^[0-9a-fA-F]{64}$' '64 hex digits: the Public Key, neither the Application ID nor the bot token'
  fits handler '^(https?://|unix:/)[^[:space:]"\\]+$' 'an address such as http://127.0.0.1:8080/interactions'
  ! is_given certbot || need email "--certbot wants to know where Let's Encrypt writes to"
  fits email '^[^[:space:]@]+@[^[:space:]@]+$' 'an address such as you@example.com'
  fits acme-server '^https://[^[:space:]]+$' 'the address of a directory, such as https://acme.example.com/directory'
  goes_with email certbot
  goes_with staging certbot
  goes_with acme-server certbot
  if is_given staging && is_given acme-server; then
    mistake '--staging is an authority of its own: leave it or --acme-server out'
  fi
  if is_given certbot && [[ $(option proxy) == none ]]; then
    mistake "--certbot needs --proxy nginx or apache; without a proxy see 'Without a proxy' in $HERE/README.md"
  fi
  if [[ -n $(option binary) && ! -x $(option binary) ]]; then
    mistake "--binary: there is no program $(option binary)"
  fi
  # The package's own folder has no units, since those are installed.
  if is_given binary && [[ ! -d $FILES/systemd ]]; then
    mistake "--binary is for a checkout's install.sh; this one is the package's, which apt install ./shardless_….deb upgrades"
  fi
  report_mistakes 2
}

# --- The machine

# Also: which proxy's folder, service, test of its settings and file of the site are meant.
choose_proxy() {
  case $(option proxy) in
    nginx) proxy=nginx; proxy_name=Nginx; proxy_test=(nginx -t); sites=/etc/nginx ;;
    apache) proxy=apache2; proxy_name=Apache; proxy_test=(apache2ctl configtest); sites=/etc/apache2 ;;
    none) proxy= ;;
  esac
  shipped_site=$(option proxy)/shardless${given[self-signed]:+-self-signed}.conf
  site=${sites-}/sites-available/shardless.conf
  enabled=${sites-}/sites-enabled/shardless.conf
}

check_machine() {
  if ! is_given dry-run; then
    ((EUID == 0)) || mistake 'this installs for the whole system: run it as root (sudo), or with --dry-run'
    [[ -d /run/systemd/system ]] || mistake 'systemd does not run here, and shardless is started by it'
  fi
  [[ -e /etc/debian_version ]] || mistake 'this is neither Debian nor made from it: follow README.md by hand'
  if [[ $proxy ]]; then
    check_port
    check_kept_sites
  fi
  report_mistakes 1
}

check_port() {
  local holder
  is_active "$proxy" && return
  command -v ss >/dev/null || return 0
  holder=$(ss -Hltnp 'sport = :80' 2>/dev/null | sed -n 's/.*users:(("\([^"]*\)".*/\1/p' | sort -u | paste -sd' ')
  [[ -z $holder || $holder == "$proxy" ]] ||
    mistake "port 80 is taken by $holder: stop that first, or choose it as --proxy if it is one"
}

# A site that is kept is to fit what is asked for: it would answer 502 otherwise, or not at all.
check_kept_sites() {
  local file scheme=http
  is_given self-signed && scheme=https
  for file in "$site" "${site%.conf}-le-ssl.conf"; do
    [[ $(state_of "$file" "$(site_text)") == edited ]] || continue
    grep -qF -- "$(option domain)" "$file" ||
      mistake "$file was edited and is for another domain: move it away, and run this again"
    grep -qE "^[^#]*(proxy_pass |ProxyPass .*[\"|])$scheme://" "$file" ||
      mistake "$file was edited, and does not pass requests on by $scheme://: move it away, and run this again"
  done
}

install_packages() {
  local missing=() name wanted=(ca-certificates)
  [[ -z $proxy ]] || wanted+=("$proxy")
  # A certbot of another origin, such as a snap, brings its plugins along.
  if is_given certbot && { [[ -e /usr/bin/certbot ]] || ! command -v certbot >/dev/null; }; then
    wanted+=(certbot "python3-certbot-$(option proxy)")
  fi
  for name in "${wanted[@]}"; do
    has_package "$name" || missing+=("$name")
  done
  if ((${#missing[@]} == 0)); then
    kept "the packages ${wanted[*]}"
    return
  fi
  step "install ${missing[*]}"
  run apt-get -q update || note 'the list of packages could not be brought up to date'
  run env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install "${missing[@]}" ||
    die "apt-get could not install ${missing[*]}"
  changed "packages ${missing[*]}"
}

# --- The daemon

# Sets program: what is to be installed, or the package's own.
choose_program() {
  packaged=
  if [[ -n $(option binary) ]]; then
    program=$(readlink -f "$(option binary)")
    ! has_package shardless || note "$BINARY goes before the package's /usr/bin/shardless until uninstall.sh removes it"
  elif has_package shardless; then
    packaged=yes program=/usr/bin/shardless
  else
    program=$FILES/target/release/shardless
    if [[ ! -x $program ]]; then
      build_program
    elif [[ $(find "$FILES/src" "$FILES/Cargo.lock" -newer "$program" -print -quit) ]]; then
      note "$program is older than its sources: cargo build --release --locked makes a new one"
    fi
  fi
  [[ ! -e $program ]] || "$program" --version >/dev/null || die "$program does not run on this machine"
}

build_program() {
  local cargo home=$HOME as_owner=()
  [[ -e $FILES/Cargo.toml ]] || die 'there is no program here: give one by --binary, or install the package'
  # Under sudo: Rust is mostly installed for the user alone, and what is built is to stay theirs.
  if [[ ${SUDO_USER-} ]]; then
    home=$(getent passwd "$SUDO_USER" | cut -d: -f6)
    as_owner=(runuser -u "$SUDO_USER" -- env HOME="$home")
  fi
  cargo=$(PATH=$home/.cargo/bin:$PATH type -P cargo) ||
    die 'neither a program nor cargo is here: give --binary FILE, install the package, or install Rust from https://rustup.rs'
  step 'build shardless'
  run "${as_owner[@]}" "$cargo" build --release --locked --manifest-path "$FILES/Cargo.toml" --target-dir "$FILES/target" ||
    die 'cargo could not build it'
}

make_user() {
  if [[ ! $packaged ]]; then
    install_file "$FILES/systemd/shardless.sysusers" "$SYSUSERS"
  fi
  if getent passwd shardless >/dev/null; then
    kept 'the user shardless'
  else
    step 'make the user shardless'
    run systemd-sysusers || die 'systemd-sysusers could not make the user shardless'
    changed 'the user shardless'
  fi
  run install -d -m 0750 -g shardless "${CONFIG%/*}"
}

install_file() { # FROM TO [MODE]
  if cmp -s "$1" "$2"; then
    kept "$2"
    return
  fi
  step "install $2"
  run install -D -m "${3-0644}" "$1" "$2.tmp"
  run mv -f "$2.tmp" "$2"
  changed "$2"
  new_daemon=yes
}

config_text() {
  local text
  text=$(< "$FILES/config/minimal.toml")
  text=$(awk -v key="$(option public-key)" -v handler="$(option handler)" '
    /^public_key = / {print "public_key = \"" key "\""; next}
    /^handler = / {print "handler = \"" handler "\""; next}
    {print}' <<< "$text")
  if is_given self-signed; then
    text+=$'\n\n[tls]\nself_signed = true'
  fi
  printf '%s' "$text"
}

# Nothing that runs is replaced before the new program has found the new config to be good.
install_daemon() {
  local text='' state=edited checked=$CONFIG tested
  if is_given public-key; then
    text=$(config_text)
    state=$(state_of "$CONFIG" "$text")
  fi
  if [[ $state == absent || $state == ours ]]; then
    checked=$CONFIG.unchecked
    write "$checked" 0640 shardless "$text"
  fi
  tested=$program
  if [[ ! $packaged ]]; then
    tested=$BINARY
    # Where the daemon's user gets at it: a checkout below /root is out of its sight.
    cmp -s "$program" "$BINARY" || { tested=$BINARY.unchecked; run install -D -m 0755 "$program" "$tested"; }
  fi
  check_config "$checked"

  if [[ $state == absent || $state == ours ]]; then
    step "write $CONFIG"
    run mv -f "$checked" "$CONFIG"
    changed "$CONFIG"
    new_daemon=yes
  elif [[ $state == edited && $text ]]; then
    write "$CONFIG.new" 0640 shardless "$text"
    kept_edited "$CONFIG, which was edited; what these arguments make of it is in $CONFIG.new"
  else
    kept "$CONFIG"
  fi
  [[ $state == edited ]] || remember "$CONFIG" "$text"

  if [[ $packaged ]]; then
    leave_to_package
  else
    install_file "$program" "$BINARY" 0755
    install_file "$FILES/systemd/shardless.service" "$UNITS/shardless.service"
    install_file "$FILES/systemd/shardless.socket" "$UNITS/shardless.socket"
  fi
}

# Sets endpoints: the paths that the config serves.
check_config() { # FILE, by the program $tested
  local said tls=''
  step "check the config"
  # As the daemon's own user, who is to be able to read what the config names.
  local command=(runuser -u shardless -- env STATE_DIRECTORY="$STATE" "$tested" check --config "$1")
  endpoints=/interactions
  if is_given dry-run; then
    run "${command[@]}"
    return
  fi
  if ! said=$("${command[@]}" 2>&1); then
    printf '%s\n' "$said" >&2
    die 'the config cannot be used; what runs goes on as it was'
  fi
  endpoints=$(sed -n 's/^  [^ ]*: POST \([^ ]*\) goes to .*/\1/p' <<< "$said")
  [[ $said != *'the port speaks TLS'* ]] || tls=yes
  if [[ $proxy && $tls != "$(option self-signed)" ]]; then
    if [[ $tls ]]; then
      die "$CONFIG was edited and has a table [tls], so the proxy has to speak TLS: add --self-signed, or take [tls] out"
    fi
    die "$CONFIG was edited and has no TLS for --self-signed: add to it [tls] and, below, self_signed = true"
  fi
}

# An earlier run without the package: its files would go before the package's.
leave_to_package() {
  local file
  kept "$program and its units, which are the package's"
  for file in "$BINARY" "$UNITS/shardless.service" "$UNITS/shardless.socket" "$SYSUSERS"; do
    [[ -e $file ]] || continue
    step "remove $file: the package has its own"
    run rm "$file"
    changed "removed $file"
    new_daemon=yes
  done
}

start_daemon() {
  if [[ ! ${new_daemon-} ]] && is_active shardless.service && is_active shardless.socket; then
    kept 'shardless running'
    return
  fi
  step 'start shardless'
  run systemctl daemon-reload
  # A daemon that bound the port by itself is in the way of the socket; one that has it from the socket is not.
  if is_active shardless.service && ! is_active shardless.socket; then
    run systemctl stop shardless.service
  fi
  run systemctl enable --now shardless.socket ||
    die 'the port could not be taken: see systemctl status shardless.socket, and who has it by ss -ltnp'
  run systemctl enable shardless.service
  # The socket stays and holds what arrives meanwhile.
  run systemctl restart shardless.service || die_with_log
  is_given dry-run || is_active shardless.service || die_with_log
  changed 'shardless was started'
}

die_with_log() {
  journalctl -u shardless -n 20 --no-pager -o cat >&2 || true
  die 'shardless could not be started: the lines above are its log'
}

# A proxy that pins the certificate cannot be reloaded without it.
wait_for_certificate() {
  is_given self-signed && [[ $proxy && ! -s $PINNED ]] || return 0
  step "wait for $PINNED, which $proxy_name is to trust"
  ! is_given dry-run || return 0
  for _ in {1..100}; do
    [[ -s $PINNED ]] && return
    sleep 0.1
  done
  die "$PINNED was not made, and the site names it: is state_dir or a certificate of your own in $CONFIG?"
}

# --- The proxy

site_text() {
  local text
  text=$(sed "s/bot\.example\.com/$(option domain)/g" "$FILES/$shipped_site")
  # Without IPv6 Nginx does not start with such a line.
  [[ -e /proc/net/if_inet6 ]] || text=$(sed '/listen \[::\]/d' <<< "$text")
  printf '%s' "$text"
}

install_site() {
  local text state
  text=$(site_text)
  state=$(state_of "$site" "$text")
  new_site=
  case $state in
    absent | ours)
      step "write $site, from $shipped_site"
      [[ $state == absent ]] || run cp -p "$site" "$site.old"
      write "$site" 0644 root "$text"
      new_site=$state
      ;;
    same) kept "$site" ;;
    edited) keep_site "$text" ;;
  esac
  enable_site
  test_proxy || undo_site
  [[ $new_site != ours ]] || run rm "$site.old"
  [[ ! $new_site ]] || changed "$site"
  remember "$site" "$text"
  reload_proxy
  warn_of_rivals
}

keep_site() { # TEXT
  if [[ $(recorded "$site") == "$(sum_of_text "$1")" ]]; then
    kept_edited "$site, which you or certbot edited"
  else
    write "$site.new" 0644 root "$1"
    kept_edited "$site, which you or certbot edited; this version's is in $site.new"
  fi
}

enable_site() {
  local module
  new_modules=() new_link=
  if [[ $proxy == apache2 ]]; then
    for module in proxy_http proxy headers ssl; do
      [[ -e $sites/mods-enabled/$module.load ]] || new_modules+=("$module")
    done
    if ((${#new_modules[@]})); then
      step "enable Apache's modules ${new_modules[*]}"
      run a2enmod -q "${new_modules[@]}"
      changed "Apache's modules ${new_modules[*]}"
    fi
  fi
  if [[ -L $enabled ]]; then
    kept "$enabled"
    return
  fi
  step "enable $site"
  new_link=yes
  if [[ $proxy == apache2 ]]; then
    run a2ensite -q shardless
  else
    run ln -s ../sites-available/shardless.conf "$enabled"
  fi
}

# Sets test_said.
test_proxy() {
  step "test $proxy_name's settings"
  if is_given dry-run; then
    run "${proxy_test[@]}"
    return
  fi
  test_said=$("${proxy_test[@]}" 2>&1)
}

# The proxy goes on as it was, and can be reloaded and restarted as before.
undo_site() {
  printf '%s\n' "$test_said" >&2
  if [[ $new_link ]]; then
    if [[ $proxy == apache2 ]]; then a2dissite -q shardless >/dev/null; else rm "$enabled"; fi
  fi
  case $new_site in
    absent) rm "$site" ;;
    ours) mv -f "$site.old" "$site" ;;
  esac
  ((${#new_modules[@]} == 0)) || a2dismod -q "${new_modules[@]}" >/dev/null
  if "${proxy_test[@]}" >/dev/null 2>&1; then
    die "$proxy_name does not take the site, see above. It was taken out again, and $proxy_name goes on as it was."
  fi
  die "$proxy_name's settings have a mistake that is not the new site's, see above. The site was taken out again: mend that, and run this again."
}

reload_proxy() {
  if [[ ! $new_site && ! $new_link && ${#new_modules[@]} == 0 ]] && ! is_given self-signed && is_active "$proxy"; then
    kept "$proxy_name running"
    return
  fi
  step "reload $proxy_name"
  run systemctl enable "$proxy"
  run systemctl reload-or-restart "$proxy" || die "$proxy_name could not be reloaded: see journalctl -u $proxy"
}

# Another site of the same name may get the requests.
warn_of_rivals() {
  local rivals rival name
  name=$(option domain)
  is_given dry-run && return
  if [[ $proxy == apache2 ]]; then
    # A default site without a name answers for the machine's own.
    rivals=$(apache2ctl -S 2>/dev/null | awk -v name="$name" '
      $3 == "namevhost" {file = $5; sub(/^\(/, "", file); sub(/:[0-9]+\)$/, "", file)}
      ($3 == "namevhost" && $4 == name) || ($1 == "alias" && $2 == name) {print file}' | sort -u)
  elif [[ $test_said == *"conflicting server name \"$name\""* ]]; then
    rivals=$(grep -lwF -- "$name" "$sites"/sites-enabled/* "$sites"/conf.d/*.conf 2>/dev/null || true)
  fi
  while read -r rival; do
    [[ $rival && $rival != */shardless.conf && $rival != */shardless-le-ssl.conf ]] || continue
    note "$rival answers for $name as well, and may get its requests: take the name out of it, or disable it"
    if is_given certbot && grep -qwF -- "$name" "$rival"; then
      die "certbot might take $rival for the bot's site: mend that, and run this again"
    fi
  done <<< "${rivals-}"
}

# --- HTTPS

get_certificate() {
  local name command
  name=$(option domain)
  if has_certificate "$name"; then
    kept "the certificate of $name, which certbot renews"
    return
  fi
  command=(certbot "--$(option proxy)" -d "$name" -n --agree-tos -m "$(option email)" --redirect --keep-until-expiring)
  ! is_given staging || command+=(--staging)
  ! is_given acme-server || command+=(--server "$(option acme-server)")
  step "get a certificate for $name, and turn the site into HTTPS"
  run "${command[@]}" || die "certbot could not get a certificate, see above. Mostly the name does not lead to this server yet, or
  its port 80 is closed to the outside. The rest is in place: mend that, and run the same call again."
  changed "HTTPS for $name, renewed by certbot"
}

# One of that authority that the site uses, and that is not about to expire.
has_certificate() { # NAME
  local authority=https://acme-v02.api.letsencrypt.org/directory
  ! is_given staging || authority=https://acme-staging-v02.api.letsencrypt.org/directory
  ! is_given acme-server || authority=$(option acme-server)
  grep -qsFx "server = $authority" "/etc/letsencrypt/renewal/$1.conf" &&
    grep -qsF "/etc/letsencrypt/live/$1/" "$site" "${site%.conf}-le-ssl.conf" &&
    openssl x509 -checkend 2592000 -noout -in "/etc/letsencrypt/live/$1/fullchain.pem" >/dev/null 2>&1
}

# --- The end

summary() {
  local path url
  echo
  if is_given dry-run; then
    echo 'This was a dry run: nothing was changed.'
    return
  fi
  echo "shardless runs${proxy:+, and $proxy_name passes $(option domain) on to it}."
  ((${#done_list[@]} == 0)) || printf '  done: %s\n' "${done_list[@]}"
  ((${#kept_list[@]} == 0)) || printf '  kept: %s\n' "${kept_list[@]}"
  echo
  [[ -n $(option domain) ]] || return 0
  if [[ $proxy ]] && ! grep -qsE 'listen .*443|:443' "$site" "${site%.conf}-le-ssl.conf"; then
    printf 'Discord demands HTTPS, which is still missing:\n  certbot --%s -d %s\n' "$(option proxy)" "$(option domain)"
  fi
  echo "The Interactions Endpoint URL for the Developer Portal (General Information), and how to try it before:"
  while read -r path; do
    url=https://$(option domain)$path
    printf '  %s\n  shardless probe %s\n' "$url" "$url"
  done <<< "$endpoints"
}

main() {
  read_arguments "$@"
  check_arguments
  choose_proxy
  check_machine
  if is_given dry-run; then
    echo 'A dry run: nothing is changed.'
  else
    trap 'rm -f "$BINARY.unchecked" "$CONFIG.unchecked"' EXIT
  fi

  install_packages
  choose_program
  make_user
  install_daemon
  start_daemon
  wait_for_certificate
  [[ ! $proxy ]] || install_site
  ! is_given certbot || get_certificate
  summary
}

main "$@"
