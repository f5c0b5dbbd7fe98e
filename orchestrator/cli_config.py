"""ticketctl, the configuration's part: config check, config show.

An entry point's commands, like cli.py's, which registers them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import click

from orchestrator import config as configuration
from orchestrator.cli_common import print_json, print_table, reports_errors
from orchestrator.config import Resolved, Setting
from orchestrator.config_reading import as_toml
from orchestrator.errors import EX_CONFIG, ConfigError


@click.group()
def config() -> None:
    """Look at the configuration: what is wrong in it, and what is in force."""


@config.command()
@click.option("--json", "as_json", is_flag=True, help="One object: files, problems, notes.")
@reports_errors
def check(as_json: bool) -> None:
    """Check config.toml, conf.d/*.toml and MC_… variables: each mistake with line and column.

    Exit status 78 when there is one. Nothing is changed, and no service is asked.
    """
    found = configuration.resolve()
    problems = [*found.problems, *_of_drivers(found)]
    if as_json:
        print_json(
            {
                "files": [str(p) for p in found.files],
                "problems": [{"message": p.message, "hint": p.hint} for p in problems],
                "notes": list(found.notes),
            }
        )
    else:
        for problem in problems:
            click.echo(problem.message, err=True)
            if problem.hint:
                click.echo(f"       {problem.hint}", err=True)
        for note in found.notes:
            click.echo(f"note: {note}", err=True)
        if not problems:
            changed = sum(s.source != "default" for s in found.settings)
            files = ", ".join(str(p) for p in found.files) or "no file"
            click.echo(f"No mistakes: {files}; {changed} keys are not left at their default.")
    if problems:
        sys.exit(EX_CONFIG)


def _of_drivers(found: Resolved) -> Iterator[ConfigError]:
    """What only a start would tell: a pattern or a template that cannot be used."""
    from orchestrator.drivers.table import of_table

    for table in found.config.drivers.values():
        try:
            of_table(table)
        except ConfigError as error:
            yield found.placed(error)


@config.command()
@click.option("--changed", is_flag=True, help="Without what is left at its default.")
@click.option("--json", "as_json", is_flag=True, help="An array: key, value, source.")
@reports_errors
def show(changed: bool, as_json: bool) -> None:
    """Show each key, its value, and who said so: default, a file with its line, or a variable.

    Passwords and tokens are not shown. What each key means: docs/configuration.md.
    """
    configuration.load()
    settings = [s for s in configuration.resolve().settings if not changed or s.source != "default"]
    if as_json:
        print_json([{"key": _name(s), "value": s.shown, "source": s.source} for s in settings])
        return
    print_table(
        ["KEY", "FROM", "VALUE"], [[_name(s), s.source, as_toml(s.shown)] for s in settings]
    )


def _name(setting: Setting) -> str:
    return f"{setting.table}.{setting.key}"


COMMANDS: tuple[click.Command, ...] = (config,)
