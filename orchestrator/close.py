"""Close a ticket: nothing is removed before it is safe somewhere else.

The order is the promise. Look what would be lost; stop the unit; look again; archive and verify;
move the worktree aside, look once more at what was moved; only then remove. A step that fails leaves
all of it as it was, but for the stop. How a unit is stopped is given, so that the order can be tried
a hundred times without a boot. Opening again is `reopen`'s, choosing what to close `gc`'s.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from orchestrator import archive, git, loss, worktree
from orchestrator.config import Config
from orchestrator.drivers.claude_home import ClaudeHome
from orchestrator.errors import ConfigError, Conflict
from orchestrator.git_view import View
from orchestrator.loss import Loss
from orchestrator.progress import SILENT, Meter
from orchestrator.store import archives, events, tickets, worktrees
from orchestrator.store.db import Database
from orchestrator.store.tickets import Ticket
from orchestrator.workplace import ARCHIVED

MAX_COMMITS = 500  # named in a summary
INGEST_PATIENCE_S = 5.0  # for the last lines of the sidecar


@dataclass(frozen=True, slots=True)
class Closed:
    """What became of a ticket that was closed."""

    archive: Path
    worktree: Path | None  #: None: there was none
    removed: bool  #: the worktree
    lost: list[str] = field(default_factory=list)  #: what --force gave up
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Tree:
    """A ticket's worktree, as it is now."""

    repo: Path
    path: Path
    branch: str

    @property
    def aside(self) -> Path:
        """Where it is while it is being removed."""
        return self.path.with_name(f".{self.path.name}.closing")


def tree_of(config: Config, database: Database, ticket: Ticket) -> Tree | None:
    """The worktree of a ticket; None when it has none on disk."""
    place = worktrees.of_ticket(database, ticket.id)
    if ticket.repo_path is None or (place is None and ticket.worktree_path is None):
        return None
    repo = Path(ticket.repo_path)
    path, branch = config.worktree_of(repo, ticket.id)
    tree = Tree(repo, Path(place.path), place.branch) if place else Tree(repo, path, branch)
    if tree.aside.is_dir() and not os.path.lexists(tree.path):  # a close was interrupted
        if git.admin_dir(git.common_dir(repo), tree.path) is None:
            _remove_folder(tree.aside)  # git forgets a worktree once all of it is safe
        else:
            tree.aside.rename(tree.path)
    return tree if tree.path.is_dir() else None


def look_at(
    config: Config,
    database: Database,
    ticket: Ticket,
    tree: Tree,
    *,
    but_pids: Collection[int] = (),
) -> tuple[Loss, list[str]]:
    """What the worktree alone holds, and why it may not simply go; no reasons: it may."""
    found = _look(config, database, ticket, tree, but_pids=but_pids)
    return found, _reasons(config, tree.path, found)


def close(
    config: Config,
    database: Database,
    number: int,
    *,
    stop: Callable[[int], object],
    running_pids: Callable[[int], Collection[int]] = lambda _: (),
    force: bool = False,
    keep_worktree: bool = False,
    meter: Meter = SILENT,
) -> Closed:
    """Stops, archives, and removes the worktree when nothing of it would be lost.

    Args:
        config: where archives go.
        database: intent.
        number: the ticket.
        stop: stops its unit and waits.
        running_pids: the processes of its unit, which the stop will end.
        force: remove the worktree although something is lost; `Closed.lost` says what.
        keep_worktree: leave it where it is.
        meter: told how far the archive is, which is what takes long.

    Raises:
        Conflict: closed already, or work would be lost; the sentence lists it.
        ConfigError: git or the archive failed; nothing was removed.
    """
    tickets.get(database, number)  # before a folder is made for it
    with _alone(config, number):
        return _close(
            config, database, number, stop=stop, running_pids=running_pids, force=force,
            keep_worktree=keep_worktree, meter=meter,
        )  # fmt: skip


@contextmanager
def _alone(config: Config, number: int) -> Iterator[None]:
    folder = config.ticket_paths(number).folder
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise Conflict(f"Ticket {number} is being closed by somebody else.") from None
    finally:
        os.close(fd)


def _close(
    config: Config,
    database: Database,
    number: int,
    *,
    stop: Callable[[int], object],
    running_pids: Callable[[int], Collection[int]],
    force: bool,
    keep_worktree: bool,
    meter: Meter,
) -> Closed:
    ticket = tickets.get(database, number)
    if ticket.status == "closed":
        raise Conflict(f"Ticket {number} is closed.", hint=f"ticketctl reopen {number}")
    tree = tree_of(config, database, ticket)
    taking = tree is not None and not keep_worktree
    if taking and tree and not force:
        found, reasons = look_at(config, database, ticket, tree, but_pids=running_pids(number))
        _refuse(number, tree, reasons)
    stop(number)
    found, reasons = Loss(head=None, branch=None), []
    if tree and taking:
        found, reasons = look_at(config, database, ticket, tree)
        if not force:
            _refuse(number, tree, reasons)
    kept, notes = _to_keep(config, tree, found) if tree and taking else ({}, [])
    packed, facts = _pack(config, database, ticket, tree, kept, meter)
    archives.add(
        database, number, path=str(packed.path), size_bytes=packed.size_bytes,
        sha256=packed.sha256, facts=facts,
    )  # fmt: skip
    if tree and taking:
        _remove(config, database, ticket, tree, found, kept, force=force)
    if not keep_worktree:
        worktrees.release(database, number)
    lost = [r for r in reasons if not r.startswith("commits neither")] if force else []
    tickets.update(
        database,
        number,
        status="closed",
        closed_at=datetime.now(UTC),
        turn_state="gone",
        worker_pid=None,
    )
    tickets.measured(database, number, disk_bytes=None, git_state=None)
    events.record(
        database, number, "closed", archive=str(packed.path), size_bytes=packed.size_bytes,
        worktree_removed=bool(tree and taking), lost=lost,
    )  # fmt: skip
    notes += _clear_files(config, database, number)
    return Closed(packed.path, tree.path if tree else None, bool(tree and taking), lost, notes)


def _refuse(number: int, tree: Tree, reasons: list[str]) -> None:
    if reasons:
        raise Conflict(
            f"Closing ticket {number} would lose work in {tree.path}: {'; '.join(reasons)}.",
            hint=f"Save it there; or --keep-worktree leaves it; or: ticketctl close {number} --force",
        )


def _look(
    config: Config,
    database: Database,
    ticket: Ticket,
    tree: Tree,
    *,
    at: Path | None = None,
    admin: Path | None = None,
    but_pids: Collection[int] = (),
) -> Loss:
    merged = [
        str(e.data.get("head"))
        for e in events.of_ticket(database, ticket.id, limit=1000)
        if e.kind == "merged" and e.data.get("head")
    ]
    return loss.look(
        tree.repo, at or tree.path, branch=tree.branch, admin=admin, home=tree.path, merged=merged,
        disposable=config.worktree.disposable, but_pids=but_pids,
    )  # fmt: skip


def _reasons(config: Config, path: Path, found: Loss) -> list[str]:
    reasons = list(found.reasons)
    size = sum(_size(path / name) for name in found.ignored)
    if size > config.archive.max_files_mb << 20:
        reasons.append(
            f"ignored files of {size >> 20} MiB, more than [archive] max_files_mb ="
            f" {config.archive.max_files_mb}: {', '.join(found.ignored[: loss.SHOWN])}"
        )
    return reasons


def _size(path: Path) -> int:
    try:
        return os.lstat(path).st_size
    except OSError:
        return 0


def _signature(path: Path) -> tuple[int, ...]:
    try:
        status = os.lstat(path)
    except OSError:
        return ()
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _to_keep(
    config: Config, tree: Tree, found: Loss
) -> tuple[dict[str, tuple[int, ...]], list[str]]:
    """Files of the worktree that go into the archive, with what they look like now."""
    there = [name for name in found.files if os.path.lexists(tree.path / name)]
    readable = [n for n in there if (tree.path / n).is_symlink() or (tree.path / n).is_file()]
    size = sum(_size(tree.path / name) for name in readable)
    if size > config.archive.max_files_mb << 20:  # only with --force
        return {}, [f"{len(readable)} files, {size >> 20} MiB, were too much for the archive"]
    notes = (
        [f"{len(readable)} files that only the worktree had are in the archive"] if readable else []
    )
    return {name: _signature(tree.path / name) for name in readable}, notes


def _pack(
    config: Config,
    database: Database,
    ticket: Ticket,
    tree: Tree | None,
    kept: Collection[str],
    meter: Meter,
) -> tuple[archive.Packed, dict[str, object]]:
    now = datetime.now(UTC)
    paths = config.ticket_paths(ticket.id)
    summary = archives.summary_of(database, ticket.id)
    facts: dict[str, object] = {"ticket": ticket.id, "closed_at": now.isoformat()}
    if tree:
        with View(tree.repo, tree.path, timeout_s=loss.TIMEOUT_S) as view:
            facts |= {
                "worktree": str(tree.path), "branch": tree.branch, "head": view.head,
                "on_branch": view.branch, "kept_files": len(kept),
            }  # fmt: skip
            summary["commits"] = _commits(view, ticket.base_sha)
    files = {
        p.name: p
        for p in sorted(paths.folder.glob("*"))
        if p.is_file() and p.name.startswith(("pane.log", "sidecar"))
    }
    homes = (ClaudeHome.private_of(paths.claude_folder), ClaudeHome.from_environ(os.environ))
    cwd = tree.path if tree else paths.chat_folder
    found = (home.find_transcript(cwd, ticket.session_id) for home in homes)
    transcript = next((path for path in found if path is not None), None)
    if ticket.driver.startswith("claude") and transcript is not None:
        files["conversation.jsonl"] = transcript
        facts["conversation"] = str(transcript)
    if tree:
        files |= {f"{ARCHIVED}{name}": tree.path / name for name in kept}
    stamp = f"{now:%Y%m%dT%H%M%S}.{now.microsecond // 1000:03}Z"
    target = config.archive_dir / f"ticket-{ticket.id}-{stamp}.tar.zst"
    texts = {"summary.json": json.dumps(summary, indent=1)}
    packed = archive.pack(target, texts, files, facts, meter=meter)
    return packed, facts


def _commits(view: View, base: str | None) -> list[str]:
    head = view.head
    if not head or not base:
        return []
    done = view.run("log", f"--max-count={MAX_COMMITS}", "--format=%H %cI %s", f"{base}..{head}")
    return done.stdout.decode("utf-8", "replace").splitlines()


def _remove(
    config: Config,
    database: Database,
    ticket: Ticket,
    tree: Tree,
    found: Loss,
    kept: dict[str, tuple[int, ...]],
    *,
    force: bool,
) -> None:
    admin = git.admin_dir(git.common_dir(tree.repo), tree.path)
    if admin is None or not admin.is_relative_to(git.common_dir(tree.repo) / "worktrees"):
        raise ConfigError(f"{tree.path} is no worktree of {tree.repo}; it was left alone.")
    if (admin / "locked").exists():
        raise ConfigError(
            f"{tree.path} is locked.", hint=f"git -C {tree.repo} worktree unlock {tree.path}"
        )
    if force and found.head and found.detached:
        ref = f"refs/mission-control/ticket-{ticket.id}"
        git.checked(git.run(tree.repo, "update-ref", ref, found.head), f"git update-ref {ref}")
    if os.path.lexists(tree.aside):
        raise ConfigError(f"{tree.aside} is in the way.", hint=f"Look at it: ls -la {tree.aside}")
    tree.path.rename(tree.aside)
    try:
        if not force:
            _check_moved(config, database, ticket, tree, found, kept, admin)
        worktree.forget(tree.repo, tree.path)
    except BaseException:
        tree.aside.rename(tree.path)
        raise
    _remove_folder(tree.aside)


def _check_moved(
    config: Config,
    database: Database,
    ticket: Ticket,
    tree: Tree,
    found: Loss,
    kept: dict[str, tuple[int, ...]],
    admin: Path,
) -> None:
    """Whether what was moved is what was archived: somebody may have been faster than the move."""
    again = _look(config, database, ticket, tree, at=tree.aside, admin=admin)
    same = all(_signature(tree.aside / name) == was for name, was in kept.items())
    if again.reasons or again.head != found.head or set(again.ignored) - set(kept) or not same:
        changed = "; ".join(again.reasons) or "files that git ignores"
        raise Conflict(
            f"Somebody changed {tree.path} while it was being closed: {changed}.",
            hint=f"It is as it was. Try again: ticketctl close {ticket.id}",
        )


def _remove_folder(folder: Path) -> None:
    for path, folders, _ in os.walk(folder):
        for name in (".", *folders):  # those without the write bit, which a build may leave
            inside = os.path.join(path, name)
            if not os.path.islink(inside) and not os.access(inside, os.R_OK | os.W_OK | os.X_OK):
                os.chmod(inside, 0o700)
    shutil.rmtree(folder)


def remove_kept(config: Config, database: Database, ticket: Ticket, tree: Tree) -> None:
    """Removes the worktree of a closed ticket that was left where it is.

    Raises:
        Conflict: something would be lost, ignored files too.
    """
    found, reasons = look_at(config, database, ticket, tree)
    if found.ignored:
        reasons.append(f"ignored files: {len(found.ignored)}")
    _refuse(ticket.id, tree, reasons)
    _remove(config, database, ticket, tree, found, {}, force=False)
    worktrees.release(database, ticket.id)


def _clear_files(config: Config, database: Database, number: int) -> list[str]:
    """Removes what is in the archive now; a sidecar only once every line of it is in the database."""
    paths = config.ticket_paths(number)
    folder, sidecar = paths.folder, paths.sidecar_path
    shutil.rmtree(paths.cache_folder, ignore_errors=True)  # made again, as caches are
    paths.worker_path.unlink(missing_ok=True)
    deadline = time.monotonic() + INGEST_PATIENCE_S
    while not (read := _is_read(database, number, sidecar)) and time.monotonic() < deadline:
        time.sleep(0.1)  # ingest follows by itself, and tells nobody how far
    for path in folder.glob("pane.log*"):
        path.unlink()
    if not read:
        return [f"{sidecar} stays: its last lines are not in the database yet"]
    sidecar.unlink(missing_ok=True)
    return []


def _is_read(database: Database, number: int, sidecar: Path) -> bool:
    try:
        data = sidecar.read_bytes()
    except OSError:
        return True
    return archives.unread(database, number) >= data.rfind(b"\n") + 1


__all__ = ["Closed", "Tree", "close", "look_at", "remove_kept", "tree_of"]
