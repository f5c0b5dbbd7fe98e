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

RUNNING = ("mc-postgres.service", "mc-ingest.service", "mc-dispatch.service", "mc-webgate.service")
PASSING = (
    "mc-reconcile.service",
    "mc-heartbeat.service",
    "mc-logrotate.service",
    "mc-backup.service",
)
READ_ONLY = (HOME, "/usr", "/etc", f"{HOME}/.config/systemd/user", "/run/user/1000")
MAX_EXPOSURE = 2.5  # of 10, as systemd-analyze counts
DROP_INS = f"{CONFIG}/conf.d"
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


def exposure(product: Product, unit: str) -> float:
    """As systemd-analyze counts, of 10."""
    shown = product.machine.run(
        ["systemd-analyze", "--user", "--no-pager", "security", unit], check=False
    )
    match = re.search(r"Overall exposure level for \S+: ([0-9.]+)", shown.stdout)
    assert match, shown
    print(f"{unit}: {match[1]}")
    return float(match[1])


def filters(status: str) -> int:
    """How many seccomp filters there are, by what /proc says; a machine in a container has some for all."""
    match = re.search(r"^Seccomp_filters:\t(\d+)$", status, re.MULTILINE)
    assert match, status
    return int(match[1])


def usual_filters(product: Product) -> int:
    """Those that the user manager itself has, and hands on."""
    manager = product.machine.run(
        ["systemctl", "show", "user@1000.service", "-p", "MainPID", "--value"]
    ).stdout.strip()
    return filters(product.read(f"/proc/{manager}/status"))


def test_no_service_was_forgotten(product: Product) -> None:
    """Every service of ours is in the lists here, but for what runs agents, which are not confined so."""
    listed = product.machine.sh("cd ~/.config/systemd/user && ls mc-*.service").stdout.split()
    assert sorted(listed) == sorted([*RUNNING, *PASSING])


@pytest.mark.parametrize("unit", RUNNING)
def test_a_service_is_confined(product: Product, unit: str) -> None:
    """A read-only machine, no new privileges, a filter on its system calls, an exposure that is low."""
    product.systemctl("start", unit)
    assert exposure(product, unit) <= MAX_EXPOSURE
    pid = pid_of(product, unit)
    status = product.read(f"/proc/{pid}/status")
    assert "NoNewPrivs:\t1" in status
    assert filters(status) > usual_filters(product)
    enter = ["nsenter", "-t", str(pid), "-U", "-m", "--preserve-credentials", "--"]
    for folder in READ_ONLY:
        done = product.machine.run([*enter, "touch", f"{folder}/planted"], check=False)
        assert "Read-only file system" in done.stderr, (folder, done)


@pytest.mark.parametrize("unit", PASSING)
def test_what_does_its_work_and_leaves_is_confined(product: Product, unit: str) -> None:
    """The same for what is too short to be looked at while it runs: a program of ours in its place looks."""
    assert exposure(product, unit) <= MAX_EXPOSURE
    folder = f"{HOME}/.config/systemd/user/{unit}.d"
    look = "grep -E '^(NoNewPrivs|Seccomp_filters):' /proc/self/status"
    look += "".join(f"; touch {place}/planted 2>&1" for place in READ_ONLY)
    seen = f"{HOME}/seen"  # opened before the confinement begins
    text = f'[Service]\nExecStart=\nExecStart=/bin/sh -c "{look}; true"\nStandardOutput=append:{seen}\n'
    product.machine.run(
        ["sh", "-c", f"rm -f {seen}; mkdir -p {folder}; cat > {folder}/look.conf"], input=text
    )
    try:
        product.systemctl("daemon-reload")
        product.systemctl("start", unit)
        said = product.read(seen)
        assert "NoNewPrivs:\t1" in said
        assert filters(said) > usual_filters(product)
        for place in READ_ONLY:
            assert f"'{place}/planted': Read-only file system" in said, said
    finally:
        product.machine.sh(f"rm -r {folder}")
        product.systemctl("daemon-reload")
    product.systemctl("start", unit)  # and it does its work so


def test_reconcile_does_its_work_confined(product: Product) -> None:
    """A tmux socket that was removed is made anew, and the ticket comes back."""
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


def test_backups_may_go_elsewhere(product: Product) -> None:
    """A folder that the configuration names: `setup` lets the unit write there; before, it says so."""
    elsewhere = f"{HOME}/my backups"
    text = f'[backup]\nfolder = "{elsewhere}"\n'
    product.machine.run(
        ["sh", "-c", f"umask 077; mkdir -p {DROP_INS}; cat > {DROP_INS}/x.toml"], input=text
    )
    try:
        done = product.systemctl("start", "mc-backup.service", check=False)
        assert done.returncode
        said = product.machine.sh("journalctl --user -q -o cat -u mc-backup.service -n 9").stdout
        assert "ticketctl setup" in said, said
        product.ctl("setup")
        product.systemctl("start", "mc-backup.service")
        assert product.machine.sh(f"ls '{elsewhere}'").stdout.count(".dump") == 1
        assert "Nothing had to be changed" in product.ctl("setup").stdout
    finally:
        product.machine.sh(f"rm {DROP_INS}/x.toml")
        product.ctl("setup")
    assert "my backups" not in product.systemctl("cat", "mc-backup.service").stdout


def test_doctor_waits_for_a_gateway_that_it_woke(product: Product) -> None:
    """Its own look starts the gateway, which is not confined before it is what it will be."""
    for _ in range(3):
        product.systemctl("stop", "mc-webgate.service")
        assert services(product)[0] == "ok", services(product)


@pytest.mark.parametrize("unit", ["mc-ingest.service", "mc-heartbeat.service"])
def test_doctor_sees_what_is_not_in_force(product: Product, unit: str) -> None:
    """All of it as installed; a drop-in that takes it away is named, also of what runs for a moment."""
    for each in PASSING:
        product.systemctl("start", each)
    verdict, found = services(product)
    assert verdict == "ok", found
    assert "8 of 8" in found
    folder = f"{HOME}/.config/systemd/user/{unit}.d"
    text = "[Service]\nProtectSystem=no\n"
    product.machine.run(["sh", "-c", f"mkdir -p {folder}; cat > {folder}/loose.conf"], input=text)
    try:
        product.systemctl("daemon-reload")
        product.systemctl("restart", unit)
        verdict, found = services(product)
        assert verdict == "warn"
        assert f"{unit} without ProtectSystem" in found
    finally:
        product.machine.sh(f"rm -r {folder}")
        product.systemctl("daemon-reload")
        product.systemctl("restart", unit)
    assert services(product)[0] == "ok"


def test_the_tmux_server_has_room_and_its_panes_the_usual(product: Product) -> None:
    """Two descriptors a ticket in the server, for thousands; an agent has what its unit says."""
    server = pid_of(product, "tmux-mc.service")

    def files(pid: int) -> list[int]:
        line = product.machine.sh(f"grep '^Max open files' /proc/{pid}/limits").stdout
        return [int(word) for word in line.split()[3:5]]

    soft, hard = files(server)
    assert soft == min(65536, hard)  # a machine may have less to give
    ticket = product.new("files", "--driver", "command", "--", "sleep", "719")
    product.ctl("start", str(ticket))
    its_own = product.systemctl(
        "show", f"ticket@{ticket}", "-p", "LimitNOFILESoft", "--value"
    ).stdout
    assert files(product.main_pid(ticket)) == [int(its_own), hard]
    assert int(its_own) < soft
    product.ctl("stop", str(ticket))
    folder = f"{HOME}/.config/systemd/user/ticket@{ticket}.service.d"
    product.machine.sh(
        f"mkdir -p {folder}; printf '[Service]\\nLimitNOFILE=3000:5000\\n' > {folder}/files.conf"
    )
    product.systemctl("daemon-reload")
    product.ctl("start", str(ticket))
    assert files(product.main_pid(ticket))[0] == 3000
    product.ctl("stop", str(ticket))


TOLD = """#!/bin/sh
cat > $HOME/told.json
env | grep -a ^TICKET_ > $HOME/told.env
grep -E '^(NoNewPrivs|Seccomp_filters):' /proc/self/status > $HOME/told.status
printf '%s\\n' "$@" > $HOME/told.args
cat /proc/self/cgroup > $HOME/told.cgroup
echo heard >&2
[ "$TICKET_STATE" = waiting_answer ] && { sleep 600 & sleep 600; }
[ "$TICKET_STATE" != api_error ] || exit 7
"""


def test_the_dispatcher_tells_a_person_from_outside_of_its_sandbox(product: Product) -> None:
    """A program of theirs: its facts, limits, a name in the journal, and an end; none of it in `ps`."""
    program, ticket = f"{HOME}/told.sh", product.new("Wait for $HOME; 100% é", "--driver", "demo")
    product.machine.run(["sh", "-c", f"cat > {program}; chmod +x {program}"], input=TOLD)
    table = f'[notify]\ncommand = ["{program}", "$HOME ${{HOME}} $$ %h", ""]\nafter_s = 0\n'
    product.machine.run(
        ["sh", "-c", f"umask 077; mkdir -p {DROP_INS}; cat > {DROP_INS}/x.toml"], input=table
    )
    psql = f"{HOME}/.local/share/mission-control/postgresql/bin/psql -qh /run/user/1000/mission-control/postgres -d mission_control"

    def wait_for_a_person(state: str) -> None:
        sql = (
            f"UPDATE tickets SET status = 'in_progress', turn_state = '{state}' WHERE id = {ticket:d};"
            f" INSERT INTO ticket_events (ticket_id, kind, data) VALUES ({ticket:d}, 'state', '{{}}')"
        )
        product.machine.run([*psql.split(), "-c", sql])

    def said() -> str:
        return product.machine.sh(
            "journalctl --user -q -o cat --no-pager -t mission-control"
        ).stdout

    product.systemctl("stop", "mc-reconcile.timer", "mc-ingest.service")
    product.systemctl("restart", "mc-dispatch.service")
    try:
        wait_for_a_person("waiting_permission")
        product.machine.wait_for(lambda: product.read(f"{HOME}/told.cgroup"), what="it is told")
        facts = json.loads(product.read(f"{HOME}/told.json"))
        assert (facts["id"], facts["title"]) == (ticket, "Wait for $HOME; 100% é")
        environ = product.read(f"{HOME}/told.env")
        assert "TICKET_TITLE=Wait for $HOME; 100% é\n" in environ
        assert f"TICKET_ID={ticket}\n" in environ
        assert product.read(f"{HOME}/told.args") == "$HOME ${HOME} $$ %h\n\n"
        assert "mc-notify-" in product.read(f"{HOME}/told.cgroup")
        assert product.read(f"{HOME}/told.status") == (
            f"NoNewPrivs:\t0\nSeccomp_filters:\t{usual_filters(product)}\n"
        )
        heard = "journalctl --user -q -o cat --no-pager -t mission-control-notify"
        product.machine.wait_for(
            lambda: "heard" in product.machine.sh(heard).stdout, what="its word"
        )
        assert "nobody was told" not in said()
        wait_for_a_person("api_error")
        product.machine.wait_for(lambda: "told.sh' left with status 7" in said(), what="its status")
        wait_for_a_person("waiting_answer")
        product.machine.wait_for(
            lambda: "told.sh' took over 30 s" in said(), what="its end", timeout=60
        )
        assert "sleep 600" not in "\n".join(product.command_lines())
        product.machine.run(["chmod", "-x", program])
        wait_for_a_person("waiting_permission")
        product.machine.wait_for(lambda: "told.sh' cannot be run" in said(), what="the reason")
        left = product.systemctl(
            "list-units", "--all", "--plain", "mc-notify-*", "--no-legend"
        ).stdout
        assert left == ""
        assert "told-" not in product.machine.sh("ls /run/user/1000/mission-control").stdout
    finally:
        product.machine.sh(f"rm {DROP_INS}/x.toml")
        product.systemctl("restart", "mc-dispatch.service")
        product.systemctl("start", "mc-ingest.service", "mc-reconcile.timer")
        product.ctl("close", str(ticket), "--force", check=False)


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
