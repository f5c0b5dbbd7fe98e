"""config.py and config_*.py: settings, paths."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from orchestrator import config as configuration
from orchestrator import config_file
from orchestrator.cli_config import COMMANDS as CONFIG
from orchestrator.errors import ConfigError


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
        ("[tmux\n", "config.toml:1:6: "),
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


PLACED = [
    ("[tmux]\n  socket = 3\n", "config.toml:2:3: tmux.socket is a string"),
    ('[tmux]\n\n\ncolums = 3 # "x" = 1\n', "config.toml:4:1: 'colums' is no key of [tmux]"),
    ("# a\n[gatway]\n", "config.toml:2:2: 'gatway' is no table"),
    ("[gatway.x]\n", "config.toml:1:2: 'gatway' is no table"),
    ('tmux = { rows = 1, socket = "a b" }\n', "config.toml:1:20: tmux.socket"),
    ('tmux . "rows" = "x"\n', "config.toml:1:8: tmux.rows is a whole number"),
    ('[worktree]\nsetup = """\npath = 1\n"""\npath = 1\n', "config.toml:5:1: worktree.path"),
    ('[claude]\nargs = ["a]", # ]\n  "b",\n]\ncommand = 1\n', "config.toml:5:1: claude.command"),
    ('[notify]\nntfy_url = "x"\n', "config.toml:2:1: notify.ntfy_url is no address"),
    ("[logs]\nkeep = 0\n", "config.toml:2:1: logs.keep: 0 is out of range"),
    ('[gateway]\nlisten = "x"\n', "config.toml:2:1: gateway.listen: 'x' has no port"),
    ('[drivers.a]\ncommand = ["a"]\nready = "x"\n', "config.toml:3:1: drivers.a.ready is a list"),
    ("\n[drivers.a]\n", "config.toml:2:10: drivers.a.command is missing"),
    ('[drivers.a]\nredy = ["x"]\n', "config.toml:2:1: drivers.a.redy: 'redy' is no key"),
    ("drivers = 3\n", "config.toml:1:1: drivers is a table"),
    ("[tmux]\nrows = \n", "config.toml:2:8: Invalid value"),
    ("[tmux]\r\n\r\nrows = true\r\n", "config.toml:3:1: tmux.rows"),
    ('[tmux]\nrows = """', "config.toml:2:11: "),
    ("[tmux]\nrows = 20\n rows = 30\n", "config.toml:3:2: rows is set a second time."),
    ("rows = 30\n", "config.toml:1:1: rows stands in no table."),
    ("[tmux]\n[tmux]\n", "config.toml:2:1: [tmux] stands there a second time."),
    ('[tmux]\nsocket = "x\n', "config.toml:2:12: The string does not end on its line."),
    ("\ufeff[tmux]\nrows = true\n", "config.toml:2:1: tmux.rows is a whole number"),
]


@pytest.mark.parametrize(("text", "said"), PLACED)
def test_a_mistake_has_line_and_column(tmp_path: Path, text: str, said: str) -> None:
    """Of syntax, of types, of names and of values: file:line:column begins the sentence."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert f"{tmp_path}/.config/mission-control/{said}" in caught.value.message


NAMES = st.sampled_from(["a", "b-c", "1", '"x y"', '"q=\\"]"', "'r.s'", "d", "e", "f"])
DOTTED = st.lists(NAMES, min_size=1, max_size=3).flatmap(
    lambda names: st.sampled_from([".", " . ", "\t."]).map(lambda dot: dot.join(names))
)
PLAIN = st.sampled_from(
    [
        "1", "true", "1979-05-27T07:32:00Z", '""', '"[a] # = 1"', "'\\'", '"\\" = {"', "'''\n]= '' x'''",
        '"""\n[x]\na = "1""\\""""', '"""a"""""', '"""\\\\"""',
    ]
)  # fmt: skip
VALUES = st.recursive(
    PLAIN,
    lambda inner: st.one_of(
        st.lists(inner).map(lambda found: f"[ # ]\n {', '.join(found)} ]"),
        st.tuples(DOTTED, inner).map(lambda pair: f"{{ {pair[0]} = {pair[1]} }}"),
    ),
    max_leaves=5,
)
LINES = st.one_of(
    DOTTED.map(lambda key: f" [ {key} ] # [b]"),
    DOTTED.map(lambda key: f"[[{key}]]"),
    st.tuples(DOTTED, VALUES).map(lambda pair: f"  {pair[0]} = {pair[1]} # x = 1"),
    st.sampled_from(["", "# a = 1", "\t"]),
)
NAME = re.compile(r"""[\w-]+|"(?:\\.|[^"\\])*"|'[^']*'""")


@given(st.lists(LINES, max_size=8).map("\n".join))
@settings(suppress_health_check=[HealthCheck.filter_too_much])
def test_whatever_is_toml_has_its_keys_found(text: str) -> None:
    """Where tomllib reads a text, each of its keys has a place, and it stands there."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        reject()
    found = config_file._Scan(text).keys

    def keys(table: dict[str, Any], above: config_file.Key = ()) -> Iterator[config_file.Key]:
        for key, value in table.items():
            yield (*above, key)
            inner = value if isinstance(value, list) else [value]
            while any(isinstance(one, list) for one in inner):
                inner = [x for one in inner for x in (one if isinstance(one, list) else [one])]
            for one in inner:
                if isinstance(one, dict):
                    yield from keys(one, (*above, key))

    assert set(keys(raw)) == set(found)
    for key, at in found.items():
        name = NAME.match(text, at)
        assert name is not None
        assert tomllib.loads(f"{name[0]} = 1") == {key[-1]: 1}


def test_not_utf8_is_said_with_its_place(tmp_path: Path) -> None:
    """A file in Latin-1 names the first byte that is not UTF-8."""
    load(tmp_path)
    path = tmp_path / ".config/mission-control/config.toml"
    path.write_bytes(b"[tmux]\n# \xe4\n")
    with pytest.raises(ConfigError, match=r"config\.toml:2:3: that is not UTF-8"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("folder", "cannot be read: Is a directory"),
        ("dangling", "leads to /nowhere/at/all, which is not there"),
        ("loop", "Too many levels of symbolic links"),
        ("pipe", "is no file"),
        ("zeros", ":1:1: "),
        ("huge", "is longer than 1048576 bytes"),
    ],
)
@pytest.mark.parametrize("name", ["config.toml", "conf.d/10.toml"])
def test_what_is_no_file_of_ours_is_an_error_and_no_default(
    tmp_path: Path, name: str, what: str, said: str
) -> None:
    """Settings that somebody meant to be in force are not left out in silence, and nothing waits."""
    path = tmp_path / ".config/mission-control" / name
    path.parent.mkdir(parents=True)
    if what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    elif what in {"dangling", "loop"}:
        path.symlink_to("/nowhere/at/all" if what == "dangling" else path)
    else:
        path.write_bytes(b"\0" * 100 if what == "zeros" else b"#" * ((1 << 20) + 1))
    with pytest.raises(ConfigError) as caught:
        load(tmp_path)
    assert caught.value.message.startswith(str(path))
    assert said in caught.value.message
    assert caught.value.hint


def test_a_file_in_the_place_of_conf_d_is_said(tmp_path: Path) -> None:
    """Not taken for none."""
    path = tmp_path / ".config/mission-control/conf.d"
    path.parent.mkdir(parents=True)
    path.write_text("[tmux]\n")
    with pytest.raises(ConfigError, match=r"conf\.d cannot be read: Not a directory"):
        load(tmp_path)


def drop_in(tmp_path: Path, name: str, text: str) -> None:
    """A file in conf.d."""
    folder = tmp_path / ".config/mission-control/conf.d"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")


def test_drop_ins_are_laid_over_the_file_by_name(tmp_path: Path) -> None:
    """Key by key, in lexical order; other names than *.toml are not read; the environment wins."""
    drop_in(tmp_path, "20.toml", '[tmux]\ncolumns = 20\n[drivers.a]\nbusy = ["b"]\n')
    drop_in(tmp_path, "10.toml", "[tmux]\ncolumns = 10\nrows = 10\n")
    drop_in(tmp_path, "30.toml~", "nonsense")
    drop_in(tmp_path, ".30.toml", "nonsense")
    text = '[tmux]\nsocket = "file"\nrows = 1\n[drivers.a]\ncommand = ["x"]\nready = ["r"]\n'
    config = load(tmp_path, text, MC_TMUX_ROWS="99")
    assert (config.tmux.socket, config.tmux.columns, config.tmux.rows) == ("file", 20, 99)
    assert (config.drivers["a"].command, config.drivers["a"].busy) == (("x",), ("b",))


def test_a_mistake_in_a_drop_in_is_one_although_it_is_laid_over(tmp_path: Path) -> None:
    """Each file has to be right by itself, and is named."""
    drop_in(tmp_path, "10.toml", "[tmux]\nrows = true\n")
    drop_in(tmp_path, "20.toml", "[tmux]\nrows = 3\n")
    with pytest.raises(ConfigError, match=r"conf\.d/10\.toml:2:1: tmux\.rows"):
        load(tmp_path)


def run_config(tmp_path: Path, *args: str, **environ: str) -> Result:
    """`ticketctl config …` in that home, nothing else in the environment."""
    env = {name: None for name in os.environ if name.startswith(("MC_", "XDG_"))}
    given: dict[str, str | None] = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": "/run/user/1"}
    return CliRunner().invoke(CONFIG[0], args, env={**env, **given, **environ})


def test_check_tells_all_mistakes_at_once(tmp_path: Path) -> None:
    """`config check` names each with its place, exits with 78, and says nothing on stdout."""
    (tmp_path / ".config/mission-control").mkdir(parents=True)
    path = tmp_path / ".config/mission-control/config.toml"
    path.write_text('[tmux]\nrows = "x"\nsoket = 1\n[gatway]\n[logs]\nkeep = -1\n')
    drop_in(tmp_path, "10.toml", "[tmux")
    done = run_config(tmp_path, "check", MC_TMUX_SOKET="x")
    assert (done.exit_code, done.stdout) == (78, "")
    for said in ("config.toml:2:1:", "config.toml:3:1:", "config.toml:4:2:", "config.toml:6:1:", "10.toml:1:6:",
                 "Did you mean socket?", "Did you mean gateway?", "Did you mean $MC_TMUX_SOCKET?"):  # fmt: skip
        assert said in done.stderr
    found = json.loads(run_config(tmp_path, "check", "--json").stdout)
    assert len(found["problems"]) == 5
    assert len(found["files"]) == 1
    with pytest.raises(ConfigError, match="4 more: ticketctl config check"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("line", "key"), [('ready = ["("]', "ready"), ('resume = ["{{ nobody }}"]', "resume"), ('conversation = "{{"', "conversation")]
)  # fmt: skip
def test_check_tries_patterns_and_templates_too(tmp_path: Path, line: str, key: str) -> None:
    """What a start would stumble over is told with its line; commands that need no driver go on."""
    folder = tmp_path / ".config/mission-control"
    folder.mkdir(parents=True)
    good = {"command": '["x"]', "ready": '["r"]', "busy": '["b"]'}
    text = "".join(f"{name} = {value}\n" for name, value in good.items() if name != key)
    (folder / "config.toml").write_text(f"[drivers.a]\n{line}\n{text}")
    done = run_config(tmp_path, "check")
    assert done.exit_code == 78
    assert f"config.toml:2:1: drivers.a.{key}" in done.stderr
    assert run_config(tmp_path, "show").exit_code == 0


def test_show_says_who_said_it_and_no_secret(tmp_path: Path) -> None:
    """`config show` has each key with its source; a password or token is nowhere in it."""
    (tmp_path / ".config/mission-control").mkdir(parents=True)
    path = tmp_path / ".config/mission-control/config.toml"
    path.write_text('[notify]\nntfy_token = "tk_secret1"\n')
    drop_in(tmp_path, "10.toml", '[database]\nurl = "postgresql://me:secret2@box/db"\n')
    assert run_config(tmp_path, "check").exit_code == 0
    done = run_config(tmp_path, "show", "--json", MC_TMUX_ROWS="7")
    said = {s["key"]: s for s in json.loads(done.stdout)}
    assert said["tmux.rows"] == {"key": "tmux.rows", "value": 7, "source": "$MC_TMUX_ROWS"}
    assert said["tmux.columns"]["source"] == "default"
    assert said["notify.ntfy_token"]["source"] == f"{path}:2:1"
    assert said["database.url"]["value"] == "postgresql://me:(hidden)@box/db"
    assert "secret" not in done.output
    changed = run_config(tmp_path, "show", "--changed").stdout.splitlines()
    assert [line.split("\t")[0] for line in changed] == ["database.url", "notify.ntfy_token"]


@pytest.mark.parametrize(
    "dsn",
    [
        "host=x password=secret dbname=y", "password = 'secret \\' secret' host=x", "PASSWORD=secret",
        "postgresql://u:secret@h/d", "postgresql:///d?user=u&password=secret&x=y",
        "postgresql://u:se:secret@h,i/d",
    ],
)  # fmt: skip
def test_no_password_of_a_database_is_shown(dsn: str) -> None:
    """In whatever form libpq takes it."""
    assert "secret" not in str(configuration.Setting("database", "url", dsn, "default").shown)
