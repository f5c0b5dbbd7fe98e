"""A PostgreSQL of the test run's own: a throw-away cluster on a Unix socket, quick and not durable.

Speaks to the real server, since the store is written for nothing else. PostgreSQL does not run as
root, so under root it runs as `nobody`. Not for tests of durability: fsync is off.
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psycopg2

from orchestrator.store.db import Database
from orchestrator.store.migrate import ensure_schema

SUPERUSER = "mc"
SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "16MB",
    "max_connections": "60",
    "autovacuum": "off",
}


def bin_path() -> Path | None:
    """The folder of the newest PostgreSQL's server programs; None where there is none."""
    on_path = shutil.which("initdb")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[4]))
    path = Path(on_path) if on_path else (found[-1] if found else None)
    return path.resolve().parent if path else None


class Cluster:
    """A running server. `stop` and `start` play an outage, `freeze` and `thaw` a hang."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._numbers = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None
        # Unix socket paths are short, so not below pytest's own folder.
        self.folder = Path(tempfile.mkdtemp(prefix="mc-pg-"))
        self._user = "nobody" if os.getuid() == 0 else None
        if self._user:
            account = pwd.getpwnam(self._user)
            os.chown(self.folder, account.pw_uid, account.pw_gid)
        initdb = ["initdb", "--no-sync", "--no-instructions", "--auth=trust", "--encoding=UTF8"]
        self._run(
            [*initdb, "--locale=C", f"--username={SUPERUSER}", f"--pgdata={self.folder}/data"]
        )
        self.start()
        self._create("mc_template", "template0")
        template = Database(self.dsn("mc_template"))
        ensure_schema(template)
        template.close()

    def dsn(self, name: str) -> str:
        """What libpq is given for one of its databases."""
        return f"host={self.folder} user={SUPERUSER} dbname={name}"

    def create_database(self) -> str:
        """A fresh one with the schema in it; its DSN."""
        name = f"test_{next(self._numbers)}"
        self._create(name, "mc_template")
        return self.dsn(name)

    def start(self) -> None:
        """Returns when it answers."""
        settings = [f"-c{key}={value}" for key, value in SETTINGS.items()]
        argv = [f"--pgdata={self.folder}/data", "--wait", "--silent", f"--log={self.folder}/log"]
        options = " ".join([f"-k {self.folder}", *(f"'{s}'" for s in settings)])
        self._run(["pg_ctl", "start", *argv, f"--options={options}"])

    def stop(self) -> None:
        """Cuts everybody off, and keeps what was committed."""
        data = f"--pgdata={self.folder}/data"
        self._run(["pg_ctl", "stop", data, "--mode=fast", "--wait", "--silent"])

    def freeze(self) -> None:
        """It, and every backend, keeps connections open and says nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on."""
        self._signal(signal.SIGCONT)

    def destroy(self) -> None:
        """Stops it and removes everything."""
        self.thaw()
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _signal(self, number: signal.Signals) -> None:
        postmaster = int((self.folder / "data/postmaster.pid").read_text().splitlines()[0])
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        for pid in (postmaster, *map(int, children)):
            os.kill(pid, number)

    def _create(self, name: str, template: str) -> None:
        connection = psycopg2.connect(self.dsn("postgres"))
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        connection.close()

    def _run(self, argv: list[str]) -> None:
        done = subprocess.run(
            [self._programs / argv[0], *argv[1:]],
            cwd=self.folder,
            user=self._user,
            group=pwd.getpwnam(self._user).pw_gid if self._user else None,
            extra_groups=[] if self._user else None,
            stdin=subprocess.DEVNULL,
            # Not a pipe: the server inherits it and would hold it open.
            stdout=(self.folder / "said").open("wb"),
            stderr=subprocess.STDOUT,
            timeout=60,
            check=False,
        )
        if done.returncode != 0:
            said = (self.folder / "said").read_text(errors="replace")
            print(said, file=sys.stderr)
            raise RuntimeError(f"{argv[0]} failed: {said[-500:]}")
