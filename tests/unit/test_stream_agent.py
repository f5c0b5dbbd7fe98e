"""The stream's agent, started as its driver says, in a real pseudo-terminal with a stand-in CLI."""

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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator import permits, sidecar, stream_child
from orchestrator.config import Config
from orchestrator.drivers import NotTaken, Work, driver_named, message_key
from orchestrator.errors import Conflict
from orchestrator.naming import TicketPaths
from orchestrator.stream_agent import GUARD_S
from orchestrator.stream_child import Lines

ROOT = Path(stream_child.__file__).parents[1]
CLI = Path(__file__).with_name("stream_cli.py")
TIMEOUT_S = 20.0
PASTE = b"\x1b[200~%s\x1b[201~"
DRIVER = driver_named("claude_stream")


class Pane:
    """The agent in a terminal of ours."""

    def __init__(self, work: Work) -> None:
        self.work = work
        launch = DRIVER.prepare(work)
        self.resumed = launch.resumed
        self.master, self._slave = pty.openpty()
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        self.modes_before = termios.tcgetattr(self._slave)
        # -I leaves PYTHONPATH out: the checkout may not be installed where the tests run
        argv = [word for word in launch.argv if word != "-I"]
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *argv],
            stdin=self._slave, stdout=self._slave, stderr=self._slave, cwd=work.cwd,
            env={**os.environ, **work.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        self.printed = b""
        self._read_to = 0

    def send(self, data: bytes) -> None:
        """Keys."""
        while data:
            data = data[os.write(self.master, data[:1000]) :]
            self._pump(0)

    def say(self, text: str) -> None:
        """Types that, and Enter."""
        self.send(text.encode() + b"\r")

    def answer(self, text: str) -> None:
        """The same, once a dialog has been open for long enough."""
        self.pause(GUARD_S + 0.1)
        self.say(text)

    def pause(self, seconds: float) -> None:
        """Lets time pass."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._pump(left)

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

    def state(self, *expected: str) -> None:
        """Waits for one of these turn states, by the driver's word."""
        self.until(lambda: DRIVER.turn_state(self.work, self.process.pid) in expected)

    def deliver(self, number: int, body: str) -> None:
        """As dispatch does it; what is printed meanwhile is taken in."""
        with ThreadPoolExecutor(1) as pool:
            call = pool.submit(DRIVER.deliver, self.work, message_key(7, number), body)
            self.until(call.done)
            call.result()

    def records(self, *hooks: str) -> list[dict[str, Any]]:
        """The data of those lines of the sidecar; all lines have to be good."""
        if not self.work.paths.sidecar_path.exists():
            return []
        found = list(sidecar.read(self.work.paths.sidecar_path))
        assert all(isinstance(r, sidecar.Record) for r in found)
        return [r.data for r in found if isinstance(r, sidecar.Record) and r.hook in hooks]

    def sent(self) -> list[dict[str, Any]]:
        """What the CLI was sent."""
        log = Path(self.work.environ["STREAM_CLI_LOG"])
        return [json.loads(line) for line in log.read_bytes().split(b"\n")[:-1]]

    def heard(self) -> list[str]:
        """The messages it took, each time it took one."""
        return [str(v["message"]["content"]) for v in self.sent() if v["type"] == "user"]

    def request(self, count: int = 1) -> permits.Request:
        """Waits until so many permission requests are open; the oldest."""
        found: list[permits.Request] = self.until(
            lambda: len(r := permits.open_requests(self.work.paths)) == count and r
        )
        return found[0]

    def answered(self) -> dict[str, Any]:
        """What the CLI was told last about a permission."""
        given: list[dict[str, Any]] = self.until(
            lambda: [
                v["response"]["response"] for v in self.sent() if v["type"] == "control_response"
            ]
        )
        return given[-1]

    def ends(self) -> int:
        """Waits for its end; the terminal has to be as it was, and no file of the moment left."""
        self.until(lambda: self.process.poll() is not None)
        while self._pump(0):
            pass
        assert termios.tcgetattr(self._slave) == self.modes_before
        left = {path.name for path in self.work.paths.runtime.iterdir()} - {"requests"}
        assert not left
        assert not permits.open_requests(self.work.paths)
        return self.process.returncode

    def close(self) -> None:
        """Nothing stays behind."""
        self.process.kill()
        self.process.wait()
        os.close(self._slave)
        os.close(self.master)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Pane]]:
    """Starts the agent on a ticket; again, it is the same one."""
    panes: list[Pane] = []
    program = tmp_path / "bin/claude"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {CLI} "$@"\n')
    program.chmod(0o755)
    paths = TicketPaths(folder=tmp_path / "t", runtime=tmp_path / "r")
    for folder in (paths.folder, paths.runtime, tmp_path / "w"):
        folder.mkdir(mode=0o700)
    work = Work(
        ticket=7, prompt="", session_id=str(uuid.uuid4()), command=(), cwd=tmp_path / "w",
        paths=paths, config=Config(),
        environ={
            "PATH": f"{program.parent}:{os.environ['PATH']}", "HOME": str(tmp_path),
            "STREAM_CLI_LOG": str(tmp_path / "stdin.log"),
        },
    )  # fmt: skip

    def begin(prompt: str = "", *, wait: bool = True) -> Pane:
        pane = Pane(replace(work, prompt=prompt))
        panes.append(pane)
        if wait:
            pane.state("idle")
        return pane

    yield begin
    for pane in panes:
        pane.close()


def test_a_message_typed_in_the_pane(start: Callable[..., Pane]) -> None:
    """It is answered on the screen, and the whole stream is in the sidecar, but for partial texts."""
    pane = start()
    pane.say("hello there")
    pane.see("> hello there")
    pane.see("● You said: hello there")
    pane.state("idle")
    pane.see("fake · $0.0075")
    stream = pane.records("stream")
    assert {v["type"] for v in stream} >= {
        "control_response",
        "system",
        "user",
        "assistant",
        "result",
    }
    assert all(v["type"] != "stream_event" for v in stream)
    assert stat.S_IMODE((pane.work.paths.runtime / "control.sock").stat().st_mode) == 0o600
    assert (
        stat.S_IMODE((pane.work.paths.agent_folder / "stream-state.json").stat().st_mode) == 0o600
    )


def test_the_first_prompt(start: Callable[..., Pane]) -> None:
    """It is sent at once, may be longer than a command line, and lies in no file afterwards."""
    prompt = "begin " + "x" * 300_000
    pane = start(prompt, wait=False)
    pane.until(lambda: "result" in [v["type"] for v in pane.records("stream")])
    assert pane.heard() == [prompt]
    assert "[Pasted text, 300006 characters" in pane.text
    assert not (pane.work.paths.runtime / "prompt.txt").exists()


def test_a_paste_is_one_message(start: Callable[..., Pane]) -> None:
    """Many lines, blanks, a backslash at the end, unicode: byte for byte; keys around it edit."""
    pane = start()
    text = "1. first\n\n\t2. 漢字 👩‍👩‍👧 »q« `x` $(y) #{z}\n/clear ends with \\"
    pane.send(b"wrongx\x15" + PASTE % text.encode() + b"!?\x7f")
    assert pane.heard() == []
    pane.send(b"\r")
    pane.until(lambda: pane.heard() == [text + "!"])
    pane.send(PASTE % (b"y" * 1_000_000) + b"\r")
    pane.until(lambda: len(pane.heard()) == 2)
    assert pane.heard()[1] == "y" * 1_000_000


def test_what_is_typed_while_it_is_busy_waits(start: Callable[..., Pane]) -> None:
    """It is shown as waiting and sent after the turn, a turn for each; Ctrl-C breaks the turn off."""
    pane = start()
    pane.say("SLOW")
    pane.see("Thinking about it")
    pane.say("later one")
    pane.say("later two")
    pane.see("> later one")
    assert pane.heard() == ["SLOW"]
    pane.send(b"\x03")
    pane.see("Interrupted")
    pane.see("You said: later one")
    pane.see("You said: later two")
    pane.state("idle")
    assert "ede_diagnostic" not in pane.text
    assert [v["subtype"] for v in pane.records("stream") if v["type"] == "result"] == [
        "error_during_execution", "success", "success",
    ]  # fmt: skip


def test_a_delivered_message(start: Callable[..., Pane]) -> None:
    """The driver's word that it was delivered, the stream's evidence, and never twice."""
    pane = start()
    key = message_key(7, 1)
    body = "/clear is text; \u2028 \ud7ff\r\nsecond line"
    pane.deliver(1, body)
    pane.see("You said:")
    pane.state("idle")
    assert pane.heard() == [" /clear is text; \u2028 \ud7ff\nsecond line"]
    records = [
        r for r in sidecar.read(pane.work.paths.sidecar_path) if isinstance(r, sidecar.Record)
    ]
    assert [r.hook for r in records if DRIVER.confirms(r, body, key)] == ["MessageTaken", "stream"]
    assert not any(DRIVER.confirms(r, body, message_key(7, 2)) for r in records)
    pane.deliver(1, body)
    pane.until(lambda: len(pane.heard()) == 2)
    pane.state("idle")
    assert [v["type"] for v in pane.records("stream")].count("result") == 1
    pane.until(
        lambda: any(
            isinstance(r, sidecar.Record) and DRIVER.confirms(r, body, key)
            for r in sidecar.read(pane.work.paths.sidecar_path, records[-1].end)
        )
    )
    pane.deliver(3, "z" * 1_000_000)
    pane.until(lambda: pane.heard()[-1] == "z" * 1_000_000)


def test_a_message_that_cannot_be_taken_is_refused(start: Callable[..., Pane]) -> None:
    """Busy, asking, or gone: nothing of it reaches the CLI, and the driver says that for certain."""
    pane = start()
    pane.say("SLOW")
    pane.state("busy")
    with pytest.raises(NotTaken, match="busy"):
        pane.deliver(1, "no")
    assert DRIVER.interrupt(pane.work)
    pane.see("Interrupted")
    pane.say("BASH{ls}")
    pane.state("waiting_permission")
    with pytest.raises(NotTaken, match="question"):
        pane.deliver(1, "y")
    pane.send(b"\x1b")
    pane.see("Interrupted")
    pane.say("/exit")
    pane.ends()
    with pytest.raises(NotTaken):
        pane.deliver(1, "no")
    assert not DRIVER.interrupt(pane.work)
    assert pane.heard() == ["SLOW", "BASH{ls}"]


def test_nobody_approves_by_typing_on(start: Callable[..., Pane]) -> None:
    """Ordinary text and Enter waits for the turn's end; only y approves. What was begun comes back."""
    pane = start()
    pane.say("BASH{rm x}")
    pane.state("waiting_permission")
    pane.send(b"begun y")  # in the moment of its opening: not the dialog's
    pane.pause(GUARD_S + 0.1)
    for text in ("yes, but first look", "yy", "", "1", "ok"):
        pane.say(text)
    pane.send(PASTE % b"please\ny" + b"\r")
    pane.see("That waits for the end of the turn")
    assert [v for v in pane.sent() if v["type"] == "control_response"] == []
    pane.say("y")
    assert pane.answered() == {
        "behavior": "allow", "updatedInput": {"command": "rm x", "description": "run it"},
    }  # fmt: skip
    pane.see("allowed")
    pane.state("idle")
    assert pane.heard()[1:] == ["yes, but first look", "yy", "1", "ok", "please\ny"]
    pane.send(b"\r")
    pane.until(lambda: pane.heard()[-1] == "begun y")
    asked, answered = pane.records("PermissionRequest", "PermissionAnswer", "PermissionGone")
    assert (asked["tool_name"], asked["tool_input"]["command"]) == ("Bash", "rm x")
    assert asked["request_id"] == answered["request_id"]
    assert (answered["behavior"], answered["by"]) == ("allow", "pane")


def test_a_refusal_with_its_reason(start: Callable[..., Pane]) -> None:
    """What follows `n` is what the agent is told."""
    pane = start()
    pane.say("BASH{rm x}")
    pane.state("waiting_permission")
    pane.answer("n, use mv instead")
    assert pane.answered() == {"behavior": "deny", "message": "use mv instead"}
    pane.see("refused")
    pane.see("use mv instead")


def test_permission_from_elsewhere(start: Callable[..., Pane]) -> None:
    """The first answer counts: the dialog closes, and an answer after it is told that it came late."""
    pane = start()
    pane.say("BASH{rm x}")
    request = pane.request()
    assert (request.tool, request.input["command"]) == ("Bash", "rm x")
    pane.pause(GUARD_S + 0.1)
    pane.send(b"y")  # no Enter
    pane.see("? y")
    permits.answer(
        pane.work.paths, request.request_id, "allow", updated_input={"command": "mv"}, by="op"
    )
    assert pane.answered() == {"behavior": "allow", "updatedInput": {"command": "mv"}}
    pane.see("allowed (op)")
    pane.state("idle")
    with pytest.raises(Conflict):
        permits.answer(pane.work.paths, request.request_id, "deny")
    pane.say("BASH{rm y}")
    request = pane.request()
    pane.answer("y")
    pane.state("idle")
    with pytest.raises(Conflict):
        permits.answer(pane.work.paths, request.request_id, "deny")
    assert [v["by"] for v in pane.records("PermissionAnswer")] == ["op", "pane"]


def test_two_requests_at_once(start: Callable[..., Pane]) -> None:
    """One after the other in the pane; a half-typed answer is never taken for the next one's."""
    pane = start()
    pane.say("TWO{rm}")
    first = pane.request(2)
    pane.pause(GUARD_S + 0.1)
    pane.see("(1 more wait)")
    pane.send(b"y")
    pane.see("? y")
    permits.answer(pane.work.paths, first.request_id, "deny")
    second = pane.request(1)
    pane.pause(GUARD_S + 0.1)
    pane.send(b"\r")
    pane.pause(0.2)
    assert pane.request(1) == second
    pane.say("y")
    pane.state("idle")
    behaviors = [v["behavior"] for v in pane.records("PermissionAnswer")]
    assert behaviors == ["deny", "allow"]


def test_questions(start: Callable[..., Pane]) -> None:
    """Numbers answer, one question after the other; own words do too, other text does not."""
    pane = start()
    pane.say("ASK")
    pane.state("waiting_answer")
    pane.see("1. Red - warm")
    pane.answer("7")
    pane.say("2")
    pane.see("Which sizes?")
    pane.say("1,2")
    answers = {"Which colour?": "Blue", "Which sizes?": "Red, Blue"}
    assert pane.answered()["updatedInput"]["answers"] == answers
    pane.state("idle")
    pane.say("ASK")
    pane.state("waiting_answer")
    pane.answer("0 dark green")
    request = pane.request()
    answers = {"Which colour?": "Red", "Which sizes?": "Blue"}
    permits.answer(
        pane.work.paths, request.request_id, "allow", updated_input=request.with_answers(answers)
    )
    pane.state("idle")
    assert pane.answered()["updatedInput"]["answers"] == answers
    assert pane.heard() == ["ASK", "ASK"], pane.text[-6000:]


def test_an_interruption_takes_the_question_back(start: Callable[..., Pane]) -> None:
    """Esc at a dialog: the turn ends, nothing was allowed, the request is gone for all."""
    pane = start()
    pane.say("BASH{rm x}")
    request = pane.request()
    pane.send(b"\x1b")
    pane.see("Interrupted")
    pane.state("idle")
    with pytest.raises(Conflict):
        permits.answer(pane.work.paths, request.request_id, "allow")
    assert pane.records("PermissionGone")[0]["request_id"] == request.request_id
    assert not [v for v in pane.sent() if v["type"] == "control_response"]


@pytest.mark.parametrize("keys", [b"/exit\r", b"\x04", b"\x03\x03"])
def test_leaving(start: Callable[..., Pane], keys: bytes) -> None:
    """/exit, Ctrl-D, twice Ctrl-C: an end in good order, also after a turn that went wrong."""
    pane = start()
    pane.say("SLOW")
    pane.see("Thinking")
    pane.send(b"\x03")
    pane.see("Interrupted")
    pane.state("idle")
    pane.send(keys)
    assert pane.ends() == 0


def test_leaving_waits_for_the_turn(start: Callable[..., Pane]) -> None:
    """What runs is finished, and what waits is said, before it leaves."""
    pane = start()
    pane.say("BASH{ls}")
    pane.state("waiting_permission")
    pane.pause(GUARD_S + 0.1)
    pane.say("one more")
    pane.see("That waits")
    pane.say("/exit")
    pane.see("It leaves after this turn")
    pane.say("y")
    pane.see("You said: one more")
    assert pane.ends() == 0


@pytest.mark.parametrize(
    ("text", "status"), [("DIE{9}", 137), ("DIE{15}", 143), ("LEAVE{3}", 3), ("LEAVE{0}", 0)]
)
def test_it_ends_as_the_cli_ends(start: Callable[..., Pane], text: str, status: int) -> None:
    """So the unit's restart does for it what it does for any agent."""
    pane = start()
    pane.say(text)
    assert pane.ends() == status


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_both(
    start: Callable[..., Pane], number: signal.Signals, status: int
) -> None:
    """The turn is broken off, an open request is gone, and the CLI is not left behind."""
    pane = start()
    pane.say("BASH{ls}")
    pane.state("waiting_permission")
    pane.process.send_signal(number)
    assert pane.ends() == status
    assert pane.records("PermissionGone")
    assert any(v.get("request", {}).get("subtype") == "interrupt" for v in pane.sent())


def test_a_start_that_fails_is_told(start: Callable[..., Pane]) -> None:
    """A CLI that ends at once: its words are on the screen, its status is the unit's."""
    cli = start().work.environ["PATH"].split(":")[0] + "/claude"
    Path(cli).write_text("#!/bin/sh\necho No conversation found >&2; exit 1\n")
    pane = start(wait=False)
    pane.see("No conversation found")
    assert pane.ends() == 1


def test_noise_is_data(start: Callable[..., Pane]) -> None:
    """What is no JSON is shown without its escapes and kept out of the sidecar; long lines are cut."""
    pane = start()
    pane.say("NOISE")
    pane.see("You said: NOISE")
    pane.state("idle")
    assert "no json" in pane.text
    assert "stderr" in pane.text
    assert b"\x1b]0;" not in pane.printed
    pane.say("HUGE")
    pane.see("You said: HUGE")
    huge = [v for v in pane.records("stream") if v.get("subtype") == "huge"]
    assert [(v["truncated"], v["type"]) for v in huge] == [(True, "system")]


def test_a_cli_without_session_states(start: Callable[..., Pane]) -> None:
    """The turn's result is then its end."""
    pane = start()
    pane.say("OLD one")
    pane.see("You said: OLD one")
    pane.say("two")
    pane.see("You said: two")
    pane.state("idle")


@pytest.mark.parametrize(
    "line",
    [b"", b"{", b"[]", b'"x"', b"null", b'{"type":"message"}', b'{"type":"message","id":"7","text":"x"}',
     b'{"type":"message","id":"' + b"25294c88-dc9e-4625-805a-ec43070ff475" + b'","text":" "}',
     b'{"type":7}', b"[" * 100_000, b"\xff\xfe"],
)  # fmt: skip
def test_strange_requests_are_refused(start: Callable[..., Pane], line: bytes) -> None:
    """Nothing of them reaches the CLI, and the next one is heard."""
    import socket  # noqa: PLC0415

    pane = start()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(pane.work.paths.runtime / "control.sock"))
        sock.sendall(line + b"\n")
        answer = b""
        while not answer.endswith(b"\n"):
            ready, _, _ = select.select([sock, pane.master], [], [], TIMEOUT_S)
            if sock in ready:
                answer += sock.recv(65536)
            else:
                pane._pump(0)
        assert json.loads(answer)["ok"] is False
    pane.deliver(1, "still there")
    pane.see("You said: still there")
    assert pane.heard() == ["still there"]


def test_lines_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line without an end takes no more memory than the limit; the next one is read."""
    monkeypatch.setattr(stream_child, "MAX_LINE_BYTES", 1000)
    lines = Lines()
    found = [line for _ in range(100) for line in lines.feed(b"x" * 90)]
    assert found == [stream_child.TOO_LONG]
    assert lines.feed(b"y\nnext\nre") == [b"next"]
    assert lines.feed(b"st\n") == [b"rest"]
    assert lines.rest() == []
