"""config.py: ids, settings, paths."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import config as configuration
from orchestrator.errors import ConfigError, InvalidInput

HOSTILE = [
    "",
    "0",
    "-1",
    "+1",
    "01",
    "1.0",
    "1e9",
    "9999999999",
    "1" * 30,
    "../..",
    ";rm",
    "12\n",
    "1 ",
    "٤٢",
    "\N{MATHEMATICAL DOUBLE-STRUCK DIGIT ONE}",
    "%i",
    "x",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_what_is_no_ticket_number_is_refused(text: str) -> None:
    """Anything but 1 to 999999999 in ASCII digits is InvalidInput."""
    with pytest.raises(InvalidInput):
        configuration.ticket_id(text)


@given(st.integers(min_value=1, max_value=configuration.MAX_TICKET))
def test_every_ticket_number_is_taken(number: int) -> None:
    """1 to 999999999 come out as they went in."""
    assert configuration.ticket_id(str(number)) == number


@given(st.text(max_size=12))
def test_no_text_becomes_two_different_things(text: str) -> None:
    """Whatever is accepted is the one way to write that number."""
    try:
        number = configuration.ticket_id(text)
    except InvalidInput:
        return
    assert text == str(number)


def load(tmp_path: Path, text: str = "", **environ: str) -> configuration.Config:
    """The configuration of a home with that config.toml."""
    folder = tmp_path / ".config/mission-control"
    folder.mkdir(parents=True, exist_ok=True)
    if text:
        (folder / "config.toml").write_text(text, encoding="utf-8")
    return configuration.load({"HOME": str(tmp_path), "XDG_RUNTIME_DIR": "/run/user/1", **environ})


def test_without_a_file_there_are_defaults(tmp_path: Path) -> None:
    """The defaults are those of the design."""
    config = load(tmp_path)
    assert config.listen_address == ("127.0.0.1", 3001)
    assert config.tmux.socket == "default"
    assert config.database_dsn == "host=/run/user/1/mission-control/postgres dbname=mission_control"
    assert (
        config.ticket_paths(7).pane_log_path
        == tmp_path / ".local/state/mission-control/tickets/7/pane.log"
    )


def test_the_file_that_comes_with_the_product_says_the_defaults(tmp_path: Path) -> None:
    """templates/config.toml, with each comment taken off, is the default configuration."""
    text = configuration.share_path("templates", "config.toml").read_text(encoding="utf-8")
    said_keys = re.compile(r"# (\w+ = [^#]*[^#\s])\s*(#.*)?")
    keys = "\n".join(
        (m[1] if (m := said_keys.fullmatch(line)) else line) for line in text.splitlines()
    )
    said, defaults = load(tmp_path, keys), load(tmp_path / "empty")
    tables = re.findall(r"^\[(\w+)\]$", text, re.MULTILINE)
    assert tables
    for table in tables:
        assert getattr(said, table) == getattr(defaults, table)


def test_the_environment_wins(tmp_path: Path) -> None:
    """MC_<TABLE>_<KEY> over the file."""
    text = '[tmux]\nsocket = "file"\ncolumns = 100\n'
    assert load(tmp_path, text).tmux.columns == 100
    config = load(
        tmp_path, text, MC_TMUX_SOCKET="env", MC_TMUX_COLUMNS="90", MC_CLAUDE_ARGS="--model opus"
    )
    assert (config.tmux.socket, config.tmux.columns) == ("env", 90)
    assert config.claude.args == ("--model", "opus")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[gatway]\n", "Did you mean gateway?"),
        ('[gateway]\nlisen = "x"\n', "Did you mean listen?"),
        ("[gateway]\nlisten = 3001\n", "is a string"),
        ('[gateway]\nlisten = "0.0.0.0:3001"\n', "not on loopback"),
        ('[gateway]\nlisten = "127.0.0.1"\n', "no port"),
        ('[gateway]\nlisten = "127.0.0.1:0"\n', "no port"),
        ('[gateway]\nlisten = "box:3001"\n', "not on loopback"),
        ('[gateway]\nlisten = "[::]:3001"\n', "not on loopback"),
        ('[gateway]\nlisten = "0.0.0.0:3001"\norigin = "http://box"\n', "proxy serves HTTPS"),
        ('[gateway]\norigin = "https://box/path"\n', "proxy serves HTTPS"),
        ('[gateway]\nlisten = "/run/$(id)"\n', "no path for a socket"),
        (f'[gateway]\nlisten = "/{"x" * 100}"\n', "no path for a socket"),
        ('[notify]\nntfy_url = "file:///etc/passwd"\n', "no address of a topic"),
        ('[notify]\nntfy_url = "https://"\n', "no address of a topic"),
        ('[notify]\nntfy_url = "https://a/b c"\n', "no address of a topic"),
        ('[notify]\nntfy_token = "a\\nb"\n', "in no token"),
        ('[notify]\ncommand = ["", "x"]\n', "names no program"),
        ('[notify]\ncommand = "notify-send x"\n', "a list of strings"),
        ("[notify]\nafter_s = -1\n", "out of range"),
        ('[tmux]\nsocket = "a b"\n', "no socket name"),
        ('[tmux]\ncolumns = "80"\n', "a whole number"),
        ("[tmux]\ncolumns = true\n", "a whole number"),
        ("[tmux\n", "line 1"),
        ("tmux = 3\n", "is a table"),
        ('[claude]\nargs = "x"\n', "a list of strings"),
    ],
)
def test_a_mistake_is_said_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    """Each mistake is a ConfigError whose sentence or hint leads to it."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "address", "url"),
    [
        ('listen = "[::1]:80"', ("::1", 80), "http://[::1]:80"),
        ('listen = "localhost:81"', ("localhost", 81), "http://localhost:81"),
        ('listen = "/run/mc.sock"', Path("/run/mc.sock"), "http://127.0.0.1:3001"),
        (
            'listen = "10.0.0.1:80"\norigin = "https://mc.example.org"',
            ("10.0.0.1", 80),
            "https://mc.example.org",
        ),
    ],
)
def test_where_the_gateway_is(
    tmp_path: Path, text: str, address: tuple[str, int] | Path, url: str
) -> None:
    """Loopback, a Unix socket, or behind a proxy that ends TLS; and what a browser is sent to."""
    config = load(tmp_path, f"[gateway]\n{text}\n")
    assert (config.listen_address, config.gateway_url) == (address, url)


def test_a_home_that_tmux_would_expand_is_refused(tmp_path: Path) -> None:
    """pipe-pane's command goes through strftime, tmux formats and a shell."""
    for name in ("a b", "#(id)", "%d", "x;y", "$x"):
        home = tmp_path / name
        home.mkdir()
        with pytest.raises(ConfigError):
            load(home)
