r"""Patterns that are looked for on a screen, in bounded time whatever the screen shows.

What an agent prints is hostile, and Python's regular expressions can be made to run for hours: so
only those are taken that cannot. A pattern is a sequence of single characters (`.`, `[a-z]`, `\d`,
an escaped one), at most two of them repeated; no groups, no alternatives (a list of patterns is
that), no looking around. A row is cut, and a look at a screen has a deadline.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence

from orchestrator.errors import ConfigError

MAX_PATTERN_CHARS = 200
MAX_REPEATS = 2  # cubic in the row at worst: measured, 6 ms for a row of 240
MAX_ROW_CHARS = 240
MAX_ROWS = 200
LOOK_S = 0.1  # for all patterns on all rows; past it nothing is known
_ATOM = re.compile(r"\\[^0-9]|\[\^?\]?(?:\\.|[^\]\\])*\]|[^\\\[\]()|*+?{}]", re.DOTALL)
_REPEAT = re.compile(r"[*+?]|\{[0-9]{0,3}(?:,[0-9]{0,3})?\}")


def compiled(where: str, pattern: str) -> re.Pattern[str]:
    """A pattern of a configuration, checked.

    Raises:
        ConfigError: it is none, or could take long; `where` names the key.
    """
    if not pattern or len(pattern) > MAX_PATTERN_CHARS:
        raise ConfigError(f"{where}: a pattern has 1 to {MAX_PATTERN_CHARS} characters.")
    at = repeats = 0
    while at < len(pattern):
        atom = _ATOM.match(pattern, at)
        if atom is None:
            raise ConfigError(
                f"{where}: {pattern!r} cannot be used from {pattern[at : at + 10]!r} on.",
                hint="Single characters, at most two repeated; \\( for a bracket; a list for 'or'.",
            )
        at = atom.end()
        if repeat := _REPEAT.match(pattern, at):
            at, repeats = repeat.end(), repeats + 1
    if repeats > MAX_REPEATS:
        raise ConfigError(
            f"{where}: {pattern!r} repeats {repeats} times.", hint=f"At most {MAX_REPEATS}."
        )
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"{where}: {pattern!r} is no pattern: {error}.") from None


def shown(patterns: Iterable[re.Pattern[str]], rows: Sequence[str], deadline: float) -> bool | None:
    """Whether one of them is on a screen; None: `deadline` (monotonic) passed before that was known."""
    for pattern in patterns:
        for row in rows[-MAX_ROWS:]:
            if time.monotonic() > deadline:
                return None
            if pattern.search(row[:MAX_ROW_CHARS]):
                return True
    return False
