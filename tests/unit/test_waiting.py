"""Waiting for descriptors."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator

import pytest

from orchestrator.waiting import any_ready

HIGH = 1500  # past what select(2) takes


@pytest.fixture
def high_pipe() -> Iterator[tuple[int, int]]:
    """A pipe whose two descriptors are numbered like those of a gateway with many viewers."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    low = os.pipe()
    high = (os.dup2(low[0], HIGH), os.dup2(low[1], HIGH + 1))
    yield high
    for fd in (*low, *high):
        os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_descriptors_past_1024(high_pipe: tuple[int, int]) -> None:
    """They are waited for like others: nothing to read, then something; always room to write."""
    reads, writes = high_pipe
    assert not any_ready([reads], [], 0.01)
    assert any_ready([], [writes], 1)
    os.write(writes, b"x")
    assert any_ready([reads], [], 1)


def test_a_time_that_has_passed(high_pipe: tuple[int, int]) -> None:
    """What is left of a deadline may be below nothing."""
    assert not any_ready([high_pipe[0]], [], -1)
