"""Closing and opening again, as `ticketctl close` and `reopen` do it: in a process of their own.

Both read and pack what may be gigabytes, and wait for the unit: nothing for a process in which a
thousand streams wait for their turn. Both write where the gateway cannot (worktrees, repositories),
and look whether somebody works in there, which the gateway's user namespace does not let it see: so
systemd runs them, outside of the gateway's unit. The exit status says which problem it is.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Literal

from orchestrator.errors import (
    ConfigError,
    Conflict,
    InvalidInput,
    NoSuchTicket,
    TicketError,
    Unavailable,
)

TIMEOUT_S = 600  # an archive of some gigabytes
MAX_SAID_CHARS = 4000
_PROGRAM = "from orchestrator.cli import main; main(prog_name='ticketctl')"
#: its output and its exit status come back, and nothing of it stays
_OUTSIDE = (
    "systemd-run", "--user", "--quiet", "--wait", "--pipe", "--collect", "--service-type=exec",
    f"--property=RuntimeMaxSec={TIMEOUT_S}", "--property=UMask=0077", "--",
)  # fmt: skip
_KNOWN: tuple[type[TicketError], ...] = (
    InvalidInput,
    NoSuchTicket,
    Conflict,
    Unavailable,
    ConfigError,
)


def run(verb: Literal["close", "reopen"], ticket: int, *, options: tuple[str, ...] = ()) -> None:
    """Runs it, and waits.

    Raises:
        TicketError: of the kind and in the words of ticketctl.
    """
    argv = [*_OUTSIDE] if "INVOCATION_ID" in os.environ else []
    argv += [sys.executable, "-c", _PROGRAM, verb, *options, "--", str(ticket)]
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"ticketctl {verb} took over {TIMEOUT_S} s.") from None
    if done.returncode == 0:
        return
    lines = [line.strip() for line in done.stderr[:MAX_SAID_CHARS].splitlines() if line.strip()]
    said = lines[0].removeprefix("error: ") if lines else f"ticketctl {verb} failed."
    kind = next((k for k in _KNOWN if k.exit_status == done.returncode), TicketError)
    raise kind(said, hint=" ".join(lines[1:]))
