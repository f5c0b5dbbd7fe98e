"""stop.py: signals and waiting, with real processes."""

from __future__ import annotations

import signal
import subprocess
import time

from orchestrator import stop


def test_it_waits_until_a_process_has_left() -> None:
    """A process that needs a moment for its end is given it, and not more."""
    process = subprocess.Popen(
        ["sh", "-c", "trap 'sleep 0.2; exit 143' TERM; echo; while :; do sleep 0.05; done"],
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    assert stop.leave([process.pid], [signal.SIGTERM], 10)
    assert process.wait() == 143


def test_a_stubborn_process_costs_no_more_than_the_patience() -> None:
    """One that ignores the signal is reported after the patience, and still there."""
    process = subprocess.Popen(
        ["sh", "-c", "trap '' TERM; echo; while :; do sleep 0.05; done"], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    begun = time.monotonic()
    assert not stop.leave([process.pid], [signal.SIGTERM], 0.2)
    assert time.monotonic() - begun < 5
    assert process.poll() is None
    assert stop.leave([process.pid], [signal.SIGKILL], 10)
    process.wait()


def test_a_process_that_is_gone_is_no_error() -> None:
    """Its pid may be nobody's by now."""
    process = subprocess.Popen(["true"])
    process.wait()
    assert stop.leave([process.pid], [signal.SIGTERM], 1)


def test_outside_a_ticket_nothing_is_left_behind() -> None:
    """Run by hand, it finds nothing to kill."""
    assert stop.left_behind(stop.own_cgroup()) == []
    assert stop.left_behind("") == []
