"""What would be lost if a worktree went away now. It only looks; `close` decides and removes.

Shares `git_view` with `diff`: nothing of the agent's is run. In doubt it is a loss: a folder that
cannot be read, a repository inside, a command in the middle of its work.
"""

from __future__ import annotations

import filecmp
import os
import stat
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from orchestrator import git
from orchestrator.git_view import View

TIMEOUT_S = 40.0
SHOWN = 5  # names of a kind in a sentence
_UNFINISHED = {
    "MERGE_HEAD": "a merge",
    "CHERRY_PICK_HEAD": "a cherry-pick",
    "REVERT_HEAD": "a revert",
    "rebase-merge": "a rebase",
    "rebase-apply": "a rebase",
    "BISECT_LOG": "a bisect",
    "index.lock": "a git command (index.lock)",
}
_PLAIN = ["--no-ext-diff", "--no-textconv", "--no-renames", "--ignore-submodules=dirty"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What is in a worktree and nowhere else."""

    head: str | None
    branch: str | None  #: refs/heads/…; None when HEAD is detached
    uncommitted: tuple[str, ...] = ()  #: tracked files, staged or not
    untracked: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()  #: that cannot be made again: not disposable, no copies
    repositories: tuple[str, ...] = ()  #: of their own, submodules with work in them too
    unreadable: tuple[str, ...] = ()
    unfinished: tuple[str, ...] = ()  #: what git is in the middle of
    unmerged: int = 0  #: commits that only this branch has; the branch stays
    detached: int = 0  #: commits that no branch has
    processes: tuple[str, ...] = ()  #: that are in there

    @property
    def reasons(self) -> list[str]:
        """One line a kind; empty: nothing would be lost, but perhaps ignored files."""
        kinds: list[tuple[str, Sequence[str]]] = [
            ("not committed", self.uncommitted),
            ("not tracked", self.untracked),
            ("repositories of their own", self.repositories),
            ("not readable", self.unreadable),
            ("git is in the middle of", self.unfinished),
            ("processes in there", self.processes),
        ]
        said = [f"{what}: {_some(names)}" for what, names in kinds if names]
        if self.detached:
            said.append(f"commits on no branch: {self.detached}")
        if self.unmerged:
            said.append(f"commits neither merged nor pushed: {self.unmerged} (the branch stays)")
        return said

    @property
    def files(self) -> list[str]:
        """What an archive has to hold so that the files come back."""
        return sorted({*self.uncommitted, *self.untracked, *self.ignored})


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(name.encode("utf-8", "replace").decode() for name in names[:SHOWN])
    return shown + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def look(
    repo: Path,
    worktree: Path,
    *,
    branch: str,
    admin: Path | None = None,
    home: Path | None = None,
    merged: Collection[str] = (),
    disposable: Collection[str] = (),
    but_pids: Collection[int] = (),
    whole: bool = False,
) -> Loss:
    """What is in the worktree and nowhere else.

    Args:
        repo: its repository.
        worktree: where it is now.
        branch: the ticket's, by its short name.
        admin: git's folder for it, when it was moved.
        home: where it was before; its submodules know that place.
        merged: commits that are known to be in the base in another shape (squashed).
        disposable: names of ignored files and folders that can be made again.
        but_pids: processes that do not count.
        whole: the repository goes too: all of its branches count, and what is stashed.

    Raises:
        ConfigError: git cannot say; nothing may be removed then.
        Unavailable: it takes too long.
    """
    with View(repo, worktree, admin=admin, timeout_s=TIMEOUT_S, suspicious=True) as view:
        said = ""
        found: dict[str, list[str]] = {}
        for kind, args in {
            "changed": ["diff", "--name-only", "-z", *_PLAIN],
            "staged": ["diff", "--cached", "--name-only", "-z", *_PLAIN, view.tree],
            "untracked": ["ls-files", "--others", "--exclude-standard", "-z"],
            "ignored": [
                "ls-files", "--others", "--ignored", "--exclude-standard", "-z", "--", ".",
                *(f":(exclude,glob)**/{name}/**" for name in disposable),
                *(f":(exclude,glob)**/{name}" for name in disposable),
            ],
        }.items():  # fmt: skip
            done = view.run(*args)
            git.checked(done, f"git cannot tell what is in {worktree}")
            said += done.stderr
            found[kind] = list(git.paths_of(done.stdout))
            if done.cut:
                found[kind].append("…")  # more than is read: what is here is a loss already
        repositories = [
            n for kind in ("untracked", "ignored") for n in found[kind] if n.endswith("/")
        ]
        repositories += list(_submodules(view, home or worktree))
        unmerged, detached = _commits(view, branch, merged, whole=whole)
        return Loss(
            head=view.head,
            branch=view.branch,
            uncommitted=tuple(sorted({*found["changed"], *found["staged"]})),
            untracked=tuple(n for n in found["untracked"] if not n.endswith("/")),
            ignored=tuple(
                n
                for n in found["ignored"]
                if not n.endswith("/") and not _is_copy(repo, worktree, n)
            ),
            repositories=tuple(repositories),
            unreadable=tuple(line for line in said.splitlines() if "could not" in line),
            unfinished=tuple(
                dict.fromkeys(
                    what for name, what in _UNFINISHED.items() if (view.admin / name).exists()
                )
            ),
            unmerged=unmerged,
            detached=detached,
            processes=tuple(processes_in(worktree, but_pids)),
        )


def _is_copy(repo: Path, worktree: Path, name: str) -> bool:
    mine, theirs = worktree / name, repo / name
    with suppress(OSError):
        kinds = {stat.S_IFMT(os.lstat(path).st_mode) for path in (mine, theirs)}
        if kinds == {stat.S_IFREG}:
            return filecmp.cmp(mine, theirs, shallow=False)
        if kinds == {stat.S_IFLNK}:
            return os.readlink(mine) == os.readlink(theirs)
    return False


def _submodules(view: View, home: Path) -> Iterator[str]:
    """Submodules whose folder holds anything: looking into each is more than a close should do."""
    for entry in view.run("ls-files", "--stage", "-z").stdout.split(b"\0"):
        head, _, name = entry.partition(b"\t")
        if head.startswith(b"160000 "):
            path = view.worktree / os.fsdecode(name)
            with suppress(OSError):
                known = home / os.fsdecode(name)
                if any(path.iterdir()) and not _is_clean_submodule(
                    view, path, known, head.split()[1]
                ):
                    yield os.fsdecode(name)


def _is_clean_submodule(view: View, path: Path, known: Path, commit: bytes) -> bool:
    """Whether a submodule is as it was checked out, and its remote has all its commits.

    Its repository is this worktree's own, and goes with it.
    """
    modules = view.admin / "modules"
    for admin in (p.parent for p in modules.rglob("HEAD") if (p.parent / "objects").is_dir()):
        said = git.small_file(admin / "config").decode("utf-8", "replace")
        where = next((w for w in said.splitlines() if w.strip().startswith("worktree =")), "")
        if os.path.normpath(admin / where.partition("=")[2].strip()) != str(known):
            continue
        found = look(admin, path, branch="", admin=admin, home=known, whole=True)
        return found.head == commit.decode() and not found.reasons and not found.ignored
    return False


def _commits(view: View, branch: str, merged: Collection[str], *, whole: bool) -> tuple[int, int]:
    head = view.head
    if whole:
        elsewhere = ("refs/remotes/", "refs/tags/")
        every = view.refs()
        kept = {sha for name, sha in every.items() if name.startswith(elsewhere)}
        own = {sha for name, sha in every.items() if not name.startswith(elsewhere)}
        return _count(view, own | ({head} if head else set()), kept), 0
    if head is None:
        return 0, 0
    ours = {f"refs/heads/{branch}", view.branch}
    lasting = ("refs/heads/", "refs/remotes/", "refs/tags/")
    refs = {name: sha for name, sha in view.refs().items() if name.startswith(lasting)}
    tips = {head} | {sha for name, sha in refs.items() if name in ours}
    others = {sha for name, sha in refs.items() if name not in ours} | set(merged)
    detached = _count(view, {head}, set(refs.values()))
    return _count(view, tips, others) - detached, detached


def _count(view: View, tips: Collection[str], but: Collection[str]) -> int:
    lines = [*tips, *(f"^{sha}" for sha in but)]
    listed = "".join(f"{line}\n" for line in lines).encode()
    done = view.run("rev-list", "--count", "--ignore-missing", "--stdin", stdin=listed)
    return int(git.checked(done, f"git rev-list in {view.worktree}").text)


def processes_in(folder: Path, but_pids: Collection[int] = ()) -> Iterator[str]:
    """Processes of ours that work in a folder, or have a file of it open: `pid name`."""
    inside = f"{os.path.realpath(folder)}"
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) in {os.getpid(), *but_pids}:
            continue
        with suppress(OSError):
            if any(at == inside or at.startswith(inside + "/") for at in _places(entry)):
                name = (entry / "comm").read_text(errors="replace").strip()
                yield f"{entry.name} {name}"


def _places(process: Path) -> Iterator[str]:
    for name in ("cwd", "exe", "root"):
        with suppress(OSError):
            yield os.readlink(process / name)
    with suppress(OSError):
        for fd in os.scandir(process / "fd"):
            with suppress(OSError):
                yield os.readlink(fd.path)
