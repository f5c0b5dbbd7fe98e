"""How long a ticket takes from `systemctl --user start` until its agent is exec'd.

On a booted machine with the product installed, beside the floor: a bare `tmux new-session` of the
same program. The agent is a shell that writes down when it runs; both clocks are the machine's.

    python3 -m benchmarks.start [--runs 15]        (root; writes benchmarks/results/start.md)
"""

from __future__ import annotations

import argparse
import statistics
import sys
from datetime import UTC, datetime
from pathlib import Path

from tests.machine.install import ensure_installed
from tests.machine.machine import Machine
from tests.machine.product import HOME, Product

RESULT = Path(__file__).with_name("results") / "start.md"
AGENT = "date +%s%N > execd; exec sleep 1000"
START = """
cd {folder}; rm -f execd; begun=$(date +%s%N); {command}
until [ -s execd ]; do :; done; echo $(( ($(cat execd) - begun) / 1000 )); {after}
"""


def measured(machine: Machine, folder: str, command: str, after: str, runs: int) -> list[float]:
    """Milliseconds of each run, after one that is not counted; `folder` is where the agent works."""
    script = START.format(folder=folder, command=command, after=after)
    return [int(machine.sh(script).stdout.split()[-1]) / 1000 for _ in range(runs + 1)][1:]


def row(name: str, times: list[float], floor: float) -> str:
    """One line of the table."""
    median = statistics.median(times)
    return f"| {name} | {median:.0f} | {min(times):.0f} | {max(times):.0f} | {median / floor:.1f} |"


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(
        "benchmarks.start", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("--runs", type=int, default=15)
    options = parser.parse_args()
    with Machine(ensure_installed()) as machine:
        machine.boot()
        product = Product(machine)
        program = ["--driver", "command", "--", "sh", "-c", AGENT]
        repo = ["--repo", product.make_repository()]
        tmux = f"tmux new-session -d -s bench -c {HOME} sh -c '{AGENT}'"
        floor = measured(machine, HOME, tmux, "tmux kill-session -t =bench", options.runs)
        shell = (
            machine.run(["tmux", "-V"]).stdout.strip(),
            product.systemctl("--version").stdout.split("\n")[0],
        )
        tables = [row("bare `tmux new-session`", floor, statistics.median(floor))]
        for name, args in (
            ("ticket, a folder of its own, not isolated", ["--isolation", "off"]),
            ("ticket, a folder of its own", []),
            ("ticket, its worktree there already, not isolated", [*repo, "--isolation", "off"]),
            ("ticket, its worktree there already", repo),
        ):
            ticket = product.new("start", *args, *program)
            unit = f"ticket@{ticket}"
            # once before: its folder, or its worktree, is there afterwards
            product.ctl("start", str(ticket))
            folder = product.work(ticket)
            if "--repo" in args:
                folder = product.show(ticket)["worktree_path"]
            product.ctl("stop", str(ticket))
            times = measured(
                machine,
                folder,
                f"systemctl --user start {unit}",
                f"systemctl --user stop {unit}",
                options.runs,
            )
            tables.append(row(name, times, statistics.median(floor)))
    text = "\n".join(
        [f"# Start of a ticket\n\n{datetime.now(UTC).date().isoformat()}, {shell[0]}, {shell[1]}; {options.runs} runs each"
         " after one that is not counted; milliseconds until the agent is exec'd.\n",
         "| what | median | min | max | of the floor |", "| --- | --- | --- | --- | --- |", *tables,
         "\n`python3 -m benchmarks.start`\n"]
    )  # fmt: skip
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
