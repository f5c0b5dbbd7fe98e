"""A connection that comes back, transactions, and LISTEN.

The only module that imports psycopg2. Nothing here knows a table.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from typing import Any

import psycopg2
import psycopg2.extensions

from orchestrator.errors import Unavailable
from orchestrator.waiting import any_ready

Row = dict[str, Any]
_TIMESTAMP_OID = 1114  # without a zone: only tables of an older Mission Control have such


def _as_utc(text: str | bytes | None, cursor: Any) -> datetime | None:
    moment: datetime | None = psycopg2.extensions.PYDATETIME(text, cursor)
    return None if moment is None else moment.replace(tzinfo=UTC)


psycopg2.extensions.register_type(
    psycopg2.extensions.new_type((_TIMESTAMP_OID,), "TIMESTAMP_IN_UTC", _as_utc)
)
MAX_IDLE = 4  # connections kept for the next transaction
SILENT_S = 1.0  # after no answer at all
HINT = "See: systemctl --user status mc-postgres.service"
CONNECT_TIMEOUT_S = 2
PLACE_TIMEOUT_S = 2.0  # for one of the limited places
STATEMENT_TIMEOUT_MS = 5_000  # past it the caller gets Unavailable instead of hanging


class NoAnswer(psycopg2.OperationalError):
    """The server took too long: it is frozen, or as good as that."""


class _RowCursor(psycopg2.extensions.cursor):
    """Rows by the names of their columns.

    psycopg2.extras has such a cursor, and brings `logging` and much else that a launcher never needs.
    """

    def _row(self, values: tuple[Any, ...]) -> Row:
        # a named cursor knows its columns from its first fetch on
        columns = self.description or ()
        return dict(zip((column[0] for column in columns), values, strict=True))

    def fetchone(self) -> Any:
        """The next row; None after the last."""
        values = super().fetchone()
        return None if values is None else self._row(values)

    def fetchmany(self, size: int | None = None) -> Any:
        """The next rows."""
        return [self._row(v) for v in super().fetchmany(self.arraysize if size is None else size)]

    def fetchall(self) -> Any:
        """All rows there are left."""
        return [self._row(values) for values in super().fetchall()]

    def __next__(self) -> Any:
        return self._row(super().__next__())


class Database:
    """PostgreSQL at `dsn`; safe to share between threads and greenlets."""

    def __init__(
        self,
        dsn: str,
        *,
        application: str = "mission-control",
        max_open: int | None = None,
        hint: str = HINT,
    ) -> None:
        """With `max_open`, so many transactions at a time; `hint` goes with "does not answer"."""
        self._dsn = dsn
        self._hint = hint
        self._places = threading.BoundedSemaphore(max_open) if max_open else None
        self._application = application
        self._idle: list[psycopg2.extensions.connection] = []
        self._lock = threading.Lock()
        self._silent_until = 0.0

    def _connect(self) -> psycopg2.extensions.connection:
        try:
            return psycopg2.connect(
                self._dsn,
                connect_timeout=CONNECT_TIMEOUT_S,
                application_name=self._application,
                options=f"-c statement_timeout={STATEMENT_TIMEOUT_MS} -c timezone=UTC",
                cursor_factory=_RowCursor,
            )
        except psycopg2.Error as error:
            self._note(error)
            raise Unavailable(
                f"PostgreSQL does not answer: {_first_line(error)}.",
                hint=self._hint,
            ) from None

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        """A cursor whose work commits at the end of the block, or not at all.

        Raises:
            Unavailable: the server is away; nothing of the block happened, unless it went away
                during the commit itself.
        """
        with self._placed(alone=False) as cursor:
            yield cursor

    @contextmanager
    def _placed(self, *, alone: bool) -> Iterator[Any]:
        if time.monotonic() < self._silent_until:
            raise Unavailable("PostgreSQL does not answer.", hint=self._hint)
        if self._places is None:
            with self._transaction(alone=alone) as cursor:
                yield cursor
        elif self._places.acquire(timeout=PLACE_TIMEOUT_S):
            try:
                with self._transaction(alone=alone) as cursor:
                    yield cursor
            finally:
                self._places.release()
        else:
            raise Unavailable("The database is asked too much at once.")

    @contextmanager
    def _transaction(self, *, alone: bool) -> Iterator[Any]:
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        if connection is not None and not _usable(connection):
            connection.close()
            connection = None
        connection = connection or self._connect()
        try:
            # What is sent alone is a transaction by itself: BEGIN and COMMIT would be two more round trips.
            connection.autocommit = alone
            with nullcontext() if alone else connection, connection.cursor() as cursor:
                yield cursor
        except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
            self._note(error)
            connection.close()
            raise Unavailable(f"PostgreSQL went away: {_first_line(error)}.") from None
        except BaseException:
            connection.close()
            raise
        with self._lock:
            if len(self._idle) < MAX_IDLE:
                self._idle.append(connection)
                return
        connection.close()

    def _note(self, error: Exception) -> None:
        # Who asked a frozen server waited for nothing; the others of the next second need not.
        # (To roll back fails as well then, and is what is raised.)
        if isinstance(error, NoAnswer) or isinstance(error.__context__, NoAnswer):
            self._silent_until = time.monotonic() + SILENT_S

    def query(self, sql: str, params: Sequence[Any] | Row = ()) -> list[Row]:
        """What is sent at once, in a transaction of its own; the last statement's rows, or an empty list.

        Raises:
            Unavailable: as `transaction`.
        """
        with self._placed(alone=True) as cursor:
            cursor.execute(sql, params)
            return list(cursor.fetchall()) if cursor.description else []

    def close(self) -> None:
        """Closes what is idle."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()


class Listener:
    """LISTEN on some channels, on a connection of its own."""

    def __init__(self, database: Database, channels: Sequence[str]) -> None:
        self._connection = database._connect()  # noqa: SLF001  # the same module, one pool apart
        self._connection.autocommit = True
        with self._connection.cursor() as cursor:
            for channel in channels:
                cursor.execute(f'LISTEN "{channel}"')

    def fileno(self) -> int:
        """For select and event loops."""
        return self._connection.fileno()

    def wait(self, timeout_s: float, *, wake_fd: int | None = None) -> list[tuple[str, str]]:
        """(channel, payload) pairs; empty when `timeout_s` passed or `wake_fd` became readable.

        Raises:
            Unavailable: the connection is gone; make a new Listener.
        """
        if not self._connection.notifies:
            watched = [self.fileno()] + ([] if wake_fd is None else [wake_fd])
            any_ready(watched, [], timeout_s)
        try:
            self._connection.poll()
        except psycopg2.Error as error:
            raise Unavailable(f"PostgreSQL went away: {_first_line(error)}.") from None
        heard = [(n.channel, n.payload) for n in self._connection.notifies]
        self._connection.notifies.clear()
        return heard

    def try_lock(self, key: int) -> bool:
        """An advisory lock for as long as this connection lives; False: somebody else has it."""
        with self._connection.cursor() as cursor:
            cursor.execute("SELECT pg_try_advisory_lock(%s) AS got", (key,))
            row: Any = cursor.fetchone()
        return bool(row["got"])

    def close(self) -> None:
        """Stops listening."""
        with suppress(psycopg2.Error):
            self._connection.close()


def _usable(connection: psycopg2.extensions.connection) -> bool:
    # An idle connection has nothing to read; one that became readable was closed by the server. Looked at
    # instead of waited for: a wait of no time at all may miss it under gevent.
    if connection.closed:
        return False
    # only here: it is a twentieth of what a launcher imports, and its first transaction needs none
    import socket  # noqa: PLC0415

    try:
        with socket.socket(fileno=os.dup(connection.fileno())) as peer:
            peer.setblocking(False)  # as libpq has it
            peer.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__
