"""Reading the database of another Mission Control, whatever its columns are.

Read-only, on a connection of its own, as it was at one moment: rows come as JSON text, for a table that
somebody made by hand has types of its own. Nothing here believes what is in a row (`taking.py` does
that), or writes (`imports.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2
import psycopg2.extensions

from orchestrator.errors import ConfigError, InvalidInput
from orchestrator.store.db import Database
from orchestrator.store.migrate import OLDER_TABLES, known

TABLES = (*OLDER_TABLES, "comments")  #: what is read, the last where it is there
MAX_ROW_BYTES = 2_000_000  # of a row's JSON; a longer one is left there, and said
_AT_ONCE = 50  # rows, and so at most 100 MB
_STATEMENT_TIMEOUT_MS = 60_000  # for each look at it: a server that hangs is told of
_HINT = "Check the address with: psql DSN"
#: ours alone: what is not worth a word when it stays there
_OURS = frozenset(
    {
        "schema_migrations", "ingest_positions", "login_links", "web_sessions", "heartbeats",
        "told_waits", "quarantine", "worktrees", "archives",
    }
)  # fmt: skip


class Older:
    """A database of another Mission Control, open for reading."""

    def __init__(self, cursor: Any, name: str) -> None:
        self._cursor = cursor
        self.name = name  #: for people; holds no password
        self.identity = identity(cursor)  #: the same for the same database, however it is reached
        cursor.execute(
            "SELECT table_name FROM information_schema.tables"
            " WHERE table_schema = current_schema ORDER BY table_name"
        )
        found = [str(row["table_name"]) for row in cursor.fetchall()]
        missing = [table for table in OLDER_TABLES if table not in found]
        if missing:
            raise InvalidInput(
                f"The database {name} is no Mission Control's: it has no table {missing[0]}.",
                hint="Give the one that has tickets, ticket_events and queued_messages.",
            )
        self.tables = [table for table in TABLES if table in found]
        self.others = [t for t in found if t not in TABLES and t not in _OURS]
        self.columns = {table: self._columns(table) for table in self.tables}
        for table in self.tables:
            needed = "id" if table == "tickets" else "ticket_id"
            if needed not in self.columns[table]:
                raise InvalidInput(f"The table {table} of {name} has no column {needed}.")
        if "schema_migrations" in found:
            self._refuse_newer()

    def count(self) -> int:
        """Of all rows that `rows` gives."""
        total = 0
        for table in self.tables:
            self._cursor.execute(f'SELECT count(*) AS count FROM "{table}"')
            total += int(self._cursor.fetchone()["count"])
        return total

    def rows(self, table: str) -> Iterator[tuple[str, str | None]]:
        """Number of the ticket, and the row as JSON; None: longer than `MAX_ROW_BYTES`."""
        assert table in self.tables  # noqa: S101  # our own word, never one of theirs
        number = "id" if table == "tickets" else "ticket_id"
        order = "id" if "id" in self.columns[table] else "ctid"
        # OFFSET 0: made once, and not once for its length and once for itself
        sql = (
            f"SELECT number, CASE WHEN octet_length(line) <= {MAX_ROW_BYTES} THEN line END AS line"
            f' FROM (SELECT older."{number}"::text AS number, pg_catalog.to_json(older.*)::text AS line'
            f' FROM "{table}" AS older ORDER BY older.{order} OFFSET 0) AS lines'
        )
        with self._cursor.connection.cursor(f"mc_{table}") as cursor:
            cursor.itersize = _AT_ONCE
            cursor.execute(sql)
            for row in cursor:
                yield str(row["number"]), row["line"]

    def _columns(self, table: str) -> list[str]:
        self._cursor.execute(
            "SELECT column_name FROM information_schema.columns"
            " WHERE table_schema = current_schema AND table_name = %s ORDER BY ordinal_position",
            (table,),
        )
        return [str(row["column_name"]) for row in self._cursor.fetchall()]

    def _refuse_newer(self) -> None:
        self._cursor.execute("SELECT max(number) AS number FROM schema_migrations")
        number = self._cursor.fetchone()["number"] or 0
        if number > max(m.number for m in known()):
            raise ConfigError(
                f"The database {self.name} has migration {number:04d}, which this version does not know.",
                hint="Install at least the version that made it, then import.",
            )


@contextmanager
def opened(dsn: str) -> Iterator[Older]:
    """The database at `dsn`, as it is now.

    Raises:
        InvalidInput: not an address, not a Mission Control's, or not to be read.
        ConfigError: of a newer version than this program.
        Unavailable: it does not answer.
    """
    try:
        parts = psycopg2.extensions.parse_dsn(dsn)
    except psycopg2.ProgrammingError:  # its words would repeat the password
        raise InvalidInput(
            "That is no address of a PostgreSQL database.",
            hint="Write postgresql://USER@HOST/DATABASE, or 'host=… dbname=…'.",
        ) from None
    database = Database(dsn, application="ticketctl import", hint=_HINT)
    try:
        with database.transaction() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            cursor.execute(f"SET LOCAL statement_timeout = {_STATEMENT_TIMEOUT_MS}")
            cursor.execute("SELECT current_database() AS name")
            name = cursor.fetchone()["name"]
            host = parts.get("host", "")
            yield Older(cursor, f"{name} at {host}" if host and host[0] != "/" else str(name))
    except (psycopg2.ProgrammingError, psycopg2.DataError, UnicodeDecodeError) as error:
        first = next(iter(str(error).splitlines()), "")
        raise InvalidInput(f"The older database cannot be read: {first}.", hint=_HINT) from None
    finally:
        database.close()


def identity(cursor: Any) -> str:
    """Which database this is, of all there are: its cluster's own number, and its number in there."""
    cursor.execute(
        "SELECT oid, has_function_privilege('pg_control_system()', 'EXECUTE') AS allowed,"
        " inet_server_addr() AS address, inet_server_port() AS port"
        " FROM pg_database WHERE datname = current_database()"
    )
    row = cursor.fetchone()
    cluster = f"{row['address']}:{row['port']}"
    if row["allowed"]:
        cursor.execute("SELECT system_identifier FROM pg_control_system()")
        cluster = str(cursor.fetchone()["system_identifier"])
    return f"{cluster}/{row['oid']}"
