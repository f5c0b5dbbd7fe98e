"""What an entry point has to know: every setting in force, and every folder of the product.

Read once by each entry point with `load()`; everything else gets the frozen `Config`. The file is
`$XDG_CONFIG_HOME/mission-control/config.toml`, and over it `conf.d/*.toml` beside it; each key also
stands as `MC_<TABLE>_<KEY>` in the environment, which wins; `[drivers.NAME]` tables
(`driver_tables.py`) stand in files alone. The keys are in `config_tables.py`, their reading in
`config_reading.py`. Out of scope: what a ticket itself says (store) and what a unit says (units/ and its
drop-ins).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path

from orchestrator import config_file
from orchestrator.config_checks import (
    address_of,
    check_folders,
    check_gateway,
    check_isolation,
    check_names,
    check_notify,
    check_numbers,
)
from orchestrator.config_reading import Reading, placed
from orchestrator.config_tables import (
    TABLES,
    Archive,
    Backup,
    Claude,
    Database,
    Dispatch,
    Gateway,
    Heartbeat,
    Isolation,
    Logs,
    Notify,
    Reconcile,
    Tmux,
    Worktree,
)
from orchestrator.driver_tables import DriverTable, tables_from
from orchestrator.errors import ConfigError
from orchestrator.naming import TicketPaths

APP = "mission-control"
# in a URL, and in a DSN with or without quotes; compiled for those alone who show it
_UNSHOWN = r"((?<=://)[^:/@?\s]*:)[^@/]*(?=@)|(\bpassword\s*=\s*)(?:'(?:[^'\\]|\\.)*'|[^\s&]+)"
HIDDEN = "(hidden)"


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
        return address_of(self.gateway.listen)

    @property
    def gateway_url(self) -> str:
        """Where a browser finds the gateway: no slash at the end."""
        if self.gateway.origin:
            return self.gateway.origin
        by_socket = isinstance(self.listen_address, Path)  # then through ssh -L, at the usual port
        return f"http://{Gateway().listen if by_socket else self.gateway.listen}"


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
            return re.sub(
                _UNSHOWN, lambda m: f"{m[1] or m[2]}{HIDDEN}", self.value, flags=re.IGNORECASE
            )
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
        return placed(error, self.sources)


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
    reading = Reading()
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
    for check in (
        partial(check_gateway, config.gateway),
        partial(check_notify, config.notify),
        partial(check_isolation, config.isolation),
        partial(check_names, config.tmux, config.worktree),
        partial(check_numbers, config.worktree, config.logs, config.archive, config.backup),
        partial(check_folders, config.state_dir, config.runtime_dir),
    ):
        reading.guarded(check)
    settings = tuple(
        Setting(name, spec.name, getattr(getattr(config, name), spec.name),
                reading.sources.get((name, spec.name), "default"))
        for name, kind in TABLES.items() for spec in fields(kind)
    )  # fmt: skip
    return Resolved(
        config, settings, tuple(reading.files), tuple(reading.problems), tuple(reading.notes),
        reading.sources,
    )  # fmt: skip
