"""ticketctl list, status and top: on a terminal, piped, and followed."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import cli_top, terminal
from orchestrator.asking import Asking
from orchestrator.cli_top import Line
from orchestrator.config import Config
from orchestrator.permits import requests_folder
from orchestrator.store import events, messages, tickets
from orchestrator.store.db import Database

PROGRAM = [sys.executable, "-c", "from orchestrator.cli import main; main(prog_name='ticketctl')"]
HOSTILE = "x\x1b]0;owned\x07\x1b[2J\tb\n\u202ec"


@pytest.fixture
def home(tmp_path: Path, database: Database) -> dict[str, str]:
    """An environment for ticketctl; no user bus is in it."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "XDG_RUNTIME_DIR": str(tmp_path / "run"),
        "MC_DATABASE_URL": database._dsn,
        "TERM": "xterm",
    }


def ticketctl(home: dict[str, str], *args: str) -> subprocess.CompletedProcess[str]:
    """Piped."""
    return subprocess.run(
        [*PROGRAM, *args], env=home, capture_output=True, text=True, check=False, timeout=60,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


class Terminal:
    """ticketctl on a terminal of so many columns."""

    def __init__(self, home: dict[str, str], *args: str, columns: int = 100) -> None:
        self.fd, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.before = termios.tcgetattr(inner)
        # who starts tests in the background may have had SIGINT ignored
        self.process = subprocess.Popen(
            ["env", "--default-signal=INT", *PROGRAM, *args],
            env=home,
            stdin=inner,
            stdout=inner,
            stderr=inner,
        )
        self.inner = inner
        self.text = ""

    def read_until(self, wanted: str, timeout_s: float = 30) -> str:
        """What it printed, up to there."""
        deadline = time.monotonic() + timeout_s
        while wanted not in self.text:
            assert select.select([self.fd], [], [], deadline - time.monotonic())[0], self.text
            self.text += os.read(self.fd, 65536).decode()
        return self.text

    def type(self, text: str) -> None:
        """Keys."""
        os.write(self.fd, text.encode())

    def end(self) -> int:
        """Its exit status; nothing of it stays."""
        try:
            return self.process.wait(20)
        finally:
            self.process.kill()
            os.close(self.fd)
            os.close(self.inner)


def line(number: int, **facts: object) -> Line:
    """One ticket of top."""
    usual: dict[str, object] = {
        "id": number, "title": "t", "status": "in_progress", "turn_state": "busy", "state_since": None,
        "turn_since": None, "cost_usd": 0.5, "memory_bytes": None, "cpu_s": None, "cpu_percent": None,
        "tasks": None,
    }  # fmt: skip
    return Line(**{**usual, **facts})  # type: ignore[arg-type]


@given(
    st.lists(st.lists(st.text(max_size=60), min_size=4, max_size=4), max_size=5),
    st.integers(50, 200),
)
def test_a_table_fits_whatever_is_in_it(rows: list[list[str]], columns: int) -> None:
    """No line is wider than the terminal, and none holds what a terminal would obey."""
    for row in terminal.table(["ID", "STATUS", "WHERE", "TITLE"], rows, columns):
        assert terminal.width(row) <= columns
        assert not re.search(r"[\x00-\x1f\x7f\u202e]", row)


def test_the_widest_column_gives_way_first() -> None:
    """The last one down to 20 cells, then the others; numbers stay whole."""
    rows = [["7", "a" * 40, "b" * 90]]
    _, wide = terminal.table(["ID", "PATH", "TITLE"], rows, 100)
    assert wide.startswith(f"7   {'a' * 40}  bbb")
    assert wide.endswith("…")
    _, narrow = terminal.table(["ID", "PATH", "TITLE"], rows, 40)
    assert narrow == f"7   {'a' * 13}…  {'b' * 19}…"
    assert terminal.fit("日本語", 5) == "日本…"


def test_a_narrow_terminal_keeps_what_matters() -> None:
    """On a phone's forty columns: number, state and title; at eighty only what has no room is left out."""
    head = ["ID", "STATUS", "STATE", "COST", "TITLE"]
    rows = [["7", "in_progress", "▲ waiting_permission", "0.25", "日本語のタイトル of some length"]]
    go = ("COST", "STATUS")
    names, shown = terminal.table(head, rows, 40, first_to_go=go)
    assert names.split() == ["ID", "STATE", "TITLE"]
    assert "▲ wait" in shown
    assert "日本語" in shown
    assert terminal.width(shown) <= 40
    assert terminal.table(head, rows, 80, first_to_go=go)[0].split() == head
    assert terminal.table(head, rows, 46, first_to_go=go)[0].split() == [
        "ID",
        "STATUS",
        "STATE",
        "TITLE",
    ]


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_list_and_status_fit_the_terminal(
    home: dict[str, str], database: Database, columns: int
) -> None:
    """Wide characters too; a long title ends in …, where there is no room for it."""
    title = "日本語のタイトル とても長い題名 " * 2 + "and then some"
    ticket = tickets.create(database, title=title)
    for words in (["list"], ["status", str(ticket.id)]):
        shell = Terminal(home, *words, columns=columns)
        text = shell.read_until("some\r\n" if columns == 200 else "…\r\n")
        shell.end()
        first = next(line for line in text.splitlines() if "日本語" in line)
        shown = re.sub(r"\x1b\[[0-9;]*m", "", first)
        assert terminal.width(shown.rstrip()) <= columns, (columns, shown)
        assert ("…" in shown) is (columns < 200)


def test_status_reads_like_systemctls(
    home: dict[str, str], database: Database, tmp_path: Path
) -> None:
    """Unit, state and for how long, cost, queue, what it asks for and how to answer, the last events."""
    ticket = tickets.create(database, title=HOSTILE.replace("\n", ""))
    tickets.update(database, ticket.id, turn_state="waiting_permission", status="needs_input")
    for number in range(12):
        events.record(
            database, ticket.id, "tool_use", tool_name=f"Tool{number}", tool_input=HOSTILE
        )
    events.record(database, ticket.id, "state", **{"from": "busy", "to": "waiting_permission"})
    messages.enqueue(database, ticket.id, "go on")
    config = Config(runtime_dir=tmp_path / "run/mission-control", state_dir=tmp_path)
    asking = Asking(
        str(requests_folder(config.ticket_paths(ticket.id))), "Bash", {"command": HOSTILE}
    )
    done = ticketctl(home, "status", str(ticket.id))
    said = json.loads(ticketctl(home, "status", "--json", str(ticket.id)).stdout)
    asking.close()
    assert done.returncode == 3, done.stderr
    assert "The user's systemd bus does not answer" in done.stderr
    for wanted in (f"ticket@{ticket.id}.service - x", "State: ▲ waiting_permission for 0 s; ticket needs_input",
                   "Queue: 1 waiting", "Asks: Bash", f"answer: ticketctl permit {ticket.id} allow|deny",
                   "Tool11", "busy -> waiting_permission"):  # fmt: skip
        assert wanted in done.stdout
    assert "Tool1 " not in done.stdout, "more than the last ten"
    assert not re.search(r"[\x00-\x09\x0b-\x1f\u202e]", done.stdout)
    assert (said["queued"], said["asks"][0]["tool"], len(said["events"])) == (1, "Bash", 10)
    assert ticketctl(home, "status", "999").returncode == 4


def test_top_piped_is_plain(home: dict[str, str], database: Database) -> None:
    """One row a ticket that runs, tab-separated; closed and open ones are not in it."""
    running = tickets.create(database, title="the one")
    tickets.create(database, title="not started")
    tickets.update(database, running.id, status="in_progress", turn_state="busy", cost_usd=1.5)
    events.record(database, running.id, "user_prompt", prompt="x")
    done = ticketctl(home, "top")
    assert done.returncode == 0, done.stderr
    row = done.stdout.rstrip("\n").split("\t")
    assert [row[0], row[1], row[4], row[-1]] == [str(running.id), "◐ busy", "1.50", "the one"]
    assert re.fullmatch(r"[0-9]{1,2} s", row[3])
    assert "\x1b" not in done.stdout
    found = [
        json.loads(text)
        for text in ticketctl(home, "top", "--json", "-n2", "-d0.1").stdout.splitlines()
    ]
    assert [[one["id"] for one in look] for look in found] == [[running.id]] * 2


def test_top_on_a_terminal_refreshes_and_q_leaves(home: dict[str, str], database: Database) -> None:
    """What changes is shown; q gives the terminal back as it was."""
    ticket = tickets.create(database, title="first title")
    tickets.update(database, ticket.id, status="in_progress", turn_state="busy")
    screen = Terminal(home, "top", "-d", "0.2")
    screen.read_until("first title")
    assert "\x1b[?1049h" in screen.text
    tickets.update(database, ticket.id, title="second title")
    screen.read_until("second title")
    screen.type("q")
    screen.read_until("\x1b[?1049l")
    screen.process.wait(20)  # the modes go back after the last byte
    after = termios.tcgetattr(screen.inner)
    assert screen.end() == 0
    assert after[3] == screen.before[3]


def test_ctrl_c_leaves_top_too(home: dict[str, str], database: Database) -> None:
    """Without a word, and with the terminal as it was."""
    tickets.create(database, title="x")
    screen = Terminal(home, "top")
    screen.read_until("0 tickets")
    screen.process.send_signal(signal.SIGINT)
    screen.read_until("\x1b[?1049l")
    screen.process.wait(20)  # the modes go back after the last byte
    after = termios.tcgetattr(screen.inner)
    assert screen.end() == 0
    assert after[3] == screen.before[3]
    assert "Abort" not in screen.text


def test_list_watch_follows(home: dict[str, str], database: Database) -> None:
    """On a terminal the table is drawn anew when a ticket changes, at once; q leaves."""
    screen = Terminal(home, "list", "--watch", columns=70)
    screen.read_until("No tickets yet")
    tickets.create(database, title="came later " + "x" * 80)
    screen.read_until("came later", timeout_s=3)
    screen.type("q")
    assert screen.end() == 0
    rows = screen.text.split("\x1b[H")[-1].splitlines()
    assert max(len(re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", row)) for row in rows) <= 70


def test_list_watch_piped_gives_what_changed(home: dict[str, str], database: Database) -> None:
    """First all tickets, then one line for each that changed."""
    first = tickets.create(database, title="one")
    tickets.create(database, title="two")
    with subprocess.Popen(
        [*PROGRAM, "list", "--watch", "--json"], env=home, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        lines: Iterator[str] = iter(process.stdout)
        assert [json.loads(next(lines))["title"] for _ in range(2)] == ["one", "two"]
        tickets.update(database, first.id, title="changed")
        assert json.loads(next(lines))["title"] == "changed"
        process.terminate()


def test_the_share_of_the_cpu_is_since_the_look_before(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None at first and where the count began anew; else the seconds used by the seconds passed."""
    looks = cli_top.Looks(database)
    now = iter([0.0, 2.0, 3.0, 4.0])
    monkeypatch.setattr(cli_top.time, "monotonic", lambda: next(now))
    assert [looks._share(1, cpu) for cpu in (10.0, 11.0, 4.0, 4.5)] == [None, 50.0, None, 50.0]


def test_the_page_of_top_says_the_sum_and_what_is_missing() -> None:
    """A head with the sums, the reason where the kernel's counts are missing, who waits in yellow."""
    then = datetime.now(UTC) - timedelta(minutes=5)
    found = [
        line(1, cost_usd=1.0, memory_bytes=100 << 20, cpu_percent=12.0, turn_since=then),
        line(2, turn_state="waiting_answer"),
    ]
    shown = cli_top.page(found, "no bus", 90)
    assert shown[0].rstrip() == "2 tickets, 2 in a turn, 1 wait for you; $1.50, 100 MiB, CPU 12%"
    assert "no bus" in shown[1]
    assert "5 min" in shown[4]
    assert shown[5].startswith("\x1b[33m")


def test_list_starts_quickly(home: dict[str, str], database: Database) -> None:
    """Nothing that list does not need is imported, and its own work is under 150 ms of CPU."""
    tickets.create(database, title="one")
    heavy = (
        "{'pystemd', 'libtmux', 'jinja2', 'gevent', 'bottle', 'watchdog', 'difflib', 'subprocess'}"
    )
    program = f"import sys; from orchestrator.cli import main; main(['list'], standalone_mode=False); print(sorted({heavy} & set(sys.modules)), sorted(m for m in sys.modules if '.cli_' in m))"
    done = subprocess.run(
        [sys.executable, "-c", program], env=home, capture_output=True, text=True, check=True
    )
    commands = "['orchestrator.cli_common', 'orchestrator.cli_look']"
    assert done.stdout.splitlines()[-1] == f"[] {commands}"
    spent = []
    for _ in range(5):
        before = os.times()
        assert ticketctl(home, "list").returncode == 0
        after = os.times()
        spent.append(
            after.children_user
            + after.children_system
            - before.children_user
            - before.children_system
        )
    assert min(spent) < 0.15, spent
