"""Panes of a real tmux through the gateway: first paint, keys, control, sizes, and moving forward."""

from __future__ import annotations

import base64
import os
import shlex
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import Conflict, InvalidInput
from orchestrator.store import tickets
from orchestrator.tmux_control import MAX_KEYS_BYTES, Control
from tests.unit.gateway import Gateway

ME, OTHER = "viewer-of-mine", "viewer-of-another"


class Pane:
    """A ticket with a session of its own, whose program is `command`."""

    def __init__(self, gateway: Gateway, command: str, columns: int = 100, rows: int = 30) -> None:
        self.gateway = gateway
        self.ticket = tickets.create(gateway.database, title="a pane").id
        self.path = gateway.pane_log(self.ticket)
        self.target = f"=ticket-{self.ticket}:"
        log = shlex.quote(str(self.path))
        size = ["-x", str(columns), "-y", str(rows)]
        # The program waits until the pipe is set.
        gated = f"read _; {command}"
        self.tmux(
            "-f", "/dev/null", "new-session", "-d", "-s", f"ticket-{self.ticket}", *size, gated
        )
        self.tmux("set-option", "-w", "-t", self.target, "remain-on-exit", "on")
        self.tmux("pipe-pane", "-t", self.target, f"exec cat >> {log}")
        self.tmux("send-keys", "-t", self.target, "", "Enter")
        self.post = lambda route, body: gateway.post(f"/api/ticket/{self.ticket}/{route}", body)

    def tmux(self, *argv: str) -> str:
        """Runs tmux on the gateway's server."""
        environ = {k: v for k, v in os.environ.items() if k != "TMUX"}
        environ |= {"TMUX_TMPDIR": str(self.gateway.folder), "LC_ALL": "C.UTF-8"}
        done = subprocess.run(
            ["tmux", "-u", *argv],
            env=environ,
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
        )
        return done.stdout

    def wait_screen(self, text: str) -> None:
        """Until the pane shows it."""
        self.until(lambda: text in self.tmux("capture-pane", "-p", "-t", self.target), text)

    def until(self, there: Any, what: str) -> None:
        """Waits; nobody tells when a program has printed."""
        deadline = time.monotonic() + 20
        while not there():
            assert time.monotonic() < deadline, what
            time.sleep(0.05)

    def take(self, viewer: str = ME) -> None:
        """Takes control."""
        assert self.post("control", {"viewer": viewer, "action": "take"}).json() == {
            "holder": viewer
        }


@pytest.fixture(scope="module")
def gateway(shared_gateway: Gateway) -> Iterator[Gateway]:
    """Its tmux server ends with the module."""
    yield shared_gateway
    environ = {**os.environ, "TMUX_TMPDIR": str(shared_gateway.folder)}
    subprocess.run(["tmux", "kill-server"], env=environ, check=False, capture_output=True)


def painted(event: Any) -> bytes:
    """The bytes of a repaint."""
    return base64.b64decode(event.json()["data"])


def test_the_first_look_is_the_screen(gateway: Gateway) -> None:
    """Size, colours and history at once; then what is printed, from exactly there."""
    pane = Pane(gateway, "seq 1 60; printf '\\033[31mred\\033[m'; cat > /dev/null")
    pane.wait_screen("red")
    with gateway.stream(pane.ticket) as viewer:
        first = viewer.next("repaint")
        shown = first.json()
        assert (shown["columns"], shown["rows"]) == (100, 30)
        assert b"\x1b[31mred" in painted(first)
        assert b"60\r\n" in painted(first)
        assert b"\r\n2\r\n3\r\n" in painted(first)  # the history, to scroll back to
        assert first.id.endswith(f":{pane.path.stat().st_size}")
        pane.tmux("send-keys", "-t", pane.target, "-l", "typed")
        assert viewer.read_until(b"typed") == b"typed"


def test_what_a_pane_prints_is_never_an_answer_of_tmux(gateway: Gateway) -> None:
    """Lines that look like the control protocol's own are text."""
    fake = "printf '%%end 1 2 1\\n%%exit\\n%%begin 9 9 1\\n%%error 9 9 1\\nstill here'; cat > /dev/null"
    pane = Pane(gateway, fake)
    pane.wait_screen("still here")
    for _ in range(3):
        with gateway.stream(pane.ticket) as viewer:
            assert b"%end 1 2 1\r\n%exit\r\n%begin 9 9 1\r\n%error 9 9 1\r\nstill" in painted(
                viewer.next("repaint")
            )


def test_keys_arrive_as_they_are(gateway: Gateway, tmp_path: Path) -> None:
    """Every byte a keyboard can send, and a paste of 100 KB with everything in it."""
    got = tmp_path / "got"
    pane = Pane(gateway, f"stty raw -echo; echo ready; cat > {got}")
    pane.wait_screen("ready")
    pane.take()
    keys = "".join(map(chr, range(128))) + "é😀;" + "$(id)#{pane_id}`~\\\"'"
    assert pane.post("keys", {"viewer": ME, "keys": keys}).status == 200
    paste = 'line one\nline "two" ; -R Enter #{x} $(y)\ttab é 😀\n' * 2000
    assert pane.post("keys", {"viewer": ME, "paste": paste + "\x1b[201~\x00\x9b;"}).status == 200
    wanted = (keys + paste + "[201~;").encode()
    pane.until(lambda: got.stat().st_size >= len(wanted), "all of it")
    assert got.read_bytes() == wanted


def test_looking_never_types(gateway: Gateway, tmp_path: Path) -> None:
    """Only the page that took control types; who had it before looks; released, nobody does."""
    got = tmp_path / "got"
    pane = Pane(gateway, f"stty raw -echo; echo ready; cat > {got}")
    pane.wait_screen("ready")
    refused = pane.post("keys", {"viewer": ME, "keys": "1"})
    assert (refused.status, refused.json()["problem"]) == (409, "not-in-control")
    with gateway.stream(pane.ticket) as viewer:
        assert viewer.next("control").json() == {"holder": ""}
        for who in (ME, OTHER):
            pane.take(who)
            # what was so already may be told once more
            while viewer.next("control").json() != {"holder": who}:
                pass
    assert pane.post("keys", {"viewer": ME, "keys": "2"}).status == 409
    assert pane.post("resize", {"viewer": ME, "columns": 80, "rows": 24}).status == 409
    assert pane.post("keys", {"viewer": OTHER, "keys": "3"}).status == 200
    stranger: dict[str, str | None] = {"Authorization": f"Bearer {gateway.token}", "Cookie": None}
    path = f"/api/ticket/{pane.ticket}/keys"
    assert gateway.post(path, {"viewer": OTHER, "keys": "4"}, stranger).status == 409
    assert pane.post("control", {"viewer": OTHER, "action": "release"}).json() == {"holder": ""}
    assert pane.post("keys", {"viewer": OTHER, "keys": "5"}).status == 409
    pane.until(lambda: got.read_bytes() == b"3", "one key")


def test_a_size_is_told_to_all(gateway: Gateway) -> None:
    """Who has control decides; everybody gets the picture anew in that size."""
    pane = Pane(gateway, "echo ready; cat > /dev/null")
    pane.wait_screen("ready")
    pane.take()
    with gateway.stream(pane.ticket) as viewer:
        viewer.next("repaint")
        assert pane.post("resize", {"viewer": ME, "columns": 90, "rows": 20}).status == 200
        again = viewer.next("repaint").json()
        assert (again["columns"], again["rows"]) == (90, 20)
        pane.tmux("resize-window", "-t", pane.target, "-x", "70", "-y", "25")
        again = viewer.next("repaint").json()
        assert (again["columns"], again["rows"]) == (70, 25)
    for size in (
        {"columns": 1, "rows": 20},
        {"columns": 80, "rows": 10**9},
        {"columns": "80", "rows": 24},
    ):
        assert pane.post("resize", {"viewer": ME, **size}).status == 400


def test_another_pane_begins_on_an_empty_screen(gateway: Gateway) -> None:
    """The worker was started anew, in the same size: who looked all the time sees the new screen alone."""
    pane = Pane(gateway, "echo the old one; cat > /dev/null")
    pane.wait_screen("the old one")
    with gateway.stream(pane.ticket) as viewer:
        viewer.next("repaint")
        time.sleep(1.5)  # nothing to see
        pane.tmux("respawn-pane", "-k", "-t", pane.target, "echo the new one; cat > /dev/null")
        pane.wait_screen("the new one")
        shown = painted(viewer.next("repaint"))
    assert b"the new one" in shown
    assert b"the old one" not in shown


def test_who_came_before_the_worker_sees_its_screen(gateway: Gateway) -> None:
    """Opened while nothing runs it shows the log's end; then the screen, and not what is left of both."""
    pane = Pane(gateway, "echo the old one; cat > /dev/null")
    pane.wait_screen("the old one")
    pane.tmux("kill-session", "-t", f"=ticket-{pane.ticket}")
    with gateway.stream(pane.ticket) as viewer:
        assert b"the old one" in viewer.next("pane").data
        script = "echo the new one; cat > /dev/null"
        pane.tmux("new-session", "-d", "-s", f"ticket-{pane.ticket}", script)
        assert b"the new one" in painted(viewer.next("repaint"))


def test_an_alternate_screen_has_another_beneath(gateway: Gateway) -> None:
    """Who comes while a program has it is told both, and where the cursor returns to."""
    pane = Pane(gateway, "seq 1 40; printf 'beneath\\033[?1049h\\033[2;3Habove'; cat > /dev/null")
    pane.wait_screen("above")
    with gateway.stream(pane.ticket) as viewer:
        ordinary, found, alternate = painted(viewer.next("repaint")).partition(b"\x1b[?1049h\x1b[H")
    assert found
    assert b"\r\n2\r\n3\r\n" in ordinary
    assert b"beneath" in ordinary
    assert ordinary.endswith(b"\x1b[30;8H")
    assert b"above" in alternate
    assert b"beneath" not in alternate


def test_a_full_row_goes_on_where_tmux_does(gateway: Gateway) -> None:
    """The cursor behind the last column has no address: the row is written again up to there."""
    pane = Pane(gateway, "printf '%0100d' 7; cat > /dev/null")
    pane.wait_screen("0007")
    with gateway.stream(pane.ticket) as viewer:
        shown = painted(viewer.next("repaint"))
    assert shown.partition(b"\x1b[2;1H")[2].startswith(b"\x1b)0" + b"0" * 99 + b"7")


def test_a_slow_viewer_is_moved_forward(gateway: Gateway) -> None:
    """One that reads little while much is printed gets a gap and the screen, and not megabytes."""
    pane = Pane(
        gateway,
        "head -c 30000000 /dev/zero | tr '\\0' x | fold -w 99; echo THE-END; cat > /dev/null",
    )
    with gateway.stream(pane.ticket, "?replay=0", timeout_s=60) as viewer:
        pane.wait_screen("THE-END")
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and not any(e.kind == "gap" for e in viewer.seen):
            viewer.next("pane") if len(viewer.seen) < 5 else next(iter(viewer))
            time.sleep(0.3)
        gap = next(e for e in viewer.seen if e.kind == "gap")
        assert gap.json()["reason"] == "behind"
        assert gap.json()["bytes"] > 1_000_000
        assert b"THE-END" in painted(viewer.next("repaint"))
        assert sum(len(e.data) for e in viewer.seen if e.kind == "pane") < 20_000_000


def test_the_client_survives_its_session(gateway: Gateway) -> None:
    """Sessions come and go; the others are reached all the same, and so they are when it is killed."""
    first, second = Pane(gateway, "cat > /dev/null"), Pane(gateway, "echo ready; cat")
    children = Path(f"/proc/{gateway.process.pid}/task/{gateway.process.pid}/children")
    second.wait_screen("ready")
    for pane in (first, second):
        pane.take()
        assert pane.post("keys", {"viewer": ME, "keys": "x"}).status == 200
    for pane in (first, second):
        pane.tmux("kill-session", "-t", f"=ticket-{pane.ticket}")
        gone = pane.post("keys", {"viewer": ME, "keys": "x"})
        assert (gone.status, gone.json()["problem"]) == (409, "conflict")
        if pane is first:
            second.tmux("kill-session", "-t", "=mission-control")
            second.until(lambda: not children.read_text().split(), "its client's end")
            assert second.post("keys", {"viewer": ME, "keys": "still"}).status == 200
            second.wait_screen("still")


def test_no_process_a_keystroke(gateway: Gateway) -> None:
    """A hundred keys go over one client."""
    pane = Pane(gateway, "echo ready; cat > /dev/null")
    pane.wait_screen("ready")
    pane.take()
    pane.post("keys", {"viewer": ME, "keys": "x"})
    children = Path(f"/proc/{gateway.process.pid}/task/{gateway.process.pid}/children")
    before = children.read_text().split()
    for _ in range(100):
        pane.post("keys", {"viewer": ME, "keys": "x"})
    assert children.read_text().split() == before
    assert len(before) == 1


def test_copy_mode_swallows_no_key(gateway: Gateway, tmp_path: Path) -> None:
    """Somebody at a desk left it open: it is closed, and the key arrives."""
    got = tmp_path / "got"
    pane = Pane(gateway, f"stty raw -echo; echo ready; cat > {got}")
    pane.wait_screen("ready")
    pane.tmux("copy-mode", "-t", pane.target)
    pane.take()
    pane.post("keys", {"viewer": ME, "keys": "k"})
    pane.until(lambda: got.read_bytes() == b"k", "the key")


def test_interrupt_is_escape(gateway: Gateway, tmp_path: Path) -> None:
    """One key, without taking control: the button says what it does."""
    got = tmp_path / "got"
    pane = Pane(gateway, f"stty raw -echo; echo ready; cat > {got}")
    pane.wait_screen("ready")
    assert pane.post("interrupt", {}).status == 200
    pane.until(lambda: got.read_bytes() == b"\x1b", "the key")


def test_what_cannot_be_typed() -> None:
    """Refused before tmux is asked; and nobody is typed to where nothing runs."""
    control = Control(f"nowhere-{uuid.uuid4().hex}")
    for keys in (b"", b"x" * (MAX_KEYS_BYTES + 1)):
        with pytest.raises(InvalidInput):
            control.keys(1, keys)
    for text in ("", "\x1b\x07", "x" * 1_000_001):
        with pytest.raises(InvalidInput):
            control.paste(1, text)
    with pytest.raises(Conflict):
        control.keys(1, b"x")


@pytest.fixture
def control() -> Iterator[Control]:
    """A client of a server of its own, with a session that writes nothing."""
    name = f"mc-test-{uuid.uuid4().hex}"
    tmux = ["tmux", "-L", name, "-f", "/dev/null"]
    subprocess.run([*tmux, "new-session", "-d", "-s", "ticket-1", "exec cat"], check=True)
    made = Control(name)
    yield made
    made.close()
    subprocess.run([*tmux, "kill-server"], check=True)


def test_at_once_only_where_nobody_waits(control: Control) -> None:
    """Typed, and the rest later; not while somebody is served, nor before there is a client."""
    assert control.keys_at_once(1, b"a") is None  # a client has to be made first
    control.keys(1, b"b")
    left = control.keys_at_once(1, b"c")
    assert left is not None
    assert control.keys_at_once(1, b"d") is None
    left()
    assert control.capture(1).startswith("bc")
    missing = control.keys_at_once(2, b"e")
    assert missing is not None
    with pytest.raises(Conflict):
        missing()
    with pytest.raises(InvalidInput):
        control.keys_at_once(1, b"")
    left = control.keys_at_once(1, b"f")
    assert left is not None
    left()
    assert control.capture(1).startswith("bcf")


def test_who_is_broken_off_leaves_no_answer_behind(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is still to come of it would be taken for the next one's."""
    control.keys(1, b"a")

    def broken_off(*_: object) -> None:
        raise KeyboardInterrupt

    for asks in (lambda: control.capture(1), lambda: control.keys(1, b"b")):
        with monkeypatch.context() as patched:
            patched.setattr(control, "_answers", broken_off)
            with pytest.raises(KeyboardInterrupt):
                asks()
        assert control.pane(1, "#{session_name}") == "ticket-1"
