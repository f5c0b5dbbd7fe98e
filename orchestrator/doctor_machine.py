"""What Mission Control needs of the kernel and of the session it is called in, by files alone.

`doctor.py` asks the programs and services. Each look takes the folder it looks into, so that it can be
tried on a machine that lacks what this one has.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
INSTANCES_LEFT = 8  # what a start of all services takes, and some
WATCHES_LEFT = 256
EARLIEST_S = 1_735_689_600  # 2025: before that this program was not there
#: a setting, the value that forbids user namespaces, and one that allows them
FORBIDDING = (
    ("user.max_user_namespaces", "0", "15000"),
    ("kernel.unprivileged_userns_clone", "0", "1"),
    ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),  # Ubuntu 24.04: docs/ubuntu.md
)
_BWRAP_PROFILE = (
    "sudo apt install apparmor-profiles && sudo install -m 644"
    " /usr/share/apparmor/extra-profiles/bwrap-userns-restrict /etc/apparmor.d/"
    " && sudo systemctl reload apparmor"
)
_SET_CLOCK = (
    "sudo timedatectl set-ntp true (where NTP is not supported: sudo apt install systemd-timesyncd)"
)
_SYSCTL = (
    "echo {key}={value} | sudo tee /etc/sysctl.d/60-mission-control.conf && sudo sysctl --system"
)


@dataclass(frozen=True, slots=True)
class Check:
    """One requirement."""

    name: str
    verdict: str  #: ok, warn (something is missing that not everything needs), bad
    found: str
    mend: str = ""  #: what to do; empty when ok


def user_bus(environ: Mapping[str, str], uid: int) -> Check:
    """The socket over which systemctl --user and we speak to the user's manager."""
    folder = environ.get("XDG_RUNTIME_DIR") or f"/run/user/{uid}"
    path = Path(folder) / "bus"
    with suppress(OSError):
        found = path.stat()
        if not stat.S_ISSOCK(found.st_mode):
            return Check(
                "user bus", "bad", f"{path} is no socket", f"sudo systemctl restart user@{uid}"
            )
        if found.st_uid != uid:
            return Check(
                "user bus", "bad", f"{path} is another user's",
                "export XDG_RUNTIME_DIR=/run/user/$(id -u), or log in as yourself: su and sudo do not",
            )  # fmt: skip
        return Check("user bus", "ok", str(path))
    if (Path(f"/run/user/{uid}") / "bus").exists():
        return Check(
            "user bus", "bad", f"there is no {path}", f"export XDG_RUNTIME_DIR=/run/user/{uid}"
        )
    return Check(
        "user bus", "bad", f"there is no {path}",
        "sudo apt install dbus-user-session; then log in anew, or: export XDG_RUNTIME_DIR=/run/user/$(id -u)",
    )  # fmt: skip


def user_namespaces(tried: Callable[[], str], proc: Path = PROC) -> Check:
    """What isolation and confined services rest on.

    Args:
        tried: who gets none, by trying; empty: all who need one get it. Asked only where a setting
            forbids them, for AppArmor lets programs with a profile have one all the same.
        proc: where the settings are.
    """
    name = "user namespaces"
    for key, forbids, value in FORBIDDING:
        if _sysctl(proc, key) != forbids:
            continue
        without = tried()
        if not without:
            return Check(name, "ok", f"{key} = {forbids}, and what needs one gets it")
        services = without == "the services"
        # a profile gives bubblewrap its namespaces; those of the services are made by systemd itself
        enough = _BWRAP_PROFILE if key.startswith("kernel.apparmor") and not services else _SYSCTL
        return Check(
            name, "bad" if services else "warn", f"{key} = {forbids}: {without} get none",
            enough.format(key=key, value=value),
        )  # fmt: skip
    most = _sysctl(proc, "user.max_user_namespaces")
    return Check(name, "ok", f"at most {most}" if most else "not limited")


def clock(now_s: float, database_s: float | None, synchronised: str) -> Check:
    """Whether times that are stored can be compared.

    Args:
        now_s: this machine's, since 1970.
        database_s: the database's at that moment; None: it does not answer.
        synchronised: what timedatectl says, yes or no; empty: it is not there.
    """
    apart = abs(now_s - database_s) if database_s is not None else 0.0
    if now_s < EARLIEST_S:
        return Check("clock", "bad", "it is before 2025", _SET_CLOCK)
    if apart > 5:
        return Check(
            "clock", "warn", f"{apart:.0f} s from the database's",
            "Ages and schedules are off by that much. On both machines: " + _SET_CLOCK,
        )  # fmt: skip
    if synchronised == "no":
        return Check("clock", "warn", "not synchronised", _SET_CLOCK)
    return Check("clock", "ok", "synchronised" if synchronised else "nobody says that it is wrong")


def inotify(uid: int, proc: Path = PROC) -> Check:
    """Whether what follows files gets its watches: ingest, the gateway, and the agents' own programs."""
    instances, watches = map(sum, zip(*_inotify_of(uid, proc), strict=True)) or (0, 0)
    for key, used, left, wanted in (
        ("fs.inotify.max_user_instances", instances, INSTANCES_LEFT, 1024),
        ("fs.inotify.max_user_watches", watches, WATCHES_LEFT, 524_288),
    ):
        most = _sysctl(proc, key)
        if most.isdigit() and int(most) - used < left:
            return Check(
                "inotify", "warn", f"{used} of {most} used: {key}",
                _SYSCTL.format(key=key, value=max(wanted, 2 * int(most))),
            )  # fmt: skip
    return Check("inotify", "ok", f"{instances} instances and {watches} watches of yours")


def _inotify_of(uid: int, proc: Path) -> Iterator[tuple[int, int]]:
    """Instances and watches of each process of a user; (0, 0) at last, so that there is something."""
    for entry in os.scandir(proc):
        with suppress(OSError):
            if not entry.name.isdigit() or entry.stat().st_uid != uid:
                continue
            fds = [
                fd for fd in os.listdir(f"{entry.path}/fd")
                if os.readlink(f"{entry.path}/fd/{fd}") == "anon_inode:inotify"
            ]  # fmt: skip
            infos = [Path(entry.path, "fdinfo", fd).read_text(encoding="ascii") for fd in fds]
            yield len(fds), sum(text.count("inotify wd:") for text in infos)
    yield 0, 0


def _sysctl(proc: Path, key: str) -> str:
    try:
        return (proc / "sys" / key.replace(".", "/")).read_text(encoding="ascii").strip()
    except OSError:
        return ""
