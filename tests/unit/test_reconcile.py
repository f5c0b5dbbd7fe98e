"""reconcile.plan: intent against what runs; and endings.py: an end is written down, sooner or later."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator import endings
from orchestrator.endings import Ending
from orchestrator.errors import Unavailable
from orchestrator.naming import TicketPaths
from orchestrator.reconcile import Seen, plan
from orchestrator.store import events, tickets
from orchestrator.store.db import Database
from orchestrator.store.tickets import Ticket
from orchestrator.systemd import ListedUnit, ServiceFacts

FACTS = ServiceFacts(
    main_pid=77, result="success", exit_status=0, status_text="", restarts=0, memory_bytes=None,
    cpu_s=None, tasks=None, memory_high_bytes=None, memory_max_bytes=None, tasks_max=None, cpu_weight=None,
)  # fmt: skip
ENDING = Ending(reason="it was stopped", crashed=False, at_rest=True)


@pytest.fixture
def ticket(database: Database) -> Ticket:
    """In progress, its worker 77."""
    made = tickets.create(database, title="t")
    tickets.update(database, made.id, status="in_progress", worker_pid=77, turn_state="idle")
    return tickets.get(database, made.id)


def unit(active: str, *, sub: str = "", job: bool = False) -> ListedUnit:
    """A ticket's unit in that state."""
    return ListedUnit(name="ticket@1.service", active=active, sub=sub, job=job)


def acts(ticket: Ticket, seen: Seen, *, stopped: bool = False) -> str:
    """What is planned for one ticket."""
    return " ".join(step.act for step in plan([(ticket, seen)], tmux_is_stopped=stopped))


@pytest.mark.parametrize(
    ("status", "seen", "wanted"),
    [
        ("in_progress", Seen(), "start"),
        ("in_progress", Seen(unit=unit("inactive")), "start"),
        ("in_progress", Seen(unit=unit("active"), facts=FACTS), ""),
        ("in_progress", Seen(unit=unit("active"), facts=replace(FACTS, main_pid=78)), "adopt"),
        ("in_progress", Seen(unit=unit("failed"), facts=FACTS), "drop"),
        ("in_progress", Seen(unit=unit("failed"), facts=replace(FACTS, exit_status=78)), "drop"),
        ("in_progress", Seen(unit=unit("failed"), facts=replace(FACTS, exit_status=75)), "start"),
        ("in_progress", Seen(ending=ENDING), "ended"),
        ("in_progress", Seen(unit=unit("active"), facts=FACTS, ending=ENDING), ""),
        ("open", Seen(), "clear"),
        ("open", Seen(unit=unit("active"), facts=FACTS), "adopt"),
        ("open", Seen(unit=unit("failed"), facts=FACTS), "clear"),
        ("needs_input", Seen(unit=unit("failed"), facts=FACTS), "clear"),
        ("needs_input", Seen(unit=unit("active"), facts=FACTS), "adopt"),
        ("closed", Seen(unit=unit("active"), facts=FACTS), "stop"),
    ],
)
def test_what_is_in_progress_runs_and_what_is_not_does_not(
    ticket: Ticket, status: str, seen: Seen, wanted: str
) -> None:
    """Each of the rows of docs/reconcile.md."""
    assert acts(replace(ticket, status=status), seen) == wanted


@pytest.mark.parametrize("status", ["open", "in_progress", "needs_input", "closed"])
@pytest.mark.parametrize("active", ["activating", "deactivating", "active", "inactive", "failed"])
def test_what_is_on_its_way_is_left_alone(ticket: Ticket, status: str, active: str) -> None:
    """A start, a stop or a restart that is under way, or about to be."""
    seen = Seen(unit=unit(active, job=active not in {"activating", "deactivating"}), facts=FACTS)
    assert acts(replace(ticket, status=status), seen) == ""


def test_nothing_is_wiped_off_twice(ticket: Ticket) -> None:
    """A ticket at rest, whose worker is known to be gone, is at rest."""
    resting = replace(ticket, status="open", worker_pid=None, turn_state="gone")
    assert acts(resting, Seen()) == ""


def test_a_tmux_server_that_somebody_stopped_is_not_started_by_the_back_door(
    ticket: Ticket,
) -> None:
    """Requires= would bring it up with the ticket; a ticket without tmux needs none."""
    assert acts(ticket, Seen(), stopped=True) == "hold"
    assert acts(replace(ticket, use_tmux=False), Seen(), stopped=True) == "start"


def test_the_reason_of_a_drop_is_the_launchers_own_sentence(ticket: Ticket) -> None:
    """What `systemctl status` says, or else how the unit failed."""
    said = replace(FACTS, status_text="The Claude Code CLI is not installed.")
    for facts, why in (
        (said, "The Claude Code CLI is not installed"),
        (replace(FACTS, result="start-limit-hit"), "its unit failed: start-limit-hit"),
    ):
        (step,) = plan([(ticket, Seen(unit=unit("failed"), facts=facts))], tmux_is_stopped=False)
        assert step.why == why


@pytest.fixture
def paths(tmp_path: Path) -> TicketPaths:
    """Of a ticket whose folder is there."""
    found = TicketPaths(folder=tmp_path / "1", runtime=tmp_path / "run")
    found.folder.mkdir()
    return found


def test_an_end_is_written_down(database: Database, ticket: Ticket, paths: TicketPaths) -> None:
    """A stop by hand takes the intent back; a crash does not. A note of before is made up for."""
    crash = Ending(reason="was killed by SIGKILL", crashed=True, at_rest=False)
    endings.record(database, paths, ticket.id, crash)
    assert tickets.get(database, ticket.id).status == "in_progress"
    paths.ending_path.write_text("{}")
    endings.record(database, paths, ticket.id, ENDING)
    after = tickets.get(database, ticket.id)
    assert (after.status, after.turn_state, after.worker_pid) == ("open", "gone", None)
    told = events.of_kinds(database, ticket.id, ["worker_ended"], limit=9)
    assert [e.data["reason"] for e in told] == [crash.reason, ENDING.reason]
    assert endings.unrecorded(paths) is None
    assert not paths.ending_path.exists()


def test_without_a_database_an_end_is_a_note(paths: TicketPaths) -> None:
    """It says the same when it is read, and nothing once the ticket was started since."""
    nowhere = Database("host=/nonexistent dbname=none")
    with pytest.raises(Unavailable):
        endings.record(nowhere, paths, 1, ENDING)
    assert endings.unrecorded(paths) == ENDING
    endings.forget(paths)
    assert endings.unrecorded(paths) is None
    endings.forget(paths)


@pytest.mark.parametrize("torn", [b"", b"{", b"[]", b'{"reason": "x"}', b"\xff", b"[" * 5000])
def test_a_note_that_cannot_be_read_is_none(paths: TicketPaths, torn: bytes) -> None:
    """Then the ticket counts as one that was interrupted."""
    paths.ending_path.write_bytes(torn)
    assert endings.unrecorded(paths) is None
