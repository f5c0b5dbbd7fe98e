"""What an operator meets first, on a booted machine: configuration, status, top, report, doctor's bundle."""

from __future__ import annotations

import json

import pytest

from tests.machine.machine import Machine
from tests.machine.product import CONFIG, HOME, STATE, TICKETCTL, Product

TITLE = "Reticulate the secret splines"
BODY = "what is the airspeed of a swallow"


@pytest.fixture(scope="module")
def product(module_machine: Machine) -> Product:
    """One machine for the tests of this module."""
    return Product(module_machine)


def running(product: Product) -> int:
    """A ticket of the demo agent that has had a turn."""
    ticket = product.new(TITLE, "--driver", "demo")
    product.ctl("start", str(ticket))
    product.ctl("send", str(ticket), "--wait", "--timeout", "60", BODY)
    return ticket


def is_counted(product: Product, ticket: int, what: str) -> bool:
    """Whether this kernel counts it: a container's may have no memory controller to hand on."""
    said = product.systemctl("show", f"ticket@{ticket}", "-p", what, "--value").stdout.strip()
    return said.isdigit() and int(said) < 2**64 - 1


def test_status_tells_of_the_unit(product: Product) -> None:
    """While it runs: 0, with main process, memory, CPU and the last turn; once stopped: 3."""
    ticket = running(product)
    done = product.ctl("status", str(ticket), check=False)
    assert done.returncode == 0, done.stderr
    lines = dict(line.strip().split(": ", 1) for line in done.stdout.splitlines() if ": " in line)
    assert done.stdout.startswith(f"● ticket@{ticket}.service - {TITLE}")
    assert lines["Active"].startswith("active (running) since ")
    assert lines["Main PID"] == str(product.main_pid(ticket))
    for said, counted in (("Memory", "MemoryCurrent"), ("CPU", "CPUUsageNSec")):
        assert (lines[said][0] != "-") == is_counted(product, ticket, counted), said
    assert "turn_end" in done.stdout
    said = json.loads(product.ctl("status", "--json", str(ticket)).stdout)
    assert said["unit"]["main_pid"] == product.main_pid(ticket)
    product.ctl("stop", str(ticket))
    done = product.ctl("status", str(ticket), check=False)
    assert (done.returncode, done.stdout.splitlines()[1].strip()) == (3, "Active: inactive (dead)")


def test_top_shows_what_a_ticket_takes(product: Product) -> None:
    """Memory, tasks and the share of the CPU are the unit's; on a terminal q leaves."""
    ticket = running(product)
    looks = [
        json.loads(line)
        for line in product.ctl("top", "--json", "-n", "2", "-d", "1").stdout.splitlines()
    ]
    assert len(looks) == 2
    mine = next(line for line in looks[1] if line["id"] == ticket)
    for said, counted in (
        ("memory_bytes", "MemoryCurrent"),
        ("tasks", "TasksCurrent"),
        ("cpu_percent", "CPUUsageNSec"),
    ):
        assert (mine[said] is not None) == is_counted(product, ticket, counted), said
    shown = product.machine.run(
        ["sh", "-c", f"(sleep 3; printf q) | script -qec '{TICKETCTL} top -d 0.5' /dev/null"],
        timeout=30,
    ).stdout
    assert TITLE in shown
    assert "1 tickets, 0 in a turn" in shown
    product.ctl("stop", str(ticket))


def test_the_configuration_as_it_was_installed_and_a_drop_in(product: Product) -> None:
    """The installed file has no mistake; a drop-in is named as the source, and setup restarts what reads it."""
    assert "No mistakes" in product.ctl("config", "check").stdout
    assert product.ctl("config", "show", "--changed").stdout == ""
    before = product.systemctl("show", "mc-webgate.service", "-p", "MainPID").stdout
    path = f"{CONFIG}/conf.d/10-test.toml"
    product.machine.sh(
        f"mkdir -p {CONFIG}/conf.d && printf '[heartbeat]\\nqueue_minutes = 3\\n' > {path}"
    )
    try:
        assert (
            product.ctl("config", "show", "--changed").stdout
            == f"heartbeat.queue_minutes\t{path}:2:1\t3\n"
        )
        product.ctl("setup")
        assert product.systemctl("show", "mc-webgate.service", "-p", "MainPID").stdout != before
        product.machine.sh(f"echo 'queue_minute = 3' >> {path}")
        done = product.ctl("list", check=False)
        assert done.returncode == 78
        assert f"{path}:3:1: 'queue_minute' is no key of [heartbeat]" in done.stderr
    finally:
        product.machine.sh(f"rm -r {CONFIG}/conf.d")
        product.ctl("setup")


def test_the_doctor_finds_nothing_and_its_bundle_tells_nothing(product: Product) -> None:
    """All checks on an installed machine; no title, message, token or key of it is in the bundle."""
    ticket = running(product)
    key = "sk-ant-api03-not-a-real-key"
    product.machine.sh(f"umask 077; echo ANTHROPIC_API_KEY={key} > {CONFIG}/agent.env")
    checks = {c["name"]: c for c in json.loads(product.ctl("doctor", "--json", check=False).stdout)}
    assert {
        "user bus",
        "user namespaces",
        "clock",
        "inotify",
        "systemd",
        "gateway",
    } <= checks.keys()
    assert not [c for c in checks.values() if c["verdict"] == "bad"]
    product.ctl("doctor", "--bundle", f"{HOME}/report.tar.gz")
    assert product.machine.run(["stat", "-c", "%a", f"{HOME}/report.tar.gz"]).stdout == "600\n"
    whole = product.machine.sh(f"tar -xzOf {HOME}/report.tar.gz").stdout
    token = product.machine.sh(f"cat {STATE}/token").stdout.strip()
    for secret in (TITLE, BODY, token, key, HOME):
        assert secret not in whole, secret
    assert f"ticket@{ticket}.service" in whole
    assert "mc-dispatch.service" in whole
    product.machine.sh(f"rm {HOME}/report.tar.gz {CONFIG}/agent.env")
    product.ctl("stop", str(ticket))


def test_the_report_adds_up(product: Product) -> None:
    """Turns and cost of a ticket are those of its own row: its prompt's turn, and the message's."""
    ticket = running(product)
    rows = json.loads(product.ctl("report", "--by", "ticket", "--json").stdout)
    mine = next(row for row in rows if row["ticket"] == ticket)
    assert mine["turns"] == 2
    assert abs(mine["cost_usd"] - product.show(ticket)["cost_usd"]) < 1e-6
    product.ctl("stop", str(ticket))
