"""The table of benchmarks: its rows, its arithmetic, and what it says of what was not measured."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benchmarks import figures, report
from benchmarks.__main__ import SCENARIOS
from benchmarks.figures import Goal, Outcome, Sense, Series
from benchmarks.goals import GOALS, ROWS

NAMES = (
    "latency", "viewers", "echo", "flood", "slow", "start", "message", "idle", "product", "ingest",
    "recovery", "growth", "cli",
)  # fmt: skip
RESULTS = Path(__file__).resolve().parents[2] / "benchmarks/results"


def series(what: str, *values: float, system: str = "ours", row: str = "echo") -> Series:
    """Of one row."""
    return Series(row=row, what=what, system=system, unit="ms", values=values)


def judged(goal: Goal, *found: Series) -> Outcome:
    """What these say of it."""
    return figures.judge(goal, {one.key: one for one in found})


def test_each_row_has_a_scenario_and_a_goal() -> None:
    """The rows are all there, each is measured, and each has to come to something."""
    assert tuple(ROWS) == NAMES
    assert set(SCENARIOS) == set(ROWS)
    assert {goal.row for goal in GOALS} == set(ROWS)


def test_a_ratio_is_of_the_medians() -> None:
    """Not of the means, nor of what one run came to."""
    goal = Goal(row="echo", what="p50", beside="peer", bound=2.0)
    ours, peer = series("p50", 1, 3, 900), series("p50", 1.5, 2, 2.5, system="peer")
    outcome = judged(goal, ours, peer)
    assert outcome.value == pytest.approx(1.5)
    assert outcome.met is True


@pytest.mark.parametrize(
    ("sense", "value", "met"),
    [
        (Sense.AT_MOST, 10, True),
        (Sense.AT_MOST, 10.1, False),
        (Sense.AT_LEAST, 10, True),
        (Sense.AT_LEAST, 9.9, False),
    ],
)
def test_a_bound_has_a_good_side(sense: Sense, value: float, *, met: bool) -> None:
    """The bound itself is met."""
    goal = Goal(row="echo", what="p50", sense=sense, bound=10, unit="ms")
    assert judged(goal, series("p50", value)).met is met


def test_what_was_not_measured_is_neither() -> None:
    """Nothing of ours, nothing beside it, or nothing to divide by: not met, not missed, and said so."""
    goal = Goal(row="echo", what="p50", beside="peer", bound=2.0)
    ours = series("p50", 1.0)
    for found in ((), (ours,), (ours, series("p50", 0.0, system="peer"))):
        assert judged(goal, *found).met is None
    page = report.page({ours.key: ours}, {}, {"peer": "not to be had"})
    assert "0 of 0 measured targets are met" in page
    assert f"{len(GOALS)} could not be measured" in page
    assert "- peer: not to be had" in page


def test_a_peer_that_is_not_there_has_another_in_its_place() -> None:
    """By a bound of its own; the target is said as it was set, and the peer itself comes first."""
    goal = Goal(row="echo", what="p50", beside="peer", bound=2.0, instead=("other", 1.5))
    ours, other = series("p50", 1.6), series("p50", 1.0, system="other")
    without = judged(goal, ours, other)
    assert (without.met, without.value) == (False, 1.6)
    assert "≤ 2 × peer" in report.target(without.goal)
    assert judged(goal, ours, other, series("p50", 1.0, system="peer")).met is True
    assert judged(goal, ours).met is None


def test_one_beside_itself() -> None:
    """Growth: a figure of ours against another one of ours."""
    goal = Goal(row="growth", what="b", beside="ours", beside_what="a", bound=1.2)
    found = (series("a", 10, row="growth"), series("b", 11, row="growth"))
    assert judged(goal, *found).value == pytest.approx(1.1)


@pytest.mark.parametrize(("share", "value"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.001, 1)])
def test_percentiles_are_by_nearest_rank(share: float, value: float) -> None:
    """Of 1 to 100, in any order."""
    assert figures.percentile([float(n) for n in range(100, 0, -1)], share) == value


def test_results_survive_a_round(tmp_path: Path) -> None:
    """What is written is what is read; a later figure replaces its predecessor alone."""
    path = tmp_path / "measured.json"
    assert figures.load(path) == ({}, {}, {})
    found = {one.key: one for one in (series("p50", 1, 2), series("p99", 3))}
    figures.save(path, found, {"tmux": "3.5a"}, {"ttyd": "no"})
    assert figures.load(path) == (found, {"tmux": "3.5a"}, {"ttyd": "no"})
    found.update({one.key: one for one in (series("p50", 7),)})
    assert [one.median for one in found.values()] == [7, 3]


def test_plots_are_drawings() -> None:
    """XML that a browser takes, a point for each figure, also with nothing measured."""
    for text in report.plots({}).values():
        ET.fromstring(text)  # noqa: S314  # our own
    drawn = report.plot("a < b", "viewers", "ms", {"ours": [(1, 1.0), (100, 2.0)], "peer": []})
    root = ET.fromstring(drawn)  # noqa: S314
    assert len([e for e in root.iter() if e.tag.endswith("circle")]) == 2


def test_the_page_is_what_was_measured() -> None:
    """results/README.md and the plots say what measured.json says."""
    found, versions, missing = figures.load(RESULTS / "measured.json")
    assert found, "nothing was measured"
    assert (RESULTS / "README.md").read_text(encoding="utf-8") == report.page(
        found, versions, missing
    )
    for name, text in report.plots(found).items():
        assert (RESULTS / name).read_text(encoding="utf-8") == text
