"""The report's page: what its bars and tables say is what the rows say."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal

from orchestrator.spending import Row, Spent
from orchestrator.store import events, tickets
from tests.unit.gateway import Gateway
from webgate import spent

TODAY = date(2026, 11, 25)


def row(back: int, ticket: int, model: str, turns: int, cost: str) -> Row:
    """What was spent so many days ago."""
    return Row(TODAY - timedelta(days=back), ticket, model, Spent(turns, Decimal(cost)))


def test_bars_stand_on_their_days_and_lines_by_cost() -> None:
    """A day without anything has no bar, the dearest is as high as the chart, what is little is still seen."""
    rows = [row(0, 1, "opus", 2, "4"), row(2, 2, "haiku", 1, "0.001"), row(2, 1, "opus", 3, "1")]
    made = spent.report(rows, today=TODAY, span=7, titles={1: "mend <it>", 2: "b"})
    cost, turns = made.charts
    assert [bar.height > 0 for bar in cost.bars] == [False] * 4 + [True, False, True]
    assert cost.bars[-1].height == spent.HEIGHT
    assert [bar.y + bar.height for bar in turns.bars] == [spent.HEIGHT] * 7
    assert (turns.bars[4].says, turns.most) == ("2026-11-23: 4", "4")
    assert "2026-11-25 with $4.00" in cost.says
    assert [(line.name, line.ticket, line.share) for line in made.tickets] == [
        ("#1 mend <it>", 1, 100.0), ("#2 b", 2, 0.0),
    ]  # fmt: skip
    assert [line.name for line in made.days] == ["2026-11-25", "2026-11-23"]
    assert (made.spent.turns, made.spent.cost_usd) == (6, Decimal("5.001"))


def test_many_tickets_are_a_line_together() -> None:
    """The sum over the lines stays what was spent."""
    rows = [row(0, n, "opus", 1, "1") for n in range(1, 31)]
    made = spent.report(rows, today=TODAY, span=7, titles={})
    assert len(made.tickets) == spent.MAX_LINES + 1
    assert made.tickets[-1].name == "10 more"
    assert sum(line.spent.turns for line in made.tickets) == 30
    empty = spent.report([], today=TODAY, span=365, titles={})
    assert not empty.spent
    assert all(bar.height == 0 for chart in empty.charts for bar in chart.bars)


def test_the_page(fresh_gateway: Gateway) -> None:
    """Empty it says so; then it has the numbers, titles as text, and nothing that the CSP would refuse."""
    assert "Nothing in 30 days" in fresh_gateway.get("/report").body.decode()
    ticket = tickets.create(fresh_gateway.database, title="<script>alert(1)</script>")
    for kind, data in (
        ("worker_start", {}), ("user_prompt", {}), ("turn_end", {}),
        ("cost", {"cost": {"total_cost_usd": 1.25}, "model": {"id": "opus & co"}}),
    ):  # fmt: skip
        events.record(fresh_gateway.database, ticket.id, kind, **data)
    text = fresh_gateway.get("/report?days=7").body.decode()
    assert "$1.25" in text
    assert "opus &amp; co" in text
    assert "&lt;script&gt;" in text
    assert "<script>" not in text
    assert " style=" not in text
    assert text.count("<rect x=") == 2
    for days, status in (("0", 200), ("-1", 400), ("x", 400), ("9" * 30, 400), ("99999", 200)):
        assert fresh_gateway.get(f"/report?days={days}").status == status, days
