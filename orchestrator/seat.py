"""The seat in front of the tickets' panes that the dispatcher has: looks, pastes, keys.

Between dispatch and SESSION, over one tmux client that stays: a process for each look would be most
of a message's way. What is typed from here is typed once: where a client ended in the middle,
nobody knows, and that is said. Starting, piping and ending sessions is tmux.py's business.
"""

from __future__ import annotations

from typing import Self

from orchestrator import tmux
from orchestrator.errors import Conflict, Unavailable
from orchestrator.tmux import Pane
from orchestrator.tmux_control import Control

MAX_TYPED_BYTES = 16_384  # a line to the client is four times as long; more goes through a process


class Seat:
    """Looks at panes of the tmux server on socket `socket`, and types into them."""

    def __init__(self, socket: str) -> None:
        self._server = tmux.Server(socket)
        self._control = Control(socket)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._control.close()

    def pane(self, ticket: int) -> Pane | None:
        """The pane of a ticket's session; None when there is no session, or no server."""
        try:
            return Pane.from_line(self._control.pane(ticket, tmux.PANE_FORMAT))
        except Conflict:
            return None

    def last_key_s(self, ticket: int) -> float:
        """Seconds since somebody who is attached last pressed a key; infinite when nobody is."""
        try:
            return tmux.last_key_s(self._control.clients(ticket, tmux.CLIENT_FORMAT))
        except Conflict:
            return float("inf")

    def capture(self, ticket: int) -> str:
        """The visible screen, with its colours as SGR sequences.

        Raises:
            Unavailable: there is no session.
        """
        try:
            return self._control.capture(ticket)
        except Conflict as error:
            raise Unavailable(error.message) from None

    def paste(self, ticket: int, text: str) -> None:
        """Puts text before the program as a bracketed paste, once. No Enter.

        Raises:
            Unavailable: it may have got there, or not.
        """
        if len(text.encode()) > MAX_TYPED_BYTES:
            self._server.paste(ticket, text)
            return
        try:
            self._control.paste(ticket, text)
        except Conflict as error:
            raise Unavailable(error.message) from None

    def keys(self, ticket: int, data: bytes) -> None:
        """Types bytes exactly as they are, once; copy mode, which would swallow them, is left first.

        Raises:
            Unavailable: they may have got there, or not.
        """
        try:
            self._control.keys(ticket, data)
        except Conflict as error:
            raise Unavailable(error.message) from None
