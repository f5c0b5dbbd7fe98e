"""docs/schema.md against the tables that the migrations make."""

from __future__ import annotations

import re
from pathlib import Path

from orchestrator.store.db import Database

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/schema.md").read_text(encoding="utf-8")


def sections() -> dict[str, str]:
    """The page by its headings."""
    parts = re.split(r"^## (.*)$", PAGE, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_each_table_and_column_is_documented(database: Database) -> None:
    """And none that is not there; each with a word about it."""
    rows = database.query(
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
    )
    documented = set()
    for heading, text in sections().items():
        for name, says in re.findall(r"^\| `([\w.]+)` \| (.+) \|$", text, re.MULTILINE):
            assert says.strip()
            table, _, column = name.rpartition(".")
            documented.add((table or heading, column))
    channels = {c for h, c in documented if h == "Who is told of changes"}
    documented = {(table, column) for table, column in documented if column not in channels}
    assert documented == {(r["table_name"], r["column_name"]) for r in rows}


def test_each_channel_is_documented(database: Database) -> None:
    """Every channel that a trigger of the schema notifies, as the database has it."""
    sources = database.query(
        "SELECT prosrc FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
    )
    arguments = database.query(
        "SELECT encode(tgargs, 'escape') AS args FROM pg_trigger WHERE NOT tgisinternal"
    )
    told = {
        name for row in sources for name in re.findall(r"pg_notify\('(mc_\w+)'", row["prosrc"])
    } - {"mc_"}
    told |= {
        f"mc_{a}"
        for row in arguments
        for a in re.findall(r"[a-z]+", row["args"].replace("\\000", ""))
    }
    text = sections()["Who is told of changes"]
    assert set(re.findall(r"^\| `(mc_\w+)` \|", text, re.MULTILINE)) == told
