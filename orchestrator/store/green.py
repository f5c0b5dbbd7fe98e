"""Let psycopg2 wait without holding up everybody else in a process of greenlets.

libpq waits inside C, where gevent cannot switch; with a wait callback psycopg2 asks us to wait
instead. Only the gateway installs it. It waits with `select.poll`, which gevent has replaced by
then, so that nothing here has to know gevent. Not for threads: they are better off without.
"""

from __future__ import annotations

import time

import psycopg2.extensions

from orchestrator.store.db import NoAnswer
from orchestrator.waiting import any_ready

ANSWER_S = 2.0  # a frozen server is Unavailable after this, however long its own timeouts are


def install_wait_callback(*, answer_s: float = ANSWER_S) -> None:
    """From now on every connection of this process waits through `select.poll`.

    An answer that takes longer than `answer_s` raises NoAnswer and closes the
    connection: connect_timeout and statement_timeout do not help against a server that is stopped.
    """

    def wait(connection: psycopg2.extensions.connection) -> None:
        deadline = time.monotonic() + answer_s
        while True:
            state = connection.poll()
            if state == psycopg2.extensions.POLL_OK:
                return
            left = deadline - time.monotonic()
            descriptors = [connection.fileno()]
            reads = descriptors if state == psycopg2.extensions.POLL_READ else []
            writes = descriptors if state == psycopg2.extensions.POLL_WRITE else []
            if left <= 0 or not any_ready(reads, writes, left):
                raise NoAnswer(f"no answer within {answer_s:g} seconds")

    psycopg2.extensions.set_wait_callback(wait)
