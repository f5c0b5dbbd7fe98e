"""Look at a worktree without running anything of its owner's, and without touching its index.

Blanking what is dangerous in a configuration leaves a gap between reading and using it. So the
owner's configuration is not used at all: a private, empty git folder lends the repository's objects
(alternates), holds a copy of the worktree's index, and has a configuration of our own; filters,
fsmonitor, hooks, external diffs, textconv and merge drivers are then names without a program. What
git writes meanwhile (an index entry, a merged tree) is written there and goes with it.

Not for changing the repository: `worktree` and `finish` do that.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from orchestrator import git
from orchestrator.errors import ConfigError, Unavailable

TIMEOUT_S = 10.0  # for all that is asked of one view
MAX_INDEX_BYTES = 512 << 20
#: What of a repository's configuration says how its files are to be read, and runs nothing.
_HARMLESS = re.compile(
    rb"core\.(filemode|symlinks|ignorecase|autocrlf|eol|precomposeunicode|trustctime|checkstat)"
)
_WORD = re.compile(r"[A-Za-z]{0,20}", re.ASCII)
_SHA = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}", re.ASCII)
_FORMAT = re.compile(r"sha(1|256)", re.ASCII)


_LFS = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\n(?:ext-.*\n)*oid sha256:([0-9a-f]{64})\n"
    rb"size ([0-9]{1,15})\n"
)
MAX_LFS_BYTES = 256 << 20  # hashed for one view
MAX_LFS_FILES = 200


class View:
    """A worktree as git sees it. A context manager: the private folder goes at its end.

    Args:
        repo: the repository, in any of its shapes.
        worktree: its checkout; where it is now, if `admin` is given.
        admin: git's folder for the worktree, where that cannot be found by its path.
        timeout_s: for all that is asked.
        suspicious: look also at files that git was told not to look at.
    """

    def __init__(
        self,
        repo: Path,
        worktree: Path,
        *,
        admin: Path | None = None,
        timeout_s: float = TIMEOUT_S,
        suspicious: bool = False,
    ) -> None:
        self.worktree = worktree
        self._deadline = time.monotonic() + timeout_s
        if not worktree.is_dir() or worktree.is_symlink():
            raise ConfigError(
                f"The worktree {worktree} is gone.",
                hint=f"Put it back: git -C {repo} worktree add {worktree} BRANCH",
            )
        # a submodule's: its configuration names the place where the worktree was before it was moved
        self.common = repo if admin == repo else git.common_dir(repo)
        found = admin or git.admin_dir(self.common, worktree)
        if found is None:
            raise ConfigError(
                f"{worktree} is no worktree of {repo}.", hint=f"git -C {repo} worktree list"
            )
        self.admin = found
        self._folder = Path(tempfile.mkdtemp(prefix="mc-git-"))
        try:
            self._environ = self._prepare()
            if suspicious:
                self._look_at_all()
            if (self.common / "lfs").is_dir():
                self._settle_lfs()
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def head(self) -> str | None:
        """The commit that is checked out; None before the first one."""
        return self.resolve("HEAD")

    @property
    def branch(self) -> str | None:
        """refs/heads/… that is checked out; None when HEAD is detached."""
        done = self._real("symbolic-ref", "--quiet", "HEAD")
        return done.text.strip() or None if not done.status else None

    @property
    def tree(self) -> str:
        """What is checked out, for a comparison: HEAD, or the empty tree before the first commit."""
        return self.head or self.run("hash-object", "-t", "tree", "--stdin").text.strip()

    def resolve(self, ref: str) -> str | None:
        """The commit a name stands for, in the worktree; None when it is none."""
        done = self._real(
            "rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}"
        )
        found = done.text.strip()
        return found if not done.status and _SHA.fullmatch(found) else None

    def run(
        self,
        *args: str,
        stdin: bytes = b"",
        max_bytes: int = git.MAX_OUTPUT_BYTES,
        keep_objects: bool = False,
    ) -> git.Done:
        """Git on the private folder and the real files. Commits by their number, not by name.

        With `keep_objects`, what is made is written into the repository's own objects.

        Raises:
            Unavailable: the view's time is up.
        """
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise Unavailable(f"git took too long in {self.worktree}.")
        environ = dict(self._environ)
        if keep_objects:
            environ["GIT_OBJECT_DIRECTORY"] = str(self.common / "objects")
        return git.run(
            self.worktree, *args,
            environ=environ, stdin=stdin, max_bytes=max_bytes, timeout_s=left,
        )  # fmt: skip

    def refs(self) -> dict[str, str]:
        """Every branch, tag and remote branch of the repository: name to commit or tag object."""
        done = self._real("for-each-ref", "--format=%(refname) %(objectname)")
        return dict(line.split(" ", 1) for line in done.text.splitlines() if " " in line)

    def _real(self, *args: str) -> git.Done:
        """The repository itself: for names and settings, which are read and run nothing."""
        left = max(0.1, self._deadline - time.monotonic())
        folders = {"GIT_DIR": str(self.admin), "GIT_COMMON_DIR": str(self.common)}
        if self.admin == self.common:
            folders["GIT_WORK_TREE"] = str(self.worktree)
        return git.run(self.common, *args, environ=git.environment(folders), timeout_s=left)

    def _prepare(self) -> dict[str, str]:
        inside = self._folder / "git"
        for name in ("refs", "objects/info", "info"):
            (inside / name).mkdir(parents=True)
        (inside / "objects/info/alternates").write_bytes(
            os.fsencode(self.common / "objects") + b"\n"
        )
        form = self._real("rev-parse", "--show-object-format").text.strip()
        form = form if _FORMAT.fullmatch(form) else "sha1"
        extension = "[extensions]\n\tobjectFormat = sha256\n" if form == "sha256" else ""
        version = 1 if extension else 0
        (inside / "config").write_text(
            f"[core]\n\trepositoryformatversion = {version}\n{extension}"
        )
        head = self.head
        (inside / "HEAD").write_text(f"{head}\n" if head else "ref: refs/heads/unborn\n")
        for source in (self.common / "info/exclude", self.common / "info/attributes"):
            _copy(source, inside / "info" / source.name, git.MAX_SMALL_FILE_BYTES)
        _copy(self.common / "shallow", inside / "shallow", git.MAX_SMALL_FILE_BYTES)
        _copy(self.admin / "index", inside / "index", MAX_INDEX_BYTES)
        for source in self.admin.glob("sharedindex.*"):
            _copy(source, inside / source.name, MAX_INDEX_BYTES)
        folders = {
            "GIT_DIR": str(inside),
            "GIT_WORK_TREE": str(self.worktree),
            "GIT_INDEX_FILE": str(inside / "index"),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_SYSTEM": "/dev/null",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_NO_LAZY_FETCH": "1",
            # not found from the inside: another repository around the private folder
            "GIT_CEILING_DIRECTORIES": str(self._folder),
        }
        return git.environment(folders, {**_OURS, **self._borrowed()})

    def _look_at_all(self) -> None:
        """Takes back --assume-unchanged and --skip-worktree of files that are there."""
        names = []
        for entry in self.run("ls-files", "-v", "-z").stdout.split(b"\0"):
            tag, name = entry[:1], entry[2:]
            path = os.path.join(os.fsencode(self.worktree), name)
            if tag.islower() or (tag == b"S" and os.path.lexists(path)):
                names.append(name + b"\0")
        for flag in ("--no-assume-unchanged", "--no-skip-worktree"):
            if names:
                done = self.run("update-index", "-z", flag, "--stdin", stdin=b"".join(names))
                git.checked(done, f"git update-index in a copy of the index of {self.worktree}")

    def _settle_lfs(self) -> None:
        """Has git take files of Git LFS for unchanged that are what their pointer says.

        Their filter is not run; and right after a checkout git compares contents, not times.
        """
        changed = self.run("diff-files", "--raw", "-z", "--ignore-submodules=all").stdout.split(
            b"\0"
        )
        pairs = zip(changed[::2], changed[1::2], strict=False)
        blobs = {name: entry.split()[2].decode() for entry, name in pairs if entry.endswith(b"M")}
        budget, same = MAX_LFS_BYTES, []
        for name, blob in list(blobs.items())[:MAX_LFS_FILES]:
            pointer = _LFS.match(self.run("cat-file", "blob", blob, max_bytes=1024).stdout)
            path = os.path.join(os.fsencode(self.worktree), name)
            if pointer is None or int(pointer[2]) > budget:
                continue
            budget -= int(pointer[2])
            if _sha256(path, int(pointer[2])) == pointer[1].decode():
                same.append(name)
        if same:
            listed = b"".join(name + b"\0" for name in same)
            self.run("update-index", "-z", "--assume-unchanged", "--stdin", stdin=listed)

    def _borrowed(self) -> dict[str, str]:
        done = self._real("config", "-z", "--get-regexp", "^core\\.")
        found: dict[str, str] = {}
        home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
        found["core.excludesFile"] = str(home / "git/ignore")
        for entry in done.stdout.split(b"\0"):
            key, _, value = entry.partition(b"\n")
            text = value.decode("utf-8", "surrogateescape")
            if _HARMLESS.fullmatch(key) and _WORD.fullmatch(text):
                found[key.decode()] = text or "true"
            elif key in {b"core.excludesfile", b"core.attributesfile"}:
                found["core.excludesFile" if b"exc" in key else "core.attributesFile"] = (
                    os.path.expanduser(text)
                )
        return found


#: How we want it, whatever the operator likes to see.
_OURS = {
    "core.quotePath": "true",
    # what is larger is called binary without being read
    "core.bigFileThreshold": "2m",
    "diff.renames": "true",
    "diff.algorithm": "myers",
    "core.pager": "cat",
    "core.preloadIndex": "true",
    "index.threads": "2",
    "status.renames": "false",
    "merge.conflictStyle": "merge",
}


def _sha256(path: bytes, size: int) -> str:
    """Of a regular file of that size; empty for anything else."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size != size:
            return ""
        return hashlib.file_digest(file, "sha256").hexdigest()


def _copy(source: Path, target: Path, max_bytes: int) -> None:
    """With its time: git tells by the index's whether an entry's may be trusted."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(source, flags)
    except OSError:
        return
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            return
        if status.st_size > max_bytes:
            raise ConfigError(f"{source} has {status.st_size} bytes: that is no file of git's.")
        with target.open("wb") as copy:
            shutil.copyfileobj(file, copy)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


__all__ = ["View"]
