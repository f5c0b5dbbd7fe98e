"""Fault 19: the day's clock jumps an hour either way; nothing waits for it, nothing is taken for new."""

from __future__ import annotations

import ast
import os
import time
from pathlib import Path

import pytest

from orchestrator import delivery, tmux

ROOT = Path(__file__).resolve().parents[2]
HOUR_S = 3600.0
#: who may ask the day's clock, and why no timer hangs on it
ALLOWED = {
    "orchestrator/tmux.py": "compares with tmux's own stamps, which are of that clock",
    "orchestrator/delivery.py": "compares with a file's stamp",
    "orchestrator/doctor.py": "compares it with the database's",
    "orchestrator/bundle.py": "stamps of files",
    "webgate/metrics.py": "says when the process began",
    "orchestrator/demo_agent.py": "stamps of a demonstration",
    "orchestrator/demo_log.py": "stamps of a demonstration",
}


@pytest.mark.fault(19)
def test_no_timer_asks_the_clock_of_the_day() -> None:
    """time.time() stands only where a stamp is compared with a stamp; timers are monotonic."""
    found = set()
    for path in [*ROOT.glob("orchestrator/**/*.py"), *ROOT.glob("webgate/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and ast.unparse(node) == "time.time":
                found.add(path.relative_to(ROOT).as_posix())
    assert found <= set(ALLOWED)


@pytest.mark.parametrize(("jump", "typing"), [(0, True), (HOUR_S, False), (-HOUR_S, False)])
def test_a_key_of_another_time_is_nobody_typing(
    monkeypatch: pytest.MonkeyPatch, jump: float, *, typing: bool
) -> None:
    """A clock that was set back must not hold messages for an hour."""
    stamp = int(time.time())
    monkeypatch.setattr(time, "time", lambda: stamp + 0.5 + jump)
    assert (tmux.last_key_s([f"0 {stamp}", "1 0"]) < delivery.TYPING_S) == typing


@pytest.mark.parametrize(("age", "just_now"), [(0, True), (HOUR_S, False), (-HOUR_S, False)])
def test_a_prompt_of_another_time_was_not_taken_just_now(
    tmp_path: Path, age: float, *, just_now: bool
) -> None:
    """The same for the newest line of a sidecar."""
    path = tmp_path / "sidecar.jsonl"
    path.write_text('{"v":1,"at":"2026-01-01T00:00:00Z","hook":"UserPromptSubmit","data":{}}\n')
    stamp = time.time() - age
    os.utime(path, (stamp, stamp))
    assert delivery._began_just_now(path) == just_now
