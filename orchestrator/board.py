"""Read the files of a board, and look up everything they name.

Between the file system and `declare`, which is pure: which files, what is in a prompt file, whether
a repository, a unit, a ticket and a calendar expression exist. Nothing is changed here.
"""

from __future__ import annotations

import dataclasses
import os
import stat
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator import declare, limits
from orchestrator.declare import Declared, Ref, Source
from orchestrator.errors import InvalidInput, NoSuchTicket, Unavailable
from orchestrator.store import tickets
from orchestrator.store.db import Database
from orchestrator.store.tickets import MAX_PROMPT_BYTES
from orchestrator.systemd import UserManager
from orchestrator.worktree import commit_of, find_repository

MAX_BOARD_BYTES = 1_000_000  # of one file
MAX_FILES = 1000  # of a folder
CALENDAR_TIMEOUT_S = 10


@dataclass(frozen=True, slots=True)
class Board:
    """What was asked for, looked up and found good."""

    items: tuple[Declared, ...]
    scopes: tuple[str, ...]  #: the files and folders given; "-" for stdin


def read_sources(given: Sequence[str], stdin: Callable[[], bytes]) -> list[Source]:
    """The text of files, of the *.toml in folders, and of stdin for `-`.

    Raises:
        InvalidInput: one of them cannot be read.
    """
    sources: list[Source] = []
    for path in dict.fromkeys(given):
        if path == "-":
            sources.append(_source("-", stdin()))
            continue
        whole = Path(os.path.abspath(Path(path).expanduser()))
        files = [whole]
        if whole.is_dir():
            files = sorted(p for p in whole.glob("*.toml") if not p.name.startswith("."))
            if not files:
                raise InvalidInput(f"{whole} holds no *.toml.")
            if len(files) > MAX_FILES:
                raise InvalidInput(f"{whole} holds more than {MAX_FILES} files.")
        sources += [_source(str(p), _content(p, MAX_BOARD_BYTES)) for p in files]
    return sources


def _source(path: str, data: bytes) -> Source:
    shown = limits.shown(path)
    if len(data) > MAX_BOARD_BYTES:
        raise InvalidInput(f"{shown} has more than {MAX_BOARD_BYTES} bytes.")
    try:
        return Source(path, data.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InvalidInput(f"{shown} is not UTF-8 in line {line}.") from None


def _content(path: Path, most: int) -> bytes:
    """A plain file's bytes, one more than `most` at the most."""
    try:
        # a FIFO would be waited for
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise InvalidInput(f"{path} is no plain file.")
            return file.read(most + 1)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "that is no path"
        raise InvalidInput(f"{limits.shown(str(path))} cannot be read: {why}.") from None


def look_up(
    database: Database, manager: UserManager, sources: Sequence[Source], scopes: Sequence[str]
) -> Board:
    """What the sources declare, once everything they name was found.

    Raises:
        InvalidInput: with everything that is wrong.
    """
    declared = declare.read(sources)
    known = {t.name: t for t in tickets.named(database) if t.name}
    names = [*(item.name for item in declared), *known]
    problems: list[InvalidInput] = []
    items: list[Declared] = []
    for item in declared:
        try:
            for calendar in item.schedule:
                check_calendar(calendar)
            for ref in (*item.after, *item.requires, *item.on_failure):
                check_ref(database, manager, ref, names)
            items.append(dataclasses.replace(item, prompt=_prompt(item), repo=_repository(item)))
        except InvalidInput as error:
            problems.append(InvalidInput(f"{item.where}: {error.message}", hint=error.hint))
    declare.refuse(problems)
    absolute = [s if s == "-" else os.path.abspath(Path(s).expanduser()) for s in scopes]
    return Board(tuple(items), tuple(absolute))


def check_calendar(calendar: str) -> None:
    """Asks systemd whether it understands a calendar expression.

    Raises:
        InvalidInput: it does not.
        Unavailable: nobody can be asked.
    """
    try:
        done = subprocess.run(
            ["systemd-analyze", "calendar", "--", calendar],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=CALENDAR_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"systemd-analyze does not answer: {error}.") from None
    if done.returncode:
        raise InvalidInput(
            f"{limits.shown(calendar)} is no calendar expression.",
            hint="man systemd.time; try it: systemd-analyze calendar …",
        )


def check_ref(database: Database, manager: UserManager, ref: Ref, names: Sequence[str]) -> None:
    """Looks whether a ticket or unit exists.

    Raises:
        InvalidInput: it does not.
    """
    if isinstance(ref, int):
        try:
            tickets.get(database, ref)
        except NoSuchTicket as error:
            raise InvalidInput(error.message, hint=error.hint) from None
    elif limits.is_unit(ref):
        unit = limits.unit_named(ref, 1)
        if manager.unit(unit).load != "loaded":
            raise InvalidInput(f"There is no unit {ref}.", hint=f"systemctl --user status {unit}")
    elif ref not in names:
        hint = limits.did_you_mean(ref, dict.fromkeys(names[:20], 0)) if names else ""
        raise InvalidInput(f"There is no ticket {ref!r}.", hint=hint)


def _folder(item: Declared) -> Path:
    return Path.cwd() if item.source == "-" else Path(item.source).parent


def _prompt(item: Declared) -> str:
    if item.prompt_file is None:
        return item.prompt or ""
    path = _path(item, item.prompt_file)
    data = _content(path, MAX_PROMPT_BYTES)
    if len(data) > MAX_PROMPT_BYTES:
        raise InvalidInput(f"{path} is longer than a prompt's {MAX_PROMPT_BYTES} bytes.")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidInput(f"{path} is not UTF-8 text.") from None
    if "\0" in text:
        raise InvalidInput(f"{path} holds a NUL character.")
    return text


def _repository(item: Declared) -> str | None:
    if item.repo is None:
        return None
    try:
        top = find_repository(_path(item, item.repo))
    except OSError as error:
        raise InvalidInput(f"{item.repo!r:.80} cannot be used: {error.strerror}.") from None
    commit_of(top, item.base or "HEAD")
    return str(top)


def _path(item: Declared, text: str) -> Path:
    """A path of a file, from where the file is."""
    try:
        return Path(os.path.abspath(_folder(item) / Path(text).expanduser()))
    except RuntimeError:  # ~somebody who is not there
        raise InvalidInput(f"{text!r:.80} is no path.") from None
