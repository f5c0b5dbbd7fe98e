"""A real Chromium in the machine's network, so that 127.0.0.1:3001 is the product's gateway."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from tests.claude.conftest import product  # noqa: F401  # the machine with the real CLI
from tests.machine.product import Product

pytest.register_assert_rewrite("tests.browser.screen")
REPOSITORY = Path(__file__).resolve().parents[2]
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
]  # fmt: skip


@pytest.fixture(scope="module")
def browser(product: Product, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:  # noqa: F811
    """Chromium, started inside the machine's network namespace."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed")
    wrapper = tmp_path_factory.mktemp("chromium") / "chromium"
    words = shlex.join([*product.machine.netns_exec_argv(), chromium])
    wrapper.write_text(f'#!/bin/sh\nexec {words} "$@"\n', encoding="utf-8")
    wrapper.chmod(0o755)
    with sync_playwright() as playwright:
        chrome = playwright.chromium.launch(executable_path=wrapper, args=FLAGS)
        yield chrome
        chrome.close()


def is_complaint(message: ConsoleMessage) -> bool:
    """Errors and warnings of the page.

    Not what a graphics driver says of itself, xterm.js of a slow machine, nor the browser's own line for each answer that is a
    refusal: the page shows those in its own words.
    """
    own = ("GL Driver Message", "Failed to load resource", "task queue exceeded allotted deadline")
    return message.type in {"error", "warning"} and not any(text in message.text for text in own)


@pytest.fixture
def page(browser: Browser, product: Product) -> Iterator[Page]:  # noqa: F811
    """A tab that is logged in by a one-time link; whatever the page complains of fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 860}, color_scheme="dark")
    tab = context.new_page()
    complaints: list[str] = []
    tab.on("console", lambda m: complaints.append(m.text) if is_complaint(m) else None)
    tab.on("pageerror", lambda e: complaints.append(str(e)))
    tab.goto(product.login_link())
    yield tab
    context.close()
    assert complaints == []
