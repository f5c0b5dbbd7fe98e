"""queued_messages to workers: each at most once, never into a dialog, never silently lost.

One message a ticket at a time: taken with a lease when the worker can take it, and by that marked sent
before its first byte leaves, settled by the worker's own evidence. What was marked sent and not confirmed
is never sent again; the operator sees `unconfirmed` and decides. How it gets to the worker is
`delivery.py`'s business, and a take whose answer was lost that of `leases.py`.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

from orchestrator import config as configuration
from orchestrator import systemd
from orchestrator.config import Config
from orchestrator.delivery import Delivery, Outcome
from orchestrator.drivers import NotTaken, message_key
from orchestrator.errors import ConfigError, Conflict, InvalidInput, TicketError, Unavailable
from orchestrator.leases import Leases
from orchestrator.notify import Notifier
from orchestrator.pipe_watch import PipeWatch
from orchestrator.seat import Seat
from orchestrator.store import messages, tickets
from orchestrator.store.db import Database, Listener
from orchestrator.store.messages import Message
from orchestrator.workers import Worker, worker_of

# Workers tell of their turns in files, not on the database's channels: while a message waits for a
# turn's end they are looked at this often, and otherwise once a second.
BUSY_POLL_S = 0.1
IDLE_POLL_S = 1.0
MAX_SENDING = 8  # tickets spoken to at the same time
INTERRUPT_S = 5.0  # a turn that was broken off for an urgent message has ended by then
PUT_BACK_S = 0.4  # a prompt that was broken off before its first word is back in the box by then
_ONLY_ONE = 0x6D63_6469_7370  # "mcdisp": the advisory lock of whoever dispatches


class Dispatcher:
    """Sends what is queued, ticket by ticket."""

    def __init__(self, config: Config, database: Database) -> None:
        self._config = config
        self._database = database
        self._delivery = Delivery(Seat(config.tmux.socket))
        self.owner = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._leases = Leases(database, self.owner)
        self._sending: set[int] = set()
        self._told: dict[
            int, tuple[str, float]
        ] = {}  # ticket: why its messages wait, and when that was said
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(MAX_SENDING, thread_name_prefix="send")

    def round(self) -> bool:
        """One look at every ticket with a message to send; True while there are some, or one is sent."""
        self._leases.take_back()  # before the next is taken: what comes back may be the older one
        waiting = messages.tickets_waiting(self._database)
        for number in waiting:
            with self._lock:
                if number in self._sending:
                    continue
                self._sending.add(number)
            self._pool.submit(self._send_next, number)
        return bool(waiting) or bool(self._sending)

    def is_own(self, channel: str, payload: str) -> bool:
        """Whether that news is of a ticket that is being spoken to: most likely our own writing."""
        return channel == "mc_messages" and payload.isdecimal() and int(payload) in self._sending

    def _send_next(self, number: int) -> None:
        try:
            worker = self._worker(number)
            if worker is None:
                return
            obstacle = self._delivery.obstacle(worker)
            if obstacle is not None and not self._made_way(worker):
                self._explain(number, obstacle.reason)
                return
            lease = self._leases.name()
            taken = self._take(number, lease)
            if taken:
                self._send(worker, taken, lease)
        except TicketError as error:
            print(f"ticket {number}: tried again in a moment: {error}", file=sys.stderr)
        except Exception as error:  # noqa: BLE001  # one ticket's surprise must not stop the others
            print(f"ticket {number}: {type(error).__name__}: {error}", file=sys.stderr)
        finally:
            with self._lock:
                self._sending.discard(number)

    def _take(self, number: int, lease: str) -> list[Message]:
        try:
            return messages.take(self._database, number, lease, joined=self._config.dispatch.joined)
        except BaseException:  # it may have been carried out all the same
            self._leases.nothing_left(lease)
            raise

    def _worker(self, number: int) -> Worker | None:
        try:
            worker = worker_of(self._config, tickets.get(self._database, number))
        except (ConfigError, InvalidInput) as error:  # its driver's table has gone
            self._explain(number, error.message)
            return None
        if worker is None:
            self._explain(number, "the worker does not run")
        return worker

    def _explain(self, number: int, reason: str) -> None:
        """Says in the rows why messages wait: at once when the reason is a new one, else now and then."""
        told, when = self._told.get(number, ("", 0.0))
        if told != reason or time.monotonic() - when > IDLE_POLL_S:
            messages.explain(self._database, number, reason)
            self._told[number] = reason, time.monotonic()

    def _made_way(self, worker: Worker) -> bool:
        """Breaks off the turn for a message that was sent with --now; True: the way is free."""
        if not messages.is_urgent(self._database, worker.ticket.id):
            return False
        if worker.state() in {"busy", "waiting_permission", "waiting_answer"}:
            self._delivery.interrupt(worker)
        deadline = time.monotonic() + INTERRUPT_S
        free_since: float | None = None
        while (now := time.monotonic()) < deadline:
            if self._delivery.obstacle(worker) is not None:
                free_since = None
            elif now - (free_since := free_since or now) >= PUT_BACK_S:
                return True
            time.sleep(0.05)  # the turn's end is a file of the worker's, not an event
        return False

    def _send(self, worker: Worker, taken: list[Message], lease: str) -> None:
        number = worker.ticket.id
        ids = [m.id for m in taken]
        self._told.pop(number, None)
        outcome: Outcome | None = Outcome("unconfirmed", "the dispatcher failed while sending it")
        try:
            body = "\n\n".join(m.body for m in taken)
            outcome = self._delivery.send(worker, body, message_key(number, ids[0]))
        except NotTaken:
            outcome = None
        except InvalidInput as error:
            outcome = Outcome("refused", error.message)
        except Unavailable as error:
            outcome = Outcome("unconfirmed", error.message)
        finally:
            if outcome is None:
                self._leases.nothing_left(lease)
                self._leases.take_back()
            else:
                messages.settle(self._database, ids, outcome.name, outcome.reason)
        if outcome is None:
            return
        for message in ids:
            systemd.log(
                f"Ticket {number}: message {message} {outcome.name}.", ticket=number,
                event=f"message_{outcome.name}", priority=4 if outcome.name == "unconfirmed" else 6,
            )  # fmt: skip


def main() -> None:
    """Entry point `mc-dispatch`."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        config = configuration.load()
        run(config, Database(config.database_dsn, application="mc-dispatch"))
    except TicketError as error:
        systemd.notify(f"STATUS={error.message}")
        print(error, file=sys.stderr)
        sys.exit(error.exit_status)


def run(config: Config, database: Database) -> None:
    """Dispatches until the process is told to leave."""
    dispatcher = Dispatcher(config, database)
    notifier = Notifier(config, database)
    pipes = PipeWatch(config, database)
    listener: Listener | None = None
    looked = 0.0
    while True:
        try:
            if listener is None:
                listener = _alone(dispatcher, database)
                notifier.start()
                pipes.refresh()
                systemd.notify("READY=1", "STATUS=sending what is queued")
            waiting = dispatcher.round()
            heard = _news(listener, dispatcher, pipes, BUSY_POLL_S if waiting else IDLE_POLL_S)
            workers = any(channel == "mc_workers" for channel, _ in heard)
            if workers:
                pipes.refresh()
            # a message goes first
            if workers or not heard or time.monotonic() - looked > IDLE_POLL_S:
                systemd.notify("WATCHDOG=1")
                pipes.look()
                looked = time.monotonic()
        except Unavailable as error:
            print(f"trying again in {IDLE_POLL_S:.0f} s: {error}", file=sys.stderr)
            systemd.notify(f"STATUS={error.message}", "WATCHDOG=1")
            if listener is not None:
                listener.close()
                listener = None
            pipes.look()
            time.sleep(IDLE_POLL_S)  # the database's restart has no event that reaches us


def _news(
    listener: Listener, dispatcher: Dispatcher, pipes: PipeWatch, timeout_s: float
) -> list[tuple[str, str]]:
    """What there is to look at, or nothing when it is time to look anyway.

    What we write of a message on its way is no news: a round for each would take its time from the
    thread that sends it.
    """
    deadline = time.monotonic() + timeout_s
    while heard := listener.wait(max(0.0, deadline - time.monotonic()), wake_fd=pipes.fileno()):
        if not all(dispatcher.is_own(*news) for news in heard):
            break
    return heard


def _alone(dispatcher: Dispatcher, database: Database) -> Listener:
    """Listens, as the only dispatcher there is; what another left half sent is unconfirmed.

    Raises:
        Conflict: another one is at work.
    """
    listener = Listener(database, ["mc_messages", "mc_workers"])
    if not listener.try_lock(_ONLY_ONE):
        listener.close()
        raise Conflict(
            "Another dispatcher is at work on this database.",
            hint="systemctl --user status mc-dispatch.service",
        )
    for message in messages.give_up_stale(database, dispatcher.owner):
        print(f"message {message} was being sent by another: unconfirmed", file=sys.stderr)
    return listener
