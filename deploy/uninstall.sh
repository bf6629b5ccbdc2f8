#!/usr/bin/env bash
# Takes away what install.sh, or the guides in README.md, put in place. See --help.
set -euo pipefail
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

readonly BINARY=/usr/local/bin/shardless
readonly UNITS=/usr/local/lib/systemd/system
readonly SYSUSERS=/usr/local/lib/sysusers.d/shardless.conf
readonly HOOK=/etc/letsencrypt/renewal-hooks/deploy/shardless-direct

usage() {
  cat <<'END'
usage: deploy/uninstall.sh [--purge]

Stops shardless, and removes its program, its units and its sites. The config, the state, certificates, other sites and
the proxies themselves stay. Where the package is installed, only the sites are removed: apt purge does the rest.

  --purge   the config, the state, the user and the group too
  --help    this text
END
}

step() { printf '==> %s\n' "$1"; }
kept() { printf '  kept %s\n' "$1"; }
note() { printf '  note: %s\n' "$1"; }

die() {
  printf 'error: %s\n' "$1" >&2
  exit "${2-1}"
}

has_package() { [[ $(dpkg-query -W -f '${db:Status-Status}' shardless 2>/dev/null) == installed ]]; }

remove() { # FILE…
  local file
  for file in "$@"; do
    [[ -e $file || -L $file ]] || continue
    step "remove $file"
    rm -rf "$file"
  done
}

# The names that the sites have, for the certificates that are left.
domains=()
purge=

remove_sites() { # FOLDER SERVICE TEST…
  local folder=$1 service=$2 site found=''
  shift 2
  for site in shardless{,-self-signed,-unix,-https}{,-le-ssl}; do
    [[ -e $folder/sites-available/$site.conf || -L $folder/sites-enabled/$site.conf ]] || continue
    found=yes
    remove_site "$folder" "$site"
  done
  [[ $found ]] && systemctl -q is-active "$service" || return 0
  if ! "$@" >/dev/null 2>&1; then
    "$@" || true
    note "$service was not reloaded: its settings have a mistake of their own, see above"
    return
  fi
  step "reload $service"
  systemctl reload "$service"
}

remove_site() { # FOLDER SITE
  local available=$1/sites-available/$2.conf enabled=$1/sites-enabled/$2.conf
  if [[ -e $available ]]; then
    mapfile -t -O "${#domains[@]}" domains < <(
      sed -nE 's/^\s*(server_name|ServerName)\s+([^ ;]+).*/\2/p' "$available"
    )
    # There may be work in it.
    if [[ ! $purge && -d /etc/shardless ]]; then
      kept "$available as /etc/shardless/$2.removed-from-${1##*/}"
      cp -p "$available" "/etc/shardless/$2.removed-from-${1##*/}"
    fi
  fi
  # By its own program, so that Apache's record of its sites stays right.
  [[ $1 != */apache2 || ! -L $enabled ]] || a2dissite -q -p "$2" >/dev/null
  remove "$enabled" "$available" "$available.new"
}

remove_daemon() {
  local unit
  for unit in shardless.socket shardless.service; do
    [[ -e $UNITS/$unit ]] || continue
    step "stop and disable $unit"
    systemctl disable --now -q "$unit"
  done
  remove "$UNITS/shardless.service" "$UNITS/shardless.socket" "$SYSUSERS" "$BINARY" "$HOOK"
  # Not there on a new system; others may have something in them.
  rmdir "$UNITS" "${UNITS%/*}" "${SYSUSERS%/*}" 2>/dev/null || true
  systemctl daemon-reload
  systemctl reset-failed shardless.service shardless.socket 2>/dev/null || true
}

purge_rest() {
  remove /etc/shardless /var/lib/shardless /run/shardless /etc/systemd/system/shardless.{service,socket}.d
  if getent passwd shardless >/dev/null; then
    step 'remove the user shardless'
    userdel shardless
  fi
  if getent group shardless >/dev/null; then
    step 'remove the group shardless'
    groupdel shardless
  fi
}

main() {
  local kept_file domain
  case $# in
    0) ;;
    1)
      case $1 in
        --purge) purge=yes ;;
        --help | -h) usage && exit ;;
        *) die "$1 is no option of this script: see --help" 2 ;;
      esac
      ;;
    *) die 'too many options: see --help' 2 ;;
  esac
  ((EUID == 0)) || die 'this changes the whole system: run it as root (sudo)'
  [[ -d /run/systemd/system ]] || die 'systemd does not run here'

  remove_sites /etc/nginx nginx nginx -t
  remove_sites /etc/apache2 apache2 apache2ctl configtest
  if has_package; then
    remove "$BINARY" "$UNITS/shardless.service" "$UNITS/shardless.socket" "$SYSUSERS"
    systemctl daemon-reload
    die "shardless itself is the package's: apt purge shardless"
  fi
  remove_daemon
  if [[ $purge ]]; then
    purge_rest
  else
    for kept_file in /etc/shardless /var/lib/shardless; do
      [[ ! -e $kept_file ]] || kept "$kept_file: --purge removes it"
    done
  fi
  mapfile -t domains < <(printf '%s\n' "${domains[@]}" | sort -u)
  for domain in "${domains[@]}"; do
    [[ ! -e /etc/letsencrypt/renewal/$domain.conf ]] ||
      kept "the certificate of $domain, which is renewed no more without a site: certbot delete --cert-name $domain"
  done
}

main "$@"
