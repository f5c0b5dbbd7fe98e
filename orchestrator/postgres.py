"""The embedded PostgreSQL: Debian's binaries, a private cluster, a Unix socket.

Made here once; run by mc-postgres.service. With `database.url` set none of this is used.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from orchestrator.config import Config
from orchestrator.errors import ConfigError, Unavailable

DATABASE = "mission_control"
_DEBIAN = Path("/usr/lib/postgresql")
_PATIENCE_S = 60  # for a statement of ours, none of which reads a table


@dataclass(frozen=True, slots=True)
class Server:
    """A running PostgreSQL, and the folder of programs that speak to it."""

    programs: Path
    where: str  #: how libpq finds it, without a database: "host=/run/user/1000/…"

    def dsn(self, name: str) -> str:
        """What libpq is given for one of its databases."""
        return f"{self.where} dbname={name}"

    def ask(self, *sql: str, name: str = "postgres") -> str:
        """What psql prints, unaligned; several statements are one transaction.

        Raises:
            Unavailable: the server does not answer, or refuses.
        """
        argv = [
            str(self.programs / "psql"), "--no-psqlrc", "--quiet", "--tuples-only", "--no-align",
            "--dbname", self.dsn(name), "--set", "ON_ERROR_STOP=1",
            *(["--single-transaction"] if len(sql) > 1 else []),
            *(f"--command={statement}" for statement in sql),
        ]  # fmt: skip
        try:
            done = subprocess.run(
                argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
                timeout=_PATIENCE_S,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise Unavailable(f"PostgreSQL did not answer within {_PATIENCE_S} s.") from None
        if done.returncode:
            said = done.stderr.strip().splitlines() or [f"psql left with {done.returncode}"]
            raise Unavailable(
                f"The embedded PostgreSQL does not answer: {said[-1].rstrip('.')}.",
                hint="systemctl --user status mc-postgres.service",
            )
        return done.stdout.strip()

    def has(self, name: str) -> bool:
        """Whether there is a database of that name."""
        return name in self.ask("SELECT datname FROM pg_database").splitlines()


def embedded(config: Config) -> Server:
    """The server that mc-postgres.service runs."""
    return Server(link_path(config) / "bin", f"host={config.runtime_dir}/postgres")


def cluster_path(config: Config) -> Path:
    """The data directory, as mc-postgres.service says it."""
    return config.state_dir / "postgres"


def link_path(config: Config) -> Path:
    """`postgresql` -> /usr/lib/postgresql/N, so that the unit needs no number in it."""
    return config.data_dir / "postgresql"


def installed_releases() -> list[Path]:
    """/usr/lib/postgresql/N of every release whose server is installed, the newest last."""
    found = (p.parent.parent for p in _DEBIAN.glob("*/bin/initdb"))
    return sorted(found, key=lambda p: float(p.name))


def newest_release() -> Path:
    """The newest release that is installed.

    Raises:
        ConfigError: there is none.
    """
    installed = installed_releases()
    if not installed:
        raise ConfigError("PostgreSQL is not installed.", hint="sudo apt install postgresql")
    return installed[-1]


def cluster_release(config: Config) -> str | None:
    """The major release that made the cluster, "17"; None where there is no cluster."""
    try:
        return (cluster_path(config) / "PG_VERSION").read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return None


def wanted_release(config: Config) -> Path:
    """The release the cluster was made with, or the newest that is installed.

    Raises:
        ConfigError: it is not installed.
    """
    number = cluster_release(config)
    if number is None:
        return newest_release()
    if _DEBIAN / number in installed_releases():
        return _DEBIAN / number
    newest = newest_release().name
    raise ConfigError(
        f"The database was made by PostgreSQL {number}, which is not installed any more;"
        f" {newest} is.",
        hint=f"sudo apt install postgresql-{number}; or move to {newest} with the newest backup:"
        " ticketctl restore --new-cluster",
    )


def relink(config: Config, release: Path) -> bool:
    """Has the unit run that release from its next start on; False: it does already."""
    link = link_path(config)
    if link.is_symlink() and link.readlink() == release:
        return False
    fresh = link.with_name(f".{link.name}.new")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(release)
    fresh.replace(link)
    return True


def make_cluster(path: Path, release: Path) -> None:
    """initdb; nothing of a half-made cluster is left when it fails."""
    initdb = release / "bin" / "initdb"
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


def ensure_database(server: Server) -> bool:
    """CREATE DATABASE mission_control in the running cluster; False: it was there."""
    if server.has(DATABASE):
        return False
    server.ask(f"CREATE DATABASE {DATABASE}")
    return True
