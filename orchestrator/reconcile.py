"""What should run against what runs: `ticketctl reconcile`, by mc-reconcile.timer at boot and each minute.

Between INTENT and UNIT. The store says what should run (`in_progress`), systemd what does; `plan` is
pure and compares the two, `Reconciler` carries it out. A stop or a start by hand is intent too: the
launcher has written it down, or is made up for here where the database was away. What belongs to no
ticket is told and left alone. How a ticket is started is its unit's business, what ails a worker
that runs the heartbeat's.
"""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from orchestrator import endings, systemd, tmux
from orchestrator.config import Config
from orchestrator.endings import Ending
from orchestrator.errors import EX_TEMPFAIL, Conflict
from orchestrator.naming import unit_name
from orchestrator.store import comments, events, tickets
from orchestrator.store.db import Database, Listener
from orchestrator.store.tickets import Ticket
from orchestrator.systemd import ListedUnit, ServiceFacts, UserManager

_ONLY_ONE = 0x6D63_7265_636F  # "mcreco": the advisory lock of whoever reconciles
_TMUX = "tmux-mc.service"
_UNIT = re.compile(r"ticket@([1-9][0-9]{0,8})\.service", re.ASCII)
_SESSION = re.compile(r"ticket-([1-9][0-9]{0,8})", re.ASCII)
SOCKET_S = 2.0
DROPPED = "worker dropped, awaiting reattach"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What systemd says of a ticket's unit; nothing at all of one that is at rest."""

    unit: ListedUnit | None = None
    facts: ServiceFacts | None = None  #: where the unit runs or has failed
    ending: Ending | None = None  #: of its last worker, where the database was away at that time


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing to bring about."""

    ticket: int
    act: str  #: start, stop, adopt, drop, ended, clear, hold
    why: str
    pid: int | None = None  #: of the worker, to adopt
    ending: Ending | None = None


def plan(found: list[tuple[Ticket, Seen]], *, tmux_is_stopped: bool) -> list[Step]:
    """What has to happen so that what is in progress runs, and what is not does not.

    Args:
        found: tickets with what was seen of their units; of the closed ones at least those that run.
        tmux_is_stopped: somebody stopped the tmux server: nothing is started against their will.
    """
    steps = (_step(ticket, seen, tmux_is_stopped=tmux_is_stopped) for ticket, seen in found)
    return [step for step in steps if step is not None]


def _step(ticket: Ticket, seen: Seen, *, tmux_is_stopped: bool) -> Step | None:
    if seen.unit is not None and not seen.unit.settled:
        return None
    active = seen.unit.active if seen.unit is not None else "inactive"
    if active == "active":
        return _running(ticket, seen)
    if seen.ending is not None:
        return Step(ticket=ticket.id, act="ended", why=seen.ending.reason, ending=seen.ending)
    if ticket.status != "in_progress":
        stale = ticket.worker_pid is not None or ticket.turn_state != "gone"
        return Step(ticket=ticket.id, act="clear", why="its worker is gone") if stale else None
    if active == "failed" and (seen.facts is None or seen.facts.exit_status != EX_TEMPFAIL):
        return Step(ticket=ticket.id, act="drop", why=_reason(seen.facts))
    if tmux_is_stopped and ticket.use_tmux:
        return Step(ticket=ticket.id, act="hold", why=f"{_TMUX} was stopped")
    why = "it was interrupted by something that passes" if active == "failed" else "it does not run"
    return Step(ticket=ticket.id, act="start", why=why)


def _running(ticket: Ticket, seen: Seen) -> Step | None:
    pid = seen.facts.main_pid if seen.facts is not None else 0
    if ticket.status == "closed":
        return Step(ticket=ticket.id, act="stop", why="it is closed")
    if ticket.status == "in_progress" and pid in {0, ticket.worker_pid}:
        return None
    return Step(ticket=ticket.id, act="adopt", why="its start was not recorded", pid=pid or None)


def _reason(facts: ServiceFacts | None) -> str:
    if facts is None:
        return "its unit failed"
    return (facts.status_text or f"its unit failed: {facts.result}").rstrip(".")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What was done, or is to be done."""

    steps: list[Step]
    orphans: list[str]  #: units and sessions that belong to no ticket

    def as_json(self) -> dict[str, object]:
        """For programs."""
        steps = [{"ticket": s.ticket, "act": s.act, "why": s.why} for s in self.steps]
        return {"steps": steps, "orphans": self.orphans}


class Reconciler:
    """Looks, and brings about."""

    def __init__(
        self, config: Config, database: Database, manager: UserManager, server: tmux.Server
    ) -> None:
        self._config = config
        self._database = database
        self._manager = manager
        self._server = server

    def look(self) -> Outcome:
        """What there is to do; nothing is changed."""
        units = {unit.name: unit for unit in self._manager.units("ticket@*.service")}
        known = tickets.list_all(self._database, closed=True)
        found = [
            (ticket, self._seen(ticket, units))
            for ticket in known
            if ticket.status != "closed" or unit_name(ticket.id) in units
        ]
        server = self._manager.unit(_TMUX)
        stopped = server.active == "inactive" and not server.job
        return Outcome(
            steps=plan(found, tmux_is_stopped=stopped),
            orphans=self._orphans({ticket.id for ticket in known}, units),
        )

    def _seen(self, ticket: Ticket, units: Mapping[str, ListedUnit]) -> Seen:
        unit = units.get(unit_name(ticket.id))
        told = unit is not None and unit.settled and unit.active != "inactive"
        return Seen(
            unit=unit,
            facts=self._manager.service(unit_name(ticket.id)) if told else None,
            ending=endings.unrecorded(self._config.ticket_paths(ticket.id)),
        )

    def _orphans(self, known: set[int], units: Mapping[str, ListedUnit]) -> list[str]:
        found = [
            name
            for name, unit in sorted(units.items())
            if unit.active == "active"
            and ((match := _UNIT.fullmatch(name)) is None or int(match[1]) not in known)
        ]
        if self._server.is_up():
            matches = (_SESSION.fullmatch(name) for name in self._server.sessions())
            found += [
                f"tmux session {match[0]}"
                for match in matches
                if match and int(match[1]) not in known
            ]
        return found

    def bring_about(self) -> Outcome:
        """Does what `look` says; a ticket that fails to start is dropped in the same breath."""
        if self._manager.system_state() == "stopping":
            return Outcome(steps=[], orphans=[])
        self._mend_socket()
        outcome = self.look()
        endings_first = [step for step in outcome.steps if step.act == "ended"]
        for step in endings_first:
            self._do(step)
        if endings_first:  # they say what is meant to run now
            outcome = self.look()
        for step in outcome.steps:
            if step.act not in {"start", "hold"}:
                self._do(step)
        dropped = self._start([step for step in outcome.steps if step.act == "start"])
        return Outcome(steps=[*endings_first, *outcome.steps, *dropped], orphans=outcome.orphans)

    def _mend_socket(self) -> None:
        """A tmux server whose socket somebody removed is out of reach; asked to, it makes a new one."""
        path = self._server.socket_path
        if path.exists() or self._manager.unit(_TMUX).active != "active":
            return
        path.parent.mkdir(mode=0o700, exist_ok=True)
        self._manager.signal(_TMUX, signal.SIGUSR1)
        systemd.log(f"{path} was gone: the tmux server was told to make it anew.",
                    event="reconciled", priority=4)  # fmt: skip
        deadline = time.monotonic() + SOCKET_S
        while not self._server.is_up() and time.monotonic() < deadline:
            time.sleep(0.02)  # tmux does it at its next turn, and tells nobody

    def _start(self, steps: list[Step]) -> list[Step]:
        """Starts tickets, a few at a time; the steps it took to drop those that cannot."""
        by_unit = {unit_name(step.ticket): step for step in steps}
        dropped: list[Step] = []
        ready = (unit for unit, step in by_unit.items() if self._made_ready(unit, step.ticket))
        for unit, result in self._manager.start_all(ready, at_once=self._config.reconcile.at_once):
            step = by_unit[unit]
            if result in {"done", "skipped"}:
                _tell(step, "started again")
                self._record(step)
                continue
            then = _step(
                tickets.get(self._database, step.ticket), self._failed(unit), tmux_is_stopped=False
            )
            if then is not None and then.act == "drop":
                self._do(then)
                dropped.append(then)
            else:
                _tell(step, f"not started ({result}), tried again in a minute", priority=4)
        return dropped

    def _made_ready(self, unit: str, ticket: int) -> bool:
        """Whether it still is to be started when its turn comes; its old failure is forgotten."""
        state = self._manager.unit(unit)
        if state.job or state.active not in {"inactive", "failed"}:
            return False
        if tickets.get(self._database, ticket).status != "in_progress":
            return False
        self._clear_worker(ticket)
        if state.active == "failed":
            self._manager.reset_failed(unit)
        return True

    def _failed(self, unit: str) -> Seen:
        listed = self._manager.units(unit)
        return Seen(unit=listed[0] if listed else None, facts=self._manager.service(unit))

    def _clear_worker(self, ticket: int) -> None:
        """Forgets a process of before the reboot: its number may be somebody else's by now."""
        tickets.update(self._database, ticket, worker_pid=None, turn_state="gone")

    def _record(self, step: Step) -> None:
        events.record(self._database, step.ticket, "reconciled", act=step.act, why=step.why)

    def _do(self, step: Step) -> None:
        if step.act == "stop":
            self._manager.stop(unit_name(step.ticket))
            _tell(step, "stopped")
        elif step.act == "adopt":
            tickets.update(
                self._database, step.ticket, status="in_progress", turn_state="starting",
                worker_pid=step.pid,
            )  # fmt: skip
            _tell(step, "runs, which is written down now")
        elif step.act == "drop":
            tickets.update(
                self._database,
                step.ticket,
                status="needs_input",
                worker_pid=None,
                turn_state="gone",
            )
            comments.add(
                self._database, step.ticket, f"{DROPPED}: {step.why}.", author="mission-control"
            )
            _tell(step, DROPPED, priority=4)
        elif step.act == "ended" and step.ending is not None:
            endings.record(
                self._database, self._config.ticket_paths(step.ticket), step.ticket, step.ending
            )
            _tell(step, "had ended, which is written down now")
        elif step.act == "clear":
            self._clear_worker(step.ticket)
            return  # nothing happened to the ticket, there was only something left to wipe off
        self._record(step)


def _tell(step: Step, what: str, *, priority: int = 5) -> None:
    systemd.log(
        f"Ticket {step.ticket}: {what}: {step.why}.",
        ticket=step.ticket, event="reconciled", priority=priority,
    )  # fmt: skip


@contextmanager
def reconciler(config: Config, database: Database) -> Iterator[Reconciler]:
    """The only one there is, for as long as the block lasts.

    Raises:
        Conflict: another one is at work.
    """
    alone = Listener(database, [])
    try:
        if not alone.try_lock(_ONLY_ONE):
            raise Conflict(
                "Another reconcile is at work on this database.",
                hint="systemctl --user status mc-reconcile.service",
            )
        with UserManager() as manager:
            yield Reconciler(config, database, manager, tmux.Server(config.tmux.socket))
    finally:
        alone.close()
