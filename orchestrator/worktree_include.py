"""Copy the ignored files that a fresh worktree needs: what `.worktreeinclude` names.

The file lies in the repository's checkout and is written like a .gitignore; only what git ignores
and does not track is copied. Nothing is overwritten, nothing is written outside the worktree.
"""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from orchestrator import git
from orchestrator.errors import ConfigError

NAME = ".worktreeinclude"
MAX_FILES = 5_000
MAX_BYTES = 500 << 20


def copy_included(repo: Path, worktree: Path) -> list[str]:
    """The files that were copied, by name.

    Raises:
        ConfigError: it names too much, or there is no space.
    """
    patterns = repo / NAME
    if not patterns.is_file() or patterns.is_symlink() or repo == worktree:
        return []
    listing = ["ls-files", "--others", "--ignored", "-z"]
    named = git.run(repo, *listing, f"--exclude-from={patterns}")
    ignored = git.run(repo, *listing, "--exclude-standard")
    git.checked(named, f"{patterns} cannot be read")
    wanted = sorted(set(git.paths_of(named.stdout)) & set(git.paths_of(ignored.stdout)))
    sizes = {name: status.st_size for name in wanted if (status := _plain(repo / name))}
    if len(sizes) > MAX_FILES or sum(sizes.values()) > MAX_BYTES:
        raise ConfigError(
            f"{patterns} names {len(sizes)} files, {sum(sizes.values()) >> 20} MiB.",
            hint=f"At most {MAX_FILES} files and {MAX_BYTES >> 20} MiB are copied: make what is large"
            " with [worktree] setup instead.",
        )
    return [name for name in sizes if _copy(repo / name, worktree, name)]


def _plain(path: Path) -> os.stat_result | None:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status if stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode) else None


def _copy(source: Path, worktree: Path, name: str) -> bool:
    target = worktree / name
    if os.path.lexists(target):
        return False
    inside = Path(os.path.realpath(target.parent))
    if not inside.is_relative_to(os.path.realpath(worktree)):
        return False  # a link in the tree leads out of it
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target, follow_symlinks=False)
    except OSError as error:
        raise ConfigError(f"{name} cannot be copied to {worktree}: {error.strerror}.") from None
    return True
