"""The tables of config.toml: a frozen record for each, with the defaults.

The `#:` comment of a key is its line in docs/configuration.md and the man page (`reference.py`).
Out of scope: whether a value can be used (`config_checks.py`), and `[drivers.NAME]` (`driver_tables.py`).
"""

from __future__ import annotations

from dataclasses import dataclass


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
