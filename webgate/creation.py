"""A new ticket, with the checks `ticketctl new` makes: before there is a row.

Text from a body in, a ticket out. What a worktree needs is worktree.py's, what a row may hold is the
store's business.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orchestrator.config import Config
from orchestrator.drivers import driver_named
from orchestrator.errors import InvalidInput
from orchestrator.store import tickets
from orchestrator.store.db import Database
from orchestrator.store.tickets import Ticket
from orchestrator.worktree import commit_of, find_repository
from webgate.wire import fields_of

NEEDED: dict[str, type] = {"title": str}
OPTIONAL: dict[str, type] = {
    "prompt": str, "repo": str, "base": str, "driver": str, "kind": str, "command": list, "start": bool,
}  # fmt: skip
MAX_PATH_CHARS = 4096
MAX_WORDS = 100  # of a command


def create(config: Config, database: Database, body: dict[str, Any]) -> Ticket:
    """Makes the ticket a body asks for.

    Raises:
        InvalidInput: with what is wrong.
    """
    given = fields_of(body, NEEDED, OPTIONAL)
    command = _words(given.get("command", []))
    driver = given.get("driver") or ("command" if command else "claude")
    kind, base = given.get("kind") or None, given.get("base") or None
    driver_named(driver, config)
    if kind not in {None, "code", "chat"}:
        raise InvalidInput(f"{kind!r:.40} is no kind of ticket.", hint="Known: code, chat.")
    if command and driver != "command":
        raise InvalidInput(f"The {driver} driver takes no command.", hint="Use the command driver.")
    if driver == "command" and not command:
        raise InvalidInput("The command driver needs a command.")
    repo = _repository(given.get("repo", "")) if given.get("repo") and kind != "chat" else None
    if base and repo is None:
        raise InvalidInput("A base is a commit of a repository.", hint="Give a repository too.")
    if repo is not None:
        commit_of(repo, base or "HEAD")
    return tickets.create(
        database,
        title=given["title"],
        prompt=given.get("prompt", given["title"]),
        repo_path=str(repo) if repo else None,
        base_ref=base,
        driver=driver,
        command=command,
        kind=kind,
    )


def _repository(text: str) -> Path:
    if "\0" in text or len(text) > MAX_PATH_CHARS:
        raise InvalidInput("That is no path.")
    try:
        path = Path(text).expanduser()
    except RuntimeError:  # ~somebody who is not there
        raise InvalidInput(f"{text!r:.80} is no folder.") from None
    if not path.is_absolute():
        raise InvalidInput("A repository is an absolute path, or begins with ~/.")
    try:
        return find_repository(path)
    except OSError as error:
        raise InvalidInput(f"{text!r:.80} cannot be used: {error.strerror}.") from None


def _words(value: list[Any]) -> list[str]:
    if len(value) > MAX_WORDS or not all(
        isinstance(word, str) and "\0" not in word for word in value
    ):
        raise InvalidInput(f"A command is a list of at most {MAX_WORDS} words.")
    return value
