"""Keys, screens and sizes over one tmux client that stays.

Between WEBGATE and SESSION. A tmux process a keystroke costs ten milliseconds; a line to a client
in control mode costs none to speak of. Output never comes this way (`no-output`): the pane log is
for that, and a control client that lags would hold the pane up. Starting, piping and killing
sessions is tmux.py's business.

Whatever a user typed or printed is data here: bytes go out as hexadecimal or octal, targets are
exact, and an answer is read by its known number of lines, for a pane can print `%end` too.

Works with threads and, where the standard library is patched for them, with greenlets.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial

from orchestrator.errors import Conflict, InvalidInput, Unavailable
from orchestrator.naming import session_name

SESSION = "mission-control"  #: the client's own; no ticket's is called so
ANSWER_S = 5.0  # a server that takes longer is Unavailable
ECHO_S = 0.002  #: mostly an echo was seen by then: a person waits for it, not for our answer
MAX_KEYS_BYTES = 4096  # what a person types at once; more is a paste
MAX_PASTE_BYTES = 1_000_000
MIN_COLUMNS, MAX_COLUMNS = 20, 500
MIN_ROWS, MAX_ROWS = 5, 200
MAX_HISTORY_LINES = 1000  # what a fresh viewer can scroll back to; the pane log has all of it
READ_BYTES = 65_536
_FIELDS = (
    "pane_pid", "pane_width", "pane_height", "history_size", "cursor_x", "cursor_y", "scroll_region_upper",
    "scroll_region_lower", "alternate_saved_x", "alternate_saved_y", "cursor_flag", "alternate_on",
    "pane_dead", "keypad_cursor_flag", "keypad_flag", "wrap_flag", "insert_flag", "origin_flag",
)  # fmt: skip
_FLAGS_FROM = _FIELDS.index("cursor_flag")
_FORMAT = " ".join(f"#{{{name}}}" for name in _FIELDS)
_GUARD = re.compile(rb"%begin (\d+ \d+) (\d+)")
# What would end a bracketed paste or act by itself; newline, return and tab may stay.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Screen:
    """What a pane shows, and how a terminal has to be set to go on from there."""

    pid: int  #: of the pane's process: another one is another pane
    columns: int
    rows: int
    cursor_x: int
    cursor_y: int
    lines: tuple[bytes, ...]  #: with colours; the last `rows` are the screen, before it the history
    flags: dict[str, bool]  #: of tmux's own names: alternate_on, cursor_flag, …
    region: tuple[int, int]  #: first and last row that scroll, from 0
    beneath: tuple[
        bytes, ...
    ] = ()  #: rows of the ordinary screen, while a program has the alternate one
    beneath_cursor: tuple[int, int] = (0, 0)  #: column and row the cursor returns to with it


class Control:
    """A control client of the server on socket `socket_name` (as in `tmux -L`).

    It is made when first needed and made again when it ended; it never starts a server.
    """

    def __init__(self, socket_name: str) -> None:
        self._name = socket_name
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._peer: socket.socket | None = None
        self._read = b""

    def keys(self, ticket: int, data: bytes) -> None:
        """Types bytes exactly as they are; copy mode, which would swallow them, is left first.

        Once: where the client ends in the middle nobody knows whether they were.

        Raises:
            InvalidInput: none, or too many.
            Conflict: the ticket has no session.
            Unavailable: they may have got there, or not.
        """
        self._ask(ticket, *_typing(ticket, data), once=True)

    def keys_at_once(self, ticket: int, data: bytes) -> Callable[[], None] | None:
        """Types them as `keys` does, from where nobody may wait, an event loop.

        Returns:
            What is left of it, and raises as `keys` does. It has to be called, ECHO_S later: until then
            nobody else is served. None: nothing was typed, for somebody would have to wait.
        """
        commands = _typing(ticket, data)
        line = _lines_of(commands)
        if not self._lock.acquire(blocking=False):
            return None
        try:
            written = os.write(self._socket().fileno(), line)
        except BaseException as error:
            self._lock.release()
            if isinstance(error, OSError | _Gone):  # its client ended, or was never made
                return None
            raise
        os.sched_yield()  # as in _exchange
        return partial(self._typed, ticket, len(commands), line[written:])

    def _typed(self, ticket: int, commands: int, rest: bytes) -> None:
        try:
            with self._told(ticket):
                self._socket().sendall(rest)
                self._answers(commands)
        finally:
            self._lock.release()

    def paste(self, ticket: int, text: str) -> None:
        """Pastes text, bracketed where the program asked for that. No Enter. Once, as keys.

        Control characters other than newline, return and tab are left out: ESC[201~ would end the
        paste and have the rest taken for keys.

        Raises:
            InvalidInput: nothing is left to paste, or too much.
        """
        data = _CONTROL.sub("", text.replace("\r\n", "\n")).encode("utf-8", "replace")
        if not 0 < len(data) <= MAX_PASTE_BYTES:
            raise InvalidInput(f"1 to {MAX_PASTE_BYTES} bytes are pasted at once.")
        target, buffer = _target(ticket), f"mc-{uuid.uuid4().hex}"
        octal = "".join(f"\\{byte:03o}" for byte in data)
        self._ask(
            ticket,
            f"copy-mode -q -t {target}",
            f'set-buffer -b {buffer} -- "{octal}"',
            f"paste-buffer -p -r -d -b {buffer} -t {target}",
            once=True,
        )

    def pane(self, ticket: int, form: str) -> str:
        """What tmux says of the ticket's pane to a format of ours."""
        return self._lines(ticket, f"list-panes -t {_target(ticket)} -F '{form}'")[0]

    def clients(self, ticket: int, form: str) -> list[str]:
        """The same of each who is attached to its session."""
        return self._lines(ticket, f"list-clients -t ={session_name(ticket)} -F '{form}'")

    def capture(self, ticket: int) -> str:
        """The visible screen, with its colours as SGR sequences."""
        return "\n".join(self._lines(ticket, f"capture-pane -e -p -t {_target(ticket)}"))

    def resize(self, ticket: int, columns: int, rows: int) -> None:
        """Gives the window a size of its own, until `release_size`.

        Raises:
            InvalidInput: no size for a terminal.
        """
        if not (MIN_COLUMNS <= columns <= MAX_COLUMNS and MIN_ROWS <= rows <= MAX_ROWS):
            raise InvalidInput(
                f"A terminal has {MIN_COLUMNS} to {MAX_COLUMNS} columns and {MIN_ROWS} to"
                f" {MAX_ROWS} rows."
            )
        self._ask(ticket, f"resize-window -t {_target(ticket)} -x {columns} -y {rows}")

    def release_size(self, ticket: int) -> None:
        """From now on those who are attached decide again; until then it stays as it is."""
        self._ask(ticket, f"set-option -w -u -t {_target(ticket)} window-size")

    def state(self, ticket: int) -> Screen:
        """Size, cursor and modes, without the text."""
        return self._screen(ticket, text=False)

    def screen(self, ticket: int) -> Screen:
        """What the pane shows now."""
        return self._screen(ticket, text=True)

    def close(self) -> None:
        """Lets the client go."""
        with self._lock:
            self._drop()

    def _lines(self, ticket: int, command: str) -> list[str]:
        lines = self._ask(ticket, command, open_ended=True)[0]
        return [line.decode("utf-8", "replace") for line in lines]

    def _screen(self, ticket: int, *, text: bool) -> Screen:
        target = _target(ticket)
        asked = [f"display-message -p -t {target} '{_FORMAT}'"]
        counts: list[Callable[[list[list[bytes]]], int]] = [lambda _: 1]
        if text:
            # One line with the size, so that nothing comes between; -N keeps coloured blanks.
            asked.append(f"capture-pane -e -N -p -S -{MAX_HISTORY_LINES} -t {target}")
            counts.append(lambda answers: _line_count(_numbers(answers[0])))
            # What an alternate screen hides keeps the size it had: as many lines as come.
            asked.append(f"capture-pane -a -q -e -N -p -t {target}")
        answers = self._ask(ticket, *asked, counts=counts, open_ended=text)
        found = _numbers(answers[0])
        if not found:
            raise _not_running(ticket)
        return Screen(
            pid=found["pane_pid"],
            columns=found["pane_width"],
            rows=found["pane_height"],
            cursor_x=found["cursor_x"],
            cursor_y=found["cursor_y"],
            lines=tuple(answers[1]) if text else (),
            flags={name: bool(found[name]) for name in _FIELDS[_FLAGS_FROM:]},
            region=(found["scroll_region_upper"], found["scroll_region_lower"]),
            beneath=tuple(answers[2]) if text and found["alternate_on"] else (),
            beneath_cursor=(found["alternate_saved_x"], found["alternate_saved_y"]),
        )

    def _ask(
        self,
        ticket: int,
        *commands: str,
        counts: list[Callable[[list[list[bytes]]], int]] | None = None,
        open_ended: bool = False,
        once: bool = False,
    ) -> list[list[bytes]]:
        """The answers to some commands, one list of lines each; of no lines unless counted.

        With `open_ended` the last one may have any number. With `once` nothing is asked again that may
        have been done; it is something typed, and whose echo is waited for.
        """
        with self._lock, self._told(ticket):
            fresh = self._peer is None
            try:
                self._ensure(ticket)
                return self._exchange(
                    commands, counts, open_ended=open_ended, later_s=ECHO_S if once else 0.0
                )
            except (OSError, _Gone):
                if fresh or once:
                    raise
            self._drop()  # it ended meanwhile: nothing of this was done
            self._ensure(ticket)
            return self._exchange(commands, counts, open_ended=open_ended)

    @contextmanager
    def _told(self, ticket: int) -> Iterator[None]:
        """What went wrong, as it is told."""
        try:
            yield
        except _Refused as error:
            if "can't find" in str(error):
                raise _not_running(ticket) from None
            raise Unavailable(f"tmux: {error}.") from None
        except (OSError, _Gone) as error:
            self._drop()
            raise Unavailable(f"tmux does not answer: {error}.") from None
        except BaseException:
            self._drop()  # what is still to come would be taken for another's answer
            raise

    def _exchange(
        self,
        commands: tuple[str, ...],
        counts: list[Callable[[list[list[bytes]]], int]] | None,
        *,
        open_ended: bool = False,
        later_s: float = 0.0,
    ) -> list[list[bytes]]:
        mark = uuid.uuid4().hex if open_ended else ""
        sent = (*commands, f"display-message -p {mark}") if open_ended else commands
        self._socket().sendall(_lines_of(sent))
        os.sched_yield()  # woken on our own core, tmux would wait until we do
        if later_s:
            time.sleep(later_s)  # and what it does next would wait while we read what it said
        return self._answers(len(commands), counts, mark)

    def _answers(
        self,
        count: int,
        counts: list[Callable[[list[list[bytes]]], int]] | None = None,
        mark: str = "",
    ) -> list[list[bytes]]:
        answers: list[list[bytes]] = []
        refused: _Refused | None = None
        for number in range(count):
            try:
                if mark and number == count - 1:
                    answers.append(self._answer_before(mark.encode()))
                    continue
                lines = counts[number](answers) if counts and refused is None else 0
                answers.append(self._answer(lines))
            except _Refused as error:  # the answers to the others are on their way all the same
                refused = refused or error
        if refused is not None:
            raise refused
        return answers

    def _answer(self, count: int) -> list[bytes]:
        """One block that answers a command of ours, of `count` lines."""
        end, error = self._begin()
        lines: list[bytes] = []
        while True:
            line = self._line()
            if line.startswith(error):
                raise _Refused(b" ".join(lines).decode("utf-8", "replace"))
            if len(lines) >= count and line.startswith(end):
                return lines
            if len(lines) > count + MAX_ROWS:  # an error has a line or two
                raise _Gone("an answer without end")
            lines.append(line)

    def _answer_before(self, mark: bytes) -> list[bytes]:
        """One block of as many lines as come, and the next one, which says `mark`: nobody prints that."""
        end, error = self._begin()
        lines: list[bytes] = []
        while (line := self._line()) != mark:
            if len(lines) > 2 * MAX_ROWS:
                raise _Gone("an answer without end")
            lines.append(line)
        self._line()  # the end of the mark's own block
        # The pane may print what looks like an end; the last one is tmux's.
        ends = [n for n, line in enumerate(lines) if line.startswith((end, error))]
        if not ends:
            raise _Gone("an answer without end")
        if lines[ends[-1]].startswith(error):
            raise _Refused(b" ".join(lines[: ends[-1]]).decode("utf-8", "replace"))
        return lines[: ends[-1]]

    def _begin(self) -> tuple[bytes, bytes]:
        """Waits for a block of ours; how its end begins, and how that of an error."""
        while not ((match := _GUARD.fullmatch(line := self._line())) and int(match[2]) & 1):
            if line.startswith(b"%exit"):
                raise _Gone("its session ended")
        return b"%end " + match[1] + b" ", b"%error " + match[1] + b" "

    def _line(self) -> bytes:
        peer = self._socket()
        while b"\n" not in self._read:
            try:
                data = peer.recv(READ_BYTES)
            except TimeoutError:
                raise _Gone(f"nothing within {ANSWER_S:g} s") from None
            if not data:
                raise _Gone("it went away")
            self._read += data
        line, _, self._read = self._read.partition(b"\n")
        return line

    def _socket(self) -> socket.socket:
        if self._peer is None:
            raise _Gone("it is closed")
        return self._peer

    def _ensure(self, ticket: int) -> None:
        """A client, in a session of its own that goes with it.

        Attached to a ticket's session it would be somebody at a desk: tmux would tell the program
        that it has the focus, and answer for a terminal that is not there.
        """
        if self._peer is not None and self._process is not None and self._process.poll() is None:
            return
        self._drop()
        ours, theirs = socket.socketpair()
        argv = ["tmux", "-N", "-u", "-L", self._name, "-C", "new-session", "-A", "-s", SESSION]
        argv += ["-f", "no-output,ignore-size", "-c", "/", "exec cat"]
        environ = {k: v for k, v in os.environ.items() if k not in {"TMUX", "TMUX_PANE"}}
        with theirs:
            try:
                self._process = subprocess.Popen(
                    argv,
                    stdin=theirs.fileno(),
                    stdout=theirs.fileno(),
                    stderr=subprocess.DEVNULL,
                    env=environ,
                )
            except FileNotFoundError:
                ours.close()
                raise Unavailable("tmux is not installed.", hint="sudo apt install tmux") from None
        ours.settimeout(ANSWER_S)
        self._peer, self._read = ours, b""
        # The first block answers new-session itself.
        try:
            while not (line := self._line()).startswith((b"%end ", b"%error ")):
                pass
        except _Gone:
            line = b"%error"
        if line.startswith(b"%error"):
            self._drop()
            raise _not_running(ticket)
        self._exchange((f"set-option -t ={SESSION}: destroy-unattached on",), None)

    def _drop(self) -> None:
        peer, process = self._peer, self._process
        # at first, for it may be broken off while it waits
        self._peer, self._process, self._read = None, None, b""
        if peer is not None:
            peer.close()
        if process is not None:
            with suppress(ProcessLookupError):
                process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(ANSWER_S)


class _Gone(Exception):
    """The client ended or makes no sense any more."""


class _Refused(Exception):
    """tmux answered with an error."""


def _not_running(ticket: int) -> Conflict:
    return Conflict(f"Ticket {ticket} is not running.", hint=f"ticketctl start {ticket}")


def _typing(ticket: int, data: bytes) -> tuple[str, str]:
    if not 0 < len(data) <= MAX_KEYS_BYTES:
        raise InvalidInput(
            f"1 to {MAX_KEYS_BYTES} bytes are typed at once.", hint="Send the rest as a paste."
        )
    target = _target(ticket)
    return f"copy-mode -q -t {target}", f"send-keys -t {target} -H {data.hex(' ')}"


def _lines_of(commands: Sequence[str]) -> bytes:
    return "".join(f"{command}\n" for command in commands).encode("ascii")


def _target(ticket: int) -> str:
    # Exact: ticket-4 alone would match ticket-42.
    return f"={session_name(ticket)}:"


def _numbers(answer: list[bytes]) -> dict[str, int]:
    """What was asked for with _FORMAT; nothing where there is no such pane."""
    words = answer[0].decode("ascii", "replace").split() if answer else []
    if len(words) != len(_FIELDS) or not all(word.isdigit() for word in words):
        return {}
    return dict(zip(_FIELDS, map(int, words), strict=True))


def _line_count(found: dict[str, int]) -> int:
    if not found:
        return 0
    return found["pane_height"] + min(found["history_size"], MAX_HISTORY_LINES)
