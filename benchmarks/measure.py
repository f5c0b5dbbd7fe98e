"""A booted machine with the product, and what every scenario does on it.

Peers, clients and the product all run on the one machine, so that what else the host does falls on
each alike. What a scenario measures is in scenarios/, what a system is in systems/.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from benchmarks.figures import OURS, Series
from tests.machine.install import CHECKOUT, copy_checkout, ensure_installed
from tests.machine.machine import Machine
from tests.machine.product import DATA, Product

PYTHON = f"{DATA}/venv/bin/python"
PORT = 3001
_TICKS_S = os.sysconf("SC_CLK_TCK")


class Client:
    """One process of client.py."""

    def __init__(self, machine: Machine, spec: Mapping[str, Any]) -> None:
        argv = ["env", f"--chdir={CHECKOUT}", PYTHON, "-m", "benchmarks.client"]
        self._process = machine.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.begin(json.dumps(spec))
        self.answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._process.forget()

    def ask(self, command: str) -> dict[str, Any]:
        """One command and its answer."""
        self.begin(command)
        return self.answer()

    def begin(self, command: str) -> None:
        """One command, whose answer is asked for later."""
        assert self._process.stdin is not None  # noqa: S101  # it is a pipe
        self._process.stdin.write(f"{command}\n".encode())
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """The next answer."""
        assert self._process.stdout is not None  # noqa: S101
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the client ended; what it said is above")
        found: dict[str, Any] = json.loads(line)
        return found


class Bench:
    """The machine, how often each thing is done, and what was found so far."""

    def __init__(self, *, runs: int, quick: bool, binds: Mapping[str | Path, str]) -> None:
        self.runs = runs
        self.quick = quick
        self.found: list[Series] = []
        self.missing: dict[str, str] = {}  #: systems that cannot be had, and why
        self._stack = ExitStack()
        self.machine = self._stack.enter_context(Machine(ensure_installed(), binds=binds))
        self.machine.boot()
        copy_checkout(self.machine)
        self.product = Product(self.machine)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def note(
        self, row: str, what: str, unit: str, values: Sequence[float], *, system: str = OURS,
        how: str = "",
    ) -> None:  # fmt: skip
        """Writes a series down, and tells it."""
        one = Series(
            row=row, what=what, system=system, unit=unit, how=how,
            values=tuple(round(value, 4) for value in values),
            load=round(os.getloadavg()[0], 1), at=f"{datetime.now(UTC):%Y-%m-%d}",
        )  # fmt: skip
        self.found.append(one)
        print(f"{row}: {what}, {system}: {one.median:.3g} {unit} {list(one.values)}", flush=True)

    def client(self, spec: Mapping[str, Any], **counts: int) -> Client:
        """Connects."""
        return Client(self.machine, {**spec, **counts})

    # -- processes -------------------------------------------------------------------------------

    def service_pids(self, unit: str) -> list[int]:
        """All of a user unit's processes."""
        group = self.product.systemctl("show", unit, "-p", "ControlGroup", "--value").stdout.strip()
        text = self.product.read(f"/sys/fs/cgroup{group}/cgroup.procs") if group else ""
        return [int(word) for word in text.split()]

    def pss_bytes(self, pids: Sequence[int]) -> int:
        """Memory of processes, what is shared counted by its share."""
        found = re.findall(r"^Pss: +(\d+) kB", self._all(pids, "smaps_rollup"), re.MULTILINE)
        return sum(int(kib) for kib in found) * 1024

    def cpu_s(self, pids: Sequence[int]) -> float:
        """What processes have used so far."""
        lines = self._all(pids, "stat").splitlines()
        words = [line.rpartition(")")[2].split() for line in lines]
        return sum(int(each[11]) + int(each[12]) for each in words) / _TICKS_S

    def switches(self, pids: Sequence[int]) -> int:
        """How often they went to sleep by themselves: as often they were woken."""
        pattern = r"^voluntary_ctxt_switches:\s+(\d+)"
        return sum(int(n) for n in re.findall(pattern, self._all(pids, "status"), re.MULTILINE))

    def _all(self, pids: Sequence[int], name: str) -> str:
        script = f"for p do cat /proc/$p/{name}; done 2>/dev/null; true"
        argv = ["sh", "-c", script, "sh", *map(str, pids)]
        return self.machine.run(argv, user="root").stdout

    def python(self, script: str, *args: str, timeout: float = 300) -> Any:
        """Runs a program of the product's Python on the machine; the JSON it prints."""
        argv = ["env", f"--chdir={CHECKOUT}", PYTHON, "-c", script, *args]
        return json.loads(self.machine.run(argv, timeout=timeout).stdout)
