"""The only tmux: sessions, paste, keys, capture, pipe.

Every target is exact (`=ticket-4:`), for tmux matches by prefix and `ticket-4` would hit ticket-42.
Nothing of a user's goes into an argument tmux expands: text travels over `load-buffer -`, keys
as hexadecimal over `send-keys -H`, the program to run in a script of ours.

One tmux process a call, several commands in it. libtmux lists sessions for people; on the way of
a starting ticket its import alone would cost half of the time there is.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import ConfigError, Conflict, Unavailable
from orchestrator.naming import session_name

COMMAND_TIMEOUT_S = 10
MAX_KEYS_PER_CALL = 512  # -H takes one argument a byte, and a command line has an end
_DEAD_WAIT_S = 2.0
_PLAIN_WORD = re.compile(r"[A-Za-z0-9/._+@-]+", re.ASCII)
PANE_FORMAT = "\t".join(
    f"#{{pane_{name}}}" for name in ("dead", "dead_status", "dead_signal", "pid", "pipe", "in_mode")
)

CLIENT_FORMAT = "#{client_control_mode} #{client_activity}"


@dataclass(frozen=True, slots=True)
class Pane:
    """The one pane of a ticket's session."""

    dead: bool
    exit_status: int | None  #: of a dead pane that ended by itself
    exit_signal: int | None  #: of a dead pane that was killed
    pid: int
    piped: bool  #: the pane log is being written
    in_mode: bool  #: copy mode is open and swallows keys

    @classmethod
    def from_line(cls, line: str) -> Pane:
        """Out of what tmux says to PANE_FORMAT."""
        dead, status, signal, pid, pipe, mode = line.split("\t")
        return cls(
            dead=dead == "1",
            exit_status=int(status) if status.isdigit() else None,
            exit_signal=int(signal) if signal.isdigit() and int(signal) else None,
            pid=int(pid),
            piped=pipe == "1",
            in_mode=mode.isdigit() and int(mode) > 0,
        )

    @property
    def is_told(self) -> bool:
        """Whether it is dead, and how it ended is known."""
        return self.dead and (self.exit_status is not None or self.exit_signal is not None)


class Server:
    """The tmux server on socket `socket` (as in `tmux -L`). Never starts one: the unit does."""

    def __init__(self, socket: str) -> None:
        self.socket = socket

    def _run(self, *args: str, stdin: bytes | None = None) -> str:
        argv = ["tmux", "-N", "-u", "-L", self.socket, *args]
        try:
            done = subprocess.run(
                argv,
                input=stdin,
                capture_output=True,
                timeout=COMMAND_TIMEOUT_S,
                check=False,
                stdin=None if stdin is not None else subprocess.DEVNULL,
            )
        except FileNotFoundError:
            raise Unavailable("tmux is not installed.", hint="sudo apt install tmux") from None
        except subprocess.TimeoutExpired:
            raise Unavailable(f"tmux did not answer within {COMMAND_TIMEOUT_S} s.") from None
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip() or f"status {done.returncode}"
            raise Unavailable(f"tmux {args[0]}: {said}.")
        return done.stdout.decode("utf-8", "replace")

    @property
    def socket_path(self) -> Path:
        """Where the server's socket is, by tmux's own rule."""
        folder = os.environ.get("TMUX_TMPDIR") or "/tmp"  # noqa: S108  # as tmux itself does
        return Path(folder) / f"tmux-{os.getuid()}" / self.socket

    def is_up(self) -> bool:
        """Whether the server answers."""
        try:
            self._run("show-options", "-s", "exit-empty")
        except Unavailable:
            return False
        return True

    def start(
        self,
        ticket: int,
        script: Path,
        log: Path,
        mark: Path,
        *,
        columns: int,
        rows: int,
        on_death: Sequence[str] = (),
    ) -> int:
        """A detached session whose pane runs `script`, piped to `log` before it can print.

        The writer of the log says in the file `mark` who it is.
        `on_death` is a program of ours with its arguments, run when the pane dies. Returns the pane's
        pid.

        Raises:
            Conflict: the session exists.
        """
        target = f"={session_name(ticket)}:"
        try:
            out = self._run(
                "new-session",
                "-d",
                "-s",
                session_name(ticket),
                "-x",
                str(columns),
                "-y",
                str(rows),
                "-c",
                "/",
                "-P",
                "-F",
                "#{pane_pid}",
                "/bin/sh",
                str(script),
                ";",
                # the exit status is read from the dead pane; systemd gets none, the agent not being
                # its child
                "set-option",
                "-w",
                "-t",
                target,
                "remain-on-exit",
                "on",
                ";",
                "set-option",
                "-w",
                "-t",
                target,
                "allow-rename",
                "off",
                ";",
                "set-option",
                "-w",
                "-t",
                target,
                "automatic-rename",
                "off",
                ";",
                "pipe-pane",
                "-t",
                target,
                _pipe_command(log, mark),
                *_hook(target, on_death),
            )
        except Unavailable as error:
            if "duplicate session" not in error.message:
                raise
            raise Conflict(
                f"A tmux session {session_name(ticket)} is there already.",
                hint=f"See: tmux -L {self.socket} attach -t ={session_name(ticket)}",
            ) from None
        return int(out.split()[0])

    def release(self, gate: str) -> None:
        """Opens a gate that a pane waits at (`tmux wait-for GATE`), now or later."""
        self._run("wait-for", "-S", gate)

    def gate_command(self, gate: str) -> str:
        """Shell words that block until `release(gate)`."""
        return shlex.join(["tmux", "-N", "-L", self.socket, "wait-for", gate])

    def pane(self, ticket: int) -> Pane | None:
        """The pane of a ticket's session; None when there is no session, or no server."""
        try:
            out = self._run("list-panes", "-t", f"={session_name(ticket)}:", "-F", PANE_FORMAT)
        except Unavailable as error:
            if "not installed" in error.message or "did not answer" in error.message:
                raise
            return None
        return Pane.from_line(out.splitlines()[0])

    def dead_pane(self, ticket: int) -> Pane | None:
        """The pane once it is dead and tmux knows how; that is a moment after systemd learns of the end.

        A process that ends lets go of its terminal before its parent is told: in between, tmux has a dead
        pane with neither status nor signal.
        """
        deadline = time.monotonic() + _DEAD_WAIT_S
        while (pane := self.pane(ticket)) and not pane.is_told and time.monotonic() < deadline:
            # tmux has no event for this that outlives a server which is itself going away
            time.sleep(0.02)
        return pane

    def is_alive(self, ticket: int) -> bool:
        """Whether the ticket's session exists and its program runs."""
        pane = self.pane(ticket)
        return pane is not None and not pane.dead

    def pipe(self, ticket: int, log: Path, mark: Path) -> None:
        """Sends the pane's output to `log` from now on, instead of to what it went to before."""
        self._run("pipe-pane", "-t", f"={session_name(ticket)}:", _pipe_command(log, mark))

    def paste(self, ticket: int, text: str) -> None:
        """Puts text before the program as a bracketed paste. No Enter.

        Control characters other than newline and tab must be gone already: ESC[201~ would end
        the paste and have the rest taken for keys.
        """
        buffer = f"mc-{uuid.uuid4().hex}"
        self._run(
            "load-buffer",
            "-b",
            buffer,
            "-",
            ";",
            "paste-buffer",
            "-p",
            "-r",
            "-d",
            "-b",
            buffer,
            "-t",
            f"={session_name(ticket)}:",
            stdin=text.encode("utf-8"),
        )

    def keys(self, ticket: int, data: bytes) -> None:
        """Types bytes exactly as they are."""
        target = f"={session_name(ticket)}:"
        for at in range(0, len(data), MAX_KEYS_PER_CALL):
            chunk = data[at : at + MAX_KEYS_PER_CALL]
            self._run("send-keys", "-t", target, "-H", *(f"{byte:02x}" for byte in chunk))

    def capture(self, ticket: int) -> str:
        """The visible screen."""
        return self._run("capture-pane", "-p", "-t", f"={session_name(ticket)}:")

    def kill(self, ticket: int) -> None:
        """Removes the session; nothing happens when there is none."""
        try:
            self._run("kill-session", "-t", f"={session_name(ticket)}")
        except Unavailable:
            if self.pane(ticket) is not None:
                raise

    def sessions(self) -> list[str]:
        """Names of all sessions, also those that are not ours."""
        from libtmux import Server as LibtmuxServer  # noqa: PLC0415  # 100 ms, only when listing

        return [s.name for s in LibtmuxServer(socket_name=self.socket).sessions if s.name]

    @staticmethod
    def version() -> str:
        """What `tmux -V` says."""
        from libtmux.common import get_version  # noqa: PLC0415  # as above

        return str(get_version())


def last_key_s(lines: Sequence[str]) -> float:
    """Seconds since somebody who is attached last pressed a key; infinite when nobody is.

    Args:
        lines: what tmux says of a session's clients to CLIENT_FORMAT.
    """
    times = [int(line.split()[1]) for line in lines if line.startswith("0 ")]
    age_s = time.time() - max(times) if times else float("inf")
    # tmux counts in whole seconds of the day's clock: a key from the future is one that moved
    return max(0.0, age_s) if age_s > -1 else float("inf")


def _hook(target: str, program: Sequence[str]) -> list[str]:
    """The words that have tmux run a program when the pane dies; none for no program."""
    if not program:
        return []
    # It is parsed by tmux, expanded as a format, and given to a shell: only words that none of the
    # three would touch.
    if not all(_PLAIN_WORD.fullmatch(word) for word in program):
        raise ConfigError(
            f"{program[0]} cannot be run by tmux: a path of ours may hold only letters, digits and"
            " /._+@-",
            hint="Install Mission Control for a user whose home folder has a plain name.",
        )
    # -w: as an option of the session, tmux 3.3 does not look at it
    return [";", "set-hook", "-w", "-t", target, "pane-died", f"run-shell -b '{' '.join(program)}'"]


def _pipe_command(log: Path, mark: Path) -> str:
    """The shell that opens the log, says which process writes which file, and becomes the writer."""
    mark.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # config_checks.py lets only paths through that mean nothing to strftime, tmux formats or the shell;
    # there must be no % and no # in here either
    return (
        f"exec >> {log}; i=$(ls -Li /proc/$$/fd/1); read -r s < /proc/$$/stat;"
        f' echo "$i $s" > {mark}; exec cat'
    )
