"""`make docs`: writes the parts of docs/ that are made of the code."""

from __future__ import annotations

from pathlib import Path

from orchestrator import manual
from orchestrator.cli import main

DOCS = Path(__file__).resolve().parents[1] / "docs"

if __name__ == "__main__":
    for name, part in (
        ("cli.md", manual.cli_markdown(main)),
        ("configuration.md", manual.toml_markdown()),
    ):
        text = (DOCS / name).read_text(encoding="utf-8")
        (DOCS / name).write_text(manual.replaced(text, part), encoding="utf-8")
