"""What a driver is: a command line for the pane, and the reading of its signals.

A driver never speaks to systemd, tmux or the database. It gets a `Work`, writes files of its own
into the ticket's folder, and says what to execute.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from orchestrator.config import Config
from orchestrator.errors import Unavailable
from orchestrator.naming import TicketPaths
from orchestrator.sidecar import Record

#: how messages reach the agent: "paste", as text and Enter in the pane, or "channel", by `deliver`
Delivery = Literal["paste", "channel"]
#: what tells of its turns and confirms its messages: its "own" word, or what it shows on the "screen"
Signs = Literal["own", "screen"]
ESC = b"\x1b"
_KEYS = uuid.UUID("7d1f3f5e-2b0c-5c7e-9a53-0c2d6a1f4b8e")  # the names of our messages are in here


class NotTaken(Unavailable):
    """The agent certainly took nothing of the message: it can be sent again."""


def message_key(ticket: int, message: int) -> str:
    """The UUID by which an agent knows a message: the same each time it is sent."""
    return str(uuid.uuid5(_KEYS, f"{ticket}/{message}"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a driver needs to know of a ticket."""

    ticket: int
    prompt: str  #: what the worker is told at its very first start; may be empty
    session_id: str  #: the conversation, a UUID
    command: tuple[str, ...]
    cwd: Path
    paths: TicketPaths
    config: Config
    environ: Mapping[str, str]  #: of the worker, as its unit gives it
    #: the screen of the pane as it is now, empty where there is none; None before there is a worker
    look: Callable[[], str] | None = None
    repo: Path | None = None  #: of a worktree
    isolated: bool = False  #: it will see little but its own work (`isolation_view.py`)


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What the pane executes."""

    argv: tuple[str, ...]
    environ: Mapping[str, str]  #: added to the unit's
    resumed: bool  #: goes on with a conversation
    status: str  #: for `systemctl status`
    first_message: str = ""  #: the prompt, where it could not be part of `argv`
    writable: tuple[Path, ...] = ()  #: what it has to write beside the ticket's own, when isolated


class Driver(Protocol):
    """One way to run an agent."""

    @property
    def name(self) -> str:
        """As in tickets.driver."""

    @property
    def delivery(self) -> Delivery:
        """How messages reach the agent."""

    @property
    def signs(self) -> Signs:
        """What tells of its turns."""

    @property
    def has_box(self) -> bool:
        """Whether its input box can be found on the screen; else `box` says nothing."""

    @property
    def interrupt_key(self) -> bytes:
        """What breaks off a turn where `interrupt` does not."""

    def prepare(self, work: Work) -> Launch:
        """Writes what the agent reads at its start; called before the session is made.

        Raises:
            ConfigError: it cannot run, with what to do.
        """

    def turn_state(self, work: Work, pid: int) -> str | None:
        """starting, idle, busy, waiting_permission, …; None where the agent gives no sign."""

    def box(self, screen: str) -> str | None:
        """What stands in the input box on a screen (with its SGR sequences).

        None where there is no box: a dialog may be in its place, which an Enter would answer.
        """

    def confirms(self, record: Record, body: str, key: str) -> bool:
        """Whether this sidecar line shows that the worker has taken the message `body`.

        `key` is its `message_key`, for agents that name what they took.
        """

    def outgoing(self, body: str) -> str:
        """The message as it has to be sent so that it arrives as text, not as a command.

        Raises:
            InvalidInput: this agent cannot be sent that.
        """

    def state_on(self, screen: str) -> str | None:
        """The turn state that a screen shows; None where it shows none, or `signs` are "own"."""

    def deliver(self, work: Work, key: str, body: str) -> None:
        """Gives the agent a message; for `delivery` "channel" alone.

        Raises:
            NotTaken: it takes none now, or is not there; nothing has reached it.
            Unavailable: nobody knows whether it took it. What has the same `key` may be sent again
                all the same: the agent takes each once.
        """

    def interrupt(self, work: Work) -> bool:
        """Breaks the turn off; False where that is a key in the pane."""


class Pasted:
    """What drivers have in common whose agents get their messages in the pane."""

    delivery: Delivery = "paste"
    signs: Signs = "own"
    has_box = True
    interrupt_key = ESC

    def state_on(self, screen: str) -> str | None:  # noqa: ARG002
        """Its own word counts, not its screen."""
        return None

    def deliver(self, work: Work, key: str, body: str) -> None:  # noqa: ARG002
        """There is no channel."""
        raise NotTaken(f"Ticket {work.ticket} takes messages in its pane only.")

    def interrupt(self, work: Work) -> bool:  # noqa: ARG002
        """A key, in the pane."""
        return False


def find_program(name: str, environ: Mapping[str, str]) -> str | None:
    """Where the shell of the worker would find a program."""
    return shutil.which(name, path=environ.get("PATH"))
