"""`[drivers.NAME]`: what is taken, what is refused with which words, what comes out of it."""

from __future__ import annotations

import time
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator import config as configuration
from orchestrator import doctor, patterns, sidecar
from orchestrator.config import Config
from orchestrator.drivers import Work, driver_named, driver_names
from orchestrator.drivers.box import marked_text
from orchestrator.drivers.table import TableDriver
from orchestrator.errors import ConfigError, InvalidInput

TABLE = """
[drivers.mine]
command = ["sh", "--dir", "{{ cwd }}"]
first = ["--session", "{{ session_id }}"]
resume = ["--resume={{ session_id }}"]
prompt = ["--", "{{ prompt }}"]
ready = ["^> "]
busy = ["working"]
waiting = ["[Aa]llow\\\\?"]
box = ">"
commands = "/!"
"""
SESSION = "5a3885d6-6d86-44f5-b6ca-624a3c95b6cf"


def load(tmp_path: Path, text: str = TABLE) -> Config:
    """The configuration of a home with that config.toml."""
    folder = tmp_path / ".config/mission-control"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.toml").write_text(text, encoding="utf-8")
    return configuration.load({"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run")})


def work_of(config: Config, prompt: str = "hello") -> Work:
    """Ticket 7, in a folder of its own."""
    paths = config.ticket_paths(7)
    paths.agent_folder.mkdir(parents=True, exist_ok=True)
    return Work(
        ticket=7, prompt=prompt, session_id=SESSION, command=(), cwd=Path("/tmp"), paths=paths,
        config=config, environ={"PATH": "/usr/bin:/bin", "HOME": "/home/op"},
    )  # fmt: skip


def mine(config: Config) -> TableDriver:
    """The driver of the table."""
    driver = driver_named("mine", config)
    assert isinstance(driver, TableDriver)
    return driver


def edited(old: str, new: str) -> str:
    """The table with a change."""
    assert old in TABLE
    return TABLE.replace(old, new)


def test_a_table_is_a_driver_like_any_other(tmp_path: Path) -> None:
    """By its name, beside ours, and the same one each time: it remembers what it saw."""
    config = load(tmp_path)
    assert "mine" in driver_names(config)
    assert "claude" in driver_names(config)
    assert mine(config) is mine(load(tmp_path))
    with pytest.raises(InvalidInput, match="no driver 'mine'"):
        driver_named("mine", load(tmp_path, ""))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("[drivers.mine]", "[drivers.claude]", "drivers.claude: there is a driver claude already"),
        ("[drivers.mine]", "[drivers.Mine]", "no name of a driver"),
        ("[drivers.mine]", '[drivers."a/b"]', "no name of a driver"),
        ('ready = ["^> "]', "", "drivers.mine.ready is missing"),
        ('ready = ["^> "]', "ready = []", "drivers.mine.ready is empty"),
        ('busy = ["working"]', 'busy = "working"', "drivers.mine.busy is a list of strings"),
        ('box = ">"', "box = 1", "drivers.mine.box is a string"),
        ('box = ">"', 'box = "> "', "a mark without blanks"),
        ('box = ">"', 'bux = ">"', "'bux' is no key of [drivers.mine]. Did you mean box?"),
        ('box = ">"', "multiline = 1", "drivers.mine.multiline is true or false"),
        ('box = ">"', 'interrupt = "q"', "escape or ctrl-c"),
        ('["sh", "--dir", "{{ cwd }}"]', "[]", "drivers.mine.command names no program"),
        (TABLE, "drivers = 1", "drivers is a table"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_when_the_file_is_read(
    tmp_path: Path, old: str, new: str, says: str
) -> None:
    """Names, keys and types: with the file, the key and what to write."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, edited(old, new))
    assert says in str(caught.value)
    assert "config.toml" in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('{{ session_id }}"]\nresume', '{{ sesion_id }}"]\nresume', "drivers.mine.first: 'sesion_id' is undefined"),
        ("{{ cwd }}", "{{ cwd", "drivers.mine.command: '{{ cwd' is no template"),
        ("{{ cwd }}", "{{ cwd.__class__.__mro__ }}", "drivers.mine.command"),
        ("{{ cwd }}", "{{ 1 // 0 }}", "is no template"),
        ('"working"', '"(a+)+$"', "cannot be used from '(a+)+$' on"),
        ('"working"', '"a|b"', "cannot be used from '|b' on"),
        ('"working"', '"a*b*c*"', "repeats 3 times"),
        ('"working"', '"a**"', "cannot be used"),
        ('"working"', '"[z-a]"', "is no pattern"),
        ('"working"', '""', "1 to 200 characters"),
        ('"working"', '"[a"', "cannot be used"),
        ('"working"', "'(.)\\1'", "cannot be used"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_work_is_refused_when_it_is_asked_for(
    tmp_path: Path, old: str, new: str, says: str
) -> None:
    """The file is read, so that other tickets go on; whoever names the driver is told what to mend."""
    config = load(tmp_path, edited(old, new))
    with pytest.raises(ConfigError) as caught:
        driver_named("mine", config)
    assert says in str(caught.value)


def test_the_command_line_is_words_and_never_a_shell(tmp_path: Path) -> None:
    """Each template is one argument, whatever comes out of it; the program is found on PATH."""
    config = load(tmp_path)
    hostile = "$(touch /tmp/x) `y` ; 'q' \"r\" \n{{ session_id }} {% raw %} -- -R"
    launch = mine(config).prepare(work_of(config, hostile))
    assert launch.argv[1:] == ("--dir", "/tmp", "--session", SESSION, "--", hostile)
    assert launch.argv[0].endswith("/sh")
    assert (launch.resumed, launch.first_message) == (False, "")


def test_it_goes_on_where_it_was_started_before(tmp_path: Path) -> None:
    """By the launcher's own lines, for that conversation: a fresh one begins anew, with the prompt."""
    config = load(tmp_path)
    work = work_of(config)
    sidecar.append(work.paths.sidecar_path, "WorkerStart", {"session_id": SESSION})
    launch = mine(config).prepare(work)
    assert launch.resumed
    assert launch.argv[1:] == ("--dir", "/tmp", f"--resume={SESSION}")
    fresh = replace(work, session_id=SESSION.replace("5a", "6b"))
    assert "hello" in mine(config).prepare(fresh).argv


def test_it_goes_on_only_with_what_is_there(tmp_path: Path) -> None:
    """`conversation` names the agent's file: while it is not there, there is nothing to go on with."""
    config = load(tmp_path, TABLE + 'conversation = "{{ folder }}/history.md"\n')
    work = work_of(config)
    sidecar.append(work.paths.sidecar_path, "WorkerStart", {"session_id": SESSION})
    assert not mine(config).prepare(work).resumed
    (work.paths.agent_folder / "history.md").write_text("said\n")
    assert mine(config).prepare(work).resumed


@pytest.mark.parametrize("how", ["no key", "too long"])
def test_a_prompt_that_is_no_argument_is_a_message(tmp_path: Path, how: str) -> None:
    """It is not lost: the launcher queues it."""
    text = edited('prompt = ["--", "{{ prompt }}"]', "") if how == "no key" else TABLE
    prompt = "hello" if how == "no key" else "x" * 200_000
    config = load(tmp_path, text)
    launch = mine(config).prepare(work_of(config, prompt))
    assert launch.first_message == prompt
    assert prompt not in launch.argv


def test_a_missing_program_is_said(tmp_path: Path) -> None:
    """With its name, the key and where it was looked for."""
    config = load(tmp_path, edited('"sh"', '"no-such-agent"'))
    with pytest.raises(ConfigError, match="'no-such-agent' was not found") as caught:
        mine(config).prepare(work_of(config))
    assert "[drivers.mine] command" in caught.value.hint


@pytest.mark.parametrize(
    ("screen", "state"),
    [
        ("> ", "idle"),
        ("> half a thought", "idle"),
        ("working\n> ", "busy"),
        ("\x1b[1mwork\x1b[0ming\n> ", "busy"),
        ("working\nallow?\n> ", "waiting_permission"),
        ("Welcome", None),
        ("", None),
    ],
)
def test_what_the_screen_says(tmp_path: Path, screen: str, state: str | None) -> None:
    """A question before a turn, a turn before readiness: in doubt nothing is sent."""
    assert mine(load(tmp_path)).state_on(screen) == state


def test_what_is_not_known_is_a_start_and_later_a_turn(tmp_path: Path) -> None:
    """Looked at when the pane has printed something, and after a while all the same."""
    config = load(tmp_path)
    work = work_of(config)
    screens = ["Welcome", "> ", "Some menu"]
    looks = iter(screens)
    work = replace(work, look=lambda: next(looks))
    driver = TableDriver(config.drivers["mine"])
    states = []
    for number in range(len(screens)):
        work.paths.pane_log_path.write_text("x" * (number + 1))
        states += [driver.turn_state(work, 1), driver.turn_state(work, 1)]
    assert states == ["starting", "starting", "idle", "idle", "busy", "busy"]


def test_no_screen_takes_long() -> None:
    """The worst that is allowed, on the worst screen: bounded, and unknown instead of wrong."""
    worst = [patterns.compiled("x", p) for p in (r".*.*\x01", r"[a]*[a]*b", r".{0,99}.{0,99}\x01")]
    rows = ["a" * 100_000] * 1000
    begun = time.monotonic()
    found = patterns.shown(worst, rows, begun + patterns.LOOK_S)
    assert found in {None, False}
    assert time.monotonic() - begun < 2  # twenty times the deadline: other programs run here too


@settings(deadline=None)  # it measures by itself, in CPU time
@given(st.text(alphabet=r"ab.*+?{}[]()\|^$,19d-", max_size=30))
def test_whatever_is_taken_is_quick(pattern: str) -> None:
    """A pattern made of nothing but syntax is refused, or does no harm."""
    try:
        compiled = patterns.compiled("x", pattern)
    except ConfigError:
        return
    row = "ab" * (patterns.MAX_ROW_CHARS // 4) + "a" * (patterns.MAX_ROW_CHARS // 2)
    begun = time.process_time()
    compiled.search(row)
    assert time.process_time() - begun < 1


@pytest.mark.parametrize(
    ("screen", "text"),
    [
        ("> \n", ""),
        (">\n", ""),
        ("old\n> what is this\n", "what is this"),
        ("╭────────╮\n│ > two    │\n│   lines  │\n╰────────╯", "two\n  lines"),
        ("> \x1b[2mType here\x1b[0m\n", ""),
        (">> no\n", None),
        ("Allow? (y/n)", None),
    ],
)
def test_the_text_in_a_box_of_any_kind(screen: str, text: str | None) -> None:
    """Behind the mark, framed or not, up to the edge; a hint is nobody's text."""
    found = marked_text(screen, ">")
    assert (found and "".join(found.split())) == (text and "".join(text.split()))


def test_messages_that_would_be_commands(tmp_path: Path) -> None:
    """A blank before them; several lines only where the agent takes them."""
    driver = mine(load(tmp_path))
    assert driver.outgoing("/clear it\r\nnow") == " /clear it\nnow"
    assert driver.outgoing("a /b") == "a /b"
    single = mine(load(tmp_path, TABLE + "multiline = false\n"))
    assert single.outgoing("one\n") == "one"
    with pytest.raises(InvalidInput, match="one line"):
        single.outgoing("one\ntwo")


def test_the_example_of_the_documentation_can_be_used(tmp_path: Path) -> None:
    """docs/drivers.md: every table in it is read, and makes a driver."""
    page = Path(__file__).resolve().parents[2] / "docs/drivers.md"
    blocks = page.read_text(encoding="utf-8").split("```toml\n")[1:]
    assert blocks
    for block in blocks:
        text = block.partition("```")[0]
        config = load(tmp_path, text)
        for name in tomllib.loads(text)["drivers"]:
            assert driver_named(name, config).name == name


def test_the_doctor_looks_at_each_table(tmp_path: Path) -> None:
    """Good, not installed, or not usable: with what to do."""
    assert doctor._drivers(load(tmp_path)).verdict == "ok"
    found = doctor._drivers(load(tmp_path, edited('"sh"', '"no-such-agent"')))
    assert (found.verdict, found.found) == ("warn", "not installed: mine")
    found = doctor._drivers(load(tmp_path, edited('"working"', '"(a)"')))
    assert (found.verdict, found.mend != "") == ("bad", True)
