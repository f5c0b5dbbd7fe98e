"""What /proc says of a process: when it began, its number in its own namespace, the agent in a sandbox.

An isolated agent is the grandchild of its pane's process: bubblewrap stays outside to pass on how it
ended, and once more inside as the first process of its PID namespace. Only files that everybody may
read are read here, so that a service with a user namespace of its own sees the same.

Light on imports: `stop.py` is between `systemctl stop` and its end.
"""

from __future__ import annotations

import os

MONITOR = "bwrap"  #: the name of the processes between a pane and its isolated agent
_STARTED = 19  # fields of stat behind the name: state is the first
_PARENT = 1


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def _fields(pid: int) -> list[bytes]:
    return _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()


def is_alive(pid: int) -> bool:
    """Whether it is there, and no zombie."""
    fields = _fields(pid)
    return bool(fields) and fields[0] not in {b"Z", b"X"}


def started(pid: int) -> str:
    """Its start in clock ticks since boot: tells it from an older one of that number; empty: gone."""
    return started_in(_read(f"/proc/{pid}/stat").rpartition(b")")[2])


def started_in(stat: bytes) -> str:
    """The same, in what stat says behind the name; empty: it is not whole."""
    fields = stat.split()
    return fields[_STARTED].decode("ascii", "replace") if len(fields) > _STARTED else ""


def state(pid: int) -> str:
    """One letter, as in ps: R, S, T for stopped, …; empty when it is gone."""
    fields = _fields(pid)
    return fields[0].decode() if fields else ""


def name(pid: int) -> str:
    """As `ps -o comm=`; empty when it is gone."""
    return _read(f"/proc/{pid}/comm").decode("utf-8", "replace").rstrip("\n")


def inner_pid(pid: int) -> int:
    """The number by which a process knows itself, in the innermost namespace it is in."""
    for line in _read(f"/proc/{pid}/status").splitlines():
        if line.startswith(b"NSpid:"):
            return int(line.split()[-1])
    return pid


def _parent(pid: int) -> int:
    fields = _fields(pid)
    return int(fields[_PARENT]) if len(fields) > _PARENT else 0


def _children(pid: int) -> list[int]:
    listed = _read(f"/proc/{pid}/task/{pid}/children")
    if listed or os.path.exists(f"/proc/self/task/{os.getpid()}/children"):
        return [int(child) for child in listed.split()]
    # a kernel without that list
    return [p for p in map(int, filter(str.isdigit, os.listdir("/proc"))) if _parent(p) == pid]


def agent_behind(pid: int) -> int:
    """The agent whose sandbox `pid` is the outermost process of; any other process is its own.

    Of the children of the sandbox's first process the agent is the oldest: the others are orphans
    that it took in.
    """
    if name(pid) != MONITOR:
        return pid
    first = pid
    if inner_pid(pid) != 1:
        first = next((child for child in _children(pid) if inner_pid(child) == 1), 0)
    inside = _children(first) if first else []
    return min(inside, key=inner_pid) if inside else pid


def pane_pid(pid: int) -> int:
    """The pane's own process for an agent: itself, or the sandbox's outermost process."""
    inside = _parent(pid)
    outside = _parent(inside)
    both = name(inside) == MONITOR == name(outside)
    return outside if both and inner_pid(inside) == 1 else pid
