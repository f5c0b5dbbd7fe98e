"""What a database needs that was put back from a backup: the world went on without it."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.store.db import Database

REASON = "restored from a backup: it may have been sent since then"


def settle(database: Database, workers: Mapping[int, int]) -> int:
    """Makes an old state safe to go on with; how many messages wait for an operator's word.

    A message that was queued then may have been sent since, and is not sent again. Whoever was
    logged in then logs in again: the session may have been ended since. Of workers only those are
    known that run now.

    Args:
        database: the restored one, before anybody else uses it.
        workers: the running ones, ticket to pid.
    """
    with database.transaction() as cursor:
        cursor.execute(
            "UPDATE queued_messages SET outcome = 'unconfirmed', reason = %s, lease_owner = NULL,"
            " lease_until = NULL WHERE outcome IN ('queued', 'sent')",
            (REASON,),
        )
        waiting = int(cursor.rowcount)
        cursor.execute("DELETE FROM web_sessions")
        cursor.execute("DELETE FROM login_links")
        cursor.execute(
            "UPDATE tickets SET worker_pid = NULL, turn_state = 'gone'"
            " WHERE worker_pid IS NOT NULL OR turn_state <> 'gone'"
        )
        for ticket, pid in workers.items():
            cursor.execute(
                "UPDATE tickets SET worker_pid = %s, turn_state = 'starting', status = 'in_progress'"
                " WHERE id = %s AND status <> 'closed'",
                (pid, ticket),
            )
    return waiting
