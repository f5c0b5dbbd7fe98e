"""Defaults, TOML and environment: every setting and every path of the product.

Read once by each entry point with `load()`; everything else gets the frozen `Config`. The file is
`$XDG_CONFIG_HOME/mission-control/config.toml`, and over it `conf.d/*.toml` beside it; each key also
stands as `MC_<TABLE>_<KEY>` in the environment, which wins; `[drivers.NAME]` tables
(`driver_tables.py`) stand in files alone. The comment of a key here is its line in
docs/configuration.md and the man page. Out of scope: what a ticket itself says (store) and what a unit
says (units/ and its drop-ins).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from orchestrator import config_file
from orchestrator.driver_tables import DriverTable, refuse_unknown, tables_from
from orchestrator.errors import ConfigError, InvalidInput

T = TypeVar("T")
APP = "mission-control"
MAX_TICKET = 999_999_999
AGENT_FOLDER = "agent"  # beside a ticket's sidecar
_ID = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)
# tmux runs pipe-pane's command through strftime, its own formats and a shell: a path of ours goes
# in there, so it may hold only what means nothing to any of the three.
_PLAIN_PATH = re.compile(r"[A-Za-z0-9/._+@-]+", re.ASCII)
_TEMPLATE = re.compile(r"([^{}\0\n]|\{id\})+")
_BRANCH = re.compile(r"[A-Za-z0-9]+([._/-][A-Za-z0-9]+)*", re.ASCII)
_ORIGIN = re.compile(r"https://[a-z0-9]+([.-][a-z0-9]+)*(:[1-9][0-9]{0,4})?", re.ASCII)
ISOLATION_MODES = ("auto", "workspace", "off")
NETWORKS = ("full", "loopback", "none")
_LOOPBACK = ("127.0.0.1", "[::1]", "localhost")
_NUMERIC = re.compile(r"[0-9]{1,3}(\.[0-9]{1,3}){3}|\[[0-9a-f:.]{2,45}\]", re.ASCII)
_URL = re.compile(r"https?://[!-.0-~]+(/[!-~]+)*/?", re.ASCII)
_TOKEN = re.compile(r"[!-~]*", re.ASCII)
# in a URL, and in a DSN with or without quotes
_PASSWORD = re.compile(
    r"((?<=://)[^:/@?\s]*:)[^@/]*(?=@)|(\bpassword\s*=\s*)(?:'(?:[^'\\]|\\.)*'|[^\s&]+)",
    re.IGNORECASE,
)
HIDDEN = "(hidden)"
MAX_SOCKET_PATH = 100  # sockaddr_un holds 108 bytes
_SOCKET_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)


def ticket_id(text: str) -> int:
    """The one place where text becomes a ticket's number.

    Args:
        text: ASCII decimal, 1 to 999999999, without sign, blanks or leading zeros.

    Raises:
        InvalidInput: anything else.
    """
    if not _ID.fullmatch(text):
        shown = text if text.isascii() and text.isprintable() and len(text) <= 40 else "that"
        raise InvalidInput(
            f"{shown!r} is no ticket number.", hint="Ticket numbers are 1 to 999999999."
        )
    return int(text)


@dataclass(frozen=True, slots=True)
class TicketPaths:
    """Where one ticket's files are. All of them are ours; folders 0700, files 0600."""

    folder: Path  #: $XDG_STATE_HOME/mission-control/tickets/N
    runtime: Path  #: $XDG_RUNTIME_DIR/mission-control/ticket-N; gone after a reboot

    @property
    def pane_log_path(self) -> Path:
        """Every byte the pane printed."""
        return self.folder / "pane.log"

    @property
    def sidecar_path(self) -> Path:
        """JSON lines: what the worker did."""
        return self.folder / "sidecar.jsonl"

    @property
    def agent_folder(self) -> Path:
        """What the agent itself writes beside its sidecar: what it is doing."""
        return self.folder / AGENT_FOLDER

    @property
    def claude_folder(self) -> Path:
        """Claude Code's own folder of a ticket that is isolated."""
        return self.folder / "claude"

    @property
    def cache_folder(self) -> Path:
        """What an isolated agent sees as ~/.cache."""
        return self.folder / "cache"

    @property
    def worker_path(self) -> Path:
        """What the launcher wrote down of the running worker (`worker_record.py`)."""
        return self.folder / "worker.json"

    @property
    def settings_path(self) -> Path:
        """What the driver gives its agent to read."""
        return self.folder / "settings.json"

    @property
    def ending_path(self) -> Path:
        """How the worker ended, where the database was away at that time."""
        return self.folder / "ending.json"

    @property
    def chat_folder(self) -> Path:
        """Where a ticket without a repository works."""
        return self.folder / "work"

    @property
    def writer_path(self) -> Path:
        """Which process writes the pane log, by its own word (`pipes.py`); no agent sees it."""
        return self.runtime.parent / "writers" / self.folder.name

    @property
    def run_script_path(self) -> Path:
        """What the pane executes; it removes itself before the agent is exec'd."""
        return self.runtime / "run.sh"


@dataclass(frozen=True, slots=True)
class Gateway:
    """`[gateway]`: where the browser finds us."""

    #: address:port on loopback, or the absolute path of a Unix socket; any other address is refused
    #: unless `origin` says who ends TLS in front of it
    listen: str = "127.0.0.1:3001"
    #: what browsers see through a proxy, "https://mc.example.org"; empty: the address itself
    origin: str = ""
    #: whose `X-Forwarded-For`, `-Host` and `-Proto` are believed: addresses, networks as "10.0.0.0/8", or
    #: "unix" for whoever reaches the socket
    trusted_proxies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Tmux:
    """`[tmux]`: the one server that holds every session."""

    socket: str = "default"  #: as in `tmux -L`; this one is what plain `tmux attach` uses
    columns: int = 160  #: of a new session, until somebody attaches
    rows: int = 48  #: the same


@dataclass(frozen=True, slots=True)
class Database:
    """`[database]`: where it is."""

    url: str = ""  #: libpq URL or DSN; empty means the embedded cluster


@dataclass(frozen=True, slots=True)
class Worktree:
    """`[worktree]`: where a code ticket works. `{id}` is the ticket's number."""

    path: str = "../wt/ticket-{id}"  #: from the repository's top folder
    branch: str = "ticket-{id}"  #: made with it, and kept
    setup: str = ""  #: a shell command, run in a fresh worktree before the agent, in its pane
    max_active: int = 10  #: worktrees at once; the next start asks to close one
    #: names of ignored files and folders that can be made again, and are not kept on close
    disposable: tuple[str, ...] = (
        "node_modules", "__pycache__", ".venv", ".mypy_cache", ".pytest_cache", ".ruff_cache",
        ".tox", ".gradle", ".next", ".turbo",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Archive:
    """`[archive]`: what is kept of a ticket that was closed."""

    folder: str = ""  #: empty: archive/ beside the tickets' own files
    max_files_mb: int = 200  #: of ignored files of a worktree; past it closing asks first
    idle_days: int = 14  #: `ticketctl gc` closes tickets that were quiet for as long


@dataclass(frozen=True, slots=True)
class Backup:
    """`[backup]`: of the embedded database, each night."""

    folder: str = ""  #: empty: backups/ beside the tickets' own files
    keep: int = 7  #: one a night


@dataclass(frozen=True, slots=True)
class Logs:
    """`[logs]`: pane logs, rotated daily."""

    keep: int = 7  #: days of pane logs, beside the one that is written
    compress: bool = True  #: those of the days before
    warn_mb: int = 1024  #: of one pane log: the heartbeat warns


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """`[heartbeat]`: what is worth a warning."""

    stuck_minutes: int = 30  #: busy without a sign of life
    queue_minutes: int = 15  #: a message that nobody took
    disk_free_mb: int = 1024  #: less than that where the state is
    restarts_an_hour: int = 10  #: of one ticket's worker; more than that, and it is told


@dataclass(frozen=True, slots=True)
class Claude:
    """`[claude]`: how Claude Code is run."""

    command: str = "claude"  #: a name on PATH or an absolute path
    args: tuple[str, ...] = ()  #: put before ours


@dataclass(frozen=True, slots=True)
class Dispatch:
    """`[dispatch]`: how queued messages are sent."""

    joined: bool = False  #: what waits during a turn goes as one message instead of one a turn


@dataclass(frozen=True, slots=True)
class Reconcile:
    """`[reconcile]`: bringing tickets back."""

    at_once: int = 3  #: starts under way at a time, at boot and after a crash


@dataclass(frozen=True, slots=True)
class Notify:
    """`[notify]`: who is told that a ticket waits for a person."""

    command: tuple[
        str, ...
    ] = ()  #: run without a shell; the ticket comes as variables and on stdin
    ntfy_url: str = ""  #: of a topic, "https://ntfy.sh/my-topic"; gets a POST
    ntfy_token: str = ""  #: for a topic that wants one
    after_s: int = 5  #: a wait that is shorter is nobody's business


@dataclass(frozen=True, slots=True)
class Isolation:
    """`[isolation]`: what an agent can reach of this machine. Paths may begin with ~/."""

    mode: str = "auto"  #: workspace, off, or auto: workspace where bubblewrap works
    off_for: tuple[str, ...] = ()  #: drivers that run without it
    network: str = "full"  #: full, loopback (one of its own, nothing beyond it) or none
    caches: tuple[str, ...] = ()  #: folders that all tickets share; made when they are not there
    read_write: tuple[str, ...] = ()  #: what else an agent may change
    read_only: tuple[str, ...] = ()  #: what it may read although it is hidden by default
    hide: tuple[str, ...] = ()  #: what else it may not read


@dataclass(frozen=True, slots=True)
class Config:
    """Everything an entry point needs to know; made by `load()`."""

    gateway: Gateway = field(default_factory=Gateway)
    tmux: Tmux = field(default_factory=Tmux)
    database: Database = field(default_factory=Database)
    worktree: Worktree = field(default_factory=Worktree)
    archive: Archive = field(default_factory=Archive)
    backup: Backup = field(default_factory=Backup)
    logs: Logs = field(default_factory=Logs)
    heartbeat: Heartbeat = field(default_factory=Heartbeat)
    claude: Claude = field(default_factory=Claude)
    dispatch: Dispatch = field(default_factory=Dispatch)
    reconcile: Reconcile = field(default_factory=Reconcile)
    notify: Notify = field(default_factory=Notify)
    drivers: Mapping[str, DriverTable] = field(default_factory=dict)  #: by name
    isolation: Isolation = field(default_factory=Isolation)
    config_dir: Path = Path()
    state_dir: Path = Path()
    data_dir: Path = Path()
    runtime_dir: Path = Path()

    def ticket_paths(self, ticket: int) -> TicketPaths:
        """The files of ticket `ticket`; nothing is made."""
        return TicketPaths(
            folder=self.state_dir / "tickets" / str(ticket),
            runtime=self.runtime_dir / f"ticket-{ticket}",
        )

    @property
    def token_path(self) -> Path:
        """The bearer token of programs that speak to the gateway; 0600."""
        return self.state_dir / "token"

    @property
    def agent_env_path(self) -> Path:
        """Variables for all agents, keys among them; ticket@.service says it in so many words."""
        return self.config_dir / "agent.env"

    @property
    def archive_dir(self) -> Path:
        """Where archives of closed tickets go."""
        chosen = self.archive.folder
        return Path(chosen).expanduser() if chosen else self.state_dir / "archive"

    @property
    def backup_dir(self) -> Path:
        """Where backups of the embedded database go."""
        chosen = self.backup.folder
        return Path(chosen).expanduser() if chosen else self.state_dir / "backups"

    def worktree_of(self, repo: Path, ticket: int) -> tuple[Path, str]:
        """Path and branch of a ticket's worktree, by the templates."""
        path = os.path.normpath(repo / self.worktree.path.format(id=ticket))
        return Path(path), self.worktree.branch.format(id=ticket)

    @property
    def database_dsn(self) -> str:
        """What libpq is given; the embedded cluster listens on a Unix socket only."""
        return self.database.url or f"host={self.runtime_dir}/postgres dbname=mission_control"

    @property
    def listen_address(self) -> tuple[str, int] | Path:
        """Host and port of the gateway, or its Unix socket; checked at load."""
        return _address(self.gateway.listen)

    @property
    def gateway_url(self) -> str:
        """Where a browser finds the gateway: no slash at the end."""
        if self.gateway.origin:
            return self.gateway.origin
        by_socket = isinstance(self.listen_address, Path)  # then through ssh -L, at the usual port
        return f"http://{Gateway().listen if by_socket else self.gateway.listen}"


def ensure_agent_folder(sidecar_path: Path) -> Path:
    """`TicketPaths.agent_folder`, on the side of an agent that is told of its sidecar alone."""
    folder = sidecar_path.parent / AGENT_FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def session_name(ticket: int) -> str:
    """The tmux session of a ticket."""
    return f"ticket-{ticket}"


def unit_name(ticket: int) -> str:
    """The systemd unit of a ticket."""
    return f"ticket@{ticket}.service"


def share_path(*parts: str) -> Path:
    """A file that comes with the product (units/, templates/), in a wheel or in a checkout."""
    installed = Path(__file__).parent / "share"
    root = installed if installed.is_dir() else Path(__file__).parent.parent
    return root.joinpath(*parts)


@dataclass(frozen=True, slots=True)
class Setting:
    """One key: what is in force, and who said so."""

    table: str
    key: str
    value: object
    source: str  #: default, `file:line:column`, or `$MC_…`

    @property
    def shown(self) -> object:
        """The value, for eyes: without passwords and tokens."""
        if isinstance(self.value, str) and self.value:
            if self.key.endswith("token"):
                return HIDDEN
            return _PASSWORD.sub(lambda m: f"{m[1] or m[2]}{HIDDEN}", self.value)
        return self.value


@dataclass(frozen=True, slots=True)
class Resolved:
    """All that was read. With problems, what they are about has its default here."""

    config: Config
    settings: tuple[Setting, ...]  #: in the order of the reference; [drivers.NAME] not among them
    files: tuple[Path, ...]  #: those that were there
    problems: tuple[ConfigError, ...]  #: each with file, line and column
    notes: tuple[str, ...]  #: what is probably meant otherwise
    sources: Mapping[tuple[str, ...], str]  #: who said each key, those of [drivers.NAME] too

    def placed(self, error: ConfigError) -> ConfigError:
        """What somebody else found wrong with a key, with the key's place."""
        return _placed(error, self.sources)


def load(environ: Mapping[str, str] | None = None) -> Config:
    """Reads the files and the environment.

    Raises:
        ConfigError: with file, line, key and what to write instead.
    """
    found = resolve(environ)
    if len(found.problems) > 1:
        first, more = found.problems[0], len(found.problems) - 1
        raise ConfigError(
            first.message, hint=f"{first.hint} {more} more: ticketctl config check".strip()
        )
    if found.problems:
        raise found.problems[0]
    return found.config


def resolve(environ: Mapping[str, str] | None = None) -> Resolved:
    """Reads the files and the environment, and what is wrong in them, all of it."""
    env = os.environ if environ is None else environ
    home = Path(env.get("HOME") or Path.home())
    config_dir = Path(env.get("XDG_CONFIG_HOME") or home / ".config") / APP
    runtime = env.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    reading = _Reading()
    for path in reading.guarded(lambda: config_file.files_of(config_dir)) or ():
        reading.guarded(partial(reading.take, path))
    reading.take_environment(env)
    config = Config(
        **{name: kind(**reading.values[name]) for name, kind in TABLES.items()},
        drivers=reading.guarded(lambda: tables_from(reading.where, reading.drivers)) or {},
        config_dir=config_dir,
        state_dir=Path(env.get("XDG_STATE_HOME") or home / ".local/state") / APP,
        # The units say %h/.local/share in so many words, whatever XDG_DATA_HOME is.
        data_dir=home / ".local/share" / APP,
        runtime_dir=Path(runtime) / APP,
    )
    for check in (_check_gateway, _check_notify, _check_isolation, _check_names, _check_numbers,
                  _check_folders):  # fmt: skip
        reading.guarded(partial(check, config))
    settings = tuple(
        Setting(name, spec.name, getattr(getattr(config, name), spec.name),
                reading.sources.get((name, spec.name), "default"))
        for name, kind in TABLES.items() for spec in fields(kind)
    )  # fmt: skip
    return Resolved(
        config, settings, tuple(reading.files), tuple(reading.problems), tuple(reading.notes),
        reading.sources,
    )  # fmt: skip


#: every table but [drivers.NAME], in the order of the reference
TABLES: dict[str, type] = {
    "gateway": Gateway,
    "tmux": Tmux,
    "database": Database,
    "worktree": Worktree,
    "archive": Archive,
    "backup": Backup,
    "logs": Logs,
    "heartbeat": Heartbeat,
    "claude": Claude,
    "dispatch": Dispatch,
    "reconcile": Reconcile,
    "notify": Notify,
    "isolation": Isolation,
}


class _Reading:
    """What was read up to now: later files and the environment lay theirs over it."""

    def __init__(self) -> None:
        self.values: dict[str, dict[str, Any]] = {name: {} for name in TABLES}
        self.sources: dict[tuple[str, ...], str] = {}
        self.drivers: dict[str, Any] = {}
        self.files: list[Path] = []
        self.problems: list[ConfigError] = []
        self.notes: list[str] = []

    def guarded(self, act: Callable[[], T]) -> T | None:
        """What `act` returns; a mistake is noted, and said with its place."""
        try:
            return act()
        except ConfigError as error:
            self.problems.append(_placed(error, self.sources))
        return None

    def where(self, *key: str) -> str:
        """The place of a key of [drivers] that was taken, with its name."""
        places = (self.sources.get(key[:length]) for length in range(len(key), 0, -1))
        place = next((p for p in places if p), "")
        return f"{place}: {'.'.join(key)}" if place else ".".join(key)

    def take(self, path: Path) -> None:
        """Lays a file over what was read before; what is wrong in it is left out.

        Raises:
            ConfigError: nothing of it can be read.
        """
        file = config_file.read(path)
        if file is None:
            return
        self.files.append(file.path)
        for name, raw in file.raw.items():
            where = file.where(name)
            if not self._is_known(where, "table", name, {*TABLES, "drivers"}):
                continue
            if not isinstance(raw, Mapping):
                hint = "Write [drivers.NAME]." if name == "drivers" else f"Write [{name}]."
                self.problems.append(ConfigError(f"{where}: {name} is a table.", hint=hint))
            elif name == "drivers":
                self._take_drivers(file, raw)
            else:
                self._take_table(file, name, raw)

    def _take_table(self, file: config_file.File, name: str, raw: Mapping[str, Any]) -> None:
        known = {f.name for f in fields(TABLES[name])}
        for key, value in raw.items():
            where = file.where(name, key)
            if self._is_known(where, f"key of [{name}]", key, known):
                self._take_value(name, key, value, where, f"{where}: {name}.{key}")

    def _is_known(self, where: str, what: str, name: str, known: set[str]) -> bool:
        self.guarded(partial(refuse_unknown, where, what, {name}, known))
        return name in known

    def _take_drivers(self, file: config_file.File, raw: Mapping[str, Any]) -> None:
        for key in file.places:
            if key[0] == "drivers":
                self.sources[key] = file.where(*key)
        for name, table in raw.items():
            there = self.drivers.get(name)
            both = isinstance(table, Mapping) and isinstance(there, Mapping)
            self.drivers[name] = {**(there or {}), **table} if both else table

    def take_environment(self, env: Mapping[str, str]) -> None:
        """Lays `MC_<TABLE>_<KEY>` over the files."""
        known = {
            f"MC_{name}_{spec.name}".upper(): (name, spec.name, spec.default)
            for name, kind in TABLES.items() for spec in fields(kind)
        }  # fmt: skip
        for variable in sorted(known.keys() & env.keys()):
            name, key, default = known[variable]
            value = _from_text(env[variable], default)
            self._take_value(name, key, value, f"${variable}", f"${variable}")
        tables = tuple(f"MC_{name}_".upper() for name in TABLES)
        for variable in sorted(env.keys() - known.keys()):
            if variable.startswith(tables):
                import difflib  # noqa: PLC0415  # for a mistake alone: ticketctl list has to be quick

                near = difflib.get_close_matches(variable, known, n=1)
                meant = f" Did you mean ${near[0]}?" if near else ""
                self.notes.append(f"${variable} is no key, and does nothing.{meant}")

    def _take_value(self, table: str, key: str, value: object, source: str, where: str) -> None:
        default = next(f.default for f in fields(TABLES[table]) if f.name == key)
        said = f"{value!r:.60}"
        if isinstance(default, tuple):
            if not isinstance(value, list | tuple) or not all(isinstance(v, str) for v in value):
                hint = f'Write {key} = ["…"].'
                self.problems.append(ConfigError(f"{where} is a list of strings.", hint=hint))
                return
            value = tuple(value)
        elif type(value) is not type(default):
            what = f"{where} is {_ARTICLE[type(default)]}, as in {as_toml(default)}."
            self.problems.append(ConfigError(what, hint=f"It says {said}, of another type."))
            return
        self.values[table][key] = value
        self.sources[(table, key)] = source


def _placed(error: ConfigError, sources: Mapping[tuple[str, ...], str]) -> ConfigError:
    """The sentence of a check begins with its key: the key's place goes before it."""
    key = tuple(error.message.partition(" ")[0].rstrip(":").split("."))
    place = f"{sources[key]}: " if key in sources else ""
    return ConfigError(place + error.message, hint=error.hint)


def as_toml(value: object) -> str:
    """A default as it would be written."""
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value, ensure_ascii=False)


_ARTICLE = {str: "a string", int: "a whole number", bool: "true or false"}


def _from_text(text: str, default: object) -> object:
    if isinstance(default, bool):
        return {"1": True, "true": True, "0": False, "false": False}.get(text.lower(), text)
    if isinstance(default, int):
        return int(text) if text.isascii() and text.isdigit() else text
    if isinstance(default, tuple):
        return text.split()
    return text


def _address(text: str) -> tuple[str, int] | Path:
    if text.startswith("/"):
        if not _PLAIN_PATH.fullmatch(text) or len(text) > MAX_SOCKET_PATH:
            raise ConfigError(
                f"gateway.listen: {text!r} is no path for a socket.",
                hint=f"At most {MAX_SOCKET_PATH} letters, digits and /._+@-",
            )
        return Path(text)
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ConfigError(f"gateway.listen: {text!r} has no port.", hint="Write 127.0.0.1:3001.")
    if host not in _LOOPBACK and not _NUMERIC.fullmatch(host):
        raise ConfigError(
            f"gateway.listen: {text!r} is not on loopback, nor an address.",
            hint="Write 127.0.0.1:3001.",
        )
    return host.strip("[]"), int(port)


def _check_gateway(config: Config) -> None:
    gateway = config.gateway
    address = _address(gateway.listen)
    if gateway.origin and not _ORIGIN.fullmatch(gateway.origin):
        raise ConfigError(
            f"gateway.origin: {gateway.origin!r} is not where a proxy serves HTTPS.",
            hint="Write https://mc.example.org, in lower case, without a path.",
        )
    for proxy in gateway.trusted_proxies:
        _check_proxy(proxy)
    if isinstance(address, tuple) and not is_loopback(address[0]) and not gateway.origin:
        raise ConfigError(
            f"gateway.listen: {gateway.listen!r} is not on loopback.",
            hint="Write 127.0.0.1:PORT and use ssh -L 3001:127.0.0.1:3001 from elsewhere, or say in"
            " gateway.origin where a proxy of yours serves it over TLS.",
        )


def _check_proxy(text: str) -> None:
    from ipaddress import ip_network  # noqa: PLC0415  # nobody needs it who trusts no proxy

    try:
        everybody = text != "unix" and ip_network(text).prefixlen == 0
    except ValueError as error:
        raise ConfigError(
            f"gateway.trusted_proxies: {error}.",
            hint="Write an address, 10.0.0.5, a network, 10.0.0.0/8, or unix.",
        ) from None
    if everybody:
        raise ConfigError(
            f"gateway.trusted_proxies: {text} is everybody, who could then say to be anybody.",
            hint="Write the address of your proxy.",
        )


def is_loopback(host: str) -> bool:
    """Whether nobody outside the machine reaches that address."""
    return host in {"127.0.0.1", "::1", "localhost"}


def _check_notify(config: Config) -> None:
    notify = config.notify
    if notify.ntfy_url and not _URL.fullmatch(notify.ntfy_url):
        raise ConfigError(
            "notify.ntfy_url is no address of a topic.", hint="Write https://ntfy.sh/my-topic."
        )
    if not _TOKEN.fullmatch(notify.ntfy_token):
        raise ConfigError("notify.ntfy_token holds something that is in no token.")
    if notify.command and not notify.command[0]:
        raise ConfigError("notify.command names no program.", hint='Write ["/path/to/program"].')
    if not 0 <= notify.after_s <= 86_400:
        raise ConfigError("notify.after_s is out of range.", hint="Seconds, up to a day.")


def _check_isolation(config: Config) -> None:
    isolation = config.isolation
    for key, value, known in (
        ("mode", isolation.mode, ISOLATION_MODES),
        ("network", isolation.network, NETWORKS),
    ):
        if value not in known:
            raise ConfigError(
                f"isolation.{key}: {value!r} is none of {', '.join(known)}.",
                hint=f'Write {key} = "{known[0]}".',
            )
    for key in ("caches", "read_write", "read_only", "hide"):
        for path in getattr(isolation, key):
            if not path.startswith(("/", "~/")) or "\0" in path or ".." in path.split("/"):
                raise ConfigError(
                    f"isolation.{key}: {path!r} is no absolute path.",
                    hint="It begins with / or ~/, and has no .. in it.",
                )


def _check_names(config: Config) -> None:
    if not _SOCKET_NAME.fullmatch(config.tmux.socket):
        raise ConfigError(
            f"tmux.socket: {config.tmux.socket!r} is no socket name.",
            hint="Letters, digits, dot, dash and underscore, as in `tmux -L name`.",
        )
    for key, template in (("path", config.worktree.path), ("branch", config.worktree.branch)):
        if not _TEMPLATE.fullmatch(template) or "{id}" not in template:
            raise ConfigError(
                f"worktree.{key}: {template!r} cannot be used.",
                hint="It holds {id}, and no other braces: one for each ticket.",
            )
    if not _BRANCH.fullmatch(config.worktree.branch.format(id=1)):
        raise ConfigError(
            f"worktree.branch: {config.worktree.branch!r} is no name of a branch.",
            hint="Letters, digits and ._/- as in ticket-{id}.",
        )


def _check_numbers(config: Config) -> None:
    for name, number in (
        ("worktree.max_active", config.worktree.max_active), ("logs.keep", config.logs.keep),
        ("archive.max_files_mb", config.archive.max_files_mb),
        ("archive.idle_days", config.archive.idle_days), ("backup.keep", config.backup.keep),
    ):  # fmt: skip
        if not 1 <= number <= 1_000_000:
            raise ConfigError(f"{name}: {number} is out of range.", hint="1 or more.")


def _check_folders(config: Config) -> None:
    for path in (config.state_dir, config.runtime_dir):
        if not path.is_absolute() or not _PLAIN_PATH.fullmatch(str(path)):
            raise ConfigError(
                f"{path} cannot be used: a folder of ours may hold only letters, digits and /._+@-",
                hint="Set XDG_STATE_HOME and XDG_RUNTIME_DIR to plain absolute paths.",
            )
