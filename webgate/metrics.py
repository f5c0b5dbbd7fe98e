"""`GET /metrics`: what Prometheus scrapes, in the format that it asks for.

Numbers of the store, of files and of this process. No titles, no texts, no ticket's number: a label is
one of our own words, so that there are as many series after a year as on the first day.
prometheus_client writes them; it is imported by the first scrape, for a gateway that nobody scrapes
need not hold it, and its global registry stays unused.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.config import Config
from orchestrator.errors import Unavailable
from orchestrator.store import health, ingestion
from orchestrator.store.db import Database
from webgate.piped import Piped
from webgate.turns import Turns

if TYPE_CHECKING:
    from prometheus_client import Metric

BEGAN = time.time()
_PAGE_BYTES = resource.getpagesize()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where the numbers come from."""

    config: Config
    database: Database
    turns: Turns  #: takes in what is new
    piped: Piped  #: the same
    streams: Callable[[], int]  #: open ones of this process
    panes: Callable[[], int]  #: tickets somebody looks at


def render(sources: Sources, accept: str = "") -> tuple[bytes, str]:
    """All of it, and its content type; without a database what is known without one.

    Args:
        sources: where the numbers come from.
        accept: the request's header.
    """
    from prometheus_client import CollectorRegistry  # noqa: PLC0415  # see above
    from prometheus_client.exposition import choose_encoder  # noqa: PLC0415
    from prometheus_client.registry import Collector  # noqa: PLC0415

    class Everything(Collector):
        """Each scrape anew."""

        def collect(self) -> Iterable[Metric]:
            yield from _of_process(sources)
            yield from _of_database(sources)

        def describe(self) -> Iterable[Metric]:
            return ()  # else the registry would collect once more, only for the names

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Everything())
    encode, kind = choose_encoder(accept)
    return encode(registry), kind


def _of_process(sources: Sources) -> Iterator[Metric]:
    sources.piped.look()
    yield _gauge("mc_gateway_streams", "Open event streams.", sources.streams())
    yield _gauge("mc_gateway_panes", "Tickets whose pane is looked at.", sources.panes())
    yield _counter(
        "mc_pane_bytes_total", "Bytes piped from panes into their logs since the first scrape.",
        sources.piped.bytes,
    )  # fmt: skip
    yield _gauge("process_start_time_seconds", "Since 1970.", BEGAN)
    yield _counter("process_cpu_seconds_total", "CPU time.", time.process_time())
    yield _gauge("process_resident_memory_bytes", "Memory.", _memory_bytes())


def _of_database(sources: Sources) -> Iterator[Metric]:
    from prometheus_client.core import HistogramMetricFamily  # noqa: PLC0415

    try:
        counts = health.counts(sources.database)
        sources.turns.look(sources.database)
        unread = unread_bytes(sources.config, sources.database)
    except Unavailable:
        yield _gauge("mc_database_up", "1: the database answers.", 0)
        return
    yield _gauge("mc_database_up", "1: the database answers.", 1)
    yield _labelled("mc_tickets", "Tickets.", ("status", "turn_state"), counts.tickets.items())
    yield _counter("mc_cost_usd_total", "Cost of all tickets.", counts.cost_usd)
    yield _labelled(
        "mc_messages", "Messages by what became of them.", ("outcome",),
        (((outcome,), count) for outcome, count in counts.messages.items()),
    )  # fmt: skip
    yield _gauge(
        "mc_oldest_queued_seconds", "Age of the oldest message that waits.", counts.oldest_queued_s
    )
    yield _gauge(
        "mc_ingest_lag_bytes", "Bytes of sidecars that are not in the database yet.", unread
    )
    yield _gauge("mc_worktrees", "Worktrees in use.", counts.worktrees)
    yield _gauge("mc_worktree_bytes", "Their disk use.", counts.worktree_bytes)
    yield _counter("mc_events_total", "Number of the newest event.", counts.events)
    yield _counter(
        "mc_recoveries_total", "Times that what runs was brought in line.", counts.recoveries
    )
    yield _counter("mc_pane_gaps_total", "Gaps in the logs of panes.", counts.gaps)
    yield HistogramMetricFamily(
        "mc_turn_duration_seconds", "How long turns took that ended since the gateway began.",
        buckets=list(sources.turns.buckets()), sum_value=sources.turns.sum_s,
    )  # fmt: skip


def unread_bytes(config: Config, database: Database) -> int:
    """What ingest has still to read, of tickets that are not closed; a sidecar that is not there has nothing.

    The end of a line that its writer did not finish is among it.
    """
    from orchestrator.watch import FileIdentity  # noqa: PLC0415  # brings watchdog along

    total = 0
    for ticket, place in ingestion.positions_of_open(database).items():
        try:
            found = FileIdentity.of(config.ticket_paths(ticket).sidecar_path)
        except OSError:
            continue
        same = found.text == place.identity and found.size >= place.offset
        total += found.size - (place.offset if same else 0)
    return total


def _gauge(name: str, text: str, value: float) -> Metric:
    from prometheus_client.core import GaugeMetricFamily  # noqa: PLC0415

    return GaugeMetricFamily(name, text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    from prometheus_client.core import CounterMetricFamily  # noqa: PLC0415

    return CounterMetricFamily(name, text, value=value)


def _labelled(
    name: str, text: str, labels: tuple[str, ...], samples: Iterable[tuple[tuple[str, ...], int]]
) -> Metric:
    from prometheus_client.core import GaugeMetricFamily  # noqa: PLC0415

    family = GaugeMetricFamily(name, text, labels=labels)
    for values, count in samples:
        family.add_metric(values, count)
    return family


def _memory_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE_BYTES
