"""The description of the API, at /api/openapi.json: made from the same table as the routes.

Every route of app.py names its body and its answer by one of the schemas here; a test walks the
routes, and another sends what the description allows and compares what comes back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from orchestrator.tmux_control import MAX_COLUMNS, MAX_ROWS, MIN_COLUMNS, MIN_ROWS

Schema = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One route of the gateway."""

    method: str
    rule: str  #: as bottle writes it
    call: Callable[..., Any]
    answer: str = ""  #: a schema's name; empty for pages and files, which are not described
    takes: str = ""  #: a schema's name
    status: int = 200
    query: tuple[str, ...] = ()
    kind: str = "application/json"  #: of the answer

    @property
    def path(self) -> str:
        """The rule as OpenAPI writes it."""
        return re.sub(r"<(\w+)(:\w+)?>", r"{\1}", self.rule)


def _object(needed: Schema, optional: Schema | None = None, *, closed: bool = False) -> Schema:
    shape: Schema = {
        "type": "object",
        "properties": {**needed, **(optional or {})},
        "required": list(needed),
    }
    if closed:
        shape["additionalProperties"] = False
    return shape


def _list(of: Schema) -> Schema:
    return {"type": "array", "items": of}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _or_null(kind: str, **more: Any) -> Schema:
    return {"type": [kind, "null"], **more}


TEXT: Schema = {"type": "string"}
INT: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}
BOOL: Schema = {"type": "boolean"}
AT: Schema = {"type": "string", "format": "date-time"}
AT_OR_NULL = _or_null("string", format="date-time")
NAMED: Schema = {
    "type": "string",
    "pattern": "^[A-Za-z0-9-]{8,64}$",
    "description": "the page, by a name it made up",
}

_GIT: Schema = {
    "anyOf": [
        _object({"ahead": INT, "behind": INT, "dirty": INT, "untracked": INT,
                 "conflicts": _list(TEXT), "text": TEXT}),
        {"type": "null"},
    ],
    "description": "the worktree against its base, as of the last heartbeat",
}  # fmt: skip
_TICKET = {
    "id": INT, "title": TEXT, "prompt": TEXT, "kind": {"enum": ["code", "chat"]},
    "repo_path": _or_null("string"), "base_ref": _or_null("string"), "base_sha": _or_null("string"),
    "driver": TEXT, "status": {"enum": ["open", "in_progress", "needs_input", "closed"]}, "turn_state": TEXT,
    "session_id": TEXT, "worktree_path": _or_null("string"),
    "cost_usd": {**NUMBER, "description": "US dollars"},
    "input_tokens": INT, "output_tokens": INT, "disk_bytes": _or_null("integer"),
    "git": _GIT, "created_at": AT, "updated_at": AT,
    "last_sign_at": AT_OR_NULL, "closed_at": AT_OR_NULL,
}  # fmt: skip
_MESSAGE = {
    "id": INT, "text": TEXT, "author": TEXT,
    "outcome": {"enum": ["queued", "sent", "confirmed", "unconfirmed", "refused"]},
    "reason": TEXT, "created_at": AT, "sent_at": AT_OR_NULL, "confirmed_at": AT_OR_NULL,
}  # fmt: skip
_TURN = {
    "began_at": AT, "ended_at": AT_OR_NULL, "duration_s": _or_null("number"), "prompt": TEXT, "answer": TEXT,
    "error": TEXT, "cost_usd": _or_null("number"), "more_tools": INT,
    "tools": _list(_object({"name": TEXT, "what": TEXT, "duration_s": _or_null("number"), "failed": BOOL})),
}  # fmt: skip
_UNIT = {
    "unit": TEXT, "load": TEXT, "active": TEXT, "sub": TEXT, "job": BOOL, "unit_file": TEXT, "main_pid": INT,
    "result": TEXT, "status_text": TEXT, "restarts": INT, "memory_bytes": _or_null("integer"),
    "cpu_s": _or_null("number"), "tasks": _or_null("integer"),
    "memory_high_bytes": _or_null("integer"), "memory_max_bytes": _or_null("integer"),
    "tasks_max": _or_null("integer"), "cpu_weight": _or_null("integer"),
}  # fmt: skip
_FILE = {
    "path": TEXT, "old_path": _or_null("string"), "status": TEXT, "old_mode": _or_null("string"),
    "new_mode": _or_null("string"), "binary": BOOL, "added": _or_null("integer"),
    "removed": _or_null("integer"), "omitted": TEXT,
    "hunks": _list(_object({"old_start": INT, "new_start": INT, "heading": TEXT, "lines": _list(TEXT)})),
}  # fmt: skip

SCHEMAS: dict[str, Schema] = {
    "Problem": _object({"problem": {**TEXT, "description": "a stable code"}, "message": TEXT, "hint": TEXT}),
    "Ticket": _object(_TICKET),
    "Tickets": _object({"tickets": _list(_ref("Ticket"))}),
    "Created": _object({**_TICKET, "start_problem": {"anyOf": [_ref("Problem"), {"type": "null"}]}}),
    "NewTicket": _object(
        {"title": {**TEXT, "minLength": 1, "maxLength": 500}},
        {
            "prompt": {**TEXT, "description": "what the agent is told first; the title if left out"},
            "repo": {**TEXT, "description": "a git checkout, as an absolute path"},
            "base": {**TEXT, "description": "branch, tag or commit to start from"},
            "driver": TEXT,
            "kind": {"enum": ["code", "chat"]},
            "command": {**_list(TEXT), "description": "of the command driver"},
            "start": BOOL,
        },
        closed=True,
    ),
    "Message": _object(_MESSAGE),
    "Messages": _object({"messages": _list(_ref("Message"))}),
    "NewMessage": _object({"text": {**TEXT, "minLength": 1}}, closed=True),
    "Accepted": _object({"message": INT, "outcome": TEXT}),
    "Events": _object({"events": _list(_object({"id": INT, "at": AT, "kind": TEXT, "data": {}}))}),
    "Timeline": _object({"turns": _list(_object(_TURN))}),
    "Comment": _object({"id": INT, "author": TEXT, "text": TEXT, "created_at": AT}),
    "Comments": _object({"comments": _list(_ref("Comment"))}),
    "NewComment": _object({"text": {**TEXT, "minLength": 1, "maxLength": 20000}}, closed=True),
    "Requests": _object(
        {
            "requests": _list(_object({
                "request": TEXT, "tool": TEXT, "is_question": BOOL, "input": {"type": "object"}, "at": AT,
            }))
        }
    ),
    "Answer": _object(
        {"request": TEXT, "behavior": {"enum": ["allow", "deny"]}},
        {
            "message": {**TEXT, "description": "with deny: what the worker is told"},
            "answers": {"type": "object", "additionalProperties": TEXT, "description": "of a question"},
        },
        closed=True,
    ),
    "Unit": _object(_UNIT),
    "Diff": _object(
        {"base_sha": TEXT, "head_sha": _or_null("string"), "files": _list(_object(_FILE)),
         "added": INT, "removed": INT, "truncated": BOOL}
    ),
    "Control": _object({"viewer": NAMED, "action": {"enum": ["take", "release"]}}, closed=True),
    "Holder": _object({"holder": {**TEXT, "description": "the page that has control; empty for none"}}),
    "Keys": _object(
        {"viewer": NAMED},
        {"keys": {**TEXT, "description": "typed as they are"}, "paste": {**TEXT, "description": "bracketed"}},
        closed=True,
    ),
    "Size": _object(
        {
            "viewer": NAMED,
            "columns": {**INT, "minimum": MIN_COLUMNS, "maximum": MAX_COLUMNS},
            "rows": {**INT, "minimum": MIN_ROWS, "maximum": MAX_ROWS},
        },
        closed=True,
    ),
    "Nothing": _object({}, closed=True),
    "Cancel": _object({"message": INT}, closed=True),
    "Closing": _object(
        {}, {"keep_worktree": {**BOOL, "description": "leave the worktree where it is"}}, closed=True
    ),
    "Done": _object({"done": BOOL}),
    "LoggedOut": _object({"logged_out": BOOL}),
    "Text": TEXT,
    "Stream": {**TEXT, "description": "server-sent events, see docs/api.md"},
    "Description": {"type": "object"},
}  # fmt: skip

_QUERY: dict[str, Schema] = {
    "closed": {"name": "closed", "in": "query", "schema": {"enum": ["0", "1"]},
               "description": "1: the closed ones too"},
    "after": {"name": "after", "in": "query", "schema": {"type": "integer", "minimum": 0, "maximum": 10**14},
              "description": "only events after this one"},
    "replay": {"name": "replay", "in": "query", "schema": {"type": "integer", "minimum": 0, "maximum": 65536},
               "description": "so many of the log's last bytes instead of a repaint"},
}  # fmt: skip
_TICKET_PARAMETER = {
    "name": "ticket", "in": "path", "required": True,
    "schema": {"type": "integer", "minimum": 1, "maximum": 999_999_999},
}  # fmt: skip


def describe(routes: Iterable[Route]) -> Schema:
    """The whole description."""
    paths: dict[str, Schema] = {}
    for route in routes:
        if route.answer:
            paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    problem = {
        "description": "what is wrong, and what to do",
        "content": {"application/json": {"schema": _ref("Problem")}},
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Mission Control",
            "version": "1",
            "description": "Tickets as systemd units. A change needs Content-Type: application/json.",
        },
        "paths": paths,
        "components": {
            "schemas": SCHEMAS,
            "responses": {"Problem": problem},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}],
    }


def _operation(route: Route) -> Schema:
    said = " ".join((route.call.__doc__ or "").split())
    operation: Schema = {
        "operationId": route.call.__name__,
        "summary": said,
        "parameters": [_TICKET_PARAMETER] if "{ticket}" in route.path else [],
        "responses": {
            str(route.status): {
                "description": said,
                "content": {route.kind: {"schema": _ref(route.answer)}},
            },
            "default": {"$ref": "#/components/responses/Problem"},
        },
    }
    operation["parameters"] += [_QUERY[name] for name in route.query]
    if route.takes:
        content = {"application/json": {"schema": _ref(route.takes)}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation
