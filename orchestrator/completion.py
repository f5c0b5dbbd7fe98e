"""Shell completion: click's own scripts, and where each shell looks for one.

The script asks `ticketctl` at each Tab, so that it never knows less than the program does.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import click
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

from orchestrator.errors import InvalidInput

SHELLS: Mapping[str, type[ShellComplete]] = {
    "bash": BashComplete,
    "zsh": ZshComplete,
    "fish": FishComplete,
}


def script(shell: str) -> str:
    """What `shell` reads; the end of a line is its end.

    Raises:
        InvalidInput: there is none for that shell.
    """
    kind = SHELLS.get(shell)
    if kind is None:
        raise InvalidInput(
            f"There is no completion for {shell}.", hint=f"There is: {', '.join(SHELLS)}."
        )
    made = kind(click.Command("ticketctl"), {}, "ticketctl", "_TICKETCTL_COMPLETE")
    text = made.source_template % made.source_vars()
    # click's condition holds for the first Tab of a shell alone, while zsh loads the function: the second
    # one would complete nothing
    return text.replace("$zsh_eval_context[-1] == loadautofunc", "$funcstack[1] == _ticketctl")


def places(environ: Mapping[str, str]) -> dict[str, Path]:
    """Where the shells that are installed find completions of a user, by shell."""
    home = Path(environ["HOME"]) if environ.get("HOME") else Path.home()
    data = Path(environ.get("XDG_DATA_HOME") or home / ".local/share")
    config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    found = {
        "bash": data / "bash-completion/completions/ticketctl",
        "zsh": data / "zsh/site-functions/_ticketctl",
        "fish": config / "fish/completions/ticketctl.fish",
    }
    path = environ.get("PATH", os.defpath)
    return {shell: place for shell, place in found.items() if shutil.which(shell, path=path)}
