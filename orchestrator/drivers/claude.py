"""Claude Code's TUI, long-lived in the pane, told by hooks into the sidecar.

A TUI has no JSON on stdout: hooks and the status line are the sidecar's source, its own
sessions/<pid>.json says what it is doing, and the keyboard is for prompts alone.
"""

from __future__ import annotations

import json
import sys
import unicodedata
from pathlib import Path

from orchestrator import permits, sidecar
from orchestrator.drivers.base import Launch, Pasted, Work, find_program
from orchestrator.drivers.box import box_text
from orchestrator.drivers.claude_home import ClaudeHome
from orchestrator.drivers.claude_private import adopt, ensure_private_home, login_of
from orchestrator.errors import ConfigError
from orchestrator.sidecar import Record

# A conversation lives as long as its ticket; the CLI's own default deletes it after 30 days.
TRANSCRIPT_DAYS = 3650
_STATES = {"idle": "idle", "shell": "idle", "busy": "busy", "waiting": "waiting_permission"}


class ClaudeDriver(Pasted):
    """Runs `claude`, with `--resume` where there is a conversation and `--session-id` where not."""

    name = "claude"

    def __init__(self) -> None:
        self._begun: set[int] = set()  # pids that are past the prompt of their command line

    def prepare(self, work: Work) -> Launch:
        """See Driver."""
        program = find_claude(work)
        home, login = home_of(work)
        home.ensure_trust(work.cwd)
        settings = sidecar.settings_hooks(
            sys.executable,
            tee_path(),
            work.paths.sidecar_path,
            work.ticket,
            permits.requests_folder(work.paths),
        )
        settings["cleanupPeriodDays"] = TRANSCRIPT_DAYS
        work.paths.settings_path.write_text(json.dumps(settings, indent=1), encoding="utf-8")
        options, resumed = home.session_options(
            work.cwd,
            work.session_id,
            begun=sidecar.has_prompt(work.paths.sidecar_path, work.session_id),
        )
        argv = [program, *work.config.claude.args, "--settings", str(work.paths.settings_path)]
        argv += options
        if work.prompt and not resumed:
            argv += ["--", self.outgoing(work.prompt)]
        return Launch(
            argv=tuple(argv),
            environ=home.environ,
            writable=login,
            resumed=resumed,
            status=f"Claude Code, conversation {work.session_id}",
        )

    def turn_state(self, work: Work, pid: int) -> str | None:
        """From sessions/<pid>.json, which unlike the hooks also knows of Esc."""
        status = ClaudeHome.from_environ(work.environ).status(pid).get("status")
        state = _STATES.get(str(status), "starting")
        return "starting" if state == "idle" and self._prompt_is_coming(work, pid) else state

    def _prompt_is_coming(self, work: Work, pid: int) -> bool:
        """Whether the prompt of the command line is not submitted yet: the CLI says idle till then."""
        if pid in self._begun:
            return False
        try:
            argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        if b"--session-id" in argv and b"--" in argv:
            taken = False  # by this process, not by one before it
            for record in sidecar.read(work.paths.sidecar_path):
                if isinstance(record, Record) and record.hook in {
                    "WorkerStart",
                    "UserPromptSubmit",
                }:
                    taken = record.hook == "UserPromptSubmit"
            if not taken:
                return True
        self._begun.add(pid)
        return False

    def box(self, screen: str) -> str | None:
        """See Driver."""
        return box_text(screen, "❯")

    def confirms(self, record: Record, body: str, key: str) -> bool:  # noqa: ARG002
        """By UserPromptSubmit; the CLI trims blanks at both ends."""
        if record.hook != "UserPromptSubmit":
            return False
        prompt = record.data.get("prompt")
        return isinstance(prompt, str) and _same_text(prompt, body)

    def outgoing(self, body: str) -> str:
        """A leading / or ! would run as a command, a trailing backslash eat the Enter."""
        text = body.replace("\r\n", "\n").replace("\r", "\n")
        if text.startswith(("/", "!")):
            text = " " + text
        return text + " " if text.endswith("\\") else text


def find_claude(work: Work) -> str:
    """The CLI.

    Raises:
        ConfigError: it is not installed, with what to do.
    """
    command = work.config.claude.command
    program = find_program(command, work.environ)
    if program is None:
        raise ConfigError(
            f"The Claude Code CLI is not installed: {command!r} was not found.",
            hint=f"Install it, or set [claude] command in {work.config.config_dir}/config.toml."
            f" Looked in {work.environ.get('PATH', '')}.",
        )
    return program


def home_of(work: Work) -> tuple[ClaudeHome, tuple[Path, ...]]:
    """Where the CLI of a ticket keeps its files, and what of it is elsewhere and has to be written.

    An isolated ticket has a folder of its own. A conversation goes on where isolation was switched
    on or off since.
    """
    theirs = ClaudeHome.from_environ(work.environ)
    private = ClaudeHome.private_of(work.paths.claude_folder)
    if not work.isolated:
        adopt(theirs, private, work.cwd, work.session_id)
        return theirs, ()
    theirs.check()
    places = (work.cwd, *([work.repo] if work.repo else []))
    home = ensure_private_home(work.paths.claude_folder, theirs, places)
    adopt(home, theirs, work.cwd, work.session_id)
    return home, (work.paths.claude_folder, *login_of(theirs))


def tee_path() -> Path:
    """The program that Claude's hooks run; it stands alone and imports nothing of ours."""
    return Path(sidecar.__file__).with_name("sidecar_tee.py")


def _same_text(prompt: str, body: str) -> bool:
    def plain(text: str) -> str:
        lines = text.replace("\r\n", "\n").replace("\r", "\n").replace("\t", "    ")
        return unicodedata.normalize("NFC", lines).strip()  # its input box composes accents

    return plain(prompt) == plain(body)
