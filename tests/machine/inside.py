"""Commands inside a running machine: argument lists, pipes, pseudo terminals.

A command enters the namespaces of the machine's PID 1 and a cgroup beneath the machine's own, as
logind and systemd inside expect. It comes in by no login: there is no session, only the user's
environment.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import re
import select
import struct
import subprocess
import termios
import time
from typing import IO, TYPE_CHECKING, Self

from tests.machine import cgroup, host

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

# of asm-generic/ioctls.h; Python names neither
TIOCSPTLCK = 0x40045431  # unlock a new terminal
TIOCGPTPEER = 0x5441  # open its other end, without naming a path
_serial = itertools.count(1)


def as_user(user: str, argv: Sequence[str], env: Mapping[str, str] | None) -> list[str]:
    """Wrap `argv` to run as `user`, in their home, with what a login would have set."""
    settings = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "TERM": "xterm-256color",
        "USER": user,
        "LOGNAME": user,
        "SHELL": "/bin/bash",
        "HOME": "/root" if user == "root" else f"/home/{user}",
        **host.passed_environment(),
    }
    if user == "op":
        settings["XDG_RUNTIME_DIR"] = f"/run/user/{host.OP_UID}"
        settings["DBUS_SESSION_BUS_ADDRESS"] = f"unix:path=/run/user/{host.OP_UID}/bus"
        settings["PATH"] = f"/home/op/.local/bin:{settings['PATH']}"
    settings |= env or {}
    assignments = [f"{name}={value}" for name, value in settings.items()]
    change_user = (
        []
        if user == "root"
        else ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--"]
    )
    return [*change_user, "env", "-i", f"--chdir={settings['HOME']}", *assignments, *argv]


def enter(machine_cgroup: Path, leader: int, argv: Sequence[str]) -> tuple[list[str], Path]:
    """Return what runs `argv` inside from the host, and the cgroup it will be in."""
    own = machine_cgroup / "payload" / "harness" / f"run-{os.getpid()}-{next(_serial)}"
    own.mkdir(parents=True)
    join = ["sh", "-c", 'echo $$ >"$0" && exec "$@"', str(own / "cgroup.procs")]
    nsenter = ["nsenter", "-t", str(leader), "-m", "-u", "-i", "-p", "-C", "-n", "--"]
    return [*join, *nsenter, *argv], own


class Process(subprocess.Popen[bytes]):
    """A command inside. `kill` takes its children with it: signals do not cross `nsenter`."""

    def __init__(
        self,
        machine_cgroup: Path,
        leader: int,
        argv: Sequence[str],
        *,
        stdin: int | IO[bytes] | None = subprocess.DEVNULL,
        stdout: int | IO[bytes] | None = None,
        stderr: int | IO[bytes] | None = None,
    ) -> None:
        entered, self.cgroup = enter(machine_cgroup, leader, argv)
        super().__init__(entered, stdin=stdin, stdout=stdout, stderr=stderr)

    def kill(self) -> None:
        """SIGKILL the command and everything it started that did not leave its cgroup."""
        cgroup.kill_cgroup(self.cgroup)
        super().kill()

    def forget(self) -> None:
        """Remove the command's cgroup, unless something it left behind still lives there."""
        with contextlib.suppress(OSError):
            self.cgroup.rmdir()


class Terminal:
    """A command inside at a terminal of the machine's own (`/dev/pts/N` in there)."""

    def __init__(
        self,
        machine_cgroup: Path,
        leader: int,
        argv: Sequence[str],
        *,
        owner: int,
        columns: int,
        rows: int,
    ) -> None:
        # the machine's own ptmx: a terminal of the host's would have no name inside, and tmux wants
        # one
        self.fd = os.open(
            f"/proc/{leader}/root/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC
        )
        fcntl.ioctl(self.fd, TIOCSPTLCK, struct.pack("i", 0))
        peer = fcntl.ioctl(self.fd, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        os.fchown(peer, owner, 5)
        self.output = b""  #: all that was read so far
        self.resize(columns, rows)
        with os.fdopen(peer, "r+b", buffering=0) as slave:
            self.process = Process(
                machine_cgroup, leader, argv, stdin=slave, stdout=slave, stderr=slave
            )

    def resize(self, columns: int, rows: int) -> None:
        """Change the size, as dragging a window's corner does."""
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def send(self, data: bytes) -> None:
        """Type."""
        while data:
            data = data[os.write(self.fd, data) :]

    def read(self, timeout: float = 10) -> bytes:
        """Return what comes next, within `timeout` seconds; empty when it has ended."""
        if not select.select([self.fd], [], [], timeout)[0]:
            raise TimeoutError(f"nothing more came after: {self.output[-2000:]!r}")
        try:
            data = os.read(self.fd, 65536)
        except OSError:  # EIO: the last process that had it open is gone
            return b""
        self.output += data
        return data

    def expect(self, pattern: bytes, timeout: float = 10) -> re.Match[bytes]:
        """Read until `pattern` is in the output of this terminal so far, and return the match."""
        deadline = time.monotonic() + timeout
        while not (found := re.search(pattern, self.output, re.DOTALL)):
            if not self.read(max(0.0, deadline - time.monotonic())):
                raise EOFError(f"ended without {pattern!r}: {self.output[-2000:]!r}")
        return found

    def close(self) -> None:
        """Hang up, and make sure the command is gone."""
        os.close(self.fd)
        self.process.kill()
        self.process.wait()
        self.process.forget()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
