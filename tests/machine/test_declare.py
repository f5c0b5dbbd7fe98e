"""Boards on a booted machine: what a file says is what systemd does."""

from __future__ import annotations

import json
import tomllib
from functools import partial
from pathlib import Path

import pytest

from tests.machine.install import REPOSITORY
from tests.machine.machine import Machine
from tests.machine.product import HOME, Product

UNITS = f"{HOME}/.config/systemd/user"
FILES = (
    f"find {UNITS} -path '*ticket@[0-9]*' -o -path '*wants*' | sort | xargs stat -c '%n %i %y %s'"
)
SLEEP = 'command = ["sleep", "1000"]'


@pytest.fixture(scope="module")
def product(module_machine: Machine) -> Product:
    """One machine for the tests of this module; each has a board of its own."""
    made = Product(module_machine)
    made.make_repository()
    made.machine.sh(
        f"mkdir -p {UNITS}; printf '%s\\n' '[Service]' Type=oneshot"
        f" 'ExecStart=sh -c \"echo %i $MONITOR_UNIT >> {HOME}/alerts\"' > {UNITS}/alert@.service"
    )
    return made


def write(product: Product, board: str, text: str) -> str:
    """A board's path."""
    path = f"{HOME}/boards/{board}.toml"
    product.machine.run(["sh", "-c", f"mkdir -p {HOME}/boards; cat > {path}"], input=text)
    return path


def apply(product: Product, path: str, *args: str, status: int = 0) -> dict[str, int]:
    """Applies a board; the numbers of its tickets."""
    done = product.ctl("apply", "-f", path, "--json", *args, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return dict(json.loads(done.stdout)["tickets"]) if done.stdout else {}


def differs(product: Product, path: str, *args: str) -> bool:
    """Whether diff-state says so."""
    done = product.ctl("diff-state", "-f", path, *args, check=False)
    assert done.returncode in {0, 1}, done.stderr
    return done.returncode == 1


def props(product: Product, unit: str, *names: str) -> dict[str, str]:
    """systemctl show."""
    out = product.systemctl("show", unit, "-p", ",".join(names)).stdout
    return dict(line.split("=", 1) for line in out.splitlines())


def alerts(product: Product, number: int) -> list[str]:
    """Which unit's failure alert@NUMBER.service was started for, each time."""
    lines = [line.split() for line in product.read(f"{HOME}/alerts").splitlines()]
    return [unit for instance, unit in lines if instance == str(number)]


def test_applied_twice(product: Product) -> None:
    """The second changes nothing: no row, no file, no reload, no process; and says so."""
    path = write(product, "twice", f"""
        [tickets.twice-a]
        {SLEEP}
        repo = "~/src/demo"
        state = "running"
        MemoryMax = "2G"
        TasksMax = 100
        [tickets.twice-b]
        {SLEEP}
        schedule = "Mon..Fri 07:00"
        requires = ["twice-a"]
        CPUQuota = "150%"
    """)  # fmt: skip
    assert differs(product, path)
    numbers = apply(product, path)
    a, b = numbers["twice-a"], numbers["twice-b"]
    assert props(product, f"ticket@{a}", "MemoryMax", "TasksMax", "ActiveState") == {
        "MemoryMax": str(2 << 30), "TasksMax": "100", "ActiveState": "active",
    }  # fmt: skip
    assert props(product, f"ticket@{b}", "CPUQuotaPerSecUSec")["CPUQuotaPerSecUSec"] == "1.500000s"
    assert f"ticket@{a}.service" in product.systemctl("list-dependencies", f"ticket@{b}").stdout
    assert f"ticket@{b}.timer" in product.systemctl("list-timers").stdout
    assert product.systemctl("is-enabled", f"ticket@{b}.timer").stdout == "enabled\n"
    cursor = product.machine.sh("journalctl --user -n 0 --show-cursor").stdout.split("cursor: ")[1]
    before = product.machine.sh(FILES).stdout, product.show(a), product.show(b)
    said = product.ctl("apply", "-f", path)
    assert said.stdout == "Nothing to change: 2 as declared.\n"
    assert (product.machine.sh(FILES).stdout, product.show(a)["updated_at"]) == (
        before[0],
        before[1]["updated_at"],
    )
    assert product.show(b)["next_start"] == before[2]["next_start"] is not None
    assert product.main_pid(a) == before[1]["worker_pid"]
    reloads = product.machine.sh(
        f"journalctl --user --after-cursor='{cursor.strip()}' -g Reload --no-pager || true"
    ).stdout
    assert "Reloading" not in reloads
    assert not differs(product, path)


def test_systemd_starts_them_in_order(product: Product) -> None:
    """Started in one go, in whatever order, each begins once those before it are up."""
    path = write(product, "order", f"""
        [tickets.order-z]
        {SLEEP}
        [tickets.order-y]
        {SLEEP}
        requires = "order-z"
        [tickets.order-x]
        {SLEEP}
        after = "order-y"
    """)  # fmt: skip
    numbers = apply(product, path)
    x, y, z = (numbers[f"order-{name}"] for name in "xyz")
    assert product.unit(z)["ActiveState"] == "inactive"
    wants = f"ticket@{x}.service ticket@{y}.service"  # z comes by Requires=
    product.machine.run(
        ["sh", "-c", f"cat > {UNITS}/order.target"], input=f"[Unit]\nWants={wants}\n"
    )
    product.systemctl("daemon-reload")
    product.systemctl("start", "order.target")
    for number in (x, y, z):
        product.wait_active(number)
    stamps = ("InactiveExitTimestampMonotonic", "ActiveEnterTimestampMonotonic")
    shown = {number: props(product, f"ticket@{number}", *stamps) for number in (x, y, z)}
    began, up = ({n: int(s[stamp]) for n, s in shown.items()} for stamp in stamps)
    assert 0 < up[z] <= began[y] < up[y] <= began[x] < up[x], shown
    told = product.machine.sh("journalctl --user -o cat --no-pager -g '^Started ticket@'").stdout
    started = [line.split("@")[1].split(".")[0] for line in told.splitlines()]
    assert [int(n) for n in started if int(n) in {x, y, z}][-3:] == [z, y, x]
    product.ctl("stop", str(z))  # Requires= takes y along, After= leaves x
    assert [product.unit(n)["ActiveState"] for n in (x, y)] == ["active", "inactive"]


def test_a_schedule_starts_a_ticket(product: Product) -> None:
    """Some seconds ahead; gone from the board the timer is gone, and forgets when it elapsed."""
    when = product.machine.sh("date -d '+4 seconds' '+%F %T'").stdout.strip()
    path = write(product, "timed", f'[tickets.timed]\n{SLEEP}\nschedule = "{when}"\n')
    number = apply(product, path)["timed"]
    assert product.unit(number)["ActiveState"] == "inactive"
    product.wait_active(number)
    began = product.machine.sh(
        f"date -d \"$(systemctl --user show ticket@{number} -P InactiveExitTimestamp)\" '+%F %T'"
    ).stdout.strip()
    assert began >= when
    stamp = f"{HOME}/.local/share/systemd/timers/stamp-ticket@{number}.timer"
    product.machine.sh(f"test -e {stamp}")
    write(product, "timed", f"[tickets.timed]\n{SLEEP}\n")
    apply(product, path)
    assert f"ticket@{number}.timer" not in product.systemctl("list-timers", "--all").stdout
    product.machine.sh(f"! test -e {stamp} && ! test -e {UNITS}/ticket@{number}.timer")
    assert product.unit(number)["ActiveState"] == "active"
    assert not differs(product, path)


def test_a_schedule_that_was_changed_counts_from_now(product: Product) -> None:
    """What the new one would have missed today is not made up for."""
    path = write(product, "later", f'[tickets.later]\n{SLEEP}\nschedule = "yearly"\n')
    number = apply(product, path)["later"]
    stamp = f"{HOME}/.local/share/systemd/timers/stamp-ticket@{number}.timer"
    product.machine.sh(f"touch -d '3 days ago' {stamp}")  # when it elapsed last
    write(product, "later", f'[tickets.later]\n{SLEEP}\nschedule = "*-*-* 00:00:00"\n')
    apply(product, path)
    product.machine.run(["sleep", "2"])
    assert product.unit(number)["ActiveState"] == "inactive"
    assert product.show(number)["next_start"].endswith("T00:00:00+00:00")


def test_a_failure_is_told_once(product: Product) -> None:
    """Not at each crash that a restart mends, but when the ticket has failed for good."""
    path = write(product, "hopeless", """
        [tickets.hopeless]
        command = ["false"]
        on_failure = "alert@.service"
        state = "running"
    """)  # fmt: skip
    number = apply(product, path)["hopeless"]
    product.wait_active(number, "failed")
    product.machine.wait_for(lambda: alerts(product, number), what="an alert")
    assert alerts(product, number) == [f"ticket@{number}.service"]
    assert int(product.unit(number)["NRestarts"]) >= 4
    write(product, "hopeless", f"[tickets.hopeless]\n{SLEEP}\nstate = 'running'\n")
    apply(product, path)  # mended: it is started although it failed
    product.wait_active(number)


def test_a_crash_that_is_mended_is_not_told(product: Product) -> None:
    """Killed, the ticket is back, and nobody is alarmed."""
    text = f"[tickets.mended]\n{SLEEP}\non_failure = 'alert@.service'\nstate = 'running'\n"
    number = apply(product, write(product, "mended", text))["mended"]
    product.systemctl("kill", "-s", "KILL", f"ticket@{number}")
    product.machine.wait_for(lambda: product.unit(number)["NRestarts"] == "1", what="the restart")
    product.wait_active(number)
    assert alerts(product, number) == []


def test_runtime_max_ends_a_ticket(product: Product) -> None:
    """It fails with the reason, is told, and is not started again."""
    text = f"[tickets.brief]\n{SLEEP}\nRuntimeMaxSec = 2\non_failure = 'alert@.service'\nstate = 'running'\n"
    number = apply(product, write(product, "brief", text))["brief"]
    product.wait_active(number, "failed")
    unit = product.unit(number)
    assert (unit["Result"], unit["NRestarts"]) == ("timeout", "0")
    assert "RuntimeMaxSec=" in unit["StatusText"]
    product.machine.wait_for(lambda: alerts(product, number), what="an alert")
    product.machine.run(["sleep", "1"])
    assert product.unit(number)["ActiveState"] == "failed"
    assert product.show(number)["status"] == "open"


def test_prune_loses_nothing(product: Product) -> None:
    """What is gone is stopped and closed; where work would be lost it stays, and is named."""
    product.make_repository(f"{HOME}/prune/demo")
    text = "".join(
        f"[tickets.prune-{name}]\n{SLEEP}\nrepo = '{HOME}/prune/demo'\nstate = 'running'\n"
        "MemoryMax = '1G'\nschedule = 'daily'\n"
        for name in ("keep", "clean", "dirty")
    )
    path = write(product, "prune", text)
    other = product.new("by hand", "--driver", "command", "--", "sleep", "1000")
    numbers = apply(product, path)
    keep, clean, dirty = (numbers[f"prune-{name}"] for name in ("keep", "clean", "dirty"))
    worktree = product.show(dirty)["worktree_path"]
    product.machine.sh(f"echo precious > {worktree}/work")
    write(product, "prune", text.split("[tickets.prune-clean]")[0])
    assert apply(product, path) == {"prune-keep": keep}  # without --prune nobody is touched
    assert product.unit(clean)["ActiveState"] == "active"
    assert differs(product, path, "--prune")
    done = product.ctl("apply", "-f", path, "--prune", check=False)
    assert done.returncode == 5
    assert "would lose work" in done.stderr
    assert f"prune-dirty (ticket {dirty})" in done.stderr
    assert product.show(clean)["status"] == "closed"
    assert product.show(dirty)["status"] != "closed"
    assert product.read(f"{worktree}/work") == "precious\n"
    for number in (clean, dirty):
        assert product.unit(number)["ActiveState"] == "inactive"
        product.machine.sh(f"! ls {UNITS} {UNITS}/mc.target.wants | grep -q 'ticket@{number}[.]'")
    assert product.unit(keep)["ActiveState"] == "active"
    product.ctl("show", str(other))
    product.machine.sh(f"rm {worktree}/work")
    assert apply(product, path, "--prune") == {"prune-keep": keep}
    assert product.show(dirty)["status"] == "closed"
    write(product, "prune", "")
    done = product.ctl("apply", "-f", path, "--prune", check=False)  # a file that was truncated
    assert (done.returncode, f"ticketctl close {keep}" in done.stderr) == (2, True)
    write(product, "prune", text)  # a name that was pruned is free
    again = apply(product, path)
    assert again["prune-keep"] == keep
    assert again["prune-clean"] > dirty


def test_a_board_that_cannot_be_used_changes_nothing(product: Product) -> None:
    """Each kind of mistake: all of it is told, with exit status 2; no row, no file, no process."""
    good = f"[tickets.bad-a]\n{SLEEP}\nstate = 'running'\nMemoryMax = '1G'\n"
    rows, files = product.ctl("list", "--all").stdout, product.machine.sh(FILES).stdout
    commands = [["apply"], ["apply", "--dry-run"], ["diff-state"]]
    for text, said in (
        (
            "[tickets.bad-b]\nMemoryMx = '2G'\n",
            "bad.toml:6: 'MemoryMx' is no key of a ticket.\n       Did you mean MemoryMax?",
        ),
        ("[tickets.bad-b]\nafter = 'nobody'\n", "There is no ticket 'nobody'."),
        ("[tickets.bad-b]\nafter = 99999\n", "There is no ticket 99999."),
        ("[tickets.bad-b]\non_failure = 'nothing.service'\n", "There is no unit nothing.service."),
        (
            "[tickets.bad-b]\nschedule = 'Blursday 07:00'\n",
            "'Blursday 07:00' is no calendar expression.",
        ),
        ("[tickets.bad-b]\nMemoryMax = '2'\n", "2 bytes hold no agent"),
        (
            "[tickets.bad-b]\nafter = 'bad-c'\n[tickets.bad-c]\nafter = 'bad-b'\n",
            "They wait for one another",
        ),
        ("[tickets.bad-b]\nrepo = '/nowhere'\n", "/nowhere is no folder."),
        (f"[tickets.bad-b]\nrepo = '{HOME}/src/demo'\nbase = 'nope'\n", "has no commit 'nope'"),
        ("[tickets.bad-b]\nprompt_file = '/dev/zero'\n", "is no plain file"),
        ("[tickets.bad-b\n", "bad.toml: "),
    ):
        path = write(product, "bad", good + text)
        for command in commands:
            done = product.ctl(*command, "-f", path, check=False)
            assert done.returncode == 2, done
            assert said in done.stderr, done.stderr
            assert not done.stdout
        commands = [["apply"]]
    assert (product.ctl("list", "--all").stdout, product.machine.sh(FILES).stdout) == (rows, files)
    done = product.ctl("apply", "-f", f"{HOME}/boards/none.toml", check=False)
    assert (done.returncode, "No such file" in done.stderr) == (2, True)


def test_folders_stdin_and_a_dry_run(product: Product) -> None:
    """A folder is its *.toml; - is stdin; a dry run does nothing."""
    folder = f"{HOME}/folder"
    product.machine.sh(
        f'mkdir -p {folder}; printf \'[tickets.dir-a]\\nprompt_file = "a.md"\\ndriver = "demo"\\n\' > {folder}/a.toml;'
        f" printf 'do it' > {folder}/a.md; printf '[tickets.dir-b]\\nafter = \"dir-a\"\\n' > {folder}/b.toml"
    )
    before = product.ctl("list").stdout
    assert "2 to make" in product.ctl("apply", "-f", folder, "--dry-run").stdout
    assert product.ctl("list").stdout == before
    numbers = apply(product, folder)
    assert product.show(numbers["dir-a"])["prompt"] == "do it"
    product.machine.sh(f"rm {folder}/b.toml")
    apply(product, folder, "--prune")
    assert product.show(numbers["dir-b"])["status"] == "closed"
    done = product.machine.run(
        [f"{HOME}/.local/bin/ticketctl", "apply", "-f", "-"], input="[tickets.from-stdin]\n"
    )
    assert "from-stdin is ticket" in done.stdout


def test_a_limit_is_set_at_once(product: Product) -> None:
    """On a running ticket; it wins over the board, is shown as a difference, and is taken back."""
    text = f"[tickets.set-a]\n{SLEEP}\nstate = 'running'\nMemoryMax = '2G'\n"
    path = write(product, "set", text)
    number = apply(product, path)["set-a"]
    folder = f"{UNITS}/ticket@{number}.service.d"
    product.machine.sh(f"printf '[Service]\\nEnvironment=MINE=1\\n' > {folder}/override.conf")
    pid = product.main_pid(number)
    product.ctl("set", str(number), "MemoryMax=3G", "CPUQuota=50%", "TasksMax=77")
    shown = props(product, f"ticket@{number}", "MemoryMax", "CPUQuotaPerSecUSec", "TasksMax")
    assert shown == {"MemoryMax": str(3 << 30), "CPUQuotaPerSecUSec": "500ms", "TasksMax": "77"}
    assert product.main_pid(number) == pid
    group = f"/sys/fs/cgroup{product.unit(number)['ControlGroup']}"
    if "memory" in product.machine.cgroup_controllers():
        assert product.read(f"{group}/memory.max").strip() == str(3 << 30)
    held = product.show(number)
    assert held["limits"]["MemoryMax"] == 3 << 30
    assert (held["declared"], held["set"]["TasksMax"]) == ({"MemoryMax": "2G"}, "77")
    assert "MemoryMax=3G" in product.ctl("show", str(number)).stdout
    assert differs(product, path)
    apply(product, path)
    assert props(product, f"ticket@{number}", "MemoryMax")["MemoryMax"] == str(3 << 30)
    product.ctl("set", str(number), "MemoryMax=", "CPUQuota=", "TasksMax=")
    assert props(product, f"ticket@{number}", "MemoryMax")["MemoryMax"] == str(2 << 30)
    assert not differs(product, path)
    for wrong in ("MemoryMx=2G", "MemoryMax=2", "ExecStart=/bin/sh", "MemoryMax", "After=99999",
                  f"After={number}", "OnFailure=nothing.service", "MemoryMax=2G\nExecStart=x"):  # fmt: skip
        done = product.ctl("set", str(number), "TasksMax=5", wrong, check=False)
        assert done.returncode == 2, (wrong, done)
    assert product.machine.sh(f"ls {folder}").stdout.split() == [
        "50-mission-control.conf", "override.conf",
    ]  # fmt: skip
    product.ctl("close", str(number))
    assert product.machine.sh(f"ls {folder}").stdout.split() == ["override.conf"]
    assert product.ctl("set", str(number), "TasksMax=5", check=False).returncode == 5


@pytest.mark.parametrize("folder", sorted(p.name for p in (REPOSITORY / "examples").iterdir()))
def test_the_example_can_be_applied(product: Product, folder: str) -> None:
    """As it is, twice: what is to run runs and answers, systemd has the timers, bounds and hooks it asks for."""
    example: Path = REPOSITORY / "examples" / folder
    for file in example.iterdir():
        product.machine.run(
            ["sh", "-c", f"mkdir -p {HOME}/examples/{folder}; cat > {HOME}/examples/{folder}/{file.name}"],
            input=file.read_text(encoding="utf-8"),
        )  # fmt: skip
    path = f"{HOME}/examples/{folder}"
    board = tomllib.loads((example / "board.toml").read_text(encoding="utf-8"))
    numbers = apply(product, path)
    assert numbers.keys() == board["tickets"].keys()
    assert not differs(product, path)
    for name, table in board["tickets"].items():
        wanted, number = board["defaults"] | table, numbers[name]
        got = props(
            product, f"ticket@{number}", "ActiveState", "MemoryMax", "TasksMax", "CPUWeight",
            "RuntimeMaxUSec", "OnFailure", "After", "Requires",
        )  # fmt: skip
        runs = wanted.get("state") == "running"
        assert got["ActiveState"] == ("active" if runs else "inactive"), name
        assert got["MemoryMax"] == str(int(wanted["MemoryMax"][:-1]) << 30), name
        assert got["TasksMax"] == str(wanted["TasksMax"]), name
        if "CPUWeight" in wanted:
            assert got["CPUWeight"] == str(wanted["CPUWeight"]), name
        assert (got["RuntimeMaxUSec"] != "infinity") == ("RuntimeMaxSec" in wanted), name
        watcher = wanted.get("on_failure") or None
        assert got["OnFailure"] == (f"ticket@{numbers[watcher]}.service" if watcher else ""), name
        for key, edge in (("after", "After"), ("requires", "Requires")):
            for other in table.get(key, []):
                assert f"ticket@{numbers[other]}.service" in got[edge].split(), (name, edge)
        timer = props(product, f"ticket@{number}.timer", "ActiveState", "NextElapseUSecRealtime")
        assert (timer["ActiveState"] == "active") == ("schedule" in table), (name, timer)
        if runs:
            product.machine.wait_for(partial(product.hooks, number, "Stop"), what="an answer")


def test_a_long_chain_is_read_in_time(product: Product) -> None:
    """A hundred and fifty at rest, each after the one before: systemd does not read all for each."""
    text = "".join(
        f"[tickets.chain-{n}]\n{SLEEP}\n" + (f"after = 'chain-{n - 1}'\n" if n else "")
        for n in range(150)
    )
    path = write(product, "chain", text)
    assert len(apply(product, path)) == 150
    assert not differs(product, path)  # ctl gives up after a minute
