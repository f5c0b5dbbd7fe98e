"""Rotation under flood, the writers of pane logs, and the heartbeat, on a booted machine.

Faults 5, 6, 12 and 13 as far as they are about pane logs. MC_DRILL_FLOOD_S=60 makes it the long drill.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

import pytest

from tests.faults.record import Drill
from tests.machine.machine import Machine
from tests.machine.product import GATEWAY, HOME, STATE, Product

FLOOD_S = int(os.environ.get("MC_DRILL_FLOOD_S", "8"))  # 60 is the long drill
SEEN_ROTATIONS = FLOOD_S // 4  # one each second; a loaded machine compresses for longer than that
NOTICED_S = 5.0
#: numbered lines as fast as the pane takes them, and at the end how many
FLOOD = f"""
import os, sys, time
while not os.path.exists("go"):
    time.sleep(0.1)
count, end = 0, time.monotonic() + {FLOOD_S}
while time.monotonic() < end:
    sys.stdout.write("\\n".join(map(str, range(count + 1, count + 10001))) + "\\n")
    count += 10000
print("the end", count, flush=True)
time.sleep(1000)
"""
BOARD = f"""
import urllib.request as u
token = open("{STATE}/token").read().strip()
asked = u.Request("{GATEWAY}/", headers={{"Authorization": "Bearer " + token}})
print(u.urlopen(asked).read().decode())
"""
TIMERS = ("mc-reconcile.timer", "mc-heartbeat.timer", "mc-logrotate.timer")  # of mc.target
PYTHON = f"{HOME}/.local/share/mission-control/venv/bin/python"


@pytest.fixture(scope="module")
def product(module_machine: Machine) -> Product:
    """One machine for the tests of this module; its heart beats when the tests say so."""
    made = Product(module_machine)
    assert made.systemctl("is-active", *TIMERS).stdout.split() == ["active"] * len(TIMERS)
    made.systemctl("stop", "mc-heartbeat.timer")
    made.machine.wait_for(
        lambda: (
            made.systemctl("is-active", "mc-heartbeat.service", check=False).stdout
            != "activating\n"
        ),
        what="the last beat",
    )
    return made


def heartbeat(product: Product) -> dict[str, Any]:
    """Beats now; what was stored."""
    product.systemctl("start", "mc-heartbeat.service")
    sql = "SELECT data FROM heartbeats ORDER BY id DESC LIMIT 1"
    done = product.machine.sh(
        f"{HOME}/.local/share/mission-control/postgresql/bin/psql -h $XDG_RUNTIME_DIR/mission-control/postgres"
        f' -d mission_control -Atc "{sql}"'
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def journal(product: Product, event: str) -> str:
    """What was told under an event's name."""
    return product.machine.run(
        ["journalctl", "--user", "-q", "-o", "cat", "--no-pager", f"TICKET_EVENT={event}"]
    ).stdout


@pytest.mark.timeout(1800)
@pytest.mark.fault(13)
def test_rotating_under_a_flood_loses_nothing(product: Product, drill: Drill) -> None:
    """Every byte once and in order over all the files; the agent was not left frozen."""
    ticket = product.new("flood", "--driver", "command", "--", "python3", "-c", FLOOD)
    product.ctl("start", str(ticket))
    folder = f"{STATE}/tickets/{ticket}"
    sidecar = product.machine.sh(f"stat -c %i {folder}/sidecar.jsonl").stdout
    rotated = product.machine.sh(
        f"touch {product.work(ticket)}/go; until [ -s {folder}/pane.log ]; do sleep 0.02; done;"
        " export MC_LOGS_KEEP=200; SECONDS=0; n=0;"
        f" while [ $SECONDS -lt {FLOOD_S} ]; do next=$((SECONDS + 1));"
        f" {PYTHON} -I -m orchestrator.rotate force || exit; n=$((n + 1));"
        " while [ $SECONDS -lt $next ]; do sleep 0.05; done; done; echo $n",
        timeout=FLOOD_S * 5 + 60,
    ).stdout
    product.machine.wait_for(
        lambda: "the end" in product.machine.sh(f"tail -qc 100 {folder}/pane.log {folder}/pane.log.1").stdout, what="the end",
        timeout=60,
    )  # fmt: skip
    files = product.machine.sh(f"ls {folder}").stdout.split()
    assert sum(name.startswith("pane.log.") for name in files) == int(rotated) >= SEEN_ROTATIONS, files  # fmt: skip
    check = (
        f"cd {folder}; (for i in $(seq 200 -1 1); do [ -e pane.log.$i.gz ] && zcat pane.log.$i.gz;"
        " [ -e pane.log.$i ] && cat pane.log.$i; done; cat pane.log) | tr -d '\\r' |"
        " awk '$1 == \"the\" {end = $3; next} $0 != NR {print NR, $0; exit} END {print end, NR - 1}'"
    )
    end, lines = product.machine.run(["sh", "-c", check], timeout=600).stdout.split()
    assert end == lines
    size = product.machine.sh(f"cd {folder}; (zcat *.gz; cat pane.log.1 pane.log) | wc -c", timeout=600).stdout  # fmt: skip
    drill.tried = int(rotated)
    drill.note = f"rotations in {FLOOD_S} s of flood, {lines} lines, {size.strip()} bytes"
    assert (
        "FreezerState=running"
        in product.systemctl("show", f"ticket@{ticket}", "-p", "FreezerState").stdout
    )
    assert journal(product, "rotated").count("pane log rotated") == int(rotated)
    # the sidecar lives and goes with its ticket
    assert [name for name in files if name.startswith("sidecar")] == ["sidecar.jsonl"]
    assert product.machine.sh(f"stat -c %i {folder}/sidecar.jsonl").stdout == sidecar
    product.ctl("close", str(ticket))
    (kept,) = json.loads(product.ctl("archive", str(ticket), "--verify", "--json").stdout)
    assert "sidecar.jsonl" in product.machine.run(["tar", "--zstd", "-tf", kept["path"]], timeout=300).stdout.split()  # fmt: skip
    assert "sidecar.jsonl" not in product.machine.sh(f"ls {folder}").stdout


def test_a_rotation_that_was_killed_leaves_nobody_frozen(product: Product) -> None:
    """The end of the service, or the next heartbeat, lets it go on."""
    ticket = product.new("sleeper", "--driver", "command", "--", "sleep", "1000")
    product.ctl("start", str(ticket))
    product.machine.sh(
        f"mkdir -p $XDG_RUNTIME_DIR/mission-control/frozen-for-rotation;"
        f" touch $XDG_RUNTIME_DIR/mission-control/frozen-for-rotation/{ticket};"
        f" systemctl --user freeze ticket@{ticket}"
    )
    data = heartbeat(product)
    assert f"frozen:{ticket}" in data["warnings"]
    assert (
        "FreezerState=running"
        in product.systemctl("show", f"ticket@{ticket}", "-p", "FreezerState").stdout
    )
    # frozen by the operator: left alone
    product.systemctl("freeze", f"ticket@{ticket}")
    product.systemctl("start", "mc-logrotate.service")
    assert (
        "FreezerState=frozen"
        in product.systemctl("show", f"ticket@{ticket}", "-p", "FreezerState").stdout
    )
    product.systemctl("thaw", f"ticket@{ticket}")


def writers(product: Product, ticket: int) -> list[str]:
    """The processes that write a ticket's pane log."""
    log = f"{STATE}/tickets/{ticket}/pane.log"
    find = f'for p in /proc/[0-9]*; do case "$(readlink $p/fd/1)" in {log}*) basename $p;; esac; done; true'
    return product.machine.run(["sh", "-c", find]).stdout.split()


def gaps(product: Product, ticket: int) -> list[dict[str, Any]]:
    """The gaps that were recorded."""
    lines = product.ctl("events", str(ticket), "--json").stdout.splitlines()
    return [event["data"] for event in map(json.loads, lines) if event["kind"] == "gap"]


def talker(product: Product) -> int:
    """A ticket that says what is typed, and has a screen."""
    ticket = product.new("writer", "--driver", "command", "--", "sh", "-c", "echo before; exec cat")
    product.ctl("start", str(ticket))
    product.wait_screen(ticket, "before")
    product.machine.wait_for(lambda: writers(product, ticket), what="the writer")
    time.sleep(2)  # the dispatcher has looked
    return ticket


@pytest.mark.fault(5)
def test_a_killed_writer_is_replaced_while_the_pane_is_silent(
    product: Product, drill: Drill
) -> None:
    """Fault 5: within five seconds, before anything is lost, with an event that has the screen."""
    ticket = talker(product)
    old = writers(product, ticket)
    with drill.recovery():
        product.machine.sh(f"kill -9 {' '.join(old)}")
        product.machine.wait_for(
            lambda: set(writers(product, ticket)) - set(old),
            what="another writer",
            timeout=NOTICED_S,
        )
    drill.note = "the pane was silent: nothing was lost"
    product.type(ticket, "heard")
    product.machine.wait_for(lambda: "heard" in product.pane_log(ticket), what="the log goes on")
    product.machine.wait_for(lambda: gaps(product, ticket), what="the gap")
    (gap,) = gaps(product, ticket)
    assert gap["reason"] == "the writer of the pane log died"
    assert "before" in gap["screen"]
    assert f"Ticket {ticket}: the writer of the pane log died" in journal(product, "gap")
    assert heartbeat(product)["mended"] == []
    # a restart, and an end, are none
    product.ctl("restart", str(ticket))
    time.sleep(3)
    product.ctl("stop", str(ticket))
    time.sleep(3)
    assert len(gaps(product, ticket)) == 1


def test_the_heartbeat_stands_behind_the_watch(product: Product) -> None:
    """Without a dispatcher a dead pipe is mended all the same, within the minute."""
    ticket = talker(product)
    product.systemctl("stop", "mc-dispatch.service")
    product.machine.sh(f"kill -9 {' '.join(writers(product, ticket))}")
    product.type(ticket, "unheard")
    assert "unheard" not in product.pane_log(ticket)
    assert heartbeat(product)["mended"] == [ticket]
    product.type(ticket, "heard")
    product.machine.wait_for(lambda: "heard" in product.pane_log(ticket), what="the log goes on")
    assert f"Ticket {ticket}: the writer of its pane log was gone" in journal(product, "gap")
    product.systemctl("start", "mc-dispatch.service")


def test_a_pipe_of_an_earlier_version_is_replaced(product: Product) -> None:
    """Its writer says nothing of itself, so the heartbeat puts one that does in its place; no gap."""
    ticket = talker(product)
    mark = f"/run/user/1000/mission-control/writers/{ticket}"
    product.machine.sh(
        f"tmux pipe-pane -t =ticket-{ticket}: 'exec cat >> {STATE}/tickets/{ticket}/pane.log'"
    )
    product.machine.wait_for(
        lambda: len(writers(product, ticket)) == 1
        and writers(product, ticket)[0] not in product.read(mark).split(), what="the old kind",
    )  # fmt: skip
    product.machine.sh(f"rm {mark}")
    (old,) = writers(product, ticket)
    time.sleep(9)  # a ticket that was started just now is left alone
    assert heartbeat(product)["mended"] == []
    (new,) = writers(product, ticket)
    assert new != old
    assert new in product.read(mark).split()
    product.type(ticket, "heard")
    product.machine.wait_for(lambda: "heard" in product.pane_log(ticket), what="the log goes on")
    assert gaps(product, ticket) == []
    product.machine.sh(f"kill -9 {new}")
    product.machine.wait_for(
        lambda: set(writers(product, ticket)) - {new}, what="it is watched", timeout=70
    )
    product.ctl("close", str(ticket))


def test_a_worker_that_crashes_slowly_is_told_of(product: Product) -> None:
    """Restarted each time and never given up: a warning, an event, and a line in `status` and on the board."""
    product.systemctl("set-environment", "MC_HEARTBEAT_RESTARTS_AN_HOUR=2")
    heartbeat(product)
    ticket = product.new("ill", "--driver", "command", "--", "sh", "-c", "sleep 4; exit 3")
    try:
        product.ctl("start", str(ticket))
        product.machine.wait_for(
            lambda: int(product.unit(ticket)["NRestarts"]) >= 3, what="three crashes", timeout=60
        )
        told = heartbeat(product)["warnings"][f"crashing:{ticket}"]
        assert told.startswith(f"The worker of ticket {ticket} crashed 3 times within an hour")
        assert told in journal(product, "warning")
        said = product.ctl("status", str(ticket), check=False).stdout
        assert "Restarts: 3, 3 of them within an hour" in said
        assert " crashing " in said
        board = product.machine.run(["python3", "-c", BOARD]).stdout
        assert "3 crashes</span>" in board, board
    finally:
        product.systemctl("unset-environment", "MC_HEARTBEAT_RESTARTS_AN_HOUR")
        product.ctl("close", str(ticket), "--force")
    assert f"crashing:{ticket}" not in heartbeat(product)["warnings"]


@pytest.mark.fault(6)
def test_a_stopped_writer_does_not_fill_the_memory(product: Product, drill: Drill) -> None:
    """Fault 6: while the pane floods. Told to go on, nothing lost; again, replaced, with a gap."""
    ticket = product.new("flood", "--driver", "command", "--", "sh", "-c", "sleep 3; seq 1 100000000; sleep 1000")  # fmt: skip
    product.ctl("start", str(ticket))
    product.machine.wait_for(lambda: len(product.screen(ticket).split()) > 10, what="the flood")
    server = product.systemctl("show", "tmux-mc.service", "-p", "MainPID", "--value").stdout.strip()

    def memory() -> int:
        line = product.machine.sh(f"grep VmHWM /proc/{server}/status").stdout
        return int(line.split()[1]) >> 10

    before = memory()
    (old,) = writers(product, ticket)
    with drill.recovery():
        product.machine.sh(f"kill -STOP {old}")
        product.machine.wait_for(
            lambda: product.machine.sh(f"cut -d' ' -f3 /proc/{old}/stat").stdout != "T\n",
            what="it goes on", timeout=NOTICED_S,
        )  # fmt: skip
    assert f"(pid {old}) was stopped: it was told to go on" in journal(product, "pipe_stopped")
    assert gaps(product, ticket) == []
    with drill.recovery():
        product.machine.sh(f"kill -STOP {old}")
        product.machine.wait_for(
            lambda: set(writers(product, ticket)) - {old}, what="another writer", timeout=NOTICED_S
        )
    product.machine.wait_for(lambda: gaps(product, ticket), what="the gap")
    drill.note = f"tmux took {memory() - before} MiB more at most; the first stop lost nothing"
    assert memory() - before < 200
    product.ctl("close", str(ticket))


@pytest.mark.fault(13)
def test_a_log_that_was_deleted_is_made_again(product: Product) -> None:
    """Fault 13: else the writer would write into a file without a name until the ticket ends."""
    ticket = talker(product)
    log = f"{STATE}/tickets/{ticket}/pane.log"
    product.machine.sh(f"rm {log}")
    product.machine.wait_for(
        lambda: not product.machine.run(["test", "-e", log], check=False).returncode,
        what="the log", timeout=NOTICED_S,
    )  # fmt: skip
    product.type(ticket, "heard")
    product.machine.wait_for(lambda: "heard" in product.pane_log(ticket), what="the log goes on")
    assert [gap["reason"] for gap in gaps(product, ticket)] == ["the pane log was deleted"]
    product.machine.sh(f": > {log}")
    product.type(ticket, "and again")
    product.machine.wait_for(lambda: "and again" in product.pane_log(ticket), what="after a cut")


@pytest.mark.fault(12)
def test_a_full_disk_is_told_once_and_the_log_goes_on_with_space(product: Product) -> None:
    """Fault 12, logs: the worker runs on; within ten seconds of space what it prints is logged."""
    ticket = product.new("full", "--driver", "command", "--", "sh", "-c", "while :; do printf '%s %01000d\\n' now 0; sleep 0.2; done")  # fmt: skip
    folder = f"{STATE}/tickets/{ticket}"
    product.machine.sh(
        f"mkdir -p {folder}; mount -t tmpfs -o size=256k,uid=1000,mode=700 tmpfs {folder}",
        user="root",
    )
    product.ctl("start", str(ticket))
    pid = product.main_pid(ticket)
    product.machine.wait_for(lambda: product.pane_log(ticket), what="the log")
    time.sleep(2)
    product.machine.sh(f"head -c 1m /dev/zero > {folder}/ballast || true")
    said = f"Ticket {ticket}: its pane is not logged: there is no space"
    product.machine.wait_for(lambda: said in journal(product, "gap"), what="it is told", timeout=20)
    time.sleep(7)
    assert journal(product, "gap").count(said) == 1
    size = len(product.pane_log(ticket))
    product.machine.sh(f"rm {folder}/ballast")
    product.machine.wait_for(
        lambda: len(product.pane_log(ticket)) > size, what="the log goes on", timeout=10
    )
    product.machine.wait_for(lambda: gaps(product, ticket), what="the gap")
    assert product.main_pid(ticket) == pid
    product.ctl("stop", str(ticket))
    product.machine.sh(f"umount {folder}", user="root")


def test_each_warning_of_the_heartbeat(product: Product) -> None:
    """Disk, log, stuck turn, old message, lost session: each told, and each no longer when it is over."""
    ticket = product.new(
        "ill", "--driver", "command", "--isolation", "off", "--",
        "sh", "-c", "trap '' HUP; echo here; while :; do sleep 1; done",
    )  # fmt: skip
    product.ctl("start", str(ticket))
    product.wait_screen(ticket, "here")
    product.systemctl("stop", "mc-ingest.service", "mc-dispatch.service")
    product.systemctl("set-environment", "MC_HEARTBEAT_DISK_FREE_MB=999999999", "MC_LOGS_WARN_MB=0")
    sql = (
        "UPDATE tickets SET turn_state = 'busy', last_sign_at = now() - interval '31 minutes'"
        f" WHERE id = {ticket:d}; INSERT INTO queued_messages (ticket_id, body, created_at)"
        f" VALUES ({ticket:d}, 'x', now() - interval '16 minutes')"
    )
    psql = (
        f"{HOME}/.local/share/mission-control/postgresql/bin/psql -qh"
        " $XDG_RUNTIME_DIR/mission-control/postgres -d mission_control"
    )
    product.machine.sh(f'{psql} -c "{sql}"')
    product.machine.sh(f"tmux kill-session -t =ticket-{ticket}")
    product.machine.wait_for(lambda: not product.screen(ticket), what="the session is gone")
    assert product.unit(ticket)["ActiveState"] == "active"
    told = heartbeat(product)["warnings"]
    assert told[f"disk:{STATE}"].endswith("See: ticketctl gc")
    assert "MiB today" in told[f"log:{ticket}"]
    assert f"Ticket {ticket} is busy without a sign of life since" in told[f"stuck:{ticket}"]
    assert f"Ticket {ticket} has 1 queued since" in told[f"queue:{ticket}"]
    assert f"ticket@{ticket}.service is active, and its pane is not" in told[f"no-worker:{ticket}"]
    warned = journal(product, "warning")
    for said in told.values():
        assert said.split(" MiB")[0].rsplit(" ", 1)[0] in warned
    product.systemctl("unset-environment", "MC_HEARTBEAT_DISK_FREE_MB", "MC_LOGS_WARN_MB")
    product.machine.sh(f'{psql} -c "DELETE FROM queued_messages WHERE ticket_id = {ticket:d}"')
    product.ctl("stop", str(ticket))
    product.systemctl("start", "mc-ingest.service", "mc-dispatch.service")
    mine = {key for key in told if key.endswith(f":{ticket}")} | {f"disk:{STATE}"}
    assert len(mine) >= 5
    assert not mine & heartbeat(product)["warnings"].keys()
    assert f"No longer so: Ticket {ticket} is busy" in journal(product, "warning_over")


def test_what_came_apart_is_told_once(product: Product) -> None:
    """A session without its unit is a warning with a beginning and an end; worktrees have numbers."""
    repo = product.make_repository()
    ticket = product.new("apart", "--repo", repo, "--driver", "command", "--", "sleep", "1000")
    product.ctl("start", str(ticket))
    product.machine.sh(f"cd {HOME}/src/wt/ticket-{ticket}; echo x > x; echo more >> README")
    product.machine.sh("tmux new-session -d -s ticket-999 sleep 1000")
    data = heartbeat(product)
    assert "no-unit:999" in data["warnings"]
    (mine,) = [w for w in data["worktrees"] if w["ticket"] == ticket]
    assert mine["git"] == "*2"
    assert mine["disk_bytes"] > 0
    heartbeat(product)
    assert journal(product, "warning").count("The session ticket-999 runs") == 1
    product.machine.sh("tmux kill-session -t =ticket-999")
    assert "no-unit:999" not in heartbeat(product)["warnings"]
    assert "No longer so: The session ticket-999 runs" in journal(product, "warning_over")
