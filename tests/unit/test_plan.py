"""plan.py: what has to be done, and nothing once it was done."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import limits, plan, unit_files
from orchestrator.declare import Declared, Source, read
from orchestrator.errors import InvalidInput
from orchestrator.plan import Actual, Plan
from orchestrator.store.tickets import Ticket

AT = datetime(2026, 1, 1, tzinfo=UTC)


def ticket(number: int, **values: Any) -> Ticket:
    """A row."""
    columns: dict[str, Any] = dict.fromkeys(f.name for f in fields(Ticket))
    columns |= {
        "id": number, "title": "t", "prompt": "", "kind": "chat", "driver": "claude", "command": (),
        "status": "open", "turn_state": "gone", "use_tmux": True, "session_id": "s",
        "created_at": AT, "updated_at": AT,
    }  # fmt: skip
    return Ticket(**(columns | values))


def carried_out(
    declared: Sequence[Declared], actual: Mapping[str, Actual], made: Plan
) -> dict[str, Actual]:
    """What there is afterwards, as apply.carry_out leaves it."""
    numbers = {name: there.ticket.id for name, there in actual.items()}
    for item in declared:
        numbers.setdefault(item.name, max(numbers.values(), default=0) + 1)
    after = {}
    for item in declared:
        own = numbers[item.name]
        before = actual.get(item.name)
        row = before.ticket if before else ticket(own)
        active = before.active if before else "inactive"
        active = "active" if item.name in made.starts else active
        active = "inactive" if item.name in made.stops else active
        wanted = plan.wanted_settings(item, own, numbers, direct=True)
        after[item.name] = Actual(
            ticket=replace(row, name=item.name, **plan.columns_of(item)),  # type: ignore[arg-type]
            drop_in=unit_files.render("apply", wanted) if wanted else None,
            timer=unit_files.timer_text(own, item.schedule) if item.schedule else None,
            timer_is_on=bool(item.schedule),
            active=active,
            in_force={
                name: number
                for name, value in item.limits
                if (number := limits.number_of(limits.KEYS[name], value)) is not None
            },
            is_stale=False,
        )
    return after


def make(declared: Sequence[Declared], actual: Mapping[str, Actual], **more: Any) -> Plan:
    """A plan with nothing else in the way."""
    gone = more.pop("gone", ())
    return plan.make(declared, actual, gone, **({"others": {}, "prune": False} | more))


def board(text: str) -> tuple[Declared, ...]:
    """What a file declares."""
    return read([Source("/b.toml", text)])


def there(text: str) -> dict[str, Actual]:
    """What there is once a file was applied."""
    items = board(text)
    return carried_out(items, {}, make(items, {}))


NAMES = ["a", "b", "c", "d", "e"]


@st.composite
def boards(draw: st.DrawFn) -> tuple[Declared, ...]:
    """Boards without a ring: a ticket waits only for those before it."""
    items = []
    for index, name in enumerate(draw(st.lists(st.sampled_from(NAMES), unique=True))):
        earlier = st.lists(st.sampled_from([*(i.name for i in items), 900 + index]), max_size=2)  # type: ignore[attr-defined]
        items.append(
            Declared(
                name=name, source=draw(st.sampled_from(["/b.toml", "/c.toml"])), where="/b.toml:1",
                title=draw(st.sampled_from(["x", "y\n\x1b[2J"])), prompt=draw(st.text(max_size=5)),
                prompt_file=None, repo=draw(st.sampled_from([None, "/r"])), base=None,
                driver=draw(st.sampled_from(["claude", "demo"])), command=(),
                kind=draw(st.sampled_from(["chat", "code"])),
                state=draw(st.sampled_from([None, "running", "stopped"])),
                schedule=draw(st.sampled_from([(), ("daily",), ("Mon 07:00", "Sat 09:00")])),
                after=tuple(draw(earlier)), requires=tuple(draw(earlier)),
                on_failure=draw(st.sampled_from([(), ("alert@.service",), (901,)])),
                limits=draw(st.sampled_from([(), (("MemoryMax", "2G"),), (("TasksMax", "60%"), ("CPUQuota", "50%"))])),
            )
        )  # fmt: skip
    return tuple(items)


@given(boards(), boards())
def test_a_plan_that_was_carried_out_leaves_nothing(
    first: tuple[Declared, ...], second: tuple[Declared, ...]
) -> None:
    """From nothing to one board, and from that to another: planned again, each is empty."""
    actual: dict[str, Actual] = {}
    for declared in (first, second):
        made = make(declared, actual)
        actual = actual | carried_out(declared, actual, made)
        again = make(declared, actual)
        assert (again.steps, again.drifts, again.starts, again.stops) == ((), (), (), ())
        assert again.unchanged == len(declared)
        assert {s.name for s in made.steps} <= {i.name for i in declared}


@given(boards())
def test_starts_stand_behind_what_they_wait_for(declared: tuple[Declared, ...]) -> None:
    """And stops before it."""
    made = make(declared, {})
    for item in declared:
        for ref in (*item.after, *item.requires):
            if item.name in made.starts and ref in made.starts:
                assert made.starts.index(str(ref)) < made.starts.index(item.name)


def test_stops_go_the_other_way() -> None:
    """What waited for another is stopped before it."""
    text = "[tickets.a]\nstate='running'\n[tickets.b]\nstate='running'\nafter='a'\n"
    made = make(board(text.replace("running", "stopped")), there(text))
    assert made.stops == ("b", "a")


@given(boards())
def test_a_plan_is_shown_without_what_a_terminal_obeys(declared: tuple[Declared, ...]) -> None:
    """Titles and prompts are anybody's: each value is in its line, and printable."""
    for line in plan.show(make(declared, {})):
        assert line.isprintable()
        assert len(line) < 120


@pytest.mark.parametrize(
    ("before", "after", "changes"),
    [
        ("MemoryMax = '1G'", "MemoryMax = '2G'", [("MemoryMax", "1G", "2G")]),
        ("MemoryMax = '1G'", "", [("MemoryMax", "1G", None)]),
        ("", "schedule = 'daily'", [("schedule", None, "daily")]),
        ("schedule = 'daily'", "", [("schedule", "daily", None)]),
        ("", "state = 'running'", [("state", "inactive", "running")]),
        ("state = 'running'", "state = 'stopped'", [("state", "active", "stopped")]),
        ("state = 'running'", "", []),
        ("title = 'x'", "title = 'y'", [("title", "x", "y"), ("prompt", "x", "y")]),
        ("", "command = ['a', 'b']", [("driver", "claude", "command"), ("command", None, '["a", "b"]')]),
        ("", "after = 7", [("After", None, "ticket@7.service")]),
        ("", "requires = 7", [("After", None, "ticket@7.service"), ("Requires", None, "ticket@7.service")]),
        ("", "on_failure = 'alert@.service'", [("OnFailure", None, "alert@1.service"), ("RestartMode", None, "direct")]),
    ],
)  # fmt: skip
def test_a_change_is_told(before: str, after: str, changes: list[tuple[str, str | None, str | None]]) -> None:  # fmt: skip
    """What it was and what it becomes, and nothing else."""
    actual = there(f"[tickets.a]\n{before}")
    made = make(board(f"[tickets.a]\n{after}"), actual)
    found = [(c.what, c.before, c.after) for s in made.steps for c in s.changes]
    assert found == changes


def test_what_waits_for_each_other_is_refused() -> None:
    """Among those declared, through what was set by hand, and through tickets of other files."""
    with pytest.raises(InvalidInput, match=r"They wait for one another: .*a"):
        make(board("[tickets.a]\nafter='b'\n[tickets.b]\nrequires='c'\n[tickets.c]\nafter='a'"), {})
    items, actual = board("[tickets.a]\nafter = 7"), there("[tickets.a]")
    with pytest.raises(InvalidInput, match="before"):
        make(items, actual, others={"ticket@7.service": {"ticket@1.service"}})


def test_a_closed_ticket_is_left_closed() -> None:
    """It is done; who requires it is told that it will not start."""
    actual = there("[tickets.a]\n[tickets.b]\nrequires = 'a'")
    closed = replace(actual["a"], ticket=replace(actual["a"].ticket, status="closed"))
    made = make(
        board("[tickets.a]\nstate = 'running'\n[tickets.b]\nrequires = 'a'"),
        actual | {"a": closed}, closed={1},
    )  # fmt: skip
    assert made.is_empty
    assert made.starts == ()
    assert made.unchanged == 1
    assert [n.split(":")[0] for n in made.notes] == [
        "a (ticket 1) is closed, and left so; again", "b requires a, which is closed",
    ]  # fmt: skip


def test_where_an_agent_works_stays() -> None:
    """A repository may change until there is something in the worktree."""
    actual = there("[tickets.a]\nrepo = '/r'")
    items = board("[tickets.a]\nrepo = '/other'")
    assert make(items, actual).steps
    worked = replace(actual["a"], ticket=replace(actual["a"].ticket, worker_started=AT))
    with pytest.raises(
        InvalidInput, match=r"/b.toml:1: a \(ticket 1\) works with repo '/r' already"
    ):
        make(items, {"a": worked})


def test_a_running_worker_goes_on_as_it_was() -> None:
    """A new driver takes effect at its next start; that is said."""
    actual = there("[tickets.a]\nstate = 'running'\ndriver = 'demo'")
    made = make(board("[tickets.a]\nstate = 'running'"), actual)
    assert made.notes == ("a (ticket 1) runs as it was: ticketctl restart 1",)
    assert made.starts == made.stops == ()


def test_what_differs_elsewhere_is_told_and_left() -> None:
    """A limit that somebody set wins: it is no step, but not the same either."""
    text = "[tickets.a]\nMemoryMax = '2G'"
    actual = there(text)
    actual["a"] = replace(actual["a"], in_force={"MemoryMax": 4 << 30})
    made = make(board(text), actual)
    assert made.is_empty
    assert made.drifts[0].startswith("a (ticket 1) has MemoryMax=4G, not 2G")
    stale = replace(actual["a"], is_stale=True)
    made = make(board(text), {"a": stale})
    assert not made.drifts
    assert [c.what for c in made.steps[0].changes] == ["unit"]


@pytest.mark.parametrize("field", ["drop_in", "timer"])
def test_a_file_of_ours_that_was_edited_is_a_change(field: str) -> None:
    """Also where it still says the same."""
    text = "[tickets.a]\nMemoryMax = '2G'\nschedule = 'daily'"
    actual = there(text)
    edited = replace(actual["a"], **{field: str(getattr(actual["a"], field)) + "# mine\n"})  # type: ignore[arg-type]
    made = make(board(text), {"a": edited})
    assert [(c.before, c.after) for c in made.steps[0].changes] == [
        ("edited by hand", "as it was written")
    ]


def test_a_timer_that_is_off_is_a_change() -> None:
    """Killed before it was started, or switched off by hand."""
    text = "[tickets.a]\nschedule = 'daily'"
    actual = there(text)
    made = make(board(text), {"a": replace(actual["a"], timer_is_on=False)})
    assert [(c.what, c.after) for c in made.steps[0].changes] == [("timer", "on")]


def test_what_is_gone_is_closed_only_when_asked() -> None:
    """Without --prune it is a note."""
    gone = tuple(there("[tickets.old]").values())
    gone = (replace(gone[0], ticket=replace(gone[0].ticket, name="old")),)
    assert make((), {}, gone=gone).notes == (
        "old (ticket 1) is declared no longer; --prune closes it.",
    )
    made = make((), {}, gone=gone, prune=True)
    assert [(s.sign, s.name, s.ticket) for s in made.steps] == [("-", "old", 1)]


EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.mark.parametrize("folder", sorted(p.name for p in EXAMPLES.iterdir()))
def test_an_example_is_a_board(folder: str) -> None:
    """It is read, its prompts are there and all used, it can be planned, and planned again there is nothing to do."""
    path = EXAMPLES / folder / "board.toml"
    declared = read([Source(str(path), path.read_text(encoding="utf-8"))])
    prompts = [item.prompt_file for item in declared if item.prompt_file]
    assert all((path.parent / name).read_text(encoding="utf-8").strip() for name in prompts)
    assert {*prompts, path.name} == {file.name for file in path.parent.iterdir()}
    assert {item.driver for item in declared} == {"demo"}, "no account is needed to try it"
    declared = tuple(
        replace(item, prompt=(path.parent / item.prompt_file).read_text(encoding="utf-8"))
        if item.prompt_file else item
        for item in declared
    )  # fmt: skip
    made = plan.make(declared, {}, (), others={}, closed=frozenset(), prune=False, direct=True)
    assert [step.sign for step in made.steps] == ["+"] * len(declared)
    there = carried_out(declared, {}, made)
    again = plan.make(declared, there, (), others={}, closed=frozenset(), prune=False, direct=True)
    assert again.is_empty, again
    calendars = [each for item in declared for each in item.schedule]
    if calendars and shutil.which("systemd-analyze"):
        subprocess.run(["systemd-analyze", "calendar", *calendars], check=True, capture_output=True)


def test_the_examples_can_be_applied_together() -> None:
    """No name stands in two of them."""
    boards = sorted(EXAMPLES.glob("*/board.toml"))
    assert len(boards) >= 4
    assert read([Source(str(path), path.read_text(encoding="utf-8")) for path in boards])
