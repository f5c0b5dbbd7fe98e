"""Open permission requests of a worker, and their answers.

Between the operator and SESSION: used by `ticketctl permit` and the gateway's permission buttons.
The same for every driver that asks: its program waits at the other end (`asking.py`). Nothing is
typed into the pane, so an answer can only ever reach the question it was meant for.
"""

from __future__ import annotations

import errno
import json
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from orchestrator.asking import MAX_ANSWER_BYTES, QUESTION, TAKEN
from orchestrator.errors import Conflict, InvalidInput, Unavailable
from orchestrator.naming import TicketPaths
from orchestrator.waiting import any_ready

Behavior = Literal["allow", "deny"]
QUESTION_TOOL = "AskUserQuestion"  #: its allowed input carries the answers
WRITE_TIMEOUT_S = 5.0  # a program that was stopped does not read
MAX_QUESTION_BYTES = 16 * 1024 * 1024
_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Something a worker wants to do and may not yet."""

    request_id: str  #: 32 hexadecimal digits
    tool: str
    input: Mapping[str, Any]  #: the tool's arguments
    at: datetime  #: aware, UTC

    @property
    def is_question(self) -> bool:
        """Whether the worker asks for an answer, not for leave."""
        return self.tool == QUESTION_TOOL

    def with_answers(self, answers: Mapping[str, str]) -> dict[str, Any]:
        """The `updated_input` that answers a question: labels by the question's own text."""
        return {**self.input, "answers": dict(answers)}


def requests_folder(paths: TicketPaths) -> Path:
    """Where a ticket's open requests are."""
    return paths.runtime / "requests"


def open_requests(paths: TicketPaths) -> list[Request]:
    """The requests that somebody waits for, oldest first. Removes what a killed program left."""
    folder = requests_folder(paths)
    found = []
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    for name in names:
        request_id = name.removesuffix(QUESTION)
        if not name.endswith(QUESTION) or not _ID.fullmatch(request_id):
            continue
        request = _load(folder, request_id)
        fd = _open(folder, request_id)
        if fd is None:
            _remove(folder, request_id)
            continue
        os.close(fd)
        if request is not None:
            found.append(request)
    return sorted(found, key=lambda r: (r.at, r.request_id))


def answer(
    paths: TicketPaths,
    request_id: str,
    behavior: Behavior,
    message: str = "",
    updated_input: Mapping[str, Any] | None = None,
    by: str = "",
) -> None:
    """Answers a request; the first answer is the one that counts.

    Args:
        paths: of the ticket that asks.
        request_id: as in `Request`.
        behavior: "allow" or "deny".
        message: with "deny", what the worker is told about it.
        updated_input: with "allow", what the tool gets instead; a question's answers are in there.
        by: who answered, for the record.

    Raises:
        InvalidInput: that is no answer.
        Conflict: the request has gone: answered, or the worker went on.
        Unavailable: the worker's program does not read it.
    """
    if behavior not in {"allow", "deny"}:
        raise InvalidInput("A request is answered with allow or deny.")
    folder = requests_folder(paths)
    request = _load(folder, request_id) if _ID.fullmatch(request_id) else None
    if request is None:
        raise _gone()
    if request.is_question and behavior == "allow" and not (updated_input or {}).get("answers"):
        raise InvalidInput(
            "A question needs its answers.", hint="Choose one of the options it offers."
        )
    line = _line(behavior, message, updated_input, by)
    fd = _open(folder, request_id)
    if fd is None:
        _remove(folder, request_id)
        raise _gone()
    try:
        os.rename(folder / f"{request_id}{QUESTION}", folder / f"{request_id}{TAKEN}")
        _write(fd, line)
    except FileNotFoundError:
        raise _gone() from None
    except BrokenPipeError:
        _remove(folder, request_id)
        raise _gone() from None
    finally:
        os.close(fd)


def _gone() -> Conflict:
    return Conflict(
        "That request has gone: it was answered, or the worker went on.",
        hint="Look again at what it asks for now.",
    )


def _line(behavior: str, message: str, updated_input: Mapping[str, Any] | None, by: str) -> bytes:
    value = {"behavior": behavior, "message": message, "updated_input": updated_input, "by": by}
    try:
        line = json.dumps(value, allow_nan=False).encode() + b"\n"
    except ValueError as error:
        raise InvalidInput(f"The answer is no JSON: {error}.") from None
    if len(line) > MAX_ANSWER_BYTES:
        raise InvalidInput(f"The answer is longer than {MAX_ANSWER_BYTES} bytes.")
    return line


def _load(folder: Path, request_id: str) -> Request | None:
    try:
        fd = os.open(folder / f"{request_id}{QUESTION}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            value = json.loads(file.read(MAX_QUESTION_BYTES))
        given = value["tool_input"]
        return Request(
            request_id=request_id,
            tool=str(value["tool_name"]),
            input=given if isinstance(given, dict) else {},
            at=datetime.fromisoformat(value["at"]),
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _open(folder: Path, request_id: str) -> int | None:
    """The FIFO's end to write into; None when nobody reads."""
    try:
        return os.open(
            folder / request_id, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
        )
    except OSError as error:
        if error.errno in {errno.ENXIO, errno.ENOENT, errno.ELOOP}:
            return None
        raise Unavailable(f"The request cannot be opened: {error.strerror}.") from None


def _write(fd: int, line: bytes) -> None:
    deadline = time.monotonic() + WRITE_TIMEOUT_S
    while line:
        if not any_ready([], [fd], deadline - time.monotonic()):
            raise Unavailable(f"The worker did not take the answer within {WRITE_TIMEOUT_S:.0f} s.")
        line = line[os.write(fd, line) :]


def _remove(folder: Path, request_id: str) -> None:
    for suffix in (QUESTION, TAKEN, ""):
        (folder / f"{request_id}{suffix}").unlink(missing_ok=True)
