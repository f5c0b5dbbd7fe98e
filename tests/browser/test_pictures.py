"""The pictures of the documents, from the page as it is: `make pictures` puts them into docs/images.

Without MC_PICTURES they are made beside the test: what is asked for here has to be on the page all the same.
"""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Page, expect

from tests.browser.test_main_job import picture, started
from tests.machine.product import GATEWAY, REPOSITORY, Product

RUNNING = (
    ("Upgrade the ORM, module by module", "slow 300"),
    ("Find out why the nightly import is slow", "slow 300"),
    ("Write tests for the invoice parser", "what is 40+2"),
)
WAITING = ("Rotate the staging keys", "permission")
OPEN = ("Release notes for 2.4", "Look into flaky test_checkout", "Remove the old admin page")


def a_day(product: Product) -> None:
    """Tickets as somebody might have them."""
    product.make_repository()
    for title, said in (*RUNNING, WAITING):
        ticket = product.new(title, "--driver", "demo", "--repo", REPOSITORY, "--start")
        product.wait_turn(ticket, "idle")
        product.send(ticket, said)
        state = {"permission": "waiting_permission", "slow 300": "busy"}.get(said, "idle")
        product.wait_turn(ticket, state)
    for title in OPEN:
        product.new(title, "--driver", "demo", "--repo", REPOSITORY)


def test_the_board_of_a_day(product: Product, page: Page, tmp_path: Path) -> None:
    """What waits stands first; the same on a phone, where nothing is wider than the screen."""
    a_day(product)
    page.goto(f"{GATEWAY}/")
    for title in (WAITING[0], RUNNING[0][0], OPEN[0]):
        expect(page.get_by_role("link", name=title)).to_be_visible()
    page.set_viewport_size({"width": 1280, "height": 560})
    picture(page, "board", tmp_path)
    page.set_viewport_size({"width": 390, "height": 780})
    page.goto(f"{GATEWAY}/")
    expect(page.get_by_role("link", name=WAITING[0])).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    picture(page, "phone", tmp_path)


def test_a_request_on_the_page(product: Product, page: Page, tmp_path: Path) -> None:
    """What Claude asks leave for, with the buttons that answer it."""
    ticket = started(product)
    page.goto(f"{GATEWAY}/ticket/{ticket}")
    product.say(ticket, "BASH{npm test -- --coverage > coverage.txt}")
    expect(page.locator("#permission .request")).to_contain_text("npm test", timeout=30_000)
    page.evaluate("scrollTo(0, 0)")
    picture(page, "permission", tmp_path)
