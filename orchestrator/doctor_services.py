"""Whether what the units say of their services' confinement is in force, looked up in the kernel.

A user manager ignores a part of it where it cannot do it, and says nothing: systemd 252 all that needs
a mount namespace, for a unit without PrivateUsers=. So the processes are asked, not the units.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

#: services that see a read-only machine from a user namespace of their own
CONFINED = ("mc-postgres.service", "mc-ingest.service", "mc-webgate.service")
#: services that have to look at processes outside: no namespaces, the rest all the same
FILTERED = ("mc-dispatch.service",)
SECCOMP_FILTER = "2"


def missing(unit: str, pid: int, proc: Path = Path("/proc")) -> Iterator[str]:
    """What is not in force for the running service `unit`, as words.

    Args:
        unit: one of `CONFINED` or `FILTERED`.
        pid: its main process.
        proc: where the kernel tells.
    """
    status = dict(line.split(":\t", 1) for line in _lines(proc / f"{pid}/status") if ":\t" in line)
    if status.get("NoNewPrivs") != "1":
        yield "NoNewPrivileges"
    if status.get("Seccomp") != SECCOMP_FILTER:
        yield "SystemCallFilter"
    if unit not in CONFINED:
        return
    if _lines(proc / f"{pid}/uid_map") == _lines(proc / "self/uid_map"):
        yield "PrivateUsers"
    roots = [
        line.split()[5] for line in _lines(proc / f"{pid}/mountinfo") if line.split()[4] == "/"
    ]
    if not roots or "ro" not in roots[-1].split(","):
        yield "ProtectSystem"


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
