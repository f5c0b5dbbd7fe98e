"""What each drill came to, for the table in benchmarks/results/faults.md.

A test marked `@pytest.mark.fault(7)` drills row 7 of docs/faults.md; through the fixture `drill` it
says how often it tried, what was lost or doubled, and how long the way back took. With MC_FAULTS_DIR
set each one leaves a line there (one file a process), which `python3 -m tests.faults` makes into the
table. A drill that fails is in the table as failed.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

FOLDER = "MC_FAULTS_DIR"


@dataclass(slots=True)
class Drill:
    """What one test tells of its row."""

    tried: int = 0  #: how often the fault was brought about
    lost: int = 0  #: lines, bytes, messages or tickets that should be there and are not
    doubled: int = 0  #: those that are there twice
    seconds: list[float] = field(default_factory=list)  #: until all was as before, each time
    note: str = ""

    @contextmanager
    def recovery(self) -> Iterator[None]:
        """One try: from the fault, at the beginning of the block, until all is as before."""
        begun = time.monotonic()
        yield
        self.tried += 1
        self.seconds.append(time.monotonic() - begun)


_DRILLS = pytest.StashKey[Drill]()


def pytest_configure(config: pytest.Config) -> None:
    """The marker."""
    config.addinivalue_line("markers", "fault(row, …): drills rows of docs/faults.md")


@pytest.fixture
def drill(request: pytest.FixtureRequest) -> Drill:
    """Of this test."""
    return request.node.stash.setdefault(_DRILLS, Drill())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Leaves the line, once the test itself is over."""
    report = yield
    folder, marker = os.environ.get(FOLDER), item.get_closest_marker("fault")
    skipped = report.when == "setup" and report.skipped
    if folder and marker is not None and (report.when == "call" or skipped):
        told = item.stash.get(_DRILLS, Drill())
        line = {
            "rows": list(marker.args), "test": item.nodeid, "outcome": report.outcome,
            "tried": told.tried or 1, "lost": told.lost, "doubled": told.doubled,
            "seconds": told.seconds, "note": told.note or (skipped and str(report.longrepr)) or "",
        }  # fmt: skip
        with (Path(folder) / f"{os.getpid()}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    return report
