"""The report page's figures: cost and turns by day, ticket and model, as bars that a page can draw.

Pure: rows of `orchestrator.spending` in, records out. The page is templates/report.html.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TypeVar

from orchestrator.spending import Row, Spent, total

K = TypeVar("K")
SPANS = (7, 30, 90, 365)  #: days that the page offers
MAX_LINES = 20  # tickets, models; the rest is one line
WIDTH, HEIGHT = 720, 120  # of a chart, in its own units
_SHARE = 0.8  # of a day's place that its bar fills
_LEAST = 1.5  # so high is a bar that is not nothing


@dataclass(frozen=True, slots=True)
class Bar:
    """One day of a chart."""

    day: date
    x: float
    y: float
    width: float
    height: float
    says: str  #: for whoever points at it


@dataclass(frozen=True, slots=True)
class Chart:
    """Bars of one quantity."""

    name: str
    most: str  #: what the highest one is
    says: str  #: all of it in a sentence, for who cannot see it
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class Line:
    """One ticket, model or day of a table."""

    name: str
    ticket: int | None  #: whose page it leads to
    spent: Spent
    share: float  #: of the highest cost in the table, 0 to 100


@dataclass(frozen=True, slots=True)
class Report:
    """All that the page shows."""

    spent: Spent
    charts: tuple[Chart, ...]
    tickets: tuple[Line, ...]
    models: tuple[Line, ...]
    days: tuple[Line, ...]  #: those on which something was, newest first


def report(rows: Sequence[Row], *, today: date, span: int, titles: Mapping[int, str]) -> Report:
    """What to draw.

    Args:
        rows: by day, ticket and model, of the last `span` days.
        today: the last day shown.
        span: days.
        titles: of tickets.
    """
    by_day = _summed(rows, lambda row: row.day)
    days = [today - timedelta(days=back) for back in reversed(range(span))]
    each = [by_day.get(day, Spent()) for day in days]
    charts = (
        _chart("Cost", days, [float(s.cost_usd) for s in each], lambda value: f"${value:.2f}"),
        _chart("Turns", days, [float(s.turns) for s in each], lambda value: f"{value:.0f}"),
    )
    named = _summed(rows, lambda row: row.ticket)
    lines = {f"#{n} {titles.get(n, '')}".strip() if n else "-": (n, s) for n, s in named.items()}
    models = {name or "-": (None, s) for name, s in _summed(rows, lambda row: row.model).items()}
    dated = [(str(day), (None, by_day[day])) for day in reversed(days) if day in by_day]
    return Report(
        total(rows), charts, _lines(_by_cost(lines)), _lines(_by_cost(models)),
        _lines(dated, most_lines=span),
    )  # fmt: skip


def _summed(rows: Iterable[Row], key: Callable[[Row], K]) -> dict[K, Spent]:
    groups: dict[K, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return {name: total(found) for name, found in groups.items()}


def _chart(
    name: str, days: Sequence[date], values: Sequence[float], write: Callable[[float], str]
) -> Chart:
    most = max(values, default=0.0)
    place = WIDTH / len(days)
    bars = []
    for number, (day, value) in enumerate(zip(days, values, strict=True)):
        height = max(_LEAST, HEIGHT * value / most) if value > 0 else 0.0
        bars.append(
            Bar(day, round(number * place, 2), round(HEIGHT - height, 2), round(place * _SHARE, 2),
                round(height, 2), f"{day}: {write(value)}")
        )  # fmt: skip
    says = f"{name} by day from {days[0]} to {days[-1]}; {write(sum(values))} together"
    if most > 0:
        says += f", most on {days[values.index(most)]} with {write(most)}"
    return Chart(name, write(most), f"{says}.", tuple(bars))


def _by_cost(
    lines: Mapping[str, tuple[int | None, Spent]],
) -> list[tuple[str, tuple[int | None, Spent]]]:
    return sorted(
        lines.items(), key=lambda item: (-item[1][1].cost_usd, -item[1][1].turns, item[0])
    )


def _lines(
    found: Sequence[tuple[str, tuple[int | None, Spent]]], *, most_lines: int = MAX_LINES
) -> tuple[Line, ...]:
    shown, rest = list(found[:most_lines]), found[most_lines:]
    if rest:
        spent = Spent()
        for _, (_, more) in rest:
            spent.turns += more.turns
            spent.cost_usd += more.cost_usd
            spent.input_tokens += more.input_tokens
            spent.output_tokens += more.output_tokens
        shown.append((f"{len(rest)} more", (None, spent)))
    most = max((float(s.cost_usd) for _, (_, s) in shown), default=0.0)
    return tuple(
        Line(name, ticket, spent, round(100 * float(spent.cost_usd) / most, 1) if most else 0.0)
        for name, (ticket, spent) in shown
    )
