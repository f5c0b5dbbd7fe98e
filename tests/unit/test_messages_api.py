"""The stand-in for the Messages API that the tests with the real CLI rely on, over real sockets."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import IncompleteRead
from pathlib import Path
from typing import Any

import pytest

from tests.claude import messages_api, seed
from tests.claude.messages_api import MessagesApi, Usage

TOOLS = [{"name": "Bash"}]


@pytest.fixture
def api(tmp_path: Path) -> Iterator[MessagesApi]:
    """A running one."""
    with MessagesApi(log_path=tmp_path / "log", usage=Usage(7, 3)) as running:
        yield running


def post(api: MessagesApi, text: Any, **more: Any) -> dict[str, Any]:
    """A message that is not streamed."""
    body = {"model": "m", "tools": TOOLS, "messages": [{"role": "user", "content": text}], **more}
    return json.loads(send(api.url, "/v1/messages?beta=true", body))  # type: ignore[no-any-return]


def send(url: str, path: str, body: Any) -> bytes:
    """The answer to a POST."""
    request = urllib.request.Request(url + path, json.dumps(body).encode())  # noqa: S310 - ours
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        return answer.read()  # type: ignore[no-any-return]


def stream(api: MessagesApi, text: str) -> list[dict[str, Any]]:
    """The events of a streamed answer."""
    body = {"stream": True, "tools": TOOLS, "messages": [{"role": "user", "content": text}]}
    events = send(api.url, "/v1/messages", body).decode().split("\n\n")
    return [json.loads(event.partition("\ndata: ")[2]) for event in events if event]


def streamed_text(events: list[dict[str, Any]]) -> str:
    """The text of a stream, put together."""
    return "".join(e.get("delta", {}).get("text", "") for e in events)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("hello what is 2+2", "2 + 2 = 4"),
        ("what is 2+2?", "2 + 2 = 4"),
        ("It is 12 * 12. Is it?", "12 * 12 = 144"),
        ("7/2", "7 / 2 = 3.5"),
        ("1/0", "Nothing can be divided by zero."),
        ("just words", "You said: just words"),
    ],
)
def test_it_answers_sums(api: MessagesApi, question: str, answer: str) -> None:
    """As a person would write them, streamed or not, with the usage it was told to claim."""
    reply = post(api, question)
    assert reply["content"] == [{"type": "text", "text": answer}]
    assert (reply["stop_reason"], reply["usage"]["input_tokens"]) == ("end_turn", 7)
    events = stream(api, question)
    assert streamed_text(events) == answer
    assert events[0]["message"]["usage"]["input_tokens"] == 7
    assert events[-2]["usage"] == {"output_tokens": 3}
    assert events[-1] == {"type": "message_stop"}


def test_the_log_has_the_exact_text(api: MessagesApi, tmp_path: Path) -> None:
    """So that a test can compare what arrived byte by byte with what was typed."""
    text = "  zwei\n\tZeilen \\ ü 🙂 \x1b \r\n "
    reminder = {"type": "text", "text": "<system-reminder>not typed</system-reminder>"}
    messages = [
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "answer"},
        {"role": "user", "content": [reminder, {"type": "text", "text": text}]},
    ]
    post(api, "", messages=messages)
    (entry,) = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert entry == api.requests[0]
    assert (entry["last"], entry["users"], entry["n"]) == (text, ["first", text], 1)
    assert entry["roles"] == ["user", "assistant", "user"]


@pytest.mark.parametrize(
    ("text", "tool", "arguments"),
    [
        ("BASH{ls -l}", "Bash", {"command": "ls -l", "description": "run it"}),
        ("READ{/a b}", "Read", {"file_path": "/a b"}),
        ("WRITE{/a}", "Write", {"file_path": "/a", "content": "hello\n"}),
    ],
)
def test_it_calls_tools_when_asked(
    api: MessagesApi, text: str, tool: str, arguments: dict[str, str]
) -> None:
    """Streamed or not; and goes on in words once the tool has answered."""
    reply = post(api, text)
    assert reply["stop_reason"] == "tool_use"
    assert (reply["content"][1]["name"], reply["content"][1]["input"]) == (tool, arguments)
    parts = [e["delta"].get("partial_json", "") for e in stream(api, text) if "delta" in e]
    assert json.loads("".join(parts)) == arguments
    result = {"type": "tool_result", "tool_use_id": reply["content"][1]["id"], "content": text}
    assert post(api, [result])["stop_reason"] == "end_turn"
    assert json.loads(api.requests[-1]["tool_results"][0])["content"] == text


def test_it_asks_and_delegates(api: MessagesApi) -> None:
    """ASKQ and TASK are tool calls of their own."""
    question = post(api, "ASKQ")["content"][1]["input"]["questions"][0]
    assert question["question"] == "Which colour?"
    task = post(api, "TASK{look around}")["content"][1]
    assert (task["name"], task["input"]["prompt"]) == ("Agent", "look around")


def test_errors_come_when_asked_for(api: MessagesApi) -> None:
    """ERR each time, ERRN so many times; the CLI's side errands, without tools, are spared."""
    with pytest.raises(urllib.error.HTTPError) as refused:
        post(api, "ERR{429}")
    assert refused.value.code == 429
    assert json.load(refused.value)["error"]["type"] == "rate_limit_error"
    for _ in range(2):
        with pytest.raises(urllib.error.HTTPError, match="529"):
            post(api, "ERRN{529,2}")
    assert post(api, "ERRN{529,2}")["stop_reason"] == "end_turn"
    assert post(api, "ERR{429}", tools=[])["stop_reason"] == "end_turn"


def test_what_was_never_answered_is_not_obeyed_again(api: MessagesApi) -> None:
    """After an error the CLI sends the failed text again, in one message with the next."""
    parts = [{"type": "text", "text": "ERR{400}\n"}, {"type": "text", "text": "2+2"}]
    assert post(api, parts)["content"][0]["text"] == "2 + 2 = 4"
    assert api.requests[-1]["last"] == "2+2"
    assert api.requests[-1]["users"] == ["ERR{400}\n", "2+2"]


def test_slow_and_broken_streams(api: MessagesApi) -> None:
    """SLOW waits, STREAM takes its time, MIDERR and DROP break off."""
    started = time.monotonic()
    stream(api, "SLOW{0.2}")
    assert time.monotonic() - started >= 0.2
    started = time.monotonic()
    assert streamed_text(stream(api, "STREAM{0.3} now")).startswith("word0 word1 word2 You said")
    assert time.monotonic() - started >= 0.3
    assert stream(api, "one two three MIDERR")[-1]["error"]["type"] == "overloaded_error"
    with pytest.raises(IncompleteRead):
        stream(api, "one two three DROP")


def test_the_rest_of_the_api_is_polite(api: MessagesApi) -> None:
    """Counting tokens, HEAD, GET, telemetry and nonsense are answered."""
    assert json.loads(send(api.url, "/v1/messages/count_tokens", {}))["input_tokens"] >= 1
    assert send(api.url, "/api/telemetry", {}) == b"{}"
    for method in ("HEAD", "GET"):
        request = urllib.request.Request(api.url + "/x", method=method)  # noqa: S310
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            assert answer.status == 200
    with pytest.raises(urllib.error.HTTPError, match="400"):
        send(api.url, "/v1/messages", {"messages": [7]})


def test_it_is_a_program_for_a_bare_machine(tmp_path: Path) -> None:
    """It runs by itself, isolated from any package, and says where it listens."""
    argv = [sys.executable, "-I", "-S", messages_api.__file__, "--log", str(tmp_path / "log")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        url = process.stdout.readline().strip()
        send(url, "/v1/messages", {"messages": [{"role": "user", "content": "2+2"}]})
        process.terminate()
    assert json.loads((tmp_path / "log").read_text())["last"] == "2+2"


def test_a_home_is_seeded_without_losing_what_is_there(tmp_path: Path) -> None:
    """The answers of a first run are added; trust in folders is the product's to give."""
    path = tmp_path / ".claude.json"
    path.write_text('{"userID":"x","hasCompletedOnboarding":false}')
    assert seed.seed(tmp_path, "k" * 30 + "-the-last-20-of-them") == path
    written = json.loads(path.read_text())
    assert written["userID"] == "x"
    assert written["hasCompletedOnboarding"] is True
    assert written["customApiKeyResponses"]["approved"] == ["-the-last-20-of-them"]
    assert "projects" not in written
    assert [p.name for p in tmp_path.iterdir()] == [".claude.json"]
