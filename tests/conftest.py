"""What all tests share: the machines' fixtures, and the repository on the import path."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

pytest_plugins = ["tests.machine.fixtures", "tests.faults.record"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what failed before the tests began, that nobody overlooks it: `tests/run` fails by it."""
    if failed := os.environ.get("MC_LINT_FAILED"):
        terminalreporter.section("lint failed")
        terminalreporter.line(f"see above: {failed}")
