"""Backups of the embedded database: made whole or not at all, read again before they count.

`ticketctl backup` and mc-backup.timer. A backup is a file of pg_dump's own format, which any later
major release of PostgreSQL can read. Putting one back is `restore`'s; pane logs, archives and
worktrees are files already, and are not in here.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.config import Config
from orchestrator.errors import ConfigError, Conflict, InvalidInput, Unavailable
from orchestrator.postgres import DATABASE, Server
from orchestrator.progress import SILENT, Meter

TIMEOUT_S = 1800
LOCK_TIMEOUT_S = 60  # for a table that somebody changes just now
_NAME = re.compile(r"mission-control-(\d{8}T\d{6}\.\d{6})Z\.dump", re.ASCII)
_STAMP = "%Y%m%dT%H%M%S.%f"
_READ_ONLY = "So that mc-backup.service may write there: ticketctl setup"
_NEEDED = b" TABLE DATA public tickets "


@dataclass(frozen=True, slots=True)
class Backup:
    """One file."""

    path: Path
    made_at: datetime  #: aware, UTC; the moment whose state is in it
    size_bytes: int


def listed(folder: Path) -> list[Backup]:
    """The backups there are, oldest first."""
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        if (match := _NAME.fullmatch(path.name)) and path.is_file():
            made_at = datetime.strptime(match[1], _STAMP).replace(tzinfo=UTC)
            found.append(Backup(path, made_at, path.stat().st_size))
    return sorted(found, key=lambda backup: backup.made_at)


def make(
    config: Config, server: Server, *, database: str = DATABASE, meter: Meter = SILENT
) -> tuple[Backup, list[Path]]:
    """Dumps, reads the dump again, and only then removes what is older than the newest `keep`.

    `meter` is told of bytes: those written, of which nobody knows how many there will be, and then those
    read again.

    Returns the backup, and what was removed.

    Raises:
        Conflict: another backup is being made.
        ConfigError: the disk is full, or PostgreSQL's programs are missing; the old ones are left.
        Unavailable: the server does not answer.
    """
    folder = config.backup_dir
    with _alone(folder):
        for left in folder.glob(".*.partial"):  # of one that was killed
            left.unlink()
        now = datetime.now(UTC)
        path = folder / f"mission-control-{now.strftime(_STAMP)}Z.dump"
        partial = path.with_name(f".{path.name}.partial")
        try:
            _dump(server, database, partial, meter)
            verify(partial, server.programs, meter=meter)
            partial.rename(path)
            _sync(folder, os.O_DIRECTORY)
        finally:
            partial.unlink(missing_ok=True)
        removed = [old.path for old in listed(folder)[: -config.backup.keep]]
        for old in removed:
            old.unlink()
        return Backup(path, now, path.stat().st_size), removed


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot be used: {error.strerror}.",
            hint=_READ_ONLY
            if error.errno == errno.EROFS
            else "Set [backup] folder in config.toml.",
        ) from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise Conflict("Another backup is being made.", hint=f"It goes to {folder}") from None
    finally:
        os.close(fd)


def _dump(server: Server, database: str, target: Path, meter: Meter = SILENT) -> None:
    argv = [
        str(server.programs / "pg_dump"), "--format=custom", "--no-password",
        f"--lock-wait-timeout={LOCK_TIMEOUT_S}s", "--dbname", server.dsn(database),
    ]  # fmt: skip
    try:
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as out:
            meter.expect(0)
            meter.follow(lambda: os.fstat(fd).st_size)
            try:
                done = _run(argv, stdout=fd)
            finally:
                meter.follow(None)
            if not done.returncode:
                os.fsync(out.fileno())
    except OSError as error:
        if error.errno == errno.EROFS:
            raise ConfigError(f"{target.parent} is read-only here.", hint=_READ_ONLY) from None
        raise _no_space(target, error.strerror or str(error)) from None
    if done.returncode:
        said = _last_line(done)
        if b"No space left" in done.stderr or not shutil.disk_usage(target.parent).free:
            raise _no_space(target, said)
        raise Unavailable(
            f"pg_dump failed: {said}.", hint="systemctl --user status mc-postgres.service"
        )


def _no_space(target: Path, said: str) -> ConfigError:
    return ConfigError(
        f"The backup could not be written: {said}.",
        hint=f"The earlier ones are as they were. Is there space? df -h {target.parent}",
    )


@contextmanager
def read_from(path: Path, meter: Meter) -> Iterator[int]:
    """A descriptor for a program's standard input: how far it has read is where it stands, for both of us."""
    with path.open("rb", buffering=0) as file:
        meter.expect(os.fstat(file.fileno()).st_size)
        meter.follow(file.tell)
        try:
            yield file.fileno()
        finally:
            meter.follow(None)


def verify(path: Path, programs: Path, *, meter: Meter = SILENT) -> str:
    """Reads a backup to its end; the release of the server it was taken from.

    Raises:
        InvalidInput: it is no whole backup of ours.
        ConfigError: pg_restore is missing.
    """
    told = _run([str(programs / "pg_restore"), "--list", "--", str(path)])
    if told.returncode or _NEEDED not in told.stdout:
        why = _last_line(told) if told.returncode else "the table of tickets is not in it"
        raise InvalidInput(f"{path} is no backup of Mission Control: {why}.")
    with read_from(path, meter) as stdin:
        read = _run([str(programs / "pg_restore"), "--file=/dev/null"], stdin=stdin)
    if read.returncode:
        raise InvalidInput(f"{path} is damaged: {_last_line(read)}.", hint="ticketctl restore")
    release = re.search(rb"Dumped from database version: ([0-9.]+)", told.stdout)
    return release[1].decode() if release else "?"


def _run(
    argv: list[str], *, stdin: int = subprocess.DEVNULL, stdout: int = subprocess.PIPE
) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            argv, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, check=False,
            timeout=TIMEOUT_S, env={**os.environ, "LC_ALL": "C.UTF-8"},
        )  # fmt: skip
    except FileNotFoundError:
        raise ConfigError(f"{argv[0]} is not there.", hint="sudo apt install postgresql") from None
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{Path(argv[0]).name} took over {TIMEOUT_S} s.") from None


def _last_line(done: subprocess.CompletedProcess[bytes]) -> str:
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
    return lines[-1].rstrip(".") if lines else f"status {done.returncode}"


def _sync(path: Path, how: int = 0) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | how)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


__all__ = ["Backup", "listed", "make", "read_from", "verify"]
