"""What a worktree holds that its base does not: committed, staged, not staged, untracked.

Read by the gateway and by `ticketctl diff`. The agent's index is not touched, nothing of the agent's
is run (`git_view`), nothing but regular files and links is read, and all of it has a limit.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator import git
from orchestrator.diff_text import FileChange, Hunk, parse, raw_entry, shown
from orchestrator.errors import ConfigError, InvalidInput
from orchestrator.git_view import TIMEOUT_S, View

_SHA = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}", re.ASCII)
_MAX_LEFT_OUT = 2000  # files not to be read; each is an argument of git
_SPECIAL = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a device",
    stat.S_IFCHR: "a device",
}
_DIFF = [
    "diff", "--no-ext-diff", "--no-textconv", "--no-color", "--ignore-submodules=dirty",
    "--submodule=short", "--find-renames=60%", "-l200", "--full-index", "--unified=3",
    "--src-prefix=a/", "--dst-prefix=b/",
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Past which there is `truncated` instead of more."""

    max_files: int = 1000
    max_file_bytes: int = 1_000_000  #: a larger file is named, not read
    max_patch_bytes: int = 5_000_000
    timeout_s: float = TIMEOUT_S  #: past it the caller gets Unavailable


LIMITS = Limits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Diff:
    """A worktree against its base."""

    base_sha: str
    head_sha: str | None
    files: tuple[FileChange, ...]  #: by path
    added: int  #: lines, of the files whose lines were counted
    removed: int
    truncated: bool  #: some files, or the content of some files, are left out; each says why


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A worktree in a few numbers, for the board."""

    head_sha: str | None
    branch: str | None  #: refs/heads/…; None when HEAD is detached
    ahead: int  #: commits that the base does not have
    behind: int  #: commits of the base that are missing here
    dirty: int  #: files that are changed and not committed, untracked ones too
    untracked: int
    conflicts: tuple[str, ...]  #: paths that would not merge into the base by themselves

    @property
    def text(self) -> str:
        """As in a table: `+3 -1 *2 !1`."""
        parts = [
            f"+{self.ahead}" if self.ahead else "",
            f"-{self.behind}" if self.behind else "",
            f"*{self.dirty}" if self.dirty else "",
            f"!{len(self.conflicts)}" if self.conflicts else "",
        ]
        return " ".join(filter(None, parts)) or "="


def diff(repo: Path, worktree: Path, base_sha: str, *, limits: Limits = LIMITS) -> Diff:
    """Every file that differs from the base, with its hunks.

    Raises:
        ConfigError: the worktree is gone, or is none of that repository's.
        Unavailable: it took longer than `limits.timeout_s`.
    """
    with View(repo, worktree, timeout_s=limits.timeout_s) as view:
        seen = _look(view, _commit(view, base_sha), limits)
        done = view.run(
            *_DIFF, "--raw", "--patch", base_sha, *seen.pathspec, max_bytes=limits.max_patch_bytes
        )
        git.checked(done if not done.cut else git.Done(0, b"", ""), f"git diff in {worktree}")
        read = parse(done.stdout, cut=done.cut)
        files = [_named(change, untracked=name in seen.untracked) for change, name in read]
        files = sorted([*files, *seen.left_out], key=lambda f: f.path)
        return Diff(
            base_sha=base_sha,
            head_sha=view.head,
            files=tuple(files[: limits.max_files]),
            added=sum(f.added or 0 for f in files),
            removed=sum(f.removed or 0 for f in files),
            truncated=done.cut
            or seen.more
            or len(files) > limits.max_files
            or any(f.omitted for f in files),
        )


def patch(repo: Path, worktree: Path, base_sha: str, *, limits: Limits = LIMITS) -> bytes:
    """The same as `git apply` takes it. What was left out is named at its end, behind `# `.

    Raises:
        ConfigError: the worktree is gone, or is none of that repository's.
        Unavailable: it took longer than `limits.timeout_s`.
    """
    with View(repo, worktree, timeout_s=limits.timeout_s) as view:
        seen = _look(view, _commit(view, base_sha), limits)
        done = view.run(
            *_DIFF, "--binary", base_sha, *seen.pathspec, max_bytes=limits.max_patch_bytes
        )
    git.checked(done if not done.cut else git.Done(0, b"", ""), f"git diff in {worktree}")
    text = done.stdout
    notes = [f"{f.path!r}: {f.omitted}" for f in seen.left_out]
    if done.cut:
        text = text[: text.rfind(b"\ndiff --git ") + 1]  # a whole file, or nothing of it
        notes.append(f"the rest: a patch here has at most {limits.max_patch_bytes} bytes")
    if seen.more:
        notes.append(f"more files: at most {limits.max_files} are looked at")
    return text + b"".join(f"# left out: {note}\n".encode() for note in notes)


def summary(repo: Path, worktree: Path, base: str, *, timeout_s: float = TIMEOUT_S) -> Summary:
    """Ahead, behind, dirty, conflicts with the base.

    Args:
        repo: the repository.
        worktree: its checkout.
        base: a branch, tag or commit; what it is now counts.
        timeout_s: for all of it.
    """
    with View(repo, worktree, timeout_s=timeout_s) as view:
        head, tip = view.head, view.resolve(base)
        ahead = behind = 0
        conflicts: tuple[str, ...] = ()
        if head and tip and head != tip:
            done = view.run("rev-list", "--left-right", "--count", f"{tip}...{head}")
            counts = git.checked(done, f"git rev-list in {worktree}").text.split()
            behind, ahead = int(counts[0]), int(counts[1])
            if ahead and behind:
                conflicts = conflicts_between(view, tip, head)
        changed = view.run("diff", "--name-only", "-z", "--no-renames", *_PLAIN, view.tree)
        untracked = view.run("ls-files", "--others", "--exclude-standard", "-z")
        names = set(git.paths_of(git.checked(changed, f"git diff in {worktree}").stdout))
        names |= set(git.paths_of(_staged(view)))
        new = set(git.paths_of(untracked.stdout))
        return Summary(
            head_sha=head,
            branch=view.branch,
            ahead=ahead,
            behind=behind,
            dirty=len(names | new),
            untracked=len(new),
            conflicts=conflicts,
        )


_PLAIN = ["--no-ext-diff", "--no-textconv", "--ignore-submodules=dirty"]


def _staged(view: View) -> bytes:
    done = view.run("diff", "--cached", "--name-only", "-z", *_PLAIN, view.tree)
    return git.checked(done, f"git diff in {view.worktree}").stdout


def conflicts_between(view: View, ours: str, theirs: str) -> tuple[str, ...]:
    """The paths of two commits that do not merge by themselves.

    Raises:
        ConfigError: git cannot merge them at all, or is older than 2.38.
    """
    done = view.run(
        "merge-tree", "--write-tree", "--name-only", "--no-messages", "-z", ours, theirs
    )
    if done.status not in {0, 1}:
        raise ConfigError(f"git merge-tree in {view.worktree}: {done.reason}.")
    return tuple(shown(os.fsencode(name)) for name in git.paths_of(done.stdout)[1:])


@dataclass(frozen=True, slots=True)
class _Seen:
    untracked: frozenset[bytes]
    left_out: list[FileChange]
    pathspec: list[str]
    more: bool  #: there are more untracked files than were looked at


def _commit(view: View, base_sha: str) -> str:
    if not _SHA.fullmatch(base_sha):
        raise InvalidInput(f"{base_sha!r} is no full commit number.")
    if view.run("cat-file", "-e", f"{base_sha}^{{commit}}").status:
        raise ConfigError(
            f"The commit {base_sha[:12]}, where the work began, is no longer in {view.common}.",
            hint="Was it removed by git gc? A fetch of it brings it back.",
        )
    return base_sha


def _look(view: View, base: str, limits: Limits) -> _Seen:
    """Decides what git may read, and makes untracked files known to the private index."""
    left_out: list[FileChange] = []
    names: list[bytes] = []
    raw = view.run("diff-index", "--raw", "--no-renames", "--ignore-submodules=dirty", base)
    for line in git.checked(raw, f"git diff-index in {view.worktree}").stdout.split(b"\n"):
        if (entry := raw_entry(line)) and (why := _unreadable(view, entry[1], limits)):
            change, name = entry
            left_out.append(replace(change, omitted=why))
            names.append(name)
    listed = view.run("ls-files", "--others", "--exclude-standard", "-z", max_bytes=4 << 20)
    every = [name for name in listed.stdout.split(b"\0") if name]
    untracked: set[bytes] = set()
    for name in every[: limits.max_files]:
        why = "a repository of its own" if name.endswith(b"/") else _unreadable(view, name, limits)
        if why:
            new = FileChange(
                path=shown(name), old_path=None, status="untracked", old_mode=None, new_mode=None
            )
            left_out.append(replace(new, omitted=why))
        else:
            untracked.add(name)
    if untracked:
        literal = b"".join(b":(literal)" + name + b"\0" for name in sorted(untracked))
        done = view.run(
            "add", "--intent-to-add", "--ignore-errors", "--pathspec-from-file=-",
            "--pathspec-file-nul", stdin=literal,
        )  # fmt: skip
        if "did not match any files" not in done.stderr:  # one may have gone meanwhile
            git.checked(done, f"git add in a copy of the index of {view.worktree}")
    if len(names) > _MAX_LEFT_OUT:
        raise ConfigError(
            f"{len(names)} changed files in {view.worktree} are too large to be shown.",
            hint=f"Look there: git -C {view.worktree} diff --stat {base}",
        )
    pathspec = ["--", ".", *(":(exclude,literal)" + os.fsdecode(name) for name in names)]
    return _Seen(
        frozenset(untracked), left_out, pathspec, listed.cut or len(every) > limits.max_files
    )


def _unreadable(view: View, name: bytes, limits: Limits) -> str:
    try:
        status = os.lstat(os.path.join(os.fsencode(view.worktree), name))
    except OSError:
        return ""  # gone: git knows what it was
    if special := _SPECIAL.get(stat.S_IFMT(status.st_mode)):
        return special
    if stat.S_ISREG(status.st_mode) and status.st_size > limits.max_file_bytes:
        return f"{status.st_size} bytes"
    return ""


def _named(change: FileChange, *, untracked: bool) -> FileChange:
    if untracked and change.status == "added":
        return replace(change, status="untracked", old_mode=None)
    return change


__all__ = ["LIMITS", "Diff", "FileChange", "Hunk", "Limits", "Summary", "diff", "patch", "summary"]
