"""The demo agent, driven through a real pseudo-terminal as tmux would."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import stat
import struct
import subprocess
import sys
import termios
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator import demo_answers, demo_screen, permits, sidecar
from orchestrator.demo_screen import Key, Keys, Row, Screen
from orchestrator.errors import Conflict
from orchestrator.naming import TicketPaths
from orchestrator.sidecar import Record

ROOT = Path(demo_answers.__file__).parents[1]
TIMEOUT_S = 20.0
PASTE = b"\x1b[200~%s\x1b[201~"


class Pane:
    """The agent in a terminal of ours."""

    def __init__(self, folder: Path, *args: str, session: str = "", size: tuple[int, int]) -> None:
        self.session = session or str(uuid.uuid4())
        self.sidecar_path = folder / "sidecar.jsonl"
        self.work = folder / "work"
        self.work.mkdir(exist_ok=True)
        self.master, slave = pty.openpty()
        self.resize(*size)
        self.modes_before = termios.tcgetattr(slave)
        self._slave = slave
        how = args or ("--session-id", self.session)
        # its terminal, not only its files: resizes and hang-ups are signals of the terminal
        argv = ["setsid", "--ctty", sys.executable, "-m", "orchestrator.demo_agent"]
        self.process = subprocess.Popen(
            [*argv, "--sidecar", str(self.sidecar_path), *how],
            stdin=slave, stdout=slave, stderr=slave, cwd=self.work,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        self.printed = b""
        self._read_to = 0

    def resize(self, columns: int, rows: int) -> None:
        """As when somebody attaches with another terminal."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def send(self, data: bytes) -> None:
        """Keys."""
        while data:
            data = data[os.write(self.master, data[:1000]) :]
            self._pump(0)

    def _pump(self, timeout_s: float) -> bool:
        ready, _, _ = select.select([self.master], [], [], timeout_s)
        if ready:
            self.printed += os.read(self.master, 65536)
        return bool(ready)

    def until(self, condition: Callable[[], Any]) -> Any:
        """Takes in what it prints until that holds."""
        deadline = time.monotonic() + TIMEOUT_S
        while not (found := condition()):
            assert time.monotonic() < deadline, self.text[-2000:]
            self._pump(0.02)
        return found

    @property
    def text(self) -> str:
        """All it printed, without colours and movements."""
        return re.sub(r"\x1b\[[0-?]*[ -/]*[@-~]", "", self.printed.decode(errors="replace"))

    def see(self, what: str) -> None:
        """Waits until it has printed that, after what was seen before."""
        place = self.until(lambda: self.text.find(what, self._read_to) + 1)
        self._read_to = place - 1 + len(what)

    def records(self) -> list[Record]:
        """The lines of the sidecar so far; all of them good."""
        if not self.sidecar_path.exists():
            return []
        found = list(sidecar.read(self.sidecar_path))
        assert all(isinstance(r, Record) for r in found)
        return [r for r in found if isinstance(r, Record)]

    def hooks(self) -> list[str]:
        """Their names, without the status line's."""
        return [r.hook for r in self.records() if r.hook != "statusLine"]

    def hook(self, name: str, count: int = 1) -> dict[str, Any]:
        """Waits for the hook to have been called so often; what the last call said."""
        found = self.until(lambda: [r for r in self.records() if r.hook == name][count - 1 :])
        return dict(found[0].data)

    def state(self) -> str:
        """What its state file says."""
        path = self.sidecar_path.parent / "agent/demo-state.json"
        if not path.exists():
            return ""
        state = json.loads(path.read_text())
        assert state["pid"] == self.process.pid
        return str(state["status"])

    def idle(self) -> None:
        """Waits for the end of the turn."""
        self.until(lambda: self.state() == "idle")

    def ends(self) -> int:
        """Waits for its end; the terminal has to be as it was."""
        self.until(lambda: self.process.poll() is not None)
        while self._pump(0):
            pass
        assert termios.tcgetattr(self._slave) == self.modes_before
        return self.process.returncode

    def close(self) -> None:
        """Nothing stays behind."""
        self.process.kill()
        self.process.wait()
        os.close(self._slave)
        os.close(self.master)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Pane]]:
    """Starts agents in one folder."""
    panes: list[Pane] = []

    def begin(*args: str, session: str = "", size: tuple[int, int] = (100, 30)) -> Pane:
        pane = Pane(tmp_path, *args, session=session, size=size)
        panes.append(pane)
        if not args:  # keys before this would meet the terminal's own line editing
            pane.until(lambda: b"\x1b[?2004h" in pane.printed)
        return pane

    yield begin
    for pane in panes:
        pane.close()


Start = Callable[..., Pane]


def test_a_prompt_is_answered_and_told_of(start: Start) -> None:
    """The sum is worked out, and the sidecar has the lines that the real agent's hooks write."""
    session = str(uuid.uuid4())
    pane = start("--session-id", session, "--", "hello what is 2+2", session=session)
    pane.see(session)
    pane.see("> hello what is 2+2")
    pane.see("2 + 2 = 4")
    stop = pane.hook("Stop")
    pane.idle()
    assert stop["last_assistant_message"] == "2 + 2 = 4"
    assert pane.hooks() == ["SessionStart", "UserPromptSubmit", "Stop"]
    assert pane.hook("SessionStart")["source"] == "startup"
    assert pane.hook("UserPromptSubmit")["prompt"] == "hello what is 2+2"
    for record in pane.records():
        assert record.data["session_id"] == session
        assert record.data["cwd"] == str(pane.work)
        assert Path(record.data["transcript_path"]).name == f"demo-{session}.jsonl"
        if record.hook != "statusLine":
            assert record.data["hook_event_name"] == record.hook
    transcript = Path(stop["transcript_path"])
    assert stat.S_IMODE(transcript.stat().st_mode) == 0o600
    roles = [json.loads(line)["role"] for line in transcript.read_text().splitlines()]
    assert roles == ["user", "assistant"]


def test_the_cost_grows_with_each_turn(start: Start) -> None:
    """It counts from zero for each process, and only up."""
    pane = start()
    pane.hook("SessionStart")
    for number in (1, 2):
        pane.send(b"1+1\r")
        pane.hook("statusLine", number + 1)
    costs = [r.data["cost"]["total_cost_usd"] for r in pane.records() if r.hook == "statusLine"]
    assert costs[0] == 0
    assert costs == sorted(set(costs))
    last = pane.hook("statusLine", 3)
    assert last["model"]["display_name"] == "Demo"
    assert last["context_window"]["total_input_tokens"] > 0


def test_a_paste_is_one_message_byte_for_byte(start: Start) -> None:
    """Line ends in it do not submit, only Enter does; long ones are named instead of shown."""
    pane = start()
    pane.see("\u2500")
    assert b"\x1b[?2004h" in pane.printed
    text = "  zwei\nZeilen\tü 🙂 \\ [201~ ;\n\n" + "lang " * 20_000 + "Ende "
    pane.send(PASTE % text.encode())
    pane.see("[Pasted text, ")
    assert pane.hooks() == ["SessionStart"]
    pane.send(b"\r")
    assert pane.hook("UserPromptSubmit")["prompt"] == text
    pane.hook("Stop")


def test_typing_and_editing(start: Start) -> None:
    """Backspace, Ctrl-U, Ctrl-C on a full box; keys it does not know do nothing."""
    pane = start()
    pane.hook("SessionStart")
    pane.send(b"nonsense\x15also nonsense\x03w\xc3\xbcrx\x7fde\x1b[A\x1bOPn")
    pane.see("> würden")
    pane.send(b"\r")
    assert pane.hook("UserPromptSubmit")["prompt"] == "würden"
    pane.hook("Stop")
    pane.send(b"   \r")
    pane.send(b"2+3\r")
    assert pane.hook("UserPromptSubmit", 2)["prompt"] == "2+3"


def test_control_characters_of_a_message_do_nothing(start: Start) -> None:
    """What somebody typed moves no cursor, although it is submitted as it came."""
    pane = start()
    pane.hook("SessionStart")
    pane.send(PASTE % b"a\x1b]0;title\x07\x1b[2Jb\x9b" + b"\r")
    pane.hook("Stop")
    assert pane.hook("UserPromptSubmit")["prompt"].startswith("a\x1b]0;title\x07\x1b[2Jb")
    assert b"\x1b]0;" not in pane.printed
    assert b"\x1b[2J" not in pane.printed


def test_a_tool_runs_without_asking(start: Start) -> None:
    """PreToolUse, PostToolUse, and what it printed is on the screen."""
    pane = start()
    (pane.work / "a file").touch()
    pane.send(b"use a tool\r")
    pane.see("Bash(ls)")
    pane.see("a file")
    pane.hook("Stop")
    hooks = ["SessionStart", "UserPromptSubmit", "PreToolUse", "PostToolUse", "Stop"]
    assert pane.hooks() == hooks
    assert pane.hook("PreToolUse")["tool_use_id"] == pane.hook("PostToolUse")["tool_use_id"]
    assert pane.hook("PostToolUse")["tool_response"]["stdout"] == "a file"


@pytest.mark.parametrize("key", [b"\r", b"1", b"some text\r", PASTE % b"no\nstop" + b"\r"])
def test_a_permission_is_given_by_enter(start: Start, key: bytes) -> None:
    """Also by a mistaken one: any text is ignored, and its Enter allows, as in the real one."""
    pane = start()
    pane.send(b"permission\r")
    pane.see("Do you want to run")
    pane.see("\u276f 1. Yes")
    pane.until(lambda: pane.state() == "waiting")
    request = pane.hook("PermissionRequest")
    assert request["tool_name"] == "Bash"
    assert "tool_use_id" not in request
    assert not (pane.work / "demo-note.txt").exists()
    pane.send(key)
    pane.hook("Stop")
    pane.idle()
    assert (pane.work / "demo-note.txt").read_text() == "The operator allowed this.\n"
    assert pane.hooks()[2:] == ["PreToolUse", "PermissionRequest", "PostToolUse", "Stop"]
    prompts = [r for r in pane.records() if r.hook == "UserPromptSubmit"]
    assert len(prompts) == 1


@pytest.mark.parametrize("key", [b"2", b"\x1b", b"\x03"])
def test_a_permission_can_be_denied(start: Start, key: bytes) -> None:
    """Nothing runs, and no hook tells of it: only the state does."""
    pane = start()
    pane.send(b"permission\r")
    pane.until(lambda: pane.state() == "waiting")
    pane.send(key)
    pane.see("Interrupted")
    pane.idle()
    assert not (pane.work / "demo-note.txt").exists()
    assert pane.hooks()[2:] == ["PreToolUse", "PermissionRequest"]
    pane.send(b"3*3\r")
    pane.see("3 * 3 = 9")


@pytest.fixture
def paths(tmp_path: Path) -> TicketPaths:
    """Where its requests are answered."""
    return TicketPaths(folder=tmp_path, runtime=tmp_path / "run")


def asking(start: Start, paths: TicketPaths) -> tuple[Pane, str]:
    """One that waits for leave, and the request."""
    requests = str(permits.requests_folder(paths))
    pane = start("--session-id", str(uuid.uuid4()), "--requests", requests, "--", "permission")
    (request,) = pane.until(lambda: permits.open_requests(paths))
    assert pane.hook("PermissionRequest")["request_id"] == request.request_id
    return pane, request.request_id


def test_a_permission_is_given_from_elsewhere(start: Start, paths: TicketPaths) -> None:
    """As for the real one, the answer comes by the folder and no key is typed."""
    pane, request = asking(start, paths)
    permits.answer(paths, request, "allow", by="op")
    pane.hook("Stop")
    assert (pane.work / "demo-note.txt").exists()
    assert pane.hook("PermissionAnswer")["by"] == "op"
    assert pane.hooks()[-3:] == ["PermissionAnswer", "PostToolUse", "Stop"]
    assert "Do you want" not in pane.text[pane.text.rindex("demo-note") :]


def test_a_permission_is_denied_from_elsewhere(start: Start, paths: TicketPaths) -> None:
    """It says why, and the turn ends."""
    pane, request = asking(start, paths)
    permits.answer(paths, request, "deny", message="not today")
    assert "not today" in pane.hook("Stop")["last_assistant_message"]
    assert not (pane.work / "demo-note.txt").exists()
    pane.idle()
    assert pane.hooks()[-2:] == ["PermissionAnswer", "Stop"]


@pytest.mark.parametrize("key", [b"1", b"\x1b", None])
def test_a_request_that_ended_in_the_pane_is_gone(
    start: Start, paths: TicketPaths, key: bytes | None
) -> None:
    """Answered there, broken off there, or the agent has ended: told, and nothing of it is left."""
    pane, request = asking(start, paths)
    if key is None:
        pane.process.terminate()
        assert pane.ends() == 143
    else:
        pane.send(key)
    assert pane.hook("PermissionGone")["request_id"] == request
    with pytest.raises(Conflict):
        permits.answer(paths, request, "allow")
    assert os.listdir(permits.requests_folder(paths)) == []


@pytest.mark.parametrize("key", [b"\x1b", b"\x03"])
def test_a_turn_can_be_interrupted(start: Start, key: bytes) -> None:
    """Esc or Ctrl-C while busy; the next message is answered."""
    pane = start()
    pane.send(b"slow 60\r")
    pane.see("Taking 60 seconds")
    assert pane.state() == "busy"
    pane.send(key)
    pane.see("Interrupted")
    pane.idle()
    pane.send(b"2+2\r")
    pane.hook("Stop")
    assert pane.hooks() == ["SessionStart", "UserPromptSubmit", "UserPromptSubmit", "Stop"]


def test_messages_typed_while_busy_come_together(start: Start) -> None:
    """Each is submitted once the turn is over; they share one answer."""
    pane = start()
    pane.send(b"slow 1\r")
    pane.see("Taking 1 seconds")
    pane.send(b"first 4+4\r")
    pane.send(b"second\r")
    assert pane.hook("Stop", 2)["last_assistant_message"] == "4 + 4 = 8"
    prompts = [r.data["prompt"] for r in pane.records() if r.hook == "UserPromptSubmit"]
    assert prompts == ["slow 1", "first 4+4", "second"]


def test_a_flood_is_as_long_as_asked(start: Start) -> None:
    """And the agent listens meanwhile."""
    pane = start()
    pane.send(b"flood 100\r")
    pane.hook("Stop")
    pane.see("That was all of it.")
    assert len(set(re.findall(r"\d{8} ~{54}", pane.text))) == 100 * 1024 // 64


def test_leaving(start: Start) -> None:
    """/exit, or Ctrl-C twice on an empty box."""
    for keys in (b"/exit\r", b"\x03\x03"):
        pane = start()
        pane.see("\u2500")
        pane.hook("SessionStart")
        pane.send(keys)
        assert pane.ends() == 0
        assert pane.records()[-1].hook == "SessionEnd"
        assert pane.records()[-1].data["reason"] == "prompt_input_exit"
        assert pane.state() == ""
        assert b"\x1b[?2004l" in pane.printed


def test_one_ctrl_c_only_warns(start: Start) -> None:
    """Another key in between, and it takes two again."""
    pane = start()
    pane.hook("SessionStart")
    pane.send(b"\x03")
    pane.see("Press Ctrl-C again")
    pane.send(b"x")
    pane.see("> x")
    pane.send(b"\x7f\x03")
    pane.see("Press Ctrl-C again")
    assert pane.process.poll() is None


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 0)]
)
def test_signals(start: Start, number: int, status: int) -> None:
    """Also amid a turn: the terminal is given back, SessionEnd says so."""
    pane = start()
    pane.send(b"slow 60\r")
    pane.see("Taking 60 seconds")
    pane.process.send_signal(number)
    assert pane.ends() == status
    assert pane.hook("SessionEnd")["reason"] == "other"
    assert "Stop" not in pane.hooks()


def test_a_crash_tells_nobody(start: Start) -> None:
    """Status 3, no SessionEnd, and a state file that names a process which is no more."""
    pane = start()
    pane.send(b"please crash\r")
    assert pane.ends() == 3
    assert pane.hooks() == ["SessionStart", "UserPromptSubmit"]
    assert pane.state() == "busy"


def test_resume(start: Start) -> None:
    """A conversation goes on in another process, and cannot be begun twice."""
    first = start("--session-id", session := str(uuid.uuid4()), "--", "2+2", session=session)
    first.hook("Stop")
    first.process.kill()
    second = start("--resume", session, session=session)
    second.see("(resumed, 2 messages)")
    assert second.hook("SessionStart", 2)["source"] == "resume"
    again = start("--session-id", session)
    again.see(f"Error: Session ID {session} is already in use.")
    assert again.ends() == 1


def test_conversations_that_are_not_there(start: Start) -> None:
    """Unknown, opened and left without a word, or no UUID at all."""
    pane = start()
    pane.hook("SessionStart")
    pane.send(b"/exit\r")
    pane.ends()
    for session in (str(uuid.uuid4()), pane.session):
        unknown = start("--resume", session)
        unknown.see(f"No conversation found with session ID: {session}")
        assert unknown.ends() == 1
    wrong = start("--session-id", "../x")
    wrong.see("Error: Invalid session ID. Must be a valid UUID.")
    assert wrong.ends() == 1


def test_a_resize_draws_anew(start: Start) -> None:
    """For the new width, down to one that is hardly any."""
    pane = start()
    pane.send(b"2+2\r")
    pane.hook("Stop")
    pane.idle()
    for columns in (60, 10, 120):
        pane.resize(columns, 12)
        pane.see("\r\n" + "\u2500" * (max(columns, 20) - 1) + "\r\n")
    pane.send(b"5+5\r")
    pane.see("5 + 5 = 10")


def test_nothing_is_drawn_where_nothing_is_new() -> None:
    """Each look of the loop would be a frame through tmux, the log and every page otherwise."""
    master, slave = pty.openpty()
    with Screen(slave, slave) as screen:

        def drawn() -> bytes:
            screen.draw()
            found = b""
            while select.select([master], [], [], 0.05)[0]:
                found += os.read(master, 65536)
            return found

        assert drawn()
        assert drawn() == b""
        screen.box = "typed"
        assert b"typed" in drawn()
        assert drawn() == b""
        screen.add(Row("said"))
        assert b"said" in drawn()
        assert drawn() == b""
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 12, 50, 0, 0))
        assert drawn()
        screen.redraw()
        assert b"said" in drawn()
    os.close(master)
    os.close(slave)


def test_it_ends_with_its_terminal(tmp_path: Path) -> None:
    """A terminal that is closed hangs it up."""
    pane = Pane(tmp_path, size=(80, 24))
    pane.hook("SessionStart")
    os.close(pane._slave)
    os.close(pane.master)
    assert pane.process.wait(TIMEOUT_S) == 129
    assert pane.records()[-1].data["reason"] == "other"


@pytest.mark.parametrize(
    ("message", "answer"),
    [
        ("hello what is 2+2", "2 + 2 = 4"),
        ("2 + 3 * 4 - 1?", "2 + 3 * 4 - 1 = 13"),
        ("10/4", "10 / 4 = 2.5"),
        ("1/3", "1 / 3 ≈ 0.333333"),
        ("6 / 3 x 2.", "6 / 3 * 2 = 4"),
        ("7/0", "7 / 0 has no answer: nothing can be divided by zero."),
        ("99999999999999*99999999999999",
         "99999999999999 * 99999999999999 = 9999999999999800000000000001"),
        ("no sum: v1.2-3, 2**8, 1e5+x, __import__('os')", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_sums(message: str, answer: str) -> None:
    """Whole numbers with + - * / and their precedence, and nothing else."""
    assert demo_answers.work_out(message) == answer


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_keys_in_any_pieces(size: int) -> None:
    """Characters, sequences and pastes may be cut anywhere."""
    data = "aü🙂\r\x7f\x1b[A\x1b[1;5Cx\x1b[200~p\r\n\x1b[20q\x1b[201~y\x03\x1b".encode()
    keys = Keys()
    seen = [key for i in range(0, len(data), size) for key in keys.feed(data[i : i + size])]
    assert keys.unfinished
    seen += keys.flush()
    joined = "".join(key.text or f"<{key.name}>" for key in seen)
    assert joined == "aü🙂<enter><backspace>xp\r\n\x1b[20qy<ctrl-c><escape>"
    assert Key("paste", "p\r\n\x1b[20q") in seen


def test_wrapping_keeps_every_character_and_the_width() -> None:
    """Wide characters count twice; a word longer than a row is cut."""
    text = "ein Wort, 漢字漢字漢字漢字 and averyveryveryverylongword\n\nend"
    rows = demo_screen.wrap(text, 10)
    assert max(map(demo_screen.columns, rows)) <= 10
    assert "".join(rows).replace(" ", "") == text.replace(" ", "").replace("\n", "")
    assert demo_screen.wrap("", 10) == [""]
