"""What a test does with a running machine: run commands, copy files, look around.

`machine.py` adds the power switch. How a command gets inside is `inside.py`'s business.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeVar

from tests.machine import host, inside

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

T = TypeVar("T")


class MachineError(RuntimeError):
    """The machine did not do what was asked; the message says what it printed."""


class Commands:
    """A running machine, seen by what can be done in it."""

    name: str
    cgroup: Path

    def _leader(self) -> int:
        """Return the machine's PID 1 as the host sees it; raise when it is off."""
        raise NotImplementedError

    def run(
        self,
        argv: Sequence[str],
        *,
        user: str = "op",
        input: str | bytes | None = None,  # noqa: A002  (subprocess calls it so)
        timeout: float = 60,
        check: bool = True,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run `argv` inside to its end. With `check`, a failure raises, with what was printed."""
        done = self.run_bytes(argv, user=user, input=input, timeout=timeout, env=env)
        result = subprocess.CompletedProcess(
            list(argv),
            done.returncode,
            done.stdout.decode(errors="replace"),
            done.stderr.decode(errors="replace"),
        )
        if check and done.returncode:
            raise MachineError(
                f"{list(argv)} ended with {done.returncode} in {self.name}\n"
                f"{result.stdout[-4000:]}\n{result.stderr[-4000:]}"
            )
        return result

    def run_bytes(
        self,
        argv: Sequence[str],
        *,
        user: str = "op",
        input: str | bytes | None = None,  # noqa: A002
        timeout: float = 60,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run `argv` inside to its end; its output is taken as it is, no status is an error.

        What it printed goes through files, so that a daemon it leaves behind does not hold this
        call.
        """
        if isinstance(input, str):
            input = input.encode()  # noqa: A001
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            process = self.popen(
                argv,
                user=user,
                env=env,
                stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
                stdout=out,
                stderr=err,
            )
            try:
                process.communicate(input, timeout)
            except BaseException as error:
                process.kill()
                process.wait()
                if isinstance(error, subprocess.TimeoutExpired):
                    for file in (out, err):
                        file.seek(0)
                    error.cmd, error.output, error.stderr = list(argv), out.read(), err.read()
                raise
            finally:
                process.forget()
            for file in (out, err):
                file.seek(0)
            return subprocess.CompletedProcess(
                list(argv), process.returncode, out.read(), err.read()
            )

    def popen(
        self,
        argv: Sequence[str],
        *,
        user: str = "op",
        env: Mapping[str, str] | None = None,
        stdin: int | IO[bytes] | None = subprocess.DEVNULL,
        stdout: int | IO[bytes] | None = None,
        stderr: int | IO[bytes] | None = None,
    ) -> inside.Process:
        """Start `argv` inside. Its `kill` ends all it started."""
        return inside.Process(
            self.cgroup,
            self._leader(),
            inside.as_user(user, argv, env),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
        )

    def pty(
        self,
        argv: Sequence[str],
        *,
        user: str = "op",
        env: Mapping[str, str] | None = None,
        columns: int = 80,
        rows: int = 24,
    ) -> inside.Terminal:
        """Start `argv` inside at a terminal of the machine's, as `ssh -t` would."""
        return inside.Terminal(
            self.cgroup,
            self._leader(),
            inside.as_user(user, ["setsid", "--ctty", "--wait", *argv], env),
            owner=0 if user == "root" else host.OP_UID,
            columns=columns,
            rows=rows,
        )

    def sh(
        self, script: str, *, user: str = "op", timeout: float = 60, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell script inside, ending at its first failure."""
        return self.run(
            ["bash", "-euo", "pipefail", "-c", script], user=user, timeout=timeout, check=check
        )

    def copy_in(
        self,
        src: str | Path,
        dst: str,
        *,
        owner: str = "op",
        names: Iterable[str] | None = None,
    ) -> None:
        """Copy a file to the path `dst`, or what a folder holds into the folder `dst`.

        Args:
            src: on the host.
            dst: inside, absolute. Folders above it are made.
            owner: whose it shall be.
            names: only these paths of the folder, relative to it.
        """
        source = Path(src)
        if not source.is_dir():
            self.run(["mkdir", "-p", "--", str(Path(dst).parent)], user=owner)
            self.run(
                ["sh", "-c", 'cat >"$0"', dst], user=owner, input=source.read_bytes(), timeout=300
            )
            self.run(["chmod", f"{source.stat().st_mode & 0o7777:o}", "--", dst], user=owner)
            return
        chosen = "".join(f"{name}\0" for name in ([*names] if names is not None else ["."]))
        pack = ["tar", "-C", str(source), "--null", "--verbatim-files-from", "-T", "-", "-c"]
        archive = subprocess.run(
            pack, input=chosen.encode(), stdout=subprocess.PIPE, check=True
        ).stdout
        self.run(["mkdir", "-p", "--", dst], user=owner)
        self.run(
            ["tar", "-C", dst, "--no-same-owner", "-px"], user=owner, input=archive, timeout=300
        )

    def copy_out(self, src: str, dst: str | Path) -> None:
        """Copy a file to `dst` on the host, or what a folder holds into the folder `dst`."""
        target = Path(dst)
        if self.run(["test", "-d", src], user="root", check=False).returncode:
            data = self.run_bytes(["cat", "--", src], user="root", timeout=300)
            if data.returncode:
                raise MachineError(data.stderr.decode(errors="replace"))
            target.write_bytes(data.stdout)
            return
        target.mkdir(parents=True, exist_ok=True)
        archive = self.run_bytes(["tar", "-C", src, "-c", "."], user="root", timeout=300)
        if archive.returncode:
            raise MachineError(archive.stderr.decode(errors="replace"))
        unpack = ["tar", "-C", str(target), "--no-same-owner", "-x"]
        subprocess.run(unpack, input=archive.stdout, check=True)

    def journal(
        self, unit: str | None = None, *, user_unit: str | None = None, boot: str = "0"
    ) -> str:
        """Return what a unit, a unit of `op`'s, or all said in this boot (or `-1`, `all`)."""
        argv = ["journalctl", "--no-pager", "--output=cat", f"--boot={boot}", "--quiet"]
        if user_unit:
            return self.run([*argv, f"--user-unit={user_unit}"]).stdout
        return self.run([*argv, *([f"--unit={unit}"] if unit else [])], user="root").stdout

    def wait_for(
        self, predicate: Callable[[], T], *, timeout: float = 30, what: str = "", every: float = 0.1
    ) -> T:
        """Ask until the answer is true, and return it.

        For facts that no event tells a program outside of the machine; where there is one (a unit's
        start, a terminal's output, a line of a follower) wait for that instead.
        """
        deadline = time.monotonic() + timeout
        while True:
            if answer := predicate():
                return answer
            if time.monotonic() > deadline:
                raise MachineError(
                    f"not within {timeout} s: {what or predicate} (last answer {answer!r})"
                )
            time.sleep(every)

    def cgroup_controllers(self) -> set[str]:
        """Return what systemd inside can limit: `memory`, `pids`…; nothing beside version 1."""
        return set(self.run(["cat", "/sys/fs/cgroup/cgroup.controllers"]).stdout.split())
