"""templates/tmux.conf on a real tmux: what a worker prints stays in its pane."""

from __future__ import annotations

import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
#: A clipboard, a window's name, a passed-through title; then a mark.
HOSTILE = r"\033]52;c;aGFja2Vk\007\033khacked\033\\\033Ptmux;\033\033]2;hacked\007\033\\ready"

Ask = Callable[..., str]


@pytest.fixture(scope="module")
def tmux(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """A server with that configuration, whose one pane printed HOSTILE."""
    program = shutil.which("tmux")
    if program is None:
        pytest.skip("tmux is not installed")
    home = str(tmp_path_factory.mktemp("home"))
    name = f"mc-test-{uuid.uuid4().hex[:8]}"
    environ = {"HOME": home, "PATH": "/usr/bin:/bin", "TERM": "xterm-256color", "TMUX_TMPDIR": home}
    argv = [program, "-L", name, "-f", str(ROOT / "templates/tmux.conf")]

    def ask(*words: str) -> str:
        done = subprocess.run(
            [*argv, *words], env=environ, capture_output=True, text=True, timeout=20, check=False
        )
        return done.stdout.strip()

    ask("new-session", "-d", "-s", "one", "-n", "first", f"printf '{HOSTILE}'; exec sleep 60")
    deadline = time.monotonic() + 20
    while "ready" not in ask("capture-pane", "-p", "-t", "=one:") and time.monotonic() < deadline:
        time.sleep(0.05)
    yield ask
    ask("kill-server")


@pytest.mark.parametrize(
    ("option", "value"),
    [("set-clipboard", "off"), ("allow-passthrough", "off"), ("allow-rename", "off"), ("set-titles", "off")],
)  # fmt: skip
def test_what_is_off_is_off(tmux: Ask, option: str, value: str) -> None:
    """As this tmux understands the file."""
    assert value in {tmux("show-options", "-gv", option), tmux("show-options", "-sv", option)}


def test_a_pane_reaches_nothing_outside(tmux: Ask) -> None:
    """No buffer was filled, no window renamed, and the screen is what was printed."""
    assert tmux("list-buffers") == ""
    assert tmux("display-message", "-p", "-t", "=one:", "#{window_name}") == "first"
    assert tmux("capture-pane", "-p", "-t", "=one:").strip() == "ready"
