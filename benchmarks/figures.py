"""What was measured, and what it comes to beside whom. Pure: no machine, no files but the one of results.

A series is one figure of one system, a value for each run. A goal names a series of ours, often one
beside it, and what their medians (or ours alone) shall come to.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

OURS = "ours"


class Sense(Enum):
    """Which side of its bound is the good one."""

    AT_MOST = "≤"
    AT_LEAST = "≥"


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One figure of one system."""

    row: str  #: of goals.ROWS
    what: str
    system: str = OURS
    unit: str
    values: tuple[float, ...]  #: one a run
    how: str = ""  #: the command, or what was done
    load: float = 0.0  #: of the machine, one minute's, when it was taken
    at: str = ""  #: the day

    @property
    def key(self) -> tuple[str, str, str]:
        """What a later measurement replaces it by."""
        return self.row, self.what, self.system

    @property
    def median(self) -> float:
        """Of the runs."""
        return statistics.median(self.values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """A target."""

    row: str
    what: str
    sense: Sense = Sense.AT_MOST
    bound: float
    beside: str = ""  #: the system whose median ours is divided by; empty: ours alone counts
    beside_what: str = ""  #: its figure, where it is another one than ours
    ours: str = OURS
    unit: str = ""  #: of the bound, when it is no ratio
    said: str = ""  #: the target in words, where the bound alone would mislead
    instead: tuple[str, float] | None = (
        None  #: beside whom, and what bound, where `beside` was not measured
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A goal, and what was found."""

    goal: Goal
    ours: Series | None
    beside: Series | None
    value: float | None  #: what the bound is compared with; None: not measured

    @property
    def met(self) -> bool | None:
        """Whether; None while not measured."""
        if self.value is None:
            return None
        if self.goal.sense is Sense.AT_MOST:
            return self.value <= self.goal.bound
        return self.value >= self.goal.bound


def judge(goal: Goal, found: dict[tuple[str, str, str], Series]) -> Outcome:
    """What the series say of a goal."""
    ours = found.get((goal.row, goal.what, goal.ours))
    beside = found.get((goal.row, goal.beside_what or goal.what, goal.beside))
    if beside is None and goal.instead is not None:
        said = f"{goal.sense.value} {goal.bound:g} × {goal.beside}"
        goal = replace(goal, beside=goal.instead[0], bound=goal.instead[1], said=said, instead=None)
        return judge(goal, found)
    value = ours.median if ours is not None else None
    if goal.beside and value is not None:
        value = value / beside.median if beside is not None and beside.median else None
    return Outcome(goal=goal, ours=ours, beside=beside, value=value)


def percentile(values: list[float], share: float) -> float:
    """The value that `share` of all lie at or below, by nearest rank."""
    ordered = sorted(values)
    rank = max(1, -(-int(share * 1000) * len(ordered) // 1000))
    return ordered[min(rank, len(ordered)) - 1]


Found = dict[tuple[str, str, str], Series]


def load(path: Path) -> tuple[Found, dict[str, str], dict[str, str]]:
    """What was measured so far, with which versions, and which systems were left out and why."""
    if not path.exists():
        return {}, {}, {}
    read: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    made = [Series(**{**one, "values": tuple(one["values"])}) for one in read["series"]]
    return {one.key: one for one in made}, read["versions"], read["left_out"]


def save(path: Path, found: Found, versions: dict[str, str], left_out: dict[str, str]) -> None:
    """All of it, for programs; a line a series."""
    lines = ",\n ".join(json.dumps(asdict(one), ensure_ascii=False) for one in found.values())
    head = json.dumps({"versions": versions, "left_out": left_out}, indent=1, ensure_ascii=False)
    text = f'{head.removesuffix("}").rstrip()},\n "series": [\n {lines}\n ]\n}}\n'
    path.write_text(text, encoding="utf-8")
