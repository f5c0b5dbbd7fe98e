"""How one message gets to one worker: looked at, typed or handed over, and waited for.

Between dispatch and SESSION. A paste with its Enter apart, each only while the worker is idle by
its own word and shows its input box; or the driver's channel. Nothing here stores anything.
"""

from __future__ import annotations

import os
import re
import time
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from orchestrator import procfs, sidecar
from orchestrator.drivers import NotTaken
from orchestrator.errors import Unavailable
from orchestrator.seat import Seat
from orchestrator.workers import Worker

SETTLE_S = 0.1  # the screen has to stand still that long before the Enter
# A text that stands in the box from its first letter to its last was read to its end: an Enter from then
# on is a read of its own, and becomes no newline of the paste.
SETTLE_WHOLE_S = 0.03
MAX_WHOLE_CHARS = 600  # a longer one comes in several reads, or is shown as [Pasted text]
GLANCE_S = 0.004  # between two looks at a screen on which something is about to happen
SHOWN_TIMEOUT_S = 10.0  # 1 MB takes a TUI its time
PATIENCE_S = 240.0  # for a turn or a dialog that began during the paste; below the lease
RETRY_ENTER_S = 2.0
MAX_ENTERS = 3
SWALLOWED_S = 3.0  # an idle worker whose box is still empty then has not got the text
STALE_S = 2.0  # a worker that has just taken a prompt may still say that it is idle
CONFIRM_TIMEOUT_S = 15.0
TAIL_BYTES = 262_144  # of the sidecar; a longer prompt is seen by the worker's own word
TYPING_S = 2.0  # somebody who pressed a key less than this ago is typing
BEGIN_S = 1.0  # an agent that took a message shows its turn within that, if the turn is not over
_PASTED = re.compile(r"(?i)\[Pasted [^\]\n]{1,60}\]")  # how a long text is shown in the box
CTRL_C, ENTER = b"\x03", b"\r"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a message, with a sentence where it needs one."""

    name: str  #: confirmed, unconfirmed, sent, refused
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why a worker takes nothing right now."""

    reason: str


class Delivery:
    """Speaks to workers, in their panes or over their channels."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._last: dict[int, str] = {}  # what each ticket's worker took last, until it was cleared

    def obstacle(self, worker: Worker) -> Obstacle | None:
        """Why the worker cannot take a message now; None: it can."""
        state = worker.state()
        if state not in {None, "idle"}:
            return Obstacle(f"the worker is {str(state).replace('_', ' ')}")
        if worker.driver.delivery == "channel":
            return None
        if _began_just_now(worker.work.paths.sidecar_path):
            return Obstacle("the worker is busy")
        number = worker.ticket.id
        pane = self._seat.pane(number)
        if pane is None or pane.dead or pane.pid != procfs.pane_pid(worker.pid):
            return Obstacle("the worker is not in its pane")
        if self._seat.last_key_s(number) < TYPING_S:
            return Obstacle("somebody is typing in the pane")
        return self._obstacle_on_screen(worker)

    def _obstacle_on_screen(self, worker: Worker) -> Obstacle | None:
        number = worker.ticket.id
        screen = self._seat.capture(number)
        box = worker.driver.box(screen)
        if box is None:
            return Obstacle("a dialog is shown in the pane")
        if worker.driver.signs == "screen" and worker.driver.state_on(screen) != "idle":
            return Obstacle("the worker is busy")  # what it said a moment ago is not enough
        if box and self._is_ghost(number, box):
            self._seat.keys(number, CTRL_C)
            return Obstacle("the input box is being cleared")
        return Obstacle("the input box holds text that was not sent") if box else None

    def send(self, worker: Worker, body: str, key: str) -> Outcome:
        """Gives a message to a worker without an obstacle, and waits for its evidence.

        Raises:
            NotTaken: certainly nothing of it reached the worker.
        """
        read_from = _size(worker.work.paths.sidecar_path)

        def confirmed() -> bool:
            return any(
                isinstance(r, sidecar.Record) and worker.driver.confirms(r, body, key)
                for r in sidecar.read(worker.work.paths.sidecar_path, read_from)
            )

        if worker.driver.delivery == "channel":
            worker.driver.deliver(worker.work, key, body)
            if _wait(confirmed, CONFIRM_TIMEOUT_S):
                return Outcome("confirmed")
            return Outcome(
                "unconfirmed", f"the worker did not show it within {CONFIRM_TIMEOUT_S:.0f} s"
            )
        number = worker.ticket.id
        text = worker.driver.outgoing(body)
        before = self._seat.capture(number)
        self._seat.paste(number, text)
        self._wait_settled(worker, text, before)
        if worker.driver.signs == "screen":
            return self._enter_by_screen(worker, text)
        if worker.state() is None:
            self._seat.keys(number, ENTER)
            return Outcome("sent", f"the {worker.driver.name} driver confirms nothing")
        outcome = self._enter(worker, text, confirmed)
        if outcome.name == "confirmed":
            self._last[number] = body
        return outcome

    def _enter(self, worker: Worker, text: str, confirmed: Callable[[], bool]) -> Outcome:
        """Enter, alone, while the pasted text stands in the box of an idle worker; then its evidence.

        A turn or a dialog may have begun during the paste: the text waits in the box until that is
        over. The body is never pasted again; Enter is repeated while the text still stands there.

        Raises:
            NotTaken: a dialog swallowed the text, no Enter was pressed.
        """
        number = worker.ticket.id
        pasted = time.monotonic()
        entered: list[float] = []
        while (now := time.monotonic()) - pasted < PATIENCE_S:
            if confirmed():
                return Outcome("confirmed")
            pane = self._seat.pane(number)
            if pane is None or pane.dead:
                return Outcome("unconfirmed", "the worker ended while it was sent")
            box = self._box(worker) if worker.state() == "idle" else None
            since = now - (entered[-1] if entered else pasted)
            if box and not _shows(box, text):
                return Outcome(
                    "unconfirmed", "somebody typed into the same input box; no Enter was sent"
                )
            if box and len(entered) < MAX_ENTERS and (not entered or since > RETRY_ENTER_S):
                self._seat.keys(number, ENTER)
                entered.append(now)
            elif box == "" and not entered and since > SWALLOWED_S:
                raise NotTaken(f"Ticket {number}: the text did not stay in the input box.")
            elif entered and since > CONFIRM_TIMEOUT_S:
                break
            time.sleep(
                0.02
            )  # the worker's files and screen have no event that reaches this process
        return Outcome("unconfirmed", "the worker did not show it in time")

    def _enter_by_screen(self, worker: Worker, text: str) -> Outcome:
        """The same for an agent that tells us nothing but what it shows.

        The turn that begins is the evidence; where its box is known, so is the box that emptied.

        Raises:
            NotTaken: a dialog swallowed the text, no Enter was pressed.
        """
        number = worker.ticket.id
        pasted = time.monotonic()
        entered: list[float] = []
        while (now := time.monotonic()) - pasted < PATIENCE_S:
            pane = self._seat.pane(number)
            if pane is None or pane.dead:
                return Outcome("unconfirmed", "the worker ended while it was sent")
            screen = self._seat.capture(number)
            state, box = worker.driver.state_on(screen), worker.driver.box(screen)
            since = now - (entered[-1] if entered else pasted)
            emptied = box == "" and worker.driver.has_box
            began = state not in {"idle", None}  # a turn, or what it asks for at once
            if entered and (began or (emptied and since > BEGIN_S)):
                return Outcome("confirmed")
            if not entered and emptied and since > SWALLOWED_S:
                raise NotTaken(f"Ticket {number}: the text did not stay in the input box.")
            if box and not _shows(box, text):
                return Outcome(
                    "unconfirmed", "somebody typed into the same input box; no Enter was sent"
                )
            # Our own text in the box is as good as a pattern, which may be hidden by it.
            free = box and state in {"idle", None} if worker.driver.has_box else state == "idle"
            again = box and len(entered) < MAX_ENTERS and since > RETRY_ENTER_S
            if free and (not entered or again):
                self._seat.keys(number, ENTER)
                entered.append(now)
            elif entered and since > CONFIRM_TIMEOUT_S:
                break
            time.sleep(0.02)  # as above
        return Outcome("unconfirmed", "the screen did not show that it began a turn")

    def interrupt(self, worker: Worker) -> None:
        """Breaks off the worker's turn; what it waits for is answered with no."""
        if not worker.driver.interrupt(worker.work):
            self._seat.keys(worker.ticket.id, worker.driver.interrupt_key)

    def _box(self, worker: Worker) -> str | None:
        return worker.driver.box(self._seat.capture(worker.ticket.id))

    def _wait_settled(self, worker: Worker, text: str, before: str) -> None:
        """Until the text is shown and the screen stands still: an Enter in the same read is a newline."""
        deadline = time.monotonic() + SHOWN_TIMEOUT_S
        last, since = before, time.monotonic()
        settle_s = SETTLE_S
        while (now := time.monotonic()) < deadline:
            shown = self._seat.capture(worker.ticket.id)
            if shown != last:
                last, since = shown, now
                whole = worker.driver.signs == "own" and _is_whole(worker.driver.box(shown), text)
                settle_s = SETTLE_WHOLE_S if whole else SETTLE_S
            elif shown != before and now - since >= settle_s:
                return
            time.sleep(GLANCE_S)  # the screen has no event that reaches this process

    def _is_ghost(self, number: int, box: str) -> bool:
        """Whether the box of an idle worker holds what it took already.

        A TUI leaves a submitted text standing now and then, and puts one back whose turn was broken
        off before its first word; the next message would be glued to it. It is cleared once: a
        second Ctrl-C, in an empty box, would be a step towards leaving.
        """
        body = self._last.get(number)
        if body is None:
            return False
        if not _shows(box, body):
            return False
        del self._last[number]
        return True


def _shows(box: str, text: str) -> bool:
    """Whether what stands in a box is (the visible part of) a text, and nothing else."""
    if drawn := _drawn(box):
        return drawn in _drawn(text) or bool(_PASTED.fullmatch(box))
    return "".join(box.split()) in "".join(text.split())


def _is_whole(box: str | None, text: str) -> bool:
    """Whether all of a short text stands in a box, and nothing else."""
    drawn = _drawn(text)
    return bool(drawn) and len(text) <= MAX_WHOLE_CHARS and _drawn(box or "") == drawn


def _drawn(text: str) -> str:
    """What of a text every terminal draws alike.

    Blanks are wrapped; letters are composed with their accents; of emoji, marks, joiners and what has
    no width some parts are dropped.
    """
    composed = unicodedata.normalize("NFC", text)
    return "".join(
        c for c in composed if c.isalnum() or (c.isascii() and c.isprintable() and c != " ")
    )


def _began_just_now(path: Path) -> bool:
    """Whether the newest line of a sidecar is a prompt that was taken a moment ago."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            age_s = time.time() - status.st_mtime
            if not -STALE_S <= age_s <= STALE_S:  # the future is a clock that was set back
                return False
            file.seek(max(0, status.st_size - TAIL_BYTES))
            lines = [
                line for line in file.read().splitlines() if b'"hook":"statusLine"' not in line[:90]
            ]
    except FileNotFoundError:
        return False
    return bool(lines) and b'"hook":"UserPromptSubmit"' in lines[-1][:90]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _wait(condition: Callable[[], bool], timeout_s: float) -> bool:
    # The pane's screen and the worker's files have no event that reaches this process.
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


__all__ = ["Delivery", "NotTaken", "Obstacle", "Outcome", "Unavailable"]
