"""Tell a person that a ticket waits: run their command, post to their topic.

Beside dispatch, on threads of its own, so that nothing here holds a message up. A wait is told of
once, whoever is told and however often the dispatcher is started; what went wrong is said in the
journal and is not tried again: the board still shows the wait. What a worker said or asked for does
not leave the machine; number, title and state do.
"""

from __future__ import annotations

import base64
import json
import threading
import time
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

from orchestrator import outside, systemd
from orchestrator.config import Config
from orchestrator.errors import TicketError
from orchestrator.naming import session_name
from orchestrator.store import waits
from orchestrator.store.db import Database
from orchestrator.store.waits import Wait

LOOK_S = 1.0
COMMAND_TIMEOUT_S = 30.0  # then it is killed, with what it started
POST_TIMEOUT_S = 10.0
MAX_TELLING = 4  # at the same time; the next ones wait for their turn
MAX_TITLE_CHARS = 200  # in a header


class NotTold(Exception):
    """Why somebody was not told, in a few words without a secret."""


class Notifier:
    """Tells of waits, where the configuration names somebody to tell."""

    def __init__(self, config: Config, database: Database) -> None:
        self._config = config
        self._database = database
        self._telling = threading.BoundedSemaphore(MAX_TELLING)
        self._said: dict[str, str] = {}  # by way: what went wrong last, said already
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begins, unless there is nobody to tell or it began already."""
        chosen = self._config.notify
        if self._thread is None and (chosen.command or chosen.ntfy_url):
            # Daemons: a person's command does not keep the dispatcher from leaving.
            self._thread = threading.Thread(target=self._run, name="notify", daemon=True)
            self._thread.start()

    def look(self) -> list[threading.Thread]:
        """Tells of every wait nobody was told of; the threads that do it.

        Raises:
            Unavailable: the database is away.
        """
        found = []
        for wait in waits.claim_untold(self._database, after_s=self._config.notify.after_s):
            facts = facts_of(self._config, wait)
            for way, tell in (("command", self._run_command), ("ntfy_url", self._post)):
                if getattr(self._config.notify, way):
                    self._telling.acquire()
                    thread = threading.Thread(
                        target=self._tell, args=(way, tell, wait, facts), daemon=True
                    )
                    thread.start()
                    found.append(thread)
        return found

    def _run(self) -> None:
        while True:
            time.sleep(LOOK_S)  # a wait has to have lasted for a while, which no event tells
            try:
                self.look()
            except TicketError:
                continue  # the dispatcher itself says that the database is away
            except Exception as error:  # noqa: BLE001  # whoever is told next should still be told
                self._say("look", f"Looking for waiting tickets failed: {error!r:.200}.")

    def _tell(self, way: str, tell: Any, wait: Wait, facts: dict[str, Any]) -> None:
        try:
            tell(facts)
        except NotTold as error:
            self._say(
                way,
                f"Ticket {wait.ticket_id}: nobody was told that it waits: {error}. It shows on the board;"
                f" see notify.{way} in config.toml.",
                wait.ticket_id,
            )
        else:
            self._said.pop(way, None)
        finally:
            self._telling.release()

    def _say(self, way: str, text: str, ticket: int | None = None) -> None:
        """Once, until it went well or is another trouble."""
        what = text.partition(": ")[2]
        if self._said.get(way) != what:
            self._said[way] = what
            systemd.log(text, ticket=ticket, event="notify_failed", priority=4)

    def _run_command(self, facts: dict[str, Any]) -> None:
        variables = {f"TICKET_{name.upper()}": str(value) for name, value in facts.items()}
        try:
            outside.run(
                self._config.notify.command, variables, json.dumps(facts).encode() + b"\n",
                folder=self._config.runtime_dir, timeout_s=COMMAND_TIMEOUT_S,
            )  # fmt: skip
        except outside.NotRun as error:
            raise NotTold(str(error)) from None

    def _post(self, facts: dict[str, Any]) -> None:
        url = self._config.notify.ntfy_url
        where = urlsplit(url).hostname  # the rest of it may be what keeps others out
        request = urllib.request.Request(  # noqa: S310  # http or https: the configuration was checked
            url, data=sentence(facts).encode(), method="POST", headers=self._headers(facts)
        )
        try:
            with _OPENER.open(request, timeout=POST_TIMEOUT_S):
                return
        except urllib.error.HTTPError as error:
            raise NotTold(f"{where} answered {error.code}") from None
        except urllib.error.URLError as error:
            raise NotTold(f"{where} cannot be reached: {error.reason}") from None
        except (OSError, ValueError) as error:  # ValueError: what answers there is no HTTP
            raise NotTold(f"{where} did not answer: {type(error).__name__}") from None

    def _headers(self, facts: dict[str, Any]) -> dict[str, str]:
        title = " ".join(f"#{facts['id']} {facts['title']}".split())[:MAX_TITLE_CHARS]
        headers = {
            "Content-Type": "text/plain; charset=utf-8",
            # RFC 2047: whatever is in a title, it makes no second header.
            "Title": f"=?UTF-8?B?{base64.b64encode(title.encode('utf-8', 'replace')).decode()}?=",
            "Click": str(facts["url"]),
        }
        if token := self._config.notify.ntfy_token:
            headers["Authorization"] = f"Bearer {token}"
        return headers


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A token goes to the address that was configured, and to no other."""

    def redirect_request(self, *_: Any) -> None:
        """None: the answer is an error."""


_OPENER = urllib.request.build_opener(_NoRedirect)


def facts_of(config: Config, wait: Wait) -> dict[str, Any]:
    """What whoever is told gets to know: TICKET_<NAME> for a command, the same as JSON on its stdin."""
    return {
        "id": wait.ticket_id,
        "title": wait.title,
        "driver": wait.driver,
        "state": wait.turn_state,
        "since": wait.since.isoformat(timespec="seconds"),
        "session": session_name(wait.ticket_id),
        "url": f"{config.gateway_url}/ticket/{wait.ticket_id}",
    }


_SENTENCES = {
    "waiting_permission": "asks for permission",
    "waiting_answer": "asks a question",
    "api_error": "was stopped by an error of the API",
}


def sentence(facts: dict[str, Any]) -> str:
    """What it waits for, for people."""
    told = _SENTENCES.get(str(facts["state"]), "waits for you")
    return f"Ticket {facts['id']} {told}: {facts['title']}"
