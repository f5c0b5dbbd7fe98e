"""The table of results/README.md, and the plots beside it. Pure: series in, text out."""

from __future__ import annotations

from html import escape

from benchmarks.figures import Found, Goal, Outcome, judge
from benchmarks.goals import GOALS, GROWTH, MANY, PEER, ROWS, TTYD

_WORDS = {None: "not measured", True: "yes", False: "**no**"}
_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 640, 320, 60, 50
_COLOURS = ("#1f6feb", "#d1242f", "#1a7f37")


def number(value: float) -> str:
    """With as many digits as mean something."""
    if value == 0:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def target(goal: Goal) -> str:
    """In words."""
    bound = f"{goal.sense.value} {number(goal.bound)}"
    bound += " ×" if goal.beside else f" {goal.unit}".rstrip()
    return f"{bound} ({goal.said})" if goal.said else bound


def _line(outcome: Outcome) -> str:
    goal, ours, beside = outcome.goal, outcome.ours, outcome.beside
    who = "" if goal.ours == "ours" else goal.ours.removeprefix("ours, ") + ": "
    cells = [f"{who}{goal.what}"]
    if ours is None:
        cells += ["–", "–"]
    else:
        cells.append(
            f"{number(ours.median)} {ours.unit} ({number(min(ours.values))} to"
            f" {number(max(ours.values))}; {len(ours.values)})"
        )
        cells.append(f"{ours.load:g}")
    if not goal.beside:
        cells.append("–")
    elif beside is None:
        cells.append(f"{goal.beside}: not measured")
    else:
        name = goal.beside_what if goal.beside == goal.ours else goal.beside
        cells.append(f"{name}: {number(beside.median)} {beside.unit}")
    ratio = f"{outcome.value:.2f}" if goal.beside and outcome.value is not None else "–"
    return f"| {' | '.join([*cells, ratio, target(goal), _WORDS[outcome.met]])} |"


def page(found: Found, versions: dict[str, str], missing: dict[str, str]) -> str:
    """results/README.md."""
    outcomes = [judge(goal, found) for goal in GOALS]
    measured = [o for o in outcomes if o.met is not None]
    days = sorted({one.at for one in found.values() if one.at})
    lines = [
        "# Figures", "",
        f"Measured {' to '.join(sorted({days[0], days[-1]})) if days else 'never'} on {versions.get('machine', '?')}."
        " Medians, with least, most and number of runs; beside whom, in turns on the same machine; the load"
        " average when it was taken. Made by `make bench`; what each row means says [goals.py](../goals.py).",
        "",
        f"{sum(o.met is True for o in measured)} of {len(measured)} measured targets are met;"
        f" {len(outcomes) - len(measured)} could not be measured."
        " Why a target is missed is in [docs/performance.md](../../docs/performance.md).",
    ]  # fmt: skip
    for row, (name, how) in ROWS.items():
        lines += [
            "", f"## {name}", "", f"{how[0].upper()}{how[1:]}. `make bench ONLY={row}`", "",
            "| what | ours | load | beside | ratio | target | met |",
            "| --- | --- | --- | --- | --- | --- | --- |",
            *(_line(o) for o in outcomes if o.goal.row == row),
            *_others(found, row),
        ]  # fmt: skip
    lines += ["", "## Versions", "", *(f"- {name}: {text}" for name, text in versions.items())]
    if missing:
        lines += ["", "## Left out", "", *(f"- {name}: {why}" for name, why in missing.items())]
    lines += [
        "", "## Plots", "",
        "![Latency by number of viewers](latency-by-viewers.svg)", "",
        "![Cost by number of tickets](cost-by-tickets.svg)",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _others(found: Found, row: str) -> list[str]:
    """What was measured beside the goals, for whoever wants to know."""
    goals = [judge(goal, found).goal for goal in GOALS]
    told = {(g.row, g.what, g.ours) for g in goals}
    told |= {(g.row, g.beside_what or g.what, g.beside) for g in goals}
    rest = [one for one in found.values() if one.row == row and one.key not in told]
    if not rest:
        return []
    head = [
        "",
        "| also | of | median | least | most | runs |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    return head + [
        f"| {one.what} | {one.system} | {number(one.median)} {one.unit} | {number(min(one.values))} |"
        f" {number(max(one.values))} | {len(one.values)} |"
        for one in rest
    ]


def plots(found: Found) -> dict[str, str]:
    """File names and what is in them."""

    def points(
        row: str, what: str, counts: tuple[int, ...], noun: str, system: str
    ) -> list[tuple[int, float]]:
        keys = [(n, (row, f"{what}, {n} {noun}{'s' if n > 1 else ''}", system)) for n in counts]
        return [(n, found[key].median) for n, key in keys if key in found]

    seen = {name: points("viewers", "p50", MANY, "viewer", name) for name in ("ours", PEER, TTYD)}
    viewers = {name: line for name, line in seen.items() if line}
    cost = {
        f"{what}, {unit}": points("growth", what, GROWTH, "ticket", "ours")
        for what, unit in (("start", "ms"), ("latency", "ms"), ("ingest lag", "ms"))
    }
    return {
        "latency-by-viewers.svg": plot("From print to sight, p50", "viewers", "ms", viewers),
        "cost-by-tickets.svg": plot("Cost by number of tickets", "tickets", "ms", cost),
    }


def plot(title: str, across: str, up: str, lines: dict[str, list[tuple[int, float]]]) -> str:
    """Lines over numbers in their own places, from zero up."""
    ticks = sorted({x for line in lines.values() for x, _ in line})
    most = max((y for line in lines.values() for _, y in line), default=1.0) * 1.1
    right, top = _WIDTH - 20, 40
    floor = _HEIGHT - _BOTTOM

    def place(x: int, y: float) -> tuple[float, float]:
        step = (right - _LEFT) / max(1, len(ticks) - 1)
        return round(_LEFT + ticks.index(x) * step, 1), round(floor - (floor - top) * y / most, 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        f'<text x="{_LEFT}" y="20" font-size="14">{escape(title)}</text>',
        f'<path d="M{_LEFT} {top}V{floor}H{right}" fill="none" stroke="#444"/>',
        f'<text x="{(_LEFT + right) / 2}" y="{_HEIGHT - 12}" text-anchor="middle">{escape(across)}</text>',
    ]  # fmt: skip
    parts += [
        f'<text x="{place(x, 0)[0]}" y="{floor + 16}" text-anchor="middle">{x:,}</text>'
        for x in ticks
    ]
    for share in (0.25, 0.5, 0.75, 1):
        y = round(floor - (floor - top) * share, 1)
        parts.append(f'<path d="M{_LEFT} {y}H{right}" stroke="#ddd"/>')
        said = f"{number(most * share)} {escape(up)}"
        parts.append(f'<text x="{_LEFT - 4}" y="{y + 4}" text-anchor="end">{said}</text>')
    for place_number, (name, line) in enumerate(lines.items()):
        colour = _COLOURS[place_number % len(_COLOURS)]
        drawn = [place(x, y) for x, y in line]
        joined = " ".join(f"{x},{y}" for x, y in drawn)
        parts.append(
            f'<polyline points="{joined}" fill="none" stroke="{colour}" stroke-width="2"/>'
        )
        parts += [f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>' for x, y in drawn]
        parts.append(
            f'<text x="{_LEFT + 10}" y="{top + 14 + 16 * place_number}" fill="{colour}">{escape(name)}</text>'
        )
    return "\n".join([*parts, "</svg>", ""])
