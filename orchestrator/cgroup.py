"""The processes of a unit, by its cgroup. It only reads: the tree is systemd's to change."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


def cgroup_pids(pid: int) -> frozenset[int]:
    """Every process in the cgroup of `pid` and below it; empty when it is gone."""
    found: set[int] = set()
    with suppress(OSError):
        lines = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines()
        own = next((line[3:] for line in lines if line.startswith("0::/")), "")
        for folder, _, _ in os.walk(ROOT / own.lstrip("/") if own.strip("/") else "/nowhere"):
            with suppress(OSError):
                found |= {int(p) for p in Path(folder, "cgroup.procs").read_text().split()}
    return frozenset(found)
