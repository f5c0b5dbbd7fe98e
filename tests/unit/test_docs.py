"""What is not documented does not exist."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from orchestrator import journal, manual, reference
from orchestrator.cli import main
from orchestrator.errors import TicketError
from orchestrator.events import KINDS
from orchestrator.store.events import OWN_KINDS
from tests import make_docs
from webgate import auth

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("kind", [*KINDS, *OWN_KINDS])
def test_each_kind_of_event_is_documented(kind: str) -> None:
    """docs/events.md has a row for it, with what the code says of it."""
    says = {**KINDS, **OWN_KINDS}[kind]
    assert f"| `{kind}` | {says} |" in (ROOT / "docs/events.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("unit", sorted(p.name for p in (ROOT / "units").iterdir()))
def test_each_unit_is_documented(unit: str) -> None:
    """docs/units.md names it, and the unit leads there."""
    named = unit.replace("@.", "@N.")
    assert f"`{named}`" in (ROOT / "docs/units.md").read_text(encoding="utf-8")
    assert "docs/units.md" in (ROOT / "units" / unit).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "SECURITY.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md")),
    ],
)
def test_no_link_leads_nowhere(page: str) -> None:
    """Every relative link of a page is a file."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert ((ROOT / page).parent / target).exists(), target


@pytest.mark.parametrize("kind", sorted(journal.KINDS))
def test_each_kind_of_journal_entry_is_documented(kind: str) -> None:
    """docs/events.md has its name, its MESSAGE_ID= and what it says."""
    identity, says = journal.KINDS[kind]
    row = f"| `{kind}` | `{identity}` | {says} |"
    assert row in (ROOT / "docs/events.md").read_text(encoding="utf-8")


def test_each_fault_is_drilled() -> None:
    """docs/faults.md has 32 rows, and each of them some test that is marked with its number."""
    rows = re.findall(
        r"^\| (\d+) \|", (ROOT / "docs/faults.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert [int(row) for row in rows] == list(range(1, 33))
    drilled: set[int] = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        for args in re.findall(r"mark\.fault\(([\d, ]+)\)", path.read_text(encoding="utf-8")):
            drilled |= {int(number) for number in args.split(",")}
    assert sorted(set(range(1, 33)) - drilled) == []


def test_each_key_of_the_configuration_is_documented() -> None:
    """docs/configuration.md has each with its default and the code's line: `make docs` writes it."""
    text = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    for key in reference.all_keys():
        assert key.text, f"{key.table}.{key.name} has no `#:` comment"
        assert key.row in text, "run: make docs"
    assert manual.BEGIN in text
    assert manual.replaced(text, manual.toml_markdown()) == text, "run: make docs"


@pytest.mark.parametrize("table", [*reference.TABLES, "drivers.NAME"])
def test_each_table_of_the_configuration_says_what_it_is_about(table: str) -> None:
    """The first line of its record does, behind its name."""
    assert reference.summary_of(table)


def test_each_command_and_option_is_documented() -> None:
    """docs/cli.md has what click knows of them, word for word: `make docs` writes it."""
    text = (ROOT / "docs/cli.md").read_text(encoding="utf-8")
    assert manual.BEGIN in text
    assert manual.replaced(text, manual.cli_markdown(main)) == text, "run: make docs"


def test_each_exit_status_is_documented() -> None:
    """docs/cli.md has a row for each that an error may have, with the error's own sentence."""
    text = (ROOT / "docs/cli.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| (\d+) \| (.*) \|$", text, re.MULTILINE))
    assert rows.pop("3") == "Of `status` alone: the ticket does not run."
    assert rows == {str(number): says for number, says in manual.exit_statuses().items()}


def test_each_problem_is_documented() -> None:
    """docs/api.md has each code the gateway may answer with, beside the status it comes with."""
    rows = re.findall(
        r"^\| (\d{3}) \| (.*) \|$", (ROOT / "docs/api.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    documented = {
        (int(status), code) for status, says in rows for code in re.findall(r"`([a-z-]+)`", says)
    }
    there, kinds = set(), [*TicketError.__subclasses__()]
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        if not kind.__module__.startswith("orchestrator.cli"):
            there.add((int(kind.http_status), kind.code))
    assert {(404, "not-found"), (503, "full"), (403, "wrong-code")} <= there
    assert documented == there


def test_each_option_of_the_installer_is_documented() -> None:
    """docs/upgrade.md has those of `./install.sh --help`, and no others."""
    usage = subprocess.run(
        [ROOT / "install.sh", "--help"], check=True, capture_output=True, text=True
    ).stdout
    page = (ROOT / "docs/upgrade.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(--[a-z-]+)` \|", page, re.MULTILINE)
    assert set(rows) == set(re.findall(r"--[a-z][a-z-]+", usage))


def test_each_route_is_documented() -> None:
    """docs/api.md has each with what the code says of it: `make docs` writes it."""
    text = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    assert manual.BEGIN in text
    assert manual.replaced(text, make_docs.routes_markdown()) == text, "run: make docs"
    for rule in auth.PUBLIC:
        assert f"`{rule}`" in text.partition("## Routes")[2].partition(manual.BEGIN)[0]


def test_each_event_of_a_stream_is_documented() -> None:
    """docs/api.md has a row for each that the gateway's code sends, and none for others."""
    text = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|", text.partition("## A ticket's stream")[2], re.MULTILINE)
    code = "".join(p.read_text(encoding="utf-8") for p in (ROOT / "webgate").glob("*.py"))
    sent = set(re.findall(r"(?:(?<![\w.])encode\(\s*\"|told\[\")(\w+)", code))
    sent |= set(re.findall(r"event: (\w+)\\n", code))
    told = (ROOT / "webgate/changes.py").read_text(encoding="utf-8").partition("told: dict")[2]
    sent |= set(re.findall(r"^            \"(\w+)\": ", told.partition("}\n")[0], re.MULTILINE))
    assert {"pane", "repaint", "state", "control", "end", "tickets"} <= sent
    assert set(rows) == sent - {"tickets"}
    assert "`tickets`" in text
