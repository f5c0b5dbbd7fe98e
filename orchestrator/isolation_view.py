"""What an isolated agent sees of this machine, as the arguments of bubblewrap.

Beside the way from UNIT to SESSION: the launcher puts these before the agent. One rule a path, and
the deepest rule that fits counts: so a folder may be hidden and one file of it shown. Everything
without a rule can be read. It looks at what is there, and changes nothing. What of a repository is
writable is `isolation_git.py`'s to say.

Terminal: there is no --new-session. The agent keeps the pane's terminal as its controlling one, or
it would learn of no resize and have no job control. What TIOCSTI pushes into a terminal is read by
whoever reads that terminal next, and of a pane that is the agent alone: bubblewrap reads nothing,
and no shell comes back after it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from orchestrator.config import Config
from orchestrator.naming import TicketPaths

REQUESTS = "requests"  # of the runtime folder, as in permits.py
INFO_FD = 8  #: where bubblewrap says the pid of the sandbox's first process
MAX_RULES = 2500  # bubblewrap takes 9,000 arguments
#: in the home: keys, and what opens other doors
KEYS = (
    ".ssh", ".gnupg", ".aws", ".azure", ".kube", ".docker", ".config/gh", ".config/glab-cli",
    ".config/gcloud", ".config/op", ".config/sops", ".config/rclone", ".config/containers",
    ".password-store", ".local/share/keyrings", ".local/share/containers", ".netrc", ".pgpass",
    ".git-credentials", ".config/git/credentials", ".pypirc", ".vault-token", ".terraform.d",
    ".mozilla", ".config/google-chrome", ".config/chromium", ".bash_history", ".zsh_history",
    ".psql_history", ".python_history", ".node_repl_history",
)  # fmt: skip
#: Claude Code's: what it remembers of the operator's other work, and its login. A ticket has its own.
CLAUDE = (
    ".claude.json", ".claude/.credentials.json", ".claude/.claude.json", ".claude/projects",
    ".claude/history.jsonl", ".claude/sessions", ".claude/todos", ".claude/tasks", ".claude/debug",
    ".claude/file-history", ".claude/shell-snapshots", ".claude/paste-cache", ".claude/backups",
)  # fmt: skip
#: Sockets that stand for root, to those who may use them.
DOORS = ("/var/lib/lxd", "/var/lib/incus", "/var/snap/lxd", "/var/lib/libvirt")
#: Of /run, which is hidden: how names are resolved.
RESOLVERS = (
    "/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager/resolv.conf", "/run/nscd",
    "/run/current-system",
)  # fmt: skip
#: Ways to what is hidden.
NOT_INSIDE = (
    "SSH_AUTH_SOCK", "SSH_AGENT_PID", "GPG_AGENT_INFO", "DBUS_SESSION_BUS_ADDRESS", "DISPLAY",
    "WAYLAND_DISPLAY", "XAUTHORITY",
)  # fmt: skip
#: No keys, so nothing is signed; and the packed objects are not the agent's to pack again.
GIT = {
    "commit.gpgSign": "false",
    "tag.gpgSign": "false",
    "gc.auto": "0",
    "maintenance.auto": "false",
}

Kind = Literal["read", "write", "hide", "scratch", "runtime"]


@dataclass(frozen=True, slots=True)
class Rule:
    """What is to be seen at a path."""

    path: Path
    kind: Kind
    source: Path | None = None  #: what is shown there instead of itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Everything that decides what an agent sees."""

    config: Config
    paths: TicketPaths
    cwd: Path
    home: Path
    cache: Path  #: where the agent's programs look for their cache
    network: str  #: full, loopback, none
    writable: tuple[Path, ...] = ()  #: of the driver, beside the ticket's own
    readable: tuple[Path, ...] = ()
    hidden: tuple[Path, ...] = ()  #: other tickets' worktrees
    git: tuple[Rule, ...] = ()


def arguments(scene: Scene) -> list[str]:
    """What bubblewrap is given before the agent's command line."""
    rules: dict[Path, Rule] = {}
    for rule in (*_hidden(scene), *scene.git, *_own(scene), *_configured(scene)):
        if (seen := _at(rule)) is not None:
            rules[seen.path] = seen
    ordered = sorted(rules.values(), key=lambda rule: len(rule.path.parts))[:MAX_RULES]
    argv = [
        "--unshare-user", "--unshare-pid", "--unshare-ipc", "--die-with-parent",
        "--info-fd", str(INFO_FD), "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc",
    ]  # fmt: skip
    if scene.network != "full":
        argv.append("--unshare-net")
    for rule in ordered:
        argv += _mount(rule)
    for rule in ordered:
        if rule.kind == "runtime" or (rule.kind == "hide" and not rule.path.is_file()):
            argv += ["--remount-ro", str(rule.path)]
    return [*argv, "--chdir", str(scene.cwd)]


def command(scene: Scene, argv: Iterable[str]) -> list[str]:
    """The agent's command line as it is run inside."""
    # bubblewrap brings a loopback up in the network it makes; one made in there has none
    without = ["unshare", "--map-current-user", "--net", "--"] if scene.network == "none" else []
    return [*without, *argv]


def environ(scene: Scene, given: Mapping[str, str]) -> dict[str, str]:
    """The agent's environment: without ways to what is hidden, with caches where it can write."""
    found = {k: v for k, v in given.items() if k not in NOT_INSIDE}
    found.setdefault("npm_config_cache", str(scene.cache / "npm"))
    found.setdefault("GOMODCACHE", str(scene.cache / "go/mod"))
    found.setdefault("GOFLAGS", "-modcacherw")  # or nobody could remove it
    count = (
        int(found.get("GIT_CONFIG_COUNT", "0"))
        if found.get("GIT_CONFIG_COUNT", "0").isdigit()
        else 0
    )
    for number, (key, value) in enumerate(GIT.items(), count):
        found |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return found | {"GIT_CONFIG_COUNT": str(count + len(GIT))}


def _hidden(scene: Scene) -> Iterator[Rule]:
    config = scene.config
    yield from (Rule(Path(path), "scratch") for path in ("/tmp", "/var/tmp"))  # noqa: S108
    yield Rule(Path("/run"), "runtime")
    yield from (Rule(Path(path), "read") for path in RESOLVERS)
    yield from (Rule(scene.home / name, "hide") for name in (*KEYS, *CLAUDE))
    yield from (Rule(Path(path), "hide") for path in DOORS)
    ours = (config.state_dir, config.config_dir, config.archive_dir, config.runtime_dir.parent)
    yield from (Rule(path, "runtime" if path == ours[-1] else "hide") for path in ours)
    yield from (Rule(path, "hide") for path in scene.hidden)


def _own(scene: Scene) -> Iterator[Rule]:
    """The ticket's own: the way out of the sidecar, and what it works on."""
    paths = scene.paths
    yield Rule(scene.cwd, "write")
    yield from (
        Rule(path, "write")
        # each a mount of its own: what is one cannot be replaced by a link from inside
        for path in (
            paths.agent_folder,
            paths.sidecar_path,
            paths.runtime,
            paths.runtime / REQUESTS,
        )
    )
    yield Rule(paths.settings_path, "read")
    yield Rule(scene.cache, "write", paths.cache_folder)
    yield from (Rule(path, "write") for path in scene.writable)
    yield from (Rule(path, "read") for path in scene.readable)


def _configured(scene: Scene) -> Iterator[Rule]:
    settings = scene.config.isolation

    def each(listed: Iterable[str], kind: Kind) -> Iterator[Rule]:
        for path in listed:
            tail = path.removeprefix("~/")
            yield Rule(scene.home / tail if tail != path else Path(path), kind)

    yield from each((*settings.caches, *settings.read_write), "write")
    yield from each(settings.read_only, "read")
    yield from each(settings.hide, "hide")


def _at(rule: Rule) -> Rule | None:
    """The rule at the place itself, where a link led to it; None where there is nothing."""
    path = Path(os.path.realpath(rule.path))
    if not path.exists() or path == Path("/"):
        return None
    return Rule(path, rule.kind, rule.source)


def _mount(rule: Rule) -> list[str]:
    path, source = str(rule.path), str(rule.source or rule.path)
    if rule.kind == "hide" and rule.path.is_file():
        return ["--ro-bind", "/dev/null", path]  # a device on a mount that allows none: no access
    if rule.kind == "hide":
        return ["--perms", "0100", "--tmpfs", path]
    if rule.kind == "scratch":
        return ["--perms", "1777", "--tmpfs", path]
    if rule.kind == "runtime":
        return ["--perms", "0755", "--tmpfs", path]
    # a device that somebody named is meant to be used as one
    bind = "--dev-bind" if path.startswith("/dev/") else "--bind"
    return [bind if rule.kind == "write" else "--ro-bind", source, path]
