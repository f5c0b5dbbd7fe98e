"""What a start of a ticket does not load."""

from __future__ import annotations

import subprocess
import sys

HEAVY = (
    "ssl", "lxml", "jinja2", "libtmux", "click", "gevent", "pystemd.systemd1",
    "psycopg2.extras", "logging", "socket",
)  # fmt: skip


def test_the_launcher_is_light() -> None:
    """Each of these would cost a start, and its memory, a tenth or more."""
    script = f"import sys, orchestrator.launch; print([n for n in {HEAVY!r} if n in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_what_was_left_out_can_be_had() -> None:
    """`ssl` is Python's again afterwards, and psycopg2 and pystemd are whole."""
    script = (
        "import orchestrator.launch, ssl, psycopg2.extras, pystemd.daemon, pystemd.dbuslib;"
        "ssl.create_default_context(); print(psycopg2.extensions.libpq_version() > 90000)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "True"
