"""The main job in a browser: typed in the send box, read back from the page and everywhere else."""

from __future__ import annotations

import json
import os
from pathlib import Path

from playwright.sync_api import Browser, Page, expect

from tests.browser.screen import screen_of
from tests.claude.conftest import API_LOG
from tests.machine.product import GATEWAY, Product

PICTURES = Path(__file__).resolve().parents[2] / "docs" / "images"


def started(product: Product) -> int:
    """A ticket on which the real Claude has answered its first prompt."""
    ticket = product.new("Say hello", "--repo", product.make_repository())
    product.ctl("start", str(ticket))
    product.machine.wait_for(
        lambda: product.hooks(ticket, "Stop"), what="the first answer", timeout=60
    )
    return ticket


def picture(page: Page, name: str, tmp_path: Path) -> Path:
    """A screenshot; into docs/images/ when MC_PICTURES is set, else beside the test."""
    folder = PICTURES if os.environ.get("MC_PICTURES") else tmp_path
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.png"
    page.screenshot(path=path)
    assert path.stat().st_size > 10_000
    return path


def terminal_text(page: Page) -> str:
    """What xterm.js shows, row by row."""
    return "\n".join(screen_of(page))


def test_typed_in_the_browser_answered_by_claude(
    product: Product, page: Page, tmp_path: Path
) -> None:
    """`hello what is 2+2` reaches Claude; the answer is on the page, in the log, in tmux, in the sidecar."""
    ticket = started(product)
    with product.machine.pty(
        ["tmux", "attach", "-t", f"ticket-{ticket}"], columns=160, rows=48
    ) as seat:
        page.goto(f"{GATEWAY}/ticket/{ticket}")
        box = page.get_by_role("textbox", name="Message")
        box.fill("hello what is 2+2")
        box.press("Enter")
        page.wait_for_function(
            "() => document.body.innerText.includes('confirmed')", timeout=30_000
        )
        expect(box).to_have_value("")
        product.machine.wait_for(
            lambda: "2 + 2 = 4" in terminal_text(page), what="the answer in xterm.js"
        )
        seat.expect(rb"2 \+ 2 = 4")
    assert "2 + 2 = 4" in product.pane_log(ticket)
    product.machine.wait_for(  # the hook comes after the words
        lambda: "2 + 2 = 4" in product.hooks(ticket, "Stop")[-1]["last_assistant_message"],
        what="the answer in the sidecar",
    )
    asked = [json.loads(line).get("last") for line in product.read(API_LOG).splitlines()]
    assert asked.count("hello what is 2+2") == 1
    page.wait_for_function("() => document.body.innerText.includes('idle')", timeout=30_000)
    page.evaluate("scrollTo(0, 0)")
    picture(page, "ticket", tmp_path)


def test_the_board_shows_what_there_is(product: Product, page: Page) -> None:
    """Title, state and driver of each ticket, and a way to it."""
    ticket = product.new("A title with <b>markup</b> & $(things)", "--driver", "demo")
    page.goto(f"{GATEWAY}/")
    card = page.get_by_role("link", name="A title with <b>markup</b> & $(things)")
    expect(card).to_be_visible()
    card.click()
    expect(page).to_have_url(f"{GATEWAY}/ticket/{ticket}")


def test_without_a_login_there_is_nothing(product: Product, browser: Browser) -> None:
    """A browser that comes without the one-time link sees no ticket; a used link opens nothing."""
    ticket = product.new("not for strangers", "--driver", "demo")
    context = browser.new_context()
    stranger = context.new_page()
    for path in ("/", f"/ticket/{ticket}", f"/api/ticket/{ticket}", "/api/tickets"):
        answer = stranger.goto(f"{GATEWAY}{path}")
        assert answer is not None
        assert answer.status in {401, 403}
        assert "not for strangers" not in stranger.content()
    link = product.login_link()
    first = stranger.goto(link)
    assert first is not None
    assert first.status == 200
    context.clear_cookies()
    again = stranger.goto(link)
    assert again is not None
    assert again.status == 403
    context.close()


def test_the_page_goes_on_after_the_gateway_was_killed(product: Product, page: Page) -> None:
    """kill -9 of the gateway: the page reconnects by itself, the worker does not notice."""
    ticket = started(product)
    pid = product.main_pid(ticket)
    page.goto(f"{GATEWAY}/ticket/{ticket}")
    product.machine.wait_for(lambda: "Say hello" in terminal_text(page), what="the first paint")
    product.systemctl("kill", "--signal=KILL", "mc-webgate.service")
    product.say(ticket, "what is 30+3")
    product.machine.wait_for(
        lambda: "30 + 3 = 33" in terminal_text(page), what="the answer after it"
    )
    assert product.main_pid(ticket) == pid


def test_nothing_listens_beyond_loopback(product: Product) -> None:
    """Every listening socket of the product is on 127.0.0.1, or in the file system."""
    out = product.machine.run(["ss", "-Hltn"], user="root").stdout
    local = [line.split()[3] for line in out.splitlines()]
    assert f"{GATEWAY.removeprefix('http://')}" in local
    assert all(address.startswith(("127.0.0.1:", "[::1]:")) for address in local), local


def test_a_permission_is_answered_on_the_page(product: Product, page: Page) -> None:
    """Tool and input are shown; Allow lets it run, Deny tells the worker why; no key is typed."""
    ticket = started(product)
    page.goto(f"{GATEWAY}/ticket/{ticket}")
    product.say(ticket, "BASH{echo from the page > allowed}")
    request = page.locator("#permission .request")
    expect(request).to_contain_text("Bash", timeout=30_000)
    expect(request).to_contain_text("echo from the page > allowed")
    request.get_by_role("button", name="Allow").click()
    product.machine.wait_for(
        lambda: len(product.hooks(ticket, "Stop")) == 2, what="the end of the turn"
    )
    expect(request).to_have_count(0)
    assert product.hooks(ticket, "PostToolUse")
    product.say(ticket, "BASH{echo never > denied}")
    expect(request).to_be_visible(timeout=30_000)
    request.get_by_label("Why not").fill("not today")
    request.get_by_role("button", name="Deny").click()
    product.machine.wait_for(
        lambda: len(product.hooks(ticket, "Stop")) == 3, what="the end of the turn"
    )
    assert "not today" in product.screen(ticket)
    expect(page.locator("#panel-timeline")).to_contain_text("echo from the page", timeout=10_000)
