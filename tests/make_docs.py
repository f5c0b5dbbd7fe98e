"""`make docs`: writes the parts of docs/ that are made of the code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

from orchestrator import config, manual
from orchestrator.cli import main
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


def made() -> dict[str, str]:
    """The part of each page that has one."""
    return {
        "cli.md": manual.cli_markdown(main),
        "configuration.md": manual.toml_markdown(),
        "api.md": routes_markdown(),
    }


if __name__ == "__main__":
    for name, part in made().items():
        text = (DOCS / name).read_text(encoding="utf-8")
        (DOCS / name).write_text(manual.replaced(text, part), encoding="utf-8")
