"""An agent that `[drivers.NAME]` of config.toml describes: Codex, Gemini, opencode, aider, whatever.

It tells us nothing but what it shows: its turn state is read off the screen, by patterns, and a
message is confirmed by the turn it begins. docs/drivers.md has the keys.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from orchestrator import patterns, sidecar, templating
from orchestrator.driver_tables import DriverTable
from orchestrator.drivers.base import Launch, Pasted, Signs, Work, find_program
from orchestrator.drivers.box import marked_text, plain_rows
from orchestrator.errors import ConfigError, InvalidInput
from orchestrator.sidecar import Record

MAX_PROMPT_BYTES = 100_000  # of an argument, the kernel takes 128 KiB; a longer one is a message
STALE_S = (
    5.0  # a screen is looked at again then, also when the pane log says that nothing was printed
)
_KEYS = {"escape": b"\x1b", "ctrl-c": b"\x03"}
_PROBE = {"ticket": 1, "prompt": "p", "session_id": "s", "cwd": "/", "folder": "/", "home": "/"}


class TableDriver(Pasted):
    """Runs what a table says.

    Raises:
        ConfigError: a template or a pattern of it cannot be used.
    """

    signs: Signs = "screen"

    def __init__(self, table: DriverTable) -> None:
        self.name = table.name
        self.has_box = bool(table.box)
        self.interrupt_key = _KEYS[table.interrupt]
        self._table = table
        self._ready = self._compiled("ready", table.ready)
        self._busy = self._compiled("busy", table.busy)
        self._waiting = self._compiled("waiting", table.waiting)
        self._was_ready: set[int] = set()  # pids
        self._seen: dict[
            int, tuple[int, int, float, str]
        ] = {}  # ticket: pid, log size, when, state
        for key in ("command", "first", "resume", "prompt"):
            self._words(key, _PROBE)
        self._conversation(_PROBE)

    def _compiled(self, key: str, texts: tuple[str, ...]) -> list[re.Pattern[str]]:
        return [patterns.compiled(f"drivers.{self.name}.{key}", text) for text in texts]

    def _words(self, key: str, values: dict[str, object]) -> list[str]:
        where = f"drivers.{self.name}.{key}"
        words = [templating.word(where, text, values) for text in getattr(self._table, key)]
        if any("\0" in word for word in words):
            raise ConfigError(f"{where}: an argument holds a NUL.")
        return words

    def _conversation(self, values: dict[str, object]) -> Path | None:
        text = templating.word(
            f"drivers.{self.name}.conversation", self._table.conversation, values
        )
        return Path(text).expanduser() if text else None

    def program(self, environ: Mapping[str, str]) -> str | None:
        """Where the agent is; None: it is not installed."""
        return find_program(self._words("command", _PROBE)[0], environ)

    def prepare(self, work: Work) -> Launch:
        """See Driver."""
        values: dict[str, object] = {
            "ticket": work.ticket, "prompt": work.prompt, "session_id": work.session_id,
            "cwd": str(work.cwd), "folder": str(work.paths.agent_folder),
            "home": work.environ.get("HOME", ""),
        }  # fmt: skip
        argv = self._words("command", values)
        program = find_program(argv[0], work.environ)
        if program is None:
            raise ConfigError(
                f"The {self.name} agent is not installed: {argv[0]!r} was not found.",
                hint=f"Install it, or mend [drivers.{self.name}] command in"
                f" {work.config.config_dir}/config.toml. Looked in {work.environ.get('PATH', '')}.",
            )
        resumed = sidecar.was_started(work.paths.sidecar_path, work.session_id)
        file = self._conversation(values)
        if resumed and file is not None:
            resumed = file.exists()
        argv += self._words("resume" if resumed else "first", values)
        prompt = "" if resumed else work.prompt
        in_argv = bool(prompt and self._table.prompt and len(prompt.encode()) <= MAX_PROMPT_BYTES)
        if in_argv:
            argv += self._words("prompt", values)
        return Launch(
            argv=(program, *argv[1:]),
            environ={},
            resumed=resumed,
            status=f"{self.name}, conversation {work.session_id}",
            first_message="" if in_argv else prompt,
            writable=tuple(Path(path).expanduser() for path in self._table.writable),
        )

    def turn_state(self, work: Work, pid: int) -> str | None:
        """Off the screen, which is looked at when the pane has printed something since."""
        try:
            size = work.paths.pane_log_path.stat().st_size
        except OSError:
            size = -1
        now = time.monotonic()
        seen = self._seen.get(work.ticket)
        if seen is not None and seen[:2] == (pid, size) and now - seen[2] < STALE_S:
            return seen[3]
        screen = work.look() if work.look is not None else ""
        state = self.state_on(screen)
        if state == "idle":
            self._was_ready.add(pid)
        if state is None:
            # Nothing we know is shown: before it was first ready it starts, later it does something.
            state = "busy" if pid in self._was_ready else "starting"
        if screen:
            self._seen[work.ticket] = pid, size, now, state
        return state

    def state_on(self, screen: str) -> str | None:
        """idle, busy or waiting_permission; None where no pattern is shown."""
        rows = plain_rows(screen)
        deadline = time.monotonic() + patterns.LOOK_S
        for state, looked_for in (
            ("waiting_permission", self._waiting), ("busy", self._busy), ("idle", self._ready),
        ):  # fmt: skip
            found = patterns.shown(looked_for, rows, deadline)
            if found is None:
                return "busy"  # out of time: nothing is sent to what nobody could read
            if found:
                return state
        return None

    def box(self, screen: str) -> str | None:
        """See Driver; empty where the table names no mark."""
        if self._table.box:
            return marked_text(screen, self._table.box)
        return ""

    def confirms(self, record: Record, body: str, key: str) -> bool:  # noqa: ARG002
        """It has no sidecar of its own; delivery looks at the screen."""
        return False

    def outgoing(self, body: str) -> str:
        """A blank before what would be a command.

        Raises:
            InvalidInput: several lines for an agent that takes one.
        """
        text = body.replace("\r\n", "\n").replace("\r", "\n")
        if "\n" in text.strip("\n") and not self._table.multiline:
            raise InvalidInput(f"The {self.name} agent takes messages of one line.")
        if not self._table.multiline:
            text = text.strip("\n")
        return " " + text if text[:1] and text[0] in self._table.commands else text


@cache
def of_table(table: DriverTable) -> TableDriver:
    """The one driver of a table: it remembers what it saw."""
    return TableDriver(table)
