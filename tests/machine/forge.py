"""A place to clone from: the checkout as it stands, behind the address that the documents name.

The machine reaches no forge; git is told to find the address in a bare repository on the machine's own
disk, so that `git clone https://…` is typed as it is written and does what it says.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from tests.machine.commands import Commands
from tests.machine.install import REPOSITORY

ADDRESS = "https://example.org/"
FOLDER = "/var/tmp/forge"
NAME = "mission-control.git"
WHO = {
    "GIT_AUTHOR_NAME": "Mission Control",
    "GIT_AUTHOR_EMAIL": "mission-control@example.org",
    "GIT_COMMITTER_NAME": "Mission Control",
    "GIT_COMMITTER_EMAIL": "mission-control@example.org",
}


def _git(*argv: str, **env: str) -> str:
    done = subprocess.run(
        ["git", "-c", "safe.directory=*", *argv],
        env={**os.environ, **WHO, **env}, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout.strip()


def bare_repository(folder: Path) -> Path:
    """A bare repository whose `main` is the checkout as it stands, what is not committed included."""
    bare = folder / NAME
    _git("init", "-q", "--bare", "-b", "main", str(bare))
    tree_of = {
        "GIT_DIR": str(bare),
        "GIT_WORK_TREE": str(REPOSITORY),
        "GIT_INDEX_FILE": str(folder / "index"),
    }
    # with its history and tags, of which the version is made
    tags = "+refs/tags/*:refs/tags/*"
    _git(f"--git-dir={bare}", "fetch", "-q", "--update-shallow", str(REPOSITORY), "HEAD", tags)
    _git("-C", str(REPOSITORY), "add", "--all", **tree_of)
    tree = _git("write-tree", **tree_of)
    commit = _git("commit-tree", "-p", "FETCH_HEAD", "-m", "As things stand", tree, **tree_of)
    _git("update-ref", "refs/heads/main", commit, **tree_of)
    return bare


def serve(machine: Commands) -> None:
    """Have `git clone https://example.org/mission-control.git` work on the machine."""
    with tempfile.TemporaryDirectory() as folder:
        machine.copy_in(bare_repository(Path(folder)), f"{FOLDER}/{NAME}")
    machine.run(  # the file, not `git config`: git is what the reader is told to install
        ["sh", "-c", "cat >>/etc/gitconfig"],
        user="root",
        input=f'[url "file://{FOLDER}/"]\n\tinsteadOf = {ADDRESS}\n',
    )  # fmt: skip
