"""What was done at the gateway, in the journal beside what the other parts tell of a ticket.

`journalctl --user TICKET_ID=42` then has the operator's side of the story too. Never what was said.
"""

from __future__ import annotations


def tell(ticket: int, event: str, what: str) -> None:
    """One entry; `event` is one of orchestrator.journal.KINDS."""
    # Where there is no systemd, there is no journal either.
    try:
        from orchestrator import systemd  # noqa: PLC0415
    except ImportError:
        return
    systemd.log(f"Ticket {ticket}: {what}.", ticket=ticket, event=event)
