"""What mc-logrotate.service executes: pane logs by logrotate, and each pane handed over to its new one.

`python -m orchestrator.rotate` writes logrotate's configuration from templates/logrotate.conf and
runs it; logrotate calls `… switch` once it has renamed, and compresses only when that went well;
`… thaw` is for the end of a run that was killed. Sidecars are not rotated: they are put away with
their ticket.
"""

from __future__ import annotations

import os
import shlex
import string
import subprocess
import sys

from orchestrator import config as configuration
from orchestrator import doctor_services, pipes, systemd, tmux
from orchestrator.config import Config, share_path
from orchestrator.errors import ConfigError, TicketError

LOGROTATE_TIMEOUT_S = 1800  # a day of logs to compress


def main() -> None:
    """Entry point."""
    os.umask(0o077)
    verb = sys.argv[1] if len(sys.argv) == 2 else "run"
    try:
        config = configuration.load()
        doctor_services.leave_copy(config)
        if verb == "switch":
            sys.exit(switch(config))
        elif verb == "thaw":
            with systemd.UserManager() as manager:
                pipes.thaw_forgotten(config, manager)
        elif verb == "force":
            sys.exit(run(config, "--force"))
        else:
            sys.exit(run(config))
    except TicketError as error:
        print(error, file=sys.stderr)  # noqa: T201  # stderr is the journal
        sys.exit(error.exit_status)


def render(config: Config) -> str:
    """logrotate's configuration."""
    template = string.Template(
        share_path("templates", "logrotate.conf").read_text(encoding="utf-8")
    )
    return template.substitute(
        logs=f"{config.state_dir}/tickets/*/pane.log",
        keep=config.logs.keep,
        compress="compress" if config.logs.compress else "nocompress",
        switch=shlex.join([sys.executable, "-I", "-m", "orchestrator.rotate", "switch"]),
    )


def run(config: Config, *options: str) -> int:
    """Rotates what is due; logrotate's status."""
    config.runtime_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = config.runtime_dir / "logrotate.conf"
    path.write_text(render(config), encoding="utf-8")
    environ = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}
    argv = ["logrotate", *options, "--state", str(config.state_dir / "logrotate.status"), str(path)]
    try:
        return subprocess.run(
            argv, check=False, timeout=LOGROTATE_TIMEOUT_S, env=environ
        ).returncode
    except FileNotFoundError:
        raise ConfigError(
            "logrotate is not installed.", hint="sudo apt install logrotate"
        ) from None


def switch(config: Config) -> int:
    """Every pane that still writes to a renamed log writes to a new one; 1: some could not."""
    server = tmux.Server(config.tmux.socket)
    bad = 0
    with systemd.UserManager() as manager:
        for folder in sorted((config.state_dir / "tickets").iterdir()):
            if not folder.name.isdigit() or not (folder / "pane.log.1").exists():
                continue
            number = int(folder.name)
            try:
                if pipes.hand_over(config, server, manager, number):
                    systemd.log(
                        f"Ticket {number}: pane log rotated.", ticket=number, event="rotated"
                    )
            except TicketError as error:
                bad = 1
                systemd.log(
                    f"Ticket {number}: pane log not rotated: {error.message}",
                    ticket=number, event="rotated", priority=4,
                )  # fmt: skip
    return bad


if __name__ == "__main__":
    main()
