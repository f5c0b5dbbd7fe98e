"""What the code says of its configuration: each key, its default and its line, for the manuals.

The line of a key is its `#:` comment in config_tables.py or driver_tables.py, so that it stands in one place.
Out of scope: what is in force on a machine (`config.resolve`).
"""

from __future__ import annotations

import ast
import inspect
import io
import textwrap
import tokenize
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields

from orchestrator.config_reading import as_toml
from orchestrator.config_tables import TABLES
from orchestrator.driver_tables import DriverTable


@dataclass(frozen=True, slots=True)
class Key:
    """A key of the configuration."""

    table: str  #: without brackets; drivers.NAME for those
    name: str
    default: str  #: as in TOML; empty: it has to be given
    text: str  #: one line

    @property
    def variable(self) -> str:
        """Its name in the environment; empty: it has none."""
        return "" if self.table == "drivers.NAME" else f"MC_{self.table}_{self.name}".upper()

    @property
    def row(self) -> str:
        """Its row in docs/configuration.md."""
        default = f"`{self.default}`" if self.default else "to be given"
        return f"| `{self.name}` | {default} | {self.text} |"


def all_keys() -> list[Key]:
    """All of them, in the order of the code."""
    found = [key for name, kind in TABLES.items() for key in _keys_of(name, kind)]
    return [*found, *(key for key in _keys_of("drivers.NAME", DriverTable) if key.name != "name")]


def summary_of(table: str) -> str:
    """What a table is about: the first line of its record, without the name."""
    kind = DriverTable if table == "drivers.NAME" else TABLES[table]
    return (inspect.getdoc(kind) or "").partition("\n")[0].partition("`: ")[2]


def _keys_of(table: str, kind: type) -> Iterator[Key]:
    texts = comments(kind)
    for spec in fields(kind):
        default = "" if spec.default is MISSING else as_toml(spec.default)
        yield Key(table, spec.name, default, texts.get(spec.name, ""))


def comments(kind: type) -> dict[str, str]:
    """What the `#:` comments of a record say of its fields, by field; only of those that have one."""
    source = textwrap.dedent(inspect.getsource(kind))
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    said = {
        token.start[0]: (token.string[2:].strip(), token.line.lstrip().startswith("#:"))
        for token in tokens
        if token.type == tokenize.COMMENT and token.string.startswith("#:")
    }
    found = {}
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        within = range(node.lineno, (node.end_lineno or node.lineno) + 1)
        lines = [said[number][0] for number in within if number in said]
        above = node.lineno - 1
        while above in said and said[above][1]:  # a comment of its own, not another key's
            lines.insert(0, said[above][0])
            above -= 1
        found[node.target.id] = " ".join(lines)
    return found
