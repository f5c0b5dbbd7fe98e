"""What setup starts: the database cluster, lingering, the services, and the gateway's first answer.

Everything is asked first, so that what runs already is left alone.
"""

from __future__ import annotations

import getpass
import hashlib
import shutil
import subprocess
import time
from functools import partial
from pathlib import Path

import click

from orchestrator import backup, doctor, postgres, systemd
from orchestrator import config as configuration
from orchestrator.config import Config
from orchestrator.config_tables import Gateway
from orchestrator.errors import ConfigError, Unavailable
from orchestrator.install_files import OF_EMBEDDED
from orchestrator.install_program import identity
from orchestrator.install_report import Report, content
from orchestrator.store.db import Database
from orchestrator.store.migrate import ensure_schema
from orchestrator.unit_files import unit_folder

SERVICES = (
    "mc-ingest.service",
    "mc-dispatch.service",
    "mc-webgate.service",
)  # restarted when the program or the configuration changed
GATEWAY_TIMEOUT_S = 10.0


def ensure_cluster(report: Report, config: Config) -> None:
    """The embedded database's files, made by the release that runs them."""
    release = postgres.wanted_release(config)
    link, path = postgres.link_path(config), postgres.cluster_path(config)
    made = postgres.cluster_release(config) is not None
    if not made and (left := _left_of_clusters(config)):
        raise ConfigError(
            f"There is no database cluster at {path}, but {left}.",
            hint="Put it back: ticketctl restore --new-cluster latest; or, to begin with nothing,"
            " move that away.",
        )
    report.step(
        f"PostgreSQL {release.name}",
        None
        if link.is_symlink() and link.readlink() == release
        else partial(postgres.relink, config, release),
    )
    report.step(
        "private database cluster",
        None if made else partial(postgres.make_cluster, path, release),
    )
    if release != (newest := postgres.newest_release()):
        click.echo(
            f"    PostgreSQL {newest.name} is installed too; the database moves to it with"
            " `ticketctl restore --new-cluster`, its backup taken just then"
        )


def _left_of_clusters(config: Config) -> str:
    """What says that there was a database: an empty one must not silently take its place."""
    path = postgres.cluster_path(config)
    aside = sorted(p.name for p in path.parent.glob(f"{path.name}.*") if p.is_dir())
    if aside:
        return f"{aside[-1]} beside it"
    backups = backup.listed(config.backup_dir)
    return f"{len(backups)} backups, the newest {backups[-1].path}" if backups else ""


def ensure_linger(report: Report) -> None:
    """Has the user's manager start at boot and outlive a login."""
    user = getpass.getuser()

    def enable() -> None:
        # without: at a terminal it looks for polkit's agent first, and complains there when it is not installed
        tried: list[list[str]] = [["loginctl", "--no-ask-password", "enable-linger", user]]
        tried.append(["sudo", "-n", *tried[0]])
        if not any(
            subprocess.run(c, capture_output=True, check=False).returncode == 0
            for c in tried
            if shutil.which(c[0])
        ):
            raise ConfigError(
                "Lingering could not be switched on: tickets would end when you log out.",
                hint=f"sudo loginctl enable-linger {user}",
            )

    on = Path(f"/var/lib/systemd/linger/{user}").exists()
    report.step("tickets outlive your login (linger)", None if on else enable)


def ensure_running(report: Report, config: Config, manager: systemd.UserManager) -> None:
    """Database, schema, services: this version of them, with these settings."""
    if not config.database.url:
        running = manager.unit("mc-postgres.service").active == "active"
        report.step(
            "PostgreSQL runs", None if running else lambda: manager.start("mc-postgres.service")
        )
        if postgres.ensure_database(postgres.embedded(config)):
            report.step("database mission_control", lambda: None)
    applied = ensure_schema(Database(config.database_dsn, application="setup"))
    report.step(
        "schema" + (f": {', '.join(applied)}" if applied else ""),
        (lambda: None) if applied else None,
    )
    ran = config.data_dir / "running.sha256"
    settings = b"".join(content(path) for path in configuration.resolve().files)
    now = f"{identity()} {hashlib.sha256(settings).hexdigest()}".encode()

    def restart() -> None:
        _ensure_listens(config, manager)
        for unit in SERVICES:
            if manager.unit(unit).active not in {"inactive", "failed"}:
                manager.restart(unit)
        ran.write_bytes(now)

    if now != content(ran):
        report.step("services run this version, with these settings", restart)
    wanted = [
        "mc.target",
        "tmux-mc.service",
        "mc-ingest.service",
        "mc-dispatch.service",
        "mc-webgate.socket",
        "mc-reconcile.timer",
        "mc-heartbeat.timer",
        "mc-logrotate.timer",
        *(() if config.database.url else ("mc-backup.timer",)),
    ]
    idle = [u for u in wanted if manager.unit(u).active != "active"]

    def start() -> None:
        for unit in [*wanted[1:], wanted[0]]:
            manager.start(unit)

    report.step("services run", start if idle else None)


def _ensure_listens(config: Config, manager: systemd.UserManager) -> None:
    """Has the socket listen where it is to by now.

    A reload drops the old address of a socket that listens and does not take up the new one; a restart does,
    which systemd refuses while the service runs. Where the address is as it was, nobody is refused.
    """
    listens = config.data_dir / "listens"
    before, now = content(listens) or Gateway().listen.encode(), config.gateway.listen.encode()
    if now != before and manager.unit("mc-webgate.socket").active != "inactive":
        manager.stop("mc-webgate.service")
        manager.restart("mc-webgate.socket")
    listens.write_bytes(now)


def retire_embedded(report: Report, config: Config, manager: systemd.UserManager) -> None:
    """The embedded database's units go once the other one is in use; the cluster itself stays."""
    left = [path for name in OF_EMBEDDED if (path := unit_folder(config) / name).is_file()]

    def retire() -> None:
        for path in left:
            manager.stop(path.name)
            path.unlink()
        manager.reload()

    report.step("the embedded PostgreSQL is not used", retire if left else None)


def wait_for_gateway(config: Config) -> None:
    """Until it answers, by whatever its socket is.

    Raises:
        Unavailable: it does not.
    """
    deadline = time.monotonic() + GATEWAY_TIMEOUT_S
    while True:
        try:
            with doctor.connect_to_gateway(config) as peer:
                peer.settimeout(GATEWAY_TIMEOUT_S)
                host = config.gateway_url.partition("//")[2]
                peer.sendall(f"GET /healthz HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
                if b" 200 " in peer.recv(64):
                    return
                raise ConnectionError("it answers something else")
        except OSError as error:
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"The gateway does not answer at {config.gateway.listen}: {error}.",
                    hint="journalctl --user -u mc-webgate.service -n 20",
                ) from None
            time.sleep(0.2)  # it is being restarted; its socket is there already
