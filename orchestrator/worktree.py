"""Make a worktree, and give it back: git's part of a ticket's beginning and end.

Nothing is forced, ever: what is in the way is named, with the command that mends it. What is in a
worktree is `diff`'s and `loss`'s to say.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from orchestrator import git
from orchestrator.errors import ConfigError, InvalidInput

# check-ref-format accepts $(id) and a;rm
_REF = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/@^~{}+-]{0,199}", re.ASCII)
# of a worktree that another git is making at this moment
_HALF_MADE = re.compile(r"failed to read '?[^ ]*worktrees/[^ ]*(commondir|gitdir|HEAD)")
_TRIES = 20
_TRY_AGAIN_S = 0.1
_UNWRITTEN = re.compile(r"error: (unable to write .*)")
_LOCKED = re.compile(r"'(/[^']+\.lock)'|cannot lock")


def find_repository(path: Path) -> Path:
    """The top folder of the repository that holds `path`; of a bare one, its own folder.

    Raises:
        InvalidInput: there is none.
    """
    if not path.is_dir():
        raise InvalidInput(f"{path} is no folder.", hint="Give --repo the path of a git checkout.")
    done = git.run(path, "rev-parse", "--show-toplevel")
    if done.status:
        inside = git.run(path, "rev-parse", "--path-format=absolute", "--git-common-dir")
        if inside.status:
            raise InvalidInput(
                f"{path} is no git repository: {inside.reason}.",
                hint=f"git -C {path} init, or another --repo",
            )
        # bare, or a folder beside a bare one with a file .git that leads there
        return path if (path / ".git").exists() else Path(inside.text.rstrip("\n"))
    return Path(done.text.rstrip("\n"))


def commit_of(repo: Path, ref: str) -> str:
    """The full SHA that `ref` stands for.

    Raises:
        InvalidInput: it is no commit, or no plain name.
    """
    if not _REF.fullmatch(ref):
        raise InvalidInput(f"{ref!r} is no branch, tag or commit.")
    done = git.run(
        repo, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}"
    )
    if done.status:
        hint = f"git -C {repo} branch --all"
        if ref == "HEAD":
            hint = f'Make a first commit: git -C {repo} commit --allow-empty -m "first"'
        raise InvalidInput(f"{repo} has no commit {ref!r}.", hint=hint)
    return done.text.strip()


def registered(repo: Path) -> dict[Path, str]:
    """Worktrees of a repository: path to branch (refs/heads/…), or to an empty string."""
    done = _patiently(repo, "worktree", "list", "--porcelain", "-z")
    git.checked(done, f"git cannot list the worktrees of {repo}")
    found: dict[Path, str] = {}
    path = Path()
    for line in done.text.split("\0"):
        key, _, value = line.partition(" ")
        if key == "worktree":
            path = Path(value)
            found[path] = ""
        elif key == "branch":
            found[path] = value
    return found


def ensure_worktree(
    repo: Path, path: Path, branch: str, base: str, *, branch_is_ours: bool = False
) -> bool:
    """A worktree at `path` on `branch`, which starts at commit `base` when it is new.

    Args:
        repo: its repository.
        path: where it should be.
        branch: its short name.
        base: a full commit number.
        branch_is_ours: go on with the branch where it exists (a ticket that is opened again).

    Returns whether it was made now.

    Raises:
        ConfigError: something is in the way; the hint says how to clear it.
    """
    if not repo.is_dir():
        raise ConfigError(
            f"The repository {repo} is gone.", hint="Put it back, or close the ticket."
        )
    on = registered(repo).get(path)
    if path.is_dir() and on is not None:
        # The agent may have switched branches in there; that is its work, not ours.
        return False
    if os.path.lexists(path):
        raise ConfigError(
            f"{path} exists and is no worktree of {repo}.",
            hint=f"Move it away: mv {path} {path}.old",
        )
    if on is not None:
        raise ConfigError(
            f"The worktree {path} was deleted, but git still has it.",
            hint=f"git -C {repo} worktree prune && git -C {repo} worktree add {path} {branch}",
        )
    exists = not git.run(repo, "show-ref", "--verify", "--quiet", f"refs/heads/{branch}").status
    if exists and not branch_is_ours:
        raise ConfigError(
            f"The branch {branch} exists already in {repo}.",
            hint=f"To work on it: git -C {repo} worktree add {path} {branch}",
        )
    _add(repo, path, branch, base, exists=exists)
    return True


def _add(repo: Path, path: Path, branch: str, base: str, *, exists: bool) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{path.parent} cannot be made: {error.strerror}.",
            hint="Set [worktree] path in config.toml to a folder of yours.",
        ) from None
    how = ["--", str(path), branch] if exists else ["-b", branch, "--", str(path), base]

    def take_back() -> None:
        # git takes back the folder, not the branch: it goes only while nothing was done on it
        if not exists:
            git.run(repo, "update-ref", "-d", f"refs/heads/{branch}", base)

    done = _patiently(repo, "worktree", "add", "--quiet", *how, meanwhile=take_back)
    if not done.status:
        return
    take_back()
    if done.disk_is_full or (unwritten := _UNWRITTEN.search(done.stderr)):
        # git gives no reason for a file of the checkout, and has removed the others by now
        said = done.reason if done.disk_is_full or not unwritten else unwritten[1]
        free = shutil.disk_usage(path.parent).free
        raise ConfigError(
            f"The worktree {path} could not be written: {said}; {free >> 20} MiB are free there.",
            hint=f"Free some: df -h {path.parent}; ticketctl gc",
        )
    if _LOCKED.search(done.stderr):
        raise ConfigError(
            f"Another git is at work in {repo}, or was killed there: {done.reason}.",
            hint="When none runs, remove the lock file it names.",
        )
    raise ConfigError(
        f"git worktree add {path}: {done.reason}.", hint=f"git -C {repo} worktree list"
    )


def _patiently(repo: Path, *args: str, meanwhile: Callable[[], object] = lambda: None) -> git.Done:
    """Again, when another worktree of the repository was being made: git does not wait for itself."""
    for _ in range(_TRIES):
        done = git.run(repo, *args)
        if not done.status or not _HALF_MADE.search(done.stderr):
            break
        meanwhile()
        time.sleep(_TRY_AGAIN_S)
    return done


def left_lock(repo: Path, path: Path) -> Path | None:
    """An index.lock in a worktree, left by a git that was killed, or of one that runs."""
    admin = git.admin_dir(git.common_dir(repo), path)
    lock = admin / "index.lock" if admin else None
    return lock if lock is not None and lock.exists() else None


def forget(repo: Path, path: Path) -> None:
    """Has git forget one worktree whose folder is gone; others that are away are left alone.

    Raises:
        ConfigError: the folder is there, or git keeps it, because it was locked for instance.
    """
    if os.path.lexists(path):
        raise ConfigError(f"{path} is still there.")
    if path in registered(repo):
        git.checked(
            git.run(repo, "worktree", "remove", "--", str(path)), f"git worktree remove {path}"
        )
