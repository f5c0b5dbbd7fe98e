"""Many who ask the same at once get one answer.

After a restart a thousand pages come back in the same second and ask for the same ticket. What they
get was begun after they asked, never before: nobody gets what was true before a change it was told of.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar, cast

from gevent.event import AsyncResult

from orchestrator.errors import TicketError, Unavailable

T = TypeVar("T")


class Together:
    """Questions by their key."""

    def __init__(self) -> None:
        self._coming: dict[Hashable, AsyncResult[object]] = {}  # not begun: whoever asks may join
        self._running: dict[Hashable, AsyncResult[object]] = {}

    def ask(self, key: Hashable, question: Callable[[], T]) -> T:
        """The answer to `question`, asked by one of those who wait for it.

        Raises:
            TicketError: what it raised, for all of them.
        """
        coming = self._coming.get(key)
        if coming is None:
            coming = self._coming[key] = AsyncResult()
            self._lead(key, coming, question)
        return cast("T", coming.get())

    def _lead(self, key: Hashable, coming: AsyncResult[object], question: Callable[[], T]) -> None:
        try:
            if (running := self._running.get(key)) is not None:
                running.wait()
            self._running[key] = self._coming.pop(key)
            coming.set(question())
        except TicketError as error:
            coming.set_exception(error)
        finally:
            if (
                not coming.ready()
            ):  # we fail in another way, or are killed: nobody is to wait for it
                coming.set_exception(Unavailable("The gateway failed to ask."))
            for kept in (self._coming, self._running):
                if kept.get(key) is coming:
                    del kept[key]
