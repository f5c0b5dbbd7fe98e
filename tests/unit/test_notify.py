"""notify.py: who is told that a ticket waits, with what, and how often; against a real PostgreSQL."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from email.header import decode_header, make_header
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from orchestrator import config as configuration
from orchestrator import notify as module
from orchestrator.notify import Notifier
from orchestrator.store import ingestion, messages, tickets
from orchestrator.store.db import Database

TITLE = 'Fix $(it); "now" é 漢\nX-Evil: 1'
WRITE = ["/bin/sh", "-c", 'cat >> "$0.json"; env | grep ^TICKET_ >> "$0.env"; echo told >> "$0"']


#: systemd-run, as far as it is used; the real one is asked on a machine
STAND_IN = """#!/usr/bin/python3
import os, signal, subprocess, sys
at = sys.argv.index("--")
options = [a.partition("=") for a in sys.argv[1:at]]
said = dict(v.split("=", 1) for k, _, v in options if k == "--property")
names = {v for k, _, v in options if k == "--setenv"}
kept = {k: v for k, v in os.environ.items() if not k.startswith("TICKET_") or k in names}
argv = [word.replace("$$", "$") for word in sys.argv[at + 1:]]
given = open(said["StandardInput"].removeprefix("file:"), "rb")
process = subprocess.Popen(argv, env=kept, stdin=given, stdout=subprocess.DEVNULL, start_new_session=True)
try:
    status = process.wait(float(said["RuntimeMaxSec"]))
except subprocess.TimeoutExpired:
    os.killpg(process.pid, signal.SIGKILL)
    sys.exit("Finished with result: timeout")
if status:
    print("Running as unit: x.service", "Finished with result: exit-code",
          f"Main processes terminated with: code=exited/status={status}", sep="\\n", file=sys.stderr)
sys.exit(status)
"""


@pytest.fixture(autouse=True)
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no user manager here."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "systemd-run").write_text(STAND_IN)
    (folder / "systemd-run").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


class Topic(ThreadingHTTPServer):
    """A local HTTP server that keeps what it gets."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        self.status = 200
        self.url = f"http://127.0.0.1:{self.server_address[1]}/topic"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    server: Topic

    def do_POST(self) -> None:
        """Keeps it."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.path, dict(self.headers), body))
        self.send_response(self.server.status)
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Silence."""


@pytest.fixture
def topic() -> Iterator[Topic]:
    """A running one."""
    server = Topic()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def journal(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is said there."""
    said: list[str] = []
    monkeypatch.setattr(module.systemd, "log", lambda text, **_: said.append(text))
    return said


def notifier(tmp_path: Path, database: Database, **keys: Any) -> Notifier:
    """One with that [notify] table, and no patience unless told."""
    folder = tmp_path / ".config/mission-control"
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{key} = {json.dumps(value)}" for key, value in {"after_s": 0, **keys}.items()]
    (folder / "config.toml").write_text("\n".join(["[notify]", *lines]))
    config = configuration.load({"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run")})
    return Notifier(config, database)


def tell(one: Notifier) -> int:
    """How many were told, once they were."""
    threads = one.look()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    return len(threads)


def waiting(database: Database, state: str = "waiting_permission", title: str = TITLE) -> int:
    """A running ticket that waits."""
    ticket = tickets.create(database, title=title, prompt="a secret prompt").id
    tickets.update(database, ticket, status="in_progress")
    ingestion.set_turn_state(database, ticket, state, "test")
    return ticket


def test_both_are_told_once_with_the_facts(
    database: Database, tmp_path: Path, topic: Topic, journal: list[str]
) -> None:
    """Number, title and state reach the command and the topic; again only for another wait."""
    out = tmp_path / "out"
    keys = {"command": [*WRITE, str(out)], "ntfy_url": topic.url, "ntfy_token": "tk_secret"}
    one = notifier(tmp_path, database, **keys)
    ticket = waiting(database)
    messages.enqueue(database, ticket, "a secret message")
    assert tell(one) == 2
    facts = json.loads((tmp_path / "out.json").read_text())
    assert (facts["id"], facts["title"], facts["state"]) == (ticket, TITLE, "waiting_permission")
    assert facts["url"] == f"http://127.0.0.1:3001/ticket/{ticket}"
    assert f"TICKET_ID={ticket}\n" in (tmp_path / "out.env").read_text()
    ((path, headers, body),) = topic.got
    assert (path, headers["Authorization"]) == ("/topic", "Bearer tk_secret")
    assert body.decode().startswith(f"Ticket {ticket} asks for permission: Fix $(it)")
    shown = str(make_header(decode_header(headers["Title"])))
    assert shown == f'#{ticket} Fix $(it); "now" é 漢 X-Evil: 1'
    assert "X-Evil" not in headers
    assert "secret" not in (tmp_path / "out.json").read_text() + body.decode() + shown
    assert tell(one) == 0
    # another process, the same wait
    assert tell(notifier(tmp_path, database, **keys)) == 0
    ingestion.set_turn_state(database, ticket, "busy", "test")
    assert tell(one) == 0
    ingestion.set_turn_state(database, ticket, "waiting_permission", "test")
    assert tell(one) == 2
    assert (out.read_text(), len(topic.got), journal) == ("told\ntold\n", 2, [])
    assert not list((tmp_path / "run/mission-control").iterdir())  # what it was given has gone


@pytest.mark.parametrize("state", ["idle", "busy", "starting", "gone"])
def test_what_goes_on_by_itself_is_no_wait(database: Database, tmp_path: Path, state: str) -> None:
    """Nor what is not running or closed."""
    one = notifier(tmp_path, database, command=["true"])
    ticket = waiting(database, state)
    assert tell(one) == 0
    ingestion.set_turn_state(database, ticket, "waiting_answer", "test")
    tickets.update(database, ticket, status="closed")
    assert tell(one) == 0


def test_a_wait_has_to_last(database: Database, tmp_path: Path) -> None:
    """Answered within after_s, nobody is told; a wait that lasts is told of."""
    one = notifier(tmp_path, database, command=["true"], after_s=1)
    first = waiting(database)
    assert tell(one) == 0
    ingestion.set_turn_state(database, first, "busy", "test")
    waiting(database, "api_error")
    deadline = time.monotonic() + 10
    while (told := tell(one)) == 0 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert (told, tell(one)) == (1, 0)


def test_two_dispatchers_tell_once(database: Database, tmp_path: Path) -> None:
    """Whoever claims a wait first tells of it."""
    out = tmp_path / "out"
    several = [notifier(tmp_path, database, command=[*WRITE, str(out)]) for _ in range(4)]
    for _ in range(3):
        waiting(database)
    threads = [threading.Thread(target=tell, args=(each,)) for each in several]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert out.read_text() == "told\n" * 3


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["/nonexistent/program"], "cannot be run: No such file"),
        (["false"], "left with status 1"),
        (["sh", "-c", "sleep 60 & echo $! > pid; wait"], "took over"),
        (["sh", "-c", "exec <&-; exit 0"], ""),
    ],
)
def test_a_command_that_fails_is_said_once(
    database: Database, tmp_path: Path, journal: list[str], monkeypatch: pytest.MonkeyPatch,
    command: list[str], said: str,
) -> None:  # fmt: skip
    """One line in the journal however many wait; what it started is ended with it; nothing is lost."""
    monkeypatch.setattr(module, "COMMAND_TIMEOUT_S", 1.0)
    monkeypatch.chdir(tmp_path)
    one = notifier(tmp_path, database, command=command)
    several = [waiting(database) for _ in range(3)]
    for _ in range(3):
        tell(one)
    assert len(journal) == (1 if said else 0)
    assert said in "".join(journal)
    assert "secret" not in "".join(journal)
    assert all(tickets.get(database, t).turn_state == "waiting_permission" for t in several)
    if said == "took over":
        pid = int((tmp_path / "pid").read_text())
        assert not _runs(pid)


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_a_topic_that_fails_is_said_once(
    database: Database, tmp_path: Path, topic: Topic, journal: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """An error, a redirect, silence, nobody there: one line each, without the topic's own name."""
    monkeypatch.setattr(module, "POST_TIMEOUT_S", 1.0)
    one = notifier(tmp_path, database, ntfy_url=topic.url)
    for status in (500, 500, 302):
        topic.status = status
        waiting(database)
        tell(one)
    assert [text.partition("waits: ")[2][:22] for text in journal] == [
        "127.0.0.1 answered 500", "127.0.0.1 answered 302",
    ]  # fmt: skip
    assert [path for path, _, _ in topic.got] == ["/topic"] * 3
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        mute = notifier(tmp_path, database, ntfy_url=f"http://127.0.0.1:{port}/topic")
        waiting(database)
        tell(mute)
    waiting(database)
    tell(mute)
    assert len(journal) == 4
    assert not any("/topic" in text for text in journal)


def test_good_news_end_the_silence(
    database: Database, tmp_path: Path, topic: Topic, journal: list[str]
) -> None:
    """Trouble that went and came back is said again."""
    one = notifier(tmp_path, database, ntfy_url=topic.url)
    for status in (500, 200, 500):
        topic.status = status
        waiting(database)
        tell(one)
    assert len(journal) == 2


def test_nobody_to_tell_nothing_to_do(database: Database, tmp_path: Path) -> None:
    """Without a command and a topic there is no thread, and no wait is used up."""
    one = notifier(tmp_path, database)
    one.start()
    assert not [t for t in threading.enumerate() if t.name == "notify"]
    waiting(database)
    assert tell(notifier(tmp_path, database, command=["true"])) == 1
