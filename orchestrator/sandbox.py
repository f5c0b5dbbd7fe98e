"""Put a ticket's agent into its sandbox: gather what decides what it sees, and wait until it is in there.

Used by the launcher. What it sees is `isolation_view.py`'s and `isolation_git.py`'s to say.

The pane's process becomes bubblewrap, which stays outside and passes on how the agent ends. The
agent itself is the unit's main process, so it has to be found: bubblewrap says on a FIFO which
process is the first inside, a line of ours in there says that the agent's is there too, and that one
waits for a word of ours before it becomes the agent, which may be gone in no time.
"""

from __future__ import annotations

import json
import os
import select
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from orchestrator import isolation_git, isolation_view, procfs
from orchestrator.drivers import Launch, Work
from orchestrator.errors import ConfigError
from orchestrator.isolation import PROGRAM
from orchestrator.isolation_view import INFO_FD, Scene
from orchestrator.naming import TicketPaths
from orchestrator.store import worktrees
from orchestrator.store.db import Database

GO_FD = 6
ARGS_FD = 7
READY_FD = 9
READY = "inside"
START_TIMEOUT_S = 30.0  # a repository with thousands of branches; below the unit's TimeoutStartSec=
MAX_INFO_BYTES = 65_536


def scene_of(database: Database, work: Work, launch: Launch) -> Scene:
    """What decides what the agent of a ticket sees; makes the folders that are to be shown.

    Raises:
        ConfigError: the repository is gone.
    """
    config, paths = work.config, work.paths
    home = Path(work.environ.get("HOME") or Path.home())
    cache = Path(work.environ.get("XDG_CACHE_HOME") or home / ".cache")
    shared = [home / p.removeprefix("~/") for p in config.isolation.caches]
    for folder in (paths.agent_folder, paths.cache_folder, paths.runtime / isolation_view.REQUESTS):
        folder.mkdir(mode=0o700, exist_ok=True)
    for folder in (cache, *shared):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    place = worktrees.of_ticket(database, work.ticket) if work.repo else None
    credentials = work.environ.get("CREDENTIALS_DIRECTORY")  # of a LoadCredential= in a drop-in
    return Scene(
        config=config, paths=paths, cwd=work.cwd, home=home, cache=cache,
        network=config.isolation.network, writable=launch.writable,
        readable=(Path(credentials),) if credentials else (),
        hidden=_others(database, work),
        git=isolation_git.rules(work.repo, work.cwd, place.branch) if work.repo and place else (),
    )  # fmt: skip


def _others(database: Database, work: Work) -> tuple[Path, ...]:
    """Other tickets' worktrees; all of the folder they are in, where nothing else of note is."""
    found = [Path(p.path) for p in worktrees.active(database) if p.ticket_id != work.ticket]
    beside = work.cwd.parent
    if work.repo and not any(p.is_relative_to(beside) for p in (work.repo, Path.home())):
        found.append(beside)
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A sandbox that is about to be made.

    Args:
        paths: of the ticket; two files of its runtime folder are used.
        scene: what is seen inside.
    """

    paths: TicketPaths
    scene: Scene

    @property
    def _args_path(self) -> Path:
        return self.paths.runtime / "sandbox.args"

    @property
    def _fifo_path(self) -> Path:
        return self.paths.runtime / "sandbox.info"

    @property
    def _go_path(self) -> Path:
        return self.paths.runtime / "sandbox.go"

    @property
    def _inside_path(self) -> Path:
        return self.paths.runtime / "inside.sh"

    def listen(self, before: Sequence[str]) -> Waiting:
        """Writes what bubblewrap and the shell in there read; call it before the pane is made.

        Args:
            before: shell lines that are run inside, before the agent.
        """
        told = f"echo {READY} >&{READY_FD}; read -r go <&{GO_FD}; exec {READY_FD}>&- {GO_FD}<&-"
        inside = ['rm -f -- "$0"', told, *before]
        _write(self._inside_path, "".join(f"{line}\n" for line in [*inside, 'exec "$@"']))
        arguments = isolation_view.arguments(self.scene)
        _write(self._args_path, "".join(f"{arg}\0" for arg in arguments))
        for path in (self._fifo_path, self._go_path):
            os.mkfifo(path, 0o600)
        info = os.open(self._fifo_path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        # to read as well: there need not be anybody inside yet
        return Waiting(info, os.open(self._go_path, os.O_RDWR | os.O_CLOEXEC))

    def lines(self, argv: Sequence[str]) -> list[str]:
        """Shell lines that become bubblewrap."""
        paths = (self._args_path, self._fifo_path, self._go_path)
        args, fifo, go = (shlex.quote(str(path)) for path in paths)
        words = [PROGRAM, "--args", str(ARGS_FD), "--", "/bin/sh", str(self._inside_path)]
        words += isolation_view.command(self.scene, argv)
        return [
            "unset " + " ".join(isolation_view.NOT_INSIDE),
            f"exec {ARGS_FD}<{args} {INFO_FD}>{fifo} {READY_FD}>&{INFO_FD} {GO_FD}<>{go}",
            f"rm -f -- {args} {fifo} {go}",
            f"exec {shlex.join(words)}",
        ]

    def become(self, argv: Sequence[str], environ: Mapping[str, str]) -> NoReturn:
        """This process becomes bubblewrap, without a pane; whoever looks for the agent finds it."""
        data = "".join(f"{arg}\0" for arg in isolation_view.arguments(self.scene))
        fd = os.memfd_create("sandbox", 0)
        os.write(fd, os.fsencode(data))
        os.lseek(fd, 0, os.SEEK_SET)
        os.dup2(fd, ARGS_FD)
        os.dup2(os.open(os.devnull, os.O_WRONLY), INFO_FD)
        for kept in (ARGS_FD, INFO_FD):  # dup2 of what is there already leaves it to be closed
            os.set_inheritable(kept, True)
        words = [PROGRAM, "--args", str(ARGS_FD), "--"]
        os.execvpe(PROGRAM, [*words, *isolation_view.command(self.scene, argv)], environ)


def _write(path: Path, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(os.fsencode(text))


@dataclass(frozen=True, slots=True)
class Waiting:
    """A sandbox on its way, on the launcher's side."""

    info: int  #: what is said of it
    go: int  #: what the agent's process waits for

    def agent(self) -> int:
        """The agent's pid, once it is inside; it becomes the agent then.

        Raises:
            ConfigError: the sandbox could not be made.
        """
        try:
            first = _first_inside(self.info)
            agent = procfs.agent_behind(first) if first else 0
            if agent in {0, first}:
                raise ConfigError(
                    "The agent's sandbox could not be made.",
                    hint="What bubblewrap says is in the pane's log: ticketctl log TICKET",
                )
            os.write(self.go, b"\n")
        finally:
            os.close(self.info)
            os.close(self.go)
        return agent


def _first_inside(fd: int) -> int:
    """The sandbox's first process, once the agent's is there too; 0: it will not be."""
    got = b""
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    deadline = time.monotonic() + START_TIMEOUT_S
    while READY.encode() not in got and len(got) < MAX_INFO_BYTES:
        if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
            return 0
        if not (piece := os.read(fd, MAX_INFO_BYTES)):
            return 0
        got += piece
    try:
        return int(json.loads(got.partition(READY.encode())[0])["child-pid"])
    except (ValueError, KeyError, TypeError):
        return 0


def said_in(screen: str) -> str:
    """bubblewrap's own sentence on a screen; empty where there is none."""
    lines = [line.strip() for line in screen.splitlines() if line.startswith(f"{PROGRAM}:")]
    return lines[-1] if lines else ""
