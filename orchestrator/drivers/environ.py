"""The worker's environment: its unit's, without what was said to the unit or the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

# What a manager or a terminal told us about ourselves; the agent is neither.
NOT_FOR_THE_AGENT = (
    "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_PID", "WATCHDOG_USEC",
    "INVOCATION_ID", "JOURNAL_STREAM", "SYSTEMD_EXEC_PID", "MANAGERPID", "MANAGERPIDFDID", "MAINPID",
    "MEMORY_PRESSURE_WATCH", "MEMORY_PRESSURE_WRITE", "SERVICE_RESULT", "EXIT_CODE", "EXIT_STATUS",
    "TMUX", "TMUX_PANE", "TMUX_TMPDIR", "PWD", "OLDPWD", "SHLVL", "_",
)  # fmt: skip


def agent_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """The unit's environment as the agent gets it: Environment= of a drop-in reaches it."""
    kept = {k: v for k, v in environ.items() if k not in NOT_FOR_THE_AGENT and k.isidentifier()}
    home = kept.get("HOME") or str(Path.home())
    path = kept.get("PATH") or "/usr/local/bin:/usr/bin:/bin"
    # A user manager's PATH lacks what ~/.profile would add.
    own = [p for p in (f"{home}/.local/bin", f"{home}/bin") if p not in path.split(":")]
    kept |= {"HOME": home, "PATH": ":".join([*own, path])}
    if not kept.keys() & {"LANG", "LC_ALL", "LC_CTYPE"}:
        kept["LANG"] = "C.UTF-8"
    return kept
