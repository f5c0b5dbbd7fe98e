"""What mc-heartbeat.service executes each minute: what piles up, is stuck, or came apart.

Reads all of it, mends one thing (a pane whose log writer died), and writes to the journal and the
database. A warning is told when it begins and when it ends, not each minute. What should run is
`reconcile`'s to bring about; here it is only seen.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

from orchestrator import config as configuration
from orchestrator import diff, disk, doctor_services, finish, pipes, systemd, tmux
from orchestrator.config import Config
from orchestrator.errors import TicketError
from orchestrator.naming import unit_name
from orchestrator.store import events, health, tickets, worktrees
from orchestrator.store.db import Database
from orchestrator.store.tickets import Ticket
from orchestrator.store.worktrees import Place

MEASURE_EVERY = timedelta(minutes=10)  # a large tree takes seconds
TELL_EVERY = timedelta(hours=1)  # of a ticket that goes on crashing
SETTLED = timedelta(seconds=10)  # since its start, a ticket's pipe is what it will be
GIT_TIMEOUT_S = 20
MAX_SCREEN_CHARS = 20_000
_SESSION = re.compile(r"ticket-([1-9][0-9]{0,8})", re.ASCII)
Warnings = dict[str, str]  #: what is told, by a key that stays the same while it lasts


def main() -> None:
    """Entry point."""
    os.umask(0o077)
    try:
        config = configuration.load()
        doctor_services.leave_copy(config)
        database = Database(config.database_dsn, application="mc-heartbeat")
        with systemd.UserManager() as manager:
            beat(config, database, tmux.Server(config.tmux.socket), manager)
    except TicketError as error:
        print(error, file=sys.stderr)  # noqa: T201  # stderr is the journal
        sys.exit(error.exit_status)


def beat(
    config: Config, database: Database, server: tmux.Server, manager: systemd.UserManager
) -> dict[str, Any]:
    """One heartbeat; what was stored."""
    last = health.last_heartbeat(database)
    known = tickets.list_all(database)
    warnings: Warnings = {}
    for number in pipes.thaw_forgotten(config, manager):
        warnings[f"frozen:{number}"] = f"Ticket {number} was left frozen by a rotation: it goes on."
    places = worktrees.active(database)
    data: dict[str, Any] = {
        "disk": _disk(config, places, warnings),
        "worktrees": [_worktree(database, p, _ticket(known, p), warnings) for p in places],
        "max_active": config.worktree.max_active,
        "logs": dict(_logs(config, known, warnings)),
    }
    _measured(config, database, known, data["worktrees"])
    if last is not None:
        data["log_growth"] = _growth(last[1].get("logs", {}), data["logs"])
    _turns_and_queues(config, database, warnings)
    data["restarts"] = _restarts(manager, known)
    data["crashing"] = _crashing(config, database, data["restarts"], warnings)
    data["mended"] = _pipes(config, database, server, known)
    _replace_unmarked(config, server, manager, known)
    _apart(server, manager, known, warnings)
    _tell(warnings, last[1].get("warnings", {}) if last else {})
    data["warnings"] = warnings
    health.add_heartbeat(database, data)
    systemd.log(
        f"{len(places)} of {config.worktree.max_active} worktrees, {len(known)} tickets,"
        f" {sum(data['logs'].values()) >> 20} MiB of logs, {len(warnings)} warnings.",
        event="heartbeat",
    )
    return data


def _tell(now: Warnings, before: Warnings) -> None:
    for key, said in now.items():
        if key not in before:
            systemd.log(said, ticket=_number(key), event="warning", priority=4)
    for key, said in before.items():
        if key not in now:
            systemd.log(f"No longer so: {said}", ticket=_number(key), event="warning_over")


def _number(key: str) -> int | None:
    tail = key.rpartition(":")[2]
    return int(tail) if tail.isdigit() else None


def _disk(config: Config, places: list[Place], warnings: Warnings) -> dict[str, int]:
    free: dict[str, int] = {}
    for folder in {str(config.state_dir), *(str(Path(p.path).parent) for p in places)}:
        if os.path.isdir(folder):
            free[folder] = shutil.disk_usage(folder).free
            if free[folder] < config.heartbeat.disk_free_mb << 20:
                warnings[f"disk:{folder}"] = (
                    f"{free[folder] >> 20} MiB free for {folder}. See: ticketctl gc"
                )
    return free


def _ticket(known: list[Ticket], place: Place) -> Ticket | None:
    return next((t for t in known if t.id == place.ticket_id), None)


def _worktree(
    database: Database, place: Place, ticket: Ticket | None, warnings: Warnings
) -> dict[str, Any]:
    path = Path(place.path)
    if not path.is_dir():
        if ticket is not None and ticket.turn_state != "gone":
            warnings[f"worktree:{place.ticket_id}"] = (
                f"The worktree {path} of ticket {place.ticket_id} is gone while its worker runs."
            )
        return {"ticket": place.ticket_id, "missing": True}
    state = _git_state(place, ticket)
    size = place.disk_bytes
    if (
        place.measured_at is None
        or size is None
        or datetime.now(UTC) - place.measured_at > MEASURE_EVERY
    ):
        size = disk.size_bytes([path])
    worktrees.measured(database, place.ticket_id, disk_bytes=size, git_state=state)
    return {
        "ticket": place.ticket_id, "disk_bytes": size, "git": state.get("text", "?"), "state": state,
    }  # fmt: skip


def _measured(
    config: Config, database: Database, known: list[Ticket], found: list[dict[str, Any]]
) -> None:
    """Each ticket's disk use and the state of its worktree, for the board."""
    trees = {tree["ticket"]: tree for tree in found}
    for ticket in known:
        tree = trees.get(ticket.id, {})
        size = (tree.get("disk_bytes") or 0) + _own_bytes(config.ticket_paths(ticket.id).folder)
        tickets.measured(database, ticket.id, disk_bytes=size, git_state=tree.pop("state", None))


def _own_bytes(folder: Path) -> int:
    """Logs, sidecar and settings; what a chat ticket's agent wrote is below and is not counted."""
    try:
        with os.scandir(folder) as entries:
            found = [e.stat(follow_symlinks=False) for e in entries if e.is_file()]
    except OSError:
        return 0  # it has not run yet, or something was removed just now
    return sum(status.st_blocks * 512 for status in found)


def _git_state(place: Place, ticket: Ticket | None) -> dict[str, Any]:
    repo = Path(place.repo_path)
    try:
        base = finish.base_branch(repo, ticket.base_ref if ticket else None)
    except TicketError:
        base = place.base_sha  # it began at a commit, or nowhere in particular
    try:
        found = diff.summary(repo, Path(place.path), base, timeout_s=GIT_TIMEOUT_S)
    except TicketError as error:
        return {"error": error.message, "text": "?"}
    return {**asdict(found), "text": found.text}


def _logs(config: Config, known: list[Ticket], warnings: Warnings) -> Iterator[tuple[str, int]]:
    for ticket in known:
        paths = config.ticket_paths(ticket.id)
        for path in (paths.pane_log_path, paths.sidecar_path):
            try:
                size = path.stat().st_size
            except OSError:
                continue
            yield f"{ticket.id}/{path.name}", size
            if path == paths.pane_log_path and size > config.logs.warn_mb << 20:
                warnings[f"log:{ticket.id}"] = (
                    f"The pane log of ticket {ticket.id} has {size >> 20} MiB today."
                )


def _growth(before: dict[str, int], now: dict[str, int]) -> dict[str, int]:
    """Bytes since the last heartbeat; of a log that was rotated, all of the new one."""
    grown = {
        k: v - before[k] if v >= before.get(k, 0) and k in before else v for k, v in now.items()
    }
    return {name: size for name, size in grown.items() if size}


def _turns_and_queues(config: Config, database: Database, warnings: Warnings) -> None:
    for stuck in health.stuck_turns(database, config.heartbeat.stuck_minutes):
        warnings[f"stuck:{stuck.ticket_id}"] = (
            f"Ticket {stuck.ticket_id} is {stuck.what} without a sign of life since"
            f" {stuck.since:%Y-%m-%d %H:%M} UTC."
        )
    for old in health.old_messages(database, config.heartbeat.queue_minutes):
        warnings[f"queue:{old.ticket_id}"] = (
            f"Ticket {old.ticket_id} has {old.what} since {old.since:%Y-%m-%d %H:%M} UTC."
        )


def _restarts(manager: systemd.UserManager, known: list[Ticket]) -> dict[str, int]:
    """How often each worker was started again, by its ticket's number; those that were."""
    running = [t.id for t in known if t.status == "in_progress"]
    found = {str(number): manager.restarts(unit_name(number)) for number in running}
    return {number: count for number, count in found.items() if count}


def _crashing(
    config: Config, database: Database, now: dict[str, int], warnings: Warnings
) -> dict[str, int]:
    """Workers that crash too seldom for the start limit, and too often to be well: times in an hour."""
    history = health.restarts_within(database, minutes=60)
    limit = config.heartbeat.restarts_an_hour
    found = {n: times for n, times in added([*history, now]).items() if times > limit and n in now}
    for number, times in found.items():
        warnings[f"crashing:{number}"] = (
            f"The worker of ticket {number} crashed {times} times within an hour, and is started again"
            f" each time. See: ticketctl log {number}; to end it: ticketctl stop {number}"
        )
        told = events.newest(database, int(number), ["crashing"])
        if told is None or datetime.now(UTC) - told.at >= TELL_EVERY:
            events.record(database, int(number), "crashing", times=times)
    return found


def added(counts: list[dict[str, int]]) -> dict[str, int]:
    """What counters grew by from the first look to the last; one that fell had begun anew."""
    grown: dict[str, int] = {}
    for before, after in pairwise(counts):
        for name, count in after.items():
            was = before.get(name, 0)
            grown[name] = grown.get(name, 0) + (count - was if count >= was else count)
    return grown


def _pipes(
    config: Config, database: Database, server: tmux.Server, known: list[Ticket]
) -> list[int]:
    mended: list[int] = []
    for ticket in known:
        try:
            screen = pipes.mend(config, server, ticket.id)
        except TicketError as error:
            systemd.log(
                f"Ticket {ticket.id}: its pane is not logged: {error.message}",
                ticket=ticket.id, event="gap", priority=3,
            )  # fmt: skip
            continue
        if screen is not None:
            mended.append(ticket.id)
            path = config.ticket_paths(ticket.id).pane_log_path
            events.record(
                database, ticket.id, "gap", reason="the writer of the pane log died",
                offset=path.stat().st_size if path.exists() else 0, screen=screen[-MAX_SCREEN_CHARS:],
            )  # fmt: skip
            systemd.log(
                f"Ticket {ticket.id}: the writer of its pane log was gone, and is there again; what"
                " was printed meanwhile is in no log.",
                ticket=ticket.id, event="gap", priority=4,
            )  # fmt: skip
    return mended


def _replace_unmarked(
    config: Config, server: tmux.Server, manager: systemd.UserManager, known: list[Ticket]
) -> None:
    """Pipes that an earlier version began say nothing of their writers, which nobody can watch so."""
    settled = datetime.now(UTC) - SETTLED
    for ticket in known:
        if not ticket.use_tmux or ticket.worker_started is None or ticket.worker_started > settled:
            continue
        if not pipes.is_unmarked(config.ticket_paths(ticket.id)):
            continue
        with suppress(TicketError):  # it goes on as it is, and the next minute tries again
            if pipes.hand_over(config, server, manager, ticket.id):
                print(f"ticket {ticket.id}: the pipe of an earlier version was replaced")  # noqa: T201


def _apart(
    server: tmux.Server, manager: systemd.UserManager, known: list[Ticket], warnings: Warnings
) -> None:
    """Units without a worker, and workers without a unit."""
    sessions = set()
    if server.is_up():
        matches = (_SESSION.fullmatch(name) for name in server.sessions())
        sessions = {int(match[1]) for match in matches if match}
    for number in sorted({t.id for t in known} | sessions):
        manager.hold(unit_name(number))
        unit = manager.unit(unit_name(number))
        if unit.job or unit.active in {"activating", "deactivating"}:
            continue
        alive = number in sessions and server.is_alive(number)
        if unit.active == "active" and not alive:
            warnings[f"no-worker:{number}"] = f"{unit_name(number)} is active, and its pane is not."
        elif alive and unit.active != "active":
            warnings[f"no-unit:{number}"] = (
                f"The session ticket-{number} runs, and {unit_name(number)} is {unit.active}."
                f" Look: tmux -L {server.socket} attach -t =ticket-{number}"
            )


if __name__ == "__main__":
    main()
