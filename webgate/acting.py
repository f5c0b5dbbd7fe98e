"""The routes that change something: messages, keys, control, permission, the unit, comments.

Each writes intent, or asks systemd or tmux for what the operator pressed. auth.py let the request
through; whether this page may type is control.py's word.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import bottle

from orchestrator import permits
from orchestrator.errors import Conflict, InvalidInput, TicketError
from orchestrator.naming import ticket_id
from orchestrator.store import comments, logins, messages, tickets
from webgate import auth, closing, creation, told, units, wire
from webgate.base import AGAIN, Shared, author, body, caller
from webgate.problems import NotHere
from webgate.viewer import encode

ESCAPE = b"\x1b"


class Acting:
    """POST."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._database = shared.database

    def create(self) -> dict[str, Any]:
        """A new ticket; with "start" it is started too."""
        asked = body(max_bytes=wire.MAX_MESSAGE_BODY_BYTES)
        record = creation.create(self._shared.settings, self._database, asked)
        told.tell(record.id, "ticket_created", f"made by {author()}")
        bottle.response.status = HTTPStatus.CREATED.value
        bottle.response.set_header("Location", f"/api/ticket/{record.id}")
        problem = None
        if asked.get("start"):
            try:
                units.act("start", record.id)
            except TicketError as error:  # the ticket is there all the same
                problem = {"problem": error.code, "message": error.message, "hint": error.hint}
        shown = wire.ticket(tickets.get(self._database, record.id))
        return {**shown, "start_problem": problem}

    def send(self, ticket: str) -> dict[str, Any]:
        """A message: a row before it is acknowledged."""
        number = ticket_id(ticket)
        text = wire.text_of(body(max_bytes=wire.MAX_MESSAGE_BODY_BYTES), "text")
        self._shared.ticket(ticket)
        message = messages.enqueue(self._database, number, text, author=author())
        told.tell(number, "message_queued", f"message {message.id} queued by {author()}")
        bottle.response.status = HTTPStatus.ACCEPTED.value
        return {"message": message.id, "outcome": message.outcome}

    def control(self, ticket: str) -> dict[str, Any]:
        """Takes control for a page, or gives it back. Whoever had it before, looks."""
        number = ticket_id(ticket)
        asked = wire.fields_of(body(), {"viewer": str, "action": str})
        if asked["action"] == "take":
            self._shared.ticket(ticket)
            self._shared.controls.take(number, asked["viewer"], caller())
            told.tell(number, "control_taken", f"its keys are with a page ({author()})")
        elif asked["action"] == "release":
            if self._shared.controls.release(number, asked["viewer"]):
                self._release_size(number)
        else:
            raise InvalidInput("'action' is take or release.")
        holder = {"holder": self._shared.controls.holder(number)}
        self._shared.streams.tell(number, {"control": encode("control", holder)})
        return holder

    def keys(self, ticket: str) -> dict[str, Any]:
        """Keys, or a paste, for the pane, from the page that has control."""
        typing = _Typing(self._shared, ticket_id(ticket), caller())
        typing.type(body(max_bytes=wire.MAX_MESSAGE_BODY_BYTES))
        bottle.request.environ[AGAIN] = typing
        return {"done": True}

    def resize(self, ticket: str) -> dict[str, Any]:
        """The pane's size, as the page that has control wants it."""
        number = ticket_id(ticket)
        asked = wire.fields_of(body(), {"viewer": str, "columns": int, "rows": int})
        self._shared.controls.check(number, asked["viewer"], caller())
        self._shared.tmux.resize(number, asked["columns"], asked["rows"])
        self._shared.streams.look(number)
        return {"done": True}

    def interrupt(self, ticket: str) -> dict[str, Any]:
        """Esc: the agent ends what it is doing and waits."""
        number = self._shared.ticket(ticket).id
        wire.fields_of(body(), {})
        self._shared.tmux.keys(number, ESCAPE)
        told.tell(number, "interrupted", f"broken off by {author()}")
        return {"done": True}

    def permission(self, ticket: str) -> dict[str, Any]:
        """Answers a request of the worker's, by the way it was asked; nothing is typed."""
        record = self._shared.ticket(ticket)
        asked = wire.fields_of(
            body(), {"request": str, "behavior": str}, {"message": str, "answers": dict}
        )
        paths = self._shared.settings.ticket_paths(record.id)
        updated = None
        if "answers" in asked:
            if not all(isinstance(answer, str) for answer in asked["answers"].values()):
                raise InvalidInput("'answers' are texts, by the questions' own texts.")
            for request in permits.open_requests(paths):
                if request.request_id == asked["request"] and request.is_question:
                    updated = request.with_answers(asked["answers"])
        if asked["behavior"] not in {"allow", "deny"}:
            raise InvalidInput("'behavior' is allow or deny.")
        permits.answer(
            paths, asked["request"], asked["behavior"],
            message=asked.get("message", ""), updated_input=updated, by=author(),
        )  # fmt: skip
        told.tell(record.id, "permission_given", f"{asked['behavior']}, said {author()}")
        return {"done": True}

    def start(self, ticket: str) -> dict[str, Any]:
        """The same as systemctl --user start ticket@N."""
        return self._act("start", ticket)

    def stop(self, ticket: str) -> dict[str, Any]:
        """Ends the agent; its conversation stays."""
        return self._act("stop", ticket)

    def restart(self, ticket: str) -> dict[str, Any]:
        """It goes on with its conversation."""
        return self._act("restart", ticket)

    def close(self, ticket: str) -> dict[str, Any]:
        """Stops it, archives it, and removes the worktree when nothing would be lost."""
        record = self._shared.ticket(ticket)
        asked = wire.fields_of(body(), {}, {"keep_worktree": bool})
        options = ("--keep-worktree",) if asked.get("keep_worktree") else ()
        told.tell(record.id, "unit_asked", f"close, asked by {author()}")
        closing.run("close", record.id, options=options)
        return wire.ticket(tickets.get(self._database, record.id))

    def reopen(self, ticket: str) -> dict[str, Any]:
        """Brings a closed ticket back, with its worktree and its conversation."""
        record = self._shared.ticket(ticket)
        wire.fields_of(body(), {})
        told.tell(record.id, "unit_asked", f"reopen, asked by {author()}")
        closing.run("reopen", record.id)
        return wire.ticket(tickets.get(self._database, record.id))

    def cancel(self, ticket: str) -> dict[str, Any]:
        """Takes a message back that was not sent yet."""
        number = self._shared.ticket(ticket).id
        asked = wire.fields_of(body(), {"message": int})
        if not 0 < asked["message"] < 2**62:
            raise InvalidInput("'message' is a message's number.")
        message = messages.get(self._database, asked["message"])
        if message is None or message.ticket_id != number:
            raise NotHere("There is no such message of this ticket.")
        if not messages.cancel(self._database, message.id):
            raise Conflict(f"The message is {message.outcome} already.")
        return {"done": True}

    def comment(self, ticket: str) -> dict[str, Any]:
        """A note for people; the worker does not see it."""
        number = ticket_id(ticket)
        text = wire.text_of(body(), "text")
        made = comments.add(self._database, number, text, author=author())
        bottle.response.status = HTTPStatus.CREATED.value
        return wire.comment(made)

    def logout(self) -> dict[str, Any]:
        """Ends the session."""
        environ = bottle.request.environ
        body()
        if secret := environ["webgate.session"]:
            logins.end_session(self._database, secret)
            environ["webgate.forget"](secret)
        ended = auth.session_cookie("", secure=environ["webgate.secure"], lasts_s=0)
        bottle.response.add_header("Set-Cookie", ended)
        return {"logged_out": True}

    def _act(self, verb: units.Verb, ticket: str) -> dict[str, Any]:
        record = self._shared.ticket(ticket)
        wire.fields_of(body(), {})
        if verb != "stop" and record.status == "closed":
            raise Conflict(f"Ticket {record.id} is closed.", hint="Reopen it first.")
        told.tell(record.id, "unit_asked", f"{verb}, asked by {author()}")
        units.act(verb, record.id)
        return wire.ticket(tickets.get(self._database, record.id))

    def _release_size(self, number: int) -> None:
        try:
            self._shared.tmux.release_size(number)
        except TicketError:
            return  # it does not run any more: then it has no size either


class _Typing:
    """What a page types into one ticket's pane; base.Again."""

    def __init__(self, shared: Shared, number: int, session: str) -> None:
        self._controls, self._tmux = shared.controls, shared.tmux
        self._number, self._session = number, session

    def type(self, asked: dict[str, Any]) -> None:
        """Keys, or a paste."""
        self._check(asked)
        if "keys" in asked:
            self._tmux.keys(self._number, asked["keys"].encode())
        else:
            self._tmux.paste(self._number, asked["paste"])

    def act(self, data: bytes) -> None:
        """The same, of a body."""
        self.type(wire.json_object(data))

    def at_once(self, data: bytes) -> Callable[[], None] | None:
        """The same, of keys alone."""
        asked = wire.json_object(data)
        self._check(asked)
        keys = asked.get("keys")
        return None if keys is None else self._tmux.keys_at_once(self._number, keys.encode())

    def _check(self, asked: dict[str, Any]) -> None:
        wire.fields_of(asked, {"viewer": str}, {"keys": str, "paste": str})
        self._controls.check(self._number, asked["viewer"], self._session)
        if ("keys" in asked) == ("paste" in asked):
            raise InvalidInput("Send keys or a paste.", hint='{"viewer": …, "keys": "…"}')
