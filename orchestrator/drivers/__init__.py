"""How an agent is run in the pane, and how to tell what it is doing. One small interface, one file each."""

from __future__ import annotations

from orchestrator.drivers.base import Driver, Launch, NotTaken, Work, message_key
from orchestrator.drivers.claude import ClaudeDriver
from orchestrator.drivers.claude_stream import ClaudeStreamDriver
from orchestrator.drivers.command import CommandDriver
from orchestrator.drivers.demo import DemoDriver
from orchestrator.drivers.oneshot import OneshotDriver
from orchestrator.errors import InvalidInput

__all__ = ["Driver", "Launch", "NotTaken", "Work", "driver_named", "driver_names", "message_key"]

_ALL: tuple[Driver, ...] = (
    ClaudeDriver(), ClaudeStreamDriver(), OneshotDriver(), CommandDriver(), DemoDriver(),
)  # fmt: skip
_DRIVERS = {driver.name: driver for driver in _ALL}


def driver_names() -> list[str]:
    """The drivers there are."""
    return sorted(_DRIVERS)


def driver_named(name: str) -> Driver:
    """One driver.

    Raises:
        InvalidInput: there is none of that name.
    """
    if name not in _DRIVERS:
        raise InvalidInput(
            f"There is no driver {name!r}.", hint=f"Known: {', '.join(driver_names())}."
        )
    return _DRIVERS[name]
