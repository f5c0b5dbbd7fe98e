"""`ticketctl setup --uninstall`: stops and removes what setup made.

Worktrees are the operator's and stay; so do data and configuration, without `--purge`.
"""

from __future__ import annotations

import getpass
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import click

from orchestrator import systemd
from orchestrator.config import Config, share_path
from orchestrator.errors import TicketError
from orchestrator.install_files import drop_ins, for_the_shell
from orchestrator.install_program import COMMAND, DISTRIBUTION, is_ours
from orchestrator.install_report import Report
from orchestrator.install_services import SERVICES
from orchestrator.unit_files import present, tickets_with_files, timer_link, unit_folder


def uninstall(config: Config, *, manuals: Mapping[str, str], dry_run: bool, purge: bool) -> None:
    """Stops and removes what `install` made; the data only with `purge`."""
    report = Report(dry_run=dry_run)
    files = _unit_files(config)
    report.step("tickets and services stop", _stop if files else None)
    report.step(
        f"units in {unit_folder(config)} are removed",
        partial(_remove_units, files) if files else None,
    )
    texts = [path for path in for_the_shell(manuals) if path.exists()]
    report.step("manuals and completion are removed", partial(_remove, texts) if texts else None)
    ours, command = is_ours(config), Path.home() / COMMAND
    if ours:
        report.step(f"{command} is removed", command.unlink if command.is_symlink() else None)
    for path in (config.data_dir, *((config.state_dir, config.config_dir) if purge else ())):
        report.step(f"{path} is removed", partial(shutil.rmtree, path) if path.exists() else None)
    for path in () if purge else (config.state_dir, config.config_dir):
        if path.exists():
            click.echo(f"  · {path} is kept (--purge removes it)")
    if not ours:
        click.echo(f"The program stays in {sys.prefix}; of pipx: pipx uninstall {DISTRIBUTION}")
    click.echo("Worktrees of tickets are yours and stay; so does lingering: sudo loginctl disable-linger "
               f"{getpass.getuser()}")  # fmt: skip


def _unit_files(config: Config) -> list[Path]:
    folder = unit_folder(config)
    files = [p for p in (folder / u.name for u in share_path("units").iterdir()) if p.exists()]
    files += [p for p in drop_ins(config) if p.exists()]
    for number in tickets_with_files(config):
        files += [f.path for f in present(config, number)]
        files += [p for p in (timer_link(config, number),) if p.is_symlink()]
    return files


def _stop() -> None:
    with systemd.UserManager() as manager:
        names = [*_running_tickets(), "mc.target", "mc-webgate.socket", *SERVICES]
        for unit in [*names, "tmux-mc.service", "mc-postgres.service"]:
            with suppress(TicketError):
                manager.stop(unit)
        with suppress(TicketError):
            manager.disable(["mc.target"])


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink()


def _remove_units(files: Iterable[Path]) -> None:
    for path in files:
        path.unlink()
        if path.parent.name.endswith(".d"):
            with suppress(OSError):  # drop-ins of your own stay
                path.parent.rmdir()
    with systemd.UserManager() as manager:
        manager.reload()


def _running_tickets() -> Iterator[str]:
    done = subprocess.run(
        ["systemctl", "--user", "list-units", "--plain", "--no-legend", "--all", "ticket@*.service"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    for line in done.stdout.splitlines():
        yield line.split()[0]
