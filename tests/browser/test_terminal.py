"""The text xterm.js holds is the pane's, and the bytes it was sent are the log's, for real programs.

A real Chromium, a booted machine, the real Claude CLI, and programs that use a terminal fully.
"""

from __future__ import annotations

import shlex

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.screen import assert_same, pane_of, screen_of, trimmed
from tests.machine.product import GATEWAY, HOME, STATE, Product

PYTHON = f"{HOME}/.local/share/mission-control/venv/bin/python"
#: A program like htop: alternate screen, colours, a cursor that is off, and all of it drawn anew.
FULL_SCREEN = r"""
import curses, time, os
def main(screen):
    curses.start_color(); curses.curs_set(0); screen.nodelay(True)
    for n in range(1, 8): curses.init_pair(n, n, n % 3)
    tick = 0
    while (key := screen.getch()) != ord("q"):
        rows, columns = screen.getmaxyx()
        screen.erase()
        screen.addstr(0, 0, f"  PID USER  CPU%  MEM%  tick {tick}", curses.A_REVERSE)
        for row in range(1, rows - 1):
            load = (row * 7 + tick * 3) % (columns - 30)
            text = f"{row:5} op    {load:4}  " + "|" * load
            screen.addnstr(row, 0, text, columns - 1, curses.color_pair(row % 7 + 1))
        screen.addstr(rows - 1, 0, "F1Help 漢字 q quits", curses.A_BOLD)
        screen.refresh()
        tick += not os.path.exists("still")
        time.sleep(0.03)
curses.wrapper(main)
"""
#: Wide, combining, joined, coloured, with and without a variation selector; flags; right to left.
CHARACTERS = (
    "漢字かな 한글 ﾊﾝｶｸ \uff26\uff35\uff2c\uff2c", "e\u0301 a\u0308\u0323 n\u0303 \u0928\u093f", "😀😃🚀", "👩\u200d👩\u200d👧\u200d👦 joined", "👍🏽 skin",
    "🇩🇪🇫🇷 flags", "❤ ❤\ufe0f ⚠\ufe0f ✔\ufe0f ☺\ufe0f", "1\ufe0f\u20e3 key", "שלום عربى", "─│┌┐└┘├┤ ▁▂▃▄▅▆▇█ ⠋⠙⠹", "a\u200bb zero", "ﬁ ligature …–—",
)  # fmt: skip
WATCH = """async ticket => {
    const seen = (globalThis.seen = { parts: [], kinds: [], size: 0 });
    const source = new EventSource(`/api/ticket/${ticket}/stream?replay=65536`);
    const bytes = (text) => Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
    for (const kind of ["gap", "repaint"]) source.addEventListener(kind, () => seen.kinds.push(kind));
    source.addEventListener("pane", (event) => {
        seen.parts.push(bytes(event.data));
        seen.size += seen.parts.at(-1).length;
    });
    source.onerror = () => seen.kinds.push("broken off");
    await new Promise((done) => { source.onopen = done; });
}"""
DIGEST = """async () => {
    const all = await new Blob(seen.parts).arrayBuffer();
    const digest = await crypto.subtle.digest("SHA-256", all);
    return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
}"""
#: Every byte but ESC and those that would begin a sequence; characters split between two writes.
BYTES = r"""
import os, random, sys, time
dice = random.Random(7)
plain = bytes(b for b in range(256) if b not in (0x1b, 0x90, 0x98, 0x9b, 0x9d, 0x9e, 0x9f, 0x0e, 0x0f))
sys.stdin.readline()
end = time.monotonic() + 8
while time.monotonic() < end:
    os.write(1, bytes(dice.choices(plain, k=3000)))
    for part in ("é漢😀".encode()[n : n + 1] for n in range(9)):
        os.write(1, part)
        time.sleep(0.001)
os.write(1, b"\x00\xff THE-END")
sys.stdin.read()
"""
NO_WEBGL = """
    const get = HTMLCanvasElement.prototype.getContext;
    HTMLCanvasElement.prototype.getContext = function (kind, ...more) {
        return kind.startsWith("webgl") ? null : get.call(this, kind, ...more);
    };
"""
_ALL = """() => {
    const buffer = missionControl.terminal.buffer.active;
    return Array.from({ length: buffer.length }, (_, row) => buffer.getLine(row).translateToString(true));
}"""


def python(product: Product, script: str) -> int:
    """A ticket whose program is a Python script, running."""
    argv = [PYTHON, "-c", script]
    return product.new("a program", "--driver", "command", "--start", "--", *argv)


def shell(product: Product, script: str) -> int:
    """The same with a shell script."""
    return product.new("a program", "--driver", "command", "--start", "--", "sh", "-c", script)


def look(page: Page, ticket: int) -> None:
    """Opens a ticket's page, until its stream is live."""
    page.goto(f"{GATEWAY}/ticket/{ticket}")
    expect(page.locator("#connection")).to_have_text("live")


def press(product: Product, ticket: int, *keys: str) -> None:
    """As somebody attached would."""
    product.machine.run(["tmux", "send-keys", "-t", f"=ticket-{ticket}:", *keys])


def kill_gateway(product: Product, page: Page) -> None:
    """kill -9; until the page is live again."""
    product.systemctl("kill", "--signal=KILL", "mc-webgate.service")
    expect(page.locator("#connection")).not_to_have_text("live")
    expect(page.locator("#connection")).to_have_text("live", timeout=20_000)


def history_of(product: Product, ticket: int) -> list[str]:
    """Everything tmux can scroll back to."""
    argv = ["tmux", "capture-pane", "-p", "-S", "-", "-t", f"=ticket-{ticket}:"]
    return trimmed(product.machine.run(argv).stdout.split("\n"))


def test_the_real_claude(product: Product, page: Page) -> None:
    """Its screen in the page is tmux's: asked, answered, asking, resized, reloaded, after kill -9."""
    ticket = product.new("Say hello", "--repo", product.make_repository(), "--start")
    product.machine.wait_for(
        lambda: product.hooks(ticket, "Stop"), what="the first answer", timeout=60
    )
    look(page, ticket)
    assert_same(page, product, ticket)
    assert "Say hello" in "\n".join(screen_of(page))
    product.say(ticket, "what is 30+3")
    product.wait_screen(ticket, "30 + 3 = 33")
    assert_same(page, product, ticket)
    product.say(ticket, "BASH{seq 1 500 > numbers; cat numbers}")
    request = page.locator("#permission .request")
    expect(request).to_be_visible(timeout=30_000)
    assert_same(page, product, ticket)
    request.get_by_role("button", name="Allow").click()
    product.machine.wait_for(
        lambda: len(product.hooks(ticket, "Stop")) == 3, what="the end of the turn"
    )
    assert_same(page, product, ticket)
    page.locator("#control").click()
    page.set_viewport_size({"width": 820, "height": 640})
    product.machine.wait_for(
        lambda: page.evaluate("missionControl.terminal.cols") < 110, what="another size"
    )
    assert_same(page, product, ticket)
    page.reload()
    assert_same(page, product, ticket)
    kill_gateway(product, page)
    product.say(ticket, "what is 40+4")
    product.wait_screen(ticket, "40 + 4 = 44")
    assert_same(page, product, ticket)


def test_a_full_screen_program(product: Product, page: Page, browser: Browser) -> None:
    """Seen from its start, joined in its middle, resized, reloaded; and what it leaves when it quits."""
    script = f"seq 1 80; printf 'beneath it'; read _; {shlex.join([PYTHON, '-c', FULL_SCREEN])}; printf 'after it'; exec cat"
    ticket = shell(product, script)
    product.wait_screen(ticket, "beneath it")
    look(page, ticket)
    assert_same(page, product, ticket)
    press(product, ticket, "Enter")
    product.wait_screen(ticket, "F1Help")
    late = browser.new_context()
    other = late.new_page()
    other.goto(product.login_link(ticket))
    look(other, ticket)
    product.machine.run(["touch", f"{product.work(ticket)}/still"])
    for each in (page, other):
        product.machine.wait_for(
            lambda each=each: "F1Help" in screen_of(each)[-1], what="the program"
        )
        assert_same(each, product, ticket)
        assert each.evaluate("missionControl.terminal.buffer.active.type") == "alternate"
    product.machine.run(
        ["tmux", "resize-window", "-t", f"=ticket-{ticket}:", "-x", "90", "-y", "30"]
    )
    for each in (page, other):
        product.machine.wait_for(
            lambda each=each: each.evaluate("missionControl.terminal.cols") == 90, what="the size"
        )
        assert_same(each, product, ticket)
    page.reload()
    assert_same(page, product, ticket)
    press(product, ticket, "q")
    product.wait_screen(ticket, "after it")
    for each in (page, other):
        assert_same(each, product, ticket)
    assert "beneath it" in "\n".join(screen_of(other))
    late.close()


def test_characters_of_every_width(product: Product, page: Page, browser: Browser) -> None:
    """Printed while somebody looks, painted for who comes later, drawn without WebGL: the cells of tmux."""
    lines = "".join(f"{text}|\n" for text in CHARACTERS)
    ticket = shell(product, f"read _; printf '%s' {shlex.quote(lines)}; printf ready; exec cat")
    look(page, ticket)
    press(product, ticket, "Enter")
    product.wait_screen(ticket, "ready")
    assert_same(page, product, ticket)
    page.reload()
    assert_same(page, product, ticket)
    context = browser.new_context()
    context.add_init_script(NO_WEBGL)
    plain = context.new_page()
    plain.goto(product.login_link(ticket))
    look(plain, ticket)
    assert plain.evaluate("missionControl.renderer") == "dom"
    assert_same(plain, product, ticket)
    expect(plain.locator(".xterm-rows")).to_contain_text("漢字かな")
    context.close()


def test_scrolling_back_and_searching(product: Product, page: Page) -> None:
    """What tmux can scroll back to, the page can, also what was printed before it came; and it finds."""
    ticket = shell(
        product, "for n in $(seq 1 400); do echo line $n of many; done; read _; seq 1 99; exec cat"
    )
    product.wait_screen(ticket, "line 400 of many")
    look(page, ticket)
    assert_same(page, product, ticket)
    assert trimmed(page.evaluate(_ALL)) == history_of(product, ticket)
    press(product, ticket, "Enter")
    product.wait_screen(ticket, "99")
    assert_same(page, product, ticket)
    assert trimmed(page.evaluate(_ALL))[:-1] == history_of(product, ticket)[:-1]
    top = "missionControl.terminal.buffer.active.viewportY"
    bottom = page.evaluate(top)
    page.locator("#terminal").hover()
    page.mouse.wheel(0, -2000)
    product.machine.wait_for(lambda: page.evaluate(top) < bottom, what="scrolling back")
    page.keyboard.press("/")
    page.keyboard.type("line 7 of many")
    product.machine.wait_for(
        lambda: page.evaluate("missionControl.terminal.getSelection()") == "line 7 of many",
        what="what was searched for",
    )
    assert 0 <= 6 - page.evaluate(top) < page.evaluate("missionControl.terminal.rows")
    expect(page.locator("#found")).to_have_text("1 of 1")
    page.locator("#find").fill("of many")
    expect(page.locator("#found")).to_contain_text("of 400")
    at = page.evaluate("missionControl.terminal.getSelectionPosition().start.y")
    page.keyboard.press("Enter")
    assert page.evaluate("missionControl.terminal.getSelectionPosition().start.y") == at + 1
    page.keyboard.press("Shift+Enter")
    assert page.evaluate("missionControl.terminal.getSelectionPosition().start.y") == at
    page.locator("#find").fill("nowhere to be seen")
    expect(page.locator("#found")).to_have_text("not found")
    page.keyboard.press("Escape")
    expect(page.locator("#found")).to_have_text("")


def test_two_browsers_and_a_desk(product: Product, page: Page, browser: Browser) -> None:
    """Two pages of different sizes and a `tmux attach` show the same pane, and all three can type."""
    ticket = shell(product, "echo ready; exec cat")
    product.wait_screen(ticket, "ready")
    context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme="dark")
    phone = context.new_page()
    phone.goto(product.login_link(ticket))
    look(phone, ticket)
    look(page, ticket)
    with product.machine.pty(
        ["tmux", "attach", "-t", f"ticket-{ticket}"], columns=120, rows=40
    ) as seat:
        seat.expect(rb"ready")
        page.locator("#control").click()
        expect(page.locator("#control")).to_have_text("Release")
        page.keyboard.type("from the desktop")
        page.keyboard.press("Enter")
        seat.expect(rb"from the desktop")
        phone.locator("#control").click()
        expect(phone.locator("#control")).to_have_text("Release")
        product.machine.wait_for(
            lambda: phone.evaluate("missionControl.terminal.cols") < 60, what="the phone's size"
        )
        phone.keyboard.type("from the phone")
        phone.keyboard.press("Enter")
        seat.expect(rb"from the phone")
        seat.send(b"from the desk\r")
        product.wait_screen(ticket, "from the desk")
        for each in (page, phone):
            assert_same(each, product, ticket)
        sizes = [
            each.evaluate("[missionControl.terminal.cols, missionControl.terminal.rows]")
            for each in (page, phone)
        ]
        assert sizes[0] == sizes[1]
        # The desktop shows the phone's size as it is, with room around it, and nothing is cut off.
        assert page.evaluate(
            "document.querySelector('.xterm-screen').offsetWidth <= document.getElementById('terminal').clientWidth"
        )
        expect(page.locator("#control-note")).to_have_text("Somebody else is typing.")
    context.close()


@pytest.mark.fault(3, 13, 16)
def test_every_byte_of_the_log(product: Product, page: Page) -> None:
    """sha256 in the browser is that of the log: any bytes, a kill -9 and a rotation in the midst of it."""
    ticket = python(product, BYTES)
    product.wait_active(ticket)
    page.evaluate(WATCH, ticket)
    press(product, ticket, "Enter")
    product.machine.wait_for(lambda: page.evaluate("seen.size") > 100_000, what="the first bytes")
    product.systemctl("kill", "--signal=KILL", "mc-webgate.service")
    product.machine.wait_for(lambda: "broken off" in page.evaluate("seen.kinds"), what="the kill")
    product.machine.sh(f"{PYTHON} -I -m orchestrator.rotate force")
    folder = f"{STATE}/tickets/{ticket}"
    log = f"cd {folder}; cat pane.log.1 pane.log"
    product.machine.wait_for(
        lambda: "THE-END" in product.machine.sh(f"tail -c 20 {folder}/pane.log").stdout,
        what="the end", timeout=60,
    )  # fmt: skip
    size = int(product.machine.sh(f"({log}) | wc -c").stdout)
    product.machine.wait_for(lambda: page.evaluate("seen.size") >= size, what="all bytes")
    wanted = product.machine.sh(f"({log}) | sha256sum").stdout.split()[0]
    assert page.evaluate(DIGEST) == wanted
    assert size > 500_000
    assert set(page.evaluate("seen.kinds")) == {"broken off"}


def test_fifty_megabytes(product: Product, page: Page) -> None:
    """A flood: a program gets every byte of it, the page ends up with tmux's screen, and stays usable."""
    ticket = shell(product, "read _; seq 1 6600000; echo THE-END; exec cat")
    look(page, ticket)
    page.evaluate(WATCH, ticket)
    press(product, ticket, "Enter")
    product.wait_screen(ticket, "THE-END", timeout=120)
    log = f"{STATE}/tickets/{ticket}/pane.log"
    size = int(product.machine.sh(f"stat -c %s {log}").stdout)
    assert size > 50_000_000
    product.machine.wait_for(lambda: page.evaluate("seen.size") >= size, what="all", timeout=60)
    assert page.evaluate(DIGEST) == product.machine.sh(f"sha256sum {log}").stdout.split()[0]
    assert "gap" not in page.evaluate("seen.kinds")
    assert_same(page, product, ticket)
    press(product, ticket, "still here", "Enter")
    product.machine.wait_for(lambda: "still here" in pane_of(product, ticket), what="the echo")
    assert_same(page, product, ticket)
