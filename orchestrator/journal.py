"""The kinds of journal entries there are: one table, a fixed 128-bit id for each.

What stands in TICKET_EVENT= stands in MESSAGE_ID= too, so that programs can ask for a kind of entry
by an id that no wording and no other program shares (sd-id128(3)). An id is made once, with
`systemd-id128 new`, and never given to another kind. Writing entries is systemd.py's business.
"""

from __future__ import annotations

#: TICKET_EVENT= to MESSAGE_ID= and what it says; docs/events.md is checked against this
KINDS: dict[str, tuple[str, str]] = {
    # the launcher
    "worker_started": ("3025c87134934474aabfb0b16a3bc504", "a worker runs"),
    "worker_ended": ("69b52e9fdbb944e499405608ded1c10c", "a worker is gone, with the reason"),
    # the parser, from the sidecar
    "worker_start": ("56f7853477c148ffa452e7b6c505269f", "a process is about to be started"),
    "session_start": ("59f9a421d7b244bd8f7db05848708089", "the agent opened a conversation"),
    "session_end": ("887d7c92bda849a49334b3e5ce2b9500", "the agent closed it"),
    "user_prompt": ("39f5e695b9c047988eec891e4f348ce3", "the worker took a message"),
    "message_taken": ("b2083417eacc478b95838e02d6ded7de", "the worker's program took a message"),
    "turn_end": ("28e5e2ce0f914488ac82e30ced770761", "the worker finished its turn"),
    "result": ("398892fbd0d6450d975adf23ea86a530", "the same, on the stream"),
    "api_error": ("3444c620c47343859893f5caa4e41d93", "the API refused or failed"),
    "permission_request": ("dcd34b0ada87490781ace54dbcc2cbbf", "the worker asks, with the tool"),
    "permission_answer": ("a230e953bfba43819758df16594f57e2", "that was answered, or has gone"),
    "compact": ("66c7b0613d914521893fb6b6a25f3828", "the conversation is compacted"),
    "subagent": ("50308ea8c9164541b90840362631ae61", "a subagent started or stopped"),
    "state": ("8d502720a6cb4f3f9282d3e2c9d93eed", "the turn state changed, with the evidence"),
    "quarantine": ("3bc61f789eba42b2b3ddd63a1c739731", "a line of the sidecar cannot be used"),
    # the gateway
    "ticket_created": ("be451ebe5f1042ac913c99174cbd467f", "a ticket was made on the page"),
    "message_queued": ("4858dce956374fb28ab14e187ffb2ca5", "a message was taken in"),
    "permission_given": ("67f032f3cf3143ba9063654a23ff306a", "a person answered a request"),
    "control_taken": ("5d7722f2fe4748d686be5dc31e4cf995", "a page may type into the pane"),
    "interrupted": ("3459ea83fe2e494e8f7be6653394cf04", "a person broke off the turn"),
    "unit_asked": ("4624d8b21f8a402b8afe97c1c7256a9e", "a person asked for start, stop, …"),
    # the dispatcher
    "message_sent": ("c7ab32583f9948fda4cc31dd543d374b", "it was sent; nothing confirms it"),
    "message_confirmed": ("d5201b90ad6c41c9abb6e4edf478e13a", "the worker showed it has it"),
    "message_unconfirmed": ("55148ccbc8e641958cc8c29795dca026", "it was sent and not shown"),
    "message_refused": ("27ce0e33bb1447c48e29403741862de3", "it cannot be sent to this worker"),
    "notify_failed": ("0fad212010ec4d06b1081e5e4e198d52", "a person could not be told"),
    # ticketctl
    "applied": ("d1e0e622e78e446a8f3f4a365f1ba4f3", "a board changed the ticket, with what of it"),
    # the timers
    "heartbeat": ("04b0743c5dd244a787e31b60d78063a8", "the look each minute"),
    "warning": ("9dac35e6e9a448c6b918fb62dff216b1", "something a person should look at"),
    "warning_over": ("60f9710d349e46ba88c81facd0b02057", "it is so no longer"),
    "gap": ("352ce07d5cd74934ab845c89345b6009", "a pane printed what is in no log"),
    "reconciled": (
        "8b64ce43e3264b448a5509aa54c3c7b9",
        "what runs was brought in line with what should",
    ),
    "pipe_stopped": ("b54042a457e94ca1b83b702ed46221c5", "the writer of a pane log does not write"),
    "rotated": ("a1438cad147c4b09aa6531a131afcfa4", "a pane log was rotated, or could not be"),
}


def message_id(event: str) -> str:
    """The id of a kind; empty for one that is not in the table, which no test lets pass."""
    return KINDS[event][0] if event in KINDS else ""
