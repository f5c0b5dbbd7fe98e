"""The old way: a process of `claude -p` for each message, on one conversation, without a terminal.

Kept as a fallback (`use_tmux = false`) and as the yardstick that the long-lived drivers are measured
by. The unit's main process is `oneshot_agent.py`, a plain child of systemd: it waits for messages
and runs the CLI for one after the other. What needs leave is refused by the CLI itself, for there is
nobody to ask.
"""

from __future__ import annotations

import sys

from orchestrator.drivers.base import Launch, Work
from orchestrator.drivers.claude import find_claude, home_of
from orchestrator.drivers.claude_stream import (
    STREAM_OPTIONS,
    Channelled,
    write_prompt,
    write_settings,
)


class OneshotDriver(Channelled):
    """Runs `orchestrator.oneshot_agent`."""

    name = "oneshot"

    def prepare(self, work: Work) -> Launch:
        """See Driver."""
        program = find_claude(work)
        write_settings(work)
        home, login = home_of(work)
        _, resumed = home.session_options(work.cwd, work.session_id)
        argv = [sys.executable, "-I", "-m", "orchestrator.oneshot_agent"]
        argv += ["--sidecar", str(work.paths.sidecar_path), "--runtime", str(work.paths.runtime)]
        argv += ["--session", work.session_id]
        if work.prompt and not resumed:
            argv += ["--prompt-file", write_prompt(work, self.outgoing(work.prompt))]
        argv += ["--", program, *work.config.claude.args, *STREAM_OPTIONS]
        argv += ["--settings", str(work.paths.settings_path)]
        return Launch(
            argv=tuple(argv),
            environ=home.environ,
            writable=login,
            resumed=resumed,
            status=f"Claude Code, a process a message, conversation {work.session_id}",
        )
