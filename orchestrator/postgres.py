"""The embedded PostgreSQL: Debian's binaries, a private cluster, a Unix socket.

Made here once; run by mc-postgres.service. With `database.url` set none of this is used.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from orchestrator.config import Config
from orchestrator.errors import ConfigError

_DEBIAN = Path("/usr/lib/postgresql")


def cluster_path(config: Config) -> Path:
    """The data directory, as mc-postgres.service says it."""
    return config.state_dir / "postgres"


def link_path(config: Config) -> Path:
    """`postgresql` -> /usr/lib/postgresql/N, so that the unit needs no number in it."""
    return config.data_dir / "postgresql"


def wanted_release(config: Config) -> Path:
    """The release the cluster was made with, or the newest that is installed.

    Raises:
        ConfigError: it is not installed.
    """
    installed = sorted(
        (p.parent.parent for p in _DEBIAN.glob("*/bin/initdb")), key=lambda p: float(p.name)
    )
    version = cluster_path(config) / "PG_VERSION"
    if version.exists():
        number = version.read_text(encoding="ascii").strip()
        if _DEBIAN / number in installed:
            return _DEBIAN / number
        raise ConfigError(
            f"The database was made by PostgreSQL {number}, which is not installed any more.",
            hint=f"sudo apt install postgresql-{number}",
        )
    if not installed:
        raise ConfigError("PostgreSQL is not installed.", hint="sudo apt install postgresql")
    return installed[-1]


def make_cluster(config: Config) -> None:
    """initdb; nothing of a half-made cluster is left when it fails."""
    path = cluster_path(config)
    initdb = wanted_release(config) / "bin" / "initdb"
    done = subprocess.run(
        [str(initdb), "--pgdata", str(path), "--auth-local=peer", "--auth-host=reject",
         "--encoding=UTF8", "--locale=C.UTF-8", "--data-checksums", "--no-instructions"],
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
        raise ConfigError(
            f"initdb failed: {last[0]}.", hint=f"Try by hand: {initdb} --pgdata {path}"
        )


def ensure_database(config: Config) -> bool:
    """CREATE DATABASE mission_control in the running cluster; False: it was there."""
    psql = [
        str(link_path(config) / "bin" / "psql"), "--no-psqlrc", "--quiet", "--tuples-only", "--no-align",
        "--host", str(config.runtime_dir / "postgres"), "--dbname", "postgres", "--set", "ON_ERROR_STOP=1",
    ]  # fmt: skip

    def ask(sql: str) -> str:
        done = subprocess.run(
            [*psql, "--command", sql], capture_output=True, text=True, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if done.returncode:
            raise ConfigError(
                f"The embedded PostgreSQL does not answer: {done.stderr.strip()}",
                hint="systemctl --user status mc-postgres.service",
            )
        return done.stdout.strip()

    if ask("SELECT 1 FROM pg_database WHERE datname = 'mission_control'"):
        return False
    ask("CREATE DATABASE mission_control")
    return True
