"""Who types: one page a ticket, after its operator took control.

A page that was only opened never types. Control is taken for a page, not for a person: two tabs do
not type into each other. It is kept in memory alone; after a restart of the gateway everybody looks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from orchestrator.errors import Conflict, InvalidInput

MAX_HELD = 1000  # tickets; past it the one that was taken first is let go
_VIEWER = re.compile(r"[A-Za-z0-9-]{8,64}", re.ASCII)


class NotInControl(Conflict):
    """Somebody who only looks tried to type."""

    code = "not-in-control"


@dataclass(slots=True)
class _Held:
    viewer: str
    session: str  #: of the login, so that another one cannot type with a viewer's name it saw


class Controls:
    """The page that has control of each ticket."""

    def __init__(self) -> None:
        self._held: dict[int, _Held] = {}

    def holder(self, ticket: int) -> str:
        """The viewer that has control; empty for none."""
        held = self._held.get(ticket)
        return held.viewer if held is not None else ""

    def take(self, ticket: int, viewer: str, session: str) -> None:
        """From now on this one types; whoever did before, looks."""
        if not _VIEWER.fullmatch(viewer):
            raise InvalidInput("'viewer' is 8 to 64 letters, digits and dashes.")
        self._held.pop(ticket, None)
        while len(self._held) >= MAX_HELD:
            del self._held[next(iter(self._held))]
        self._held[ticket] = _Held(viewer, session)

    def release(self, ticket: int, viewer: str) -> bool:
        """Only looks from now on; False: it did already."""
        if self.holder(ticket) != viewer:
            return False
        return self._held.pop(ticket, None) is not None

    def check(self, ticket: int, viewer: str, session: str) -> None:
        """Raises NotInControl unless this one may type."""
        held = self._held.get(ticket)
        if held is None or held.viewer != viewer or held.session != session:
            raise NotInControl(
                "This page only looks: somebody else has control, or nobody.",
                hint="Take control first.",
            )
