"""Git repositories to try things on, and agents' tricks in them. Not for the product."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ENVIRON = {
    **{k: v for k, v in os.environ.items() if not k.startswith("GIT_")},
    "GIT_AUTHOR_NAME": "op",
    "GIT_AUTHOR_EMAIL": "op@example.org",
    "GIT_COMMITTER_NAME": "op",
    "GIT_COMMITTER_EMAIL": "op@example.org",
    "GIT_CONFIG_NOSYSTEM": "1",
}


def git(folder: Path, *args: str) -> str:
    """Runs git there; its stdout."""
    done = subprocess.run(
        ["git", "-C", str(folder), *args], check=True, capture_output=True, env=ENVIRON
    )
    return done.stdout.decode().strip()


def commit(folder: Path, text: str = "work") -> str:
    """Commits all there is; the commit."""
    git(folder, "add", "--all")
    git(folder, "commit", "-q", "--allow-empty", "-m", text)
    return git(folder, "rev-parse", "HEAD")


def repository(path: Path) -> Path:
    """One with a commit on main."""
    path.mkdir(parents=True)
    git(path, "init", "-q", "-b", "main")
    git(path, "config", "user.name", "op")
    git(path, "config", "user.email", "op@example.org")
    (path / "README").write_text("hello\n")
    commit(path, "first")
    return path


def canary(folder: Path, name: str) -> tuple[Path, Path]:
    """A program that leaves a trace when it is run, and the trace."""
    trace = folder / f"{name}.ran"
    program = folder / name
    program.write_text(f"#!/bin/sh\necho ran >> {trace}\ncat\n")
    program.chmod(0o755)
    return program, trace
