#!/bin/sh
# Boots one machine: mount its disk, run systemd-nspawn on it, again after each reboot it asks for.
#
# boot.sh ROOT OVERLAY_OPTIONS CGROUP NSPAWN_ARGUMENT…
#
# Runs in a mount namespace of its own (machine.py starts it through unshare), so that the overlay is gone
# when the last process of the machine is, whatever killed it. This shell stays outside of CGROUP: with
# controllers on, a cgroup that has children holds no process itself.
set -eu
root=$1 overlay=$2 cgroup=$3
shift 3

# nspawn cannot clean up here after a reboot unless it is a tmpfs
mount -t tmpfs -o mode=0755 tmpfs /run/systemd/nspawn
mount -t overlay -o "$overlay" overlay "$root"

export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
status=133
while [ "$status" = 133 ]; do
    status=0
    sh -c 'echo $$ >"$0/cgroup.procs" && exec "$@"' "$cgroup" \
        systemd-nspawn --quiet --directory="$root" --boot --register=no --keep-unit \
        --notify-ready=yes --resolv-conf=off --timezone=off --link-journal=no "$@" || status=$?
done
exit "$status"
