"""What many viewers of one pane cost: the time from a print to its sight, memory and CPU of the gateway.

On a booted machine with the product installed. A program in the pane prints a stamp each 50 ms; ten of the
viewers read it, the others only read. Beside two floors: the same stamps read from the pane log by inotify,
and a bare loop that sends them to as many sockets (bare.py).

    python3 -m benchmarks.viewers [--seconds 10] [--counts 1,100,500,1000,2000]   (root; writes benchmarks/results/viewers.md)
"""

from __future__ import annotations

import argparse
import os
import re
import select
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from watchdog.observers import inotify_c

from tests.faults.viewers import STAMP, STAMPS, Audience
from tests.machine.install import ensure_installed
from tests.machine.machine import Machine
from tests.machine.product import HOME, STATE, Product

RESULT = Path(__file__).with_name("results") / "viewers.md"
PYTHON = f"{HOME}/.local/share/mission-control/venv/bin/python"
PORT = 3001
BARE_PORT = 3999
WATCHED = 10
FEWEST = 100  # viewers whose share of the memory can be told
FLOOD_LINES = 3_100_000  # of 17 bytes: 52 MB
TICKS_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One row of the table."""

    viewers: int
    p50_ms: float
    p99_ms: float
    floor_ms: float
    bare_ms: float
    bare_cpu_percent: float
    cpu_percent: float
    pss_bytes: int


class Bench:
    """A machine, and its gateway as the host sees it."""

    def __init__(self, product: Product) -> None:
        self.product = product
        argv = [PYTHON, "-c", STAMPS]
        self.ticket = product.new("stamps", "--driver", "command", "--start", "--", *argv)
        product.wait_screen(self.ticket, "@")
        self._token = product.read(f"{STATE}/token").strip()
        with self.audience(watched=1):  # the socket starts it
            shown = product.systemctl("show", "mc-webgate", "-p", "MainPID", "--value")
        self._pid = int(shown.stdout)
        self.log = Path(
            f"/proc/{product.machine.leader_pid}/root{STATE}/tickets/{self.ticket}/pane.log"
        )

    def audience(self, port: int = PORT, **counts: int) -> Audience:
        """Viewers."""
        prefix = self.product.machine.netns_exec_argv()
        return Audience(prefix, port, self.ticket, self._token, **counts)

    def bare(self, viewers: int, seconds: float) -> tuple[float, float]:
        """Median in milliseconds and CPU in percent of the bare loop with so many."""
        argv = [*self.product.machine.netns_exec_argv(), sys.executable, "-m", "benchmarks.bare"]
        argv += [str(BARE_PORT), str(self.log)]
        watched = min(WATCHED, viewers)
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as server:
            try:
                assert server.stdout is not None  # noqa: S101  # it is a pipe
                server.stdout.readline()
                with (
                    self.audience(BARE_PORT, watched=watched) as those,
                    self.audience(BARE_PORT, crowd=viewers - watched) as others,
                ):
                    used, began = cpu_s(server.pid), time.monotonic()
                    others.begin(f"watch {seconds + 1}")
                    times = those.ask(f"watch {seconds}")["latencies_ms"]
                    used, took = cpu_s(server.pid) - used, time.monotonic() - began
                    others.answer()
            finally:
                server.kill()
        return statistics.median(times), 100 * used / took

    def pss_bytes(self) -> int:
        """The gateway's memory."""
        text = self.product.machine.run(
            ["cat", f"/proc/{self._pid}/smaps_rollup"], user="root"
        ).stdout
        return int(re.findall(r"^Pss: +(\d+) kB", text, re.MULTILINE)[0]) * 1024

    def cpu_s(self) -> float:
        """What it has used so far."""
        return _cpu_s(self.product.read(f"/proc/{self._pid}/stat"))

    def flood(self, watched: Audience) -> float:
        """MB/s of the pane's bytes at those who are watched."""
        before = self.log.stat().st_size
        watched.begin(f"flood THE-END-{FLOOD_LINES}")
        keys = ["tmux", "send-keys", "-t", f"=ticket-{self.ticket}:", f"{FLOOD_LINES}", "Enter"]
        self.product.machine.run(keys)
        took = float(watched.answer()["seconds"])
        return (self.log.stat().st_size - before) / took / 1e6


def cpu_s(pid: int) -> float:
    """What a process of this host has used so far."""
    return _cpu_s(Path(f"/proc/{pid}/stat").read_text(encoding="ascii"))


def _cpu_s(stat: str) -> float:
    words = stat.rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / TICKS_S


def floor_of(log: Path, seconds: float) -> list[float]:
    """Milliseconds from print to sight of one who reads the log when inotify says that it grew."""
    fd = inotify_c.inotify_init()
    inotify_c.inotify_add_watch(fd, os.fsencode(log), inotify_c.InotifyConstants.IN_MODIFY)
    found: list[float] = []
    with log.open("rb", buffering=0) as file:
        file.seek(0, os.SEEK_END)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if select.select([fd], [], [], 0.1)[0]:
                os.read(fd, 65_536)
                data, now_ns = file.read(), time.monotonic_ns()
                found += [(now_ns - int(stamp)) / 1e6 for stamp in STAMP.findall(data)[-1:]]
    os.close(fd)
    return found


def measured(bench: Bench, viewers: int, seconds: float) -> Figures:
    """Figures with so many viewers, of whom some are watched."""
    with ExitStack() as stack:
        # One before, whose memory is that of anybody looking at all.
        stack.enter_context(bench.audience(crowd=0, watched=1)).ask("watch 1")
        watched = min(WATCHED, viewers)
        before = bench.pss_bytes()
        those = stack.enter_context(bench.audience(watched=watched))
        others = stack.enter_context(bench.audience(crowd=viewers - watched))
        those.ask("watch 1")
        used, began = bench.cpu_s(), time.monotonic()
        others.begin(f"watch {seconds + 1}")
        those.begin(f"watch {seconds}")
        floor = floor_of(bench.log, seconds)
        times = sorted(those.answer()["latencies_ms"])
        used, took = bench.cpu_s() - used, time.monotonic() - began
        pss = bench.pss_bytes() - before
        others.answer()
    bare_ms, bare_cpu = bench.bare(viewers, seconds)
    return Figures(
        viewers=viewers, p50_ms=statistics.median(times), p99_ms=times[len(times) * 99 // 100],
        floor_ms=statistics.median(floor), bare_ms=bare_ms, bare_cpu_percent=bare_cpu, cpu_percent=100 * used / took, pss_bytes=pss,
    )  # fmt: skip


def row(found: Figures) -> str:
    """One line of the table."""
    each = f"{found.pss_bytes / found.viewers / 1024:.0f}" if found.viewers >= FEWEST else "–"
    return (
        f"| {found.viewers:,} | {found.p50_ms:.2f} | {found.p99_ms:.1f} | {found.floor_ms:.2f} |"
        f" {found.bare_ms:.2f} | {found.p50_ms / found.bare_ms:.2f} | {found.cpu_percent:.0f} |"
        f" {found.bare_cpu_percent:.0f} | {each} |"
    )


def slow_and_dead(bench: Bench) -> list[str]:
    """What one that reads 1 KB/s and one that never reads cost in a flood of 50 MB, and whom."""
    alone, beside, grown, dropped = [], [], 0, 0.0
    for _ in range(3):
        with bench.audience(watched=1) as watched:
            alone.append(bench.flood(watched))
            before = bench.pss_bytes()
            with bench.audience(slow=1, dead=1) as bad:
                bad.begin("dropped 60")
                beside.append(bench.flood(watched))
                grown = max(grown, bench.pss_bytes() - before)
                dropped = max(dropped, float(bad.answer()["seconds"]))
    one, two = statistics.median(alone), statistics.median(beside)
    return [
        "| a viewer in a flood of 52 MB | MB/s |", "| --- | --- |",
        f"| alone | {one:.1f} |", f"| beside a slow one and a dead one | {two:.1f} ({two / one:.2f}) |",
        f"\nThe two together cost the gateway {grown / 1024:.0f} KiB (the most of three); the dead one was"
        f" dropped after {dropped:.0f} s at most. Every byte arrived.",
    ]  # fmt: skip


def storm(bench: Bench, viewers: int) -> str:
    """All of them at once, after a kill -9 of the gateway."""
    with bench.audience(crowd=viewers) as crowd:
        bench.product.systemctl("kill", "--signal=KILL", "mc-webgate.service")
        back = crowd.ask("storm")
    return (
        f"\nThe gateway killed under {viewers:,} of them, who come back at once: half see the pane again after"
        f" {back['median']:.1f} s, the last after {back['seconds']:.1f} s."
    )


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser("benchmarks.viewers")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--counts", default="1,100,500,1000,2000")
    options = parser.parse_args()
    counts = [int(word) for word in options.counts.split(",")]
    with Machine(ensure_installed()) as machine:
        machine.boot()
        product = Product(machine)
        bench = Bench(product)
        versions = (
            machine.run(["tmux", "-V"]).stdout.strip(),
            os.cpu_count(),
            f"{os.getloadavg()[0]:.1f}",
        )
        rows = [row(measured(bench, count, options.seconds)) for count in counts]
        more = [*slow_and_dead(bench), storm(bench, 1000)]
    text = "\n".join(
        [f"# Many viewers of one pane\n\n{datetime.now(UTC).date().isoformat()}, {versions[0]}, {versions[1]} cores shared with"
         f" the viewers and with other work (load {versions[2]} at the start). A stamp each 50 ms for {options.seconds:g} s; milliseconds from the"
         " print to its sight, by ten of the viewers. Log: one who reads the pane log when inotify says so, in the same seconds."
         " Bare: a loop that sends what the log grew by to as many sockets and does nothing else, right after. Memory is what the gateway's PSS grew by.\n",
         "| viewers | p50 | p99 | log, p50 | bare, p50 | of bare | CPU % | bare, CPU % | KiB each |",
         "| --- | --- | --- | --- | --- | --- | --- | --- | --- |", *rows,
         "", *more, "\n`python3 -m benchmarks.viewers`\n"]
    )  # fmt: skip
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
