"""`[drivers.NAME]` tables: an agent that config.toml alone describes.

Read here into frozen records, with the shape checked; whether templates and patterns can be used,
`drivers/table.py` says when a ticket is made or started, so that one bad table stops nobody else.
docs/drivers.md has each key with an example.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any

from orchestrator.errors import ConfigError

#: what is in the code already; a table cannot take such a name
BUILT_IN = ("claude", "claude_stream", "command", "demo", "oneshot")
MAX_TABLES = 50
MAX_WORDS = 100  # of a list in a table
MAX_WORD_CHARS = 2000
Where = Callable[..., str]  #: of the parts of a key
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverTable:
    """`[drivers.NAME]`: an agent that is not built in.

    `command`, `first`, `resume`, `prompt` and `conversation` are jinja2 templates.
    """

    name: str
    command: tuple[str, ...]  #: program and arguments, a template each; no shell
    first: tuple[str, ...] = ()  #: arguments added when a conversation begins
    resume: tuple[str, ...] = ()  #: arguments added when it goes on
    prompt: tuple[
        str, ...
    ] = ()  #: the last arguments of a beginning, where the ticket has a prompt
    conversation: str = (
        ""  #: a file that holds something once there is a conversation to go on with
    )
    ready: tuple[str, ...]  #: patterns; one is on the screen when the agent takes a message
    busy: tuple[str, ...]  #: patterns; one is on the screen while it works
    waiting: tuple[str, ...] = ()  #: patterns; one is on the screen while it asks for leave
    box: str = ""  #: what the row of the input box begins with; empty: it is not looked into
    commands: str = ""  #: characters that make a message a command when it begins with one
    multiline: bool = True  #: it takes several lines in one paste
    writable: tuple[str, ...] = ()  #: what the agent writes beside its work, when it is isolated
    interrupt: str = "escape"  #: the key that breaks off a turn: escape or ctrl-c


def tables_from(where: Where, raw: Mapping[str, Any]) -> dict[str, DriverTable]:
    """The `drivers` tables of the configuration.

    Args:
        where: the place of a key and its name, for the sentence of an error.
        raw: by name; what is in each is checked here.

    Raises:
        ConfigError: with file, key and what to write instead.
    """
    if len(raw) > MAX_TABLES:
        raise ConfigError(f"{where('drivers')}: more than {MAX_TABLES} tables in [drivers].")
    return {name: _table(where, name, value) for name, value in raw.items()}


def _table(place: Where, name: str, raw: object) -> DriverTable:
    where = place("drivers", name)
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{where}: that is no name of a driver.",
            hint="A small letter, then small letters, digits, _ and -; at most 32.",
        )
    if name in BUILT_IN:
        raise ConfigError(f"{where}: there is a driver {name} already.", hint="Take another name.")
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{where} is a table.", hint=f"Write [drivers.{name}].")
    known = {f.name: f for f in fields(DriverTable) if f.name != "name"}
    for key in sorted(raw):
        refuse_unknown(place("drivers", name, key), f"key of [drivers.{name}]", {key}, set(known))
    values: dict[str, Any] = {}
    for key, spec in known.items():
        if key in raw:
            values[key] = _value(place("drivers", name, key), raw[key], spec.type)
        elif spec.default is MISSING:
            raise ConfigError(f"{where}.{key} is missing.", hint="docs/drivers.md has an example.")
    table = DriverTable(name=name, **values)
    _check(where, table)
    return table


def _value(where: str, value: object, kind: object) -> object:
    if kind == "tuple[str, ...]":
        if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
            raise ConfigError(f"{where} is a list of strings.")
        if len(value) > MAX_WORDS or any(len(word) > MAX_WORD_CHARS for word in value):
            raise ConfigError(f"{where} is longer than {MAX_WORDS} times {MAX_WORD_CHARS}.")
        return tuple(value)
    if kind == "bool":
        if not isinstance(value, bool):
            raise ConfigError(f"{where} is true or false.")
        return value
    if not isinstance(value, str) or len(value) > MAX_WORD_CHARS:
        raise ConfigError(f"{where} is a string of at most {MAX_WORD_CHARS} characters.")
    return value


def _check(where: str, table: DriverTable) -> None:
    if not table.command or not table.command[0].strip():
        raise ConfigError(f"{where}.command names no program.", hint='Write ["program", "--flag"].')
    for key, patterns in (("ready", table.ready), ("busy", table.busy)):
        if not patterns:
            raise ConfigError(
                f"{where}.{key} is empty: nobody could tell when to send a message.",
                hint="Give a pattern that is on the agent's screen then.",
            )
    for path in table.writable:
        if not path.startswith(("/", "~/")) or ".." in path.split("/"):
            raise ConfigError(
                f"{where}.writable: {path!r} is no absolute path.", hint='Write ["~/.codex"].'
            )
    if table.interrupt not in {"escape", "ctrl-c"}:
        raise ConfigError(f"{where}.interrupt is escape or ctrl-c.")
    if table.box != table.box.strip() or "\n" in table.box:
        raise ConfigError(f"{where}.box is a mark without blanks around it, as in '>'.")


def refuse_unknown(where: object, what: str, given: set[str], known: set[str]) -> None:
    """Raises ConfigError for a name that is not known, with the one that may be meant."""
    for name in sorted(given - known):
        import difflib  # noqa: PLC0415  # for a mistake alone: ticketctl list has to be quick

        near = difflib.get_close_matches(name, known, n=1)
        meant = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(sorted(known))}."
        raise ConfigError(f"{where}: {name!r} is no {what}.", hint=meant)
