"""`ticketctl doctor --bundle`: what a bug report needs, and nothing that is somebody's own.

Of what agents and people wrote there is nothing: no message, prompt, title, log, screen or event. What our
services said goes through a filter: values of the keys we know of, and what looks like one. Settings that
are texts are left out, but for whether there is one.
"""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import tarfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from orchestrator.config import Config, Setting
from orchestrator.doctor_machine import Check
from orchestrator.errors import ConfigError, TicketError
from orchestrator.store import health
from orchestrator.store.db import Database
from orchestrator.store.migrate import applied

MAX_LINES = 2000  # of the journal
MAX_OUTPUT_BYTES = 4 << 20
TIMEOUT_S = 20
MIN_SECRET = 6  # shorter ones are words
REMOVED = "(removed)"
#: what is never in a text: keys of the usual makers, headers, passwords, login codes, addresses' users
_LOOKS_SECRET = re.compile(
    r"\b(?:sk|pk|rk|ghp|gho|ghs|github_pat|glpat|xox[a-z]|tk|npm)[-_][A-Za-z0-9_-]{8,}"
    r"|\bAKIA[0-9A-Z]{12,}|\beyJ[A-Za-z0-9_-]{10,}(?:\.[A-Za-z0-9_-]+)*"
    r"|(?<=://)[^/@\s]+(?=@)|(?i:\bbearer)\s+\S+"
    r"|(?i:\b\w*(?:password|passwd|token|secret|api[_-]?key|session|csrf)\w*[\"']?\s*[=:]\s*|\bcode=)\S+"
    r"|\b[0-9a-f]{40,}\b|-----BEGIN[^-]*PRIVATE KEY-----.*?(?:-----END[^-]*-----|\Z)",
    re.DOTALL,
)
_PASSWORD = re.compile(r":([^:@/]+)@|password\s*=\s*'?([^'\s&]+)")
#: texts that say which of a few ways, and are nobody's
_PLAIN_TEXTS = frozenset({("isolation", "mode"), ("isolation", "network")})
_UNIT_FACTS = (
    "Id,LoadState,ActiveState,SubState,Result,NRestarts,ExecMainStatus,MemoryCurrent,TasksCurrent"
)
_OURS = ("mc.target", "tmux-mc.service", "mc-*", "ticket@*")


def write(
    path: Path, config: Config, checks: Iterable[Check], settings: Iterable[Setting], version: str
) -> list[str]:
    """Makes the file, 0600; the names of what is in it.

    Raises:
        ConfigError: it is there already, or cannot be written.
    """
    database = Database(config.database_dsn, application="doctor")
    clean = Cleaner(config, _texts(database))
    files = {
        "versions.json": _json(_versions(version)),
        "checks.json": _json([asdict(check) for check in checks]),
        "settings.json": _json([_setting(setting) for setting in settings]),
        "units.txt": _output(
            "systemctl", "--user", "show", f"--property={_UNIT_FACTS}", "--", *_OURS
        ),
        "database.json": _json(_database(database)),
        "journal.txt": "\n".join(_journal()) + "\n",
    }
    _pack(path, {name: clean(text) for name, text in files.items()})
    return list(files)


class Cleaner:
    """Takes secrets, what people wrote, and the home folder out of a text."""

    def __init__(self, config: Config, texts: Iterable[str] = ()) -> None:
        known = [*(line.strip() for text in texts for line in text.splitlines())]
        known += [*_words_of(config.agent_env_path), *_words_of(config.token_path)]
        topic = config.notify.ntfy_url.rpartition("/")[2]  # who knows it can read and write there
        known += [config.notify.ntfy_token, config.notify.ntfy_url, topic, config.database.url]
        known += [word for pair in _PASSWORD.findall(config.database.url) for word in pair]
        known = sorted({k for k in known if len(k) >= MIN_SECRET}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known)) or r"(?!)")
        home = os.environ.get("HOME") or str(Path.home())
        self._home = re.compile(rf"{re.escape(home)}(?![\w.-])" if len(home) > 1 else r"(?!)")

    def __call__(self, text: str) -> str:
        """The text without them."""
        return self._home.sub("~", _LOOKS_SECRET.sub(REMOVED, self._known.sub(REMOVED, text)))


def _texts(database: Database) -> list[str]:
    try:
        return health.private_texts(database)
    except TicketError:
        return []


def _words_of(path: Path) -> list[str]:
    """The values of an environment file, or the one line of a token."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    values = (line.partition("=")[2] or line for line in lines if not line.startswith("#"))
    return [value.strip().strip("\"'") for value in values]


def _setting(setting: Setting) -> Mapping[str, object]:
    value = setting.value
    plain = isinstance(value, bool | int) or (setting.table, setting.key) in _PLAIN_TEXTS
    is_set = (
        value
        if plain or setting.source == "default"
        else f"{type(value).__name__}, {len(str(value))}"
    )
    kind = setting.source.partition("$")[1] or setting.source.rpartition("/")[2]
    return {"key": f"{setting.table}.{setting.key}", "value": is_set, "source": kind}


def _versions(version: str) -> Mapping[str, str]:
    programs = ("systemctl", "git", "psql", "bwrap", "claude", "python3")
    found = {name: _output(name, "--version").partition("\n")[0] for name in programs}
    release = _read("/etc/os-release")
    name = re.search(r'^PRETTY_NAME="?([^"\n]*)', release, re.MULTILINE)
    return {
        "mission-control": version, "tmux": _output("tmux", "-V").strip(), **found,
        "kernel": " ".join(os.uname()[i] for i in (0, 2, 4)), "release": name[1] if name else "",
    }  # fmt: skip


def _database(database: Database) -> Mapping[str, Any]:
    try:
        counts = health.counts(database)
        return {
            "migrations": applied(database),
            "tickets": [{"status": s, "turn_state": t, "n": n} for (s, t), n in counts.tickets.items()],
            "messages": counts.messages, "events": health.event_kinds(database),
            "oldest_queued_s": counts.oldest_queued_s, "worktrees": counts.worktrees,
        }  # fmt: skip
    except TicketError as error:
        return {"error": error.message}


def _journal() -> Iterable[str]:
    """What our services said; of tickets' own units only that something was said, and which event."""
    said = _output(
        "journalctl", "--user", "--output=json", f"--lines={MAX_LINES}", "--quiet",
        "--unit=mc-*", "--unit=tmux-mc.service", "--unit=ticket@*",
    )  # fmt: skip
    for line in said.splitlines():
        try:
            entry = json.loads(line)
            at = time.strftime("%F %T", time.gmtime(int(entry["__REALTIME_TIMESTAMP"]) / 1e6))
            unit = str(entry.get("_SYSTEMD_USER_UNIT") or entry.get("USER_UNIT") or "")
        except (ValueError, KeyError, TypeError):
            continue
        facts = [
            str(entry[name]) for name in ("PRIORITY", "TICKET_EVENT", "TICKET_ID") if name in entry
        ]
        text = entry.get("MESSAGE", "")
        ours = unit.startswith(("mc-", "tmux-mc")) and isinstance(text, str)
        yield f"{at} {unit} {' '.join(facts)}{f': {text}' if ours else ''}"


def _json(value: object) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False, default=str) + "\n"


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _output(*argv: str) -> str:
    try:
        done = subprocess.run(
            argv, capture_output=True, check=False, timeout=TIMEOUT_S, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{argv[0]}: {type(error).__name__}\n"
    return done.stdout[-MAX_OUTPUT_BYTES:].decode("utf-8", "replace")


def _pack(path: Path, files: Mapping[str, str]) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be made: {error.strerror}.", hint="Give the name of a new file."
        ) from None
    try:
        with os.fdopen(fd, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as tar:
            for name, text in files.items():
                data = text.encode("utf-8", "replace")
                info = tarfile.TarInfo(f"mission-control/{name}")
                info.size, info.mtime, info.mode = len(data), int(time.time()), 0o600
                tar.addfile(info, io.BytesIO(data))
    except OSError as error:
        path.unlink(missing_ok=True)
        raise ConfigError(f"{path} cannot be written: {error.strerror}.") from None
