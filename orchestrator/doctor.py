"""What Mission Control needs of this machine: what is there, what is wrong, the command that mends it."""

from __future__ import annotations

import getpass
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from orchestrator import backup, doctor_machine, doctor_services, isolation, tmux
from orchestrator.config import Config
from orchestrator.doctor_machine import Check
from orchestrator.drivers import driver_names
from orchestrator.drivers.environ import agent_environ
from orchestrator.drivers.table import of_table
from orchestrator.errors import TicketError, Unavailable
from orchestrator.store.db import Database
from orchestrator.systemd import UserManager

MIN_SYSTEMD = 252
MIN_TMUX = (3, 3)
MIN_FREE_BYTES = 1 << 30
OLDEST_CLAUDE = (2, 1)  # what this was tried with; earlier ones lack hooks
COMMAND_TIMEOUT_S = 10
LINGER = Path("/var/lib/systemd/linger")
CGROUPS = Path("/sys/fs/cgroup")
_INSTALL_CLAUDE = "npm install -g @anthropic-ai/claude-code"
_DELEGATE = (
    "sudo mkdir -p /etc/systemd/system/user@.service.d && printf '[Service]\\nDelegate=cpu memory pids io\\n'"
    " | sudo tee /etc/systemd/system/user@.service.d/delegate.conf; then: sudo reboot"
)
READY_S = 5.0  # a service that starts just now is waited for
BACKUP_AGE = timedelta(days=2)  # older than that, and a night was missed


def examine(config: Config) -> list[Check]:
    """All checks, in the order in which they would hurt."""
    checks: list[Callable[[Config], Check]] = [
        _user_bus, _systemd, _linger, _delegation, _tmux_version, _tmux_server, _git, _postgres, _backup,
        _gateway, _services, _user_namespaces, _isolation, _keys, _claude, _drivers, _disk, _clock,
        _inotify,
    ]  # fmt: skip
    return [_guarded(check, config) for check in checks]


def _guarded(check: Callable[[Config], Check], config: Config) -> Check:
    name = check.__name__.strip("_").replace("_", " ")
    try:
        return check(config)
    except TicketError as error:
        return Check(name, "bad", error.message, error.hint)
    except OSError as error:  # what it looks at is not there: the others are looked at all the same
        return Check(
            name, "bad", str(error), "Look whether that file or folder is there, and yours."
        )


def _output(*argv: str) -> str:
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, check=False, timeout=COMMAND_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _user_bus(_: Config) -> Check:
    return doctor_machine.user_bus(os.environ, os.getuid())


def user_namespaces() -> Check:
    """Whether services and isolated agents get one, where the kernel is told to be sparing."""
    return doctor_machine.user_namespaces(_why_no_namespace)


def _user_namespaces(_: Config) -> Check:
    return user_namespaces()


def _why_no_namespace() -> str:
    """Which of those who need a user namespace get none, tried; empty when all do."""
    # a service as confined as ours: systemd makes the namespace, before the program runs
    service = [
        "systemd-run", "--user", "--quiet", "--wait", "--collect", "--property=PrivateUsers=yes",
        "--property=ProtectSystem=strict", "--", "true",
    ]  # fmt: skip
    try:
        done = subprocess.run(
            service, capture_output=True, check=False, timeout=COMMAND_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return "the services"
    if done.returncode:
        return "the services"
    return "isolated agents" if isolation.why_not() else ""


def _clock(config: Config) -> Check:
    synchronised = _output("timedatectl", "show", "--property=NTPSynchronized", "--value")
    try:
        sql = "SELECT extract(epoch FROM clock_timestamp()) AS now_s"
        database_s = float(
            Database(config.database_dsn, application="doctor").query(sql)[0]["now_s"]
        )
    except TicketError:  # the check of the database says so
        database_s = None
    return doctor_machine.clock(time.time(), database_s, synchronised)


def _inotify(_: Config) -> Check:
    return doctor_machine.inotify(os.getuid())


def _systemd(_: Config) -> Check:
    with UserManager() as manager:
        version, state = manager.version(), manager.system_state()
    match = re.match(r"\d+", version)
    if match is None or int(match[0]) < MIN_SYSTEMD:
        return Check(
            "systemd",
            "bad",
            f"version {version}",
            f"Version {MIN_SYSTEMD} or later is needed: Debian 12.",
        )
    return Check("systemd", "ok", f"{version}, user manager {state}")


def _linger(_: Config) -> Check:
    user = getpass.getuser()
    if (LINGER / user).exists():
        return Check("linger", "ok", "tickets outlive your login")
    return Check(
        "linger", "bad", "tickets end when you log out", f"sudo loginctl enable-linger {user}"
    )


def _delegation(_: Config) -> Check:
    if not (CGROUPS / "cgroup.controllers").exists():
        return Check(
            "cgroup delegation", "warn",
            "this machine has cgroups of version 1: limits such as MemoryMax= are accepted and not enforced",
            "systemd.unified_cgroup_hierarchy=1 in GRUB_CMDLINE_LINUX (/etc/default/grub); sudo update-grub",
        )  # fmt: skip
    uid = os.getuid()
    path = CGROUPS / f"user.slice/user-{uid}.slice/user@{uid}.service/cgroup.controllers"
    there = set(path.read_text().split()) if path.exists() else set()
    missing = {"memory", "pids", "cpu"} - there
    if missing:
        without = ", ".join(sorted(missing))
        return Check(
            "cgroup delegation", "warn",
            f"no {without} controller for your units: such limits are accepted and not enforced",
            _DELEGATE,
        )  # fmt: skip
    return Check("cgroup delegation", "ok", " ".join(sorted(there)))


def _tmux_version(_: Config) -> Check:
    text = _output("tmux", "-V").removeprefix("tmux ")
    match = re.match(r"(\d+)\.(\d+)", text)
    if match is None:
        return Check("tmux", "bad", "not installed", "sudo apt install tmux")
    if (int(match[1]), int(match[2])) < MIN_TMUX:
        return Check("tmux", "bad", f"version {text}", "Version 3.3 or later is needed: Debian 12.")
    return Check("tmux", "ok", f"version {text}")


def _tmux_server(config: Config) -> Check:
    if shutil.which("tmux") is None:
        return Check(
            "tmux server", "bad", "there is no tmux to ask it with", "sudo apt install tmux"
        )
    with UserManager() as manager:
        active = manager.unit("tmux-mc.service").active
    up = tmux.Server(config.tmux.socket).is_up()
    if active == "active" and up:
        return Check("tmux server", "ok", f"socket {config.tmux.socket}")
    if up:
        return Check(
            "tmux server", "bad", f"another tmux server has the socket {config.tmux.socket!r}",
            "End it (tmux kill-server), or set [tmux] socket in config.toml; then: ticketctl setup",
        )  # fmt: skip
    if active == "active":
        return Check(
            "tmux server", "bad", f"tmux-mc.service runs, and does not answer on socket {config.tmux.socket}",
            "systemctl --user restart tmux-mc.service (running tickets begin anew and resume)",
        )  # fmt: skip
    return Check(
        "tmux server", "bad", f"tmux-mc.service is {active}: no ticket starts",
        "systemctl --user start tmux-mc.service; why it ended: journalctl --user -u tmux-mc.service -n 20",
    )  # fmt: skip


def _git(_: Config) -> Check:
    text = _output("git", "--version").removeprefix("git version ")
    return (
        Check("git", "ok", text)
        if text
        else Check("git", "bad", "not installed", "sudo apt install git")
    )


def _postgres(config: Config) -> Check:
    try:
        rows = Database(config.database_dsn, application="doctor").query("SHOW server_version")
    except Unavailable as error:
        if config.database.url:
            raise
        return Check(
            "postgres", "bad", error.message,
            "systemctl --user start mc-postgres.service; why it ended: journalctl --user -n 20 -u mc-postgres",
        )  # fmt: skip
    where = "your own" if config.database.url else "embedded"
    return Check("postgres", "ok", f"{rows[0]['server_version']}, {where}")


def _backup(config: Config) -> Check:
    if config.database.url:
        return Check("backup", "ok", "the database is your own, and so are its backups")
    found = backup.listed(config.backup_dir)
    if found:
        since = found[-1].made_at
        told = f"{len(found)}, the newest {since:%Y-%m-%d %H:%M} UTC: {found[-1].path}"
    else:
        cluster, told = config.state_dir / "postgres" / "PG_VERSION", "none yet"
        since = datetime.fromtimestamp(cluster.stat().st_mtime if cluster.exists() else 0, UTC)
    if datetime.now(UTC) - since > BACKUP_AGE:
        return Check(
            "backup", "warn", told,
            "ticketctl backup; why none was made: journalctl --user -u mc-backup.service -n 20",
        )  # fmt: skip
    return Check("backup", "ok", told)


def connect_to_gateway(config: Config) -> socket.socket:
    """A connection to where the gateway listens, on this machine."""
    address = config.listen_address
    if isinstance(address, tuple):
        return socket.create_connection(address, timeout=COMMAND_TIMEOUT_S)
    peer = socket.socket(socket.AF_UNIX)
    peer.settimeout(COMMAND_TIMEOUT_S)
    peer.connect(str(address))
    return peer


def _gateway(config: Config) -> Check:
    try:
        connect_to_gateway(config).close()
    except OSError as error:
        return Check(
            "gateway",
            "bad",
            f"nothing answers on {config.gateway.listen}: {error.strerror or error}",
            "systemctl --user start mc-webgate.socket; if it fails: systemctl --user status mc-webgate.socket",
        )
    with UserManager() as manager:
        if manager.unit("mc-webgate.socket").active != "active":
            return Check(
                "gateway",
                "bad",
                f"something else listens on {config.gateway.listen}",
                f"Whose it is: ss -ltnp | grep {config.gateway.listen}; or another [gateway] listen",
            )
    return Check("gateway", "ok", f"{config.gateway_url} on {config.gateway.listen}")


def _pid_once_ready(manager: UserManager, unit: str) -> int:
    """Of a running service, else 0.

    One that starts just now, as the gateway does when we look at it, is not confined yet.
    """
    deadline = time.monotonic() + READY_S
    while (state := manager.unit(unit).active) == "activating" and time.monotonic() < deadline:
        time.sleep(0.05)
    return manager.service(unit).main_pid if state == "active" else 0


def _services(config: Config) -> Check:
    with UserManager() as manager:
        pids = {unit: _pid_once_ready(manager, unit) for unit in doctor_services.RUNNING}
    told = {unit: Path(f"/proc/{pid}") for unit, pid in pids.items() if pid}
    for unit in doctor_services.PASSING:
        if (copy := doctor_services.copy_of(config, unit)).is_dir():
            told[unit] = copy
    lacking = [
        f"{unit} without {words}"
        for unit, where in told.items()
        if (words := ", ".join(doctor_services.missing(where)))
    ]
    if lacking:
        return Check(
            "services", "warn", f"not in force: {'; '.join(lacking)}",
            "Look for drop-ins: systemctl --user cat mc-webgate.service; then: ticketctl setup",
        )  # fmt: skip
    of = len(doctor_services.RUNNING) + len(doctor_services.PASSING)
    return Check(
        "services",
        "ok",
        f"{len(told)} of {of} run, or did since the boot, confined as their units say",
    )


def _isolation(config: Config) -> Check:
    mode = config.isolation.mode
    if mode == "off":
        return Check(
            "isolation", "warn", "off: an agent can do whatever you can",
            'Set [isolation] mode = "auto" in config.toml; see SECURITY.md.',
        )  # fmt: skip
    reason = isolation.why_not()
    if not reason:
        version = _output(isolation.PROGRAM, "--version").removeprefix("bubblewrap ")
        return Check("isolation", "ok", f"workspace, by bubblewrap {version}")
    if mode == "workspace":
        return Check("isolation", "bad", f"{reason}: no ticket starts", isolation.mend_hint(reason))
    return Check(
        "isolation", "warn", f"{reason}: an agent can do whatever you can",
        isolation.mend_hint(reason),
    )  # fmt: skip


def _keys(config: Config) -> Check:
    path = config.agent_env_path
    if not path.exists():
        return Check("keys", "ok", f"no {path}")
    if path.stat().st_mode & 0o077:
        return Check(
            "keys", "bad", f"others can read {path}: no ticket starts", f"chmod 600 {path}"
        )
    return Check("keys", "ok", f"{path} is yours alone")


def _claude(config: Config) -> Check:
    program = shutil.which(config.claude.command, path=agent_environ(os.environ)["PATH"])
    if program is None:
        return Check(
            "claude", "warn", f"{config.claude.command!r} was not found",
            f"{_INSTALL_CLAUDE}, or set [claude] command in config.toml; the demo driver needs neither.",
        )  # fmt: skip
    said = _output(program, "--version")
    match = re.match(r"(\d+)\.(\d+)", said)
    if not said:
        return Check(
            "claude", "warn", f"{program} gives no version",
            f"See what it says: {program} --version; to install it anew: {_INSTALL_CLAUDE}",
        )  # fmt: skip
    if match and (int(match[1]), int(match[2])) < OLDEST_CLAUDE:
        oldest = ".".join(str(part) for part in OLDEST_CLAUDE)
        return Check(
            "claude", "warn", f"{said} ({program}) is older than {oldest}, the oldest this was tried with",
            f"{program} update",
        )  # fmt: skip
    return Check("claude", "ok", f"{said} ({program})")


def _drivers(config: Config) -> Check:
    environ = agent_environ(os.environ)
    missing: list[str] = []
    for name, table in config.drivers.items():
        try:
            program = of_table(table).program(environ)
        except TicketError as error:
            return Check("drivers", "bad", error.message, error.hint or "See docs/drivers.md.")
        if program is None:
            missing.append(name)
    if missing:
        return Check(
            "drivers", "warn", f"not installed: {', '.join(sorted(missing))}",
            "Install the program, or mend its table in config.toml.",
        )  # fmt: skip
    return Check("drivers", "ok", ", ".join(driver_names(config)))


def _disk(config: Config) -> Check:
    folder = config.state_dir if config.state_dir.exists() else Path.home()
    free = shutil.disk_usage(folder).free
    shown = f"{free / 2**30:.1f} GiB free for {folder}"
    if free < MIN_FREE_BYTES:
        return Check(
            "disk",
            "warn",
            shown,
            f"ticketctl gc; what takes most: du -xh --max-depth=2 {folder} | sort -h | tail",
        )
    return Check("disk", "ok", shown)
