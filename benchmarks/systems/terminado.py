"""terminado, Jupyter's terminal server: all viewers at one pty, on `tmux attach` or on the program itself.

On `tmux attach` is how an agent outlives its server there; on the program alone it is quicker, and an
agent dies with it.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import distributions
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks.goals import PEER
from benchmarks.measure import PYTHON, Bench
from benchmarks.systems.base import OwnTmux
from tests.machine.cache import cache_dir, locked
from tests.machine.install import CHECKOUT

VERSION = "0.18.1"
INSIDE = "/opt/terminado"
BARE = "terminado, the program alone"
_ports = count(4100)
_SERVER = """
import sys
from tornado import ioloop, web
from terminado import TermSocket, SingleTermManager
manager = SingleTermManager(shell_command=sys.argv[2:])
web.Application([("/ws", TermSocket, {"term_manager": manager})]).listen(int(sys.argv[1]), "127.0.0.1")
print("listening", flush=True)
ioloop.IOLoop.current().start()
"""


def ensure() -> dict[str | Path, str]:
    """Where it lies on the host, and where inside; fetched once, beside the test machines."""
    folder = cache_dir() / f"bench-terminado-{VERSION}"
    with locked("bench-terminado"):
        if not any(d.metadata["Name"] == "terminado" for d in distributions(path=[str(folder)])):
            pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", "install"]
            subprocess.run([*pip, "--target", str(folder), f"terminado=={VERSION}"], check=True)
    return {folder: INSIDE}


class Terminado:
    """Its server, and agent.py in its pty."""

    def __init__(self, bench: Bench, mode: str, *, tmux: bool = True) -> None:
        self._bench = bench
        self.name = PEER if tmux else BARE
        port = next(_ports)
        self._tmux = OwnTmux(bench, f"bench-{port}", mode) if tmux else None
        alone = [PYTHON, f"{CHECKOUT}/benchmarks/agent.py", mode]
        agent = self._tmux.attach if self._tmux else alone
        self._process = bench.machine.popen(
            [PYTHON, "-c", _SERVER, str(port), *agent],
            stdout=subprocess.PIPE, env={"PYTHONPATH": INSIDE},
        )  # fmt: skip
        assert self._process.stdout is not None  # noqa: S101
        if not self._process.stdout.readline():
            raise RuntimeError("terminado did not start; what it said is above")
        self.spec: dict[str, Any] = {"kind": "websocket", "port": port, "path": "/ws"}

    @property
    def pids(self) -> list[int]:
        """The server's."""
        port = str(self.spec["port"])
        found = self._bench.machine.run(["pgrep", "-f", f"SingleTermManager.*{port}"]).stdout
        return [int(word) for word in found.split()][:1]

    @property
    def tmux_pids(self) -> list[int]:
        """See base."""
        return self._tmux.pids if self._tmux else []

    def flood(self, lines: int) -> None:
        """The client types."""

    def close(self) -> None:
        """Kills it."""
        self._process.kill()
        self._process.communicate()
        self._process.forget()
        if self._tmux:
            self._tmux.close()
