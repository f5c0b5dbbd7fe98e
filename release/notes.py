"""`make release-notes VERSION=0.2.0`: what CHANGELOG.md says of a version, as a release page wants it.

A line break within a paragraph is shown as one on such pages, so each entry becomes one line.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

CHANGELOG = Path(__file__).resolve().parents[1] / "CHANGELOG.md"
_HEADING = re.compile(r"## \[?([^\]\s]+)\]?(?: - [0-9]{4}-[0-9]{2}-[0-9]{2})?", re.ASCII)
_BEGINS = ("- ", "#", "* ", "|", ">", "```")  #: a line of its own, whatever stands before it


class NoNotesError(Exception):
    """CHANGELOG.md has no notes for that version."""


def notes(changelog: str, version: str) -> str:
    """The part of a version, without its heading.

    Args:
        changelog: in the manner of Keep a Changelog: `## 0.2.0 - 2026-12-01`, newest first.
        version: as in the heading, or as in the tag, with a v before it.

    Raises:
        NoNotesError: there is none, an empty one, or two.
    """
    wanted = re.sub(r"\Av(?=[0-9])", "", version.strip())
    parts: dict[str, list[str]] = {}
    current: list[str] = []
    for line in changelog.splitlines():
        if line.startswith("## "):
            heading = _HEADING.fullmatch(line.rstrip())
            if heading is None:
                raise NoNotesError(
                    f"A heading of the changelog names no version, or no day: {line!r}."
                )
            current = []
            if parts.setdefault(heading[1].lower(), current) is not current:
                raise NoNotesError(f"The changelog has two parts for {heading[1]}.")
        else:
            current.append(line)
    found = parts.get(wanted.lower())
    if found is None:
        there = ", ".join(parts) or "none"
        raise NoNotesError(
            f"The changelog has no part for {version!r} (there are: {there})."
            f" A release begins with its heading: ## {wanted} - and the day, below ## Unreleased."
        )
    text = _unwrapped(found).strip()
    if not any(line and not line.startswith("#") for line in text.splitlines()):
        raise NoNotesError(f"The changelog says nothing of {version}.")
    return text + "\n"


def _unwrapped(lines: list[str]) -> str:
    """One line an entry and a paragraph; what is fenced stays as it is."""
    out: list[str] = []
    fenced = False
    for line in lines:
        fence = line.lstrip().startswith("```")
        begins = not line.strip() or line.lstrip().startswith(_BEGINS)
        goes_on = bool(out) and bool(out[-1].strip()) and not out[-1].lstrip().startswith("#")
        if fenced or begins or not goes_on:
            out.append(line.rstrip())
        else:
            out[-1] = f"{out[-1]} {line.strip()}"
        fenced ^= fence
    return "\n".join(out)


def main() -> None:
    """Prints the notes of the version that is named, alone."""
    if len(sys.argv) != 2 or not sys.argv[1].strip():
        sys.exit("usage: make release-notes VERSION=0.2.0 (or Unreleased)")
    try:
        print(notes(CHANGELOG.read_text(encoding="utf-8"), sys.argv[1]), end="")
    except NoNotesError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
