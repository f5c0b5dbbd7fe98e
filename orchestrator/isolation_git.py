"""What of a ticket's repository its isolated agent may write: enough for `git commit`, and little else.

Rules for `isolation_view.py`. Writable are the worktree's own folder in the repository, the loose
objects, and the folder its branch is a file in, for git makes a lock beside the file and renames it.
Read-only are the configuration, hooks, what is packed, what leads from the worktree to its
repository, and the other branches in that folder as they are when the agent starts.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from orchestrator import git
from orchestrator.isolation_view import Rule

KINDS = ("refs/heads", "logs/refs/heads")
MAX_BRANCHES = 500  # beside the ticket's own, each a mount


def rules(repo: Path, worktree: Path, branch: str) -> tuple[Rule, ...]:
    """The rules for one worktree; none where git does not know it.

    Makes what has to be there for a rule: the folders of a branch that is packed, and an empty
    config.worktree, which an agent could otherwise be the first to write.

    Args:
        repo: its repository.
        worktree: its top folder.
        branch: the ticket's, short.

    Raises:
        ConfigError: the repository is gone.
    """
    common = git.common_dir(repo)
    admin = git.admin_dir(common, worktree)
    if admin is None or admin == common:
        return ()
    for kind in KINDS:
        (common / kind / branch).parent.mkdir(parents=True, exist_ok=True)
    (admin / "config.worktree").touch()
    return tuple(_rules(common, admin, worktree, branch))


def _rules(common: Path, admin: Path, worktree: Path, branch: str) -> Iterator[Rule]:
    yield Rule(common, "read")
    yield Rule(common / "objects", "write")
    yield from (Rule(common / "objects" / name, "read") for name in ("pack", "info"))
    for kind in KINDS:
        own = common / kind / branch
        yield Rule(own.parent, "write")
        yield from _others(own)
    yield Rule(admin, "write")
    leads = (
        *(admin / name for name in ("commondir", "gitdir", "config.worktree")),
        worktree / ".git",
    )
    # an agent that ran without isolation may have left a link, which would be shown wherever it leads
    yield from (Rule(path, "read") for path in leads if not path.is_symlink())


def _others(own: Path) -> Iterator[Rule]:
    try:
        beside = sorted(own.parent.iterdir())
    except OSError:
        return
    for path in beside[:MAX_BRANCHES]:
        if path.name != own.name and not path.name.endswith(".lock"):
            yield Rule(path, "read")
