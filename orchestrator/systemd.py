"""The only D-Bus: the user manager's units, and what a unit tells its manager.

Methods are called by name with their signature instead of through introspection: fetching and
parsing the manager's interface XML would cost more than the whole start of a ticket.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from types import TracebackType
from typing import Any, Self

from orchestrator import journal as kinds
from orchestrator.errors import Conflict, Unavailable

# What the package itself loads when it is imported, lxml and every interface there is, is for people at a
# prompt, and half of the time that a launcher takes. Its parts are whole without that.
if "pystemd" not in sys.modules and (_found := PathFinder.find_spec("pystemd")) is not None:
    sys.modules["pystemd"] = module_from_spec(_found)

from pystemd import daemon, journal
from pystemd.dbusexc import DBusBaseError
from pystemd.dbuslib import DBus, apply_signature

_BUS = b"org.freedesktop.systemd1"
_MANAGER_PATH = b"/org/freedesktop/systemd1"
_MANAGER = b"org.freedesktop.systemd1.Manager"
_UNIT = b"org.freedesktop.systemd1.Unit"
_JOB = b"org.freedesktop.systemd1.Job"
_SERVICE = b"org.freedesktop.systemd1.Service"
_TIMER = b"org.freedesktop.systemd1.Timer"
JOB_TIMEOUT_S = 90.0


@dataclass(frozen=True, slots=True)
class UnitState:
    """What the manager says of a unit, in its own words."""

    load: str  #: loaded, not-found, …
    active: str  #: active, inactive, failed, activating, deactivating
    sub: str  #: running, dead, auto-restart, …
    job: bool  #: a job is queued or running for it
    unit_file: str  #: enabled, disabled, static, …


@dataclass(frozen=True, slots=True)
class ListedUnit:
    """A unit that the manager holds in memory, as a list tells of it."""

    name: str
    active: str  #: as in UnitState
    sub: str
    job: bool

    @property
    def settled(self) -> bool:
        """Neither on its way up nor down, nor about to be."""
        return not self.job and self.active in {"active", "inactive", "failed"}


@dataclass(frozen=True, slots=True)
class ServiceFacts:
    """Accounting and outcome of a service; None where the kernel counts nothing."""

    main_pid: int
    result: str
    exit_status: int  #: of the last main process that was the manager's own child, as a launcher is
    status_text: str
    restarts: int
    memory_bytes: int | None
    cpu_s: float | None
    tasks: int | None
    memory_high_bytes: int | None  #: where it is slowed down; None: nowhere
    memory_max_bytes: int | None
    tasks_max: int | None
    cpu_weight: int | None  #: beside its neighbours, of 100; None: as they


class UserManager:
    """A connection to the user's service manager. Use it as a context manager."""

    def __init__(self) -> None:
        self._bus = DBus(user_mode=True)
        self._ended: dict[bytes, str] | None = None  # jobs that were removed; None: not listening

        def on_job_removed(message: Any, error: Any = None, userdata: Any = None) -> None:  # noqa: ARG001
            message.process_reply(False)
            _, job, _, result = message.body
            if self._ended is not None:
                self._ended[job] = result.decode()

        # pystemd hangs metadata on the callback and keeps no reference: a plain function, kept here
        self._on_job_removed = on_job_removed

    def __enter__(self) -> Self:
        try:
            self._bus.open()
        except DBusBaseError as error:
            raise Unavailable(
                f"The user's systemd bus does not answer: {error.err_message}.",
                hint="Log in properly, or: export XDG_RUNTIME_DIR=/run/user/$(id -u)",
            ) from None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._bus.close()

    def _call(self, method: str, signature: str, *args: Any) -> Any:
        try:
            return self._bus.call_method(
                _BUS,
                _MANAGER_PATH,
                _MANAGER,
                method.encode(),
                apply_signature(signature.encode(), list(args)),
            ).body
        except DBusBaseError as error:
            message = error.err_message
            text = message.decode() if isinstance(message, bytes) else str(message)
            raise Unavailable(f"systemd refused {method}: {text}") from None

    def _property(self, path: bytes, interface: bytes, name: str, signature: str) -> Any:
        try:
            return self._bus.get_property(_BUS, path, interface, name.encode(), signature.encode())
        except DBusBaseError as error:
            raise Unavailable(f"systemd does not tell {name}: {error.err_message}") from None

    def _text(self, path: bytes, interface: bytes, name: str) -> str:
        value = self._property(path, interface, name, "s")
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)

    def _path(self, unit: str) -> bytes:
        path = self._call("LoadUnit", "s", unit.encode())
        return path if isinstance(path, bytes) else str(path).encode()

    def hold(self, unit: str) -> None:
        """Keeps a unit loaded for as long as this connection lives.

        One that is at rest is forgotten after each question otherwise, and read again, with all it is
        ordered after, at the next: many questions on many units that wait for one another add up.
        """
        self._call("RefUnit", "s", unit.encode())

    def numbers(self, unit: str, names: Iterable[str]) -> dict[str, int]:
        """Properties of a service that are numbers; 2**64-1 stands for no limit, or not set."""
        path = self._path(unit)
        return {name: int(self._property(path, _SERVICE, name, "t")) for name in names}

    def restarts(self, unit: str) -> int:
        """How often Restart= has started it again since somebody did."""
        return int(self._property(self._path(unit), _SERVICE, "NRestarts", "u"))

    def needs_reload(self, unit: str) -> bool:
        """Whether its files have changed since systemd read them."""
        return bool(self._property(self._path(unit), _UNIT, "NeedDaemonReload", "b"))

    def next_elapse(self, timer: str) -> datetime | None:
        """When a timer starts its unit next, by its calendar; None: never, or it is off."""
        us = int(self._property(self._path(timer), _TIMER, "NextElapseUSecRealtime", "t"))
        return datetime.fromtimestamp(us / 1e6, UTC) if 0 < us < 2**63 else None

    def forget_elapses(self, timer: str) -> None:
        """Has a Persistent= timer that is off forget when it elapsed last: what it missed is past."""
        self._call("CleanUnit", "sas", timer.encode(), [b"state"])

    def attach(self, unit: str, pids: list[int]) -> None:
        """Moves processes into the cgroup of a unit that has Delegate=yes."""
        self._call("AttachProcessesToUnit", "ssau", unit.encode(), b"", pids)

    def start(self, unit: str) -> None:
        """Starts a unit and waits for the job's end.

        Raises:
            Conflict: the job failed; the unit's journal has the reason.
        """
        self._job("StartUnit", unit)

    def stop(self, unit: str) -> None:
        """Stops a unit and waits for the job's end."""
        self._job("StopUnit", unit)

    def restart(self, unit: str) -> None:
        """Restarts a unit and waits for the job's end."""
        self._job("RestartUnit", unit)

    def freeze(self, unit: str) -> bool:
        """Stops every process of a unit where it is; False: it was frozen already.

        Raises:
            Unavailable: this machine cannot, or the unit does not run.
        """
        if self._text(self._path(unit), _UNIT, "FreezerState") == "frozen":
            return False
        self._call("FreezeUnit", "s", unit.encode())
        return True

    def thaw(self, unit: str) -> None:
        """They go on; nothing happens to a unit that is not frozen."""
        self._call("ThawUnit", "s", unit.encode())

    def signal(self, unit: str, number: int) -> None:
        """Sends a signal to a unit's main process."""
        self._call("KillUnit", "ssi", unit.encode(), b"main", number)

    def is_told_to_stop(self, unit: str) -> bool:
        """Whether a job is on its way that ends this run of it: a stop or a restart, not a start."""
        job, path = self._property(self._path(unit), _UNIT, "Job", "(uo)")
        if not job:
            return False
        try:
            return self._text(path, _JOB, "JobType") not in {"start", "verify-active", "nop"}
        except Unavailable:
            return False  # done in this moment

    def give_up(self, unit: str) -> None:
        """For ExecStopPost= alone: has systemd not restart the unit, and leaves its result as it is."""
        self._call("StopUnit", "ss", unit.encode(), b"replace")

    def has_been_active(self, unit: str) -> bool:
        """Whether it came up this time, however it ended since."""
        path = self._path(unit)
        active, began = (
            int(self._property(path, _UNIT, name, "t"))
            for name in ("ActiveEnterTimestampMonotonic", "InactiveExitTimestampMonotonic")
        )
        return active >= began > 0

    def reset_failed(self, unit: str) -> None:
        """Forgets a unit's failures, so that the start limit counts anew."""
        self._call("ResetFailedUnit", "s", unit.encode())

    def start_all(self, units: Iterable[str], *, at_once: int) -> Iterator[tuple[str, str]]:
        """Starts units, `at_once` at a time, each taken when its turn comes; yields them as they end.

        The results are systemd's words: done, failed, dependency, canceled, …; timeout also where a
        job took longer than JOB_TIMEOUT_S, and refused where the manager took none: no such unit,
        or somebody is stopping it.
        """
        waiting = iter(units)
        running: dict[bytes, tuple[str, float]] = {}  # job: unit, deadline
        while True:
            while len(running) < at_once and (unit := next(waiting, None)) is not None:
                try:
                    job = self._begin("StartUnit", unit, mode=b"fail")
                except Unavailable:
                    yield unit, "refused"
                else:
                    running[job] = unit, time.monotonic() + JOB_TIMEOUT_S
            if not running:
                return
            ended = self._wait_jobs(running, min(until for _, until in running.values()))
            job, result = ended or (min(running, key=lambda j: running[j][1]), "timeout")
            yield running.pop(job)[0], result

    def _begin(self, method: str, unit: str, *, mode: bytes = b"replace") -> bytes:
        if self._ended is None:
            self._ended = {}
            self._call("Subscribe", "")
            self._bus.match_signal(
                _BUS, _MANAGER_PATH, _MANAGER, b"JobRemoved", self._on_job_removed
            )
        job: bytes = self._call(method, "ss", unit.encode(), mode)
        return job

    def _wait_jobs(self, jobs: Collection[bytes], deadline: float) -> tuple[bytes, str] | None:
        """The first of some jobs to end, with its result; None: none did until `deadline`."""
        assert self._ended is not None  # noqa: S101  # jobs are begun by `_begin`
        while True:
            for job in jobs:
                if job in self._ended:
                    return job, self._ended.pop(job)
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            if self._bus.process().is_empty():
                self._bus.wait(int(left * 1e6))

    def _job(self, method: str, unit: str) -> None:
        job = self._begin(method, unit)
        ended = self._wait_jobs([job], time.monotonic() + JOB_TIMEOUT_S)
        if ended is None:
            raise Unavailable(
                f"{unit} is still on its way after {JOB_TIMEOUT_S:.0f} s.",
                hint=f"systemctl --user status {unit}",
            )
        if ended[1] not in {"done", "skipped"}:
            raise Conflict(
                f"{unit}: the job ended with {ended[1]!r}.",
                hint=f"systemctl --user status {unit}; journalctl --user -u {unit} -n 20",
            )

    def units(self, pattern: str) -> list[ListedUnit]:
        """The units in memory whose name matches a glob; one that is at rest may be absent."""
        found = self._call("ListUnitsByPatterns", "asas", [], [pattern.encode()])
        return [
            ListedUnit(
                name=unit[0].decode(),
                active=unit[3].decode(),
                sub=unit[4].decode(),
                job=bool(unit[7]),
            )
            for unit in found
        ]

    def unit(self, unit: str) -> UnitState:
        """The state of one unit; load is not-found where there is no such unit."""
        path = self._path(unit)
        job, _ = self._property(path, _UNIT, "Job", "(uo)")
        return UnitState(
            load=self._text(path, _UNIT, "LoadState"),
            active=self._text(path, _UNIT, "ActiveState"),
            sub=self._text(path, _UNIT, "SubState"),
            job=bool(job),
            unit_file=self._text(path, _UNIT, "UnitFileState"),
        )

    def running(self, pattern: str) -> list[str]:
        """The units that run, or are on their way up or down, by a pattern such as ticket@*.service."""
        states = [b"active", b"activating", b"reloading", b"deactivating"]
        rows = self._call("ListUnitsByPatterns", "asas", states, [pattern.encode()])
        return sorted(row[0].decode() for row in rows)

    def service(self, unit: str) -> ServiceFacts:
        """Accounting of one service."""
        path = self._path(unit)

        def counted(name: str) -> int | None:
            value = int(self._property(path, _SERVICE, name, "t"))
            return None if value == 2**64 - 1 else value

        cpu_ns = counted("CPUUsageNSec")
        return ServiceFacts(
            main_pid=int(self._property(path, _SERVICE, "MainPID", "u")),
            result=self._text(path, _SERVICE, "Result"),
            exit_status=int(self._property(path, _SERVICE, "ExecMainStatus", "i")),
            status_text=self._text(path, _SERVICE, "StatusText"),
            restarts=int(self._property(path, _SERVICE, "NRestarts", "u")),
            memory_bytes=counted("MemoryCurrent"),
            cpu_s=None if cpu_ns is None else cpu_ns / 1e9,
            tasks=counted("TasksCurrent"),
            memory_high_bytes=counted("MemoryHigh"),
            memory_max_bytes=counted("MemoryMax"),
            tasks_max=counted("TasksMax"),
            cpu_weight=counted("CPUWeight"),
        )

    def system_state(self) -> str:
        """running, degraded, starting, stopping, …"""
        return self._text(_MANAGER_PATH, _MANAGER, "SystemState")

    def version(self) -> str:
        """systemd's version, as it writes it."""
        return self._text(_MANAGER_PATH, _MANAGER, "Version")

    def enable(self, units: list[str]) -> None:
        """systemctl --user enable."""
        self._call("EnableUnitFiles", "asbb", [u.encode() for u in units], False, False)
        self.reload()

    def disable(self, units: list[str]) -> None:
        """systemctl --user disable."""
        self._call("DisableUnitFiles", "asb", [u.encode() for u in units], False)
        self.reload()

    def reload(self) -> None:
        """daemon-reload."""
        self._call("Reload", "")


def notify(*states: str) -> None:
    """sd_notify; nothing happens outside a unit."""
    if os.environ.get("NOTIFY_SOCKET"):
        daemon.notify(False, *states)


def log(message: str, *, ticket: int | None = None, event: str = "", priority: int = 6) -> None:
    """A structured journal entry: TICKET_ID= and TICKET_EVENT= join all of the product's parts.

    `event` is one of journal.KINDS, whose id goes along. Message bodies never go in here.
    """
    fields: dict[str, str] = {"MESSAGE": message, "PRIORITY": str(priority)}
    fields["SYSLOG_IDENTIFIER"] = "mission-control"
    if ticket is not None:
        fields["TICKET_ID"] = str(ticket)
    if event:
        fields["TICKET_EVENT"] = event
    if identity := kinds.message_id(event):
        fields["MESSAGE_ID"] = identity
    journal.sendv(**fields)
