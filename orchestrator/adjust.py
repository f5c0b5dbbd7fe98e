"""`ticketctl set`: a limit or an order for one ticket, at once; and what is in force.

Writes `60-ticketctl-set.conf`, which wins over what a file declares, so that what somebody set at
two in the morning is not taken back by the next apply. A reload of systemd's puts limits into force
on a running unit too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator import limits, plan, unit_files
from orchestrator.apply import edges, knows_direct
from orchestrator.board import check_ref
from orchestrator.config import Config
from orchestrator.declare import MAX_REFS, ref_of
from orchestrator.errors import Conflict, InvalidInput
from orchestrator.limits import INFINITY, KEYS
from orchestrator.naming import unit_name
from orchestrator.store import tickets
from orchestrator.store.db import Database
from orchestrator.systemd import UserManager


@dataclass(frozen=True, slots=True)
class InForce:
    """What holds for a ticket, whoever said so."""

    limits: Mapping[str, int | None]  #: bytes, CPUs in microseconds a second, …; None: no limit
    declared: Mapping[str, str]  #: by ticketctl apply
    set: Mapping[str, str]  #: by ticketctl set
    schedule: tuple[str, ...]
    next_start: str | None  #: ISO 8601, UTC

    def in_words(self) -> str:
        """The limits, as one would write them."""
        return " ".join(
            f"{name}={limits.in_words(KEYS[name], number)}"
            for name, number in self.limits.items()
            if number is not None
        )


def in_force(config: Config, manager: UserManager, ticket: int) -> InForce:
    """Asks systemd."""
    unit, timer = unit_name(ticket), unit_files.timer_name(ticket)
    found = manager.numbers(unit, [key.on_bus for key in limits.LIMITS])
    schedule = unit_files.calendars_of(config, ticket)
    elapse = manager.next_elapse(timer) if schedule else None
    return InForce(
        limits={
            key.name: None if found[key.on_bus] == INFINITY else found[key.on_bus]
            for key in limits.LIMITS
        },
        declared=unit_files.settings_of(config, ticket, "apply"),
        set=unit_files.settings_of(config, ticket, "set"),
        schedule=schedule,
        next_start=elapse.isoformat() if elapse else None,
    )


def adjust(
    config: Config,
    database: Database,
    manager: UserManager,
    ticket: int,
    assignments: Sequence[str],
) -> bool:
    """Writes `KEY=VALUE`, removes with `KEY=`; False: all of it was so already.

    Raises:
        InvalidInput: a key that is not on the list, or no value of its kind; nothing was changed.
        Conflict: the ticket is closed.
    """
    if tickets.get(database, ticket).status == "closed":
        raise Conflict(f"Ticket {ticket} is closed.", hint=f"ticketctl reopen {ticket}")
    settings = unit_files.settings_of(config, ticket, "set")
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        key = limits.key_named(name)
        if not equals:
            raise InvalidInput(
                f"What should {name} be?", hint=f"{name}={key.example}, or {name}= to remove it."
            )
        if not value.strip():
            settings.pop(name, None)
        elif key.kind == "units":
            settings[name] = _units(database, manager, ticket, key, value)
        else:
            settings[name] = limits.checked(key, value)
    if "OnFailure" not in settings:
        settings.pop(limits.DIRECT[0], None)
    elif knows_direct(manager):
        settings |= dict([limits.DIRECT])
    graph = edges(config, but=())
    after = {u for k in ("After", "Requires") for u in settings.get(k, "").split()}
    graph[unit_name(ticket)] = after | {
        u
        for k in ("After", "Requires")
        for u in unit_files.settings_of(config, ticket, "apply").get(k, "").split()
    }
    plan.start_order(graph, {})
    changed = unit_files.drop_in(config, ticket, "set", settings).put()
    if changed or manager.needs_reload(unit_name(ticket)):
        manager.reload()
    return changed


def _units(
    database: Database, manager: UserManager, ticket: int, key: limits.Key, value: str
) -> str:
    words = value.split()
    if len(words) > MAX_REFS:
        raise InvalidInput(f"{key.name} names at most {MAX_REFS}.")
    numbers = {t.name: t.id for t in tickets.named(database) if t.name}
    units = []
    for word in words:
        digits = word.isascii() and word.isdigit() and len(word) <= 9
        ref = ref_of(int(word) if digits else word)
        if ref is None:
            raise InvalidInput(
                f"{key.name}: {limits.shown(word)} is no ticket and no unit.",
                hint=f"As in {key.name}={key.example}",
            )
        check_ref(database, manager, ref, list(numbers))
        units.append(plan.unit_of(ref, ticket, numbers))
    return " ".join(dict.fromkeys(units))
