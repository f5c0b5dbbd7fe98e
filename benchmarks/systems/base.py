"""What a scenario knows of a system."""

from __future__ import annotations

from typing import Any, Protocol


class Seat(Protocol):
    """A pane with agent.py in it, as one system shows it."""

    name: str

    @property
    def spec(self) -> dict[str, Any]:
        """What client.py connects to."""

    @property
    def pids(self) -> list[int]:
        """Of the processes that serve viewers."""

    def flood(self, lines: int) -> None:
        """Types the command, where the client cannot type."""

    def close(self) -> None:
        """Ends it."""
