"""The schema, brought up to date: migrations/*.sql in order, each once, under a lock.

A database with migrations this program does not know is refused: an older program must not write
into a newer schema. One of an older Mission Control, made by hand, is adopted (`adopt.sql`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import ConfigError
from orchestrator.store.db import Database

_LOCK_KEY = 0x6D63_6D69_6772  # "mcmigr": one migration at a time
OLDER_TABLES = ("tickets", "ticket_events", "queued_messages")  #: which every one has
_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql", re.ASCII)


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of migrations/."""

    number: int
    name: str
    sql: str


def known(folder: Path | None = None) -> list[Migration]:
    """The migrations that come with this program, in order."""
    return [
        Migration(int(match[1]), path.stem, path.read_text(encoding="utf-8"))
        for path in sorted((folder or Path(__file__).parent / "migrations").iterdir())
        if (match := _NAME.fullmatch(path.name))
    ]


def ensure_schema(database: Database, folder: Path | None = None) -> list[str]:
    """Applies what is missing; the names of what was applied.

    Raises:
        ConfigError: the database is newer than this program.
    """
    migrations = known(folder)
    with database.transaction() as cursor:
        cursor.execute("SET LOCAL statement_timeout = 0")
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK_KEY,))
        cursor.execute(
            "CREATE TABLE IF NOT EXISTS schema_migrations ("
            " number integer PRIMARY KEY, name text NOT NULL,"
            " applied_at timestamptz NOT NULL DEFAULT now())"
        )
        cursor.execute("SELECT number FROM schema_migrations")
        done = {int(row["number"]) for row in cursor.fetchall()}
        newer = done - {m.number for m in migrations}
        if newer:
            raise ConfigError(
                f"The database has migration {max(newer):04d}, which this version does not know.",
                hint="Install the newer version again, or restore an older backup.",
            )
        if not done and folder is None and _is_older_make(cursor):
            cursor.execute(Path(__file__).with_name("adopt.sql").read_text(encoding="utf-8"))
        missing = [m for m in migrations if m.number not in done]
        for migration in missing:
            cursor.execute(migration.sql)
            cursor.execute(
                "INSERT INTO schema_migrations (number, name) VALUES (%s, %s)",
                (migration.number, migration.name),
            )
        return [m.name for m in missing]


def applied(database: Database) -> list[str]:
    """The migrations that a database has, by number."""
    rows = database.query("SELECT name FROM schema_migrations ORDER BY number")
    return [str(row["name"]) for row in rows]


def _is_older_make(cursor: Any) -> bool:
    """Whether there are tables of ours that no migration made.

    Raises:
        ConfigError: some of them are missing: it is something else that has a table of that name.
    """
    cursor.execute(
        "SELECT name FROM unnest(%s::text[]) AS name WHERE to_regclass(name) IS NOT NULL",
        (list(OLDER_TABLES),),
    )
    found = {row["name"] for row in cursor.fetchall()}
    if found and found != set(OLDER_TABLES):
        raise ConfigError(
            f"The database has a table {min(found)}, and is no Mission Control's:"
            f" {', '.join(sorted(set(OLDER_TABLES) - found))} is missing.",
            hint="Give Mission Control a database of its own in [database] url.",
        )
    return bool(found)
