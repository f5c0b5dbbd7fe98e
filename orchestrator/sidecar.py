"""The sidecar: JSON lines that say what the worker did.

Between SESSION and EVENTS. `sidecar_tee.py` (run by the agent's hooks) and `append()` write it;
`read()` gives back every complete line from a byte offset on, whole and checked, or a `Poison` in
place of one that cannot be used, so that one bad line never stops the next. Its lines look like

    {"v":1,"at":"2026-11-22T19:26:32.123456Z","hook":"Stop","data":{…what the hook was told…}}

What a line means for the ticket is ingest's business, and so is following a growing file.
"""

from __future__ import annotations

import json
import math
import re
import shlex
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn

from orchestrator.sidecar_tee import MAX_LINE_BYTES, append_line, frame

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

MAX_NUMBER_CHARS = 64
MIN_FLOAT = 1e-300
MAX_DEPTH = 100  # of lists and objects in one another; the agent's own stay under 10
HOOK_TIMEOUT_S = 10  # past it the agent goes on without us
PERMISSION_TIMEOUT_S = 7 * 24 * 3600  # past it only the dialog in the pane can be answered
#: the hooks of Claude Code that tell us something. MessageDisplay is left out: it runs for every
#: few words of an answer, and the pane shows those already.
HOOKS = (
    "SessionStart",
    "SessionEnd",
    "UserPromptSubmit",
    "PreToolUse",
    "PostToolUse",
    "PostToolUseFailure",
    "PermissionRequest",
    "Notification",
    "Stop",
    "StopFailure",
    "SubagentStart",
    "SubagentStop",
    "PreCompact",
    "PostCompact",
)
STATUS_LINE = "statusLine"
_HOOK_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]{0,63}", re.ASCII)
_HEAD = re.compile(rb'\{"v":1,"at":"([^"]{1,40})","hook":"([A-Za-z][A-Za-z0-9]{0,63})","data":')
# what a worker says when it took a message: a hook of the TUI, a line of the stream
_SAID = re.compile(
    rb'\{"v":1,"at":"[^"]{1,40}","hook":(?:"UserPromptSubmit"|"stream","data":\{"type":"user"\b)'
)
_MANTISSA = re.compile(r"-?[0.]*[1-9]")  # of a number that is not 0, whatever a float makes of it
_DOUBTFUL = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One call of a hook."""

    hook: str
    at: datetime  #: aware, UTC; the clock may jump, the order of the lines does not
    data: dict[str, Any]  #: the hook's own JSON; can be stored as PostgreSQL jsonb as it is
    offset: int  #: of the line's first byte
    end: int  #: of the byte after its newline; where the next line begins
    text: str = ""  #: `data` as it stands in the line; empty where that is not known


@dataclass(frozen=True, slots=True, kw_only=True)
class Poison:
    """A line that cannot be used. Nothing of what it said is passed on but the hook's name."""

    offset: int
    end: int
    reason: str  #: half a sentence, without bytes of the line
    hook: str = ""  #: when the beginning of the line still tells it


class _UnusableError(ValueError):
    pass


def append(path: Path, hook: str, data: Mapping[str, Any]) -> None:
    """Writes a line, as the tee would.

    Raises:
        OSError: it could not be written; then no part of it was.
        ValueError: the hook's name is none, or `data` holds NaN or an infinity.
    """
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    raw = text.encode("utf-8", "replace")
    append_line(str(path), frame(hook, raw, len(raw)))


def read(path: Path, offset: int = 0) -> Iterator[Record | Poison]:
    """The complete lines from `offset` on, in order; an unfinished last one is left for next time.

    A line past `MAX_LINE_BYTES` is skipped in bounded memory, and also when its end is not there
    yet: what is there becomes one `Poison`, what follows later another.

    Raises:
        OSError: the file is not there, or cannot be read.
    """
    with path.open("rb") as file:
        file.seek(offset)
        while line := file.readline(MAX_LINE_BYTES + 1):
            if line.endswith(b"\n"):
                found = parse_line(line, offset)
            elif len(line) <= MAX_LINE_BYTES:
                return
            else:
                name = _hook_of(line)
                while (rest := file.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                    pass
                found = Poison(offset=offset, end=file.tell(), reason=_TOO_LONG, hook=name)
            yield found
            offset = found.end


_TOO_LONG = f"longer than {MAX_LINE_BYTES} bytes"


def parse_line(line: bytes, offset: int) -> Record | Poison:
    """What one line says.

    Args:
        line: with its newline.
        offset: of its first byte in the file.
    """
    end = offset + len(line)
    try:
        hook, at, data, text = _as_we_write_it(line) or _parse(line)
    except _UnusableError as error:
        return Poison(offset=offset, end=end, reason=str(error), hook=_hook_of(line))
    return Record(hook=hook, at=at, data=data, offset=offset, end=end, text=text)


def load_object(text: str) -> dict[str, Any]:
    """A JSON object from outside that PostgreSQL's jsonb takes as well.

    Raises:
        ValueError: it is none, with the reason in a few words.
    """
    try:
        value = _load(text.encode())
    except UnicodeEncodeError:
        raise _UnusableError("half a surrogate pair") from None
    _check_values(value)
    return value


def _as_we_write_it(line: bytes) -> tuple[str, datetime, dict[str, Any], str] | None:
    """The usual line, of which only the data has to be parsed; None: `_parse` has to look at it."""
    head = _HEAD.match(line)
    if head is None or len(line) > MAX_LINE_BYTES or not line.endswith(b"}\n"):
        return None
    if b"\\u" in line or line.count(b"[") + line.count(b"{") > MAX_DEPTH:
        return None
    try:
        text = line[head.end() : -2].decode()
        data, end = _DECODER.raw_decode(text)
        at = datetime.fromisoformat(head[1].decode())
    except (ValueError, RecursionError):
        return None
    if end != len(text) or not isinstance(data, dict) or at.tzinfo is None:
        return None
    return head[2].decode(), at, data, text


def _parse(line: bytes) -> tuple[str, datetime, dict[str, Any], str]:
    if len(line) > MAX_LINE_BYTES:
        raise _UnusableError(_TOO_LONG)
    value = _load(line)
    if line.count(b"[") + line.count(b"{") > MAX_DEPTH or _DOUBTFUL.search(line):
        _check_values(value)
    if value.get("v") != 1:
        raise _UnusableError("not of version 1")
    hook, data = value.get("hook"), value.get("data")
    if not isinstance(hook, str) or not _HOOK_NAME.fullmatch(hook):
        raise _UnusableError("without the name of a hook")
    if not isinstance(data, dict):
        raise _UnusableError("without the data of a hook")
    return hook, _time(value.get("at")), data, json.dumps(data)


def _load(line: bytes) -> dict[str, Any]:
    try:
        value = _DECODER.decode(line.decode())
    except _UnusableError:
        raise
    except UnicodeDecodeError:
        raise _UnusableError("not UTF-8") from None
    except RecursionError:
        raise _UnusableError("nested too deeply") from None
    except ValueError:
        raise _UnusableError("not JSON") from None
    if not isinstance(value, dict):
        raise _UnusableError("not a JSON object")
    return value


def _time(value: object) -> datetime:
    try:
        at = datetime.fromisoformat(value if isinstance(value, str) else "")
    except ValueError:
        raise _UnusableError("without a time") from None
    if at.utcoffset() is None:
        raise _UnusableError("with a time that has no zone")
    return at


def _not_a_number(_: str) -> NoReturn:
    raise _UnusableError("NaN or an infinity")


def _float(text: str) -> float:
    value = float(text)
    # jsonb keeps every digit, of which there may be 16,383: what a float makes nothing of can be too
    # much for it.
    nearly_nothing = abs(value) < MIN_FLOAT and _MANTISSA.match(text)
    if not math.isfinite(value) or len(text) > MAX_NUMBER_CHARS or nearly_nothing:
        raise _UnusableError("a number out of range")
    return value


def _int(text: str) -> int:
    if len(text) > MAX_NUMBER_CHARS:  # none of ours is near it, and jsonb would keep every digit
        raise _UnusableError("a number out of range")
    return int(text)


# Made once: json.loads makes one for each call that says how to read numbers.
_DECODER = json.JSONDecoder(parse_constant=_not_a_number, parse_float=_float, parse_int=_int)


def _check_values(value: object) -> None:
    """Refuses what PostgreSQL's jsonb would; a walk without recursion, only when in doubt."""
    level: list[object] = [value]
    for _ in range(MAX_DEPTH):
        below: list[object] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(item)
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
            elif isinstance(item, str):
                _check_text(item)
        level = below
        if not level:
            return
    raise _UnusableError("nested too deeply")


def _check_text(text: str) -> None:
    if "\x00" in text:
        raise _UnusableError("a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _UnusableError("half a surrogate pair") from None


def _hook_of(line: bytes) -> str:
    match = _HEAD.match(line)
    return match[2].decode() if match else ""


def has_prompt(path: Path, session_id: str) -> bool:
    """Whether something was said in a conversation, by any line of the sidecar.

    A search through bytes: a sidecar may be long, and a worker's start waits for this.
    """
    session = session_id.encode()
    try:
        with path.open("rb") as file:
            while line := file.readline(MAX_LINE_BYTES):
                if session in line and _SAID.match(line):
                    return True
    except FileNotFoundError:
        pass
    return False


def was_started(path: Path, session_id: str) -> bool:
    """Whether a worker was started on a conversation before, by the launcher's own lines."""
    try:
        with path.open("rb") as file:
            while line := file.readline(MAX_LINE_BYTES):
                if b'"hook":"WorkerStart"' in line[:90] and session_id.encode() in line:
                    return True
    except FileNotFoundError:
        pass
    return False


def settings_hooks(
    python: Path | str, tee_path: Path, sidecar: Path, ticket: int, requests: Path | None = None
) -> dict[str, Any]:
    """The `hooks` and `statusLine` of the settings that Claude Code is started with.

    Args:
        python: an interpreter that can run the tee; 3.11 or newer, no packages needed.
        tee_path: `sidecar_tee.py`; `permission_hook.py` is beside it.
        sidecar: the file to append to; its folder is there already.
        ticket: shown at the foot of the pane.
        requests: where permission requests wait for an answer; None: they are told, no more.
    """

    def command(program: Path, *words: str) -> dict[str, Any]:
        argv = [str(python), "-I", "-S", str(program), str(sidecar), *words]
        return {"type": "command", "command": shlex.join(argv)}

    def hook(name: str) -> dict[str, Any]:
        if name == "PermissionRequest" and requests is not None:
            asks = command(tee_path.with_name("permission_hook.py"), str(requests))
            return {**asks, "timeout": PERMISSION_TIMEOUT_S}
        return {**command(tee_path, name), "timeout": HOOK_TIMEOUT_S}

    return {
        "hooks": {name: [{"hooks": [hook(name)]}] for name in HOOKS},
        STATUS_LINE: command(tee_path, STATUS_LINE, str(ticket)),
    }
