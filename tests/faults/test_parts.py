"""Faults 2, 4, 7, 8, 9, 10, 18, 22, 30: a part is killed, frozen or out of reach, and all goes on.

On a booted machine with the demo agent and plain programs. MC_DRILL_ROUNDS makes the random ones longer.
"""

from __future__ import annotations

import json
import os
import random
import time
from typing import Any

import pytest

from tests.faults.record import Drill
from tests.machine.machine import Machine
from tests.machine.product import DATA, HOME, STATE, Product

ROUNDS = int(os.environ.get("MC_DRILL_ROUNDS", "6"))
OUTAGE_S = float(os.environ.get("MC_DRILL_OUTAGE_S", "5"))
BIN = f"{HOME}/.local/share/mission-control/venv/bin"


@pytest.fixture(scope="module")
def product(module_machine: Machine) -> Product:
    """One machine for all of them; reconcile comes when a drill calls it."""
    made = Product(module_machine)
    made.systemctl("stop", "mc-reconcile.timer")
    return made


def demo(product: Product, title: str = "Say hello") -> int:
    """A demo ticket that runs and has answered."""
    ticket = product.new(title, "--driver", "demo", "--start")
    product.machine.wait_for(
        lambda: product.hooks(ticket, "Stop"), what="the first answer", timeout=60
    )
    return ticket


def active_and_new(product: Product, ticket: int, before: int) -> bool:
    """Whether it runs, as another process."""
    unit = product.unit(ticket)
    return unit["ActiveState"] == "active" and int(unit["MainPID"]) not in {0, before}


def sql(product: Product, statement: str) -> str:
    """What the database says to that."""
    socket = "$XDG_RUNTIME_DIR/mission-control/postgres"
    return product.machine.sh(f'psql -qAth {socket} mission_control -c "{statement}"').stdout


def outcomes(product: Product, ticket: int) -> dict[str, str]:
    """What became of each text."""
    out = product.ctl("queue", str(ticket), "-n", "1000", "--json").stdout
    return {m["body"]: m["outcome"] for m in json.loads(out)}


def heard(product: Product, ticket: int) -> list[str]:
    """What the worker took, in order."""
    return [p["prompt"].strip() for p in product.hooks(ticket, "UserPromptSubmit")]


def judge(product: Product, drill: Drill, ticket: int, texts: list[str]) -> None:
    """At most once each; what is confirmed was heard, what is unconfirmed is shown as such."""
    told, taken = outcomes(product, ticket), heard(product, ticket)
    drill.doubled += sum(max(0, taken.count(text) - 1) for text in texts)
    drill.lost += sum(told[text] == "confirmed" and text not in taken for text in texts)
    assert drill.doubled == drill.lost == 0, (told, taken)
    assert {told[text] for text in texts} <= {"confirmed", "unconfirmed"}, told
    order = [text for text in taken if text in texts]
    assert order == [text for text in texts if text in order], "out of order"


@pytest.mark.fault(2)
def test_a_second_dispatcher_says_so_and_leaves(product: Product, drill: Drill) -> None:
    """The first goes on; nothing is sent twice."""
    ticket = demo(product)
    for number in range(3):
        message = product.send(ticket, f"what is {number}+1")
        done = product.machine.run([f"{BIN}/mc-dispatch"], check=False)
        assert done.returncode == 5
        assert "Another dispatcher is at work" in done.stderr
        product.machine.wait_for(
            lambda message=message: product.outcome(ticket, message) == "confirmed",
            what="confirmed",
        )
        drill.tried += 1
    judge(product, drill, ticket, [f"what is {number}+1" for number in range(3)])


@pytest.mark.fault(4)
@pytest.mark.timeout(1200)
def test_a_dispatcher_killed_at_any_moment_types_nothing_twice(
    product: Product, drill: Drill
) -> None:
    """kill -9 between claim, paste, Enter and confirmation: confirmed, or unconfirmed and shown."""
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    dice = random.Random(seed)
    ticket = demo(product)
    texts = [f"round {number}: what is {number}+1" for number in range(ROUNDS * 2)]
    for text in texts:
        product.send(ticket, text)
        time.sleep(dice.uniform(0, 0.6))  # somewhere on the message's way
        with drill.recovery():
            product.systemctl("kill", "--signal=KILL", "mc-dispatch.service")
            product.machine.wait_for(
                lambda text=text: outcomes(product, ticket)[text] not in {"queued", "sent"},
                what=f"an outcome for {text!r}", timeout=60,
            )  # fmt: skip
        if outcomes(product, ticket)[text] == "unconfirmed":  # what is left of it in the box
            product.machine.run(["tmux", "send-keys", "-t", f"=ticket-{ticket}:", "C-u"])
    judge(product, drill, ticket, texts)


@pytest.mark.fault(7)
def test_ten_tickets_are_back_after_the_tmux_server_was_killed(
    product: Product, drill: Drill
) -> None:
    """The same conversations, each once; of the old processes none is left."""
    tickets = [demo(product, f"one of ten {n}") for n in range(10)]
    for _ in range(max(1, ROUNDS // 3)):
        before = {t: product.main_pid(t) for t in tickets}
        with drill.recovery():
            product.systemctl("kill", "--signal=KILL", "tmux-mc.service")
            product.machine.wait_for(
                lambda before=before: all(active_and_new(product, t, p) for t, p in before.items()),
                what="all ten are back",
            )
        alive = set(product.machine.run(["ps", "-eo", "pid="]).stdout.split())
        assert alive.isdisjoint(str(p) for p in before.values())
        for ticket in tickets:
            product.wait_screen(ticket, "resumed")
            assert product.main_pid(ticket) in product.cgroup_pids(ticket)
    for ticket in tickets:
        sessions = {s["session_id"] for s in product.hooks(ticket, "SessionStart")}
        assert sessions == {product.show(ticket)["session_id"]}
    product.systemctl("stop", *(f"ticket@{t}" for t in tickets))


@pytest.mark.fault(8)
@pytest.mark.parametrize("isolation", ["off", "workspace"])
def test_a_stubborn_worker_and_its_children_go_with_its_cgroup(
    product: Product, drill: Drill, isolation: str
) -> None:
    """Killed as a whole before the restart: no child of the old one beside the new one."""
    script = (
        "trap '' HUP TERM; (trap '' HUP TERM; exec setsid sleep 6007) & sleep 6006 & wait; wait"
    )
    ticket = product.new(
        "stubborn", "--driver", "command", "--isolation", isolation, "--", "bash", "-c", script
    )
    product.ctl("start", str(ticket))
    for _ in range(2):
        product.machine.wait_for(lambda: _sleeping(product) == 2, what="both children")
        before = product.main_pid(ticket)
        old = set(product.cgroup_pids(ticket))
        with drill.recovery():
            product.machine.sh(f"kill -9 {before}")
            product.machine.wait_for(
                lambda before=before: active_and_new(product, ticket, before), what="it is back",
                timeout=60,
            )  # fmt: skip
        assert old.isdisjoint(product.cgroup_pids(ticket))
        alive = {
            p
            for p in old
            if product.machine.run(["test", "-e", f"/proc/{p}"], check=False).returncode == 0
        }
        assert not alive
    product.machine.wait_for(lambda: _sleeping(product) == 2, what="both children")
    with drill.recovery():
        product.systemctl("stop", f"ticket@{ticket}")
    assert _sleeping(product) == 0
    assert product.unit(ticket)["Result"] == "success"


def _sleeping(product: Product) -> int:
    """How many of the stubborn one's children there are."""
    return len(product.machine.run(["pgrep", "-xf", "sleep 600[67]"], check=False).stdout.split())


@pytest.mark.fault(9)
def test_a_removed_tmux_socket_is_made_anew(product: Product, drill: Drill) -> None:
    """The server and its workers live on, and can be reached again."""
    ticket = demo(product)
    before = product.main_pid(ticket)
    with drill.recovery():
        product.machine.sh("rm -r /tmp/tmux-$(id -u)")
        assert product.ctl("attach", str(ticket), check=False).returncode
        product.ctl("reconcile")
        product.say(ticket, "what is 1+1")
    assert product.main_pid(ticket) == before
    assert "was told to make it anew" in product.machine.journal()


@pytest.mark.fault(10)
def test_a_killed_child_is_the_workers_own_business(product: Product, drill: Drill) -> None:
    """The worker goes on. The worker itself killed: bounded restarts, with the reason."""
    script = "sleep 6008; echo child gone; exec sleep 6009"
    ticket = product.new("parent", "--driver", "command", "--", "bash", "-c", script)
    product.ctl("start", str(ticket))
    before = product.main_pid(ticket)
    product.machine.wait_for(
        lambda: product.machine.run(["pgrep", "-xf", "sleep 6008"], check=False).stdout,
        what="its child",
    )
    product.machine.sh("pkill -9 -xf 'sleep 6008'")
    product.wait_screen(ticket, "child gone")
    assert product.main_pid(ticket) == before
    drill.tried += 1
    while product.unit(ticket)["ActiveState"] != "failed":
        pid = product.main_pid(ticket)
        if pid:
            product.machine.sh(f"kill -9 {pid} || true")
        drill.tried += 1
        assert drill.tried < 200
    assert int(product.unit(ticket)["NRestarts"]) <= 5
    product.ctl("reconcile")
    assert product.show(ticket)["status"] == "needs_input"
    assert "SIGKILL" in product.unit(ticket)["StatusText"]


@pytest.mark.fault(20)
def test_a_pid_file_of_before_the_power_cut(product: Product, drill: Drill) -> None:
    """Its pid is another process's by now, or it is empty; a server's own pid file is left alone."""
    ticket = demo(product)
    product.say(ticket, "before")
    pid_file = f"{STATE}/postgres/postmaster.pid"
    other = product.systemctl("show", "mc-ingest", "-p", "MainPID", "--value").stdout.strip()
    product.machine.sh(
        f"cp {pid_file} left; systemctl --user stop mc-postgres; sed '1s/.*/{other}/' left > {pid_file}"
    )
    with drill.recovery():
        product.systemctl("start", "mc-postgres.service")
        product.say(ticket, "after")
    assert (
        product.systemctl("show", "mc-ingest", "-p", "MainPID", "--value").stdout.strip() == other
    )
    again = f"{DATA}/postgresql/bin/postgres -D {STATE}/postgres -k /tmp"
    done = product.machine.run(["sh", "-c", again], check=False, timeout=60)
    assert done.returncode
    assert "postmaster.pid" in done.stderr
    product.machine.sh(
        f"systemctl --user stop mc-postgres; touch -d '2 minutes ago' {pid_file}; systemctl --user start mc-postgres"
    )
    product.say(ticket, "and on it goes")


@pytest.mark.fault(18)
@pytest.mark.parametrize("how", ["down", "frozen"])
def test_what_happened_without_a_database_is_caught_up(
    product: Product, drill: Drill, how: str
) -> None:
    """The worker works, its lines are rows afterwards, each once; what was acknowledged is there."""
    ticket = demo(product)
    kept = product.send(ticket, "kept")
    before = product.main_pid(ticket)
    product.machine.wait_for(lambda: product.outcome(ticket, kept) == "confirmed", what="confirmed")
    freeze = "systemctl --user kill --kill-whom=all --signal={} mc-postgres.service"
    if how == "down":
        product.take_database_away()
    else:
        product.machine.sh(freeze.format("STOP"))
    product.type(ticket, "typed at the pane")
    refused = product.ctl("send", str(ticket), "not acknowledged", check=False)
    assert refused.returncode == 75, refused.stderr
    assert "PostgreSQL" in refused.stderr
    time.sleep(OUTAGE_S)
    product.wait_screen(ticket, "typed at the pane")
    with drill.recovery():
        if how == "down":
            product.bring_database_back()
        else:
            product.machine.sh(freeze.format("CONT"))
        lines = product.machine.wait_for(
            lambda: _all_stored(product, ticket), what="every line is a row", timeout=60
        )
    rows = int(
        sql(product, f"SELECT count(*) FROM ticket_events WHERE source = 'sidecar:{ticket}'")
    )
    drill.lost, drill.doubled = max(0, lines - rows), max(0, rows - lines)
    assert rows == lines
    assert product.main_pid(ticket) == before
    product.say(ticket, "and on it goes")
    assert "not acknowledged" not in heard(product, ticket)


def _all_stored(product: Product, ticket: int) -> int:
    size = product.machine.sh(f"stat -c %s {STATE}/tickets/{ticket}/sidecar.jsonl").stdout.strip()
    read = product.machine.sh(
        "psql -qAth $XDG_RUNTIME_DIR/mission-control/postgres mission_control -c"
        f' "SELECT \\"offset\\" FROM ingest_positions WHERE source = \'sidecar:{ticket}\'"',
        check=False,
    ).stdout.strip()
    return len(product.sidecar(ticket)) if read == size else 0


#: as where all of the user's instances are used up; really used up, they would be so for every machine here
_WITHOUT = "[Service]\nSystemCallFilter=~inotify_init inotify_init1\nSystemCallErrorNumber=EMFILE\n"


@pytest.mark.fault(22)
def test_without_inotify_the_clock_finds_it(product: Product, drill: Drill) -> None:
    """The kernel gives it no instance (EMFILE): it says so, and events come all the same."""
    ticket = demo(product)
    folder = f"{HOME}/.config/systemd/user/mc-ingest.service.d"
    product.machine.sh(f"mkdir -p {folder}")
    product.machine.run(["sh", "-c", f"cat > {folder}/none.conf"], input=_WITHOUT)
    product.systemctl("daemon-reload")
    product.systemctl("restart", "mc-ingest.service")
    status = product.machine.wait_for(
        lambda: _status(product) if "lines" in _status(product) else "", what="a status"
    )
    assert "without inotify" in status
    with drill.recovery():
        product.say(ticket, "what is 2+2")
        product.machine.wait_for(lambda: _all_stored(product, ticket), what="rows")
    product.machine.sh(f"rm -r {folder}")
    product.systemctl("daemon-reload")
    product.systemctl("restart", "mc-ingest.service")
    product.machine.wait_for(
        lambda: "lines" in _status(product) and "without" not in _status(product),
        what="inotify again",
    )


@pytest.mark.fault(22)
def test_an_overflowed_queue_loses_no_line(product: Product, drill: Drill) -> None:
    """More changes than the kernel keeps, while ingest is stopped: every line is a row."""
    tickets = [demo(product) for _ in range(2)]
    most = int(product.read("/proc/sys/fs/inotify/max_queued_events"))
    product.systemctl("kill", "--signal=STOP", "mc-ingest.service")
    paths = [f"{STATE}/tickets/{t}/sidecar.jsonl" for t in tickets]
    program = (
        "import sys\nfiles = [open(p, 'ab', 0) for p in sys.argv[2:]]\n"
        'line = b\'{"v":1,"at":"2026-01-01T00:00:00Z","hook":"Note","data":{}}\\n\'\n'
        "for n in range(int(sys.argv[1])): files[n % 2].write(line)\n"
    )
    product.machine.run(["python3", "-c", program, str(most + 2000), *paths])
    with drill.recovery():
        product.systemctl("kill", "--signal=CONT", "mc-ingest.service")
        for ticket in tickets:
            product.machine.wait_for(
                lambda ticket=ticket: _all_stored(product, ticket), what="rows", timeout=120
            )
    count = "SELECT count(*) FROM ticket_events WHERE kind = 'other' AND ticket_id = "
    rows = sum(int(sql(product, f"{count}{t}")) for t in tickets)
    drill.lost, drill.doubled = max(0, most + 2000 - rows), max(0, rows - most - 2000)
    assert rows == most + 2000


def _status(product: Product) -> str:
    shown: Any = product.systemctl("show", "-p", "StatusText", "mc-ingest.service").stdout
    return str(shown)


@pytest.mark.fault(30)
@pytest.mark.timeout(1200)
def test_a_worker_that_dies_under_a_message_leaves_it_to_no_shell(
    product: Product, drill: Drill
) -> None:
    """kill -9 of the worker at random moments of a delivery: at most once, and nothing is executed."""
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    dice = random.Random(seed)
    ticket = demo(product)
    texts = [f"touch /tmp/owned-{number}" for number in range(ROUNDS)]
    for text in texts:
        before = product.main_pid(ticket)
        product.send(ticket, text)
        time.sleep(dice.uniform(0, 0.5))
        with drill.recovery():
            product.machine.sh(f"kill -9 {before} || true")
            product.machine.wait_for(
                lambda before=before: active_and_new(product, ticket, before), what="it is back"
            )
        product.machine.wait_for(
            lambda text=text: outcomes(product, ticket)[text] not in {"queued", "sent"},
            what="an outcome", timeout=90,
        )  # fmt: skip
        product.systemctl("reset-failed", f"ticket@{ticket}", check=False)
    judge(product, drill, ticket, texts)
    assert product.machine.sh("ls /tmp/owned-* 2>/dev/null || true").stdout == ""
