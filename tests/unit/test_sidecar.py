"""The sidecar: what the tee appends, and that every complete line is read once, whatever it is."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import shlex
import stat
import subprocess
import sys
import tempfile
import time
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator import sidecar, sidecar_tee
from orchestrator.sidecar import Poison, Record
from orchestrator.sidecar_tee import MAX_LINE_BYTES

TEE = Path(sidecar_tee.__file__)
HEAD = b'{"v":1,"at":"2026-11-22T19:26:32.123456Z","hook":"Stop","data":'


def run_tee(path: Path, hook: str, told: bytes, *more: str) -> subprocess.CompletedProcess[bytes]:
    """The tee as the agent runs it."""
    argv = [sys.executable, "-I", "-S", str(TEE), str(path), hook, *more]
    return subprocess.run(argv, input=told, capture_output=True, check=False, timeout=60)


def records(path: Path) -> list[Record]:
    """All lines of a file that has to be without poison."""
    found = list(sidecar.read(path))
    assert [p for p in found if isinstance(p, Poison)] == []
    return [r for r in found if isinstance(r, Record)]


def test_the_tee_appends_one_line_and_prints_nothing(tmp_path: Path) -> None:
    """What a hook was told, pretty-printed or not, is one line; stdout would reach the model."""
    path = tmp_path / "sidecar.jsonl"
    told = json.dumps({"session_id": "x", "prompt": "zwei\nZeilen ü 🙂"}, indent=2)
    done = run_tee(path, "UserPromptSubmit", told.replace("\n", "\r\n").encode())
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert path.read_bytes().count(b"\n") == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (record,) = records(path)
    assert record.hook == "UserPromptSubmit"
    assert record.data == json.loads(told)
    assert abs(record.at.timestamp() - time.time()) < 60
    assert (record.offset, record.end) == (0, path.stat().st_size)


@pytest.mark.parametrize(
    ("told", "ticket", "shown"),
    [
        (b'{"cost":{"total_cost_usd":0.0123,"x":1}}', ["42"], "ticket-42 · $0.0123"),
        (b'{"cost":{"total_cost_usd": 12}}', [], "$12.0000"),
        (b'{"cost":{"total_cost_usd":NaN}}', ["42"], "ticket-42"),
        (b'{"cost":{"total_cost_usd":1e999}}', ["42"], "ticket-42"),
        (rb'{"cwd":"\"total_cost_usd\":7","cost":{}}', ["42"], "ticket-42"),
        (b"", [], ""),
    ],
)
def test_the_status_line_is_one_short_line(
    tmp_path: Path, told: bytes, ticket: list[str], shown: str
) -> None:
    """For the foot of the pane, whatever the agent says its cost is."""
    done = run_tee(tmp_path / "sidecar.jsonl", "statusLine", told, *ticket)
    assert (done.returncode, done.stdout.decode()) == (0, shown + "\n")


def test_what_goes_wrong_holds_up_no_turn(tmp_path: Path) -> None:
    """Status 0 and a word on stderr: any other status would disturb the agent."""
    for argv in ([str(tmp_path / "no" / "folder"), "Stop"], [str(tmp_path / "s"), "$(id)"], []):
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(TEE), *argv],
            input=b"{}", capture_output=True, check=False, timeout=60,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (0, b"")
        assert done.stderr.startswith(b"sidecar tee: ")


def test_what_is_no_object_is_kept_out(tmp_path: Path) -> None:
    """The call of the hook counts even when what it was told cannot be used."""
    path = tmp_path / "sidecar.jsonl"
    for told in (b"", b"what?", b"[1]"):
        run_tee(path, "Stop", told)
    assert [r.data for r in records(path)] == [
        {"unreadable": True, "size_bytes": size} for size in (0, 5, 3)
    ]


def test_too_much_is_named_instead_of_kept(tmp_path: Path) -> None:
    """A line past the limit says whose it was and how long, in bounded memory."""
    path = tmp_path / "sidecar.jsonl"
    data = {"session_id": "abc", "tool_name": "Bash", "tool_input": {"session_id": "not this"}}
    told = json.dumps({**data, "tool_response": "x" * (64 << 20), "tool_use_id": "lost"}).encode()
    run_tee(path, "PostToolUse", told)
    assert path.stat().st_size < 1024
    (record,) = records(path)
    kept = {"session_id": "abc", "tool_name": "Bash"}
    assert record.data == {**kept, "truncated": True, "size_bytes": len(told)}


def test_the_longest_line_that_is_kept_can_be_read(tmp_path: Path) -> None:
    """The tee's limit and the reader's fit each other to the byte."""
    path = tmp_path / "sidecar.jsonl"
    size = sidecar_tee.MAX_DATA_BYTES
    run_tee(path, "P" * 64, b'{"a":"' + b"x" * (size - 8) + b'"}')
    run_tee(path, "Stop", b'{"a":"' + b"x" * (size - 7) + b'"}')
    whole, cut = records(path)
    assert len(whole.data["a"]) == size - 8
    assert cut.data["truncated"] is True


def test_a_torn_line_costs_only_itself(tmp_path: Path) -> None:
    """Who died in the middle of a write takes no later line with it."""
    path = tmp_path / "sidecar.jsonl"
    path.write_bytes(HEAD + b'{"half')
    sidecar.append(path, "SessionEnd", {"reason": "other"})
    torn, record = sidecar.read(path)
    assert torn == Poison(
        offset=0, end=len(HEAD) + 7, reason="not JSON", hook="Stop"
    )  # 6 bytes and the newline that mends it
    assert isinstance(record, Record)
    assert (record.hook, record.offset) == ("SessionEnd", torn.end)


def test_a_full_disk_leaves_no_half_line(tmp_path: Path) -> None:
    """A write that was cut short is taken back, so that what follows stays readable."""
    path = tmp_path / "sidecar.jsonl"
    sidecar.append(path, "Stop", {"n": 1})
    before = path.stat().st_size
    code = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({before + 10}, resource.RLIM_INFINITY))\n"
        f"sys.argv = ['tee', {str(path)!r}, 'Stop']\n"
        f"exec(compile(open({str(TEE)!r}).read(), 'tee', 'exec'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=b'{"n":2}', capture_output=True, check=False
    )
    assert b"10 of" in done.stderr
    assert path.stat().st_size == before
    sidecar.append(path, "Stop", {"n": 3})
    assert [r.data["n"] for r in records(path)] == [1, 3]


def test_a_lock_that_is_never_let_go_stops_nobody(tmp_path: Path) -> None:
    """A hook waits a second for it at most, then appends all the same."""
    path = tmp_path / "sidecar.jsonl"
    path.touch()
    with path.open("rb") as holder:
        flock(holder, LOCK_EX)
        started = time.monotonic()
        sidecar.append(path, "Stop", {})
        assert time.monotonic() - started < 5 * sidecar_tee.LOCK_WAIT_S
    assert len(records(path)) == 1


def _append_many(path: Path, writer: int, count: int) -> None:
    for number in range(count):
        if number % 10 == 7:  # somebody who dies half way, without a lock
            with path.open("ab", buffering=0) as file:
                file.write(HEAD + b'{"torn')
        sidecar.append(path, "Stop", {"writer": writer, "number": number, "text": "x" * 3000})


def test_appenders_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    """Every line of every process arrives whole and in its own order, torn ones in between."""
    path = tmp_path / "sidecar.jsonl"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_append_many, args=(path, w, 100)) for w in range(4)]
    for process in writers:
        process.start()
    for process in writers:
        process.join(60)
        assert process.exitcode == 0
    seen: dict[int, list[int]] = {writer: [] for writer in range(4)}
    for found in sidecar.read(path):
        if isinstance(found, Record):
            seen[found.data["writer"]].append(found.data["number"])
    assert seen == {writer: list(range(100)) for writer in range(4)}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'{"a":NaN}', "NaN or an infinity"),
        (b'{"a":-Infinity}', "NaN or an infinity"),
        (b'{"a":1e999}', "a number out of range"),
        (b'{"a":1e-99999}', "a number out of range"),
        (b'{"a":0.' + b"5" * 5000 + b"}", "a number out of range"),
        (b'{"a":' + b"9" * 5000 + b"}", "a number out of range"),
        (rb'{"a":"\u0000"}', "a NUL character"),
        (rb'{"\u0000":1}', "a NUL character"),
        (rb'{"a":["\ud83d"]}', "half a surrogate pair"),
        (rb'{"a":["\uDE00\uD83D"]}', "half a surrogate pair"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (b'{"a":' + b"[" * 120 + b"]" * 120 + b"}", "nested too deeply"),
        (b'{"a":' + b'{"a":' * 100_000, "nested too deeply"),
        (b'{"a":"\xff"}', "not UTF-8"),
        (b'{"a":"\x00"}', "not JSON"),
        (b"{", "not JSON"),
        (b"[1]", "without the data of a hook"),
        (b"null", "without the data of a hook"),
    ],
)
@pytest.mark.fault(17)
def test_hostile_data_is_poison(data: bytes, reason: str) -> None:
    """What the database could not hold is refused by name, with where it was and whose it was."""
    line = HEAD + data + (b"}\n" if data != b"{" else b"\n")
    assert sidecar.parse_line(line, 7) == Poison(
        offset=7, end=7 + len(line), reason=reason, hook="Stop"
    )


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"\n", "not JSON"),
        (b"[]\n", "not a JSON object"),
        (b'{"v":2,"at":"2026-11-22T19:26:32Z","hook":"Stop","data":{}}\n', "not of version 1"),
        (b'{"v":1,"at":"2026-11-22T19:26:32Z","hook":"../x","data":{}}\n', "without the name"),
        (b'{"v":1,"at":"2026-11-22T19:26:32Z","hook":7,"data":{}}\n', "without the name"),
        (b'{"v":1,"at":"yesterday","hook":"Stop","data":{}}\n', "without a time"),
        (b'{"v":1,"at":5,"hook":"Stop","data":{}}\n', "without a time"),
        (b'{"v":1,"at":"2026-11-22T19:26:32","hook":"Stop","data":{}}\n', "with a time that has"),
    ],
)
def test_what_is_no_line_of_ours_is_poison(line: bytes, reason: str) -> None:
    """Every member is checked."""
    found = sidecar.parse_line(line, 0)
    assert isinstance(found, Poison)
    assert found.reason.startswith(reason)


def test_what_only_looks_hostile_is_read() -> None:
    """Escaped backslashes, whole pairs and many brackets in texts are ordinary."""
    data = {"a": "\\u0000 \\ud83d", "b": "🙂", "c": "[{" * 500, "d": 10**60, "e": [1.5, None]}
    line = HEAD + json.dumps(data).encode() + b"}\n"
    found = sidecar.parse_line(line, 0)
    assert isinstance(found, Record)
    assert found.data == data


@settings(deadline=None)
@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(10**30), 10**30)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
        ),
        max_leaves=12,
    ),
    st.sampled_from(["ascii", "utf-8"]),
    st.sampled_from([",", " ,\t", " , "]),
)
def test_the_quick_way_reads_what_the_long_way_reads(value: Any, alphabet: str, comma: str) -> None:
    """Of any line: the same record or the same poison; and the text it keeps is its data."""
    data = json.dumps({"a": value}, ensure_ascii=alphabet == "ascii", separators=(comma, ":"))
    line = HEAD + data.encode("utf-8", "surrogatepass") + b"}\n"
    quick = sidecar.parse_line(line, 3)
    long = sidecar.parse_line(line.replace(b'{"v":1,', b'{ "v":1,', 1), 3)
    assert (quick.offset, quick.end + 1) == (long.offset, long.end)
    if isinstance(quick, Poison):
        assert isinstance(long, Poison)
        assert quick.reason == long.reason
        return
    assert isinstance(long, Record)
    assert (quick.hook, quick.at, quick.data) == (long.hook, long.at, long.data)
    assert json.loads(quick.text) == quick.data
    assert json.loads(long.text) == long.data


@pytest.mark.parametrize("more", [b',"x":1', b" ", b',"data":{}', b"}", b"x"])
def test_what_follows_the_data_is_not_taken_for_it(more: bytes) -> None:
    """A line with more in it than we write is read the long way, or is poison."""
    found = sidecar.parse_line(HEAD + b'{"a":1}' + more + b"}\n", 0)
    if isinstance(found, Record):
        assert json.loads(found.text) == found.data


@given(st.binary(max_size=300))
def test_any_bytes_are_a_record_or_poison(junk: bytes) -> None:
    """No line raises."""
    line = junk.replace(b"\n", b"") + b"\n"
    assert isinstance(sidecar.parse_line(line, 0), Poison)
    found = sidecar.parse_line(HEAD + line, 0)
    assert found.end == len(HEAD + line)


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"))
JSON = st.dictionaries(
    TEXT,
    st.recursive(
        st.none() | st.booleans() | st.integers(-(10**18), 10**18) | TEXT,
        lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
        max_leaves=5,
    ),
    max_size=4,
)


@settings(max_examples=60, deadline=None)
@given(
    lines=st.lists(st.tuples(JSON, st.booleans()), max_size=6),
    cuts=st.lists(st.integers(0, 2000), max_size=8),
)
def test_a_growing_file_is_read_once_whatever_the_pieces(
    lines: list[tuple[dict[str, Any], bool]], cuts: list[int]
) -> None:
    """Reading after every piece of it, from where one was, gives what one read at the end gives."""
    whole = b"".join(
        (b"garbage\n" if bad else b"") + sidecar_tee.frame("Stop", raw, len(raw))
        for data, bad in lines
        for raw in [json.dumps(data, ensure_ascii=False).encode()]
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "sidecar.jsonl")
        path.touch()
        offset = 0
        seen: list[Record | Poison] = []
        for cut in [*sorted(cuts), len(whole)]:
            path.write_bytes(whole[:cut])
            for found in sidecar.read(path, offset):
                assert found.offset == offset
                offset = found.end
                seen.append(found)
        assert offset == len(whole)
        assert seen == list(sidecar.read(path))
        assert [r.data for r in seen if isinstance(r, Record)] == [data for data, _ in lines]
        assert sum(isinstance(p, Poison) for p in seen) == sum(bad for _, bad in lines)


def test_endless_lines_take_bounded_memory(tmp_path: Path) -> None:
    """A gigabyte without a newline is skipped in pieces, and the next line is read."""
    path = tmp_path / "sidecar.jsonl"
    size = 1 << 30
    with path.open("wb") as file:
        file.write(HEAD)
        file.truncate(size)  # a hole; nothing is written
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (endless,) = sidecar.read(path)
    assert isinstance(endless, Poison)
    assert (endless.offset, endless.end, endless.hook) == (0, size, "Stop")
    assert list(sidecar.read(path, size)) == []
    sidecar.append(path, "Stop", {"n": 1})
    *rest, record = sidecar.read(path, size)
    assert all(isinstance(p, Poison) for p in rest)
    assert isinstance(record, Record)
    (long, again) = sidecar.read(path)
    assert isinstance(long, Poison)
    assert long.reason == f"longer than {MAX_LINE_BYTES} bytes"
    assert again == record
    grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kb < 16 * MAX_LINE_BYTES / 1024


def test_a_missing_file_is_the_callers_business(tmp_path: Path) -> None:
    """Only who follows the file knows whether it should be there."""
    with pytest.raises(FileNotFoundError):
        list(sidecar.read(tmp_path / "none"))


def test_append_writes_what_can_be_read_back(tmp_path: Path) -> None:
    """Half a pair becomes a question mark; NaN is refused before anything is written."""
    path = tmp_path / "sidecar.jsonl"
    sidecar.append(path, "Stop", {"a": "x\ud83dy\n"})
    with pytest.raises(ValueError, match="JSON"):
        sidecar.append(path, "Stop", {"a": float("nan")})
    assert [r.data for r in records(path)] == [{"a": "x?y\n"}]


def test_the_settings_run_the_tee(tmp_path: Path) -> None:
    """Each command, put through a shell as the agent does, appends its own hook's line."""
    folder = tmp_path / "it's a $(folder); with 'quotes'"
    folder.mkdir()
    path = folder / "sidecar.jsonl"
    made = sidecar.settings_hooks(sys.executable, TEE, path, 42)
    assert "MessageDisplay" not in made["hooks"]
    json.dumps(made)
    for name, ((entry,),) in ((n, [g["hooks"] for g in gs]) for n, gs in made["hooks"].items()):
        assert entry["timeout"] == sidecar.HOOK_TIMEOUT_S
        assert shlex.split(entry["command"])[-1] == name
    line = made["statusLine"]["command"]
    told = b'{"cost":{"total_cost_usd":0.5}}'
    done = subprocess.run(["/bin/sh", "-c", line], input=told, capture_output=True, check=True)
    assert done.stdout.decode() == "ticket-42 · $0.5000\n"
    ((stop,),) = [group["hooks"] for group in made["hooks"]["Stop"]]
    subprocess.run(["/bin/sh", "-c", stop["command"]], input=b"{}", check=True)
    assert [r.hook for r in records(path)] == ["statusLine", "Stop"]


def test_the_tee_is_light() -> None:
    """It runs several times a turn while the agent waits: no json, no re, no typing."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-X", "importtime", str(TEE), os.devnull, "Stop"],
        input=b"{}", capture_output=True, check=True,
    )  # fmt: skip
    loaded = {line.rpartition(b"|")[2].strip().decode() for line in done.stderr.splitlines()}
    assert not loaded & {"json", "re", "typing", "enum", "pathlib", "site", "datetime"}
