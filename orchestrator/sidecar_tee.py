"""Append what one hook of the agent was told to the ticket's sidecar file.

Between SESSION and SIDECAR. The agent runs this file once for every hook, and waits for it:

    python3 -I -S sidecar_tee.py SIDECAR_PATH HOOK_NAME [TICKET] < the hook's JSON

So it imports next to nothing, ends with 0 whatever happens (a hook must never hold up a turn) and
prints nothing, except for `statusLine`, whose one line the agent shows at the foot of the pane.
Understanding what is appended is not done here: that is `sidecar.py` and ingest.
"""

import os
import sys
import time
from fcntl import LOCK_EX, LOCK_NB, flock

MAX_LINE_BYTES = 4 * 1024 * 1024  # a longer line is replaced by one that says so
MAX_DATA_BYTES = MAX_LINE_BYTES - 256  # the rest is for what we put around it
MAX_KEPT_CHARS = 512  # of each value below
LOCK_WAIT_S = 1.0
_CHUNK_BYTES = 1 << 20
#: what identifies a hook call whose data is too long to keep
_KEPT_KEYS = (
    "session_id",
    "transcript_path",
    "cwd",
    "prompt_id",
    "hook_event_name",
    "tool_name",
    "tool_use_id",
    "agent_id",
    "agent_type",
)


def frame(hook: str, raw: bytes, size: int) -> bytes:
    """The line for one call of a hook, with its newline.

    Args:
        hook: its name, ASCII letters and digits.
        raw: what the hook was told, a JSON object; more than `MAX_DATA_BYTES` is not kept.
        size: how many bytes that was before the caller cut it.

    Raises:
        ValueError: that is no name of a hook.
    """
    if not (hook.isascii() and hook.isalnum() and len(hook) <= 64):
        raise ValueError(f"{hook[:80]!r} is no name of a hook")
    # Raw line ends are only ever white space between the tokens of a JSON text.
    data = raw.replace(b"\n", b" ").replace(b"\r", b" ").strip()
    if size > MAX_DATA_BYTES:
        data = _summary(data, size)
    elif not (data.startswith(b"{") and data.endswith(b"}")):
        data = b'{"unreadable":true,"size_bytes":%d}' % size
    ns = time.time_ns()
    at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ns // 10**9))
    head = f'{{"v":1,"at":"{at}.{ns // 1000 % 10**6:06d}Z","hook":"{hook}","data":'
    return head.encode() + data + b"}\n"


def append_line(path: str, line: bytes) -> None:
    """Appends one line by one write, after mending a last line that somebody left unfinished.

    Raises:
        OSError: it could not be written, or not all of it; then nothing of it stays in the file.
    """
    fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        locked = _lock(fd)
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":
            line = b"\n" + line
        written = os.write(fd, line)
        if written < len(line):
            if locked:
                os.ftruncate(fd, size)
            raise OSError(f"only {written} of {len(line)} bytes could be written to {path}")
    finally:
        os.close(fd)


def _lock(fd: int) -> bool:
    # A blocked flock() cannot be given a time limit, hence the sleep. Who never gets the lock
    # appends all the same: O_APPEND keeps lines whole, the lock is for mending torn ones.
    until = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            flock(fd, LOCK_EX | LOCK_NB)
        except OSError:
            if time.monotonic() > until:
                return False
            time.sleep(0.002)
        else:
            return True


def _summary(head: bytes, size: int) -> bytes:
    """What stands for data that is too long: its short members up to the first long one."""
    import json  # noqa: PLC0415 - rarely needed, and half of the running time when it is

    text = head.decode("utf-8", "ignore").replace("\x00", "")
    decode = json.JSONDecoder().raw_decode
    kept: dict[str, object] = {}
    place = 1
    try:
        while True:
            key, place = decode(text, _skip(text, place))
            value, place = decode(text, _skip(text, _skip(text, place) + 1))
            if key in _KEPT_KEYS and isinstance(value, str) and len(value) <= MAX_KEPT_CHARS:
                kept[key] = value
            place = _skip(text, place) + 1
    except (ValueError, RecursionError):
        pass  # the object ended, or the cut did
    return json.dumps({**kept, "truncated": True, "size_bytes": size}).encode()


def _skip(text: str, place: int) -> int:
    while place < len(text) and text[place] in " \t":
        place += 1
    return place


def _read_stdin() -> tuple[bytes, int]:
    """The beginning of stdin, a little over `MAX_DATA_BYTES` at most, and the size of it all."""
    kept: list[bytes] = []
    size = 0
    while chunk := os.read(0, _CHUNK_BYTES):
        if size <= MAX_DATA_BYTES:
            kept.append(chunk)
        size += len(chunk)
    return b"".join(kept), size


def status_text(raw: bytes, ticket: str) -> str:
    """The line for the foot of the pane, as in `ticket-42 · $0.0123`."""
    parts = [f"ticket-{ticket}"] if ticket else []
    # Inside a JSON string this would have backslashes, so only the real key can match.
    _, found, after = raw.partition(b'"total_cost_usd":')
    if found:
        try:
            cost = float(after[:40].replace(b"}", b",").split(b",")[0])
        except ValueError:
            cost = -1.0
        if 0 <= cost < 10**9:
            parts.append(f"${cost:.4f}")
    return " · ".join(parts)


def main() -> None:
    """Runs for one hook; never fails, says what went wrong on stderr."""
    try:
        path, hook, *rest = sys.argv[1:4]
        raw, size = _read_stdin()
        if hook == "statusLine":
            os.write(1, status_text(raw, rest[0] if rest else "").encode() + b"\n")
        append_line(path, frame(hook, raw, size))
    except BaseException as error:  # noqa: BLE001 - a failing hook would disturb the agent's turn
        os.write(2, f"sidecar tee: {error}\n".encode("utf-8", "replace"))


if __name__ == "__main__":
    try:
        main()
    finally:
        os._exit(0)  # nothing is left to flush, and tearing the interpreter down costs time
