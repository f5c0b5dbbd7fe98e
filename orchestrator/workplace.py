"""Where a ticket's worker works: its worktree, claimed and made, or a folder of its own.

Used by the launcher at every start, and when a closed ticket is opened again. Between the cap
(`store.worktrees`), git (`worktree`) and what a fresh tree needs (`worktree_include`, setup).
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path

from orchestrator import worktree
from orchestrator.config import Config
from orchestrator.errors import ConfigError, TicketError
from orchestrator.naming import TicketPaths
from orchestrator.store import archives, worktrees
from orchestrator.store.db import Database
from orchestrator.store.tickets import Ticket
from orchestrator.worktree_include import copy_included

ARCHIVED = "worktree/"  # before the names of a worktree's files in an archive


def ensure_workplace(
    config: Config, database: Database, ticket: Ticket, *, warn: Callable[[str], object]
) -> tuple[Path, str | None]:
    """Where the agent works, and the commit its branch started from.

    A ticket whose worktree was removed when it was closed gets it back: the same path, its branch,
    and the files that were kept in its archive.

    Args:
        config: for the templates and the cap.
        database: for the cap.
        ticket: whose.
        warn: told what was done besides, and what is odd and stops nothing.

    Raises:
        Conflict: all places are taken; the sentence names the oldest idle ones.
        ConfigError: something is in the way.
    """
    paths = config.ticket_paths(ticket.id)
    if ticket.kind != "code" or ticket.repo_path is None:
        paths.chat_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return paths.chat_folder, None
    repo = Path(ticket.repo_path)
    path, branch = config.worktree_of(repo, ticket.id)
    earlier = worktrees.of_ticket(database, ticket.id)
    if earlier:
        path, branch = Path(earlier.path), earlier.branch
    elif ticket.worktree_path:
        path = Path(ticket.worktree_path)
    kept = archives.with_worktree(database, ticket.id) if earlier and earlier.removed_at else None
    if kept and not Path(kept.path).is_file():
        raise ConfigError(f"The archive {kept.path} is gone.", hint="Put it back where it was.")
    base = ticket.base_sha or worktree.commit_of(repo, ticket.base_ref or "HEAD")
    claimed = worktrees.claim(
        database, ticket.id, path=str(path), repo_path=str(repo), branch=branch, base_sha=base,
        max_active=config.worktree.max_active,
    )  # fmt: skip
    umask = os.umask(0o022)  # the operator's own tree, as a checkout by hand would make it
    try:
        head = str(kept.facts.get("head") or "") if kept else ""
        if worktree.ensure_worktree(
            repo, path, branch, head or base, branch_is_ours=kept is not None
        ):
            for mark in (setup_mark(paths), submodule_mark(paths)):
                mark.unlink(missing_ok=True)
            _furnish(repo, path, kept, warn)
        elif lock := worktree.left_lock(repo, path):
            warn(f"a git was killed in {path}, or runs there: it will refuse while {lock} exists")
    except TicketError:
        if claimed and not os.path.lexists(path):
            worktrees.release(database, ticket.id)
        raise
    finally:
        os.umask(umask)
    return path, base


def _furnish(
    repo: Path, path: Path, kept: archives.Archive | None, warn: Callable[[str], object]
) -> None:
    """What a fresh tree has besides its commit."""
    if kept is not None:
        from orchestrator import archive  # noqa: PLC0415  # tarfile: only when opened again

        names = archive.unpack(
            Path(kept.path),
            lambda name: (path, name.removeprefix(ARCHIVED)) if name.startswith(ARCHIVED) else None,
            replace=True,  # the checkout is a moment old, and what was put away is newer
        )
        if names:
            warn(f"{len(names)} files are back in {path}")
    if copied := copy_included(repo, path):
        warn(f"copied {len(copied)} ignored files that .worktreeinclude names")


def setup_mark(paths: TicketPaths) -> Path:
    """The file that says that the worktree was set up."""
    return paths.agent_folder / "worktree-is-set-up"


def submodule_mark(paths: TicketPaths) -> Path:
    """The file that says that its submodules were fetched, or could not be."""
    return paths.agent_folder / "submodules-were-tried"


def submodule_lines(paths: TicketPaths) -> list[str]:
    """Shell lines for the pane, after the cd: submodules, once, where there are any.

    What they print is seen in the pane. Without submodules the agent can still work, and says so.
    """
    return [
        f"if [ -e .gitmodules ] && [ ! -e {shlex.quote(str(submodule_mark(paths)))} ]; then",
        "echo '$ git submodule update --init --recursive'",
        # --checkout: whatever the repository's configuration would rather run
        "git submodule update --init --recursive --checkout </dev/null ||",
        "echo 'mission-control: the submodules are not there; going on without'",
        _marked(submodule_mark(paths)),
        "fi",
    ]


def setup_lines(config: Config, paths: TicketPaths) -> list[str]:
    """Shell lines for the pane, before the agent: `setup`, once. When it fails there is no agent."""
    mark = shlex.quote(str(setup_mark(paths)))
    lines = [f"if [ ! -e {mark} ]; then"]
    if config.worktree.setup:
        command = shlex.quote(config.worktree.setup)
        lines += [
            f"printf '$ %s\\n' {command}",
            f"sh -c {command} || {{",
            'status=$?; echo "mission-control: setup failed with status $status"; exit "$status"; }',
        ]
    return [*lines, _marked(setup_mark(paths)), "fi"]


def _marked(mark: Path) -> str:
    return f"(umask 077; : > {shlex.quote(str(mark))})"
