"""Whether what config.toml says can be used: addresses, names, numbers, folders.

The sentence of each error begins with its key; the key's file and line are put before it by whoever read
them (`config_reading.py`). Types are right by then. Pure: nothing is looked up on the machine.
"""

from __future__ import annotations

import re
from pathlib import Path

from orchestrator.config_tables import (
    Archive,
    Backup,
    Gateway,
    Isolation,
    Logs,
    Notify,
    Tmux,
    Worktree,
)
from orchestrator.errors import ConfigError

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
MAX_SOCKET_PATH = 100  # sockaddr_un holds 108 bytes
_SOCKET_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)


def address_of(text: str) -> tuple[str, int] | Path:
    """Host and port, or the path of a Unix socket, out of `gateway.listen`.

    Raises:
        ConfigError: it is neither.
    """
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


def is_loopback(host: str) -> bool:
    """Whether nobody outside the machine reaches that address."""
    return host in {"127.0.0.1", "::1", "localhost"}


def check_gateway(gateway: Gateway) -> None:
    """Raises ConfigError for `[gateway]`: addresses, and who is believed."""
    address = address_of(gateway.listen)
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


def check_notify(notify: Notify) -> None:
    """Raises ConfigError for `[notify]`."""
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


def check_isolation(isolation: Isolation) -> None:
    """Raises ConfigError for `[isolation]`."""
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


def check_names(tmux: Tmux, worktree: Worktree) -> None:
    """Raises ConfigError for what tmux or git would refuse as a name."""
    if not _SOCKET_NAME.fullmatch(tmux.socket):
        raise ConfigError(
            f"tmux.socket: {tmux.socket!r} is no socket name.",
            hint="Letters, digits, dot, dash and underscore, as in `tmux -L name`.",
        )
    for key, template in (("path", worktree.path), ("branch", worktree.branch)):
        if not _TEMPLATE.fullmatch(template) or "{id}" not in template:
            raise ConfigError(
                f"worktree.{key}: {template!r} cannot be used.",
                hint="It holds {id}, and no other braces: one for each ticket.",
            )
    if not _BRANCH.fullmatch(worktree.branch.format(id=1)):
        raise ConfigError(
            f"worktree.branch: {worktree.branch!r} is no name of a branch.",
            hint="Letters, digits and ._/- as in ticket-{id}.",
        )


def check_numbers(worktree: Worktree, logs: Logs, archive: Archive, backup: Backup) -> None:
    """Raises ConfigError for a number that would keep nothing, or stop everything."""
    for name, number in (
        ("worktree.max_active", worktree.max_active), ("logs.keep", logs.keep),
        ("archive.max_files_mb", archive.max_files_mb),
        ("archive.idle_days", archive.idle_days), ("backup.keep", backup.keep),
    ):  # fmt: skip
        if not 1 <= number <= 1_000_000:
            raise ConfigError(f"{name}: {number} is out of range.", hint="1 or more.")


def check_folders(*folders: Path) -> None:
    """Raises ConfigError for folders of ours that tmux could not be told of."""
    for path in folders:
        if not path.is_absolute() or not _PLAIN_PATH.fullmatch(str(path)):
            raise ConfigError(
                f"{path} cannot be used: a folder of ours may hold only letters, digits and /._+@-",
                hint="Set XDG_STATE_HOME and XDG_RUNTIME_DIR to plain absolute paths.",
            )
