"""Files and environment, laid over one another: values of the right type, and who said each.

Between `config_file.py`, which reads one file, and `config.resolve()`. A mistake is kept with its place,
and the key has its default. Out of scope: what a value of the right type may be (`config_checks.py`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from orchestrator import config_file
from orchestrator.config_tables import TABLES
from orchestrator.driver_tables import refuse_unknown
from orchestrator.errors import ConfigError

T = TypeVar("T")


class Reading:
    """What was read up to now: later files and the environment lay theirs over it."""

    def __init__(self) -> None:
        self.values: dict[str, dict[str, Any]] = {name: {} for name in TABLES}
        self.sources: dict[tuple[str, ...], str] = {}
        self.drivers: dict[str, Any] = {}
        self.files: list[Path] = []
        self.problems: list[ConfigError] = []
        self.notes: list[str] = []

    def guarded(self, act: Callable[[], T]) -> T | None:
        """What `act` returns; a mistake is noted, and said with its place."""
        try:
            return act()
        except ConfigError as error:
            self.problems.append(placed(error, self.sources))
        return None

    def where(self, *key: str) -> str:
        """The place of a key of [drivers] that was taken, with its name."""
        places = (self.sources.get(key[:length]) for length in range(len(key), 0, -1))
        place = next((p for p in places if p), "")
        return f"{place}: {'.'.join(key)}" if place else ".".join(key)

    def take(self, path: Path) -> None:
        """Lays a file over what was read before; what is wrong in it is left out.

        Raises:
            ConfigError: nothing of it can be read.
        """
        file = config_file.read(path)
        if file is None:
            return
        self.files.append(file.path)
        for name, raw in file.raw.items():
            where = file.where(name)
            homes = [t for t, kind in TABLES.items() if name in {f.name for f in fields(kind)}]
            if homes and not isinstance(raw, Mapping):
                hint = f"Put it below {' or '.join(f'[{t}]' for t in homes)}."
                self.problems.append(ConfigError(f"{where}: {name} stands in no table.", hint=hint))
            elif not self._is_known(where, "table", name, {*TABLES, "drivers"}):
                continue
            elif not isinstance(raw, Mapping):
                hint = "Write [drivers.NAME]." if name == "drivers" else f"Write [{name}]."
                self.problems.append(ConfigError(f"{where}: {name} is a table.", hint=hint))
            elif name == "drivers":
                self._take_drivers(file, raw)
            else:
                self._take_table(file, name, raw)

    def _take_table(self, file: config_file.File, name: str, raw: Mapping[str, Any]) -> None:
        known = {f.name for f in fields(TABLES[name])}
        for key, value in raw.items():
            where = file.where(name, key)
            if self._is_known(where, f"key of [{name}]", key, known):
                self._take_value(name, key, value, where, f"{where}: {name}.{key}")

    def _is_known(self, where: str, what: str, name: str, known: set[str]) -> bool:
        self.guarded(partial(refuse_unknown, where, what, {name}, known))
        return name in known

    def _take_drivers(self, file: config_file.File, raw: Mapping[str, Any]) -> None:
        for key in file.places:
            if key[0] == "drivers":
                self.sources[key] = file.where(*key)
        for name, table in raw.items():
            there = self.drivers.get(name)
            both = isinstance(table, Mapping) and isinstance(there, Mapping)
            self.drivers[name] = {**(there or {}), **table} if both else table

    def take_environment(self, env: Mapping[str, str]) -> None:
        """Lays `MC_<TABLE>_<KEY>` over the files."""
        known = {
            f"MC_{name}_{spec.name}".upper(): (name, spec.name, spec.default)
            for name, kind in TABLES.items() for spec in fields(kind)
        }  # fmt: skip
        for variable in sorted(known.keys() & env.keys()):
            name, key, default = known[variable]
            value = _from_text(env[variable], default)
            self._take_value(name, key, value, f"${variable}", f"${variable}")
        tables = tuple(f"MC_{name}_".upper() for name in TABLES)
        for variable in sorted(env.keys() - known.keys()):
            if variable.startswith(tables):
                import difflib  # noqa: PLC0415  # for a mistake alone: ticketctl list has to be quick

                near = difflib.get_close_matches(variable, known, n=1)
                meant = f" Did you mean ${near[0]}?" if near else ""
                self.notes.append(f"${variable} is no key, and does nothing.{meant}")

    def _take_value(self, table: str, key: str, value: object, source: str, where: str) -> None:
        default = next(f.default for f in fields(TABLES[table]) if f.name == key)
        said = f"{value!r:.60}"
        if isinstance(default, tuple):
            if not isinstance(value, list | tuple) or not all(isinstance(v, str) for v in value):
                hint = f'Write {key} = ["…"].'
                self.problems.append(ConfigError(f"{where} is a list of strings.", hint=hint))
                return
            value = tuple(value)
        elif type(value) is not type(default):
            what = f"{where} is {_ARTICLE[type(default)]}, as in {as_toml(default)}."
            self.problems.append(ConfigError(what, hint=f"It says {said}, of another type."))
            return
        self.values[table][key] = value
        self.sources[(table, key)] = source


def placed(error: ConfigError, sources: Mapping[tuple[str, ...], str]) -> ConfigError:
    """The sentence of a check begins with its key: the key's place goes before it."""
    key = tuple(error.message.partition(" ")[0].rstrip(":").split("."))
    place = f"{sources[key]}: " if key in sources else ""
    return ConfigError(place + error.message, hint=error.hint)


def as_toml(value: object) -> str:
    """A default as it would be written."""
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value, ensure_ascii=False)


_ARTICLE = {str: "a string", int: "a whole number", bool: "true or false"}


def _from_text(text: str, default: object) -> object:
    if isinstance(default, bool):
        return {"1": True, "true": True, "0": False, "false": False}.get(text.lower(), text)
    if isinstance(default, int):
        return int(text) if text.isascii() and text.isdigit() else text
    if isinstance(default, tuple):
        return text.split()
    return text
