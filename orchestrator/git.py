"""Run git: bounded in time and bytes, with hooks and fsmonitor off. The only place that starts it.

Everything that speaks git (`worktree`, `diff`, `loss`, `finish`) goes through `run()`. What a command
means is theirs to know; a look at a tree somebody else controls goes through `git_view.View`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import ConfigError, Unavailable
from orchestrator.small_file import read_small
from orchestrator.waiting import any_ready

TIMEOUT_S = 50.0  # a big checkout; below the unit's TimeoutStartSec=
MAX_OUTPUT_BYTES = 16 << 20
MAX_STDERR_BYTES = 64 << 10
MAX_SMALL_FILE_BYTES = 1 << 20  # of git's own little files that we read: HEAD, gitdir, info/exclude
_READ_BYTES = 1 << 16
#: Git in a tree that an agent controls can run the agent's code.
QUIET = {
    "core.fsmonitor": "false",
    "core.hooksPath": "/dev/null",
    "core.untrackedCache": "false",
    "advice.detachedHead": "false",
    "gc.auto": "0",
    "maintenance.auto": "false",
}


@dataclass(frozen=True, slots=True)
class Done:
    """What a git command said."""

    status: int
    stdout: bytes
    stderr: str
    cut: bool = False  #: it said more than was asked for, and was ended

    @property
    def text(self) -> str:
        """Its stdout; names that are no UTF-8 survive the way back to git."""
        return self.stdout.decode("utf-8", "surrogateescape")

    @property
    def reason(self) -> str:
        """The last line of stderr, for a sentence of ours."""
        lines = [line.strip() for line in self.stderr.splitlines() if line.strip()]
        said = [line for line in lines if line.startswith(("fatal:", "error:"))] or lines
        if not said:
            return f"status {self.status}"
        return said[-1].removeprefix("fatal: ").removeprefix("error: ").rstrip(".")

    @property
    def disk_is_full(self) -> bool:
        """Whether that is why it failed."""
        return "No space left on device" in self.stderr or "Disk quota exceeded" in self.stderr


def environment(
    extra: Mapping[str, str] | None = None, settings: Mapping[str, str] | None = None
) -> dict[str, str]:
    """What git may know of ours: no GIT_* of the caller's; `settings` win over every config file."""
    found = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    found |= {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C.UTF-8", "GIT_PAGER": "cat"}
    found |= extra or {}
    every = {**QUIET, **(settings or {})}
    found["GIT_CONFIG_COUNT"] = str(len(every))
    for number, (key, value) in enumerate(every.items()):
        found[f"GIT_CONFIG_KEY_{number}"] = key
        found[f"GIT_CONFIG_VALUE_{number}"] = value
    return found


def run(
    folder: Path,
    *args: str,
    environ: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    max_bytes: int = MAX_OUTPUT_BYTES,
    timeout_s: float = TIMEOUT_S,
) -> Done:
    """`git -C FOLDER ARGS`.

    Raises:
        ConfigError: git is not installed.
        Unavailable: it took longer than `timeout_s`; it and its children were killed.
    """
    import tempfile  # noqa: PLC0415  # and random, hashlib: a ticket without a worktree runs no git

    deadline = time.monotonic() + timeout_s
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as said:
        given.write(stdin)
        given.seek(0)
        try:
            process = subprocess.Popen(
                ["git", "-C", str(folder), *args], stdin=given, stdout=subprocess.PIPE, stderr=said,
                env=environment() if environ is None else dict(environ), start_new_session=True,
            )  # fmt: skip
        except FileNotFoundError:
            raise ConfigError("git is not installed.", hint="sudo apt install git") from None
        assert process.stdout is not None  # noqa: S101  # for mypy: it is a pipe
        with process.stdout as pipe:
            try:
                out, cut = _read(pipe.fileno(), max_bytes, deadline)
                if not cut:
                    process.wait(max(0.1, deadline - time.monotonic()))
            except (TimeoutError, subprocess.TimeoutExpired):
                raise Unavailable(
                    f"git {args[0]} in {folder} took over {timeout_s:.0f} s."
                ) from None
            finally:
                _end(process)
        said.seek(0)
        stderr = said.read(MAX_STDERR_BYTES).decode("utf-8", "replace")
    return Done(process.returncode, out, stderr, cut)


def _read(fd: int, max_bytes: int, deadline: float) -> tuple[bytes, bool]:
    pieces: list[bytes] = []
    size = 0
    while True:
        if not any_ready([fd], [], deadline - time.monotonic()):
            raise TimeoutError
        piece = os.read(fd, _READ_BYTES)
        if not piece:
            return b"".join(pieces), False
        pieces.append(piece)
        size += len(piece)
        if size > max_bytes:
            return b"".join(pieces)[:max_bytes], True


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def common_dir(repo: Path) -> Path:
    """Where a repository keeps its objects and branches, whatever of it `repo` is.

    Raises:
        ConfigError: it is gone, or no repository any more.
    """
    if not repo.is_dir():
        raise ConfigError(
            f"The repository {repo} is gone.", hint="Put it back, or close the ticket."
        )
    done = run(repo, "rev-parse", "--path-format=absolute", "--git-common-dir")
    if done.status:
        raise ConfigError(f"{repo} is no git repository: {done.reason}.")
    return Path(done.text.rstrip("\n"))


def admin_dir(common: Path, worktree: Path) -> Path | None:
    """Where git keeps HEAD and index of a worktree; None when it is not registered.

    Found from the repository's side: the file `.git` in the worktree is the agent's to change.
    """
    if worktree / ".git" == common:
        return common
    wanted = str(worktree / ".git")
    try:
        entries = sorted((common / "worktrees").iterdir())
    except OSError:
        return None
    for entry in entries:
        with suppress(OSError):
            said = small_file(entry / "gitdir").decode("utf-8", "surrogateescape").strip()
            # relative since git 2.48, where the operator asked for it
            if os.path.normpath(entry / said) == wanted:
                return entry
    return None


def small_file(path: Path) -> bytes:
    """A little file of git's; never a FIFO or a link in its place.

    Raises:
        OSError: it is not there, or is none.
    """
    return read_small(path, MAX_SMALL_FILE_BYTES)


def checked(done: Done, what: str, *, hint: str = "") -> Done:
    """The command's answer, when it went well.

    Raises:
        ConfigError: it did not; `what` begins the sentence.
    """
    if done.status:
        raise ConfigError(f"{what}: {done.reason}.", hint=hint)
    return done


def paths_of(output: bytes) -> Sequence[str]:
    """NUL-terminated names."""
    return [
        name.decode("utf-8", "surrogateescape")
        for name in output.removesuffix(b"\0").split(b"\0")
        if name
    ]
