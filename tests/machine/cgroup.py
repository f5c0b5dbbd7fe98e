"""A cgroup of its own for each machine: two that share one collide.

Works with version 2 alone and beside version 1 ("hybrid"), where the machine can track processes
but gets no memory or CPU controller. Limits are not set here; the systemd inside does that.
"""

from __future__ import annotations

import contextlib
import select
import subprocess
import time
from pathlib import Path


def cgroup_root() -> Path | None:
    """Return where the host has the version 2 hierarchy, or None."""
    for root in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")):
        if (root / "cgroup.controllers").exists():
            return root
    return None


def cgroup_path(name: str) -> Path:
    """Return the folder of the machine called `name`."""
    root = cgroup_root()
    assert root is not None, "why_not() was not asked"
    return root / name


def create_cgroup(name: str) -> Path:
    """Make the cgroup, with whatever controllers the host can give."""
    path = cgroup_path(name)
    path.mkdir(exist_ok=True)
    for controller in ("memory", "pids", "cpu", "io"):
        with contextlib.suppress(OSError):  # absent, or held by version 1
            (path.parent / "cgroup.subtree_control").write_text(f"+{controller}")
    return path


def is_populated(path: Path) -> bool:
    """Tell whether a process is left in it or beneath it."""
    try:
        return "populated 1" in (path / "cgroup.events").read_text()
    except FileNotFoundError:
        return False


def wait_empty(path: Path, timeout_s: float = 30) -> None:
    """Wait until no process is left in it."""
    deadline = time.monotonic() + timeout_s
    with contextlib.suppress(FileNotFoundError), (path / "cgroup.events").open() as events:
        poll = select.poll()
        poll.register(events, select.POLLPRI)
        while "populated 1" in events.read():
            if time.monotonic() > deadline:
                raise TimeoutError(f"processes that do not die: {processes(path)}")
            poll.poll(500)
            events.seek(0)


def processes(path: Path) -> list[int]:
    """List the processes in it and beneath it."""
    found: list[int] = []
    for file in path.rglob("cgroup.procs"):
        with contextlib.suppress(OSError):
            found += map(int, file.read_text().split())
    return found


def kill_cgroup(path: Path) -> None:
    """SIGKILL everything in it and beneath it, and wait until it is gone."""
    if not path.exists():
        return
    try:
        (path / "cgroup.kill").write_text("1")
    except OSError:  # older than Linux 5.14
        while pids := processes(path):
            subprocess.run(
                ["kill", "-KILL", *map(str, pids)], check=False, stderr=subprocess.DEVNULL
            )
    wait_empty(path)


def remove_cgroup(path: Path) -> None:
    """Remove an empty cgroup and those beneath it, also where nspawn mirrored it into version 1."""
    hybrid = path.parent.name == "unified"
    roots = path.parent.parent.iterdir() if hybrid else [path.parent]
    for top in {root / path.name for root in roots}:
        folders = [folder for folder in top.rglob("*") if folder.is_dir()] if top.exists() else []
        for folder in sorted(folders, key=lambda found: len(found.parts), reverse=True):
            folder.rmdir()
        if top.exists():
            top.rmdir()
