"""journal.py and systemd.log: one id for each kind of entry, and nothing anybody said."""

from __future__ import annotations

import ast
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from orchestrator import journal, systemd
from orchestrator.events import Event
from orchestrator.ingest import TOLD, _word_of

ROOT = Path(__file__).resolve().parents[2]
OUTCOMES = ("sent", "confirmed", "unconfirmed", "refused")


def said_in_code() -> set[str]:
    """Every kind that a call of `log` or `tell` names; a list in code counts by its own test."""
    found: set[str] = set()
    for path in [*ROOT.glob("orchestrator/**/*.py"), *ROOT.glob("webgate/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            named = [k.value for k in node.keywords if k.arg == "event"]
            name = ast.unparse(node.func)
            named += node.args[1:2] if name == "told.tell" else []
            if name in {"systemd.log", "told.tell"}:
                found |= {v.value for v in named if isinstance(v, ast.Constant)}
    return found


def test_each_kind_has_an_id_of_its_own() -> None:
    """128 bits as 32 hexadecimal digits, no two alike, none of them zero."""
    identities = [identity for identity, _ in journal.KINDS.values()]
    assert all(re.fullmatch("[0-9a-f]{32}", i) and int(i, 16) for i in identities)
    assert len(set(identities)) == len(identities)


def test_no_kind_is_written_without_an_id() -> None:
    """Whatever the code writes is in the table, and the table holds nothing that nobody writes."""
    written = said_in_code() | TOLD | {f"message_{outcome}" for outcome in OUTCOMES}
    assert written == set(journal.KINDS)


def test_an_entry_carries_ticket_kind_and_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """The three fields that programs look for; no id where there is no kind."""
    entries: list[dict[str, str]] = []
    monkeypatch.setattr(systemd.journal, "sendv", lambda **fields: entries.append(fields))
    systemd.log("Ticket 7: it was stopped.", ticket=7, event="worker_ended")
    systemd.log("Something else.")
    assert (entries[0]["TICKET_ID"], entries[0]["TICKET_EVENT"]) == ("7", "worker_ended")
    assert entries[0]["MESSAGE_ID"] == "69b52e9fdbb944e499405608ded1c10c"
    assert "MESSAGE_ID" not in entries[1]


@pytest.mark.parametrize(
    ("kind", "data", "word"),
    [
        ("session_start", {"source": "clear", "hook_event_name": "SessionStart"}, "clear"),
        ("permission_request", {"tool_name": "Bash", "tool_input": {"command": "secret"}}, "Bash"),
        ("permission_request", {"request": {"subtype": "can_use_tool", "tool_name": "Edit"}}, "Edit"),
        ("permission_answer", {"behavior": "deny", "message": "secret", "by": "op"}, "deny"),
        ("user_prompt", {"prompt": "secret", "hook_event_name": "UserPromptSubmit"}, ""),
        ("user_prompt", {"message": {"content": "secret"}}, ""),
        ("turn_end", {"last_assistant_message": "secret"}, ""),
        ("result", {"subtype": "success", "result": "secret"}, "success"),
        ("api_error", {"error": "rate_limit", "last_assistant_message": "secret"}, "rate_limit"),
        ("subagent", {"hook_event_name": "SubagentStop", "last_assistant_message": "secret"}, "SubagentStop"),
        ("session_end", {"reason": "x" * 1000}, "x" * 80),
        ("session_end", {"reason": ["no", "text"]}, ""),
    ],
)  # fmt: skip
def test_the_journal_gets_a_name_and_no_words(kind: str, data: dict[str, Any], word: str) -> None:
    """Beside the kind stands what the agent's program calls it: a tool, a reason, an error."""
    event = Event(kind=kind, at=datetime.now(UTC), data=data, offset=0, text="{}")
    assert _word_of(event) == word
