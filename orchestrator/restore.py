"""Put a backup back: filled beside what is there, then put in its place by a rename, which undoes it.

Into the running cluster under the database's name, or into a cluster of its own where the old one is
gone, damaged, or made by another major release of PostgreSQL. What was there before is kept under
another name, always; removing it is for whoever has looked.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from orchestrator import backup, install_services, postgres
from orchestrator.config import Config
from orchestrator.errors import ConfigError, Conflict, InvalidInput, TicketError, Unavailable
from orchestrator.naming import unit_name
from orchestrator.postgres import DATABASE, Server
from orchestrator.progress import SILENT, Meter
from orchestrator.store import recovery
from orchestrator.store.db import Database
from orchestrator.store.migrate import ensure_schema
from orchestrator.systemd import UserManager

UNIT = "mc-postgres.service"
KEPT = re.compile(rf"{DATABASE}_before_[0-9]{{8}}t[0-9]{{12}}", re.ASCII)
_FRESH = f"{DATABASE}_restoring"
_SWAPS = 5  # somebody may connect in the moment between cutting them off and the rename
_START_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What became of a restore."""

    kept: str  #: where the one before is now: a database or a folder; empty where there was none
    unconfirmed: int  #: messages that were waiting then, and are not sent again
    migrations: tuple[str, ...] = ()  #: that the backup did not have yet


@contextmanager
def alone(config: Config) -> Iterator[None]:
    """One restore at a time.

    Raises:
        Conflict: another one is at work.
    """
    config.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(config.state_dir / "restore.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise Conflict("Another restore is at work.") from None
    finally:
        os.close(fd)


def workers(manager: UserManager) -> dict[int, int]:
    """The tickets that run, and their workers' pids."""
    found = {}
    for name in manager.running("ticket@*.service"):
        if match := re.fullmatch(r"ticket@([1-9][0-9]{0,8})\.service", name):
            found[int(match[1])] = manager.service(unit_name(int(match[1]))).main_pid
    return found


def kept(server: Server) -> dict[str, int]:
    """Databases that restores put aside, and their sizes in bytes."""
    told = server.ask(
        "SELECT datname, pg_database_size(oid) FROM pg_database ORDER BY datname"
    ).splitlines()
    rows = (line.partition("|") for line in told)
    return {name: int(size) for name, _, size in rows if KEPT.fullmatch(name)}


def into_database(
    server: Server, path: Path, *, running: Mapping[int, int], meter: Meter = SILENT
) -> Restored:
    """Restores into the running cluster.

    Raises:
        InvalidInput: the file is no whole backup; nothing was changed.
        ConfigError: it is of a newer Mission Control; nothing was changed.
    """
    backup.verify(path, server.programs, meter=meter)
    done = fill(server, _FRESH, path, running=running, meter=meter)
    return Restored(
        kept=swap(server, _FRESH), unconfirmed=done.unconfirmed, migrations=done.migrations
    )


def fill(
    server: Server, name: str, path: Path, *, running: Mapping[int, int], meter: Meter = SILENT
) -> Restored:
    """Makes a database of a backup, brought up to date; there is none when that fails."""
    server.ask(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")  # of one that was killed
    server.ask(f"CREATE DATABASE {name} TEMPLATE template0")
    try:
        _pour(server, name, path, meter)
        database = Database(server.dsn(name), application="restore")
        try:
            applied = ensure_schema(database)
            waiting = recovery.settle(database, running)
        finally:
            database.close()
    except BaseException:
        server.ask(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        raise
    return Restored(kept="", unconfirmed=waiting, migrations=tuple(applied))


def _pour(server: Server, name: str, path: Path, meter: Meter) -> None:
    """All of a backup, or an error."""
    argv = [
        str(server.programs / "pg_restore"), "--no-owner", "--no-privileges", "--exit-on-error",
        "--single-transaction", "--no-password", "--dbname", server.dsn(name),
    ]  # fmt: skip
    with backup.read_from(path, meter) as stdin:
        done = subprocess.run(
            argv, stdin=stdin, capture_output=True, text=True, check=False, timeout=backup.TIMEOUT_S
        )
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ConfigError(
            f"pg_restore of {path} failed: {said.rstrip('.')}.",
            hint="Nothing was changed. Is there space? df -h",
        )


def swap(server: Server, name: str) -> str:
    """Gives a database the product's name, in one transaction; the name of the one before."""
    if not server.has(name):
        raise InvalidInput(f"There is no database {name}.", hint="ticketctl restore")
    aside = f"{DATABASE}_before_{_stamp().lower()}" if server.has(DATABASE) else ""
    statements = [f"ALTER DATABASE {name} RENAME TO {DATABASE}"]
    if aside:
        statements.insert(0, f"ALTER DATABASE {DATABASE} RENAME TO {aside}")
    cut_off = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"  # noqa: S608  # names of ours
        f" WHERE datname IN ('{DATABASE}', '{name}') AND pid <> pg_backend_pid()"
    )
    for left in reversed(range(_SWAPS)):
        try:
            server.ask(cut_off, *statements)
        except Unavailable:
            if not left:
                raise
        else:
            break
    return aside


def move(
    config: Config,
    manager: UserManager,
    source: Path | None,
    *,
    running: Mapping[int, int],
    meter: Meter = SILENT,
) -> tuple[Path, Restored]:
    """Moves to a cluster of the newest release: from a backup, or from a dump taken just then.

    The database is away meanwhile, so that nothing is acknowledged that the new one would not have.

    Returns the backup it was made of, and what became of it.

    Raises:
        InvalidInput: the file is no whole backup; nothing was changed.
        ConfigError: a release is missing, or PostgreSQL refuses; nothing was changed.
    """
    old = None if source else postgres.wanted_release(config)
    manager.stop(UNIT)
    try:
        path = source or _dump_of_now(config, old or postgres.newest_release(), meter)
        return path, _into_new_cluster(config, manager, path, running=running, meter=meter)
    except BaseException:
        if postgres.cluster_path(config).exists():
            with suppress(TicketError):
                manager.start(UNIT)
        raise


def _dump_of_now(config: Config, release: Path, meter: Meter) -> Path:
    cluster = postgres.cluster_path(config)
    if not cluster.exists():
        raise ConfigError(
            f"There is no cluster at {cluster} to dump.",
            hint="ticketctl restore --new-cluster latest",
        )
    with _served(config, cluster, release) as server:
        newest = postgres.newest_release() / "bin"  # reads all older ones
        return backup.make(config, replace(server, programs=newest), meter=meter)[0].path


def _into_new_cluster(
    config: Config, manager: UserManager, path: Path, *, running: Mapping[int, int], meter: Meter
) -> Restored:
    """Makes a cluster of the newest release from a backup; the old one is put aside."""
    release = postgres.newest_release()
    backup.verify(path, release / "bin", meter=meter)
    cluster = postgres.cluster_path(config)
    fresh = cluster.with_name(f"{cluster.name}.new")
    _clear(fresh, release)
    try:
        postgres.make_cluster(fresh, release)
        with _served(config, fresh, release) as server:
            done = fill(server, DATABASE, path, running=running, meter=meter)
    except BaseException:
        _clear(fresh, release)
        raise
    manager.stop(UNIT)  # a ticket's start brings it up
    aside = ""
    if os.path.lexists(cluster):
        number = postgres.cluster_release(config) or "unknown"
        aside = str(cluster.with_name(f"{cluster.name}.{number}-{_stamp()}"))
        cluster.rename(aside)
    fresh.rename(cluster)
    postgres.relink(config, release)
    if manager.unit(UNIT).active == "failed":
        manager.reset_failed(UNIT)
    manager.start(UNIT)
    return Restored(kept=aside, unconfirmed=done.unconfirmed, migrations=done.migrations)


@contextmanager
def _served(config: Config, cluster: Path, release: Path) -> Iterator[Server]:
    """A server of a cluster that nobody else knows of, for a moment."""
    sockets = config.runtime_dir / "postgres-new"
    sockets.mkdir(mode=0o700, parents=True, exist_ok=True)
    _control(
        release, cluster, "start", f"--log={cluster}/restore.log",
        f"--options=-k {sockets} -c listen_addresses=",
    )  # fmt: skip
    try:
        yield Server(release / "bin", f"host={sockets}")
    finally:
        _control(release, cluster, "stop", "--mode=fast")
        shutil.rmtree(sockets, ignore_errors=True)


def _control(release: Path, cluster: Path, verb: str, *options: str) -> None:
    argv = [
        str(release / "bin" / "pg_ctl"), verb, f"--pgdata={cluster}", "--wait",
        f"--timeout={_START_S}", "--silent", *options,
    ]  # fmt: skip
    # no pipes: the server inherits them and holds them open
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        check=False,
    )  # fmt: skip
    if done.returncode:
        raise ConfigError(
            f"PostgreSQL does not {verb} on {cluster}.",
            hint=f"See {cluster}/restore.log; or take a backup: ticketctl restore --new-cluster latest",
        )


def _clear(fresh: Path, release: Path) -> None:
    """Removes what a restore that was killed left, with the server that may run on it."""
    if (fresh / "postmaster.pid").exists():
        try:
            _control(release, fresh, "stop", "--mode=immediate")
        except ConfigError:
            (fresh / "postmaster.pid").unlink(missing_ok=True)
    if fresh.exists():
        shutil.rmtree(fresh)


def restart_services(manager: UserManager) -> None:
    """What they remember is of the database before."""
    for unit in install_services.SERVICES:
        if manager.unit(unit).active not in {"inactive", "failed"}:
            manager.restart(unit)


def _stamp() -> str:
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
