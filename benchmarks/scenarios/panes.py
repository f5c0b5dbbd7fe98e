"""Output latency, echo, many viewers, floods: a pane through one system after the other.

The systems take turns within each run, so that what else the machine does falls on all of them.
"""

from __future__ import annotations

from contextlib import ExitStack, closing
from statistics import median
from typing import cast

from benchmarks.figures import percentile
from benchmarks.goals import MANY, TTYD
from benchmarks.measure import Bench
from benchmarks.systems import ttyd
from benchmarks.systems.base import Seat
from benchmarks.systems.ours import OnlyLog, Ours
from benchmarks.systems.terminado import Terminado
from benchmarks.systems.vibetunnel import VibeTunnel
from tests.faults.viewers import Audience

WATCHED = 10
PEERS_UP_TO = 500  # viewers; with more they are beyond what is asked
FLOOD_LINES = 3_000_000  # of 17 bytes on the terminal: 51 MB
MEGA = 1e6
MIB = 1024 * 1024


def _seats(bench: Bench, stack: ExitStack, mode: str) -> list[Seat]:
    ours = stack.enter_context(closing(Ours(bench, mode)))
    seats: list[Seat] = [ours, OnlyLog(ours)]
    seats += [
        stack.enter_context(closing(Terminado(bench, mode, tmux=tmux))) for tmux in (True, False)
    ]
    if TTYD not in bench.missing:
        seats.append(stack.enter_context(closing(ttyd.Ttyd(bench, mode))))
    if VibeTunnel.name not in bench.missing:
        seats.append(stack.enter_context(closing(VibeTunnel(bench, mode))))
    return seats


def latency(bench: Bench) -> None:
    """From print to sight, one viewer."""
    seconds = 2 if bench.quick else 10
    with ExitStack() as stack:
        seats = _seats(bench, stack, "stamps")
        found: dict[str, list[list[float]]] = {seat.name: [] for seat in seats}
        for _ in range(bench.runs):
            for seat in seats:
                with bench.client(seat.spec) as client:
                    found[seat.name].append(client.ask(f"watch {seconds}")["ms"])
    for name, runs in found.items():
        how = f"a stamp each 50 ms for {seconds} s"
        for what, share in (("p50, 1 viewer", 0.5), ("p99, 1 viewer", 0.99)):
            values = [percentile(run, share) for run in runs]
            bench.note("latency", what, "ms", values, system=name, how=how)


def echo(bench: Bench) -> None:
    """From a key to its echo."""
    keys = 30 if bench.quick else 100
    with ExitStack() as stack:
        seats = [s for s in _seats(bench, stack, "quiet") if s.spec["kind"] != "log"]
        found: dict[str, list[float]] = {seat.name: [] for seat in seats}
        for _ in range(bench.runs):
            for seat in seats:
                with bench.client(seat.spec) as client:
                    found[seat.name].append(median(client.ask(f"echo {keys}")["ms"]))
    for name, values in found.items():
        bench.note("echo", "p50", "ms", values, system=name, how=f"{keys} keys, one at a time")


def viewers(bench: Bench) -> None:
    """Latency, CPU and memory with many viewers."""
    seconds = 2
    counts = MANY[:2] if bench.quick else MANY
    with ExitStack() as stack:
        seats: list[Seat] = [
            stack.enter_context(closing(Ours(bench, "stamps"))),
            stack.enter_context(closing(Terminado(bench, "stamps"))),
        ]
        if TTYD not in bench.missing:
            seats.append(stack.enter_context(closing(ttyd.Ttyd(bench, "stamps"))))
        for count in counts:
            times: dict[str, list[float]] = {seat.name: [] for seat in seats}
            cpu: dict[str, list[float]] = {seat.name: [] for seat in seats}
            each: dict[str, list[float]] = {seat.name: [] for seat in seats}
            for _ in range(bench.runs):
                for seat in seats if count <= PEERS_UP_TO else seats[:1]:
                    with bench.client(seat.spec, watched=1) as one:  # whoever looks at all
                        one.ask("watch 0.5")
                        before = bench.pss_bytes(seat.pids)
                        with bench.client(seat.spec, viewers=count, watched=WATCHED) as crowd:
                            crowd.ask("watch 1")
                            working = [*seat.pids, *seat.tmux_pids]
                            used = bench.cpu_s(working)
                            times[seat.name].append(median(crowd.ask(f"watch {seconds}")["ms"]))
                            used = bench.cpu_s(working) - used
                            cpu[seat.name].append(100 * used / seconds)
                            grown = bench.pss_bytes(seat.pids) - before
                            each[seat.name].append(grown / count / 1024)
            how = f"{seconds} s, {WATCHED} of them watched"
            said = f"{count} viewer{'s' if count > 1 else ''}"
            for name, values in times.items():
                if not values:
                    continue
                bench.note("viewers", f"p50, {said}", "ms", values, system=name, how=how)
                bench.note("viewers", f"CPU, {said}", "%", cpu[name], system=name, how=how)
                if count >= 100:  # fewer share too little to tell
                    what = f"memory each, {said}"
                    bench.note("viewers", what, "KiB", each[name], system=name, how=how)


def flood(bench: Bench) -> None:
    """How fast 50 MB arrive, and how much of them."""
    lines = FLOOD_LINES // 10 if bench.quick else FLOOD_LINES
    with ExitStack() as stack:
        # vibetunnel holds the beginning of a flood back until it has the end: there is nothing to time
        seats = [s for s in _seats(bench, stack, "quiet") if s.name != VibeTunnel.name]
        if TTYD not in bench.missing:
            on_log = ttyd.Ttyd(bench, "quiet", on_log_of=cast("Ours", seats[0]))
            seats.append(stack.enter_context(closing(on_log)))
        rates: dict[str, list[float]] = {seat.name: [] for seat in seats}
        shares: dict[str, list[float]] = {seat.name: [] for seat in seats}
        for _ in range(bench.runs):
            for seat in seats:
                with bench.client(seat.spec) as client:
                    client.begin(f"flood {lines}")
                    told = client.answer()
                    if "go" in told:
                        seat.flood(lines)
                        told = client.answer()
                # a rate is of what was printed, however much of it came
                rates[seat.name].append(lines * 17 / told["seconds"] / MEGA)
                shares[seat.name].append(100 * told["share"])
    how = f"{lines:,} lines, compared by a sum of all bytes"
    for name, values in rates.items():
        bench.note("flood", "rate", "MB/s", values, system=name, how=how)
        bench.note("flood", "share of the bytes", "%", shares[name], system=name, how=how)


def slow(bench: Bench) -> None:
    """What two who cannot keep up cost, and whom."""
    lines = FLOOD_LINES // 10 if bench.quick else FLOOD_LINES
    with closing(Ours(bench, "quiet")) as seat:
        headers = seat.spec["headers"]["Authorization"].split()[1]
        rates: dict[str, list[float]] = {"rate alone": [], "rate beside them": []}
        grown = []
        for _ in range(bench.runs):
            for what, into in rates.items():
                with ExitStack() as stack:
                    client = stack.enter_context(bench.client(seat.spec))
                    before = bench.pss_bytes(seat.pids)
                    if what == "rate beside them":
                        stack.enter_context(
                            Audience(
                                bench.machine.netns_exec_argv(), seat.spec["port"], seat.ticket,
                                headers, slow=1, dead=1,
                            )
                        ).begin("dropped 120")  # fmt: skip
                    told = client.ask(f"flood {lines}")
                    into.append(lines * 17 / told["seconds"] / MEGA)
                    if what == "rate beside them":
                        grown.append((bench.pss_bytes(seat.pids) - before) / MIB)
    for what, values in rates.items():
        bench.note("slow", what, "MB/s", values, how=f"{lines:,} lines")
    bench.note("slow", "memory of the two", "MiB", grown, how="the gateway's PSS, before and after")
