"""What `ticketctl setup` does: folders, units, database, linger, services.

Everything that needs no root; install.sh brings the system's packages and this program first.
Each step looks whether it is done already, so that a second run changes nothing and says so.
"""

from __future__ import annotations

import filecmp
import getpass
import hashlib
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import click

from orchestrator import backup, completion, doctor, postgres, systemd
from orchestrator import config as configuration
from orchestrator.config import Config, share_path
from orchestrator.errors import ConfigError, TicketError, Unavailable
from orchestrator.store import logins
from orchestrator.store.db import Database
from orchestrator.store.migrate import ensure_schema
from orchestrator.unit_files import present, tickets_with_files, timer_link, unit_folder

SERVICES = (
    "mc-ingest.service",
    "mc-dispatch.service",
    "mc-webgate.service",
)  # restarted when the program or the configuration changed
OF_EMBEDDED = (
    "mc-backup.timer",
    "mc-backup.service",
    "mc-postgres.service",
)  # of no use with a database of one's own
GATEWAY_TIMEOUT_S = 10.0


class Report:
    """One line a step, and the sum of what changed."""

    def __init__(self, *, dry_run: bool) -> None:
        self.dry_run = dry_run
        self.changed = 0

    def step(self, what: str, act: Callable[[], object] | None) -> None:
        """Does `act` and says so; None: it was done already."""
        if act is None:
            click.echo(f"  {click.style('·', fg='green')} {what}")
            return
        self.changed += 1
        if self.dry_run:
            click.echo(f"  {click.style('+', fg='yellow')} {what}: would be done")
            return
        begun = time.monotonic()
        act()
        click.echo(f"  {click.style('✓', fg='green')} {what} ({time.monotonic() - begun:.1f} s)")


def unit_files(config: Config) -> list[Path]:
    """The units of this configuration, as they come with the product."""
    found = sorted(p for p in share_path("units").iterdir() if p.suffix != ".j2")
    return [p for p in found if not (config.database.url and p.name in OF_EMBEDDED)]


def drop_ins(config: Config) -> dict[Path, str | None]:
    """What the configuration changes in units: file to content; None: it must not be there."""
    listen = socket = None
    if config.gateway.listen != configuration.Gateway().listen:
        listen = f"[Socket]\nListenStream=\nListenStream={config.gateway.listen}\n"
        if isinstance(config.listen_address, Path):
            # The token guards it too; this keeps other users from even asking.
            listen += "SocketMode=0600\nDirectoryMode=0700\nNoDelay=no\n"
    if config.tmux.socket != configuration.Tmux().socket:
        socket = f"[Service]\nEnvironment=MC_TMUX_SOCKET={config.tmux.socket}\n"
    backups = None
    if not config.database.url and not config.backup_dir.is_relative_to(config.state_dir):
        # "-": a disk that is not there keeps the backup from its folder, and the backup says so
        backups = f"[Service]\nReadWritePaths={_quoted(config.backup_dir, '-')}\n"
    folder = unit_folder(config)
    return {
        folder / "mc-backup.service.d" / "50-mission-control.conf": backups,
        folder / "mc-webgate.socket.d" / "50-mission-control.conf": listen,
        folder / "tmux-mc.service.d" / "50-mission-control.conf": socket,
    }


def _quoted(path: Path, mark: str = "") -> str:
    """A path as one word of a unit file, with the directive's own mark before it."""
    if not str(path).isprintable():
        raise ConfigError(
            "The folder for backups has a name that no unit can hold.", hint="Set [backup] folder."
        )
    text = str(path).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{mark}{text}"'


def install(
    *, manuals: Mapping[str, str], listen: str | None = None, dry_run: bool = False
) -> None:
    """Brings everything up to date and prints a login link.

    Args:
        manuals: the man pages, by file name.
        listen: another address of the gateway.
        dry_run: only say what would be done.
    """
    report = Report(dry_run=dry_run)
    config = _settings(report, listen)
    _files(report, config)
    units_changed = _units(report, config)
    _texts(report, "manuals and completion", for_the_shell(manuals))
    if not config.database.url:
        _cluster(report, config)
    _linger(report)
    if dry_run:
        click.echo(f"Nothing was done; {report.changed} steps would be.")
        return
    with systemd.UserManager() as manager:
        if units_changed:
            manager.reload()
        if manager.unit("mc.target").unit_file != "enabled":
            report.step("mc.target starts at boot", lambda: manager.enable(["mc.target"]))
        _start(report, config, manager)
        if config.database.url:
            _retire_embedded(report, config, manager)
    _gateway(config)
    click.echo(
        "Nothing had to be changed." if not report.changed else f"{report.changed} steps done."
    )
    click.echo()
    checks = doctor.examine(config)
    for check in checks:
        if check.verdict != "ok":
            click.echo(f"{check.verdict:>4}  {check.name}: {check.found}\n      {check.mend}")
    bad = [c for c in checks if c.verdict == "bad"]
    if bad:
        raise ConfigError(f"{len(bad)} checks failed.", hint="ticketctl doctor")
    click.echo(f"doctor: {len(checks)} checks, nothing missing that everything needs.")
    link = logins.create_link(Database(config.database_dsn), valid_s=logins.INSTALL_LINK_S)
    click.echo(
        f"\nOpen in a browser, within {logins.INSTALL_LINK_S // 60} minutes (later: ticketctl open):"
    )
    click.echo(f"  {config.gateway_url}/login?code={link}")


def _settings(report: Report, listen: str | None) -> Config:
    config = configuration.load()
    path = config.config_dir / "config.toml"
    text = share_path("templates", "config.toml").read_text(encoding="utf-8")
    if listen is not None:
        text = text.replace('# listen = "127.0.0.1:3001"', f'listen = "{listen}"')

    def write() -> None:
        config.config_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    if path.exists():
        if listen is not None and config.gateway.listen != listen:
            raise ConfigError(
                f"{path} says listen = {config.gateway.listen!r}.", hint="Change it there."
            )
        report.step(f"configuration {path}", None)
        return config
    if listen is not None:
        configuration.load(
            {**os.environ, "MC_GATEWAY_LISTEN": listen}
        )  # refused before it is written
    report.step(f"configuration {path}", write)
    return configuration.load()


def _files(report: Report, config: Config) -> None:
    wanted = [config.state_dir, config.data_dir]
    if not config.database.url:
        wanted.append(config.backup_dir)  # for its unit, which may write there and not beside it
    folders = [p for p in wanted if not p.is_dir()]

    def make_folders() -> None:
        for folder in folders:
            folder.mkdir(mode=0o700, parents=True)

    report.step("folders", make_folders if folders else None)

    def make_token() -> None:
        fd = os.open(config.token_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "w") as file:
            file.write(secrets.token_urlsafe(32) + "\n")

    report.step("token for programs", None if config.token_path.exists() else make_token)
    ours = Path(sys.executable).parent / "ticketctl"
    command = Path.home() / ".local/bin/ticketctl"

    def link() -> None:
        command.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            command.unlink()
        command.symlink_to(ours)

    report.step(
        f"command {command}", None if command.is_symlink() and command.readlink() == ours else link
    )


def _copy_all(report: Report, what: str, wanted: dict[Path, Path]) -> bool:
    """Copies source files byte for byte where they differ."""
    stale = [
        (target, source)
        for target, source in wanted.items()
        if not (target.is_file() and filecmp.cmp(source, target, shallow=False))
    ]

    def copy() -> None:
        for target, source in stale:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)

    report.step(what, copy if stale else None)
    return bool(stale)


def _units(report: Report, config: Config) -> bool:
    folder = unit_folder(config)
    changed = _copy_all(
        report, f"units in {folder}", {folder / p.name: p for p in unit_files(config)}
    )
    docs = share_path("docs")
    wanted = {config.data_dir / "tmux.conf": share_path("templates", "tmux.conf")}
    wanted |= {config.data_dir / "docs" / p.name: p for p in docs.glob("*.md")}
    _copy_all(report, f"documents and tmux.conf in {config.data_dir}", wanted)
    for path, text in drop_ins(config).items():
        there = path.read_text(encoding="utf-8") if path.exists() else None
        if there == text:
            continue
        changed = True

        def write(path: Path = path, text: str | None = text) -> None:
            if text is None:
                path.unlink()
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")

        report.step(f"drop-in {path.parent.name}", write)
    return changed


def for_the_shell(manuals: Mapping[str, str]) -> dict[Path, str]:
    """Man pages, and completions of the shells that are there, by path."""
    folder = Path.home() / ".local/share/man"
    found = {folder / f"man{name[-1]}" / name: text for name, text in manuals.items()}
    for shell, path in completion.places(os.environ).items():
        found[path] = completion.script(shell)
    return found


def _texts(report: Report, what: str, wanted: Mapping[Path, str]) -> None:
    stale = {path: text.encode() for path, text in wanted.items() if _bytes(path) != text.encode()}

    def write() -> None:
        for path, text in stale.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text)

    report.step(what, write if stale else None)


def _cluster(report: Report, config: Config) -> None:
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


def _linger(report: Report) -> None:
    user = getpass.getuser()

    def enable() -> None:
        tried: list[list[str]] = [["loginctl", "enable-linger", user]]
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


def _start(report: Report, config: Config, manager: systemd.UserManager) -> None:
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
    program, ran = Path(sys.prefix) / "source.sha256", config.data_dir / "running.sha256"
    now = _bytes(program).strip() + b" "
    settings = b"".join(_bytes(path) for path in configuration.resolve().files)
    now += hashlib.sha256(settings).hexdigest().encode()

    def restart() -> None:
        for unit in SERVICES:
            if manager.unit(unit).active not in {"inactive", "failed"}:
                manager.restart(unit)
        ran.write_bytes(now)

    if now != _bytes(ran):
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


def _retire_embedded(report: Report, config: Config, manager: systemd.UserManager) -> None:
    """The embedded database's units go once the other one is in use; the cluster itself stays."""
    left = [path for name in OF_EMBEDDED if (path := unit_folder(config) / name).is_file()]

    def retire() -> None:
        for path in left:
            manager.stop(path.name)
            path.unlink()
        manager.reload()

    report.step("the embedded PostgreSQL is not used", retire if left else None)


def _bytes(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def _gateway(config: Config) -> None:
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


def _running_tickets() -> Iterator[str]:
    done = subprocess.run(
        ["systemctl", "--user", "list-units", "--plain", "--no-legend", "--all", "ticket@*.service"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    for line in done.stdout.splitlines():
        yield line.split()[0]


def uninstall(config: Config, *, manuals: Mapping[str, str], dry_run: bool, purge: bool) -> None:
    """Stops and removes what `install` made; the data only with `purge`."""
    report = Report(dry_run=dry_run)
    folder = unit_folder(config)
    files = [p for p in (folder / u.name for u in share_path("units").iterdir()) if p.exists()]
    files += [p for p in drop_ins(config) if p.exists()]
    for number in tickets_with_files(config):
        files += [f.path for f in present(config, number)]
        files += [p for p in (timer_link(config, number),) if p.is_symlink()]

    def stop() -> None:
        with systemd.UserManager() as manager:
            names = [*_running_tickets(), "mc.target", "mc-webgate.socket", *SERVICES]
            for unit in [*names, "tmux-mc.service", "mc-postgres.service"]:
                with suppress(TicketError):
                    manager.stop(unit)
            with suppress(TicketError):
                manager.disable(["mc.target"])

    def remove_units() -> None:
        for path in files:
            path.unlink()
            if path.parent.name.endswith(".d"):
                with suppress(OSError):  # drop-ins of your own stay
                    path.parent.rmdir()
        with systemd.UserManager() as manager:
            manager.reload()

    report.step("tickets and services stop", stop if files else None)
    report.step(f"units in {folder} are removed", remove_units if files else None)
    texts = [path for path in for_the_shell(manuals) if path.exists()]

    def remove_texts() -> None:
        for path in texts:
            path.unlink()

    report.step(
        "manuals and completion are removed",
        remove_texts if texts else None,
    )
    command = Path.home() / ".local/bin/ticketctl"
    report.step(f"{command} is removed", command.unlink if command.is_symlink() else None)
    report.step(
        f"{config.data_dir} is removed",
        (lambda: shutil.rmtree(config.data_dir)) if config.data_dir.exists() else None,
    )
    for path in (config.state_dir, config.config_dir):
        if purge:
            report.step(
                f"{path} is removed", partial(shutil.rmtree, path) if path.exists() else None
            )
        elif path.exists():
            click.echo(f"  · {path} is kept (--purge removes it)")
    click.echo("Worktrees of tickets are yours and stay; so does lingering: sudo loginctl disable-linger "
               f"{getpass.getuser()}")  # fmt: skip
