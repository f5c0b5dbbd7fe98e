"""declare.py: what files say, and every problem of them at once, with its line."""

from __future__ import annotations

import tomllib
from contextlib import suppress
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.declare import KEYS, MAX_REFS, Declared, Source, read
from orchestrator.errors import InvalidInput
from orchestrator.limits import LIMITS

ROOT = Path(__file__).resolve().parents[2]


def board(text: str, path: str = "/b.toml") -> tuple[Declared, ...]:
    """What one file declares."""
    return read([Source(path, text)])


def one(text: str) -> Declared:
    """The one ticket of a file."""
    (item,) = board(text)
    return item


def test_a_name_is_enough() -> None:
    """Everything else has a default; state is nobody's business then."""
    item = one("[tickets.build]\n")
    assert (item.title, item.prompt, item.driver, item.kind) == ("build", "build", "claude", "chat")
    assert (item.state, item.schedule, item.after, item.limits) == (None, (), (), ())
    assert item.where == "/b.toml:1"


def test_all_of_it() -> None:
    """Each key arrives where it belongs."""
    item = one(
        """
        [tickets.nightly]
        title = "Each night"
        prompt_file = "n.md"
        repo = "~/src/demo"
        base = "main"
        driver = "claude_stream"
        kind = "code"
        state = "running"
        after = ["build", 41, "ticket@7.service", "db.service", 41]
        requires = "build"
        schedule = ["Mon..Fri  07:00", "Sat 09:00"]
        on_failure = "alert@.service"
        TasksMax = 100
        MemoryMax = "2G"
        """
    )
    assert (item.prompt, item.prompt_file) == (None, "n.md")
    assert (item.repo, item.base, item.kind, item.state) == (
        "~/src/demo",
        "main",
        "code",
        "running",
    )
    assert item.after == ("build", 41, 7, "db.service")
    assert (item.requires, item.on_failure) == (("build",), ("alert@.service",))
    assert item.schedule == ("Mon..Fri 07:00", "Sat 09:00")
    assert item.limits == (("MemoryMax", "2G"), ("TasksMax", "100"))


def test_defaults_are_for_what_a_ticket_does_not_say() -> None:
    """A chat ticket does not mind the repository of the others, nor a command their driver."""
    a, b, c = board(
        """
        [defaults]
        repo = "/r"
        driver = "demo"
        MemoryMax = "1G"
        on_failure = "b"
        [tickets.a]
        [tickets.b]
        kind = "chat"
        MemoryMax = "2G"
        [tickets.c]
        command = ["make"]
        """
    )
    assert (a.repo, a.kind, a.driver, a.limits) == ("/r", "code", "demo", (("MemoryMax", "1G"),))
    assert (b.repo, b.kind, b.limits, b.on_failure) == (None, "chat", (("MemoryMax", "2G"),), ())
    assert (c.driver, c.command, c.on_failure) == ("command", ("make",), ("b",))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[tickets.a]\nMemoryMx = '2G'", "/b.toml:2: 'MemoryMx' is no key of a ticket. Did you mean MemoryMax?"),
        ("[tickets.a]\nstat = 'running'", "Did you mean state?"),
        ("[ticket.a]\n", "/b.toml: 'ticket' is no table of a board. Did you mean tickets?"),
        ("[[tickets]]\nname = 'a'", "Write [tickets.NAME]."),
        ("tickets = 3", "Write [tickets.NAME]."),
        ("[tickets]\na = 3", "Write [tickets.a]."),
        ("[tickets.a\n", "/b.toml: "),
        ("[tickets.a]\n[tickets.a]\n", "line 2"),
        ("[tickets.'a b']\n", "/b.toml:1: 'a b' is no name for a ticket."),
        ("[tickets.41]\n", "'41' is no name for a ticket."),
        ("[tickets.'../x']\n", "no name for a ticket."),
        ("[tickets.a]\ntitle = 3", "/b.toml:2: title is text."),
        ("[tickets.a]\ntitle = '  '", "1 to 500 characters"),
        ('[tickets.a]\nprompt = "a\\u0000"', "/b.toml:2: prompt is text."),
        ("[tickets.a]\nprompt = 'a'\nprompt_file = 'b'", "not both"),
        ("[tickets.a]\ndriver = 'cloude'", "There is no driver 'cloude'."),
        ("[tickets.a]\ndriver = 'command'", "which command?"),
        ("[tickets.a]\ncommand = 'make test'", "a command is a list of words"),
        ("[tickets.a]\ncommand = ['']", "a command is a program"),
        ("[tickets.a]\ndriver = 'demo'\ncommand = ['x']", "the demo driver takes no command"),
        ("[tickets.a]\nkind = 'code'", "/b.toml:2: a code ticket needs a repo."),
        ("[tickets.a]\nkind = 'chat'\nrepo = '/r'", "/b.toml:3: a chat ticket has no repo."),
        ("[tickets.a]\nbase = 'main'", "/b.toml:2: a chat ticket has no base."),
        ("[tickets.a]\nstate = 'runing'", "Did you mean running?"),
        ("[tickets.a]\nafter = 'a'\nrequires='b'", "/b.toml:2: after names the ticket itself"),
        ("[tickets.a]\nafter = ['b c']", "'b c' is no ticket and no unit."),
        ("[tickets.a]\nafter = [0]", "0 is no ticket and no unit."),
        ("[tickets.a]\nafter = [true]", "True is no ticket and no unit."),
        ("[tickets.a]\nafter = 'ticket@.service'", "is no ticket and no unit."),
        ('[tickets.a]\non_failure = "x.service\\nExecStart=y"', "is no ticket and no unit."),
        ('[tickets.a]\nschedule = "daily\\n[Service]"', "is no calendar expression."),
        ("[tickets.a]\nschedule = '%h'", "is no calendar expression."),
        ("[tickets.a]\nschedule = 7", "/b.toml:2: 7 is no calendar expression."),
        ("[tickets.a]\nMemoryMax = '2'", "/b.toml:2: MemoryMax='2': 2 bytes hold no agent."),
        ("[defaults]\ntitle = 'x'", "/b.toml:2: 'title' is no key of a ticket."),
        ("[defaults]\nMemoryMax = '0'\n[tickets.a]", "/b.toml:2: MemoryMax='0'"),
        (f"[tickets.a]\nafter = {list(range(1, MAX_REFS + 2))}", "at most 50 tickets and units"),
        ("x = " + "[" * 100_000, "/b.toml"),
        ("x = " + "1" * 5000, "/b.toml"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused(text: str, said: str) -> None:
    """With file and line, and what to write instead."""
    with pytest.raises(InvalidInput) as refused:
        board(text)
    assert said in str(refused.value)


def test_every_problem_is_told_at_once() -> None:
    """Of every ticket of every file."""
    with pytest.raises(InvalidInput) as refused:
        read(
            [
                Source("/a.toml", "[tickets.a]\nx = 1\n[tickets.b]\ny = 1\n[tickets.c]\n"),
                Source("/b.toml", "[tickets.c]\n"),
                Source("-", "oops"),
            ]
        )
    assert refused.value.message.startswith("4 things cannot be used:\n  /a.toml:2: 'x' is no key")
    assert "/b.toml:1: c is declared in /a.toml:5 too." in refused.value.message
    assert "stdin: " in refused.value.message
    assert refused.value.hint == "Nothing was changed."
    with pytest.raises(InvalidInput, match="and 30 more"):
        board("".join(f"[tickets.t{n}]\nx = 1\n" for n in range(50)))


def test_a_path_with_a_newline_stays_in_its_line() -> None:
    """Where something is wrong is said in one line, whatever the file is called."""
    with pytest.raises(InvalidInput) as refused:
        board("[tickets.a]\nx = 1", path="/a\n\x1b[2J.toml")
    assert "\n" not in refused.value.message
    assert "\x1b" not in refused.value.message


def test_a_large_board_is_read_quickly() -> None:
    """A thousand tickets and no more; lines are looked up once, not for each key."""
    text = "".join(f"[tickets.t{n}]\nMemoryMax = '1G'\nafter = ['x']\n" for n in range(1000))
    assert len(board(text)) == 1000
    with pytest.raises(InvalidInput, match="1001 tickets are more than 1000"):
        board(text + "[tickets.one_more]\n")


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Nothing else comes out of a file, whatever is in it."""
    with suppress(InvalidInput):
        board(text)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


@given(st.dictionaries(st.sampled_from([*KEYS, *(k.name for k in LIMITS)]), VALUES, max_size=6))
def test_any_value_is_read_or_refused(table: dict[str, object]) -> None:
    """Of any kind under any key: what gets through is text of the kinds a unit and a row take."""
    with patch.object(tomllib, "loads", return_value={"tickets": {"a": table}}):
        try:
            item = one("")
        except InvalidInput:
            return
    assert item.title.strip()
    assert all(
        isinstance(ref, int | str) for ref in (*item.after, *item.requires, *item.on_failure)
    )
    assert all("\n" not in text for text in (*item.schedule, *(v for _, v in item.limits)))


def test_each_key_is_documented() -> None:
    """docs/declare.md has a row for each key."""
    page = (ROOT / "docs/declare.md").read_text(encoding="utf-8")
    for key in (*KEYS, *(limit.name for limit in LIMITS)):
        assert f"| `{key}` |" in page, key
