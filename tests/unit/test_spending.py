"""ticketctl report: the sum over its rows is what the tickets say."""

from __future__ import annotations

import csv
import io
import itertools
import json
import random
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import spending
from orchestrator.cli_report import COMMANDS, _since
from orchestrator.errors import InvalidInput
from orchestrator.events import Memory, counted
from orchestrator.store import events, tickets
from orchestrator.store.db import Database
from orchestrator.store.events import StoredEvent

BEGIN = datetime(2026, 11, 24, 22, tzinfo=UTC)
REPORT = COMMANDS[0]


def made(*said: tuple[int, float, str, dict[str, Any]]) -> list[StoredEvent]:
    """Events: ticket, hours after BEGIN, kind, data."""
    return [
        StoredEvent(id=n, ticket_id=ticket, at=BEGIN + timedelta(hours=h), kind=kind, data=data)
        for n, (ticket, h, kind, data) in enumerate(said)
    ]


def cost(usd: float, model: str = "") -> dict[str, Any]:
    """What the status line says."""
    return {"cost": {"total_cost_usd": usd}} | ({"model": {"id": model}} if model else {})


SAID = made(
    (1, 0, "worker_start", {}), (1, 0, "user_prompt", {}), (1, 0.1, "cost", cost(0.5, "opus")),
    (1, 0.2, "turn_end", {}), (2, 1, "worker_start", {}), (2, 1, "session_start", {"model": "sonnet"}),
    (2, 1, "message_taken", {}), (2, 3, "assistant_text", {"message": {"model": "<synthetic>"}}),
    (2, 3, "result", {"total_cost_usd": 1.0, "usage": {"input_tokens": 10, "output_tokens": 20}}),
    (2, 3, "turn_end", {}),
    # the next process goes on with the count of the last one
    (1, 4, "worker_start", {"resumed": True}), (1, 4, "cost", cost(0.5, "haiku")),
    (1, 5, "user_prompt", {}), (1, 5, "cost", cost(0.75)), (1, 5, "api_error", {}),
)  # fmt: skip


def rows(*by: spending.By, **more: Any) -> list[tuple[object, ...]]:
    """The report of SAID, short."""
    return [
        (
            *(part for part in (r.day, r.ticket, r.model) if part is not None),
            r.spent.turns,
            float(r.spent.cost_usd),
        )
        for r in spending.report(SAID, by, **more)
    ]


def test_by_day_ticket_and_model() -> None:
    """Each cost goes to the day it was told, the ticket, and the model that was named last."""
    first, second = date(2026, 11, 24), date(2026, 11, 25)
    assert rows("day") == [(first, 1, 0.5), (second, 2, 1.25)]
    assert rows("ticket") == [(1, 2, 0.75), (2, 1, 1.0)]
    assert rows("model") == [("haiku", 1, 0.25), ("opus", 1, 0.5), ("sonnet", 1, 1.0)]
    assert rows("day", "ticket") == [(first, 1, 1, 0.5), (second, 1, 1, 0.25), (second, 2, 1, 1.0)]
    assert rows() == [(3, 1.75)]
    assert spending.report(SAID, ("ticket",))[1].spent.output_tokens == 20


def test_days_are_of_a_zone_and_since_counts_what_was_before() -> None:
    """Two hours east all of it is one day; what a process had cost before that day is not counted again."""
    assert rows("day", zone=timezone(timedelta(hours=2))) == [(date(2026, 11, 25), 3, 1.75)]
    assert rows("day", since=date(2026, 11, 25)) == [(date(2026, 11, 25), 2, 1.25)]


@given(
    st.lists(
        st.tuples(
            st.integers(1, 2), st.integers(0, 90), st.sampled_from(["worker_start", "cost", "result", "turn_end"]),
            st.integers(0, 500), st.booleans(),
        )
    )
)  # fmt: skip
def test_nothing_is_lost_between_the_rows(said: list[tuple[int, int, str, int, bool]]) -> None:
    """Whatever the order of processes and counts, the rows add up to each ticket's own cost."""
    found = made(*(
        (ticket, hour, kind, {"resumed": flag, "total_cost_usd": cents / 100, "cost": {"total_cost_usd": cents / 100}})
        for ticket, hour, kind, cents, flag in said
    ))  # fmt: skip
    for ticket, by in itertools.product((1, 2), (("day",), ("ticket",), ("model", "day"), ())):
        memory, mine = Memory(), [e for e in found if e.ticket_id == ticket]
        for event in mine:
            memory = counted(memory, event.kind, event.data)
        assert spending.total(spending.report(mine, by)).cost_usd == memory.cost_usd  # type: ignore[arg-type]


def run(database: Database, *args: str) -> Result:
    """`ticketctl report`."""
    return CliRunner().invoke(REPORT, args, env={"MC_DATABASE_URL": database._dsn, "TZ": "UTC"})


@pytest.mark.parametrize("seed", range(6))
def test_what_the_server_leaves_out_changes_no_report(database: Database, seed: int) -> None:
    """Of any story, in pages of any size, the rows are those of all events; and much is left out."""
    dice = random.Random(seed)
    numbers = [tickets.create(database, title=str(n)).id for n in range(3)]
    models: list[object] = [None, None, None, "opus", {"id": "haiku"}, "<synthetic>"]
    kinds = [*spending.KINDS, *spending.REPEATED * 4, "tool_result"]
    for _ in range(150):
        said = {
            "model": dice.choice(models), "message": {"model": dice.choice(models)}, "usage": {"input_tokens": 3},
            "resumed": dice.random() < 0.5, "total_cost_usd": dice.randrange(9), "cost": {"total_cost_usd": dice.randrange(9)},
        }  # fmt: skip
        if dice.random() < 0.6:
            said = {}
        events.record(database, dice.choice(numbers), dice.choice(kinds), **said)
    everything = sorted(
        (e for n in numbers for e in events.of_ticket(database, n) if e.kind in spending.KINDS),
        key=lambda e: e.id,
    )
    by: tuple[spending.By, ...] = ("day", "ticket", "model")
    wanted = spending.report(everything, by)
    for page in (1, 2, 7, 40, 10_000):
        sent = list(events.spending(database, spending.KINDS, spending.REPEATED, page=page))
        assert spending.report(sent, by) == wanted
    assert len(sent) < 0.9 * len(everything)


def test_the_command(database: Database) -> None:
    """A table, CSV with a head, JSON; from the events in the database, however many pages they are."""
    ticket = tickets.create(database, title="=HYPERLINK(1)")
    for event in SAID:
        if event.ticket_id == 1:
            events.record(database, ticket.id, event.kind, **event.data)
    asked = (database, spending.KINDS, spending.REPEATED)
    assert len(list(events.spending(*asked, page=2))) == 9
    today = str(datetime.now(UTC).date())
    assert json.loads(run(database, "--json").stdout)[0]["cost_usd"] == 0.75
    done = run(database, "--csv", "--by", "ticket", "--by", "day", "--by", "model")
    table = list(csv.reader(io.StringIO(done.stdout)))
    assert table[0] == [
        "day",
        "ticket",
        "model",
        "turns",
        "cost_usd",
        "input_tokens",
        "output_tokens",
    ]
    assert [row[2:5] for row in table[1:]] == [["haiku", "1", "0.25"], ["opus", "1", "0.5"]]
    assert table[1][0] in {today, str(date.today())}  # noqa: DTZ011  # the machine's zone
    assert "HYPERLINK" not in done.stdout
    assert (
        run(database, "--by", "ticket").stdout == f"{ticket.id}\t2\t0.7500\t0\t0\t=HYPERLINK(1)\n"
    )
    assert run(database, "--since", "0").stdout != ""
    assert run(database, "--since", "9999-01-01").stdout == ""
    assert run(database, "--csv", "--json").exit_code == 2


@pytest.mark.parametrize("text", ["", "yesterday", "-1", "2026-13-01", "9" * 30, "٣"])
def test_what_is_no_day_is_refused(text: str) -> None:
    """With how to write one."""
    with pytest.raises(InvalidInput, match="is no day"):
        _since(text)


def test_an_unusual_model_is_no_reason_to_stop() -> None:
    """Whatever an agent writes as its model: a name that is cut, or none."""
    for model in (None, 3, [], {"id": 4}, {"id": "x" * 500}, ""):
        found = spending.report(made((1, 0, "cost", {"cost": {"total_cost_usd": 0}, "model": model}),
                                     (1, 1, "cost", cost(1.0))), ("model",))  # fmt: skip
        assert found[0].spent.cost_usd == Decimal(1)
        assert len(found[0].model or "") <= 100
