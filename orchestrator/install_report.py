"""How setup tells what it does: one line a step, done already or done now.

Beneath every part of setup. Nothing here knows what Mission Control consists of.
"""

from __future__ import annotations

import filecmp
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import click

from orchestrator import progress


class Report:
    """One line a step, and the sum of what changed."""

    def __init__(self, *, dry_run: bool) -> None:
        self.dry_run = dry_run
        self.changed = 0

    def step(self, what: str, act: Callable[[], object] | None) -> None:
        """Does `act` and says so; None: it was done already."""
        if act is None:
            click.echo(f"  {click.style('·', fg='green')} {what}")
            return
        self.changed += 1
        if self.dry_run:
            click.echo(f"  {click.style('+', fg='yellow')} {what}: would be done")
            return
        begun = time.monotonic()
        with progress.shown(f"  {what}"):
            act()
        click.echo(f"  {click.style('✓', fg='green')} {what} ({time.monotonic() - begun:.1f} s)")


def copy_files(report: Report, what: str, wanted: dict[Path, Path]) -> bool:
    """Copies files byte for byte where they differ, target to source; whether any did."""
    stale = [
        (target, source)
        for target, source in wanted.items()
        if not (target.is_file() and filecmp.cmp(source, target, shallow=False))
    ]

    def copy() -> None:
        for target, source in stale:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)

    report.step(what, copy if stale else None)
    return bool(stale)


def write_texts(report: Report, what: str, wanted: Mapping[Path, str]) -> None:
    """Writes texts where they differ."""
    stale = {path: text.encode() for path, text in wanted.items() if content(path) != text.encode()}

    def write() -> None:
        for path, text in stale.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text)

    report.step(what, write if stale else None)


def content(path: Path) -> bytes:
    """What a file holds; nothing where there is none."""
    return path.read_bytes() if path.exists() else b""
