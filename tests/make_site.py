"""`make docs-site`: the documents as a site, in build/site.

Pages link to files outside of docs/ (SECURITY.md, contrib/, the figures), which mkdocs would not have: so what
is documentation is laid out as it lies in the repository, and built from there, strictly: a link or an anchor
that leads nowhere fails. Nothing is fetched from anywhere.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
from pathlib import Path

from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("docs", "contrib", "examples", "benchmarks/results")
FILES = ("LICENSE", "benchmarks/goals.py")


def lay_out(source: Path) -> None:
    """The documents and what they link to, at the places they have in the repository."""
    shutil.rmtree(source, ignore_errors=True)
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, source / folder)
    for file in (*FILES, *(p.name for p in ROOT.glob("*.md"))):
        (source / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / file, source / file)


def build_site(source: Path, site: Path) -> list[str]:
    """Builds it and returns what is wrong with it, a line each."""
    lay_out(source)
    said = _Kept()
    logger = logging.getLogger("mkdocs")
    logger.addHandler(said)
    try:
        loaded = load_config(
            str(ROOT / "mkdocs.yml"), docs_dir=str(source), site_dir=str(site), strict=True
        )
        build(loaded)
    except Abort as error:
        said.lines.append(str(error))
    finally:
        logger.removeHandler(said)
    return said.lines


class _Kept(logging.Handler):
    """Warnings, kept."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one."""
        self.lines.append(record.getMessage())


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser("tests.make_site", description="The documents as a site.")
    parser.add_argument("site", nargs="?", type=Path, default=ROOT / "build/site")
    site = parser.parse_args().site.resolve()
    wrong = build_site(site.parent / "site-source", site)
    print(
        "\n".join(wrong) or f"The site is in {site}: open index.html",
        file=sys.stderr if wrong else None,
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
