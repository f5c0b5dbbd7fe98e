"""Backups on a booted machine: the night's timer, a cluster that is gone, another major release."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.machine.cache import Layer
from tests.machine.fixtures import NewMachine
from tests.machine.machine import Machine
from tests.machine.product import HOME, STATE, Product

BACKUPS = f"{STATE}/backups"
PSQL = (
    f"{HOME}/.local/share/mission-control/postgresql/bin/psql"
    " -h $XDG_RUNTIME_DIR/mission-control/postgres -d mission_control"
)
#: the libraries of Debian 12's PostgreSQL that Debian 13 has in other versions only
OLD_LIBRARIES = ("libicudata.so.72", "libicui18n.so.72", "libicuuc.so.72", "libldap-2.5.so.0", "liblber-2.5.so.0")  # fmt: skip
LIBRARIES = "usr/lib/x86_64-linux-gnu"


def furnish(product: Product) -> int:
    """A demo ticket that has answered, and is stopped; a message waits for it."""
    ticket = product.new("Say hello", "--driver", "demo", "--repo", product.make_repository())
    product.ctl("start", str(ticket))
    product.machine.wait_for(
        lambda: "turn_end" in product.machine.sh(f"{PSQL} -Atc 'TABLE ticket_events'").stdout,
        what="the end of the turn as a row",
    )  # fmt: skip
    product.ctl("stop", str(ticket))
    return ticket


def rows(product: Product) -> list[str]:
    """What a restore has to bring back, as text."""
    tables = {
        "tickets": "id, title, prompt, status, session_id, cost_usd, worktree_path, base_sha, created_at",
        "ticket_events": "*", "worktrees": "*", "ingest_positions": "*",
    }  # fmt: skip
    said = "; ".join(f"SELECT {w} FROM {t} ORDER BY 1" for t, w in tables.items())
    return product.machine.sh(f'{PSQL} -Atc "{said}"').stdout.splitlines()


def backups(product: Product) -> list[str]:
    """Their names, oldest first."""
    return product.machine.sh(f"ls -A {BACKUPS}").stdout.split()


def test_the_nights_backup_survives_the_loss_of_the_cluster(machine: Machine) -> None:
    """Timer, unit, a destroyed cluster, setup that does not begin anew, restore: every row is back."""
    product = Product(machine)
    assert "mc-backup.timer" in product.systemctl("list-timers", "--all").stdout
    ticket = furnish(product)
    before = rows(product)
    assert len(before) > 5
    product.systemctl("start", "mc-backup.service")
    (name,) = backups(product)
    assert product.machine.sh(f"stat -c '%a %U' {BACKUPS} {BACKUPS}/{name}").stdout.split() == ["700", "op", "600", "op"]  # fmt: skip
    product.systemctl("stop", "mc-postgres.service")
    product.machine.sh(f"rm -rf {STATE}/postgres")
    done = product.ctl("setup", check=False)
    assert done.returncode == 78
    assert "1 backups, the newest" in done.stderr
    assert "restore --new-cluster latest" in done.stderr
    assert product.machine.run(["test", "-e", f"{STATE}/postgres"], check=False).returncode
    product.ctl("restore", "--new-cluster", "latest")
    assert rows(product) == before
    assert "Nothing had to be changed" in product.ctl("setup").stdout
    # and it is a whole product again: the conversation goes on, with its events
    product.ctl("start", str(ticket))
    product.wait_screen(ticket, "resumed, 2 messages")
    # while it runs nothing is put back
    done = product.ctl("restore", "latest", check=False)
    assert done.returncode == 5
    assert f"would be forgotten: {ticket}." in done.stderr
    pid = product.main_pid(ticket)
    product.ctl("restore", "latest", "--force")
    assert product.main_pid(ticket) == pid
    assert product.show(ticket)["worker_pid"] == pid
    product.say(ticket, "hello what is 2+2")
    product.wait_screen(ticket, "2 + 2 = 4")
    listed = json.loads(product.ctl("restore", "--json").stdout)
    assert [entry.get("path", entry.get("database", ""))[:30] for entry in listed] == [
        f"{BACKUPS}/{name}"[:30], "mission_control_before_20"[:30] + listed[1]["database"][25:30],
    ]  # fmt: skip
    product.ctl("stop", str(ticket))
    product.ctl("restore", listed[1]["database"])
    assert "2 + 2 = 4" in product.pane_log(ticket)


def test_a_full_disk_costs_no_backup(machine: Machine) -> None:
    """Said with what to do; the ones there were stay, no part of one is left, and it works again."""
    product = Product(machine)
    furnish(product)
    product.ctl("backup")
    size = int(product.machine.sh(f"stat -c %s {BACKUPS}/*.dump").stdout)
    product.machine.sh(
        f"mv {BACKUPS} {BACKUPS}.before; mkdir -m 700 {BACKUPS};"
        f" mount -t tmpfs -o size={size + 16384},uid=$(id -u op),mode=700 tmpfs {BACKUPS};"
        f" cp -p {BACKUPS}.before/* {BACKUPS}/; chown op: {BACKUPS}",
        user="root",
    )
    there = backups(product)
    done = product.ctl("backup", check=False)
    assert done.returncode == 78
    assert "could not be written" in done.stderr
    assert "df -h" in done.stderr
    assert backups(product) == there
    assert product.systemctl("start", "mc-backup.service", check=False).returncode
    assert product.systemctl("is-failed", "mc-backup.service").stdout == "failed\n"
    assert backups(product) == there
    product.ctl("restore", "latest")
    product.machine.sh(f"mount -o remount,size=100m {BACKUPS}", user="root")
    product.systemctl("start", "mc-backup.service")
    assert len(backups(product)) == 2


def old_postgres(layer: Layer) -> dict[str | Path, str]:
    """Debian 12's PostgreSQL, to be shown to a machine with Debian 13: what is there to where."""

    def find(path: str) -> Path:
        return next(p for folder in layer.lowerdirs() if (p := folder / path).exists())

    binds: dict[str | Path, str] = {find(f"usr/{kind}/postgresql/15"): f"/usr/{kind}/postgresql/15" for kind in ("lib", "share")}  # fmt: skip
    for name in OLD_LIBRARIES:
        binds[find(f"{LIBRARIES}/{name}").resolve()] = f"/{LIBRARIES}/{name}"
    return binds


@pytest.mark.timeout(900)
def test_another_major_release(
    installed_on: Callable[[str], Layer], fresh_machine: NewMachine
) -> None:
    """15 to 17, with a dump taken just then; and where 15 is gone, from the night's backup."""
    binds = old_postgres(installed_on("bookworm"))
    machine = fresh_machine(installed_on("trixie"), binds=binds)
    product = Product(machine)
    link = f"{HOME}/.local/share/mission-control/postgresql"
    product.systemctl("stop", "mc-postgres.service")
    product.machine.sh(
        f"rm -rf {STATE}/postgres; ln -sfn /usr/lib/postgresql/15 {link};"
        f" {link}/bin/initdb --pgdata {STATE}/postgres --auth-local=peer --encoding=UTF8 --locale=C.UTF-8"
    )
    said = product.ctl("setup").stdout
    assert "PostgreSQL 17 is installed too" in said
    ticket = furnish(product)
    before = rows(product)
    assert product.read(f"{STATE}/postgres/PG_VERSION") == "15\n"
    product.ctl("backup")

    # Debian's upgrade took the old one's programs away
    product.systemctl("disable", "mc.target")  # or the machine waits for what cannot come up
    machine.power_off()
    machine.binds = {}
    machine.boot()
    assert product.systemctl("start", "mc-postgres.service", check=False).returncode
    assert product.ctl("list", check=False).returncode == 75
    done = product.ctl("setup", check=False)
    assert done.returncode == 78
    assert "PostgreSQL 15, which is not installed any more; 17 is." in done.stderr
    assert "apt install postgresql-15" in done.stderr
    assert product.ctl("restore", "--new-cluster", check=False).returncode == 78
    product.ctl("restore", "--new-cluster", "latest")
    assert product.read(f"{STATE}/postgres/PG_VERSION") == "17\n"
    assert rows(product) == before
    product.ctl("setup")
    aside = product.machine.sh(f"ls -d {STATE}/postgres.15-*").stdout.strip()

    # and with both: back to the old cluster, and over with what was done meanwhile
    machine.power_off()
    machine.binds = dict(binds)
    machine.boot()
    product.systemctl("stop", "mc-postgres.service")
    product.machine.sh(f"mv {STATE}/postgres {STATE}/postgres.17; mv {aside} {STATE}/postgres")
    product.ctl("setup")
    assert rows(product) == before
    product.new("made with 15", "--driver", "demo")
    now = rows(product)
    product.ctl("restore", "--new-cluster")
    assert product.read(f"{STATE}/postgres/PG_VERSION") == "17\n"
    assert rows(product) == now != before
    assert "Nothing had to be changed" in product.ctl("setup").stdout
    product.ctl("start", str(ticket))
    product.wait_screen(ticket, "resumed, 2 messages")
