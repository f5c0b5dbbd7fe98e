"""`make docs`: writes the parts of docs/ that are made of the code."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

from orchestrator import config, manual, reference
from orchestrator.cli import main
from orchestrator.cli_top import Line
from orchestrator.diff import Diff
from orchestrator.diff_text import FileChange
from orchestrator.doctor_machine import Check
from orchestrator.finish import Merged
from orchestrator.gc import Candidate
from orchestrator.permits import Request
from orchestrator.store.archives import Archive
from orchestrator.store.events import StoredEvent
from orchestrator.store.messages import Message
from orchestrator.store.tickets import Ticket
from webgate import app
from webgate.base import Shared

DOCS = Path(__file__).resolve().parents[1] / "docs"


def routes_markdown() -> str:
    """Every route of the gateway with what its code says of it."""
    nothing = cast("Any", None)
    lines = [manual.BEGIN, "| route | |", "| --- | --- |"]
    for route in app.routes_of(
        Shared(config.Config(), nothing, nothing, nothing, nothing, nothing)
    ):
        says = re.sub(r"^`GET [^`]*`[:;,] ", "", " ".join((route.call.__doc__ or "").split()))
        says = (says[:1].upper() + says[1:]).replace("|", "\\|")
        path = re.sub(r"<(\w+)(:\w+)?>", r"{\1}", route.rule)
        lines.append(f"| `{route.method} {path}` | {says} |")
    return "\n".join([*lines, manual.END])


OBJECTS: dict[str, tuple[type, str]] = {
    "ticket": (Ticket, "`list`, `new`; `show` and `status` have it with more beside it"),
    "message": (Message, "`queue`, `send`"),
    "event": (StoredEvent, "`events`"),
    "request": (Request, "`permit` without an answer, and `asks` of `status`"),
    "line of top": (Line, "`top`"),
    "candidate": (Candidate, "`gc`"),
    "archive": (Archive, "`archive`"),
    "check": (Check, "`doctor`"),
    "merged": (Merged, "`merge`"),
    "diff": (Diff, "`diff`"),
    "file of a diff": (FileChange, "`files` of `diff`"),
}
_JSON_TYPES = {
    "str": "string", "int": "whole number", "float": "number", "Decimal": "number", "bool": "true or false",
    "datetime": "time", "Path": "string", "None": "null",
}  # fmt: skip


def json_type(annotation: str) -> str:
    """What JSON has for it."""
    parts = [part.strip() for part in annotation.split("|")]
    return " or ".join(
        _JSON_TYPES.get(part) or ("object" if part.startswith(("Mapping", "dict")) else "array")
        for part in parts
    )


def json_markdown() -> str:
    """Every key of what --json prints, with what the code says of it."""
    lines = [manual.BEGIN]
    for name, (kind, where) in OBJECTS.items():
        says = reference.comments(kind)
        lines += [
            "",
            f"### {name.capitalize()}",
            "",
            f"Of {where}.",
            "",
            "| key | type | |",
            "| --- | --- | --- |",
        ]
        for spec in fields(kind):
            said = re.sub(r"\bNone\b", "null", says.get(spec.name, "")).replace("|", "\\|")
            lines.append(f"| `{spec.name}` | {json_type(str(spec.type))} | {said} |")
    return "\n".join([*lines, "", manual.END])


def made() -> dict[str, str]:
    """The part of each page that has one."""
    return {
        "cli.md": manual.cli_markdown(main),
        "configuration.md": manual.toml_markdown(),
        "api.md": routes_markdown(),
        "json.md": json_markdown(),
    }


if __name__ == "__main__":
    for name, part in made().items():
        text = (DOCS / name).read_text(encoding="utf-8")
        (DOCS / name).write_text(manual.replaced(text, part), encoding="utf-8")
