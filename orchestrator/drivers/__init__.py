"""How an agent is run in the pane, and how to tell what it is doing. One small interface, one file each.

What no file describes, a `[drivers.NAME]` table of config.toml may: `table.py` runs those. Each is
imported when it is asked for: a launcher needs one, and what the others import is a tenth of its time.
"""

from __future__ import annotations

from functools import cache

from orchestrator.config import Config
from orchestrator.drivers.base import Driver, Launch, NotTaken, Work, message_key
from orchestrator.errors import InvalidInput

__all__ = ["Driver", "Launch", "NotTaken", "Work", "driver_named", "driver_names", "message_key"]

_OURS = ("claude", "claude_stream", "oneshot", "command", "demo")


def driver_names(config: Config | None = None) -> list[str]:
    """The drivers there are: ours, and those of a configuration."""
    return sorted([*_OURS, *(config.drivers if config else ())])


def driver_named(name: str, config: Config | None = None) -> Driver:
    """One driver.

    Raises:
        InvalidInput: there is none of that name.
        ConfigError: the configuration has a table for it that cannot be used.
    """
    if name in _OURS:
        return _ours(name)
    if config is not None and name in config.drivers:
        # jinja2 with it, which nobody else here needs: a seventh of what a launcher imports
        from orchestrator.drivers.table import of_table  # noqa: PLC0415

        return of_table(config.drivers[name])
    raise InvalidInput(
        f"There is no driver {name!r}.", hint=f"Known: {', '.join(driver_names(config))}."
    )


@cache
def _ours(name: str) -> Driver:
    found: Driver
    if name == "claude":
        from orchestrator.drivers.claude import ClaudeDriver  # noqa: PLC0415

        found = ClaudeDriver()
    elif name == "claude_stream":
        from orchestrator.drivers.claude_stream import ClaudeStreamDriver  # noqa: PLC0415

        found = ClaudeStreamDriver()
    elif name == "oneshot":
        from orchestrator.drivers.oneshot import OneshotDriver  # noqa: PLC0415

        found = OneshotDriver()
    elif name == "command":
        from orchestrator.drivers.command import CommandDriver  # noqa: PLC0415

        found = CommandDriver()
    else:
        from orchestrator.drivers.demo import DemoDriver  # noqa: PLC0415

        found = DemoDriver()
    return found
