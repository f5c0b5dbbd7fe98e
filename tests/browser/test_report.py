"""The report in a real Chromium, off a real gateway: readable by people, in both schemes and when it is empty."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from orchestrator.store import logins, tickets
from tests.browser.conftest import FLAGS, is_complaint
from tests.browser.test_ticket_page import axe  # noqa: F401  # a fixture
from tests.unit.conftest import cluster, fresh_gateway  # noqa: F401  # fixtures
from tests.unit.gateway import Gateway


@pytest.fixture(scope="module")
def chrome() -> Iterator[Browser]:
    """Chromium beside the gateway; no machine is needed for a page that the store fills."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("chromium is not installed")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield running
        running.close()


def spend(gateway: Gateway) -> None:
    """A month of three tickets, by two models."""
    dice = random.Random(9)
    for title, model in (
        ("Mend the login", "claude-opus-4"), ("Ein sehr langer Titel " * 8, "claude-haiku-4"), ("Docs", "claude-opus-4"),
    ):  # fmt: skip
        ticket = tickets.create(gateway.database, title=title).id
        total = 0.0
        for back in range(29, -1, -dice.randint(1, 3)):
            at = datetime.now(UTC) - timedelta(days=back)
            total += dice.random() * 4
            for kind, data in (
                ("user_prompt", {}), ("cost", {"cost": {"total_cost_usd": total}, "model": {"id": model}}),
                ("turn_end", {}),
            ):  # fmt: skip
                gateway.database.query(
                    "INSERT INTO ticket_events (ticket_id, at, kind, data) VALUES (%s, %s, %s, %s)",
                    (ticket, at, kind, json.dumps(data)),
                )


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_it_looks_right_and_axe_finds_nothing(
    chrome: Browser,
    fresh_gateway: Gateway,  # noqa: F811
    axe: str,  # noqa: F811
    scheme: str,
    tmp_path: Path,
) -> None:
    """Empty and full, on a desk and on a phone: bars where there was cost, nothing sideways, no complaint."""
    folder = Path(os.environ.get("MC_PICTURES_DIR", tmp_path))
    for what in ("empty", "full"):
        if what == "full":
            spend(fresh_gateway)
        for name, width in (("desktop", 1280), ("phone", 390)):
            context = chrome.new_context(
                viewport={"width": width, "height": 900},
                color_scheme="dark" if scheme == "dark" else "light",
            )
            page = context.new_page()
            complaints: list[str] = []
            page.on(
                "console", lambda m, to=complaints: to.append(m.text) if is_complaint(m) else None
            )  # type: ignore[misc]
            page.on("pageerror", lambda e, to=complaints: to.append(str(e)))  # type: ignore[misc]
            link = logins.create_link(fresh_gateway.database)
            page.goto(f"http://{fresh_gateway.host}/login?code={link}")
            page.goto(f"http://{fresh_gateway.host}/report")
            page.screenshot(path=folder / f"report-{what}-{name}-{scheme}.png", full_page=True)
            sideways = page.evaluate("document.documentElement.scrollWidth > innerWidth")
            assert not sideways, "it scrolls sideways"
            bars = page.locator(".chart rect")
            assert (bars.count() > 10) is (what == "full")
            if what == "full":
                highest = max(
                    box["height"]
                    for n in range(bars.count())
                    if (box := bars.nth(n).bounding_box())
                )
                assert highest > 100
                wide = "all => all.filter(each => each.scrollWidth > each.clientWidth).length"
                assert page.locator(".scrolls").evaluate_all(wide) == 0, "a bar is out of sight"
                colour = bars.first.evaluate("bar => getComputedStyle(bar).fill")
                assert colour == ("rgb(130, 164, 255)" if scheme == "dark" else "rgb(47, 91, 216)")
            page.evaluate(axe)
            found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")[
                "violations"
            ]
            told = [(v["id"], [n["html"][:200] for n in v["nodes"]]) for v in found]
            assert not told, json.dumps(told, indent=1)
            context.close()
            assert complaints == []
