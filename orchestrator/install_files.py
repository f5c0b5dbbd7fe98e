"""The files that setup puts in place: configuration, folders, token, units, documents, man pages.

Copied byte for byte or written whole, where they differ from what is there. What has to be started
for them is `install_services.py`'s.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from orchestrator import completion
from orchestrator import config as configuration
from orchestrator.config import Config, share_path
from orchestrator.config_tables import Gateway, Tmux
from orchestrator.errors import ConfigError
from orchestrator.install_report import Report, copy_files, write_texts
from orchestrator.unit_files import unit_folder

OF_EMBEDDED = (
    "mc-backup.timer",
    "mc-backup.service",
    "mc-postgres.service",
)  # of no use with a database of one's own


def unit_files(config: Config) -> list[Path]:
    """The units of this configuration, as they come with the product."""
    found = sorted(p for p in share_path("units").iterdir() if p.suffix != ".j2")
    return [p for p in found if not (config.database.url and p.name in OF_EMBEDDED)]


def drop_ins(config: Config) -> dict[Path, str | None]:
    """What the configuration changes in units: file to content; None: it must not be there."""
    listen = socket = None
    if config.gateway.listen != Gateway().listen:
        listen = f"[Socket]\nListenStream=\nListenStream={config.gateway.listen}\n"
        if isinstance(config.listen_address, Path):
            # The token guards it too; this keeps other users from even asking.
            listen += "SocketMode=0600\nDirectoryMode=0700\nNoDelay=no\n"
    if config.tmux.socket != Tmux().socket:
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


def ensure_settings(report: Report, listen: str | None) -> Config:
    """Writes the commented config.toml where there is none; what is in force then."""
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


def ensure_folders(report: Report, config: Config) -> None:
    """Folders of ours, and the token in one of them."""
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


def ensure_units(report: Report, config: Config) -> bool:
    """Units, their drop-ins, and what they point to; whether systemd has to be told."""
    folder = unit_folder(config)
    changed = copy_files(
        report, f"units in {folder}", {folder / p.name: p for p in unit_files(config)}
    )
    docs = share_path("docs")
    wanted = {config.data_dir / "tmux.conf": share_path("templates", "tmux.conf")}
    wanted |= {config.data_dir / "docs" / p.name: p for p in docs.glob("*.md")}
    copy_files(report, f"documents and tmux.conf in {config.data_dir}", wanted)
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


def ensure_manuals(report: Report, manuals: Mapping[str, str]) -> None:
    """Man pages, by file name, and completion."""
    write_texts(report, "manuals and completion", for_the_shell(manuals))
