"""A message to Claude: the long-lived drivers against `claude -p --resume` for each, the way it was.

The real CLI against the tests' stand-in for the Messages API, which answers at once: the first token is
when it has the request. One conversation of a few messages each, of which the first is not counted.
"""

from __future__ import annotations

import json
import time
import uuid
from datetime import datetime
from typing import Any

from benchmarks.figures import OURS
from benchmarks.measure import PORT, Bench
from tests.claude.conftest import API_LOG, ENVIRONMENT, furnish
from tests.machine.product import HOME, STATE

OLD = "claude -p --resume"
BY_HAND = "claude -p kept open, fed by hand"
PAUSE_S = 1.0  # between an answer and the next message, as a person would
MIB = 1024 * 1024
# claude -p for each: when it was started, ended, its CPU and its largest memory
_OLD = """
import json, os, subprocess, sys, time
told = []
for n, text in enumerate(sys.argv[2:]):
    session = ["--session-id" if n == 0 else "--resume", sys.argv[1]]
    begun = time.time()
    process = subprocess.Popen(
        ["claude", "-p", *session, "--output-format", "stream-json", "--verbose", "--", text],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd=os.environ["HOME"] + "/old")
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"claude ended with {status}")
    told.append({"at": begun, "end": time.time(), "cpu": used.ru_utime + used.ru_stime, "peak": used.ru_maxrss * 1024})
print(json.dumps(told))
"""
# one claude -p, a message a line: what the stream driver is built on, with nothing of ours
_BY_HAND = """
import json, os, subprocess, sys, time
process = subprocess.Popen(
    ["claude", "-p", "--session-id", sys.argv[1], "--input-format", "stream-json", "--output-format", "stream-json",
     "--verbose"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, cwd=os.environ["HOME"] + "/old")
told = []
for text in sys.argv[2:]:
    message = {"role": "user", "content": [{"type": "text", "text": text}]}
    begun = time.time()
    process.stdin.write(json.dumps({"type": "user", "message": message}) + "\\n")
    while json.loads(process.stdout.readline())["type"] != "result":
        pass
    told.append({"at": begun, "end": time.time()})
    time.sleep(0.3)
process.kill()
print(json.dumps(told))
"""


def message(bench: Bench) -> None:
    """Time to the first token, to the end, CPU and memory, a message."""
    furnish(bench.product)
    bench.machine.run(["mkdir", "-p", f"{HOME}/old"])
    count = max(bench.runs, 3) if bench.quick else max(bench.runs, 10)
    env = dict(line.split("=", 1) for line in ENVIRONMENT.splitlines())
    for name, script in ((OLD, _OLD), (BY_HAND, _BY_HAND)):
        texts = _texts(count, name)
        program = ["env", *(f"{k}={v}" for k, v in env.items()), "python3", "-c", script]
        done = bench.machine.run([*program, str(uuid.uuid4()), *texts], timeout=300)
        told: list[dict[str, float]] = json.loads(done.stdout)[1:]
        heard = _heard(bench)
        first = [(heard[text] - one["at"]) * 1e3 for one, text in zip(told, texts[1:], strict=True)]
        bench.note("message", "first token", "ms", first, system=name)
        total = [(one["end"] - one["at"]) * 1e3 for one in told]
        bench.note("message", "total", "ms", total, system=name)
        if name == OLD:
            bench.note("message", "CPU", "s", [one["cpu"] for one in told], system=name)
            bench.note(
                "message",
                "memory",
                "MiB",
                [one["peak"] / MIB for one in told],
                system=name,
                how="largest RSS",
            )
        else:
            bare = sorted(first)[len(first) // 2]
    for name, driver in ((f"{OURS}, stream driver", "claude_stream"), (f"{OURS}, TUI", "claude")):
        _ours(bench, name, driver, count, bare)


def _texts(count: int, name: str) -> list[str]:
    return [f"what is {n}+{len(name)} for {name}" for n in range(1, count + 2)]


def _heard(bench: Bench) -> dict[str, float]:
    """When the API had each text, whatever stands around it."""
    entries = [json.loads(line) for line in bench.product.read(API_LOG).splitlines()]
    return {str(e["last"]).strip(): float(e["at"]) for e in entries if e.get("last")}


def _ours(bench: Bench, name: str, driver: str, count: int, bare: float) -> None:
    product = bench.product
    ticket = product.new("Say hello", "--driver", driver, "--start")
    _ended(bench, ticket, 1)
    api = f"/api/ticket/{ticket}"
    spec: dict[str, Any] = {
        "kind": "events", "port": PORT, "path": f"{api}/stream?replay=0",
        "headers": {"Authorization": f"Bearer {product.read(f'{STATE}/token').strip()}"},
        "keys": [f"{api}/input", {}], "key_name": "text",
    }  # fmt: skip
    texts, told = _texts(count, name), []
    parts = ["mc-webgate.service", "mc-dispatch.service", "mc-ingest.service", f"ticket@{ticket}"]
    with bench.client(spec) as client:
        for number, text in enumerate(texts):
            if number == 1:
                used = sum(bench.cpu_s(bench.service_pids(unit)) for unit in parts)
            time.sleep(PAUSE_S)
            told.append(client.ask(f"say {text}")["at"])
            _ended(bench, ticket, number + 2)
    used = sum(bench.cpu_s(bench.service_pids(unit)) for unit in parts) - used
    heard = _heard(bench)
    first = [(heard[text] - at) * 1e3 for text, at in zip(texts[1:], told[1:], strict=True)]
    bench.note(
        "message", "first token", "ms", first, system=name, how="POST /input until the API has it"
    )
    ends = [datetime.fromisoformat(line["at"]).timestamp() for line in _ends(bench, ticket)]
    total = [(end - at) * 1e3 for end, at in zip(ends[2:], told[1:], strict=True)]
    bench.note("message", "total", "ms", total, system=name)
    bench.note(
        "message", "CPU", "s", [used / count], system=name, how="ticket, gateway, dispatch, ingest"
    )
    memory = bench.pss_bytes(bench.service_pids(f"ticket@{ticket}")) / MIB
    bench.note("message", "memory", "MiB", [memory], system=name, how="PSS of the ticket")
    # sent_at is written down right before the first byte: the rest is the paste and its Enter
    rows = {
        str(m["body"]): m
        for m in json.loads(product.ctl("queue", str(ticket), "-n", "1000", "--json").stdout)
    }
    marked = [datetime.fromisoformat(rows[text]["sent_at"]).timestamp() for text in texts[1:]]
    held = [(sent - at) * 1e3 for sent, at in zip(marked, told[1:], strict=True)]
    bench.note("message", "until its first byte is sent", "ms", held, system=name)
    own = [one - bare for one in first]
    bench.note("message", "our own part", "ms", own, system=name, how=f"above {BY_HAND}")
    product.ctl("stop", str(ticket), check=False)


def _ends(bench: Bench, ticket: int) -> list[dict[str, Any]]:
    """The sidecar's lines that end a turn."""
    return [
        line for line in bench.product.sidecar(ticket)
        if line["hook"] == "Stop" or (line["hook"] == "stream" and line["data"].get("type") == "result")
    ]  # fmt: skip


def _ended(bench: Bench, ticket: int, count: int) -> None:
    bench.machine.wait_for(
        lambda: len(_ends(bench, ticket)) >= count, what=f"{count} turns", timeout=90
    )
