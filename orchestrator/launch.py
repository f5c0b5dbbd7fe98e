"""What ticket@.service executes: `mc-launch start N`, and `mc-launch ended N` after its end.

Between UNIT and SESSION. `start` prepares the ticket, makes the session with a gate before the
agent, moves the pane's process into the unit's cgroup, opens the gate, names the agent as the
unit's main process and leaves: nothing of ours stays beside the agent. `ended` reads how the pane
died, for systemd gets no exit status of a process that is not its child, records it, removes the
session, and fails when the agent crashed so that Restart=on-failure acts.
"""

from __future__ import annotations

import os
import resource
import shlex
import shutil
import signal
import sys
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NoReturn

from orchestrator import config as configuration
from orchestrator import endings, isolation, isolation_view, sandbox, sidecar, systemd, tmux
from orchestrator.config import Config
from orchestrator.drivers import Launch, Work, driver_named
from orchestrator.drivers.environ import NOT_FOR_THE_AGENT, agent_environ
from orchestrator.endings import Ending
from orchestrator.errors import EX_CONFIG, ConfigError, Conflict, TicketError, Unavailable
from orchestrator.naming import ticket_id, unit_name
from orchestrator.sandbox import Sandbox, Waiting
from orchestrator.store import events, messages, tickets
from orchestrator.store.db import Database
from orchestrator.store.tickets import Ticket
from orchestrator.worker_record import WorkerRecord, kept
from orchestrator.workplace import ensure_workplace, setup_lines, submodule_lines

SIGNALLED = 128  # an exit status above it stands for a signal

_LEFT = "it left by itself"
_TOO_LONG = "it ran as long as RuntimeMaxSec= lets it"
PROMPT_AUTHOR = "ticket"  # of a prompt that is sent as a message


def main() -> None:
    """What `mc-launch` (`launch_quick.py`) runs."""
    try:
        verb, text = sys.argv[1:]
        steps = {"start": start, "ended": ended}
        step = steps[verb]
    except (ValueError, KeyError):
        print("usage: mc-launch start|ended TICKET    (run by ticket@.service)", file=sys.stderr)
        sys.exit(2)
    try:
        sys.exit(step(configuration.load(), ticket_id(text)))
    except TicketError as error:
        systemd.notify(f"STATUS={error.message}")
        print(error, file=sys.stderr)
        # what is not there right now may be there in a moment; the rest is for a person to mend
        sys.exit(error.exit_status if isinstance(error, Unavailable) else EX_CONFIG)


def start(config: Config, number: int) -> int:
    """Brings the agent up; returns once it is the unit's main process."""
    os.umask(0o077)
    database = Database(config.database_dsn, application="mc-launch")
    ticket = tickets.get(database, number)
    if ticket.status == "closed":
        raise ConfigError(f"Ticket {number} is closed.", hint=f"ticketctl reopen {number}")
    _check_keys(config.agent_env_path)
    paths = config.ticket_paths(number)
    # No agent runs now: what an earlier one left in there, or put there, must not be used.
    shutil.rmtree(paths.runtime, ignore_errors=True)
    for folder in (paths.folder, paths.agent_folder, paths.runtime):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    endings.forget(paths)
    cwd, base_sha = ensure_workplace(
        config, database, ticket, warn=lambda text: _warn(number, text)
    )
    decision = isolation.decide(config.isolation, ticket.driver, ticket.isolation)
    if decision.reason:
        _warn(number, f"{decision.reason}: the agent runs without isolation, as you")
    work = Work(
        ticket=number, prompt=ticket.prompt, session_id=ticket.session_id, command=ticket.command,
        cwd=cwd, paths=paths, config=config, environ=agent_environ(os.environ),
        repo=Path(ticket.repo_path) if base_sha and ticket.repo_path else None,
        isolated=decision.isolated,
    )  # fmt: skip
    launch = driver_named(ticket.driver, config).prepare(work)

    if launch.first_message and not messages.is_queued(database, number, PROMPT_AUTHOR):
        messages.enqueue(database, number, launch.first_message, author=PROMPT_AUTHOR)

    server = tmux.Server(config.tmux.socket)
    # What the agent counts (cost, tokens) begins anew with its process: whoever adds up must know.
    sidecar.append(
        paths.sidecar_path,
        "WorkerStart",
        {"resumed": launch.resumed, "session_id": ticket.session_id},
    )
    environ = {**work.environ, **launch.environ}
    box = None
    if decision.isolated:
        box = Sandbox(paths, sandbox.scene_of(database, work, launch))
        environ = isolation_view.environ(box.scene, environ)
    WorkerRecord(
        isolation=decision.mode, reason=decision.reason, environ=kept(environ),
        network=config.isolation.network if box else "full",
    ).write(paths.worker_path)  # fmt: skip
    if not ticket.use_tmux:
        _become(database, ticket, launch, work, base_sha, environ, box)
    gate = f"mc-gate-{number}-{uuid.uuid4().hex}"
    # Nothing of an agent's is in the worktree before its first start: submodules are fetched with
    # what the operator has, keys too. Later on that is the agent's own affair.
    outside = submodule_lines(paths) if base_sha and ticket.worker_started is None else []
    inside = [*submodule_lines(paths), *setup_lines(config, paths)] if base_sha else []
    waiting = box.listen(inside) if box else None
    last = box.lines(launch.argv) if box else [*inside, f"exec {shlex.join(launch.argv)}"]
    # The tmux server has room for all tickets; each pane has what its own unit says.
    files = f"ulimit -S -n {resource.getrlimit(resource.RLIMIT_NOFILE)[0]} 2>/dev/null"
    script = run_script(server.gate_command(gate), cwd, environ, [files, *outside, *last])
    _write_private(paths.run_script_path, script)
    _write_private(paths.pane_log_path, "", append=True)
    paths.writer_path.unlink(missing_ok=True)  # the last run's, and no word of this one's
    pid = _new_session(server, config, number)
    with systemd.UserManager() as manager:
        manager.attach(unit_name(number), [pid])
    server.release(gate)
    if waiting is not None:
        pid = _agent_inside(server, number, waiting)
    systemd.notify(f"MAINPID={pid}", "READY=1", f"STATUS={launch.status}")
    _record_start(database, ticket, launch, work, pid, base_sha)
    return 0


def _new_session(server: tmux.Server, config: Config, number: int) -> int:
    """The pid of the pane that waits at the gate; what an ended run left is removed for it."""
    paths = config.ticket_paths(number)
    begin = partial(
        server.start, number, paths.run_script_path, paths.pane_log_path, paths.writer_path,
        columns=config.tmux.columns, rows=config.tmux.rows,
        on_death=(sys.executable, "-I", "-m", "orchestrator.stop", "left", unit_name(number)),
    )  # fmt: skip
    try:
        return begin()
    except Conflict:
        # Asked only now: most starts find nothing, and a look at tmux is a process of its own.
        left_over = server.pane(number)
        if left_over is None or not left_over.dead:
            raise
        server.kill(number)
        return begin()


def _check_keys(path: Path) -> None:
    """Keys are for nobody else to read."""
    with suppress(FileNotFoundError):
        if path.stat().st_mode & 0o077:
            raise ConfigError(
                f"Others can read {path}, which is where keys are.", hint=f"chmod 600 {path}"
            )


def _become(
    database: Database, ticket: Ticket, launch: Launch, work: Work, base_sha: str | None,
    environ: Mapping[str, str], box: Sandbox | None,
) -> NoReturn:  # fmt: skip
    """Without tmux: this process is the worker from here on, its output the pane log."""
    _record_start(database, ticket, launch, work, os.getpid(), base_sha)
    systemd.notify("READY=1", f"STATUS={launch.status}")
    log = os.open(work.paths.pane_log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for fd, source in ((0, nothing), (1, log), (2, log)):
        os.dup2(source, fd)
    os.umask(0o022)
    os.chdir(work.cwd)
    if box is not None:
        box.become(launch.argv, environ)
    os.execve(launch.argv[0], list(launch.argv), environ)


def _agent_inside(server: tmux.Server, number: int, waiting: Waiting) -> int:
    """The agent's pid once it is in its sandbox; else what bubblewrap said about it."""
    try:
        return waiting.agent()
    except ConfigError as error:
        said = sandbox.said_in(server.capture(number))
        raise ConfigError(f"{error.message} {said}".strip(), hint=error.hint) from None


def _record_start(
    database: Database, ticket: Ticket, launch: Launch, work: Work, pid: int, base_sha: str | None
) -> None:
    # The agent runs already: a database that goes away in this moment must not end it.
    try:
        tickets.update(
            database, ticket.id, status="in_progress", turn_state="starting", worker_pid=pid,
            worker_started=datetime.now(UTC), pane_log_path=str(work.paths.pane_log_path),
            sidecar_path=str(work.paths.sidecar_path),
            worktree_path=str(work.cwd) if ticket.kind == "code" else None, base_sha=base_sha,
        )  # fmt: skip
        events.record(
            database, ticket.id, "worker_started", pid=pid, resumed=launch.resumed,
            isolation="workspace" if work.isolated else "off",
        )  # fmt: skip
    except Unavailable as error:
        print(f"started, but not recorded, until the next start: {error}", file=sys.stderr)
    systemd.log(
        f"Ticket {ticket.id}: worker {'resumed' if launch.resumed else 'started'}, pid {pid}.",
        ticket=ticket.id, event="worker_started",
    )  # fmt: skip


def _warn(number: int, text: str) -> None:
    print(f"ticket {number}: {text}", file=sys.stderr)


def run_script(
    gate: str,
    cwd: Path,
    environ: Mapping[str, str],
    last: Sequence[str],
) -> str:
    """The pane's program: waits at the gate, takes on the unit's environment, becomes the agent.

    It removes itself first: the environment may hold keys. `last` are shell lines of ours that run
    in the working folder, inside the unit; the last of them becomes the agent.
    """
    lines = ["#!/bin/sh", 'rm -f -- "$0"', f"{gate} || exit 75", "umask 022", "ulimit -c 0"]
    lines.append("unset " + " ".join(name for name in NOT_FOR_THE_AGENT if name != "_"))
    lines += [f"export {name}={shlex.quote(value)}" for name, value in sorted(environ.items())]
    lines.append(f"cd -- {shlex.quote(str(cwd))} || exit {EX_CONFIG}")
    lines += last
    return "\n".join(lines) + "\n"


def _write_private(path: Path, text: str, *, append: bool = False) -> None:
    how = os.O_APPEND if append else os.O_TRUNC
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | how, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)


def ended(config: Config, number: int) -> int:
    """Says how the worker ended; 1 when it crashed, which has systemd start it again."""
    server = tmux.Server(config.tmux.socket)
    status = os.environ.get("EXIT_STATUS", "")
    never_ran = os.environ.get("SERVICE_RESULT") == "exit-code" and status == str(EX_CONFIG)
    asked, intended = _was_asked(number)
    record = WorkerRecord.read(config.ticket_paths(number).worker_path)
    pane = None if never_ran else server.dead_pane(number)
    crashed, reason = _verdict(
        pane, asked=asked, isolated=record is not None and record.isolation == "workspace"
    )
    if never_ran:
        crashed, reason = False, "it could not be started"
    if not asked and _ran_too_long(number):
        crashed, reason = False, _TOO_LONG
    if pane is not None:
        server.kill(number)
    config.ticket_paths(number).writer_path.unlink(missing_ok=True)
    shutil.rmtree(config.ticket_paths(number).runtime, ignore_errors=True)
    if not never_ran:  # else the launcher's own sentence stays in `systemctl status`
        systemd.notify(f"STATUS=Ended: {reason}")
    if crashed:
        print(
            f"The worker of ticket {number} {reason}; see: ticketctl log {number}", file=sys.stderr
        )
    systemd.log(
        f"Ticket {number}: {reason}.",
        ticket=number,
        event="worker_ended",
        priority=4 if crashed else 6,
    )
    if not never_ran:
        at_rest = intended or (not crashed and reason in {_LEFT, _TOO_LONG})
        _record_end(config, number, Ending(reason=reason, crashed=crashed, at_rest=at_rest))
    return 1 if crashed else 0


def _was_asked(number: int) -> tuple[bool, bool]:
    """Whether somebody asked for the stop, and whether that is the ticket's new intent.

    A stop or restart has a job on the unit while ExecStopPost runs; a worker that ended by itself
    has none, or the one of its start, which systemd may not have finished yet. When the whole
    manager or the tmux server goes down, nothing was meant for the ticket.
    """
    with systemd.UserManager() as manager:
        leaving = manager.system_state() == "stopping"
        asked = manager.is_told_to_stop(unit_name(number))
        server_too = manager.unit("tmux-mc.service").job
    return asked or leaving, asked and not leaving and not server_too


def _ran_too_long(number: int) -> bool:
    """Whether RuntimeMaxSec= ended it; a restart would only begin the same time anew."""
    if os.environ.get("SERVICE_RESULT") != "timeout":
        return False
    with systemd.UserManager() as manager:
        if not manager.has_been_active(unit_name(number)):
            return False  # it was the start that took too long
        manager.give_up(unit_name(number))
    return True


def _verdict(pane: tmux.Pane | None, *, asked: bool, isolated: bool) -> tuple[bool, str]:
    if asked:
        return False, "it was stopped"
    if pane is None and (how := os.environ.get("EXIT_CODE")):
        # A worker without tmux is systemd's own child, and systemd says how it ended.
        status = os.environ.get("EXIT_STATUS", "")
        if how == "exited":
            return status != "0", _LEFT if status == "0" else f"exited with status {status}"
        return True, f"was killed by SIG{status}"
    if pane is None:
        return True, "lost its tmux session"
    if not pane.is_told:  # rather started again than taken for one that left
        return True, "ended in a way that tmux does not tell"
    killed_by = pane.exit_signal
    if isolated and (pane.exit_status or 0) > SIGNALLED:  # bubblewrap's word for a signal
        killed_by = (pane.exit_status or 0) - SIGNALLED
    if killed_by is not None:
        known = killed_by in set(signal.Signals)
        named = signal.Signals(killed_by).name if known else f"signal {killed_by}"
        return True, f"was killed by {named}"
    if pane.exit_status:
        return True, f"exited with status {pane.exit_status}"
    return False, _LEFT


def _record_end(config: Config, number: int, ending: Ending) -> None:
    database = Database(config.database_dsn, application="mc-launch")
    try:
        endings.record(database, config.ticket_paths(number), number, ending)
    except TicketError as error:
        print(f"the end of ticket {number} is written down later: {error}", file=sys.stderr)
