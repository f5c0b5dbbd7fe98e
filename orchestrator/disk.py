"""What files take on the disk, as du counts it: blocks, hard links once, one file system.

Beneath the heartbeat and `gc`. How much is free is shutil's to say.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

DU_TIMEOUT_S = 60


def size_bytes(paths: Sequence[Path]) -> int | None:
    """Of files and folders together, those that are there; None when that takes too long to say."""
    there = [str(path) for path in paths if os.path.lexists(path)]
    if not there:
        return 0
    try:
        done = subprocess.run(
            ["du", "-sxck", "--", *there], capture_output=True, check=False, timeout=DU_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    total = (done.stdout.splitlines() or [b""])[-1].split(b"\t", 1)[0]
    return int(total) << 10 if total.isdigit() else None
