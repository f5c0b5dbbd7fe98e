"""Any program in the pane. It has no sidecar: what is known of it is its screen and its exit."""

from __future__ import annotations

from orchestrator.drivers.base import Launch, Pasted, Work, find_program
from orchestrator.errors import ConfigError
from orchestrator.sidecar import Record


class CommandDriver(Pasted):
    """Runs `tickets.command` as it is, without a shell."""

    name = "command"

    def prepare(self, work: Work) -> Launch:
        """See Driver."""
        if not work.command:
            raise ConfigError(
                f"Ticket {work.ticket} has no command.",
                hint="Make it with: ticketctl new TITLE --driver command -- PROGRAM ARG…",
            )
        program = find_program(work.command[0], work.environ)
        if program is None:
            raise ConfigError(
                f"The command {work.command[0]!r} of ticket {work.ticket} is not installed.",
                hint=f"It was looked for in {work.environ.get('PATH', '')}.",
            )
        return Launch(
            argv=(program, *work.command[1:]),
            environ={},
            resumed=False,
            status=f"running {work.command[0]}",
        )

    def turn_state(self, work: Work, pid: int) -> str | None:  # noqa: ARG002
        """A program gives no sign of its turns."""
        return None

    def box(self, screen: str) -> str | None:  # noqa: ARG002
        """Nobody can know; what is sent to a command is sent at the operator's word."""
        return ""

    def confirms(self, record: Record, body: str, key: str) -> bool:  # noqa: ARG002
        """Nor of what it read."""
        return False

    def outgoing(self, body: str) -> str:
        """As it is."""
        return body
