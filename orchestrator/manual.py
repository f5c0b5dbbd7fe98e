"""Manuals out of the code: references in docs/cli.md and docs/configuration.md, and the man pages of setup.

ticketctl(1) is what click knows of the commands, mission-control.toml(5) what `reference` knows of the
keys, ticket@.service(5) docs/units.md and the unit itself. Pure: text in, text out.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby

import click

from orchestrator import reference
from orchestrator.errors import TicketError

BEGIN, END = "<!-- made by `make docs` -->", "<!-- end -->"
AS_IT_IS = "\b"  # click: a paragraph whose lines stay as they are
_SEE_TOML = r"The configuration; see \fBmission\-control.toml\fR(5)."
_SEE_ALSO = (
    r"\fBticket@.service\fR(5), \fBmission\-control.toml\fR(5), \fBsystemctl\fR(1), \fBtmux\fR(1)"
)
_TOML_SAYS = (
    "A TOML file; over it those of conf.d in the order of their names, key by key; over those the"
    " environment, with the name that each key has there. A list is words between blanks there."
    r" Mistakes: \fBticketctl config check\fR. What is in force: \fBticketctl config show\fR."
)


@dataclass(frozen=True, slots=True)
class Option:
    """What may stand behind a command."""

    shown: str  #: "-n, --lines INTEGER"
    text: str


@dataclass(frozen=True, slots=True)
class Command:
    """A command that does something."""

    name: str  #: with the groups it is in: "config show"
    usage: str
    paragraphs: tuple[str, ...]
    options: tuple[Option, ...]


def commands(main: click.Group) -> list[Command]:
    """All of them, by name."""

    def walk(group: click.Group, above: str) -> Iterator[Command]:
        context = click.Context(group)
        for name in sorted(group.list_commands(context)):
            command = group.get_command(context, name)
            path = f"{above} {name}".strip()
            if command is None or command.hidden:
                continue
            if isinstance(command, click.Group):
                yield from walk(command, path)
            else:
                yield _command(command, path)

    return list(walk(main, ""))


def _command(command: click.Command, path: str) -> Command:
    context = click.Context(command, info_name=f"ticketctl {path}")
    usage = " ".join(["ticketctl", path, *command.collect_usage_pieces(context)])
    text = inspect.cleandoc(command.help or "")
    parts = (part for part in re.split(r"\n\s*\n", text) if part)
    paragraphs = tuple(p if p.startswith(AS_IT_IS) else " ".join(p.split()) for p in parts)
    found = []
    for param in command.get_params(context):
        record = param.get_help_record(context) if isinstance(param, click.Option) else None
        if record is not None and "--help" not in record[0]:
            found.append(Option(*(" ".join(part.split()) for part in record)))
    return Command(path, usage, paragraphs, tuple(found))


def exit_statuses() -> dict[int, str]:
    """What an exit status of ticketctl means, from the tree of errors."""
    found = {0: "Done."}

    def walk(kind: type[TicketError]) -> None:
        found.setdefault(kind.exit_status, (inspect.getdoc(kind) or "").partition("\n")[0])
        for below in kind.__subclasses__():
            walk(below)

    walk(TicketError)
    return dict(sorted(found.items()))


def cli_markdown(main: click.Group) -> str:
    """The part of docs/cli.md that is made: between the two marks, both included."""
    lines = [BEGIN, "", "## Commands", ""]
    for command in commands(main):
        lines += [f"### ticketctl {command.name}", "", f"`{command.usage}`", ""]
        for paragraph in command.paragraphs:
            if paragraph.startswith(AS_IT_IS):
                lines += [
                    "```",
                    *paragraph.removeprefix(AS_IT_IS).strip("\n").split("\n"),
                    "```",
                    "",
                ]
            else:
                lines += [paragraph, ""]
        lines += [f"- `{option.shown}`: {option.text}" for option in command.options]
        lines += [""] if command.options else []
    return "\n".join([*lines, END])


def toml_markdown() -> str:
    """The same of docs/configuration.md: a table for each table."""
    lines = [BEGIN]
    for table, keys in groupby(reference.all_keys(), key=lambda key: key.table):
        lines += ["", f"## [{table}]", "", reference.summary_of(table), ""]
        if table == "drivers.NAME":
            lines += ["An example of each, and how to find patterns: [drivers.md](drivers.md).", ""]
        lines += ["| key | default | |", "| --- | --- | --- |", *(key.row for key in keys)]
    return "\n".join([*lines, "", END])


def replaced(page: str, part: str) -> str:
    """A page of docs/ with the part that is made put in anew."""
    before, _, rest = page.partition(BEGIN)
    return before + part + rest.partition(END)[2]


def pages(main: click.Group, version: str, docs: Mapping[str, str], unit: str) -> dict[str, str]:
    """The man pages, by file name.

    Args:
        main: the commands.
        version: of the program.
        docs: texts of units.md and cli.md.
        unit: the text of ticket@.service.
    """
    return {
        "ticketctl.1": _ticketctl(main, version, docs["cli.md"]),
        "ticket@.service.5": _unit(version, docs["units.md"], unit),
        "mission-control.toml.5": _toml(version),
    }


def _head(name: str, section: int, version: str, what: str) -> list[str]:
    return [
        f'.TH "{_text(name)}" {section} "" "mission-control {version}" "Mission Control"',
        ".SH NAME", rf"{_text(name)} \- {_text(what)}",
    ]  # fmt: skip


def _ticketctl(main: click.Group, version: str, page: str) -> str:
    lines = _head("ticketctl", 1, version, "tickets as systemd units, each with its coding agent")
    lines += [".SH SYNOPSIS", r"\fBticketctl\fR COMMAND [OPTIONS] [ARGUMENTS]", ".SH DESCRIPTION"]
    lines += _markdown(page.partition("\n")[2].partition(BEGIN)[0])
    lines.append(".SH COMMANDS")
    for command in commands(main):
        lines += [".SS", _text(command.usage)]
        for paragraph in command.paragraphs:
            if paragraph.startswith(AS_IT_IS):
                lines += [".PP", ".nf"]
                lines += [
                    _text(t) for t in paragraph.removeprefix(AS_IT_IS).strip("\n").split("\n")
                ]
                lines.append(".fi")
            else:
                lines += [".PP", _text(paragraph)]
        for option in command.options:
            lines += [".TP", rf"\fB{_text(option.shown)}\fR", _text(option.text)]
    lines += [
        ".SH FILES", ".TP", "~/.config/mission\\-control/config.toml", _SEE_TOML,
        ".SH SEE ALSO", _SEE_ALSO,
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _toml(version: str) -> str:
    lines = _head("mission-control.toml", 5, version, "what Mission Control is told by its user")
    lines += [
        ".SH SYNOPSIS", "~/.config/mission-control/config.toml", ".br",
        "~/.config/mission-control/conf.d/*.toml", ".SH DESCRIPTION",
        _TOML_SAYS,
    ]  # fmt: skip
    for table, keys in groupby(reference.all_keys(), key=lambda key: key.table):
        lines += [f".SH [{_text(table)}]", _text(reference.summary_of(table))]
        for key in keys:
            default = f"default {key.default}" if key.default else "to be given"
            variable = f"; {key.variable}" if key.variable else ""
            lines += [
                ".TP",
                rf"\fB{_text(key.name)}\fR ({_text(default + variable)})",
                _text(key.text),
            ]
    return (
        "\n".join([*lines, ".SH SEE ALSO", r"\fBticketctl\fR(1), \fBticket@.service\fR(5)"]) + "\n"
    )


def _unit(version: str, page: str, unit: str) -> str:
    lines = _head("ticket@.service", 5, version, "one ticket of Mission Control")
    lines += [".SH SYNOPSIS", r"systemctl \-\-user start ticket@42", ".br", "ticketctl start 42"]
    lines += [".SH DESCRIPTION", *_markdown(page.partition("\n")[2]), ".SH THE UNIT", ".nf"]
    lines += [_text(line) or ".sp" for line in unit.splitlines()]
    lines += [".fi", ".SH SEE ALSO", r"\fBticketctl\fR(1), \fBsystemd.service\fR(5)"]
    return "\n".join(lines) + "\n"


def _markdown(text: str) -> list[str]:
    """Our own pages' Markdown: paragraphs, headings, lists, tables, code."""
    lines: list[str] = []
    code = False
    for line in re.sub(r"^\|.*\n(\| ---)", r"\1", text.strip(), flags=re.MULTILINE).splitlines():
        if line.startswith("```"):
            lines.append(".fi" if code else ".PP\n.nf")
            code = not code
        elif code:
            lines.append(_text(line) or ".sp")
        elif line.startswith("#"):
            lines += [".SS", _text(line.lstrip("# "))]
        elif line.startswith("| ---") or not line.strip():
            lines.append(".PP")
        elif line.startswith("|"):
            first, *rest = [cell.strip() for cell in line.strip("|").split(" | ")]
            lines += [".TP", _inline(first), _inline(". ".join(filter(None, rest)) or "-")]
        elif line.startswith("- "):
            lines += [".IP - 2", _inline(line[2:])]
        else:
            lines.append(_inline(line.strip()))
    return lines


def _inline(text: str) -> str:
    text = re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", text).replace("**", "")
    return re.sub(r"`([^`]+)`", lambda match: rf"\fB{match[1]}\fR", _text(text))


def _text(text: str) -> str:
    """As roff prints it: no line of it is a request."""
    text = text.replace("\\", r"\e").replace("-", r"\-").replace("\n", " ")
    return rf"\&{text}" if text.startswith((".", "'")) else text
