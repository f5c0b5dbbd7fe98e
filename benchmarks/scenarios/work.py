"""Start, command line, idle cost, recovery, growth: tickets, and the machine around them."""

from __future__ import annotations

import time
from contextlib import closing
from itertools import pairwise
from statistics import median

from benchmarks.goals import GROWTH
from benchmarks.measure import Bench
from benchmarks.start import AGENT, measured
from benchmarks.systems.ours import Ours
from tests.machine.product import HOME, TICKETCTL

MIB = 1024 * 1024
TEN = 10
HISTORY_LINES = 2500  # more than tmux.conf keeps
TMUX = "tmux-mc.service"
_STAMPS = "InactiveExitTimestampMonotonic,ActiveEnterTimestampMonotonic"
_TIMES = """
import json, subprocess, sys, time
took = []
for _ in range(int(sys.argv[1]) + 1):
    begun = time.perf_counter()
    subprocess.run(sys.argv[2:], check=True, stdout=subprocess.DEVNULL)
    took.append((time.perf_counter() - begun) * 1e3)
print(json.dumps(took[1:]))
"""
_KILL = """
import json, os, sys, time
begun = time.monotonic()
os.kill(int(sys.argv[1]), 9)
print(json.dumps(begun))
"""
# until each ticket runs as another process than before
_ALL_BACK = """
import json, os, subprocess, sys, time
units, before = sys.argv[2::2], sys.argv[3::2]
argv = ["systemctl", "--user", "show", "-p", "MainPID,ActiveState,ActiveEnterTimestampMonotonic", *units]
begun = time.monotonic()
os.kill(int(sys.argv[1]), 9)
while time.monotonic() < begun + 90:
    said = subprocess.run(argv, capture_output=True, text=True).stdout.strip().split("\\n\\n")
    now = [dict(line.split("=") for line in each.splitlines()) for each in said]
    if all(n["ActiveState"] == "active" and n["MainPID"] not in {"0", b} for n, b in zip(now, before)):
        break
    time.sleep(0.5)  # each look is work for the very manager that starts them: it says itself when they were ready
print(json.dumps(max(int(n["ActiveEnterTimestampMonotonic"]) for n in now) / 1e6 - begun))
"""
_LAG = """
import json, sys, time
from orchestrator.cli_common import open_database
from orchestrator.store.db import Listener
settings, database = open_database()
path = settings.ticket_paths(int(sys.argv[1])).sidecar_path
listener = Listener(database, ["mc_events"])
took = []
with path.open("a", buffering=1) as file:
    for n in range(int(sys.argv[2]) + 1):
        while listener.wait(0.2):
            pass
        begun = time.perf_counter()
        file.write('{"v":1,"at":"2026-01-01T00:00:00.000000Z","hook":"Note","data":{"n":%d}}\\n' % n)
        if not listener.wait(10):
            raise SystemExit("nothing was heard of a line")
        took.append((time.perf_counter() - begun) * 1e3)
print(json.dumps(took[1:]))
"""


def start(bench: Bench) -> None:
    """From `systemctl start` to the agent, beside a bare tmux session of the same program."""
    product, runs = bench.product, max(bench.runs, 3 if bench.quick else 9)
    program = ["--driver", "command", "--", "sh", "-c", AGENT]
    tmux = f"tmux new-session -d -s bench -c {HOME} sh -c '{AGENT}'"
    floor = measured(bench.machine, HOME, tmux, "tmux kill-session -t =bench", runs)
    bench.note("start", "in all", "ms", floor, system="tmux new-session", how=tmux)
    for what, options in (("in all", ["--isolation", "off"]), ("in all, isolated", [])):
        ticket = product.new("start", *options, *program)
        _once(bench, ticket)
        unit = f"ticket@{ticket}"
        begin, end = f"systemctl --user start {unit}", f"systemctl --user stop {unit}"
        times = measured(bench.machine, product.work(ticket), begin, end, runs)
        bench.note("start", what, "ms", times, how=begin)
        if not options:
            continue
        spent = []
        for _ in range(runs):
            product.systemctl("start", unit)
            shown = product.systemctl("show", unit, "-p", _STAMPS).stdout.split()
            at = [int(line.partition("=")[2]) / 1e3 for line in sorted(shown)]
            spent.append(at[0] - at[1])  # ActiveEnter sorts before InactiveExit
            product.systemctl("stop", unit)
        bench.note("start", "launcher", "ms", spent, how="from activating to active, by systemd")


def _once(bench: Bench, ticket: int) -> None:
    """Its folder is there afterwards."""
    bench.product.ctl("start", str(ticket))
    bench.product.ctl("stop", str(ticket))


def cli(bench: Bench) -> None:
    """`ticketctl list` beside `systemctl --user list-units`."""
    tickets = _sleepers(bench, TEN)
    runs = str(max(bench.runs, 11))
    for system, argv in (
        ("ours", [TICKETCTL, "list"]),
        ("systemctl", ["systemctl", "--user", "list-units"]),
        ("python3 -c pass", ["python3", "-c", "pass"]),
        ("psql", ["bash", "-c", "psql -qAth $XDG_RUNTIME_DIR/mission-control/postgres mission_control -c 'SELECT * FROM tickets'"]),
    ):  # fmt: skip
        times = bench.python(_TIMES, runs, *argv)
        bench.note("cli", "wall", "ms", times, system=system, how=" ".join(argv))
    _stop(bench, tickets)  # or recovery would start them too


def _sleepers(bench: Bench, count: int) -> list[int]:
    """Running command tickets, so many that there are `count`."""
    script = (
        f"for n in $(seq {count}); do {TICKETCTL} new sleeper --driver command --isolation off"
        " --start -- sleep 100000; done"
    )
    return [int(word) for word in bench.machine.sh(script, timeout=600).stdout.split()]


def _stop(bench: Bench, tickets: list[int]) -> None:
    units = [f"ticket@{ticket}" for ticket in tickets]
    bench.product.systemctl("stop", *units, check=False)


def _pids(bench: Bench, tickets: list[int]) -> list[int]:
    """Of the tickets' own cgroups."""
    units = [f"ticket@{ticket}" for ticket in tickets]
    shown = bench.product.systemctl("show", "-p", "ControlGroup", "--value", *units).stdout
    paths = " ".join(f"/sys/fs/cgroup{group}/cgroup.procs" for group in shown.split())
    return [int(word) for word in bench.machine.sh(f"cat {paths}").stdout.split()]


def idle(bench: Bench) -> None:
    """What a ticket costs beside its agent, and what the product costs while nothing happens."""
    first = _sleepers(bench, 1)  # the tmux server is there, and has had a ticket
    beside, more, woken = [], [], []
    for _ in range(bench.runs):
        before = bench.pss_bytes(bench.service_pids(TMUX))
        tickets = _sleepers(bench, TEN)
        inside = _pids(bench, tickets)
        time.sleep(2)
        servers = bench.service_pids(TMUX)
        beside.append((bench.pss_bytes(servers) - before) / TEN / MIB)
        more.append((len(inside) - TEN) / TEN)  # the agent is one
        seconds = 5
        switched = bench.switches(servers + inside)
        time.sleep(seconds)
        woken.append((bench.switches(servers + inside) - switched) / TEN / seconds)
        _stop(bench, tickets)
    how = "ten tickets whose agents sleep, not isolated"
    bench.note("idle", "processes of ours", "a ticket", more, how=how + "; in the ticket's cgroup")
    bench.note(
        "idle", "memory beside the agent's", "MiB", beside, how=f"PSS of {TMUX}, its cats included"
    )
    bench.note(
        "idle",
        "wake-ups",
        "/s a ticket",
        woken,
        how="voluntary switches of tmux, its cats, the agents",
    )
    _stop(bench, first)


def product(bench: Bench) -> None:
    """The services, ten tickets idle, a page looked at once."""
    tickets = _sleepers(bench, TEN)
    with closing(Ours(bench, "quiet")) as seat, bench.client(seat.spec):
        pass  # the gateway's socket starts it
    parts = {
        "gateway": "mc-webgate.service", "ingest": "mc-ingest.service",
        "dispatch": "mc-dispatch.service", "PostgreSQL": "mc-postgres.service",
    }  # fmt: skip
    time.sleep(20)  # what PostgreSQL does after ten starts is not idleness
    found: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(bench.runs):
        time.sleep(1)
        for name, unit in parts.items():
            found[name].append(bench.pss_bytes(bench.service_pids(unit)) / MIB)
    for name, values in found.items():
        bench.note("product", name, "MiB", values, how=f"PSS of {parts[name]}")
    three = [sum(each) for each in zip(*(found[n] for n in list(parts)[:3]), strict=True)]
    bench.note("product", "gateway, ingest, dispatch", "MiB", three, how="the sum")
    _stop(bench, tickets)


def recovery(bench: Bench) -> None:
    """tmux killed, the gateway killed, the machine rebooted, under ten tickets."""
    machine, shown = bench.machine, bench.product
    tickets = _sleepers(bench, TEN)
    took = []
    for _ in range(bench.runs):
        pairs = [w for t in tickets for w in (f"ticket@{t}", str(shown.main_pid(t)))]
        server = shown.systemctl("show", TMUX, "-p", "MainPID", "--value").stdout.strip()
        took.append(bench.python(_ALL_BACK, server, *pairs))
        time.sleep(
            0 if bench.quick else 20
        )  # five starts within a minute are where systemd gives up
        shown.systemctl("reset-failed", check=False)
    bench.note("recovery", "tmux killed, all ten run again", "s", took, how=f"kill -9 of {TMUX}")
    took = []
    with closing(Ours(bench, "stamps")) as seat:
        for _ in range(bench.runs):
            with bench.client(seat.spec) as client:
                client.begin("back")
                killed = bench.python(_KILL, str(seat.pids[0]))
                took.append(client.answer()["at"] - killed)
            shown.systemctl("reset-failed", check=False)
    how = "kill -9 of mc-webgate; the viewer comes back at once"
    bench.note("recovery", "gateway killed, the viewer sees the pane", "s", took, how=how)
    took = []
    for _ in range(1 if bench.quick else 3):
        machine.reboot()
        for ticket in tickets:
            _wait_active(bench, ticket)
        took.append(_since_boot(bench, tickets))
    how = "from the user manager's start to the last ticket's READY=1"
    bench.note("recovery", "reboot, all ten run again", "s", took, how=how)
    _stop(bench, tickets)


def _wait_active(bench: Bench, ticket: int) -> None:
    bench.machine.wait_for(
        lambda: bench.product.unit(ticket)["ActiveState"] == "active",
        what=f"ticket {ticket}",
        timeout=90,
    )


def _since_boot(bench: Bench, tickets: list[int]) -> float:
    units = [f"ticket@{ticket}" for ticket in tickets]
    ready = bench.product.systemctl(
        "show", "-p", "ActiveEnterTimestampMonotonic", "--value", *units
    )
    begun = bench.product.systemctl("show", "-p", "UserspaceTimestampMonotonic", "--value").stdout
    return (max(int(word) for word in ready.stdout.split()) - int(begun)) / 1e6


def _printing(bench: Bench) -> Ours:
    """A ticket that prints, its history full: else what it costs would be how long it has been there."""
    seat = Ours(bench, "stamps")
    seat.flood(HISTORY_LINES)
    return seat


def growth(bench: Bench) -> None:
    """Start, latency, lag and memory with 1 to 100 tickets, a tenth of them printing."""
    there: list[int] = []
    probe = bench.product.new(
        "probe", "--driver", "command", "--isolation", "off", "--", "sh", "-c", AGENT
    )
    _once(bench, probe)
    empty = bench.pss_bytes(bench.service_pids(TMUX))  # has had a ticket
    seats = [_printing(bench)]
    unit = f"ticket@{probe}"
    used: dict[int, int] = {}
    how = f"PSS of {TMUX}; the history of those that print is full"
    for count in GROWTH[:2] if bench.quick else GROWTH:
        there += _sleepers(bench, count - len(there) - len(seats))
        while len(seats) < count // 10:
            bench.product.ctl("stop", str(there.pop()))
            seats.append(_printing(bench))
        said = f"{count} ticket{'s' if count > 1 else ''}"
        begin, end = f"systemctl --user start {unit}", f"systemctl --user stop {unit}"
        times = measured(bench.machine, bench.product.work(probe), begin, end, max(bench.runs, 7))
        bench.note("growth", f"start, {said}", "ms", times, how=begin)
        with bench.client(seats[0].spec) as client:
            runs = [median(client.ask("watch 2")["ms"]) for _ in range(bench.runs)]
        bench.note("growth", f"latency, {said}", "ms", runs, how="p50 of 2 s, one viewer")
        lags = bench.python(_LAG, str(seats[0].ticket), "20")
        bench.note("growth", f"ingest lag, {said}", "ms", lags, how="a line appended, until NOTIFY")
        for what, argv in (("reconcile", [TICKETCTL, "reconcile"]), ("list", [TICKETCTL, "list"])):
            times = bench.python(_TIMES, str(bench.runs), *argv)
            bench.note("growth", f"{what}, {said}", "ms", times, how=" ".join(argv))
        server = bench.product.systemctl("show", TMUX, "-p", "MainPID", "--value").stdout.strip()
        held = len(bench.machine.run(["ls", f"/proc/{server}/fd"]).stdout.split())
        bench.note("growth", f"descriptors of tmux, {said}", "", [held], how="ls /proc/PID/fd")
        if count > 1:
            used[count] = bench.pss_bytes(bench.service_pids(TMUX)) - empty
            bench.note(
                "growth", f"memory a ticket, {said}", "MiB", [used[count] / count / MIB], how=how,
            )  # fmt: skip
    # A line has one slope everywhere, whatever the first tickets find free in the server's heap.
    for few, many in pairwise(sorted(used)):
        each = (used[many] - used[few]) / (many - few) / MIB
        bench.note("growth", f"memory of one more, {few} to {many} tickets", "MiB", [each], how=how)
    for seat in seats:
        seat.close()
    _stop(bench, there)
