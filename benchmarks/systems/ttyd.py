"""ttyd: a process of its own for each viewer, here `tmux attach`, so that an agent outlives its viewers.

Not packaged for Debian. It is built by hand (libwebsockets-dev, libjson-c-dev, libuv1-dev, and cmake on its
source), and MC_BENCH_TTYD names the folder: `ttyd`, and in `lib/` what it links that the machine lacks.
"""

from __future__ import annotations

import os
import sysconfig
import time
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks.goals import TTYD, TTYD_LOG
from benchmarks.measure import Bench
from benchmarks.systems.base import OwnTmux
from benchmarks.systems.ours import Ours

INSIDE = "/opt/ttyd"
UP_S = 10.0
_ports = count(4500)


class NotHad(Exception):
    """Why it takes no part."""


def ensure() -> dict[str | Path, str]:
    """Where it lies on the host, and where inside."""
    named = os.environ.get("MC_BENCH_TTYD", "")
    folder = Path(named or "/nonexistent").resolve()
    if not (folder / "ttyd").is_file():
        said = f"there is no {folder}/ttyd" if named else "MC_BENCH_TTYD names no build of it"
        raise NotHad(
            f"no package of it for Debian, and {said}; its targets stand against terminado"
        )
    # libwebsockets takes its event loop from there and from nowhere else
    libraries = f"/usr/lib/{sysconfig.get_config_var('MULTIARCH')}"
    loops: dict[str | Path, str] = {
        path: f"{libraries}/{path.name}" for path in folder.glob("lib/libwebsockets-evlib_*")
    }
    return {folder: INSIDE, **loops}


def version(bench: Bench) -> str:
    """As it says."""
    return bench.machine.run([f"{INSIDE}/ttyd", "-v"], env=_ENV).stdout.strip()


_ENV = {"LD_LIBRARY_PATH": f"{INSIDE}/lib"}


class Ttyd:
    """Its server on `tmux attach`; or, for floods, on a `tail` of the log ours writes."""

    def __init__(self, bench: Bench, mode: str, *, on_log_of: Ours | None = None) -> None:
        self._bench = bench
        self._ours = on_log_of
        self.name = TTYD_LOG if on_log_of else TTYD
        self._port = next(_ports)
        self._tmux = None
        if on_log_of:
            # as it is: the log has returns before its newlines already
            runs = ["sh", "-c", 'stty -opost; exec tail -n 0 -f "$0"', on_log_of.log]
        else:
            self._tmux = OwnTmux(bench, f"bench-{self._port}", mode)
            runs = self._tmux.attach
        argv = [f"{INSIDE}/ttyd", "-W", "-i", "127.0.0.1", "-p", str(self._port)]
        self._process = bench.machine.popen([*argv, *runs], env=_ENV)
        self.spec: dict[str, Any] = {"kind": "ttyd", "port": self._port, "path": "/ws"}
        self.spec |= {"read_only": True} if on_log_of else {}
        self._wait()

    @property
    def pids(self) -> list[int]:
        """The server's and those of the processes it keeps for its viewers."""
        found = self._bench.machine.run(["pgrep", "-f", f"^{INSIDE}/ttyd .* {self._port} "]).stdout
        server = found.split()[0]
        children = self._bench.machine.run(["pgrep", "-P", server], check=False).stdout
        return [int(word) for word in (server, *children.split())]

    @property
    def tmux_pids(self) -> list[int]:
        """See base."""
        return self._tmux.pids if self._tmux else []

    def flood(self, lines: int) -> None:
        """The client types; where it only reads the log, ours prints."""
        if self._ours is not None:
            self._ours.flood(lines)

    def close(self) -> None:
        """Kills it."""
        self._process.kill()
        self._process.communicate()
        self._process.forget()
        if self._tmux:
            self._tmux.close()

    def _wait(self) -> None:
        """Until it listens."""
        until = time.monotonic() + UP_S
        while not self._bench.machine.run(["ss", "-Hltn", f"sport = :{self._port}"]).stdout:
            if time.monotonic() > until:
                raise RuntimeError("ttyd did not start; what it said is above")
            time.sleep(0.1)
