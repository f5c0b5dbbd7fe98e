"""The program that setup belongs to, and what it needs of this machine before anything is changed.

Units begin their commands with `~/.local/share/mission-control/venv/bin/`, whoever installed the
program: install.sh puts it there, and what pipx (or uv, or you) put elsewhere is linked to from there.
So the same unit files fit both, byte for byte.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import click

from orchestrator import doctor, doctor_machine, postgres
from orchestrator.config import Config
from orchestrator.errors import ConfigError, Conflict
from orchestrator.install_report import Report

DISTRIBUTION = "mission-control"
COMMAND = Path(".local/bin/ticketctl")  #: in the home
#: program: Debian's package that has it
PROGRAMS = {
    "git": "git",
    "tmux": "tmux",
    "bwrap": "bubblewrap",
    "zstd": "zstd",
    "logrotate": "logrotate",
}
BUS_UNIT = Path("/usr/lib/systemd/user/dbus.socket")
#: Debian's package would start a cluster of its own for the whole machine; we make a private one.
NO_CLUSTER = (
    "mkdir -p /etc/postgresql-common && { [ -e /etc/postgresql-common/createcluster.conf ]"
    " || echo create_main_cluster = false > /etc/postgresql-common/createcluster.conf; }"
)
_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"  # as in a user's units
_NO_LIBRARIES = {"pip", "setuptools", "wheel"}  # pipx shows its own to every program


def ensure_possible(report: Report, config: Config) -> None:
    """Looks whether the machine has what the services need, before the first change.

    Raises:
        ConfigError: it lacks something; the hint is the command that mends it.
    """
    if packages := _missing(config):
        apt = f"apt-get update -qq && apt-get install -y --no-install-recommends {packages}"
        line = f"{NO_CLUSTER} && {apt}" if "postgresql" in packages else apt
        _lacks(report, f"Not installed: {packages}.", f"sudo sh -c '{line}'")
    if doctor_machine.user_bus(os.environ, os.getuid()).verdict != "ok":
        report.step("user bus", _start_bus)
    namespaces = doctor.user_namespaces()
    if namespaces.verdict == "bad":
        _lacks(report, f"The services cannot be confined: {namespaces.found}.", namespaces.mend)


def _lacks(report: Report, message: str, mend: str) -> None:
    if not report.dry_run:
        raise ConfigError(message, hint=f"{mend}; then: ticketctl setup")
    click.echo(f"  {click.style('✗', fg='red')} {message} {mend}")


def _missing(config: Config) -> str:
    missing = [p for name, p in PROGRAMS.items() if shutil.which(name, path=_PATH) is None]
    if not BUS_UNIT.exists():
        missing.append("dbus-user-session")
    if not config.database.url and not postgres.installed_releases():
        missing.append("postgresql")
    return " ".join(missing)


def _start_bus() -> None:
    # the package that brings it would have it started at the next login
    for verb in (["daemon-reload"], ["start", "dbus.socket"]):
        subprocess.run(["systemctl", "--user", *verb], capture_output=True, check=False)
    found = doctor_machine.user_bus(os.environ, os.getuid())
    if found.verdict != "ok":
        raise ConfigError(f"There is no user bus: {found.found}.", hint=found.mend)


def is_ours(config: Config) -> bool:
    """Whether install.sh put the program where the units look for it."""
    venv = _venv(config)
    return venv.is_dir() and not venv.is_symlink()


def ensure_program(report: Report, config: Config) -> None:
    """Has units and shells find this program.

    Raises:
        ConfigError: it is in no virtual environment.
        Conflict: another one is in its place.
    """
    here, venv = Path(sys.prefix), _venv(config)
    if sys.prefix == sys.base_prefix:
        raise ConfigError(
            f"This ticketctl belongs to {sys.executable} itself; services want a virtual environment.",
            hint="Install the wheel with pipx (docs/pipx.md), or run ./install.sh.",
        )
    same = venv.exists() and venv.resolve() == here.resolve()
    if is_ours(config) and not same:
        raise Conflict(
            f"Units run the program in {venv}, which install.sh made; this one is in {here}.",
            hint=f"Keep that one: {venv}/bin/ticketctl setup; or take it away, the data stays:"
            f" {venv}/bin/ticketctl setup --uninstall, and then this again.",
        )
    if venv.is_symlink() or not venv.exists():
        report.step(f"program {here}", None if same else lambda: _link(venv, here))
    ours, command = here / "bin/ticketctl", Path.home() / COMMAND
    linked = command.is_symlink() and command.resolve() == ours.resolve()
    report.step(f"command {command}", None if linked else lambda: _link(command, ours))


def _link(path: Path, target: Path) -> None:
    """Replaces in one step: a unit that starts meanwhile finds the one or the other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    with suppress(FileNotFoundError):
        fresh.unlink()
    fresh.symlink_to(target)
    fresh.replace(path)


def identity() -> str:
    """A sum of this program: where it is, its files, and the libraries it runs with."""
    libraries = {f"{d.name} {d.version}" for d in metadata.distributions()}
    lines = [
        str(Path(sys.prefix).resolve()),
        metadata.distribution(DISTRIBUTION).read_text("RECORD") or "",
        *sorted(each for each in libraries if each.split()[0] not in _NO_LIBRARIES),
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _venv(config: Config) -> Path:
    return config.data_dir / "venv"
