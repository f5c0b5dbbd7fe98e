"""A machine's network: a namespace of its own, with or without a way out, or the host's.

The way out is pasta (package passt): user-mode, so that nothing of the host's own network is
configured. No port of the host leads in: a program that should reach 127.0.0.1 of the machine
enters its namespace.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Literal

Network = Literal["internet", "none", "host"]


def netns_path(name: str) -> Path:
    """Return the file that names the namespace."""
    return Path("/run/netns") / name


def create_network(name: str, network: Network) -> None:
    """Make the namespace `name` with its loopback up; for `internet`, let pasta connect it."""
    if network == "host":
        return
    _ip("netns", "add", name)
    _ip("-n", name, "link", "set", "lo", "up")
    if network == "internet":
        connect(name)


def connect(name: str) -> None:
    """Give the namespace a way out. pasta returns when it is there, and goes with it."""
    ports = ["-t", "none", "-u", "none", "-T", "none", "-U", "none"]
    argv = [
        "pasta",
        "--quiet",
        "--netns",
        str(netns_path(name)),
        "--config-net",
        *ports,
        "--runas",
        "0",
    ]
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)


def pasta_pids(name: str) -> list[int]:
    """List the pasta processes of the namespace, by their command line."""
    found = []
    wanted = str(netns_path(name)).encode()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            argv = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if argv[0].rpartition(b"/")[2].startswith(b"pasta") and wanted in argv:
            found.append(int(path.parent.name))
    return found


def remove_network(name: str) -> None:
    """Undo `create_network`; do nothing where there is nothing."""
    if netns_path(name).exists():
        for pid in pasta_pids(name):
            subprocess.run(["kill", str(pid)], check=False, stderr=subprocess.DEVNULL)
        _ip("netns", "delete", name)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, stdin=subprocess.DEVNULL)
