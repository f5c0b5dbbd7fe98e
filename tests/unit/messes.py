"""What agents leave behind in worktrees, by name; and what is in one. Not for the product.

`python3 -m tests.unit.messes make REPOSITORY WORKTREE NAME…` makes them on a machine, where only the
standard library is; `… contents WORKTREE` prints a sum of each file.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.unit.repositories import commit, git, repository

MESSES = [
    "dirty", "staged", "staged-then-reverted", "deleted", "untracked", "untracked-link", "ignored",
    "disposable", "assumed", "skipped", "unmerged", "merged", "pushed", "detached", "switched", "process",
    "repository", "rebase", "stat", "odd-name", "mode",
]  # fmt: skip
HARMLESS = {"disposable", "merged", "pushed", "ignored"}


def _commits(repo: Path, path: Path, messes: set[str]) -> None:
    if "pushed" in messes:
        remote = repo.parent / "remote.git"
        git(repo, "clone", "-q", "--bare", str(repo), str(remote))
        git(repo, "remote", "add", "origin", str(remote))
    for name in ("merged", "pushed", "switched", "detached", "unmerged"):
        if name not in messes:
            continue
        if name == "switched":
            git(path, "checkout", "-q", "-b", "elsewhere")
        if name == "detached":
            git(path, "checkout", "-q", "--detach")
        (path / name).write_text(name)
        commit(path, name)
        if name == "merged":
            git(repo, "merge", "-q", "--no-ff", "-m", "merge", git(path, "rev-parse", "HEAD"))
        if name == "pushed":
            git(path, "push", "-q", "origin", "HEAD:refs/heads/work")
            git(repo, "fetch", "-q", "origin")


def _write(name: str, text: str) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)

    return write


def _stage(name: str, text: str, then: str) -> Callable[[Path], object]:
    def stage(path: Path) -> None:
        (path / name).write_text(text)
        git(path, "add", name)
        (path / name).write_text(then)

    return stage


def _hide(flag: str) -> Callable[[Path], object]:
    def hide(path: Path) -> None:
        git(path, "update-index", flag, "README")
        (path / "README").write_text("hidden\n")

    return hide


def _touch_back(path: Path) -> None:
    """As long as before, and its time put back."""
    before = (path / "README").stat()
    (path / "README").write_text("olleh\n")
    os.utime(path / "README", ns=(before.st_atime_ns, before.st_mtime_ns))


_FILES: dict[str, Callable[[Path], object]] = {
    "dirty": _write("README", "dirty\n"),
    "staged": _stage("staged", "staged\n", "staged\n"),
    "staged-then-reverted": _stage("other", "staged only\n", "other\n"),
    "deleted": lambda path: (path / ".gitignore").unlink(),
    "untracked": _write("new/deep/file", "new\n"),
    "untracked-link": lambda path: (path / "link").symlink_to("/nowhere"),
    "ignored": _write("notes.ignored", "notes\n"),
    "disposable": _write("node_modules/x", "x"),
    "assumed": _hide("--assume-unchanged"),
    "skipped": _hide("--skip-worktree"),
    "repository": lambda path: repository(path / "inner"),
    "rebase": lambda path: (Path(git(path, "rev-parse", "--git-dir")) / "rebase-merge").mkdir(),
    "stat": _touch_back,
    "odd-name": _write(os.fsdecode(b"a\n\xff \"'"), "odd\n"),
    "mode": lambda path: (path / "other").chmod(0o755),
}


@contextmanager
def mess(repo: Path, path: Path, messes: set[str]) -> Iterator[None]:
    """What an agent may leave behind; commits first, for they change what is dirty."""
    _commits(repo, path, messes)
    for name in sorted(messes & _FILES.keys()):
        _FILES[name](path)
    process = subprocess.Popen(["sleep", "60"], cwd=path) if "process" in messes else None
    try:
        yield
    finally:
        if process:
            process.kill()
            process.wait()


def contents(path: Path) -> dict[str, tuple[str, bytes]]:
    """Every file of a tree but .git and what can be made again."""
    found: dict[str, tuple[str, bytes]] = {}
    for folder, folders, names in os.walk(path):
        folders[:] = [f for f in folders if f not in {".git", "node_modules"}]
        for name in names:
            file = Path(folder, name)
            if file.name == ".git":
                continue
            kind = "link" if file.is_symlink() else "file"
            data = os.fsencode(os.readlink(file)) if kind == "link" else file.read_bytes()
            found[str(file.relative_to(path))] = (kind, data)
    return found


if __name__ == "__main__":
    if sys.argv[1] == "make":
        names = set(sys.argv[4:])
        with mess(Path(sys.argv[2]), Path(sys.argv[3]), names - {"process"}):
            pass
        if "process" in names:
            subprocess.Popen(["sleep", "60"], cwd=sys.argv[3], start_new_session=True)
    else:
        found = contents(Path(sys.argv[2])).items()
        print(json.dumps({repr(n): [k, hashlib.sha256(d).hexdigest()] for n, (k, d) in found}))
