"""Mission Control: a command ticket, looked at through its own gateway; and its log alone, the floor."""

from __future__ import annotations

from typing import Any

from benchmarks.figures import OURS
from benchmarks.goals import LOG
from benchmarks.measure import PORT, PYTHON, Bench
from tests.machine.install import CHECKOUT
from tests.machine.product import STATE

VIEWER = "benchmark-0001"


class Ours:
    """The gateway's stream, and keys by POST."""

    name = OURS

    def __init__(self, bench: Bench, mode: str) -> None:
        self._bench = bench
        argv = ["--", PYTHON, f"{CHECKOUT}/benchmarks/agent.py", mode]
        # not isolated: the checkout is not the ticket's to see
        self.ticket = bench.product.new(
            "bench", "--driver", "command", "--isolation", "off", "--start", *argv
        )
        bench.product.wait_screen(self.ticket, "@" if mode == "stamps" else "ready", timeout=60)
        self._token = bench.product.read(f"{STATE}/token").strip()

    @property
    def spec(self) -> dict[str, Any]:
        """See base."""
        api = f"/api/ticket/{self.ticket}"
        return {
            "kind": "events", "port": PORT, "path": f"{api}/stream?replay=0",
            "headers": {"Authorization": f"Bearer {self._token}"},
            "before": [f"{api}/control", {"viewer": VIEWER, "action": "take"}],
            "keys": [f"{api}/keys", {"viewer": VIEWER}], "key_name": "keys",
        }  # fmt: skip

    @property
    def pids(self) -> list[int]:
        """The gateway's."""
        return self._bench.service_pids("mc-webgate.service")

    @property
    def tmux_pids(self) -> list[int]:
        """Of the server all tickets share."""
        return self._bench.service_pids("tmux-mc.service")[:1]

    @property
    def log(self) -> str:
        """The pane log's path on the machine."""
        return f"{STATE}/tickets/{self.ticket}/pane.log"

    def flood(self, lines: int) -> None:
        """By tmux, as somebody attached."""
        target = f"=ticket-{self.ticket}:"
        self._bench.machine.run(["tmux", "send-keys", "-t", target, f"flood {lines}", "Enter"])

    def close(self) -> None:
        """Stops the ticket."""
        self._bench.product.ctl("stop", str(self.ticket), check=False)


class OnlyLog:
    """The same pane's log, read when inotify says so: no gateway."""

    name = LOG

    def __init__(self, ours: Ours) -> None:
        self._ours = ours
        self.spec: dict[str, Any] = {"kind": "log", "log": ours.log}
        self.pids: list[int] = []
        self.tmux_pids: list[int] = []

    def flood(self, lines: int) -> None:
        """As ours."""
        self._ours.flood(lines)

    def close(self) -> None:
        """Nothing of its own."""
