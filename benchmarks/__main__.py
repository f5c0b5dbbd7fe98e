"""The harness: scenarios on a booted machine, side by side with peers, into one table.

    python3 -m benchmarks [--only latency,echo] [--quick] [--runs 5] [--list]      (root)

Writes results/measured.json, results/README.md and two plots. What is not run again keeps its last figure;
--quick writes nothing. `--report` makes the page anew from what was measured.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from benchmarks import figures, report
from benchmarks.figures import Found
from benchmarks.goals import ROWS, TTYD
from benchmarks.measure import Bench
from benchmarks.scenarios import ingestion, message, panes, work
from benchmarks.systems import terminado, ttyd, vibetunnel
from tests.machine.claude_cli import VERSION, ensure_claude

SCENARIO_S = 600  # past it a scenario is given up: the longest takes half of that
RESULTS = Path(__file__).with_name("results")
#: In the order they run: a reboot comes late, and what fills the machine last.
SCENARIOS: dict[str, Callable[[Bench], None]] = {
    "idle": work.idle,
    "product": work.product,
    "latency": panes.latency,
    "echo": panes.echo,
    "start": work.start,
    "cli": work.cli,
    "message": message.message,
    "ingest": ingestion.ingest,
    "flood": panes.flood,
    "slow": panes.slow,
    "viewers": panes.viewers,
    "recovery": work.recovery,
    "growth": work.growth,
}
#: Which cannot be had from a package registry: built by hand where somebody wants them.
NOT_HAD = {
    "gotty": "a Go program, no package of it for this Debian",
    "agentapi": "a Go program, no package of it for this Debian",
}


def _too_long(*_: object) -> None:
    """One that hangs takes nothing from those after it."""
    raise TimeoutError(f"it took over {SCENARIO_S} s")


def peers() -> tuple[dict[str | Path, str], dict[str, str]]:
    """What is shown to the machine, and what cannot be."""
    binds: dict[str | Path, str] = {ensure_claude(): "/usr/local/bin/claude"}
    binds.update(terminado.ensure())
    missing = dict(NOT_HAD)
    try:
        binds.update(ttyd.ensure())
    except ttyd.NotHad as error:
        missing[TTYD] = str(error)
    try:
        binds.update(vibetunnel.ensure())
    except vibetunnel.NotHad as error:
        missing[vibetunnel.VibeTunnel.name] = str(error)
    return binds, missing


def versions(bench: Bench) -> dict[str, str]:
    """Of all that takes part."""

    def said(*argv: str) -> str:
        return bench.machine.run(argv, check=False).stdout.split("\n")[0].strip()

    model = next(
        (line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
         if line.startswith("model name")), platform.machine(),
    )  # fmt: skip
    return {
        "machine": f"{os.cpu_count()} shared cores ({model}), Linux {platform.release()}",
        "Debian inside": said("cat", "/etc/debian_version"),
        "systemd": said("systemctl", "--version"),
        "tmux": said("tmux", "-V"),
        "Python": said("python3", "--version"),
        "PostgreSQL": said("psql", "--version"),
        "terminado": terminado.VERSION,
        **({} if TTYD in bench.missing else {"ttyd": ttyd.version(bench)}),
        "vibetunnel": vibetunnel.VERSION,
        "Claude Code": VERSION,
    }


def write(found: Found, told: dict[str, str], missing: dict[str, str]) -> None:
    """Everything below results/ that is ours."""
    RESULTS.mkdir(exist_ok=True)
    figures.save(RESULTS / "measured.json", found, told, missing)
    for name, text in report.plots(found).items():
        (RESULTS / name).write_text(text, encoding="utf-8")
    page = report.page(found, told, missing)
    (RESULTS / "README.md").write_text(page, encoding="utf-8")


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser("benchmarks", description="The figures of benchmarks/results.")
    parser.add_argument("--only", default="", help="scenarios, with commas between")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="small and once; writes nothing")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--report", action="store_true", help="only make the page anew")
    options = parser.parse_args()
    if options.list:
        print("\n".join(f"{name:10}{ROWS[name][0]}: {ROWS[name][1]}" for name in SCENARIOS))
        return 0
    path = RESULTS / "measured.json"
    found, told, missing = figures.load(path)
    if options.report:
        write(found, told, missing)
        return 0
    wanted = [name for name in options.only.split(",") if name] or list(SCENARIOS)
    if unknown := set(wanted) - set(SCENARIOS):
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}; --list tells them")
    binds, missing = peers()
    failed = []
    took: dict[str, float] = {}
    signal.signal(signal.SIGALRM, _too_long)
    with Bench(
        runs=1 if options.quick else options.runs, quick=options.quick, binds=binds
    ) as bench:
        bench.missing = missing
        told = versions(bench)
        begun = time.monotonic()
        for name, scenario in SCENARIOS.items():
            if name not in wanted:
                continue
            print(f"-- {name}", flush=True)
            signal.alarm(SCENARIO_S)
            try:
                scenario(bench)
            except Exception:  # noqa: BLE001  # the others are measured all the same, and it is told at the end
                traceback.print_exc()
                failed.append(name)
            finally:
                signal.alarm(0)
            took[name] = time.monotonic() - begun - sum(took.values())
            if not options.quick:  # what was measured so far is kept, whatever comes next
                found = {**figures.load(path)[0], **{one.key: one for one in bench.found}}
                write(found, told, missing)
    shown = {**found, **{one.key: one for one in bench.found}}
    print(report.page(shown, told, missing))
    print(", ".join(f"{name} {seconds:.0f} s" for name, seconds in took.items()))
    if failed:
        print(f"not measured: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
