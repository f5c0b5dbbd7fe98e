"""Read what tickets a board declares: TOML text in, frozen records or a list of problems out.

Pure: no files, no database, no systemd; whether a repository or a unit exists is `apply`'s to look
up. One `[tickets.NAME]` table a ticket; NAME identifies it for ever, also when all else of it
changes. Every problem of every file is told at once, with file and line.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator import limits
from orchestrator.drivers import driver_named
from orchestrator.errors import InvalidInput
from orchestrator.limits import shown
from orchestrator.naming import MAX_TICKET
from orchestrator.store.tickets import MAX_PROMPT_BYTES, MAX_TITLE_CHARS

Ref = int | str  #: a ticket by number, a ticket by name, or a unit
MAX_DECLARED = 1000  # tickets of one apply
MAX_REFS = 50  # in one list
MAX_CALENDARS = 20
MAX_WORDS = 100  # of a command
MAX_SHOWN = 20  # problems; the rest is counted
STATES = ("running", "stopped")
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}", re.ASCII)
_CALENDAR = re.compile(r"[A-Za-z0-9*][A-Za-z0-9 *.,:/~+_-]{0,199}", re.ASCII)
_TICKET_UNIT = re.compile(r"ticket@([1-9][0-9]{0,8})\.service", re.ASCII)
_HEAD = re.compile(r"\s*\[\[?\s*([^\]\[#]{1,200}?)\s*\]")
_ENTRY = re.compile(r"\s*[\"']?([A-Za-z0-9_-]{1,80})[\"']?\s*=", re.ASCII)

#: keys of a ticket, with what each holds; `limits.LIMITS` stand beside them in systemd's own words
KEYS: Mapping[str, str] = {
    "title": "text",
    "prompt": "text",
    "prompt_file": "text",
    "repo": "text",
    "base": "text",
    "driver": "text",
    "command": "a list of words",
    "kind": "text",
    "state": "text",
    "after": "tickets",
    "requires": "tickets",
    "schedule": "a calendar expression or a list of them",
    "on_failure": "a unit or a ticket, or a list of them",
}
#: what [defaults] may say for all tickets of a file
DEFAULTS = ("repo", "base", "driver", "kind", "on_failure")
_LIMITS: Mapping[str, object] = {key.name: key for key in limits.LIMITS}


@dataclass(frozen=True, slots=True)
class Source:
    """A file of a board, read already."""

    path: str  #: absolute, or "-" for stdin
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """A ticket as a file wants it."""

    name: str
    source: str  #: Source.path
    where: str  #: "/home/op/board.toml:12", for sentences
    title: str
    prompt: str | None  #: None: it is in prompt_file
    prompt_file: str | None
    repo: str | None
    base: str | None
    driver: str
    command: tuple[str, ...]
    kind: str
    state: str | None  #: running, stopped; None: whatever it is
    schedule: tuple[str, ...]
    after: tuple[Ref, ...]
    requires: tuple[Ref, ...]
    on_failure: tuple[Ref, ...]
    limits: tuple[tuple[str, str], ...]  #: key and checked value


class _Place:
    """Where in a text something stands, as far as its lines tell; tomllib does not."""

    def __init__(self, source: Source) -> None:
        self.source = source
        #: for people
        self.path = "stdin" if source.path == "-" else _in_one_line(source.path)
        self._lines: dict[tuple[str, str], int] = {}
        table = ""
        for number, line in enumerate(source.text.split("\n"), 1):
            if head := _HEAD.match(line):
                table = ".".join(part.strip(" \t\"'") for part in head[1].split("."))
                self._lines.setdefault((table, ""), number)
            elif entry := _ENTRY.match(line):
                self._lines.setdefault((table, entry[1]), number)

    def of(self, table: str, key: str = "") -> str:
        """file:line of a key in a table, or of the table."""
        number = self._lines.get((table, key)) or self._lines.get((table, ""))
        return f"{self.path}:{number}" if number else self.path


def _in_one_line(path: str) -> str:
    return path if path.isprintable() else ascii(path)


def read(sources: Sequence[Source]) -> tuple[Declared, ...]:
    """What all the files declare together, in their order.

    Raises:
        InvalidInput: with everything that is wrong in them.
    """
    found: dict[str, Declared] = {}
    problems: list[InvalidInput] = []
    for source in sources:
        for item in _items(source):
            if isinstance(item, InvalidInput):
                problems.append(item)
            elif item.name in found:
                problems.append(
                    InvalidInput(
                        f"{item.where}: {item.name} is declared in {found[item.name].where} too.",
                        hint="A name stands for one ticket.",
                    )
                )
            else:
                found[item.name] = item
    refuse(problems)
    if len(found) > MAX_DECLARED:
        raise InvalidInput(f"{len(found)} tickets are more than {MAX_DECLARED} at once.")
    return tuple(found.values())


def refuse(problems: Sequence[InvalidInput]) -> None:
    """Raises what is wrong, all of it in one, when there is anything."""
    if len(problems) == 1:
        raise problems[0]
    if problems:
        lines = [f"{p.message} {p.hint}".rstrip() for p in problems[:MAX_SHOWN]]
        if len(problems) > MAX_SHOWN:
            lines.append(f"and {len(problems) - MAX_SHOWN} more")
        raise InvalidInput(
            f"{len(problems)} things cannot be used:\n  " + "\n  ".join(lines),
            hint="Nothing was changed.",
        )


def _items(source: Source) -> Iterator[Declared | InvalidInput]:
    place = _Place(source)
    try:
        raw = tomllib.loads(source.text)
    except tomllib.TOMLDecodeError as error:
        yield InvalidInput(f"{place.path}: {error}.", hint="Mend that line.")
        return
    except (RecursionError, ValueError):  # 100,000 brackets; a number of 5,000 digits
        yield InvalidInput(f"{place.path} is nothing tomllib can read.")
        return
    for name in sorted(set(raw) - {"tickets", "defaults"}):
        yield InvalidInput(
            f"{place.of(name)}: {shown(name)} is no table of a board.",
            hint=limits.did_you_mean(name, {"tickets": 0, "defaults": 0}),
        )
    defaults, tables = raw.get("defaults", {}), raw.get("tickets", {})
    if not isinstance(tables, dict) or not isinstance(defaults, dict):
        yield InvalidInput(
            f"{place.path}: tickets are tables with names.", hint="Write [tickets.NAME]."
        )
        return
    try:
        for key in defaults:
            _known(place.of("defaults", key), key, [*DEFAULTS, *_LIMITS])
    except InvalidInput as error:
        yield error
        return
    for name, table in tables.items():
        try:
            yield _ticket(place, name, table, defaults)
        except InvalidInput as error:
            yield error


def _known(where: str, key: str, known: Sequence[str]) -> None:
    if key not in known:
        raise InvalidInput(
            f"{where}: {shown(key)} is no key of a ticket.",
            hint=limits.did_you_mean(key, dict.fromkeys(known, 0)),
        )


class _Table:
    """One [tickets.NAME], on top of [defaults]."""

    def __init__(
        self, place: _Place, name: str, own: dict[str, Any], defaults: dict[str, Any]
    ) -> None:
        self.place, self.name, self.own = place, name, own
        self.where = place.of(f"tickets.{name}")
        self.values = {**defaults, **own}

    def at(self, key: str) -> str:
        """file:line of what a key says."""
        return self.place.of(f"tickets.{self.name}" if key in self.own else "defaults", key)

    def text(self, key: str) -> str | None:
        """Text; None where the key is not there, and where it is empty."""
        value = self.values.get(key)
        if value is not None and (not isinstance(value, str) or "\0" in value):
            raise InvalidInput(f"{self.at(key)}: {key} is {KEYS[key]}.", hint=f'As in {key} = "…"')
        return value or None

    def chosen(self, key: str, among: Sequence[str]) -> str | None:
        """One of some words."""
        value = self.text(key)
        if value is not None and value not in among:
            raise InvalidInput(
                f"{self.at(key)}: {shown(value)} is no {key} of a ticket.",
                hint=limits.did_you_mean(value, dict.fromkeys(among, 0)),
            )
        return value

    def several(self, key: str, one: str, most: int) -> list[Any]:
        """A list, or something that stands for a list of one."""
        value = self.values.get(key, [])
        given = value if isinstance(value, list) else [value]
        if len(given) > most:
            raise InvalidInput(f"{self.at(key)}: at most {most} {one}.")
        return given


def _ticket(place: _Place, name: str, own: object, defaults: dict[str, Any]) -> Declared:
    where = place.of(f"tickets.{name}")
    if not NAME.fullmatch(name):
        raise InvalidInput(
            f"{where}: {shown(name)} is no name for a ticket.",
            hint="A letter, then letters, digits, - and _; at most 63.",
        )
    if not isinstance(own, dict):
        raise InvalidInput(f"{where}: {name} is no table.", hint=f"Write [tickets.{name}].")
    table = _Table(place, name, own, defaults)
    for key in own:
        _known(table.at(key), key, [*KEYS, *_LIMITS])
    title = (table.text("title") or name).strip()
    if not title or len(title) > MAX_TITLE_CHARS:
        raise InvalidInput(f"{table.at('title')}: a title has 1 to {MAX_TITLE_CHARS} characters.")
    driver, command = _driver(table)
    kind, repo, base = _workplace(table)
    return Declared(
        name=name, source=place.source.path, where=where, title=title,
        prompt=_prompt(table, title), prompt_file=table.text("prompt_file"), repo=repo, base=base,
        driver=driver, command=command, kind=kind, state=table.chosen("state", STATES),
        schedule=_calendars(table), after=_refs(table, "after"), requires=_refs(table, "requires"),
        on_failure=_refs(table, "on_failure"), limits=_limits(table),
    )  # fmt: skip


def _prompt(table: _Table, title: str) -> str | None:
    if table.text("prompt_file"):
        if "prompt" in table.own:
            raise InvalidInput(f"{table.at('prompt')}: prompt or prompt_file, not both.")
        return None
    # prompt = "" is an agent that is told nothing
    prompt = (table.text("prompt") or "") if "prompt" in table.own else title
    if len(prompt.encode("utf-8", "surrogatepass")) > MAX_PROMPT_BYTES:
        raise InvalidInput(f"{table.at('prompt')}: a prompt has at most {MAX_PROMPT_BYTES} bytes.")
    return prompt


def _driver(table: _Table) -> tuple[str, tuple[str, ...]]:
    command = _words(table.at("command"), table.values.get("command", []))
    driver = table.text("driver") if "driver" in table.own or not command else None
    driver = driver or ("command" if command else "claude")
    try:
        driver_named(driver)
    except InvalidInput as error:
        raise InvalidInput(f"{table.at('driver')}: {error.message}", hint=error.hint) from None
    if bool(command) != (driver == "command"):
        raise InvalidInput(
            f"{table.at('command' if command else 'driver')}: "
            + (f"the {driver} driver takes no command." if command else "which command?"),
            hint='driver = "command" and command = ["program", "argument"] go together.',
        )
    return driver, command


def _workplace(table: _Table) -> tuple[str, str | None, str | None]:
    """Kind, repository and base."""
    repo, base = table.text("repo"), table.text("base")
    kind = table.chosen("kind", ("code", "chat")) or ("code" if repo else "chat")
    if kind == "code":
        if repo is None:
            raise InvalidInput(f"{table.at('kind')}: a code ticket needs a repo.")
        return kind, repo, base
    for key in ("repo", "base"):
        if table.own.get(key):
            raise InvalidInput(f"{table.at(key)}: a chat ticket has no {key}.")
    return kind, None, None


def _limits(table: _Table) -> tuple[tuple[str, str], ...]:
    found = []
    for key in limits.LIMITS:
        if key.name in table.values:
            try:
                found.append((key.name, limits.checked(key, table.values[key.name])))
            except InvalidInput as error:
                raise InvalidInput(
                    f"{table.at(key.name)}: {error.message}", hint=error.hint
                ) from None
    return tuple(found)


def _words(where: str, value: object) -> tuple[str, ...]:
    words = value if isinstance(value, list) else [value]
    if not isinstance(value, list) or not all(isinstance(w, str) and "\0" not in w for w in words):
        raise InvalidInput(f"{where}: a command is a list of words.", hint='As in ["make", "test"]')
    if len(words) > MAX_WORDS or (words and not words[0]):
        raise InvalidInput(f"{where}: a command is a program and up to {MAX_WORDS - 1} words.")
    return tuple(words)


def _calendars(table: _Table) -> tuple[str, ...]:
    given = table.several("schedule", "calendar expressions", MAX_CALENDARS)
    for one in given:
        if not isinstance(one, str) or not _CALENDAR.fullmatch(one):
            raise InvalidInput(
                f"{table.at('schedule')}: {shown(one)} is no calendar expression.",
                hint='As in "Mon..Fri 07:00"; try it: systemd-analyze calendar …',
            )
    return tuple(dict.fromkeys(" ".join(one.split()) for one in given))


def _refs(table: _Table, key: str) -> tuple[Ref, ...]:
    found: list[Ref] = []
    for one in table.several(key, "tickets and units", MAX_REFS):
        ref = ref_of(one)
        if ref is None:
            raise InvalidInput(
                f"{table.at(key)}: {shown(one)} is no ticket and no unit.",
                hint=f'As in {key} = ["build", 41, "some.service"]',
            )
        if ref != table.name:
            found.append(ref)
        elif key in table.own:  # in [defaults] it is meant for the others
            raise InvalidInput(f"{table.at(key)}: {key} names the ticket itself.")
    return tuple(dict.fromkeys(found))


def ref_of(value: object) -> Ref | None:
    """A ticket's number, its name, or a unit's name; None for anything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value if 1 <= value <= MAX_TICKET else None
    if not isinstance(value, str):
        return None
    if value.startswith("ticket@"):  # the same ticket, in systemd's words
        match = _TICKET_UNIT.fullmatch(value)
        return int(match[1]) if match else None
    return value if NAME.fullmatch(value) or limits.is_unit(value) else None
