"""A stand-in for `claude -p` with stream-json both ways: a program that tests put on PATH.

Speaks as version 2.1.197 was seen to. What it does is in the text of the message: BASH{x} asks for
leave, TWO{x} for two things at once, ASK asks a question, SLOW goes on until it is interrupted,
DIE{n} kills itself with that signal, LEAVE{n} ends with that status, NOISE prints what is no JSON,
HUGE a line of 5 MB, OLD what a version without session states would. Each line it is sent goes to
$STREAM_CLI_LOG, its own options to that name with .argv; a line that is no JSON ends it with status
1, as the real one.
"""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

SESSION = sys.argv[-1]
HISTORY = Path(os.environ["STREAM_CLI_LOG"]).with_suffix(".seen")
lines: queue.Queue[dict[str, Any] | None] = queue.Queue()
FINISH_S = 5.0
cost = 0.0
states = True


def say(kind: str, **more: Any) -> None:
    """A line of the stream."""
    sys.stdout.write(json.dumps({"type": kind, **more, "session_id": SESSION}) + "\n")
    sys.stdout.flush()


def state(name: str) -> None:
    """What it is doing."""
    if states:
        say("system", subtype="session_state_changed", state=name)


def reader() -> None:
    """Takes stdin in, line by line."""
    with open(os.environ["STREAM_CLI_LOG"], "ab") as log:
        for line in sys.stdin.buffer:
            log.write(line)
            log.flush()
            try:
                value = json.loads(line)
            except ValueError:
                sys.stderr.write("Error parsing streaming input line\n")
                os._exit(1)
            lines.put(value)
    lines.put(None)


def speak(text: str) -> None:
    """A text, as it comes and then as a whole."""
    name = f"msg_{os.urandom(4).hex()}"
    say("stream_event", event={"type": "message_start", "message": {"id": name}})
    for word in re.findall(r"\S+\s*", text):
        delta = {"type": "text_delta", "text": word}
        say("stream_event", event={"type": "content_block_delta", "delta": delta})
    say("assistant", message={"id": name, "content": [{"type": "text", "text": text}]})


def end(subtype: str = "success", **more: Any) -> None:
    """The turn's account."""
    global cost  # noqa: PLW0603 - a process counts what it costs
    cost += 0.0075
    failed = subtype != "success"
    say("result", subtype=subtype, is_error=failed, num_turns=1, total_cost_usd=cost, **more)
    state("idle")


def ask(tool: str, arguments: dict[str, Any]) -> str:
    """Asks for leave; the request's name."""
    name = os.urandom(8).hex()
    request = {"subtype": "can_use_tool", "tool_name": tool, "input": arguments}
    say("control_request", request_id=name, request={**request, "tool_use_id": f"toolu_{name}"})
    return name


def answers(names: set[str]) -> bool:
    """Waits for the answers and obeys them; False when it was interrupted."""
    state("requires_action")
    while names:
        value = lines.get()
        if value is None:
            sys.exit(0)
        if value["type"] == "control_request":
            for name in names:
                say("control_cancel_request", request_id=name)
            interrupted(value)
            return False
        response = value["response"]
        names.remove(response["request_id"])
        given = response["response"]
        if given["behavior"] == "allow":
            content, failed = json.dumps(given["updatedInput"]), False
        else:
            content, failed = given["message"], True
        block = {"type": "tool_result", "content": content, "is_error": failed}
        say("user", message={"content": [block]})
    state("running")
    return True


def interrupted(request: dict[str, Any]) -> None:
    """What follows an interruption."""
    done = {"subtype": "success", "request_id": request["request_id"]}
    say("control_response", response=done)
    block = {"type": "text", "text": "[Request interrupted by user]"}
    say("user", message={"content": [block]})
    end("error_during_execution", errors=["[ede_diagnostic] result_type=user"])


def directive(text: str, name: str) -> str | None:
    """What is in NAME{…}."""
    found = re.search(rf"\b{name}\{{([^}}]*)\}}", text)
    return found[1] if found else None


def tools(text: str) -> set[str] | None:
    """The requests that a text makes."""
    if (command := directive(text, "BASH")) is not None:
        return {ask("Bash", {"command": command, "description": "run it"})}
    if (command := directive(text, "TWO")) is not None:
        return {ask("Bash", {"command": f"{command} {n}"}) for n in (1, 2)}
    if "ASK" in text:
        options = [{"label": "Red", "description": "warm"}, {"label": "Blue"}]
        colour = {"question": "Which colour?", "options": options, "multiSelect": False}
        sizes = {"question": "Which sizes?", "options": options, "multiSelect": True}
        return {ask("AskUserQuestion", {"questions": [colour, sizes]})}
    return None


def turn(message: dict[str, Any]) -> None:
    """One message."""
    global states  # noqa: PLW0603 - OLD is for the rest of the process
    text, key = message["message"]["content"], message["uuid"]
    states = states and "OLD" not in text
    seen = HISTORY.read_text().split() if HISTORY.exists() else []
    replay = {"message": {"role": "user", "content": text}, "uuid": key, "isReplay": True}
    if key in seen:
        say("user", **replay)
        state("idle")
        return
    HISTORY.write_text("\n".join([*seen, key]))
    state("running")
    say("system", subtype="init", model="fake", tools=[])
    if "SLOW" not in text:  # the echo comes with the first whole answer
        say("user", **replay)
    if (number := directive(text, "DIE")) is not None:
        os.kill(os.getpid(), int(number))
    if (number := directive(text, "LEAVE")) is not None:
        os._exit(int(number))
    if "NOISE" in text:
        sys.stdout.write(
            "\x1b]0;no\x07 json\n[1]\n\n" + "\udcff".encode("utf-8", "replace").decode() + "\n"
        )
        sys.stderr.write("and \x1b[31mstderr\n")
        sys.stderr.flush()
    if "HUGE" in text:
        say("system", subtype="huge", uuid=key, text="x" * 5_000_000)
    if names := tools(text):
        if not answers(names):
            return
    elif "SLOW" in text:
        speak("Thinking about it")
        while (value := lines.get()) and value["type"] != "control_request":
            pass
        if value is None:  # nothing more will be said to it: it finishes its turn
            time.sleep(FINISH_S)
            sys.exit(0)
        interrupted(value)
        return
    speak(f"You said: {text}")
    end(result=f"You said: {text}")


def main() -> None:
    """Until its stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with open(Path(os.environ["STREAM_CLI_LOG"]).with_suffix(".argv"), "a") as file:
        file.write(json.dumps(sys.argv[1:]) + "\n")
    threading.Thread(target=reader, daemon=True).start()
    while (value := lines.get()) is not None:
        if value["type"] == "user":
            turn(value)
        elif value["type"] == "control_request":
            done = {"subtype": "success", "request_id": value["request_id"], "response": {}}
            say("control_response", response=done)


if __name__ == "__main__":
    main()
