"""ticketctl: tickets from the command line, in the manner of systemctl and gh.

An entry point: it prints and exits, everything else raises. Tables for people, `--json` for
programs, TSV when piped. Heavy imports wait until a command needs them, and so do the modules of
other commands: `list` has to be quick.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from orchestrator import config as configuration
from orchestrator.cli_common import NUMBER, open_database, print_json, reports_errors
from orchestrator.errors import InvalidInput
from orchestrator.naming import session_name, unit_name

if TYPE_CHECKING:
    from orchestrator.doctor_machine import Check

#: where the commands are that are not here; `COMMANDS` of each module
_MODULES = {
    "cli_config": ("config",),
    "cli_data": ("backup", "restore"),
    "cli_declare": ("apply", "diff-state", "set"),
    "cli_import": ("import",),
    "cli_look": ("list", "show", "status"),
    "cli_reconcile": ("reconcile",),
    "cli_report": ("report",),
    "cli_talk": ("send", "queue", "events", "interrupt", "permit"),
    "cli_top": ("top",),
    "cli_work": ("diff", "merge", "pr", "close", "reopen", "gc", "archive"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


class _Commands(click.Group):
    """The commands of this module, and those of others, imported when one of them is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        """Their names; nothing is imported."""
        return sorted({*self.commands, *_MODULE_OF})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """None where there is none of that name."""
        if cmd_name in _MODULE_OF and cmd_name not in self.commands:
            for command in import_module(f"orchestrator.{_MODULE_OF[cmd_name]}").COMMANDS:
                self.add_command(command)
        return super().get_command(ctx, cmd_name)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="mission-control", prog_name="ticketctl")
def main() -> None:
    """Tickets as systemd units: each runs a coding agent in tmux, in its own worktree.

    `ticketctl start 42` and `systemctl --user start ticket@42` are the same act. Exit status: 0
    done, 1 failed, 2 wrong use, 4 no such ticket, 5 conflict, 75 try again, 78 mend the
    configuration first.
    """


def _driver(name: str | None, command: Sequence[str], *, no_tmux: bool) -> str:
    """Which driver runs the ticket, when what else was said fits it."""
    from orchestrator.config import load
    from orchestrator.drivers import driver_named

    driver = driver_named(name or ("command" if command else "claude"), load()).name
    if command and driver != "command":
        raise InvalidInput(f"The {driver} driver takes no command.", hint="Use --driver command.")
    if driver == "command" and not command:
        raise InvalidInput("The command driver needs a command.", hint="Put it behind --.")
    if no_tmux and driver != "oneshot":
        hint = "--no-tmux goes with --driver oneshot."
        raise InvalidInput(f"The {driver} driver needs its pane.", hint=hint)
    return driver


@main.command()
@click.argument("title")
@click.argument("command", nargs=-1)
@click.option("--prompt", help="What the agent is told first. Default: the title.")
@click.option(
    "--prompt-file",
    type=click.File("r", encoding="utf-8"),
    help="The prompt, from a file; - is stdin.",
)
@click.option(
    "--repo",
    type=click.Path(path_type=Path),
    help="A git checkout; the agent gets a worktree of it.",
)
@click.option("--base", help="Branch, tag or commit to start from.  [default: HEAD]")
@click.option(
    "--driver",
    default=None,
    help="claude, claude_stream, oneshot, command, demo, or a [drivers.NAME] of config.toml."
    "  [default: claude]",
)
@click.option("--kind", type=click.Choice(["code", "chat"]), help="[default: code with --repo]")
@click.option("--id", "number", type=NUMBER, help="This number instead of the next free one.")
@click.option(
    "--isolation",
    type=click.Choice(["workspace", "off"]),
    help="What the agent can reach.  [default: as configured]",
)
@click.option("--no-tmux", is_flag=True, help="Without a pane; for the oneshot driver alone.")
@click.option("--start", "start_it", is_flag=True, help="Start it at once.")
@click.option("--json", "as_json", is_flag=True, help="Print the ticket as JSON.")
@reports_errors
def new(
    title: str, command: Sequence[str], prompt: str | None, prompt_file: Any, repo: Path | None,
    base: str | None, driver: str | None, kind: str | None, number: int | None, no_tmux: bool,
    isolation: str | None, start_it: bool, as_json: bool,
) -> None:  # fmt: skip
    """Make a ticket and print its number.

    A program to run instead of an agent goes behind --:
    ticketctl new "watch the disk" --driver command -- htop
    """
    from orchestrator.store import tickets
    from orchestrator.worktree import commit_of, find_repository

    driver = _driver(driver, command, no_tmux=no_tmux)
    if prompt is not None and prompt_file is not None:
        raise InvalidInput("Give --prompt or --prompt-file, not both.")
    if base and not repo:
        raise InvalidInput("--base is a commit of a repository.", hint="Give --repo PATH too.")
    if prompt_file is not None:
        try:
            prompt = prompt_file.read()
        except UnicodeDecodeError:
            raise InvalidInput("The prompt file is not UTF-8 text.") from None
    top = find_repository(repo.expanduser().absolute()) if repo and kind != "chat" else None
    if top is not None:
        commit_of(top, base or "HEAD")
    _, database = open_database()
    ticket = tickets.create(
        database, title=title, prompt=title if prompt is None else prompt,
        repo_path=str(top) if top else None, base_ref=base, driver=driver, command=command, kind=kind,
        use_tmux=not no_tmux, isolation=isolation,
        ticket=number,
    )  # fmt: skip
    if start_it:
        _systemd("start", ticket.id)
        ticket = tickets.get(database, ticket.id)
    if as_json:
        print_json(asdict(ticket))
    elif sys.stdout.isatty():
        click.echo(f"Ticket {ticket.id}: {ticket.title}")
        if not start_it:
            click.echo(f"Start it: ticketctl start {ticket.id}")
    else:
        click.echo(str(ticket.id))


def _systemd(verb: str, number: int) -> None:
    from orchestrator.errors import Conflict
    from orchestrator.systemd import UserManager

    with UserManager() as manager:
        if verb == "start" and manager.unit(unit_name(number)).active == "failed":
            manager.reset_failed(unit_name(number))
        try:
            getattr(manager, verb)(unit_name(number))
        except Conflict as error:
            status = manager.service(unit_name(number)).status_text
            raise Conflict(status or error.message, hint=error.hint) from None


def _each(verb: str, numbers: Sequence[int]) -> None:
    from orchestrator.store import tickets

    _, database = open_database()
    for number in numbers:
        tickets.get(database, number)
    for number in numbers:
        _systemd(verb, number)


@main.command()
@click.argument("numbers", metavar="TICKET...", nargs=-1, required=True, type=NUMBER)
@click.option("--fresh", is_flag=True, help="On a new conversation; the old one is not deleted.")
@reports_errors
def start(numbers: Sequence[int], fresh: bool) -> None:
    """Start tickets. The same as systemctl --user start ticket@N, and waits until they run."""
    import uuid

    from orchestrator.errors import Conflict
    from orchestrator.store import tickets

    if fresh:
        _, database = open_database()
        for number in numbers:
            if tickets.get(database, number).worker_pid is not None:
                raise Conflict(f"Ticket {number} is running.", hint=f"ticketctl stop {number}")
            tickets.update(database, number, session_id=str(uuid.uuid4()))
    _each("start", numbers)


def _verb(verb: str, help_text: str) -> None:
    @main.command(verb, help=help_text, short_help=help_text.split(".", maxsplit=1)[0] + ".")
    @click.argument("numbers", metavar="TICKET...", nargs=-1, required=True, type=NUMBER)
    @reports_errors
    def command(numbers: Sequence[int]) -> None:
        _each(verb, numbers)


_verb("stop", "Stop tickets. The agent and all its children end; the conversation stays.")
_verb("restart", "Restart tickets. They go on with their conversation.")


@main.command()
@click.argument("number", metavar="TICKET", type=NUMBER)
@reports_errors
def attach(number: int) -> None:
    """Sit down in front of a ticket: tmux attach, whatever the socket. Leave with Ctrl-B D."""
    from orchestrator.errors import Conflict
    from orchestrator.store import tickets
    from orchestrator.tmux import Server

    config, database = open_database()
    tickets.get(database, number)
    if Server(config.tmux.socket).pane(number) is None:
        raise Conflict(f"Ticket {number} is not running.", hint=f"ticketctl start {number}")
    _exec(
        "tmux", "-u", "-L", config.tmux.socket, "attach-session", "-t", f"={session_name(number)}"
    )


@main.command()
@click.argument("number", metavar="TICKET", type=NUMBER)
@click.option("-f", "--follow", is_flag=True, help="Go on with what is printed from now on.")
@click.option(
    "-n", "--bytes", "count", default=10240, show_default=True, help="How much of its end."
)
@reports_errors
def log(number: int, follow: bool, count: int) -> None:
    """Print the end of a ticket's pane log, with its colours."""
    from orchestrator.errors import Conflict
    from orchestrator.store import tickets

    config, database = open_database()
    ticket = tickets.get(database, number)
    path = config.ticket_paths(number).pane_log_path
    if not path.exists() and ticket.status == "closed":
        raise Conflict(
            f"Ticket {number} is closed; its log is in its archive.",
            hint=f"ticketctl archive {number}",
        )
    if not path.exists():
        raise Conflict(f"Ticket {number} has not run yet.", hint=f"ticketctl start {number}")
    _exec("tail", *(["-F"] if follow else []), "-c", str(max(0, count)), "--", str(path))


@main.command("open")
@click.argument("number", metavar="[TICKET]", type=NUMBER, required=False)
@reports_errors
def open_(number: int | None) -> None:
    """Print a login link for the browser; it works once, within a minute."""
    from orchestrator.store import logins, tickets

    config, database = open_database()
    if number is not None:
        tickets.get(database, number)
    then = f"&next=/ticket/{number}" if number else ""
    click.echo(f"{config.gateway_url}/login?code={logins.create_link(database)}{then}")


@main.command()
@click.option(
    "--bundle",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Make a .tar.gz for a bug report: no message, title, log, token or key is in it.",
)
@click.option("--json", "as_json", is_flag=True, help="An array of checks.")
@reports_errors
def doctor(bundle: Path | None, as_json: bool) -> None:
    """Check what Mission Control needs, and say how to mend what is missing."""
    from orchestrator import doctor as examination

    checks = examination.examine(configuration.load())
    if bundle is not None:
        _bundle(bundle, checks)
        return
    if as_json:
        print_json([asdict(c) for c in checks])
    else:
        for check in checks:
            colour = {"ok": "green", "warn": "yellow", "bad": "red"}[check.verdict]
            click.echo(
                f"{click.style(f'{check.verdict:>4}', fg=colour)}  {check.name}: {check.found}"
            )
            if check.mend:
                click.echo(f"      {check.mend}")
    if any(c.verdict == "bad" for c in checks):
        sys.exit(1)


def _bundle(path: Path, checks: Sequence[Check]) -> None:
    from importlib.metadata import version

    from orchestrator import bundle as bundling

    found = configuration.resolve()
    names = bundling.write(path, found.config, checks, found.settings, version("mission-control"))
    click.echo(f"{path}: {', '.join(names)}")
    click.echo(f"Look into it before you send it: tar -xzOf {path} | less", err=True)


@main.command()
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--uninstall", is_flag=True, help="Stop and remove everything but the data.")
@click.option("--purge", is_flag=True, help="With --uninstall: the data too.")
@click.option("--listen", help="Address of the gateway, when 127.0.0.1:3001 is taken.")
@reports_errors
def setup(dry_run: bool, uninstall: bool, purge: bool, listen: str | None) -> None:
    """Install units, database and gateway for this user. install.sh runs it; again changes nothing."""
    from orchestrator import install
    from orchestrator import uninstall as uninstalling

    if uninstall:
        found = configuration.load()
        uninstalling.uninstall(found, manuals=_manuals(), dry_run=dry_run, purge=purge)
        return
    if purge:
        raise InvalidInput("--purge goes with --uninstall.")
    install.install(manuals=_manuals(), listen=listen, dry_run=dry_run)


def _manuals() -> dict[str, str]:
    from importlib.metadata import version

    from orchestrator import manual

    docs = {
        name: configuration.share_path("docs", name).read_text(encoding="utf-8")
        for name in ("cli.md", "units.md")
    }
    unit = configuration.share_path("units", "ticket@.service").read_text(encoding="utf-8")
    return manual.pages(main, version("mission-control"), docs, unit)


@main.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@reports_errors
def completion(shell: str) -> None:
    """Print the completion of a shell. setup installs it for the shells that are there."""
    from orchestrator import completion as completing

    click.echo(completing.script(shell))


def _exec(*argv: str) -> NoReturn:
    sys.stdout.flush()
    os.execvp(argv[0], list(argv))
