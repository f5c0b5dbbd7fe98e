"""TOML files of the configuration, and where in them each key stands.

`config_reading.py` says what may be in them. tomllib reads them, and tells nobody where it found a key:
what it took is gone through once more, for line and column alone.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import ConfigError

MAX_BYTES = 1 << 20
MAX_DROP_INS = 100
Key = tuple[str, ...]
_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_NAME = re.compile(r"[A-Za-z0-9_-]+|\"(?:[^\"\\\n]|\\.)*\"|'[^'\n]*'")
_STRING = re.compile(
    r"""
    \"{3} (?: [^"\\] | \\. | "{1,2}(?!") )* "{3,5}
    | '{3} (?: [^'] | '{1,2}(?!') )* '{3,5}
    | " (?: [^"\\\n] | \\. )* "
    | ' [^'\n]* '
    """,
    re.DOTALL | re.VERBOSE,
)
_BARE = re.compile(r"[^,\]}#\n]+")
_PAIR = re.compile(r"(\s*)([^=\[\]]+)=")
_TWICE = re.compile(r"Cannot declare \((.*)\) twice")
_AT = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


@dataclass(frozen=True, slots=True)
class File:
    """One file that was read."""

    path: Path
    raw: Mapping[str, Any]
    places: Mapping[Key, tuple[int, int]]  #: line and column of each table and key, from 1

    def where(self, *key: str) -> str:
        """`path:line:column` of a key, else of the nearest thing around it."""
        for length in range(len(key), 0, -1):
            if key[:length] in self.places:
                line, column = self.places[key[:length]]
                return f"{self.path}:{line}:{column}"
        return str(self.path)


def files_of(folder: Path) -> list[Path]:
    """`config.toml`, then `conf.d/*.toml` in the order of their names; what comes later wins.

    Raises:
        ConfigError: conf.d cannot be read, or holds too much.
    """
    try:
        names = [p for p in (folder / "conf.d").iterdir() if p.suffix == ".toml"]
    except FileNotFoundError:
        names = []
    except OSError as error:
        raise ConfigError(
            f"{folder / 'conf.d'} cannot be read: {error.strerror}.",
            hint=f"It is a folder of files NAME.toml. What it is now: ls -ld {folder / 'conf.d'}",
        ) from None
    if len(names) > MAX_DROP_INS:
        raise ConfigError(
            f"{folder / 'conf.d'} holds more than {MAX_DROP_INS} files.", hint="Put some into one."
        )
    # a name that begins with a dot is an editor's
    return [folder / "config.toml", *sorted(p for p in names if not p.name.startswith("."))]


def read(path: Path) -> File | None:
    """A file; None where there is none.

    Raises:
        ConfigError: with file, line and column.
    """
    data = _bytes(path)
    if data is None:
        return None
    if len(data) > MAX_BYTES:
        raise ConfigError(
            f"{path} is longer than {MAX_BYTES} bytes.", hint="That is no configuration of ours."
        )
    try:
        # some editors begin a file with a mark of its encoding
        text = data.decode("utf-8").removeprefix("\ufeff").replace("\r\n", "\n")
        raw = tomllib.loads(text)
    except UnicodeDecodeError as error:
        line, column = _line_and_column(data[: error.start].decode("utf-8"), error.start)
        raise ConfigError(
            f"{path}:{line}:{column}: that is not UTF-8.", hint="Save the file as UTF-8."
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            _with_place(path, text, str(error)), hint="Mend that line, or remove the file."
        ) from None
    except RecursionError:
        raise ConfigError(f"{path} is nested too deeply.") from None
    return File(
        path, raw, {key: _line_and_column(text, at) for key, at in _Scan(text).keys.items()}
    )


def _bytes(path: Path) -> bytes | None:
    try:
        # a pipe that somebody put there would have us wait for its writer
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise ConfigError(f"{path} is no file.", hint=f"Look what it is: ls -ld {path}")
            return file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        if path.is_symlink():  # somebody wanted settings there, and would not get them
            raise ConfigError(
                f"{path} leads to {os.readlink(path)}, which is not there.",
                hint="Put that file back, or remove the link.",
            ) from None
        return None
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}.", hint=f"Whose it is: ls -ld {path}"
        ) from None


def _with_place(path: Path, text: str, message: str) -> str:
    match = _AT.search(message)
    if match is None:
        return f"{path}: {message}."
    found = (int(match[1]), int(match[2])) if match[1] else _line_and_column(text, len(text))
    line, column = found
    said = message[: match.start()]
    key = _PAIR.match(text.split("\n")[line - 1])
    if said == "Cannot overwrite a value" and key:
        said, column = f"{key[2].strip()} is set a second time", len(key[1]) + 1
    elif twice := _TWICE.fullmatch(said):
        names = ".".join(re.findall(r"'([^']*)'", twice[1]))
        said, column = f"[{names}] stands there a second time", 1
    elif said == "Illegal character '\\n'":
        said = "The string does not end on its line"
    return f"{path}:{line}:{column}: {said}."


def _line_and_column(text: str, at: int) -> tuple[int, int]:
    begin = text.rfind("\n", 0, at) + 1
    return text.count("\n", 0, at) + 1, min(at, len(text)) - begin + 1


class _Scan:
    """Where the keys of a text stand that is known to be TOML."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self.keys: dict[Key, int] = {}
        table: Key = ()
        while self._skip():
            if self._char() == "[":
                self._at += 2 if text.startswith("[[", self._at) else 1
                table = self._key(())
                self._at = text.index("]", self._at)
                self._at += 2 if text.startswith("]]", self._at) else 1
            else:
                self._pair(table)

    def _char(self) -> str:
        return self._text[self._at : self._at + 1]

    def _skip(self) -> str:
        """Past blanks and comments; what comes then."""
        match = _BLANK.match(self._text, self._at)
        self._at = match.end() if match else self._at
        return self._char()

    def _key(self, table: Key) -> Key:
        """A dotted key, each part of it noted where it was first seen."""
        key = table
        while True:
            self._skip()
            match = _NAME.match(self._text, self._at)
            if match is None:
                return key
            name = match[0]
            if name[0] in "\"'":
                name = str(tomllib.loads(f"x = {name}")["x"])
            key = (*key, name)
            self.keys.setdefault(key, match.start())
            self._at = match.end()
            if self._skip() != ".":
                return key
            self._at += 1

    def _pair(self, table: Key) -> None:
        key = self._key(table)
        self._at = self._text.index("=", self._at) + 1
        self._value(key)

    def _value(self, key: Key) -> None:
        begin = self._skip()
        if begin in {"[", "{"}:
            self._at += 1
            while (char := self._skip()) not in {"]", "}", ""}:
                if char == ",":
                    self._at += 1
                elif begin == "{":
                    self._pair(key)
                else:
                    self._value(key)
            self._at += 1
            return
        match = (_STRING if begin in {'"', "'"} else _BARE).match(self._text, self._at)
        self._at = match.end() if match else len(self._text)
