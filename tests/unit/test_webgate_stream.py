"""Streams: every byte in order, once, or a gap that says so; and nobody pays for another's slowness."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from orchestrator.store import messages, tickets
from orchestrator.store.tickets import Ticket
from orchestrator.tmux_control import Control
from tests.unit.gateway import Gateway
from webgate import stream
from webgate.problems import Full


def make(gateway: Gateway, content: bytes | None = None) -> tuple[Ticket, Path]:
    """A ticket and its pane log."""
    ticket = tickets.create(gateway.database, title="streams")
    path = gateway.pane_log(ticket.id)
    if content is not None:
        path.write_bytes(content)
    return ticket, path


def held(process: psutil.Process) -> int:
    """Viewers' connections and pane logs the gateway has open."""
    logs = [f for f in process.open_files() if f.path.endswith("pane.log")]
    return len(logs) + len([c for c in process.net_connections("tcp") if c.raddr])


def append(path: Path, data: bytes) -> None:
    """As `cat >>` does."""
    with path.open("ab", buffering=0) as file:
        file.write(data)


def test_headers_and_news(shared_gateway: Gateway) -> None:
    """A stream begins with what is known of the ticket, kept by no cache."""
    ticket, _ = make(shared_gateway, b"x")
    messages.enqueue(shared_gateway.database, ticket.id, "hello")
    with shared_gateway.stream(ticket.id) as viewer:
        assert viewer.status == 200
        assert viewer.headers["content-type"] == "text/event-stream"
        assert viewer.headers["cache-control"] == "no-store"
        assert viewer.next("state").json()["status"] == "open"
        assert viewer.next("queue").json()["messages"][0]["text"] == "hello"
        assert viewer.next("pane").data == b"x"


def test_changes_arrive(shared_gateway: Gateway) -> None:
    """State, cost and outcomes, as they change in the database."""
    ticket, _ = make(shared_gateway)
    with shared_gateway.stream(ticket.id) as viewer:
        viewer.next("queue")
        tickets.update(shared_gateway.database, ticket.id, turn_state="busy", cost_usd="0.25")
        # what it was when the ticket was made may still come, too
        while (state := viewer.next("state").json())["turn_state"] != "busy":
            pass
        assert state["cost_usd"] == 0.25
        message = messages.enqueue(shared_gateway.database, ticket.id, "hello")
        while not (shown := viewer.next("queue").json()["messages"]):
            pass
        assert shown[0]["outcome"] == "queued"
        messages.settle(shared_gateway.database, [message.id], "refused", "because")
        while (shown := viewer.next("queue").json()["messages"])[0]["outcome"] == "queued":
            pass
        assert (shown[0]["outcome"], shown[0]["reason"]) == ("refused", "because")


def test_the_first_look_replays_the_end(shared_gateway: Gateway) -> None:
    """So many bytes as were asked for, from a line's beginning; 64 KB at most."""
    content = b"".join(b"%06d\n" % i for i in range(20_000))
    ticket, path = make(shared_gateway, content)
    for query, most in (
        ("?replay=10240", 10_240),
        ("?replay=100", 100),
        ("?replay=999999", 65_536),
        ("?replay=0", 0),
    ):
        with shared_gateway.stream(ticket.id, query) as viewer:
            viewer.next("state")
            end = b"END %06d\n" % most
            append(path, end)
            shown = viewer.read_until(end)
        content += end
        assert most - 11 <= len(shown) - len(end) <= most
        assert content.endswith(shown)
        assert content[-len(shown) - 1 : -len(shown)] == b"\n"


@pytest.mark.parametrize("replay", ["-1", "x", "", "1e3", "1" * 16, "\u0661"])
def test_replay_is_a_number(shared_gateway: Gateway, replay: str) -> None:
    """Anything else is a 400."""
    ticket, _ = make(shared_gateway)
    query = replay.encode().decode("latin-1") if replay.isascii() else "%D9%A1"
    assert shared_gateway.get(f"/api/ticket/{ticket.id}/stream?replay={query}").status == 400


@pytest.mark.fault(16)
def test_last_event_id_goes_on_at_the_byte(shared_gateway: Gateway) -> None:
    """Broken off anywhere and taken up again, the bytes are those of the file, also in mid-character."""
    ticket, path = make(shared_gateway, "é".encode()[:1])
    with shared_gateway.stream(ticket.id) as viewer:
        assert viewer.next("pane").data == b"\xc3"
    append(path, b"\xa9" + os.urandom(300_000))
    with shared_gateway.stream(ticket.id, last_event_id=viewer.last_id) as again:
        rest = again.next("pane").data
        last = again.last_id
    with shared_gateway.stream(ticket.id, f"?after={last}") as third:
        while len(rest) < 300_001:
            rest += third.next("pane").data
        assert "gap" not in [e.kind for e in third.seen + again.seen]
    assert b"\xc3" + rest == path.read_bytes()


def test_an_event_id_of_nobodys_is_ignored(shared_gateway: Gateway) -> None:
    """Rubbish is a first visit."""
    ticket, _ = make(shared_gateway, b"content")
    with shared_gateway.stream(ticket.id, last_event_id="../../etc:1") as viewer:
        assert viewer.next("pane").data == b"content"


def test_a_log_that_is_not_there_yet(shared_gateway: Gateway) -> None:
    """The stream opens before the ticket's folder exists, and then misses nothing."""
    ticket = tickets.create(shared_gateway.database, title="not started")
    with shared_gateway.stream(ticket.id, "?replay=10") as viewer:
        viewer.next("state")
        content = b"".join(b"%06d\n" % i for i in range(10_000))
        path = shared_gateway.pane_log(ticket.id)
        path.write_bytes(content)
        assert viewer.read_until(b"009999\n") == content


@pytest.mark.fault(13)
def test_a_log_that_is_made_again(shared_gateway: Gateway) -> None:
    """The rest of the old one, then the new one from its start: nothing is missing, so no gap."""
    ticket, path = make(shared_gateway, b"old")
    with shared_gateway.stream(ticket.id) as viewer:
        assert viewer.next("pane").data == b"old"
        path.rename(path.with_name("pane.log.1"))
        append(path.with_name("pane.log.1"), b" rest")
        path.write_bytes(b"new")
        assert viewer.next("pane").data == b" rest"
        assert viewer.next("pane").data == b"new"
        assert "gap" not in [e.kind for e in viewer.seen]


@pytest.mark.fault(13)
def test_a_log_that_was_rotated_while_away(shared_gateway: Gateway) -> None:
    """Who comes back with a place in the older file gets the rest of it, and of those after it."""
    ticket, path = make(shared_gateway, b"one")
    with shared_gateway.stream(ticket.id, "?replay=100") as viewer:
        viewer.next("pane")
    append(path, b" 1")
    path.rename(path.with_name("pane.log.2"))
    path.write_bytes(b"two 2")
    path.rename(path.with_name("pane.log.1"))
    path.write_bytes(b"three 3")
    with shared_gateway.stream(ticket.id, last_event_id=viewer.last_id) as again:
        assert again.read_until(b"3") == b" 1two 2three 3"
        assert "gap" not in [e.kind for e in again.seen]


@pytest.mark.fault(13)
def test_a_log_that_was_replaced_while_away(shared_gateway: Gateway) -> None:
    """Who comes back with the old one's place is told, and begins again."""
    ticket, path = make(shared_gateway, b"old content")
    with shared_gateway.stream(ticket.id) as viewer:
        viewer.next("pane")
    path.unlink()
    path.write_bytes(b"new content, longer")
    with shared_gateway.stream(ticket.id, last_event_id=viewer.last_id) as again:
        assert again.next("gap").json() == {"reason": "replaced"}
        assert again.next("pane").data == b"new content, longer"


@pytest.mark.fault(13)
def test_a_log_that_is_cut_short(shared_gateway: Gateway) -> None:
    """A gap, then what is there."""
    ticket, path = make(shared_gateway, b"much content")
    with shared_gateway.stream(ticket.id) as viewer:
        viewer.next("pane")
        os.truncate(path, 0)
        append(path, b"less")
        assert viewer.next("gap").json() == {"reason": "truncated"}
        assert viewer.next("pane").data == b"less"


@pytest.mark.fault(13)
def test_a_log_that_was_cut_and_grew_again(shared_gateway: Gateway) -> None:
    """Longer than before, and noticed all the same: what was there is not there any more."""
    ticket, path = make(shared_gateway, b"much content")
    with shared_gateway.stream(ticket.id) as viewer:
        viewer.next("pane")
        shared_gateway.process.send_signal(signal.SIGSTOP)
        os.truncate(path, 0)
        append(path, b"another content, and more of it")
        shared_gateway.process.send_signal(signal.SIGCONT)
        assert viewer.next("gap").json() == {"reason": "truncated"}
        assert viewer.next("pane").data == b"another content, and more of it"


def test_a_closed_ticket_ends(shared_gateway: Gateway) -> None:
    """The whole of its log, `end`, and the connection is done; also when it is closed meanwhile."""
    ticket, path = make(shared_gateway, b"first")
    with shared_gateway.stream(ticket.id) as viewer:
        viewer.next("pane")
        append(path, b"last")
        tickets.update(shared_gateway.database, ticket.id, status="closed")
        rest = list(viewer)
        assert b"".join(e.data for e in rest if e.kind == "pane") == b"last"
        assert (rest[-1].kind, rest[-1].json()) == ("end", {"reason": "closed"})
    with shared_gateway.stream(ticket.id) as viewer:
        kinds = [e.kind for e in viewer if e.kind]
        assert kinds[-2:] == ["pane", "end"]
        assert {"state", "queue", "cost", "permission"} <= set(kinds)


@pytest.mark.fault(3)
def test_a_killed_gateway_loses_no_byte(fresh_gateway: Gateway) -> None:
    """kill -9 with streams open: taken up again by Last-Event-ID, each viewer has the file's bytes."""
    ticket, path = make(fresh_gateway, b"")
    stop = threading.Event()

    def grow() -> None:
        while not stop.wait(0.001):
            append(path, os.urandom(700))

    writer = threading.Thread(target=grow)
    viewers = [fresh_gateway.stream(ticket.id) for _ in range(20)]
    got = [b"" for _ in viewers]
    writer.start()
    try:
        for each, viewer in enumerate(viewers):
            for _ in range(5):
                got[each] += viewer.next("pane").data
        fresh_gateway.stop(signal.SIGKILL)
        for each, viewer in enumerate(viewers):
            with suppress(ConnectionResetError):
                got[each] += b"".join(e.data for e in viewer if e.kind == "pane")
        fresh_gateway.start()
    finally:
        stop.set()
        writer.join()
    append(path, b"THE END")
    wanted = hashlib.sha256(path.read_bytes()).hexdigest()
    for each, viewer in enumerate(viewers):
        with fresh_gateway.stream(ticket.id, last_event_id=viewer.last_id) as again:
            got[each] += again.read_until(b"THE END")
        assert hashlib.sha256(got[each]).hexdigest() == wanted


@pytest.mark.fault(26)
def test_one_who_does_not_read_costs_nothing(fresh_gateway: Gateway) -> None:
    """In a flood the others get every byte, and the gateway holds no copy for the slow one."""
    ticket, path = make(fresh_gateway, b"")
    process = psutil.Process(fresh_gateway.process.pid)
    with (
        fresh_gateway.stream(ticket.id, timeout_s=30) as reader,
        fresh_gateway.stream(ticket.id) as slow,
    ):
        reader.next("state")
        slow.next("state")
        before = process.memory_info().rss
        flood = b"".join(b"%015d\n" % i for i in range(65_536)) * 40
        digest, size = hashlib.sha256(), 0
        append(path, flood)
        while size < len(flood):
            data = reader.next("pane").data
            reader.seen.clear()
            digest.update(data)
            size += len(data)
        assert digest.digest() == hashlib.sha256(flood).digest()
        assert process.memory_info().rss - before < 8 * 1024 * 1024


@pytest.mark.fault(26)
def test_one_who_does_not_read_is_dropped(fresh_gateway: Gateway) -> None:
    """Within 45 seconds, with everything the gateway held for it."""
    ticket, path = make(fresh_gateway, b"")
    process = psutil.Process(fresh_gateway.process.pid)
    with socket.create_connection(("127.0.0.1", fresh_gateway.port)) as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        said = f"GET /api/ticket/{ticket.id}/stream HTTP/1.1\r\nHost: {fresh_gateway.host}\r\n"
        peer.sendall(f"{said}Cookie: mc_session={fresh_gateway.secret}\r\n\r\n".encode())
        peer.recv(100)
        assert held(process) > 0
        append(path, os.urandom(20_000_000))
        deadline = time.monotonic() + 45
        while held(process) > 0 and time.monotonic() < deadline:
            time.sleep(0.5)
        assert held(process) == 0


def test_who_hangs_up_is_forgotten(fresh_gateway: Gateway) -> None:
    """Sockets, files and watches go with their viewers."""
    ticket, _ = make(fresh_gateway, b"x")
    process = psutil.Process(fresh_gateway.process.pid)
    fresh_gateway.get("/api/tickets")
    for _ in range(3):
        viewers = [fresh_gateway.stream(ticket.id) for _ in range(20)]
        for viewer in viewers:
            viewer.next("pane")
            viewer.__exit__()
    deadline = time.monotonic() + 10
    while held(process) > 0 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert held(process) == 0


def test_a_quiet_stream_shows_that_it_lives(shared_gateway: Gateway) -> None:
    """A comment each 15 seconds."""
    ticket, _ = make(shared_gateway)
    with shared_gateway.stream(ticket.id, timeout_s=25) as viewer:
        viewer.next("queue")
        assert viewer.next("").kind == ""


def test_streams_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past it the next one is asked to come back later."""
    streams = stream.Streams(Control("nowhere"))
    monkeypatch.setattr(stream, "MAX_STREAMS", 0)
    with pytest.raises(Full) as full:
        streams.check_room()
    assert (full.value.http_status, full.value.retry_after_s) == (503, 5)
    streams.close()
