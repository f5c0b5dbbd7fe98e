"""What --json prints is what docs/json.md says, and what it said before."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from orchestrator import archive, manual
from orchestrator.store import archives, events, messages, tickets
from orchestrator.store.db import Database
from tests import make_docs
from tests.unit.test_cli_look import home, ticketctl  # noqa: F401  # a fixture

ROOT = Path(__file__).resolve().parents[2]
PROMISED = Path(__file__).with_name("json_keys.txt")
ROW = re.compile(r"^\| `(\w+)` \| ([a-z ]+) \|", re.MULTILINE)


def documented() -> dict[str, dict[str, str]]:
    """Of each object of docs/json.md its keys and their types."""
    text = (ROOT / "docs/json.md").read_text(encoding="utf-8")
    parts = re.split(r"^### (.+)$", text, flags=re.MULTILINE)[1:]
    return {
        name.lower(): dict(ROW.findall(body))
        for name, body in zip(parts[::2], parts[1::2], strict=True)
    }


def test_each_key_is_documented() -> None:
    """`make docs` writes them out of the code."""
    text = (ROOT / "docs/json.md").read_text(encoding="utf-8")
    assert manual.replaced(text, make_docs.json_markdown()) == text, "run: make docs"


def test_no_key_is_taken_away_or_means_another_type() -> None:
    """Each line of json_keys.txt still holds; one that is new is written there too, and promised from then on."""
    promised = set(PROMISED.read_text(encoding="utf-8").splitlines())
    there = {
        f"{name}: {key}: {kind}"
        for name, keys in documented().items()
        for key, kind in keys.items()
    }
    assert promised - there == set(), "programs read these"
    assert there - promised == set(), "promise them: add these lines to json_keys.txt"


def is_time(value: object) -> bool:
    """ISO 8601 with its zone."""
    return isinstance(value, str) and datetime.fromisoformat(value).tzinfo is not None


FITS: dict[str, Callable[[object], bool]] = {
    "string": lambda value: isinstance(value, str),
    "time": is_time,
    "whole number": lambda value: type(value) is int,
    "number": lambda value: type(value) in {int, float},
    "true": lambda value: value is True,
    "false": lambda value: value is False,
    "null": lambda value: value is None,
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
}


def fits(value: object, kind: str) -> bool:
    """Whether a value is of a documented type."""
    return any(FITS[one](value) for one in kind.split(" or "))


def test_what_is_printed_is_what_is_documented(
    home: dict[str, str],  # noqa: F811
    database: Database,
    tmp_path: Path,
) -> None:
    """Of each command that needs no systemd: the keys, all of them and no others, each of its type."""
    number = tickets.create(database, title="t", prompt="p").id
    tickets.update(database, number, turn_state="busy", status="in_progress")
    messages.enqueue(database, number, "go on")
    events.record(database, number, "turn_end", n=1)
    kept = archive.pack(tmp_path / "a.tar.zst", {"t": "x"}, {}, {})
    archives.add(
        database, number, path=str(kept.path), size_bytes=kept.size_bytes, sha256=kept.sha256, facts={}
    )  # fmt: skip
    known = documented()
    for words, name in (
        (["list"], "ticket"), (["list", "--all"], "ticket"), (["new", "another"], "ticket"),
        (["queue", str(number)], "message"), (["events", str(number)], "event"), (["archive"], "archive"),
        (["top"], "line of top"), (["doctor"], "check"), (["status", str(number)], "ticket"),
    ):  # fmt: skip
        said = ticketctl(home, *words, "--json").stdout
        found = json.loads(said.splitlines()[0])
        one = found[0] if isinstance(found, list) else found
        keys = known[name]
        extra = one.keys() - keys.keys()
        wanted = {"unit", "crashes_in_an_hour", "state_since", "asks", "queued", "events"}
        assert extra == (wanted if words[0] == "status" else set()), (words, extra)
        for key, kind in keys.items():
            assert key in one, (words, key)
            assert fits(one[key], kind), (words, key, one[key], kind)
