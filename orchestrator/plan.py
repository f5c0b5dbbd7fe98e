"""What has to be done so that what there is becomes what is declared.

Pure: records in, a plan out, so that it can be shown, compared and tried a thousand times before
anything happens. Planned again once it was carried out, nothing is left. Doing it is `apply`'s.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Literal

from orchestrator import limits, unit_files
from orchestrator.declare import Declared, Ref, refuse
from orchestrator.errors import InvalidInput
from orchestrator.limits import KEYS
from orchestrator.naming import unit_name
from orchestrator.store.tickets import Ticket

MAX_SHOWN_CHARS = 60
_KEY_OF = {"repo_path": "repo", "base_ref": "base", "declared_in": "file"}
RUNS = frozenset({"active", "activating", "reloading", "refreshing"})
Edges = Mapping[str, Iterable[str]]  #: a unit, and those it is ordered after


@dataclass(frozen=True, slots=True, kw_only=True)
class Actual:
    """What there is of a ticket: its row, our files, and what systemd has."""

    ticket: Ticket
    drop_in: str | None  #: text of ours
    timer: str | None
    timer_is_on: bool  #: it runs, and will after a reboot
    active: str  #: ActiveState of its unit
    in_force: Mapping[str, int]  #: property of each of limits.LIMITS
    is_stale: bool  #: systemd has not read our files since they changed

    @property
    def unit(self) -> str:
        """Its unit."""
        return unit_name(self.ticket.id)

    @property
    def has_worked(self) -> bool:
        """Whether it has a place where it works, with something in it perhaps."""
        return self.ticket.worker_started is not None or self.ticket.worktree_path is not None


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that becomes another; None: it was or will not be there."""

    what: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What becomes of one ticket."""

    sign: Literal["+", "~", "-"]
    name: str
    ticket: int | None  #: None: it gets its number when it is made
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All of it."""

    steps: tuple[Step, ...]
    unchanged: int
    starts: tuple[str, ...]  #: names, in the order in which they can be started
    stops: tuple[str, ...]
    notes: tuple[str, ...]  #: what an operator should know, and nothing is done about
    drifts: tuple[str, ...]  #: what differs and is not ours to mend

    @property
    def is_empty(self) -> bool:
        """Nothing has to be done."""
        return not self.steps


def make(
    declared: Sequence[Declared],
    actual: Mapping[str, Actual],
    gone: Sequence[Actual],
    *,
    others: Edges,
    closed: Collection[int] = (),
    prune: bool,
    direct: bool = True,
) -> Plan:
    """The plan.

    Args:
        declared: every ticket of the files, with prompt and repository looked up.
        actual: what there is under their names.
        gone: tickets that these files declared earlier and do not any more.
        others: what tickets are ordered after for other reasons than these files.
        closed: numbers that are referred to and stand for closed tickets.
        prune: whether what is gone is to be closed.
        direct: whether systemd knows `limits.DIRECT`.

    Raises:
        InvalidInput: tickets wait for one another in a ring, or one works elsewhere already.
    """
    numbers = {name: there.ticket.id for name, there in actual.items()}
    order = _order(declared, numbers, others)
    steps, notes, drifts = [], [], []
    problems: list[InvalidInput] = []
    for item in declared:
        there = actual.get(item.name)
        if there is None:
            steps.append(Step(sign="+", name=item.name, ticket=None, changes=_all_of(item)))
        elif there.ticket.status == "closed":
            number = there.ticket.id
            notes.append(
                f"{item.name} (ticket {number}) is closed, and left so;"
                f" again: ticketctl reopen {number}"
            )
        else:
            problems += _problems(item, there)
            wanted = wanted_settings(item, there.ticket.id, numbers, direct=direct)
            changes = _changes(item, there, wanted)
            if changes:
                steps.append(
                    Step(sign="~", name=item.name, ticket=there.ticket.id, changes=changes)
                )
            notes += _notes(item, there)
            drifts += _drifts(item, there, wanted)
        notes += _never_starts(item, numbers, closed)
    refuse(problems)
    touched = len(steps)
    for there in gone:
        number, name = there.ticket.id, there.ticket.name or ""
        if prune:
            steps.append(Step(sign="-", name=name, ticket=number,
                              changes=(Change("status", there.ticket.status, "closed"),)))  # fmt: skip
        else:
            notes.append(f"{name} (ticket {number}) is declared no longer; --prune closes it.")
    open_ = {
        item.name: _act(item, actual.get(item.name))
        for item in declared
        if item.name not in actual or actual[item.name].ticket.status != "closed"
    }
    return Plan(
        steps=tuple(steps), unchanged=len(open_) - touched,
        starts=tuple(name for name in order if open_.get(name) == "start"),
        stops=tuple(name for name in reversed(order) if open_.get(name) == "stop"),
        notes=tuple(notes), drifts=tuple(drifts),
    )  # fmt: skip


def unit_of(ref: Ref, own: int, numbers: Mapping[str, int]) -> str:
    """The unit a reference means; of a ticket that has no number yet, `ticket@<name>.service`."""
    if isinstance(ref, int):
        return unit_name(ref)
    if limits.is_unit(ref):
        return limits.unit_named(ref, own)
    return unit_name(numbers[ref]) if ref in numbers else f"ticket@<{ref}>.service"


def wanted_settings(
    item: Declared, own: int, numbers: Mapping[str, int], *, direct: bool
) -> dict[str, str]:
    """What the drop-in of a declared ticket says."""

    def units(refs: Sequence[Ref]) -> str:
        return " ".join(dict.fromkeys(unit_of(ref, own, numbers) for ref in refs))

    ordering = {
        # Requires= alone would start both at once
        "After": units([*item.after, *item.requires]),
        "Requires": units(item.requires),
        "OnFailure": units(item.on_failure),
    }
    said = {name: value for name, value in ordering.items() if value} | dict(item.limits)
    return said | dict([limits.DIRECT]) if direct and item.on_failure else said


def columns_of(item: Declared) -> dict[str, object]:
    """What the row of a declared ticket holds."""
    return {
        "title": item.title, "prompt": item.prompt or "", "driver": item.driver,
        "command": item.command, "kind": item.kind, "repo_path": item.repo, "base_ref": item.base,
        "declared_in": item.source,
    }  # fmt: skip


def _order(
    declared: Sequence[Declared], numbers: Mapping[str, int], others: Edges
) -> tuple[str, ...]:
    """Names in the order in which they can be started."""
    names = {unit_of(item.name, 0, numbers): item.name for item in declared}
    graph: dict[str, set[str]] = {unit: set(after) for unit, after in others.items()}
    for unit, item in zip(names, declared, strict=True):
        own = numbers.get(item.name, 0)
        after = {unit_of(ref, own, numbers) for ref in (*item.after, *item.requires)}
        graph.setdefault(unit, set()).update(after)
    order = start_order(graph, names)
    return tuple(names[unit] for unit in order if unit in names)


def start_order(graph: Edges, names: Mapping[str, str]) -> list[str]:
    """Units so that each stands behind those it is ordered after.

    Raises:
        InvalidInput: there is no such order; the ring is told in `names`, where it has some.
    """
    try:
        return list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        ring = [names.get(unit, unit) for unit in error.args[1]]
        raise InvalidInput(
            f"They wait for one another: {' before '.join(ring)}.",
            hint="Take one out of after or requires.",
        ) from None


def _act(item: Declared, there: Actual | None) -> Literal["", "start", "stop"]:
    runs = there is not None and there.active in RUNS
    if item.state == "running" and not runs:
        return "start"
    if item.state == "stopped" and there is not None and there.active not in {"inactive", "failed"}:
        return "stop"
    return ""


def _said(value: object) -> str | None:
    if isinstance(value, tuple):
        value = json.dumps(value) if value else None
    return None if value is None else str(value)


def _all_of(item: Declared) -> tuple[Change, ...]:
    columns = {k: v for k, v in columns_of(item).items() if k not in {"declared_in", "command"}}
    if item.prompt == item.title:
        del columns["prompt"]
    said = {_KEY_OF.get(name, name): _said(value) for name, value in columns.items()}
    said["command"] = _said(item.command)
    for key in ("after", "requires", "on_failure"):
        said[key] = ", ".join(map(str, getattr(item, key)))
    said |= dict(item.limits)
    said["schedule"] = _calendars(item.schedule)
    said["state"] = item.state
    return tuple(Change(what, None, text) for what, text in said.items() if text)


def _calendars(calendars: Sequence[str]) -> str | None:
    return "; ".join(calendars) or None


def _changes(item: Declared, there: Actual, wanted: Mapping[str, str]) -> tuple[Change, ...]:
    found: list[Change] = []

    def compare(what: str, before: object, after: object) -> None:
        if before != after:
            found.append(Change(what, _said(before), _said(after)))

    for column, value in columns_of(item).items():
        compare(_KEY_OF.get(column, column), getattr(there.ticket, column), value)
    has = unit_files.settings_in(there.drop_in)
    for name in dict.fromkeys([*wanted, *has]):
        compare(name, has.get(name), wanted.get(name))
    if wanted == has and there.drop_in != (unit_files.render("apply", wanted) if wanted else None):
        compare("drop-in", "edited by hand", "as it was written")
    scheduled = unit_files.calendars_in(there.timer)
    compare("schedule", _calendars(scheduled), _calendars(item.schedule))
    if scheduled == item.schedule:
        text = unit_files.timer_text(there.ticket.id, item.schedule) if item.schedule else None
        if there.timer != text:
            compare("timer", "edited by hand", "as it was written")
        elif there.timer_is_on != bool(item.schedule):
            compare("timer", "on" if there.timer_is_on else "off", "on" if item.schedule else "off")
    if there.is_stale and not found:
        compare("unit", "systemd has an older one", "read again")
    if act := _act(item, there):
        compare("state", there.active, {"start": "running", "stop": "stopped"}[act])
    return tuple(found)


def _problems(item: Declared, there: Actual) -> list[InvalidInput]:
    if not there.has_worked:
        return []
    has = there.ticket
    fixed = (
        ("kind", has.kind, item.kind),
        ("repo", has.repo_path, item.repo),
        ("base", has.base_ref, item.base),
    )
    return [
        InvalidInput(
            f"{item.where}: {item.name} (ticket {has.id}) works with {what}"
            f" {limits.shown(before or 'none')} already, that stays.",
            hint="Close it, or give what is meant now another name.",
        )
        for what, before, after in fixed
        if before != after
    ]


def _notes(item: Declared, there: Actual) -> list[str]:
    said = []
    number, runs = there.ticket.id, there.active in RUNS
    changed = (there.ticket.driver, there.ticket.command) != (item.driver, item.command)
    if runs and changed:
        said.append(
            f"{item.name} (ticket {number}) runs as it was: ticketctl restart {number}"
        )  # fmt: skip
    if there.has_worked and there.ticket.prompt != (item.prompt or ""):
        said.append(f"{item.name} (ticket {number}) was told its earlier prompt already.")
    return said


def _never_starts(item: Declared, numbers: Mapping[str, int], closed: Collection[int]) -> list[str]:
    required = {ref if isinstance(ref, int) else numbers.get(ref, 0): ref for ref in item.requires}
    return [
        f"{item.name} requires {ref}, which is closed: it will not start."
        for number, ref in required.items()
        if number in closed
    ]


def _drifts(item: Declared, there: Actual, wanted: Mapping[str, str]) -> list[str]:
    """Limits that systemd got from elsewhere: `ticketctl set`, `systemctl edit`, set-property."""
    if there.is_stale or unit_files.settings_in(there.drop_in) != wanted:
        return []
    said = []
    for name, value in item.limits:
        number, has = limits.number_of(KEYS[name], value), there.in_force.get(name)
        if number is not None and has is not None and has != number:
            said.append(
                f"{item.name} (ticket {there.ticket.id}) has {name}="
                f"{limits.in_words(KEYS[name], has)}, not {value}: another drop-in wins,"
                f" see systemctl --user cat {there.unit}"
            )
    return said


def show(plan: Plan) -> list[str]:
    """The plan, line by line, for people."""
    lines = []
    for step in plan.steps:
        number = f" (ticket {step.ticket})" if step.ticket is not None else ""
        lines.append(f"{step.sign} {step.name}{number}")
        for change in step.changes:
            before, after = _short(change.before), _short(change.after)
            value = after if step.sign == "+" else f"{before} → {after}"
            lines.append(f"    {change.what}: {value}")
    lines += [f"! {text}" for text in plan.drifts]
    lines += [f"note: {text}" for text in plan.notes]
    return lines


def _short(text: str | None) -> str:
    """A value in one line; nothing a terminal would obey."""
    if text is None:
        return "none"
    safe = text if text.isprintable() else ascii(text)[1:-1]
    return safe if len(safe) <= MAX_SHOWN_CHARS else f"{safe[: MAX_SHOWN_CHARS - 1]}…"
