"""Man pages and completion: made of the code, and taken by the programs that read them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import click
import pytest

from orchestrator import cli, completion, manual, reference
from orchestrator.cli import _manuals, main
from orchestrator.errors import InvalidInput
from orchestrator.store import tickets
from orchestrator.store.db import Database

PAGES = ["ticketctl.1", "ticket@.service.5", "mission-control.toml.5"]


def read(text: str) -> str:
    """A page as a reader sees it, without line breaks; groff has nothing to complain about."""
    if shutil.which("groff") is None:
        pytest.skip("groff-base is not installed")
    done = subprocess.run(
        ["groff", "-ww", "-man", "-t", "-Tutf8", "-K", "utf8", "-P-c", "-rLL=120n", "-rHY=0"], input=text.encode(),
        capture_output=True, check=True,
    )  # fmt: skip
    assert done.stderr == b""
    shown = re.sub(r".\x08", "", done.stdout.decode())  # bold is struck twice
    return " ".join(shown.replace("\N{HYPHEN}", "-").split())


@pytest.mark.parametrize("name", PAGES)
def test_each_page_is_read_by_groff(name: str) -> None:
    """Without a warning, with a name that whatis finds."""
    pages = _manuals()
    assert list(pages) == PAGES
    shown = read(pages[name])
    assert f"NAME {name[:-2]} - " in shown


def test_ticketctl_1_has_each_command_and_option() -> None:
    """With the words of --help."""
    shown = read(_manuals()["ticketctl.1"])
    found = manual.commands(main)
    assert {"list", "config show", "status", "top", "setup"} <= {command.name for command in found}
    for command in found:
        assert f" {command.usage} " in shown
        for option in command.options:
            assert f"{option.shown} {option.text}" in shown


def test_the_commands_of_each_module_are_known_by_name() -> None:
    """No module has a command that ticketctl does not find, and none is where it is not."""
    found = {}
    for path in Path(cli.__file__).parent.glob("cli_*.py"):
        module = import_module(f"orchestrator.{path.stem}")
        if hasattr(module, "COMMANDS"):
            found[path.stem] = {command.name for command in module.COMMANDS}
    assert found == {module: set(names) for module, names in cli._MODULES.items()}


def test_mission_control_toml_5_has_each_key() -> None:
    """With default, variable and line."""
    shown = read(_manuals()["mission-control.toml.5"])
    for key in reference.all_keys():
        assert key.name in shown
        assert f"{key.variable})" in shown
        assert " ".join(key.text.split()) in shown


def test_ticket_service_5_is_the_unit() -> None:
    """Each of its lines is in it."""
    shown = read(_manuals()["ticket@.service.5"])
    for line in Path("units/ticket@.service").read_text(encoding="utf-8").splitlines():
        assert " ".join(line.split()) in shown


def test_no_text_becomes_a_request() -> None:
    """What begins with a dot or a quote, or has a backslash, is shown as it is."""

    @click.command(help=".ex one\n\n'so /etc/passwd\n\nback\\\\slash \\fBx")
    def hostile() -> None: ...

    group = click.Group("ticketctl", {"hostile": hostile})
    shown = read(
        manual.pages(group, "1", {"cli.md": "#\n", "units.md": "#\n.so x\n"}, ".so /x")[
            "ticketctl.1"
        ]
    )
    assert ".ex one 'so /etc/passwd back\\\\slash \\fBx" in shown


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_each_shell_takes_its_completion(shell: str) -> None:
    """The shell itself finds no mistake in it."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    subprocess.run([shell, "-n"], input=completion.script(shell).encode(), check=True)


def test_there_is_no_completion_for_another_shell() -> None:
    """A sentence, with those there are."""
    with pytest.raises(InvalidInput, match="no completion for tcsh"):
        completion.script("tcsh")


def test_bash_completes_commands_and_tickets(tmp_path: Path, database: Database) -> None:
    """A Tab in a real bash: commands by their beginning, tickets by number."""
    for title in ("one", "two"):
        tickets.create(database, title=title)
    program = tmp_path / "ticketctl"
    program.write_text(
        f"#!{sys.executable}\nfrom orchestrator.cli import main\nmain(prog_name='ticketctl')\n"
    )
    program.chmod(0o755)
    environ = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path), "MC_DATABASE_URL": database._dsn,
               "PYTHONPATH": str(Path.cwd())}  # fmt: skip

    def complete(*words: str) -> list[str]:
        line = f"""{completion.script("bash")}
        COMP_WORDS=({" ".join(words)}) COMP_CWORD={len(words) - 1}
        _ticketctl_completion ticketctl
        printf '%s\\n' "${{COMPREPLY[@]}}" """
        done = subprocess.run(
            ["bash", "--norc"], input=line, env=environ, capture_output=True, text=True, check=True
        )
        return done.stdout.split()

    assert complete("ticketctl", "sta") == ["start", "status"]
    assert complete("ticketctl", "attach", "''") == ["1", "2"]


def test_setup_puts_them_where_shells_and_man_look(tmp_path: Path) -> None:
    """Only for the shells that are there."""
    (tmp_path / "fish").write_text("#!/bin/sh\n")
    (tmp_path / "fish").chmod(0o755)
    found = completion.places({"HOME": "/h", "PATH": str(tmp_path)})
    assert found == {"fish": Path("/h/.config/fish/completions/ticketctl.fish")}
