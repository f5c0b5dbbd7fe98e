"""Whether a ticket's agent is isolated, and whether that can be had on this machine.

The decision, from what the ticket and the configuration say; the probe is one run of bubblewrap.
What an isolated agent sees is `isolation_view.py`'s to say.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.config_tables import Isolation
from orchestrator.errors import ConfigError

PROGRAM = "bwrap"
PROBE_TIMEOUT_S = 10
#: what the isolation rests on: namespaces of its own, and a /proc and a /dev in them
_PROBE = (
    PROGRAM, "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-net", "--die-with-parent",
    "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp", "--", "true",  # noqa: S108
)  # fmt: skip
INSTALL_HINT = "sudo apt install bubblewrap"
NAMESPACE_HINT = "What forbids user namespaces, and the command that allows them: ticketctl doctor"


@dataclass(frozen=True, slots=True)
class Decision:
    """How one ticket's agent is run."""

    isolated: bool
    reason: str = ""  #: why it is not, where nobody chose that

    @property
    def mode(self) -> str:
        """As the configuration says it."""
        return "workspace" if self.isolated else "off"


def why_not() -> str:
    """Why agents cannot be isolated on this machine; empty when they can."""
    try:
        done = subprocess.run(
            _PROBE, capture_output=True, text=True, check=False, timeout=PROBE_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except FileNotFoundError:
        return "bubblewrap is not installed"
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"bubblewrap does not work here: {error}"
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or [f"status {done.returncode}"]
        return f"bubblewrap does not work here: {said[0]}"
    return ""


def mend_hint(reason: str) -> str:
    """What to do about it."""
    return INSTALL_HINT if "not installed" in reason else NAMESPACE_HINT


def decide(
    settings: Isolation, driver: str, wanted: str | None, probe: Callable[[], str] = why_not
) -> Decision:
    """Whether an agent is isolated.

    Args:
        settings: `[isolation]`.
        driver: the ticket's.
        wanted: what the ticket itself says, workspace or off; None: nothing.
        probe: as `why_not`.

    Raises:
        ConfigError: it has to be, and cannot.
    """
    mode = wanted or ("off" if driver in settings.off_for else settings.mode)
    if mode == "off":
        return Decision(isolated=False)
    reason = probe()
    if not reason:
        return Decision(isolated=True)
    if mode == "auto":
        return Decision(isolated=False, reason=reason)
    who = "The ticket" if wanted else "isolation.mode"
    raise ConfigError(
        f"{who} asks for isolation, and {reason}.",
        hint=f"{mend_hint(reason)}; or run it as yourself, with isolation off.",
    )
