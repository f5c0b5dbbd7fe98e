"""Services that are locked down, limits that are there, and secrets that are nowhere else.

What the units say is looked up in the kernel, on either side: `ticketctl doctor` does, and so do we.
"""

from __future__ import annotations

import json
import re
import subprocess

import pytest

from tests.machine.inside_ticket import Inside
from tests.machine.machine import Machine
from tests.machine.product import CONFIG, GATEWAY, HOME, STATE, Product

CONFINED = ("mc-postgres.service", "mc-ingest.service", "mc-webgate.service")
MAX_EXPOSURE = 2.5  # of 10, as systemd-analyze counts
KEY = "sk-ant-api03-a-key-that-must-not-travel"


@pytest.fixture(scope="module")
def product(module_machine: Machine) -> Product:
    """One machine for the tests of this module."""
    made = Product(module_machine)
    made.machine.run(["sh", "-c", f"umask 077; cat > {CONFIG}/agent.env"], input=f"API_KEY={KEY}\n")
    return made


def services(product: Product) -> tuple[str, str]:
    """What doctor says of the services: verdict and finding."""
    checks = json.loads(product.ctl("doctor", "--json", check=False).stdout)
    found = next(c for c in checks if c["name"] == "services")
    return found["verdict"], found["found"]


def pid_of(product: Product, unit: str) -> int:
    """A service's main process."""
    return int(product.systemctl("show", unit, "-p", "MainPID", "--value").stdout)


@pytest.mark.parametrize("unit", CONFINED)
def test_a_service_is_confined(product: Product, unit: str) -> None:
    """A read-only machine, no new privileges, a filter on its system calls, an exposure that is low."""
    product.systemctl("start", unit)
    shown = product.machine.run(
        ["systemd-analyze", "--user", "--no-pager", "security", unit], check=False
    )
    match = re.search(r"Overall exposure level for \S+: ([0-9.]+)", shown.stdout)
    assert match, shown
    assert float(match[1]) <= MAX_EXPOSURE, shown.stdout
    pid = pid_of(product, unit)
    status = product.read(f"/proc/{pid}/status")
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status
    enter = ["nsenter", "-t", str(pid), "-U", "-m", "--preserve-credentials", "--"]
    for folder in (HOME, "/usr", "/etc", f"{HOME}/.config/systemd/user"):
        done = product.machine.run([*enter, "touch", f"{folder}/planted"], check=False)
        assert "Read-only file system" in done.stderr, (folder, done)


def test_what_runs_each_minute_is_confined_too(product: Product) -> None:
    """The same for reconcile, which is too short to be looked at while it runs; and it does its work so."""
    shown = product.machine.run(
        ["systemd-analyze", "--user", "--no-pager", "security", "mc-reconcile.service"], check=False
    )
    match = re.search(r"Overall exposure level for \S+: ([0-9.]+)", shown.stdout)
    assert match, shown
    assert float(match[1]) <= MAX_EXPOSURE, shown.stdout
    ticket = product.new("to come back", "--driver", "demo", "--start")
    product.systemctl("stop", "tmux-mc.service")
    product.systemctl("start", "tmux-mc.service")
    product.machine.sh("rm -r /tmp/tmux-$(id -u)")
    product.systemctl("start", "mc-reconcile.service")
    assert product.unit(ticket)["ActiveState"] == "active"


def test_an_answer_gets_out_of_the_confined_gateway(product: Product) -> None:
    """A permission request that is answered on the page is answered where the worker waits for it."""
    ticket = product.new("asks", "--driver", "command", "--start", "--", "sleep", "719")
    ask = (
        "import json, select, sys\n"
        "from orchestrator.asking import Asking\n"
        "asking = Asking(sys.argv[1], 'Bash', {'command': 'true'})\n"
        "print(asking.request_id, flush=True)\n"
        "select.select([asking.fd], [], [], 30)\n"
        "print(json.dumps(asking.read()), flush=True)\n"
        "asking.close()\n"
    )
    folder = f"/run/user/1000/mission-control/ticket-{ticket}/requests"
    asking = product.machine.popen(
        [f"{HOME}/.local/share/mission-control/venv/bin/python", "-c", ask, folder],
        stdout=subprocess.PIPE,
    )
    assert asking.stdout is not None
    request = asking.stdout.readline().decode().strip()
    path = f"/api/ticket/{ticket}/permission"
    assert product.post(path, {"request": request, "behavior": "allow"}) == {"done": True}
    assert json.loads(asking.stdout.readline())["behavior"] == "allow"
    assert asking.wait(10) == 0


def test_doctor_sees_what_is_not_in_force(product: Product) -> None:
    """All of it as installed; a drop-in that takes it away is named."""
    assert services(product)[0] == "ok", services(product)
    folder = f"{HOME}/.config/systemd/user/mc-ingest.service.d"
    text = "[Service]\nProtectSystem=no\n"
    product.machine.run(["sh", "-c", f"mkdir -p {folder}; cat > {folder}/loose.conf"], input=text)
    try:
        product.systemctl("daemon-reload")
        product.systemctl("restart", "mc-ingest.service")
        verdict, found = services(product)
        assert verdict == "warn"
        assert "mc-ingest.service without" in found
        assert "ProtectSystem" in found
    finally:
        product.machine.sh(f"rm -r {folder}")
        product.systemctl("daemon-reload")
        product.systemctl("restart", "mc-ingest.service")


def test_limits_are_there_and_shown(product: Product) -> None:
    """A ticket has ceilings from the start, below those of all tickets; `show` says them."""
    ticket = product.new("limits", "--driver", "command", "--", "sleep", "720")
    product.ctl("start", str(ticket))
    names = "MemoryHigh,MemoryMax,TasksMax,CPUWeight,LimitCORE,OOMPolicy"
    out = product.systemctl("show", f"ticket@{ticket}", "-p", names).stdout
    said = dict(line.split("=", 1) for line in out.splitlines())
    assert (said["TasksMax"], said["CPUWeight"], said["LimitCORE"], said["OOMPolicy"]) == (
        "4096", "100", "0", "continue",
    )  # fmt: skip
    ceiling = product.systemctl("show", "mc-tickets.slice", "-p", "MemoryMax", "--value").stdout
    assert 0 < int(said["MemoryHigh"]) < int(said["MemoryMax"]) < int(ceiling)
    unit = product.show(ticket)["unit"]
    assert (unit["memory_max_bytes"], unit["tasks_max"]) == (int(said["MemoryMax"]), 4096)
    assert "of at most 4096" in product.ctl("show", str(ticket)).stdout


@pytest.mark.fault(11)
def test_one_ticket_does_not_take_the_machine(product: Product) -> None:
    """A fork bomb and an allocation of 64 GB reach neither the gateway nor the next ticket."""
    controllers = product.read(
        "/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/cgroup.controllers"
    ).split()
    if lacking := {"memory", "pids"} - set(controllers):
        pytest.skip(
            f"this machine has no {', '.join(sorted(lacking))} controller: nothing to enforce"
        )
    neighbour, rogue = Inside(product), Inside(product)
    before = product.main_pid(neighbour.ticket), pid_of(product, "mc-webgate.service")
    rogue.run("sh -c 'b() { b | b & }; b; sleep 5' & sleep 8; true", timeout=120)
    rogue.run(
        "python3 -c 'x = bytearray(64 << 30); x[::4096] = b\"1\" * (len(x) // 4096)'", timeout=120
    )
    assert (product.main_pid(neighbour.ticket), pid_of(product, "mc-webgate.service")) == before
    assert neighbour.run("echo alive").stdout == "alive\n"


def test_keys_that_others_can_read_are_refused(product: Product) -> None:
    """No ticket starts with an agent.env of mode 0644, and the sentence says what to do."""
    ticket = product.new("keys", "--driver", "command", "--", "sleep", "721")
    product.machine.run(["chmod", "644", f"{CONFIG}/agent.env"])
    try:
        done = product.ctl("start", str(ticket), check=False)
        assert done.returncode == 5
        assert "chmod 600" in product.systemctl("status", f"ticket@{ticket}", check=False).stdout
        assert "no ticket starts" in product.ctl("doctor", check=False).stdout
    finally:
        product.machine.run(["chmod", "600", f"{CONFIG}/agent.env"])
    product.ctl("start", str(ticket))


def test_secrets_are_where_they_belong(product: Product) -> None:
    """Token and key are in no journal, command line, error page, archive, database row or file of a ticket."""
    token = product.read(f"{STATE}/token").strip()
    assert len(token) > 40
    inside = Inside(product)
    assert inside.run(f'test "$API_KEY" = {KEY}').returncode == 0  # it does get there
    product.send(inside.ticket, "a message")
    ask = (
        "import sys, urllib.request, urllib.error\n"
        "for path in ('/api/nothing', '/api/ticket/x', '/api/ticket/999999', '/login?code=wrong'):\n"
        f"    request = urllib.request.Request({GATEWAY!r} + path, headers={{'Authorization': 'Bearer ' + sys.argv[1]}})\n"
        "    try:\n        print(urllib.request.urlopen(request).read())\n"
        "    except urllib.error.HTTPError as error:\n        print(error.code, error.headers, error.read())\n"
    )
    pages = product.machine.run(["python3", "-c", ask, token]).stdout
    assert "404" in pages
    product.ctl("close", str(inside.ticket), "--force")
    (kept,) = json.loads(product.ctl("archive", str(inside.ticket), "--verify", "--json").stdout)
    places = {
        "the pages": pages,
        "the journal": product.machine.journal(),
        "command lines": "\n".join(product.command_lines()),
        "the archive": product.machine.sh(
            f"mkdir /tmp/opened && tar --zstd -xf {kept['path']} -C /tmp/opened && cat $(find /tmp/opened -type f)"
        ).stdout,
        "the database": product.machine.sh(
            f"{HOME}/.local/share/mission-control/postgresql/bin/pg_dump -h /run/user/1000/mission-control/postgres mission_control"
        ).stdout,
        "tickets' files": product.machine.sh(
            f"grep -rlaF -e {token} -e '{KEY}' {STATE}/tickets /run/user/1000/mission-control"
            " --exclude=.running --exclude=.said --devices=skip || true"
        ).stdout,
        "units": product.machine.sh(f"cat {HOME}/.config/systemd/user/*.* 2>/dev/null || true").stdout,
    }  # fmt: skip
    assert places.pop("tickets' files") == ""
    for place, text in places.items():
        assert token not in text, place
        assert KEY not in text, place
