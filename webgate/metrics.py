"""`GET /metrics`: what Prometheus scrapes, in its text format (version 0.0.4).

Numbers of the store and of this process. No titles, no texts: a label is one of our own words.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterable
from pathlib import Path

from orchestrator.errors import Unavailable
from orchestrator.store import health
from orchestrator.store.db import Database
from webgate.turns import Turns

KIND = "text/plain; version=0.0.4; charset=utf-8"
BEGAN = time.time()
_PAGE_BYTES = resource.getpagesize()

Sample = tuple[str, float]  #: labels as they are written, may be empty; and the value


def render(database: Database, turns: Turns, *, streams: int, panes: int) -> str:
    """All of it; without a database what is known without one.

    Args:
        database: where the counts are.
        turns: how long they took; takes in what is new.
        streams: open ones of this process.
        panes: tickets somebody looks at.
    """
    lines = [
        *_metric("mc_gateway_streams", "gauge", "Open event streams", [("", streams)]),
        *_metric("mc_gateway_panes", "gauge", "Tickets whose pane is looked at", [("", panes)]),
        *_metric("process_start_time_seconds", "gauge", "Since 1970", [("", BEGAN)]),
        *_metric("process_cpu_seconds_total", "counter", "CPU time", [("", time.process_time())]),
        *_metric("process_resident_memory_bytes", "gauge", "Memory", [("", _memory_bytes())]),
    ]
    try:
        counts = health.counts(database)
        turns.look(database)
    except Unavailable:
        return "".join([*lines, *_metric("mc_database_up", "gauge", "It answers", [("", 0)])])
    tickets = [
        (f'{{status="{status}",turn_state="{turn}"}}', count)
        for (status, turn), count in counts.tickets.items()
    ]
    messages = [(f'{{outcome="{outcome}"}}', count) for outcome, count in counts.messages.items()]
    lines += [
        *_metric("mc_database_up", "gauge", "It answers", [("", 1)]),
        *_metric("mc_tickets", "gauge", "Tickets", tickets),
        *_metric("mc_cost_usd_total", "counter", "Cost of all tickets", [("", counts.cost_usd)]),
        *_metric("mc_messages", "gauge", "Messages by what became of them", messages),
        *_metric(
            "mc_oldest_queued_seconds", "gauge", "Age of the oldest message that waits",
            [("", counts.oldest_queued_s)],
        ),
        *_metric("mc_worktrees", "gauge", "Worktrees in use", [("", counts.worktrees)]),
        *_metric("mc_worktree_bytes", "gauge", "Their disk use", [("", counts.worktree_bytes)]),
        *_metric("mc_events_total", "counter", "Number of the newest event", [("", counts.events)]),
        *_metric(
            "mc_recoveries_total", "counter", "Times that what runs was brought in line",
            [("", counts.recoveries)],
        ),
        *_metric("mc_pane_gaps_total", "counter", "Gaps in the logs of panes", [("", counts.gaps)]),
    ]  # fmt: skip
    return "".join([*lines, *_histogram(turns)])


def _histogram(turns: Turns) -> list[str]:
    name, buckets = "mc_turn_duration_seconds", list(turns.buckets())
    return [
        *_metric(
            name, "histogram", "How long turns took that ended since the gateway began",
            [(f'_bucket{{le="{bound}"}}', count) for bound, count in buckets],
        ),
        f"{name}_sum {turns.sum_s:.15g}\n{name}_count {buckets[-1][1]}\n",
    ]  # fmt: skip


def _metric(name: str, kind: str, text: str, samples: Iterable[Sample]) -> list[str]:
    values = [f"{name}{labels} {value:.15g}\n" for labels, value in samples]
    return [f"# HELP {name} {text}.\n# TYPE {name} {kind}\n", *values]


def _memory_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE_BYTES
