"""The only SQL: tickets, messages, events and logins, in PostgreSQL.

Everything else speaks to the database through the functions here, and gets frozen records back.
"""

import sys

# psycopg2 imports `ssl` for the locks OpenSSL wanted from programs with threads before 1.1, and leaves
# them to libpq where there is none. libpq brings a library of its own; Python's beside it is a fifth of
# the time a short command takes.
if "ssl" not in sys.modules:
    sys.modules["ssl"] = None  # type: ignore[assignment]  # None: not to be had
    import psycopg2  # noqa: F401

    del sys.modules["ssl"]
