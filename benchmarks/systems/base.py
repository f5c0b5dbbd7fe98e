"""What a scenario knows of a system, and the tmux server a peer has to itself."""

from __future__ import annotations

from typing import Any, Protocol

from benchmarks.measure import PYTHON, Bench
from tests.machine.install import CHECKOUT


class Seat(Protocol):
    """A pane with agent.py in it, as one system shows it."""

    name: str

    @property
    def spec(self) -> dict[str, Any]:
        """What client.py connects to."""

    @property
    def pids(self) -> list[int]:
        """Of the processes that serve viewers."""

    @property
    def tmux_pids(self) -> list[int]:
        """Of the tmux server behind them; none where there is none."""

    def flood(self, lines: int) -> None:
        """Types the command, where the client cannot type."""

    def close(self) -> None:
        """Ends it."""


class OwnTmux:
    """A tmux server for one peer: no status line, and what its pane prints goes to no log."""

    def __init__(self, bench: Bench, name: str, mode: str) -> None:
        self._bench = bench
        self._socket = name
        new = ["tmux", "-L", name, "-f", "/dev/null", "new-session", "-d", "-s", "peer"]
        agent = [PYTHON, f"{CHECKOUT}/benchmarks/agent.py", mode]
        bench.machine.run([*new, "-x", "80", "-y", "24", *agent])
        bench.machine.run(["tmux", "-L", name, "set-option", "-g", "status", "off"])

    @property
    def attach(self) -> list[str]:
        """What a viewer runs."""
        return ["tmux", "-L", self._socket, "attach-session", "-t", "peer"]

    @property
    def pids(self) -> list[int]:
        """The server's."""
        argv = ["tmux", "-L", self._socket, "display-message", "-p", "#{pid}"]
        return [int(self._bench.machine.run(argv).stdout)]

    def close(self) -> None:
        """Kills it and the agent."""
        self._bench.machine.run(["tmux", "-L", self._socket, "kill-server"], check=False)
