"""`make docs`: writes the part of docs/cli.md that is made of the commands."""

from __future__ import annotations

from pathlib import Path

from orchestrator import manual
from orchestrator.cli import main

PAGE = Path(__file__).resolve().parents[1] / "docs/cli.md"

if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(manual.replaced(text, manual.cli_markdown(main)), encoding="utf-8")
