"""Faults 10 and 11 where limits are enforced: out of memory, and a fork bomb. In full emulation.

Takes some minutes: MC_DRILL_EMULATED=1 runs it, as `make faults` does.
"""

from __future__ import annotations

import os

import pytest

from tests.faults import emulated
from tests.faults.record import Drill
from tests.machine.cache import Layer

SCRIPT = r"""
say() { echo "DRILL $*"; }
op() { runuser -u op -- env XDG_RUNTIME_DIR=/run/user/1000 DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/1000/bus \
    HOME=/home/op PATH=/home/op/.local/bin:/usr/bin:/bin "$@"; }
prop() { op systemctl --user show "ticket@$1" -p "$2" --value; }
group() { echo "/sys/fs/cgroup$(prop "$1" ControlGroup)"; }
new() { op ticketctl new "$1" --driver command -- bash -c "$2"; }
healthy() { op python3 -c 'import urllib.request as u; print(u.urlopen("http://127.0.0.1:3001/healthz", timeout=30).status)'; }
until op ticketctl list >/dev/null 2>&1; do sleep 1; done
healthy >/dev/null  # its socket starts it
say controllers "$(cat /sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/cgroup.controllers)"

neighbour=$(new neighbour 'while :; do date +%s > alive; sleep 1; done')
op ticketctl start "$neighbour"; pid=$(prop "$neighbour" MainPID)
gateway=$(op systemctl --user show mc-webgate -p MainPID --value)

# a fork bomb
bomb=$(new bomb 'b() { b | b & }; b; sleep 6000')
op ticketctl set "$bomb" TasksMax=150
op ticketctl start "$bomb"; sleep 20
say tasks "$(cat "$(group "$bomb")/pids.current")" of "$(cat "$(group "$bomb")/pids.max")"
say refused "$(sed -n 's/^max //p' "$(group "$bomb")/pids.events")"
say gateway "$(healthy)"
op systemctl --user stop "ticket@$bomb"
say stopped "$(prop "$bomb" ActiveState)" "$(pgrep -c -f 'b . b &' || true)"

# a child that wants 64 GB: it goes, its worker stays
eater='python3 -c "x = bytearray(64 << 30); x[::4096] = bytes([1]) * (len(x) // 4096)"'
child=$(new child "$eater; echo gone with \$? > said; exec sleep 6000")
op ticketctl set "$child" MemoryMax=150M
op ticketctl start "$child"; before=$(prop "$child" MainPID)
for n in $(seq 120); do [ -e /home/op/.local/state/mission-control/tickets/$child/work/said ] && break; sleep 1; done
say child "$(cat /home/op/.local/state/mission-control/tickets/$child/work/said)"
say worker "$([ "$before" = "$(prop "$child" MainPID)" ] && echo same)" "$(prop "$child" ActiveState)"

# the worker itself, a little at a time, so that the kernel has to take it
worker=$(new worker 'exec python3 -c "
x = []
while True: x.append(bytearray(1 << 20))"')
op ticketctl set "$worker" MemoryMax=100M
op ticketctl start "$worker"
for n in $(seq 120); do [ "$(prop "$worker" NRestarts)" -gt 1 ] && break; sleep 1; done
restarts=$(prop "$worker" NRestarts)
op systemctl --user stop "ticket@$worker"
say restarts "$restarts" "$(op ticketctl events "$worker" --json | grep -o 'was killed by SIGKILL' | head -n 1)"

say neighbour "$([ "$pid" = "$(prop "$neighbour" MainPID)" ] && echo same)" \
    "$(( $(date +%s) - $(cat /home/op/.local/state/mission-control/tickets/$neighbour/work/alive) < 30 ))"
say gateway-pid "$([ "$gateway" = "$(op systemctl --user show mc-webgate -p MainPID --value)" ] && echo same)"
say end
"""


@pytest.mark.fault(10, 11)
@pytest.mark.timeout(2400)
def test_one_ticket_does_not_take_the_machine(installed: Layer, drill: Drill) -> None:
    """A fork bomb and 64 GB reach neither the gateway nor the next ticket; an eater's child goes alone."""
    if not os.environ.get("MC_DRILL_EMULATED"):
        pytest.skip("some minutes in emulation: MC_DRILL_EMULATED=1")
    if reason := emulated.why_not():
        pytest.skip(reason)
    said = emulated.run(installed, SCRIPT)
    print("\n".join(said))
    drill.tried, drill.note = 3, "in full emulation, where the kernel enforces"
    found = dict(line.partition(" ")[::2] for line in said)
    assert {"memory", "pids", "cpu"} <= set(found["controllers"].split())
    now, most = map(int, found["tasks"].split(" of "))
    assert now <= most == 150
    assert int(found["refused"]) > 0
    assert found["gateway"] == "200"
    # its own stop is refused a process too; systemd then kills the lot and calls that failed
    assert found["stopped"] in {"inactive 0", "failed 0"}
    assert found["child"].startswith("gone with")
    assert found["worker"] == "same active"
    restarts, _, why = found["restarts"].partition(" ")
    assert int(restarts) > 1
    assert why == "was killed by SIGKILL"
    assert found["neighbour"] == "same 1"
    assert found["gateway-pid"] == "same"
    assert "end" in found
