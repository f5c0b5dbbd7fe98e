"""SIDECAR to EVENTS: follows every sidecar, line by line, into the database, each exactly once.

inotify is a hint; the stored position and a look at every file once a second are the truth. Turn
state is decided here too, from the worker's own word (drivers) and the newest events, and each
change is an event with its evidence. Several may run: whoever is slower reads on from where the
other was.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import chain, islice
from pathlib import Path

from orchestrator import config as configuration
from orchestrator import events, sidecar, systemd
from orchestrator.config import Config
from orchestrator.errors import ConfigError, InvalidInput, TicketError, Unavailable
from orchestrator.events import Event, Memory
from orchestrator.sidecar import Poison, Record
from orchestrator.store import ingestion, tickets
from orchestrator.store.db import Database, Listener
from orchestrator.store.ingestion import EventRow, Finish, PoisonRow, Position, TicketFacts
from orchestrator.store.tickets import Ticket
from orchestrator.watch import FileIdentity, Watcher
from orchestrator.workers import Worker, observed_state, worker_of

BATCH_LINES = 5000  # a transaction; bounded memory, and nobody waits long behind it
BATCH_BYTES = 8_000_000
SWEEP_S = 1.0  # a look at every file: inotify loses events when the kernel's queue is full
WATCHDOG_S = 10.0
STATE_LOOKS_S = (0.03, 0.1, 0.3)  # after a line: the worker's own word lags behind its hooks
#: what goes to the journal as well; the rest is too much and too long for it
TOLD = frozenset(
    {"worker_start", "session_start", "session_end", "user_prompt", "message_taken", "turn_end",
     "result", "api_error", "permission_request", "permission_answer", "compact", "subagent"}
)  # fmt: skip
_TWO_SIDED = frozenset({"compact", "subagent"})  # whose beginning and end are one kind
MAX_TOLD_CHARS = 80  # of the one word that goes along


@dataclass(slots=True)
class Followed:
    """A sidecar, and how far it was read."""

    ticket: int
    path: Path
    position: Position | None = None  #: None: ask the database
    look_at: list[float] = field(default_factory=list)  #: when to look at the turn state; monotonic

    @property
    def source(self) -> str:
        """Its name in the database."""
        return f"sidecar:{self.ticket}"


class Batch:
    """Lines on their way into the database: read and folded while the server stores those before."""

    def __init__(self, start: Position, found: Iterator[Record | Poison]) -> None:
        self._start = start
        self._found = found
        self._memory = Memory.from_json(dict(start.state))
        self._end = start.offset
        self._last_at: datetime | None = None
        self.lines = 0
        self.told: list[
            tuple[str, str]
        ] = []  #: for the journal: kind, and the word that goes along
        self.poisons: list[PoisonRow] = []

    def __iter__(self) -> Iterator[EventRow]:
        for item in self._found:
            self.lines += 1
            self._end = item.end
            if reason := item.reason if isinstance(item, Poison) else events.flaw(item):
                self.poisons.append(
                    PoisonRow(offset=item.offset, end=item.end, hook=item.hook, reason=reason)
                )
            if reason or isinstance(item, Poison):
                continue
            self._memory, event = events.fold(self._memory, item)
            self._last_at = event.at  # of the last line, not the latest: the clock may jump
            if event.kind in TOLD:
                self.told.append((event.kind, _word_of(event)))
            yield EventRow(kind=event.kind, at=event.at, text=event.text, offset=event.offset)

    def finish(self) -> Finish:
        """What is known once all of them were read."""
        memory = self._memory
        facts = TicketFacts(
            cost_usd=memory.cost_usd, input_tokens=memory.input_tokens, output_tokens=memory.output_tokens,
            session_id=memory.session_id, last_sign_at=self._last_at,
        )  # fmt: skip
        after = replace(self._start, offset=self._end, state=memory.as_json())
        return Finish(after=after, poisons=self.poisons, facts=facts)


class Ingest:
    """Reads what there is; knows nothing of waiting."""

    def __init__(self, config: Config, database: Database) -> None:
        self._config = config
        self._database = database
        self.lines = 0

    def read_on(self, followed: Followed) -> bool:
        """Stores the next batch of a sidecar; True: there may be more."""
        if followed.position is None:
            followed.position = ingestion.position(self._database, followed.source)
        before = followed.position
        try:
            identity = FileIdentity.of(followed.path)
        except FileNotFoundError:
            return False
        start = before
        if before.identity != identity.text or identity.size < before.offset:
            # Another file, or this one cut short: a generation of its own, from its beginning.
            step = 1 if before.identity else 0
            start = replace(
                before, generation=before.generation + step, offset=0, identity=identity.text
            )
        if identity.size <= start.offset:
            return False
        found = _batch(followed.path, start.offset)
        first = list(islice(found, ingestion.COPY_FROM))  # a few are there at once, or none is
        if not first:
            return False
        batch = Batch(start, chain(first, found))
        stored = ingestion.store_batch(
            self._database, ticket=followed.ticket, source=followed.source, before=before,
            generation=start.generation, events=batch, finish=batch.finish,
        )  # fmt: skip
        followed.position = batch.finish().after if stored else None
        if stored:
            self.lines += batch.lines
            now = time.monotonic()
            followed.look_at = [now, *(now + s for s in STATE_LOOKS_S)]
            self._tell(followed.ticket, batch.told, batch.poisons)
        return True

    def _tell(self, ticket: int, told: list[tuple[str, str]], poisons: list[PoisonRow]) -> None:
        for kind, word in told:
            said = f"Ticket {ticket}: {kind.replace('_', ' ')}"
            systemd.log(
                f"{said} ({word})." if word else f"{said}.", ticket=ticket, event=kind,
                priority=4 if kind == "api_error" else 6,
            )  # fmt: skip
        for poison in poisons:
            systemd.log(
                f"Ticket {ticket}: sidecar line at byte {poison.offset} is {poison.reason}: quarantined.",
                ticket=ticket, event="quarantine", priority=4,
            )  # fmt: skip

    def decide_state(self, worker: Worker, followed: Followed) -> None:
        """Writes down the worker's turn state when it is another one."""
        state, evidence = observed_state(self._database, worker, lambda: self.read_on(followed))
        before = ingestion.set_turn_state(self._database, worker.ticket.id, state, evidence)
        if before is not None:
            systemd.log(
                f"Ticket {worker.ticket.id}: {before} -> {state} ({evidence}).",
                ticket=worker.ticket.id, event="state",
            )  # fmt: skip


def _word_of(event: Event) -> str:
    """What kind of it, for the journal: a name the agent's program gives, nothing anybody said."""
    asked = event.data.get("request")  # the stream's requests are an envelope
    words = [
        event.data.get(name) for name in ("source", "behavior", "tool_name", "reason", "error")
    ]
    words += [asked.get("tool_name")] if isinstance(asked, Mapping) else []
    words.append(event.data.get("hook_event_name" if event.kind in _TWO_SIDED else "subtype"))
    return next((word[:MAX_TOLD_CHARS] for word in words if isinstance(word, str) and word), "")


def _batch(path: Path, offset: int) -> Iterator[Record | Poison]:
    """Up to BATCH_LINES lines and about BATCH_BYTES bytes."""
    for item in islice(sidecar.read(path, offset), BATCH_LINES):
        yield item
        if item.end - offset > BATCH_BYTES:
            return


class Follower:
    """Waits: for inotify, for the database's word of tickets, for the clock."""

    def __init__(self, config: Config, database: Database) -> None:
        self._config = config
        self._database = database
        self._ingest = Ingest(config, database)
        self._watcher = Watcher()
        self._followed: dict[int, Followed] = {}
        self._workers: dict[int, Worker] = {}
        self._due: set[int] = set()
        self._next_sweep = 0.0
        self._without_driver: set[int] = set()  # it was said already

    def close(self) -> None:
        """Lets inotify go."""
        self._watcher.close()

    @property
    def status(self) -> str:
        """For `systemctl status`."""
        how = "" if self._watcher.is_on else ", without inotify: looking once a second"
        return f"following {len(self._followed)} sidecars, {self._ingest.lines} lines{how}"

    def round(self, listener: Listener) -> None:
        """Stores what is there, then waits for the next thing."""
        now = time.monotonic()
        if now >= self._next_sweep:
            self._sweep()
            self._next_sweep = now + SWEEP_S
        for number in list(self._due):
            followed = self._followed.get(number)
            if followed is None or not self._ingest.read_on(followed):
                self._due.discard(number)
        self._look_at_states()
        if not self._due:
            self._wait(listener)

    def _sweep(self) -> None:
        """Every ticket that is not closed, or has unread lines: is there something to do?"""
        alive: dict[int, Worker] = {}
        for ticket in tickets.list_all(self._database):
            self._follow(ticket)
            worker = self._worker_of(ticket)
            if worker is not None:
                alive[ticket.id] = worker
        self._workers = alive
        self._due.update(self._followed)
        now = time.monotonic()
        for number in alive:
            if number in self._followed:
                self._followed[number].look_at.append(now)

    def _worker_of(self, ticket: Ticket) -> Worker | None:
        try:
            return worker_of(self._config, ticket)
        except (InvalidInput, ConfigError) as error:
            if ticket.id not in self._without_driver:
                self._without_driver.add(ticket.id)
                print(f"ticket {ticket.id}: its turn state is not read: {error}", file=sys.stderr)
            return None

    def _follow(self, ticket: Ticket) -> None:
        path = self._config.ticket_paths(ticket.id).sidecar_path
        if ticket.id not in self._followed:
            self._followed[ticket.id] = Followed(ticket.id, path)
        self._watcher.ensure(path, ticket.id)

    def _look_at_states(self) -> None:
        now = time.monotonic()
        for number, worker in self._workers.items():
            followed = self._followed[number]
            if followed.look_at and followed.look_at[0] <= now:
                followed.look_at = [t for t in followed.look_at if t > now]
                self._ingest.decide_state(worker, followed)

    def _wait(self, listener: Listener) -> None:
        times = [t for f in self._followed.values() for t in f.look_at if f.ticket in self._workers]
        until = min([self._next_sweep, *times])
        heard = listener.wait(max(0.0, until - time.monotonic()), wake_fd=self._watcher.fileno())
        if heard:  # a worker was started or has ended
            self._next_sweep = 0.0
        self._due.update(self._watcher.changed())


def main() -> None:
    """Entry point `mc-ingest`."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    os.umask(0o077)
    try:
        config = configuration.load()
        run(config, Database(config.database_dsn, application="mc-ingest"))
    except TicketError as error:
        systemd.notify(f"STATUS={error.message}")
        print(error, file=sys.stderr)
        sys.exit(error.exit_status)


def run(config: Config, database: Database) -> None:
    """Ingests until the process is told to leave."""
    follower = Follower(config, database)
    listener: Listener | None = None
    told = 0.0
    while True:
        try:
            listener = listener or Listener(database, ["mc_workers"])
            follower.round(listener)
            if time.monotonic() - told >= SWEEP_S:
                systemd.notify("READY=1", f"STATUS={follower.status}", "WATCHDOG=1")
                told = time.monotonic()
        except Unavailable as error:
            print(f"trying again in {SWEEP_S:.0f} s: {error}", file=sys.stderr)
            systemd.notify(f"STATUS={error.message}", "WATCHDOG=1")
            if listener is not None:
                listener.close()
                listener = None
            time.sleep(SWEEP_S)  # the database's restart has no event that reaches us


__all__ = ["Event", "Follower", "Ingest", "main"]
