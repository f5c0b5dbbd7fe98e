"""Fault 26: many viewers of one pane, one that reads slowly, one that never reads, and all back at once.

MC_DRILL_VIEWERS=1000 makes it the long drill; MC_DRILL_FLOOD_LINES is the size of its floods (16 bytes each).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.faults.record import Drill
from tests.faults.viewers import STAMPS, Audience
from tests.machine.machine import Machine
from tests.machine.product import HOME, STATE, Product

VIEWERS = int(os.environ.get("MC_DRILL_VIEWERS", "60"))
FLOOD_LINES = int(os.environ.get("MC_DRILL_FLOOD_LINES", "500000"))
PYTHON = f"{HOME}/.local/share/mission-control/venv/bin/python"
PORT = 3001
WATCHED = 5
EACH_BYTES = 100 * 1024  # a viewer's share of the gateway's memory, at most
SLOW_BYTES = 1024 * 1024  # what one who cannot keep up may cost


@pytest.fixture(scope="module")
def product(module_machine: Machine) -> Product:
    """One machine for the tests of this module."""
    return Product(module_machine)


def gateway_pid(product: Product) -> int:
    """Its main process."""
    return int(product.systemctl("show", "mc-webgate", "-p", "MainPID", "--value").stdout)


def memory_of(product: Product) -> int:
    """The gateway's memory (PSS), in bytes."""
    path = f"/proc/{gateway_pid(product)}/smaps_rollup"
    found = re.search(
        r"^Pss: +(\d+) kB", product.machine.run(["cat", path], user="root").stdout, re.MULTILINE
    )
    assert found is not None
    return int(found[1]) * 1024


@contextmanager
def audience(product: Product, ticket: int, **counts: int) -> Iterator[Audience]:
    """Viewers in the machine's network."""
    token = product.read(f"{STATE}/token").strip()
    with Audience(product.machine.netns_exec_argv(), PORT, ticket, token, **counts) as there:
        yield there


def flood(product: Product, ticket: int, *watching: Audience) -> None:
    """Has the pane print; until all who are watched have seen the end."""
    for each in watching:
        each.begin(f"flood THE-END-{FLOOD_LINES}")
    product.machine.run(
        ["tmux", "send-keys", "-t", f"=ticket-{ticket}:", f"{FLOOD_LINES}", "Enter"]
    )
    answers = [each.answer() for each in watching]
    for each in answers:
        print(f"flood: {each['seconds']:.1f} s, {each['received']} bytes")
        # base64 of every byte, CR included, and what frames it
        assert min(each["received"]) >= FLOOD_LINES * 17 * 4 // 3


def median(latencies: list[float]) -> float:
    """In milliseconds."""
    assert latencies
    return sorted(latencies)[len(latencies) // 2]


@pytest.mark.fault(26)
@pytest.mark.timeout(1800)
def test_a_crowd_with_a_slow_one_and_a_dead_one(product: Product, drill: Drill) -> None:
    """Each costs little; who cannot keep up costs less than a MiB and slows nobody; the dead one is dropped."""
    argv = [PYTHON, "-c", STAMPS]
    ticket = product.new("stamps", "--driver", "command", "--start", "--", *argv)
    product.wait_screen(ticket, "@")
    with audience(product, ticket, watched=WATCHED) as watched:
        alone = median(watched.ask("watch 3")["latencies_ms"])
        flood(product, ticket, watched)
        before = memory_of(product)
        with audience(product, ticket, crowd=VIEWERS) as crowd:
            among = memory_of(product)
            each = (among - before) / VIEWERS
            crowd.begin("watch 4")
            together = median(watched.ask("watch 3")["latencies_ms"])
            crowd.answer()
            print(
                f"p50 {alone:.2f} ms alone, {together:.2f} ms among {VIEWERS}; {each / 1024:.0f} KiB each"
            )
            assert each < EACH_BYTES
        product.machine.wait_for(
            lambda: memory_of(product) < among, what="the crowd to be forgotten"
        )
        before = memory_of(product)
        with audience(product, ticket, slow=1, dead=1) as bad:
            bad.begin("dropped 60")
            flood(product, ticket, watched)
            grown = memory_of(product) - before
            print(f"slow and dead: {grown / 1024:.0f} KiB")
            assert grown < 2 * SLOW_BYTES
            dropped = bad.answer()
            drill.note = (
                f"{VIEWERS} viewers at {each / 1024:.0f} KiB; one that reads 1 KB/s and one that never reads cost"
                f" {grown / 1024:.0f} KiB in a flood, dropped after {dropped['seconds']:.0f} s"
            )
            print(drill.note)
            assert 0 < dropped["seconds"] <= 45
        assert watched.ask("watch 1")["latencies_ms"]


@pytest.mark.fault(3, 26)
@pytest.mark.timeout(1800)
def test_all_come_back_at_once(product: Product, drill: Drill) -> None:
    """The gateway is killed under all of them: each sees the pane again within 30 seconds; the worker stays."""
    argv = [PYTHON, "-c", STAMPS]
    ticket = product.new("stamps", "--driver", "command", "--start", "--", *argv)
    product.wait_screen(ticket, "@")
    worker, gateway = product.main_pid(ticket), gateway_pid(product)
    with audience(product, ticket, crowd=VIEWERS) as crowd:
        product.systemctl("kill", "--signal=KILL", "mc-webgate.service")
        back = crowd.ask("storm")
        drill.tried, drill.seconds = 1, [back["seconds"]]
        drill.note = f"{VIEWERS} viewers back at once"
        print(
            f"{VIEWERS} back after {back['seconds']:.1f} s, half of them after {back['median']:.1f} s"
        )
        assert back["seconds"] < 30
    assert product.main_pid(ticket) == worker
    assert gateway_pid(product) != gateway
