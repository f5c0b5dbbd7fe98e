"""What xterm.js holds, beside what tmux has."""

from __future__ import annotations

from playwright.sync_api import Page

from tests.machine.product import Product

_ROWS = """() => {
    const terminal = globalThis.missionControl?.terminal;
    if (!terminal) return [];
    const buffer = terminal.buffer.active;
    return Array.from({ length: terminal.rows }, (_, row) =>
        buffer.getLine(buffer.baseY + row)?.translateToString(true) ?? "");
}"""


def screen_of(page: Page) -> list[str]:
    """The rows of the screen, without blanks at their ends and without empty ones at the end."""
    return trimmed(page.evaluate(_ROWS))


def trimmed(rows: list[str]) -> list[str]:
    """The same for rows from anywhere."""
    return "\n".join(row.rstrip() for row in rows).rstrip().split("\n")


def pane_of(product: Product, ticket: int) -> list[str]:
    """What `capture-pane` says."""
    return trimmed(product.screen(ticket).split("\n"))


def assert_same(page: Page, product: Product, ticket: int) -> None:
    """The page shows what tmux has, as soon as both are quiet."""
    try:
        product.machine.wait_for(
            lambda: screen_of(page) == pane_of(product, ticket), what="the same screen", timeout=30
        )
    except Exception:
        assert screen_of(page) == pane_of(product, ticket)
        raise
