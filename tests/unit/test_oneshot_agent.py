"""The agent of the oneshot driver, with a stand-in CLI, and without any terminal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator import oneshot_agent, sidecar
from orchestrator.config import Config
from orchestrator.drivers import NotTaken, Work, driver_named, message_key
from orchestrator.drivers.claude_home import ClaudeHome
from orchestrator.naming import TicketPaths

ROOT = Path(oneshot_agent.__file__).parents[1]
CLI = Path(__file__).with_name("stream_cli.py")
TIMEOUT_S = 20.0
DRIVER = driver_named("oneshot")


class Unit:
    """The agent as systemd would run it, its stdout in the pane log."""

    def __init__(self, work: Work) -> None:
        self.work = work
        # -I leaves PYTHONPATH out: the checkout may not be installed where the tests run
        argv = [word for word in DRIVER.prepare(work).argv if word != "-I"]
        with work.paths.pane_log_path.open("ab") as log:
            self.process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=work.cwd,
                env={**os.environ, **work.environ, "PYTHONPATH": str(ROOT)},
            )  # fmt: skip

    def until(self, condition: Callable[[], Any]) -> Any:
        """Waits for it."""
        deadline = time.monotonic() + TIMEOUT_S
        while not (found := condition()):
            assert time.monotonic() < deadline, self.shown()
            time.sleep(0.02)
        return found

    def shown(self) -> str:
        """The pane log."""
        return self.work.paths.pane_log_path.read_bytes().decode()

    def state(self, expected: str) -> None:
        """Waits for that turn state."""
        self.until(lambda: DRIVER.turn_state(self.work, self.process.pid) == expected)

    def confirmed(self, number: int, body: str) -> bool:
        """Whether the sidecar shows that the message was taken."""
        records = sidecar.read(self.work.paths.sidecar_path)
        key = message_key(7, number)
        return any(isinstance(r, sidecar.Record) and DRIVER.confirms(r, body, key) for r in records)

    def say(self, number: int, body: str) -> None:
        """Delivers a message and waits for the end of its turn."""
        DRIVER.deliver(self.work, message_key(7, number), body)
        self.until(lambda: self.confirmed(number, body))
        self.state("idle")

    def log(self, suffix: str) -> list[Any]:
        """What the CLI wrote down."""
        path = Path(self.work.environ["STREAM_CLI_LOG"]).with_suffix(suffix)
        return [json.loads(line) for line in path.read_bytes().splitlines()]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Unit]]:
    """Starts the agent on a ticket; again, it is the same one."""
    units: list[Unit] = []
    program = tmp_path / "bin/claude"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {CLI} "$@"\n')
    program.chmod(0o755)
    paths = TicketPaths(folder=tmp_path / "t", runtime=tmp_path / "r")
    for folder in (paths.folder, paths.runtime, tmp_path / "w"):
        folder.mkdir(mode=0o700)
    sidecar.append(paths.sidecar_path, "WorkerStart", {})  # as the launcher does
    work = Work(
        ticket=7, prompt="", session_id=str(uuid.uuid4()), command=(), cwd=tmp_path / "w",
        paths=paths, config=Config(),
        environ={
            "PATH": f"{program.parent}:{os.environ['PATH']}", "HOME": str(tmp_path),
            "STREAM_CLI_LOG": str(tmp_path / "stdin.log"),
        },
    )  # fmt: skip

    def begin(prompt: str = "") -> Unit:
        unit = Unit(replace(work, prompt=prompt))
        units.append(unit)
        unit.state("idle")
        return unit

    yield begin
    for unit in units:
        unit.process.kill()
        unit.process.wait()


def test_a_process_for_each_message(start: Callable[..., Unit]) -> None:
    """The first begins the conversation, the next goes on with it; the log is fit for a terminal."""
    unit = start("begin")
    unit.until(lambda: "You said: begin" in unit.shown())
    unit.state("idle")
    home = ClaudeHome.from_environ(unit.work.environ)
    transcript = home.transcript_path(unit.work.cwd, unit.work.session_id)
    transcript.parent.mkdir(parents=True)
    transcript.write_text('{"type":"user"}\n')
    unit.say(1, "and\nagain")
    assert "You said: and\r\nagain\r\n" in unit.shown()
    options = [argv[-2:] for argv in unit.log(".argv")]
    assert options == [["--session-id", unit.work.session_id], ["--resume", unit.work.session_id]]


def test_a_busy_one_refuses(start: Callable[..., Unit]) -> None:
    """Nothing of the second message reaches anybody; an interruption ends the first."""
    unit = start()
    DRIVER.deliver(unit.work, message_key(7, 1), "SLOW")
    unit.until(lambda: unit.confirmed(1, "SLOW"))
    with pytest.raises(NotTaken, match="busy"):
        DRIVER.deliver(unit.work, message_key(7, 2), "no")
    assert DRIVER.interrupt(unit.work)
    unit.state("idle")
    unit.say(2, "yes")
    assert [v["message"]["content"] for v in unit.log(".log")] == ["SLOW", "yes"]


@pytest.mark.parametrize("text", ["DIE{9}", "LEAVE{3}"])
def test_a_failing_cli_ends_nothing(start: Callable[..., Unit], text: str) -> None:
    """Its status is told, and the next message gets a process of its own."""
    unit = start()
    unit.say(1, text)
    unit.until(lambda: "ended with status" in unit.shown())
    unit.say(2, "go on")
    assert unit.process.poll() is None


@pytest.mark.parametrize("text", ["", "SLOW"])
def test_a_signal_ends_it_and_its_cli(start: Callable[..., Unit], text: str) -> None:
    """In time, and nothing stays behind."""
    unit = start()
    if text:
        DRIVER.deliver(unit.work, message_key(7, 1), text)
        unit.until(lambda: unit.confirmed(1, text))
    unit.process.send_signal(signal.SIGTERM)
    assert unit.process.wait(TIMEOUT_S) == 143
    assert list(unit.work.paths.runtime.iterdir()) == []
    assert DRIVER.turn_state(unit.work, unit.process.pid) == "starting"
