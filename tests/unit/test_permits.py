"""Permission requests that are answered from elsewhere: the hook's program and the answering side."""

from __future__ import annotations

import json
import os
import shlex
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from orchestrator import permission_hook, permits, sidecar
from orchestrator.asking import Asking
from orchestrator.errors import Conflict, InvalidInput, TicketError
from orchestrator.naming import TicketPaths

HOOK = Path(permission_hook.__file__)
TIMEOUT_S = 20.0
BASH = {"tool_name": "Bash", "tool_input": {"command": "ls", "description": "look"}}
QUESTIONS = [{"question": "Which colour?", "options": [{"label": "Red"}, {"label": "Blue"}]}]
ASK = {"tool_name": "AskUserQuestion", "tool_input": {"questions": QUESTIONS}}


def until(condition: Callable[[], Any]) -> Any:
    """Waits for it."""
    deadline = time.monotonic() + TIMEOUT_S
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


class Worker:
    """This process in the place of the agent: it has a state file, and starts the hook."""

    def __init__(self, folder: Path) -> None:
        self.paths = TicketPaths(folder=folder / "ticket", runtime=folder / "run")
        self.paths.folder.mkdir()
        self.home = folder / "home"
        (self.home / ".claude/sessions").mkdir(parents=True)
        self.status("waiting")
        self.hooks: list[subprocess.Popen[bytes]] = []

    def status(self, status: str) -> None:
        """What its state file says."""
        state = {"pid": os.getpid(), "status": status}
        (self.home / f".claude/sessions/{os.getpid()}.json").write_text(json.dumps(state))

    def tells(self, hook: str, **data: Any) -> None:
        """A line of the tee's."""
        sidecar.append(self.paths.sidecar_path, hook, {"session_id": "s", **data})

    def asks(
        self, about: dict[str, Any], *, through: tuple[str, ...] = ()
    ) -> subprocess.Popen[bytes]:
        """Starts the hook as the agent would, and gives it what it is asked."""
        requests = permits.requests_folder(self.paths)
        argv = [sys.executable, "-I", "-S", str(HOOK), str(self.paths.sidecar_path), str(requests)]
        running = subprocess.Popen(
            [*through, *argv],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={"HOME": str(self.home), "PATH": os.environ["PATH"]},
        )  # fmt: skip
        assert running.stdin
        running.stdin.write(json.dumps({"session_id": "s", **about}).encode())
        running.stdin.close()
        self.hooks.append(running)
        return running

    def request(self, count: int = 1) -> permits.Request:
        """Waits until so many requests are open; the newest."""
        found: list[permits.Request] = until(
            lambda: len(r := permits.open_requests(self.paths)) == count and r
        )
        return found[-1]

    def decision(self, hook: subprocess.Popen[bytes]) -> dict[str, Any]:
        """What the agent is told; empty when nothing."""
        assert hook.stdout
        printed = hook.stdout.read()
        assert hook.wait(TIMEOUT_S) == 0
        if not printed:
            return {}
        output = json.loads(printed)["hookSpecificOutput"]
        assert output["hookEventName"] == "PermissionRequest"
        return dict(output["decision"])

    def lines(self, *names: str) -> list[dict[str, Any]]:
        """The sidecar's lines of those hooks."""
        records = [
            r for r in sidecar.read(self.paths.sidecar_path) if isinstance(r, sidecar.Record)
        ]
        return [{"hook": r.hook, **r.data} for r in records if r.hook in names]

    def nothing_is_left(self) -> None:
        """No file of any request."""
        assert os.listdir(permits.requests_folder(self.paths)) == []


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    """An agent that waits."""
    made = Worker(tmp_path)
    yield made
    for hook in made.hooks:
        hook.kill()
        hook.wait()
        for file in (hook.stdout, hook.stderr):
            assert file
            file.close()


def test_allowed(worker: Worker) -> None:
    """The agent gets its decision, the sidecar the whole story, and only we can read the files."""
    hook = worker.asks(BASH)
    request = worker.request()
    assert (request.tool, request.input) == ("Bash", BASH["tool_input"])
    folder = permits.requests_folder(worker.paths)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}
    permits.answer(worker.paths, request.request_id, "allow", by="op")
    assert worker.decision(hook) == {"behavior": "allow"}
    asked, answered = worker.lines("PermissionRequest", "PermissionAnswer", "PermissionGone")
    assert (asked["hook"], asked["tool_name"]) == ("PermissionRequest", "Bash")
    assert asked["request_id"] == answered["request_id"] == request.request_id
    assert (answered["hook"], answered["behavior"], answered["by"]) == (
        "PermissionAnswer",
        "allow",
        "op",
    )
    worker.nothing_is_left()


def test_denied(worker: Worker) -> None:
    """The reason reaches the agent word for word; without one there is a sentence all the same."""
    hook = worker.asks(BASH)
    permits.answer(worker.paths, worker.request().request_id, "deny", "nö, »use« b\nthen")
    assert worker.decision(hook) == {"behavior": "deny", "message": "nö, »use« b\nthen"}
    hook = worker.asks(BASH)
    permits.answer(worker.paths, worker.request().request_id, "deny")
    assert worker.decision(hook)["message"]


def test_a_question_is_answered_by_its_input(worker: Worker) -> None:
    """A question that is allowed without its answers is refused, and stays open."""
    hook = worker.asks(ASK)
    request = worker.request()
    assert request.is_question
    with pytest.raises(InvalidInput):
        permits.answer(worker.paths, request.request_id, "allow")
    answers = request.with_answers({"Which colour?": "Blue"})
    permits.answer(worker.paths, request.request_id, "allow", updated_input=answers)
    expected = {"questions": QUESTIONS, "answers": {"Which colour?": "Blue"}}
    assert worker.decision(hook) == {"behavior": "allow", "updatedInput": expected}


def test_long_answers_arrive_whole(worker: Worker) -> None:
    """Also those that are longer than a pipe holds; a too long one is refused."""
    hook = worker.asks(BASH)
    request = worker.request()
    with pytest.raises(InvalidInput):
        permits.answer(worker.paths, request.request_id, "deny", "x" * 5_000_000)
    permits.answer(
        worker.paths, request.request_id, "allow", updated_input={"command": "x" * 1_000_000}
    )
    assert len(worker.decision(hook)["updatedInput"]["command"]) == 1_000_000


def test_the_first_answer_is_the_only_one(worker: Worker) -> None:
    """Of many at once exactly one counts; each of the others is told so."""
    hook = worker.asks(BASH)
    request = worker.request()

    def attempt(number: int) -> bool:
        try:
            permits.answer(worker.paths, request.request_id, "deny", f"by {number}")
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(attempt, range(8)))
    assert won.count(True) == 1
    assert worker.decision(hook)["message"] == f"by {won.index(True)}"
    assert not attempt(9)


def test_answered_in_the_pane_the_tool_ran(worker: Worker) -> None:
    """The end of that very tool call ends the waiting; another call's end, beside it, does not."""
    call = {**BASH, "tool_use_id": "one"}
    worker.tells("PreToolUse", **{**call, "tool_use_id": "other", "tool_input": {"command": "df"}})
    worker.tells("PreToolUse", **call)
    hook = worker.asks(BASH)
    request = worker.request()
    worker.tells("PostToolUse", **{**call, "tool_use_id": "other"})
    time.sleep(2 * permission_hook.LOOK_EVERY_S)
    assert worker.request() == request
    worker.tells("PostToolUse", **call)
    assert worker.decision(hook) == {}
    with pytest.raises(Conflict):
        permits.answer(worker.paths, request.request_id, "allow")
    assert [x["hook"] for x in worker.lines("PermissionAnswer", "PermissionGone")] == [
        "PermissionGone"
    ]
    worker.nothing_is_left()


def test_refused_in_the_pane(worker: Worker) -> None:
    """No hook tells of Esc: that the agent waits no more is the sign. A blink is none."""
    hook = worker.asks(BASH)
    worker.request()
    worker.status("busy")
    time.sleep(permission_hook.LOOK_EVERY_S)
    worker.status("waiting")
    time.sleep(4 * permission_hook.LOOK_EVERY_S)
    assert hook.poll() is None
    worker.status("idle")
    assert worker.decision(hook) == {}
    worker.nothing_is_left()


def test_a_dialog_that_is_slow_to_open_can_be_answered(worker: Worker) -> None:
    """On a loaded machine the agent says `busy` for seconds after it asked: the question stays open."""
    worker.status("busy")
    hook = worker.asks(BASH)
    request = worker.request()
    time.sleep((permission_hook.LOOKS_IDLE + 3) * permission_hook.LOOK_EVERY_S)
    assert hook.poll() is None
    worker.status("waiting")
    permits.answer(worker.paths, request.request_id, "allow")
    assert worker.decision(hook) == {"behavior": "allow"}


def test_the_agent_was_killed(worker: Worker) -> None:
    """Its hook does not wait for an hour: it sees the agent's end, behind a shell too."""
    agent = (
        "import json, os, subprocess, sys;"
        "path = os.environ['HOME'] + f'/.claude/sessions/{os.getpid()}.json';"
        "open(path, 'w').write(json.dumps({'status': 'waiting'}));"
        "subprocess.run(['sh', '-c', '\"$@\"; true', 'sh', *sys.argv[1:]])"
    )
    running = worker.asks(BASH, through=(sys.executable, "-c", agent))
    worker.request()
    running.kill()
    until(lambda: worker.lines("PermissionGone"))
    worker.nothing_is_left()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_the_hook_is_told_to_leave(worker: Worker, number: signal.Signals) -> None:
    """As at the end of its time: it says nothing to the agent and leaves nothing."""
    hook = worker.asks(BASH)
    worker.request()
    hook.send_signal(number)
    assert worker.decision(hook) == {}
    assert worker.lines("PermissionGone")
    worker.nothing_is_left()


def test_the_hook_is_told_to_leave_again_and_again(worker: Worker) -> None:
    """As Claude Code does on Esc, to the hook and to its shell: a signal never breaks off the leaving."""
    for _ in range(5):
        hook = worker.asks(BASH)
        worker.request()
        while hook.poll() is None:
            hook.send_signal(signal.SIGTERM)
            time.sleep(0.0005)
        assert worker.decision(hook) == {}
        worker.nothing_is_left()
    assert len(worker.lines("PermissionGone")) == 5


def test_the_hook_was_killed(worker: Worker) -> None:
    """What it could not remove is no open request, and goes."""
    hook = worker.asks(BASH)
    request = worker.request()
    hook.kill()
    hook.wait()
    with pytest.raises(Conflict):
        permits.answer(worker.paths, request.request_id, "allow")
    assert permits.open_requests(worker.paths) == []
    worker.nothing_is_left()


def test_a_request_that_cannot_be_offered_is_told(worker: Worker) -> None:
    """Where the folder cannot be made (a full disk, say), the pane answers and the sidecar knows."""
    worker.paths.runtime.write_text("no folder")
    assert worker.decision(worker.asks(BASH)) == {}
    (told,) = worker.lines("PermissionRequest", "PermissionAnswer", "PermissionGone")
    assert (told["hook"], told["tool_name"]) == ("PermissionRequest", "Bash")
    assert "request_id" not in told


def test_the_settings_name_the_hook(worker: Worker) -> None:
    """It alone may take its time; where nobody is to answer, the tee tells of requests as of all."""
    requests = permits.requests_folder(worker.paths)
    tee = HOOK.with_name("sidecar_tee.py")
    path = worker.paths.sidecar_path
    with_it = sidecar.settings_hooks(sys.executable, tee, path, 7, requests)["hooks"]
    without = sidecar.settings_hooks(sys.executable, tee, path, 7)["hooks"]
    assert with_it.keys() == without.keys()
    (hook,) = with_it.pop("PermissionRequest")[0]["hooks"]
    assert shlex.split(hook["command"])[-3:] == [str(HOOK), str(path), str(requests)]
    assert 3600 <= hook["timeout"] < 2**31 / 1000  # the CLI counts milliseconds in 31 bits
    assert "sidecar_tee.py" in without.pop("PermissionRequest")[0]["hooks"][0]["command"]
    assert with_it == without


def test_several_are_open_at_once(worker: Worker) -> None:
    """Each is answered by its own name, in any order."""
    first = worker.asks(BASH)
    one = worker.request()
    second = worker.asks({**BASH, "tool_input": {"command": "df"}})
    two = worker.request(2)
    assert permits.open_requests(worker.paths) == [one, two]
    permits.answer(worker.paths, two.request_id, "deny", "second")
    assert worker.decision(second)["message"] == "second"
    permits.answer(worker.paths, one.request_id, "allow")
    assert worker.decision(first) == {"behavior": "allow"}


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b'{"tool_name":', b"\xff\xfe"])
def test_nonsense_leaves_the_dialog_to_the_pane(worker: Worker, raw: bytes) -> None:
    """Whatever the hook is told, it ends with 0 and decides nothing."""
    requests = permits.requests_folder(worker.paths)
    argv = [sys.executable, "-I", "-S", str(HOOK), str(worker.paths.sidecar_path), str(requests)]
    done = subprocess.run(argv, input=raw, capture_output=True, timeout=TIMEOUT_S, check=False)
    assert (done.returncode, done.stdout) == (0, b"")
    assert done.stderr


@pytest.mark.parametrize("name", ["", "../../x", "a" * 31, "A" * 32, "٣" * 32, "a" * 32 + "\n"])
def test_strange_names_are_no_requests(worker: Worker, name: str) -> None:
    """No path comes out of what somebody sent."""
    with pytest.raises(Conflict):
        permits.answer(worker.paths, name, "allow")


def test_a_folder_of_anything(worker: Worker) -> None:
    """Strange files are neither requests nor a reason to fail; nor are they removed."""
    folder = permits.requests_folder(worker.paths)
    folder.mkdir(parents=True)
    (folder / "notes.json").write_text("{}")
    (folder / ("b" * 32)).symlink_to("/dev/null")
    (folder / ("c" * 32 + ".json")).write_text("[")
    assert permits.open_requests(worker.paths) == []
    assert (folder / "notes.json").exists()


def test_an_answer_that_is_none_is_not_taken(worker: Worker) -> None:
    """The waiting side believes only what it knows, and goes on waiting."""
    folder = permits.requests_folder(worker.paths)
    asking = Asking(str(folder), "Bash", {})
    try:
        for line in (b"nonsense\n", b'{"behavior":"maybe"}\n', b"[]\n", b'{"behavior":"all'):
            with open(folder / asking.request_id, "wb") as file:
                file.write(line)
            assert asking.read() is None
        with open(folder / asking.request_id, "wb") as file:
            file.write(b'ow"}\n')
        assert asking.read() == {"behavior": "allow"}
    finally:
        asking.close()
    with pytest.raises(TicketError):
        permits.answer(worker.paths, asking.request_id, "maybe")  # type: ignore[arg-type]
