#!/usr/bin/env bash
# From a fresh Debian 12/13 or Ubuntu 24.04 to a running gateway. Again: changes nothing, says so.
# What needs root is one apt line (and lingering); the rest is `ticketctl setup`, as you.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")"

usage() {
    cat <<'USAGE'
Usage: ./install.sh [--dry-run] [--no-sudo] [--listen 127.0.0.1:PORT]
       ./install.sh --uninstall [--purge] [--dry-run]
       ./install.sh --demo [--once]

Installs Mission Control for the user who runs it: packages by apt, the program in
~/.local/share/mission-control, units in ~/.config/systemd/user, data in
~/.local/state/mission-control. Prints a login link for the browser at the end.

  --dry-run         say what would be done, do nothing
  --no-sudo         do not call sudo; print the apt line that is needed and stop there
  --listen A:PORT   where the gateway listens, when 127.0.0.1:3001 is taken
  --uninstall       stop and remove everything; data and configuration stay
  --purge           with --uninstall: data and configuration too
  --demo            for a look, as root, anywhere: boots a throw-away machine, installs there,
                    runs a ticket with the demo agent, prints the link to its page
  --once            with --demo: end by itself; exit status 0 only if the answer was seen
  -h, --help        this text
USAGE
}

say() { printf '%s\n' "$*"; }
die() { printf 'error: %s\n' "$1" >&2; [ -z "${2:-}" ] || printf '       %s\n' "$2" >&2; exit "${3:-1}"; }

dry_run='' no_sudo='' uninstall='' purge='' demo='' once='' listen=''
while [ $# -gt 0 ]; do
    case $1 in
        --dry-run) dry_run=1 ;;
        --no-sudo) no_sudo=1 ;;
        --uninstall) uninstall=1 ;;
        --purge) purge=1 ;;
        --demo) demo=1 ;;
        --once) once=1 ;;
        --listen) [ $# -ge 2 ] || die "--listen needs an address." "For example --listen 127.0.0.1:3002" 2; listen=$2; shift ;;
        --listen=*) listen=${1#*=} ;;
        -h | --help) usage; exit 0 ;;
        *) die "unknown option $1" "./install.sh --help" 2 ;;
    esac
    shift
done
[ -z "$once" ] || [ -n "$demo" ] || die "--once goes with --demo." "" 2
[ -z "$purge" ] || [ -n "$uninstall" ] || die "--purge goes with --uninstall." "" 2

if [ -n "$demo" ]; then
    [ "$(id -u)" = 0 ] || die "--demo boots a machine, which needs root." "sudo ./install.sh --demo"
    if ! command -v python3 > /dev/null; then
        say "Installing python3, which the demo machine is driven with ..."
        apt-get update -qq && apt-get install -y -qq --no-install-recommends python3 > /dev/null
    fi
    exec env PYTHONDONTWRITEBYTECODE=1 python3 -m tests.machine.demo ${once:+--once} ${listen:+--listen "$listen"}
fi

[ -d /run/systemd/system ] ||
    die "This machine was not booted with systemd, which is what runs Mission Control; for a look anywhere: sudo ./install.sh --demo"
[ "$(id -u)" != 0 ] ||
    die "Run this as the user whose tickets they are, not as root." "It calls sudo for the one apt line it needs."
# A shell from su or cron lacks what a login sets.
if [ -z "${XDG_RUNTIME_DIR:-}" ] && [ -d "/run/user/$(id -u)" ]; then
    XDG_RUNTIME_DIR=/run/user/$(id -u)
    export XDG_RUNTIME_DIR
fi
[ -n "${XDG_RUNTIME_DIR:-}" ] ||
    die "There is no user manager for $(id -un): XDG_RUNTIME_DIR is not set." "Log in with ssh or on the console, or first: sudo loginctl enable-linger $(id -un)"

data=$HOME/.local/share/mission-control
venv=$data/venv
log=$HOME/.local/state/mission-control/install.log

if [ -n "$uninstall" ]; then
    if [ ! -x "$venv/bin/ticketctl" ]; then
        say "Mission Control is not installed for $(id -un)."
        for left in "${XDG_STATE_HOME:-$HOME/.local/state}/mission-control" "${XDG_CONFIG_HOME:-$HOME/.config}/mission-control"; do
            [ -d "$left" ] || continue
            if [ -z "$purge" ]; then
                say "  · $left is kept (--purge removes it)"
            elif [ -n "$dry_run" ]; then
                say "  + $left: would be removed"
            else
                rm -rf -- "$left"
                say "  ✓ $left is removed"
            fi
        done
        exit 0
    fi
    exec "$venv/bin/ticketctl" setup --uninstall ${purge:+--purge} ${dry_run:+--dry-run}
fi

# What the program is built and run with. The compiler is for pystemd, which has no wheels.
packages=(python3 python3-venv python3-dev gcc libc6-dev pkg-config libsystemd-dev dbus-user-session
    ca-certificates git tmux bubblewrap postgresql zstd logrotate)
missing=()
for package in "${packages[@]}"; do
    case $(dpkg-query -W -f '${Status}' "$package" 2> /dev/null) in
        *" installed") ;;
        *) missing+=("$package") ;;
    esac
done
# Debian's package would start a cluster of its own for the whole machine; we make a private one.
no_cluster="mkdir -p /etc/postgresql-common && { [ -e /etc/postgresql-common/createcluster.conf ] || echo create_main_cluster = false > /etc/postgresql-common/createcluster.conf; }"
apt_line="$no_cluster && apt-get update -qq && apt-get install -y --no-install-recommends ${missing[*]}"

# pipx's program is linked to from there, and is pipx's to change; the link of one that has gone is nobody's.
if [ -L "$venv" ] && [ -x "$venv/bin/ticketctl" ]; then
    die "The program is in $(readlink "$venv"), and pipx (or you) put it there." \
        "Keep it so, and install the next wheel with pipx; or take it away, the data stays: ticketctl setup --uninstall && pipx uninstall mission-control; then ./install.sh"
fi

# Which source the venv was made of: a second run with the same source leaves it alone. A tag gives the same
# source another version.
source_sum=$({
    find orchestrator webgate units templates docs pyproject.toml .git_archival.txt -type f \
        ! -name '*.pyc' ! -path '*/static/vendor/*' ! -path '*/node_modules/*' -print0 | sort -z | xargs -0 sha256sum
    git describe --tags --exact-match 2> /dev/null || true
} | sha256sum)
program_current=''
[ "$(cat "$venv/source.sha256" 2> /dev/null)" != "$source_sum" ] || program_current=1

say "Mission Control, for $(id -un):"
if [ ${#missing[@]} -gt 0 ]; then
    say "  packages  ${missing[*]}"
else
    say "  packages  all there"
fi
say "  program   $venv${program_current:+ (this version already)}"
say "  data      $HOME/.local/state/mission-control"
say "  units     ${XDG_CONFIG_HOME:-$HOME/.config}/systemd/user"
say ""

if [ -n "$dry_run" ]; then
    [ ${#missing[@]} -eq 0 ] || say "Would run: sudo sh -c '$apt_line'"
    [ -n "$program_current" ] || say "Would install the program in $venv"
    if [ -x "$venv/bin/ticketctl" ]; then
        exec "$venv/bin/ticketctl" setup --dry-run ${listen:+--listen "$listen"}
    fi
    say "Would make units, database and services; nothing was done."
    exit 0
fi

mkdir -p "$(dirname "$log")" "$data"
chmod 700 "$(dirname "$log")" "$data"
: > "$log"
chmod 600 "$log"

# step "what" command...: runs it into the log; shows that it is at work, and how long it took.
step() {
    local what=$1 begun=$SECONDS pid
    shift
    "$@" >> "$log" 2>&1 &
    pid=$!
    if [ -t 1 ]; then
        while kill -0 "$pid" 2> /dev/null; do
            printf '\r  … %s (%d s)' "$what" $((SECONDS - begun))
            sleep 0.5
        done
        printf '\r\033[K'
    fi
    if wait "$pid"; then
        say "  ✓ $what ($((SECONDS - begun)) s)"
    else
        say "  ✗ $what"
        tail -n 15 "$log" | sed 's/^/    | /' >&2
        die "$what failed." "The whole output is in $log; mend what it says and run ./install.sh again."
    fi
}

if [ ${#missing[@]} -gt 0 ]; then
    if [ -n "$no_sudo" ]; then
        say "Missing packages; run this as root, then ./install.sh again:"
        say "  sh -c '$apt_line'"
        exit 1
    fi
    command -v sudo > /dev/null || die "sudo is not installed." "As root: sh -c '$apt_line'; then ./install.sh again."
    sudo -n true 2> /dev/null || { say "sudo will ask for your password, for apt:"; sudo -v; }
    step "packages: ${missing[*]}" sudo env DEBIAN_FRONTEND=noninteractive sh -c "$apt_line"
fi
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    die "Python 3.11 or later is needed, this is $(python3 --version)." "Debian 12, Debian 13 and Ubuntu 24.04 have it."

install_program() {
    # Beside the old one and then in its place: whatever runs keeps its files until it is restarted.
    [ ! -L "$venv" ] || rm -f -- "$venv"
    [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --upgrade --disable-pip-version-check .
    printf '%s\n' "$source_sum" > "$venv/source.sha256"
}
if [ -z "$program_current" ]; then
    rm -f "$venv/source.sha256"
    step "the program, with its browser code" install_program
else
    say "  · the program is this version already"
fi
exec "$venv/bin/ticketctl" setup ${listen:+--listen "$listen"}
