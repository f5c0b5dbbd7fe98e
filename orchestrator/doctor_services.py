"""Whether what the units say of their services' confinement is in force, looked up in the kernel.

A user manager ignores a part of it where it cannot do it, and says nothing: systemd 252 all that needs
a mount namespace, for a unit without PrivateUsers=. So the processes are asked, not the units; one that
does its work and leaves again is asked while it runs, by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from orchestrator.config import Config

#: services that see a read-only machine from a user namespace of their own: those that stay,
RUNNING = ("mc-postgres.service", "mc-ingest.service", "mc-dispatch.service", "mc-webgate.service")
#: and those that do their work and leave; each leaves a copy of what the kernel says of it
PASSING = (
    "mc-reconcile.service",
    "mc-heartbeat.service",
    "mc-logrotate.service",
    "mc-backup.service",
)
_TELLING = ("status", "uid_map", "mountinfo")
SECCOMP_FILTER = "2"


def missing(told: Path, proc: Path = Path("/proc")) -> Iterator[str]:
    """What is not in force for a service, as words.

    Args:
        told: what the kernel says of it: its folder in /proc, or the copy that it left.
        proc: where the kernel tells of us.
    """
    status, ours = _status(told), _status(proc / "self")
    if status.get("NoNewPrivs") != "1":
        yield "NoNewPrivileges"
    filters = int(status.get("Seccomp_filters", "1"))  # a kernel before 5.9 does not count them
    # in a container all processes have some: it has to be more than ours
    if status.get("Seccomp") != SECCOMP_FILTER or filters <= int(ours.get("Seccomp_filters", "0")):
        yield "SystemCallFilter"
    if _lines(told / "uid_map") == _lines(proc / "self/uid_map"):
        yield "PrivateUsers"
    roots = [line.split()[5] for line in _lines(told / "mountinfo") if line.split()[4] == "/"]
    if not roots or "ro" not in roots[-1].split(","):
        yield "ProtectSystem"


def copy_of(config: Config, unit: str) -> Path:
    """Where a service that does not stay leaves what the kernel says of it; gone after a reboot."""
    return config.runtime_dir / "confined" / unit


def leave_copy(config: Config, proc: Path = Path("/proc/self")) -> None:
    """For whoever may run as one of `PASSING`; nothing is done when it does not, or cannot."""
    unit = "".join(_lines(proc / "cgroup")[-1:]).rpartition("/")[2]
    if unit not in PASSING:
        return
    folder = copy_of(config, unit)
    with suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in _TELLING:
            (folder / name).write_bytes((proc / name).read_bytes())


def _status(folder: Path) -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in _lines(folder / "status") if ":\t" in line)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
