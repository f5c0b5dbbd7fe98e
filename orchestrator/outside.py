"""Run a person's own program outside of the service that asks for it: as a transient unit of theirs.

The dispatcher sees a read-only machine, and what it started would too. systemd starts it instead, with
limits, an end by the clock that takes along what it started, and an identity of its own in the journal.
Its variables and its input are on no command line, where other users could read them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import unicodedata
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

IDENTIFIER = "mission-control-notify"
STARTING_S = 15.0  # for systemd, beside the program's own time
MAX_SAID_BYTES = 65536
_RESULT = re.compile(rb"^Finished with result: ([a-z-]+)$", re.MULTILINE)
_STATUS = re.compile(
    rb"^Main processes terminated with: code=exited[,/] ?status=(\d+)", re.MULTILINE
)
#: more than a message to a person takes; no hardening: it is their program, and mail may need setgid
_LIMITS = ("MemoryMax=512M", "TasksMax=256", "LimitCORE=0", "UMask=0077")


class NotRun(Exception):
    """Why the program did not do its work, in a few words."""


def run(
    argv: Sequence[str],
    variables: Mapping[str, str],
    given: bytes,
    *,
    folder: Path,
    timeout_s: float,
) -> None:
    """Runs a program to its end; 0 is the only good one.

    Args:
        argv: the program, by name or path, and its arguments; no shell.
        variables: for its environment.
        given: for its standard input.
        folder: of ours, for what it is given; where no other user can look.
        timeout_s: then it is killed, with what it started.

    Raises:
        NotRun: it could not be run, left with another status, or took too long.
    """
    if not shutil.which(argv[0]):
        raise NotRun(f"{argv[0]!r} cannot be run: No such file or directory, or no program")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix="told-") as file:
            file.write(given)
            file.flush()
            said = _run(
                _transient(argv, variables, Path(file.name), timeout_s), variables, timeout_s
            )
    except subprocess.TimeoutExpired:
        raise NotRun(f"{argv[0]!r}: systemd did not say how it ended") from None
    except (OSError, ValueError) as error:
        raise NotRun(f"{argv[0]!r} cannot be run: {error}") from None
    if said.returncode == 0:
        return
    result = match[1].decode() if (match := _RESULT.search(said.stderr)) else ""
    if result == "timeout":
        raise NotRun(f"{argv[0]!r} took over {timeout_s:.0f} s")
    if result == "exit-code" and (match := _STATUS.search(said.stderr)):
        raise NotRun(f"{argv[0]!r} left with status {match[1].decode()}")
    if result:
        raise NotRun(f"{argv[0]!r} ended with {result}")
    lines = said.stderr.decode("utf-8", "replace").strip().splitlines()
    raise NotRun(f"{argv[0]!r} cannot be run: {lines[-1] if lines else 'systemd-run failed'}")


def _transient(
    argv: Sequence[str], variables: Mapping[str, str], given: Path, timeout_s: float
) -> list[str]:
    """systemd-run's command line; a variable is named there, its value is in systemd-run's environment."""
    properties = [
        *_LIMITS, f"RuntimeMaxSec={timeout_s}", f"StandardInput=file:{given}", "StandardOutput=null",
        "StandardError=journal", f"SyslogIdentifier={IDENTIFIER}", "TimeoutStopSec=2",
    ]  # fmt: skip
    return [
        "systemd-run", "--user", "--wait", "--collect", "--service-type=exec",
        f"--unit=mc-notify-{uuid.uuid4().hex[:12]}",
        f"--description=Mission Control: {IDENTIFIER}",
        *(f"--property={each}" for each in properties),
        *(f"--setenv={name}" for name in variables),
        "--",
        *(word.replace("$", "$$") for word in argv),  # systemd would put variables in their place
    ]  # fmt: skip


def _run(
    argv: list[str], variables: Mapping[str, str], timeout_s: float
) -> subprocess.CompletedProcess[bytes]:
    clean = {name: _printable(value) for name, value in variables.items()}
    done = subprocess.run(
        argv, env={**os.environ, **clean}, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, timeout=timeout_s + STARTING_S, check=False,
    )  # fmt: skip
    done.stderr = done.stderr[:MAX_SAID_BYTES]
    return done


def _printable(value: str) -> str:
    """systemd takes no control characters but tab and newline in a variable; in the input they are."""
    return "".join(
        c
        if c in "\t\n" or unicodedata.category(c) not in {"Cc", "Cs"}
        else "\N{REPLACEMENT CHARACTER}"
        for c in value
    )
