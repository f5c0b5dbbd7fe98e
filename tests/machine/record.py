"""What a machine leaves on the host, and how to take all of it away.

Each machine has a folder in the cache with an `owner.json` naming the process it belongs to.
Everything else (cgroup, network namespace, processes) bears the machine's name, so that the record
alone is enough to clean up after an owner that was killed. It knows nothing of booting.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import time
from pathlib import Path

from tests.machine import cgroup, network
from tests.machine.cache import cache_dir, remove_tree

PREFIX = "mct-"


def machines_dir() -> Path:
    """Return the folder of the machines that exist now."""
    path = cache_dir() / "machines"
    path.mkdir(exist_ok=True)
    return path


def process_start(pid: int) -> str | None:
    """Return when the process began, in ticks since boot: with the pid, a name for ever."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return stat.rpartition(")")[2].split()[19]


def create_record() -> Path:
    """Make the folder of a new machine of this process's. Its name is the machine's."""
    name = PREFIX + secrets.token_hex(4)
    scratch = machines_dir() / f".{name}"
    scratch.mkdir()
    owner = {"pid": os.getpid(), "start": process_start(os.getpid())}
    (scratch / "owner.json").write_text(json.dumps(owner))
    for folder in ("upper", "work", "root"):
        (scratch / folder).mkdir()
    return scratch.rename(machines_dir() / name)


def note_runner(folder: Path, pid: int) -> None:
    """Remember the process that boots the machine: it stands outside of the machine's cgroup."""
    (folder / "runner.json").write_text(json.dumps({"pid": pid, "start": process_start(pid)}))


def note_leader(folder: Path, pid: int) -> None:
    """Remember the machine's PID 1, so that another process can enter it."""
    (folder / "leader").write_text(str(pid))


def leader_of(folder: Path) -> int:
    """Return the machine's PID 1 as the host sees it; 0 when it is off."""
    try:
        pid = int((folder / "leader").read_text())
    except (FileNotFoundError, ValueError):
        return 0
    return pid if cgroup.is_populated(cgroup.cgroup_path(folder.name)) else 0


def kill_machine(folder: Path) -> None:
    """Cut the power: SIGKILL what boots the machine, then everything in it."""
    with contextlib.suppress(FileNotFoundError):
        runner = json.loads((folder / "runner.json").read_text())
        if process_start(runner["pid"]) == runner["start"]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(runner["pid"], signal.SIGKILL)
        (folder / "runner.json").unlink()
    cgroup.kill_cgroup(cgroup.cgroup_path(folder.name))


def destroy(folder: Path) -> None:
    """Remove the machine and all it left; do nothing for what is gone already."""
    if not folder.exists():
        return
    kill_machine(folder)
    cgroup.remove_cgroup(cgroup.cgroup_path(folder.name))
    network.remove_network(folder.name)
    # owner.json goes last: an interrupted removal is finished by the next sweep
    for entry in sorted(folder.iterdir(), key=lambda path: path.name == "owner.json"):
        remove_tree(entry)
    folder.rmdir()


def owner_lives(folder: Path) -> bool:
    """Tell whether the process that made the machine still runs."""
    try:
        owner = json.loads((folder / "owner.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        # not renamed into place yet, or half removed
        return time.time() - folder.stat().st_mtime < 60
    return bool(process_start(owner["pid"]) == owner["start"])


def sweep() -> list[str]:
    """Remove the machines whose owners are dead, and return their names."""
    swept = []
    for folder in machines_dir().iterdir():
        if not owner_lives(folder):
            destroy(folder)
            swept.append(folder.name)
    return swept
