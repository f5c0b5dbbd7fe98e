"""A stand-in for the Messages API, so that the real agent CLI can be tested without an account.

Outside the product: the tests point ANTHROPIC_BASE_URL at it. Standard library only, one file, so
that it also runs inside a bare test machine:

    python3 messages_api.py --port 8099 --log requests.jsonl

It answers sums ("what is 2+2" gets "2 + 2 = 4"), echoes the rest, and does what words in the last
text of the user ask for:

    BASH{command} READ{path} WRITE{path} TASK{prompt} ASKQ   calls that tool
    SLOW{s}    waits before the first byte           STREAM{s}      streams words for that long
    ERR{code}  answers with that error, each time    ERRN{code,k}   the first k times
    MIDERR     an error event amid the stream        DROP           cuts the connection there

Each request is a JSON line in the log, with the user's text exactly as it came. It keeps no
conversation and checks no key: the client sends the whole conversation each time.
"""

from __future__ import annotations

import argparse
import json
import re
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    503: "api_error",
    529: "overloaded_error",
}
STREAM_STEP_S = 0.1
BREAK_AFTER = 3  # words, before MIDERR and DROP do their worst
MAX_BODY_BYTES = 64 * 1024 * 1024
_REMINDER = "<system-reminder>"  # the CLI's own texts beside what the user typed
_SUM = re.compile(r"(?<![\w.])(\d{1,15})\s*([-+*/x×])\s*(\d{1,15})(?!\w|\.\d)")


@dataclass(frozen=True, slots=True)
class Usage:
    """What each answer says it cost."""

    input_tokens: int = 1000
    output_tokens: int = 100


@dataclass(frozen=True, slots=True)
class Request:
    """What one POST to /v1/messages asks, as far as the answer depends on it."""

    model: str
    stream: bool
    tools: int  #: how many are offered; the CLI's small side errands offer none
    users: tuple[str, ...]  #: every text of the user so far, exact
    last: str  #: the last text of the last message; exact. Before it in the same message the CLI
    #: puts what was never answered, as after an error: that must not be obeyed again
    tool_results: tuple[str, ...]  #: in the last message, as JSON

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> Request:
        """Reads a request's body; what is missing counts as empty."""
        messages = [m for m in body.get("messages", []) if m.get("role") == "user"]
        texts = _texts(messages[-1]) if messages else []
        return cls(
            model=str(body.get("model", "")),
            stream=bool(body.get("stream")),
            tools=len(body.get("tools", [])),
            users=tuple(text for m in messages for text in _texts(m)),
            last=texts[-1] if texts else "",
            tool_results=tuple(_tool_results(messages[-1])) if messages else (),
        )

    def directive(self, name: str) -> str | None:
        """The argument of NAME{…} in the last text; side errands and tool results carry none."""
        if not self.tools or (self.tool_results and not self.last.strip()):
            return None
        match = re.search(rf"\b{name}\{{([^}}]*)\}}", self.last)
        return match[1] if match else None

    def says(self, word: str) -> bool:
        """Whether the last text holds that word, as a directive without an argument."""
        return bool(self.tools) and re.search(rf"\b{word}\b", self.last) is not None


def _texts(message: dict[str, Any]) -> list[str]:
    content = message.get("content")
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content or []
    texts = [str(part["text"]) for part in parts if part.get("type") == "text"]
    return [text for text in texts if not text.lstrip().startswith(_REMINDER)]


def _tool_results(message: dict[str, Any]) -> list[str]:
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    return [json.dumps(part) for part in parts if part.get("type") == "tool_result"]


def answer_text(request: Request) -> str:
    """What a friendly model would say: the result of a sum, of a tool, or an echo."""
    if request.tool_results and not request.last.strip():
        return "Done: the tool has answered."
    if found := _SUM.search(request.last):
        left, sign, right = int(found[1]), found[2], int(found[3])
        if sign == "/" and right == 0:
            return "Nothing can be divided by zero."
        value = {"+": left + right, "-": left - right, "/": left / (right or 1)}.get(
            sign, left * right
        )
        return (
            f"{left} {sign} {right} = {value:g}"
            if sign == "/"
            else f"{left} {sign} {right} = {value}"
        )
    return f"You said: {request.last[-200:]}"


def tool_call(request: Request, number: int) -> dict[str, Any] | None:
    """The tool_use block that the last text asks for."""
    for name, tool, key, more in (
        ("BASH", "Bash", "command", {"description": "run it"}),
        ("READ", "Read", "file_path", {}),
        ("WRITE", "Write", "file_path", {"content": "hello\n"}),
        ("TASK", "Agent", "prompt", {"description": "a task", "subagent_type": "general-purpose"}),
    ):
        argument = request.directive(name)
        if argument is not None:
            return _tool_use(number, tool, {key: argument, **more})
    if request.says("ASKQ") and not request.tool_results:
        options = [
            {"label": "Red", "description": "warm"},
            {"label": "Blue", "description": "cold"},
        ]
        question = {"question": "Which colour?", "header": "Colour", "multiSelect": False}
        return _tool_use(
            number, "AskUserQuestion", {"questions": [{**question, "options": options}]}
        )
    return None


def _tool_use(number: int, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"type": "tool_use", "id": f"toolu_{number:06d}", "name": tool, "input": arguments}


@dataclass(slots=True)
class _State:
    log_path: Path | None
    usage: Usage
    lock: threading.Lock = field(default_factory=threading.Lock)
    requests: list[dict[str, Any]] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)

    def log(self, entry: dict[str, Any]) -> int:
        with self.lock:
            number = len(self.requests) + 1
            self.requests.append({"n": number, "at": time.time(), **entry})
            if self.log_path:
                with self.log_path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(self.requests[-1]) + "\n")
            return number

    def fails_again(self, text: str, times: int) -> bool:
        with self.lock:
            self.failures[text] = self.failures.get(text, 0) + 1
            return self.failures[text] <= times


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    state: _State


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Keeps stderr quiet; the log file has it all."""

    def do_HEAD(self) -> None:
        """The CLI asks whether anybody is there."""
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        """Everything else it might want to know: nothing."""
        self.server.state.log({"get": self.path})
        self._json(200, {})

    def do_POST(self) -> None:
        """A message, a count of tokens, or telemetry."""
        length = int(self.headers.get("content-length") or 0)
        if length > MAX_BODY_BYTES:
            self.close_connection = True
            self._error(413, "too much")
            return
        raw = self.rfile.read(length)
        try:
            body = json.loads(raw)
            request = Request.from_json(body if isinstance(body, dict) else {})
        except (ValueError, AttributeError, TypeError, KeyError):
            self._error(400, "that is no request")
            return
        if "/v1/messages" not in self.path:
            self.server.state.log({"post": self.path})
            self._json(200, {})
        elif "count_tokens" in self.path:
            self._json(200, {"input_tokens": max(1, length // 4)})
        else:
            self._message(request, body, length)

    def _message(self, request: Request, body: dict[str, Any], length: int) -> None:
        state = self.server.state
        number = state.log(
            {
                "path": self.path,
                "size_bytes": length,
                "model": request.model,
                "stream": request.stream,
                "tools": request.tools,
                "roles": [m.get("role") for m in body.get("messages", [])],
                "last": request.last,
                "users": list(request.users),
                "tool_results": list(request.tool_results),
            }
        )
        if code := self._wanted_error(request):
            self._error(code, f"made up error {code}")
            return
        if seconds := request.directive("SLOW"):
            time.sleep(float(seconds))
        blocks: list[dict[str, Any]] = [{"type": "text", "text": answer_text(request)}]
        call = tool_call(request, number)
        if call:
            blocks = [{"type": "text", "text": f"Let me use {call['name']}."}, call]
        stop = "tool_use" if call else "end_turn"
        message = {
            "id": f"msg_{number:06d}",
            "type": "message",
            "role": "assistant",
            "model": request.model,
            "stop_sequence": None,
        }
        if request.stream:
            try:
                self._stream(request, message, blocks, stop)
            except (BrokenPipeError, ConnectionResetError):
                state.log({"client_gone": number})
                self.close_connection = True
        else:
            usage = self._usage(state.usage.output_tokens)
            self._json(200, {**message, "content": blocks, "stop_reason": stop, "usage": usage})

    def _wanted_error(self, request: Request) -> int:
        if code := request.directive("ERR"):
            return int(code)
        if both := request.directive("ERRN"):
            code, _, times = both.partition(",")
            if self.server.state.fails_again(request.last, int(times)):
                return int(code)
        return 0

    def _stream(
        self, request: Request, message: dict[str, Any], blocks: list[dict[str, Any]], stop: str
    ) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        start = {**message, "content": [], "stop_reason": None, "usage": self._usage(1)}
        self._event("message_start", message=start)
        for index, block in enumerate(blocks):
            text = block["type"] == "text"
            empty = {**block, "text": ""} if text else {**block, "input": {}}
            self._event("content_block_start", index=index, content_block=empty)
            if not text:
                delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
                self._event("content_block_delta", index=index, delta=delta)
            elif not self._stream_words(request, index, block["text"]):
                return
            self._event("content_block_stop", index=index)
        ending = {"stop_reason": stop, "stop_sequence": None}
        usage = {"output_tokens": self.server.state.usage.output_tokens}
        self._event("message_delta", delta=ending, usage=usage)
        self._event("message_stop")
        self._chunk(b"")

    def _stream_words(self, request: Request, index: int, text: str) -> bool:
        """Sends a text word by word; False when the answer was broken off, as asked."""
        words = re.findall(r"\S*\s*", text)[:-1]
        seconds = request.directive("STREAM")
        if seconds:
            count = round(float(seconds) / STREAM_STEP_S)
            words = [f"word{i}" + (" " if i % 10 < 9 else "\n") for i in range(count)] + words
        for number, word in enumerate(words):
            delta = {"type": "text_delta", "text": word}
            self._event("content_block_delta", index=index, delta=delta)
            if seconds:
                time.sleep(STREAM_STEP_S)
            last = number == min(BREAK_AFTER, len(words)) - 1
            if last and request.says("MIDERR"):
                self._event("error", error={"type": "overloaded_error", "message": "Overloaded"})
                self._chunk(b"")
                return False
            if last and request.says("DROP"):
                self.close_connection = True
                return False
        return True

    def _usage(self, output_tokens: int) -> dict[str, int]:
        return {
            "input_tokens": self.server.state.usage.input_tokens,
            "output_tokens": output_tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
        }

    def _event(self, kind: str, **data: object) -> None:
        self._chunk(f"event: {kind}\ndata: {json.dumps({'type': kind, **data})}\n\n".encode())

    def _chunk(self, payload: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(payload), payload))
        self.wfile.flush()

    def _error(self, code: int, message: str) -> None:
        kind = ERRORS.get(code, "api_error")
        self._json(code, {"type": "error", "error": {"type": kind, "message": message}})

    def _json(self, code: int, value: dict[str, Any]) -> None:
        payload = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)


class MessagesApi:
    """The stand-in as a context manager; it answers while the block runs.

    Args:
        port: on loopback; 0 takes a free one.
        log_path: gets a JSON line for each request; None keeps them in memory only.
        usage: what each answer says it cost.
    """

    def __init__(
        self, port: int = 0, *, log_path: Path | None = None, usage: Usage | None = None
    ) -> None:
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.state = _State(log_path, usage or Usage())
        self._thread = threading.Thread(target=self.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """What ANTHROPIC_BASE_URL is set to."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def requests(self) -> list[dict[str, Any]]:
        """The requests so far, as in the log."""
        with self._server.state.lock:
            return list(self._server.state.requests)

    def serve_forever(self) -> None:
        """Answers until `close()`."""
        self._server.serve_forever(poll_interval=0.05)

    def close(self) -> None:
        """Stops answering."""
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def main() -> None:
    """Runs as a program until it is killed; prints its address once it listens."""
    parser = argparse.ArgumentParser(description="A stand-in for the Messages API.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--log", type=Path)
    parser.add_argument("--input-tokens", type=int, default=Usage().input_tokens)
    parser.add_argument("--output-tokens", type=int, default=Usage().output_tokens)
    options = parser.parse_args()
    usage = Usage(options.input_tokens, options.output_tokens)
    api = MessagesApi(options.port, log_path=options.log, usage=usage)
    print(api.url, flush=True)
    api.serve_forever()


if __name__ == "__main__":
    main()
