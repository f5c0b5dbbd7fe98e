"""Board and ticket page in a real Chromium, on a machine with agents that need no network."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.browser.screen import assert_same, pane_of, screen_of
from tests.machine.cache import Layer, cache_dir
from tests.machine.fixtures import NewMachine
from tests.machine.product import GATEWAY, REPOSITORY, Product

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ROOT / "docs" / "images"
PASTE = 'a line with "quotes", $(id), #{pane_id}; é 😀\n' * 2200  # over 100 KB
READER = "stty raw -echo; echo ready; exec cat > {file}"
WORDS = r"""printf '\033[31mred\033[m 漢字 e\xcc\x81 \xf0\x9f\x98\x80 \xe2\x94\x80\n\033[7mreverse\033[m\033[5;60Hfar'"""
HOSTILE = (
    r"\033[c\033[>c\033[=c\033[5n\033[6n\033[?6n\033[18t\033P$qm\033\\\033[?1004h\033[>q"
    r"\033]10;?\007\033]4;1;?\007\033]52;c;aGFja2Vk\007\033]2;#(touch /tmp/owned)\007"
    r"\033]8;;javascript:alert(1)\007click me\033]8;;\007 https://example.org/page "
)

#: A page in the background, whose person wants to be notified.
ELSEWHERE = """
    globalThis.looksElsewhere = true;
    globalThis.told = [];
    Object.defineProperty(document, "hidden", { get: () => looksElsewhere });
    globalThis.Notification = class {
        static permission = "granted";
        constructor(title, { body }) { told.push(`${title}: ${body}`); }
    };
"""
_SIZE = re.compile(r"\x1b\[8;\d+;\d+t")  # how a terminal answers when asked for its size


@pytest.fixture(scope="module")
def product(installed: Layer, module_machines: NewMachine) -> Product:
    """One machine for all of it."""
    running = Product(module_machines(installed))
    running.make_repository()
    return running


@pytest.fixture(scope="module")
def axe() -> str:
    """axe-core's program, by the lock file."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed")
    lock = (ROOT / "webgate/npm/package-lock.json").read_bytes()
    folder = cache_dir() / f"npm-{hashlib.sha256(lock).hexdigest()[:12]}"
    script = folder / "node_modules/axe-core/axe.min.js"
    if not script.exists():
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json", ".npmrc"):
            shutil.copy(ROOT / "webgate/npm" / name, folder / name)
        subprocess.run(
            [npm, "ci", "--ignore-scripts"],
            cwd=folder,
            check=True,
            capture_output=True,
            timeout=120,
        )
    return script.read_text(encoding="utf-8")


def command(product: Product, script: str) -> int:
    """A ticket whose program is a shell script, running."""
    return product.new("a program", "--driver", "command", "--start", "--", "sh", "-c", script)


def demo(product: Product, title: str = "Say hello") -> int:
    """A ticket of the demo agent in a worktree, which has answered its first prompt."""
    ticket = product.new(title, "--driver", "demo", "--repo", REPOSITORY, "--start")
    product.machine.wait_for(
        lambda: product.hooks(ticket, "Stop"), what="the first answer", timeout=30
    )
    return ticket


def look(page: Page, ticket: int) -> None:
    """Opens a ticket's page, until its stream is live."""
    page.goto(f"{GATEWAY}/ticket/{ticket}")
    expect(page.locator("#connection")).to_have_text("live")


def take(page: Page) -> None:
    """Takes control."""
    page.locator("#control").click()
    expect(page.locator("#control")).to_have_text("Release")


def second_browser(browser: Browser, product: Product) -> BrowserContext:
    """Another browser, logged in."""
    context = browser.new_context(viewport={"width": 700, "height": 700})
    context.new_page().goto(product.login_link())
    return context


@pytest.fixture
def others(browser: Browser, product: Product) -> Iterator[BrowserContext]:
    """A second browser that is closed at the end."""
    context = second_browser(browser, product)
    yield context
    context.close()


def test_the_screen_is_that_of_tmux(product: Product, page: Page) -> None:
    """Colours, wide, combining and emoji; after a resize, a reload, a kill of the gateway, and 50 MB."""
    script = f"{WORDS}; read _; seq 1 7000000; echo THE-END; {WORDS}; exec cat"
    ticket = command(product, script)
    product.wait_screen(ticket, "far")
    look(page, ticket)
    assert_same(page, product, ticket)
    take(page)
    page.set_viewport_size({"width": 900, "height": 700})
    product.machine.wait_for(
        lambda: page.evaluate("missionControl.terminal.cols") < 120, what="another size"
    )
    assert_same(page, product, ticket)
    page.reload()
    assert_same(page, product, ticket)
    product.systemctl("kill", "--signal=KILL", "mc-webgate.service")
    product.machine.run(["tmux", "send-keys", "-t", f"=ticket-{ticket}:", "Enter"])
    product.wait_screen(ticket, "THE-END", timeout=150)
    expect(page.locator("#connection")).to_have_text("live", timeout=20_000)
    assert_same(page, product, ticket)


def test_typing_and_pasting(product: Product, page: Page, others: BrowserContext) -> None:
    """Every key and 100 KB arrive exactly; nobody else's page types, and a desk sees the same."""
    ticket = command(product, READER.format(file="typed"))
    product.wait_screen(ticket, "ready")
    look(page, ticket)
    page.locator(".xterm-helper-textarea").press("x")
    take(page)
    page.keyboard.type("Hello, World ~|\"' É")
    for key in ("Enter", "Escape", "Tab", "ArrowUp", "Control+c", "Backspace", "Alt+b"):
        page.keyboard.press(key)
    page.evaluate(
        """text => {
            const data = new DataTransfer();
            data.setData("text/plain", text);
            const area = document.querySelector(".xterm-helper-textarea");
            area.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true }));
        }""",
        PASTE,
    )
    page.keyboard.type("z")
    wanted = "Hello, World ~|\"' É\r\x1b\t\x1b[A\x03\x7f\x1bb" + PASTE + "z"

    def typed() -> str:
        return product.read(f"{product.work(ticket)}/typed")

    product.machine.wait_for(lambda: len(typed()) >= len(wanted), what="all that was typed")
    assert typed() == wanted
    other = others.pages[0]
    look(other, ticket)
    expect(other.locator("#control-note")).to_contain_text("Somebody else")
    take(other)
    expect(page.locator("#control-note")).to_contain_text("Somebody else")
    page.keyboard.type("lost")
    other.keyboard.type("mine")
    product.machine.wait_for(lambda: typed() == wanted + "mine", what="the second page's keys")
    other.keyboard.press("Control+Shift+Enter")
    expect(other.locator("#control")).to_have_text("Take control")


def test_output_types_and_opens_nothing(
    product: Product, page: Page, others: BrowserContext
) -> None:
    """Five viewers that reload, one of them in control; questions to the terminal stay without answer."""
    script = "stty raw -echo; printf '{}ready'; exec cat > {}"
    ticket = command(product, script.format(HOSTILE, "said"))
    unseen = command(product, script.format(HOSTILE, "said"))
    for each in (ticket, unseen):
        product.wait_screen(each, "ready")
    viewers = [page, others.pages[0], *(others.new_page() for _ in range(3))]
    opened: list[str] = []
    others.on("page", lambda new: opened.append(new.url))
    for each in viewers:
        look(each, ticket)
        expect(each).to_have_title(f"#{ticket} a program · Mission Control")
    take(page)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.bring_to_front()
    page.evaluate("navigator.clipboard.writeText('mine')")
    for number in (ticket, unseen):
        tty = f"$(tmux display-message -p -t =ticket-{number}: '#{{pane_tty}}')"
        product.machine.sh(f"printf '{HOSTILE}again' > {tty}")
    for each in viewers[1:]:
        each.reload()
        product.machine.wait_for(
            lambda each=each: "again" in "".join(screen_of(each)), what="the screen"
        )
    row = next(n for n, text in enumerate(screen_of(page)) if "click me" in text)
    box = page.locator(".xterm-screen").bounding_box()
    assert box is not None
    columns, rows = page.evaluate("[missionControl.terminal.cols, missionControl.terminal.rows]")
    cell = {"x": box["width"] / columns, "y": box["height"] / rows}
    column = screen_of(page)[row].index("click me")
    page.mouse.click(box["x"] + (column + 3) * cell["x"], box["y"] + (row + 0.5) * cell["y"])
    expect(page.locator("#open-link")).not_to_be_visible()
    column = screen_of(page)[row].index("https://")
    page.mouse.move(box["x"] + (column + 3) * cell["x"], box["y"] + (row + 0.5) * cell["y"])
    page.wait_for_timeout(300)  # the addon looks for links once the pointer rests
    page.mouse.click(box["x"] + (column + 3) * cell["x"], box["y"] + (row + 0.5) * cell["y"])
    expect(page.locator("#open-link-address")).to_have_text("https://example.org/page")
    page.locator("#open-link").get_by_role("button", name="Cancel").click()
    # tmux is a terminal and answers for itself, once; the same without anybody who looks.
    # (Its size is another one once a page was there.)
    answers, unseen = (
        _SIZE.sub("", product.read(f"{product.work(number)}/said")) for number in (ticket, unseen)
    )
    assert answers == unseen != ""
    assert opened == []
    page.bring_to_front()
    assert page.evaluate("navigator.clipboard.readText()") == "mine"
    assert not product.machine.run(["ls", "/tmp/owned"], check=False).stdout


def test_a_ticket_from_the_board_to_its_end(product: Product, page: Page) -> None:
    """Made in the form, talked to, looked at from every side, stopped, started, closed."""
    page.goto(GATEWAY)
    page.keyboard.press("n")
    page.get_by_label("Title", exact=True).fill("From the board")
    page.get_by_label("Repository").fill("~/src/demo")
    page.get_by_label("Driver").fill("nonsense")
    page.get_by_role("button", name="Make it").click()
    expect(page.locator("#new-problem")).to_contain_text("nonsense")
    page.get_by_label("Driver").fill("demo")
    page.get_by_role("button", name="Make it").click()
    page.wait_for_url("**/ticket/*")
    ticket = int(page.url.rpartition("/")[2])
    expect(page.locator("#turn")).to_have_text("idle", timeout=30_000)
    page.keyboard.press("i")
    box = page.get_by_role("textbox", name="Message")
    box.fill("what is\n20+3")
    box.press("Enter")
    expect(page.locator("#messages li").first).to_contain_text("confirmed", timeout=20_000)
    expect(page.locator("#panel-timeline")).to_contain_text("20 + 3 = 23", timeout=20_000)
    box.press("ArrowUp")
    expect(box).to_have_value("what is\n20+3")
    worktree = product.show(ticket)["worktree_path"]
    product.machine.sh(
        f"cd {worktree}; echo more >> README; echo new > new.txt; printf 'a\\0b' > bin"
    )
    page.get_by_role("tab", name="Diff").click()
    expect(page.locator("#panel-diff")).to_contain_text("new.txt")
    expect(page.locator("#panel-diff")).to_contain_text("binary")
    page.get_by_role("tab", name="Comments").click()
    page.get_by_label("New comment").fill("<b>looks</b> good")
    page.get_by_role("button", name="Add").click()
    expect(page.locator("#panel-comments .said")).to_have_text("<b>looks</b> good")
    page.get_by_role("tab", name="Unit").click()
    expect(page.locator("#panel-unit")).to_contain_text("active (running)")
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.locator("#turn")).to_have_text("gone", timeout=20_000)
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page.locator("#turn")).to_have_text("idle", timeout=30_000)
    page.get_by_role("button", name="Close", exact=True).click()
    expect(page.locator("#status")).to_have_text("closed", timeout=30_000)
    assert product.show(ticket)["status"] == "closed"
    assert product.read(f"{worktree}/new.txt") == "new\n"
    page.get_by_role("button", name="Reopen", exact=True).click()
    expect(page.locator("#connection")).to_have_text("live", timeout=30_000)
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page.locator("#turn")).to_have_text("idle", timeout=30_000)
    assert_same(page, product, ticket)


def test_the_board_by_keyboard(product: Product, page: Page) -> None:
    """Filter, next, open; what waits is first, counted in the title, and there without a reload."""
    ticket = demo(product, "A needle in here")
    page.goto(GATEWAY)
    page.keyboard.press("/")
    page.keyboard.type("needle")
    expect(page.locator(".ticket:visible")).to_have_count(1)
    product.send(ticket, "permission")
    card = page.locator(f'.column.waiting .ticket[data-ticket="{ticket}"]')
    expect(card).to_be_visible(timeout=20_000)
    expect(page).to_have_title("(1) Board · Mission Control")
    page.locator("#filter").blur()
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{GATEWAY}/ticket/{ticket}")
    expect(page.locator("#connection")).to_have_text("live")
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()


def test_a_phone_has_the_keys_it_lacks(product: Product, browser: Browser) -> None:
    """Esc, Tab, Ctrl and arrows are buttons; what its keyboard and input method write arrives as text."""
    ticket = command(product, READER.format(file="phone"))
    product.wait_screen(ticket, "ready")
    context = browser.new_context(
        viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True
    )
    page = context.new_page()
    page.goto(product.login_link())
    look(page, ticket)
    expect(page.locator("#keybar")).not_to_be_visible()
    take(page)
    bar = page.get_by_role("toolbar", name="Keys for the pane")
    for name in ("Esc", "Tab", "Left", "Up", "Down", "Right"):
        bar.get_by_role("button", name=name).tap()
    bar.get_by_role("button", name="Ctrl").tap()
    expect(bar.get_by_role("button", name="Ctrl")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("c")
    expect(bar.get_by_role("button", name="Ctrl")).to_have_attribute("aria-pressed", "false")
    page.keyboard.insert_text("hé 漢字")
    bar.get_by_role("button", name="Enter").tap()
    wanted = "\x1b\t\x1b[D\x1b[A\x1b[B\x1b[C\x03hé 漢字\r"
    product.machine.wait_for(
        lambda: len(product.read(f"{product.work(ticket)}/phone")) >= len(wanted),
        what="all that was tapped",
    )
    assert product.read(f"{product.work(ticket)}/phone") == wanted
    context.close()


def test_it_can_be_installed(product: Product, page: Page) -> None:
    """The browser finds nothing wrong with the manifest, behind the login that it is."""
    page.goto(GATEWAY)
    devtools = page.context.new_cdp_session(page)
    manifest = devtools.send("Page.getAppManifest")
    assert manifest["errors"] == []
    assert json.loads(manifest["data"])["display"] == "standalone"
    errors = devtools.send("Page.getInstallabilityErrors")["installabilityErrors"]
    # Chromium does not install from a window in which nothing is kept, as a test's is.
    assert [e["errorId"] for e in errors if e["errorId"] != "in-incognito"] == []


def test_somebody_who_looks_elsewhere_is_told(product: Product, browser: Browser) -> None:
    """One notification for each wait, with ticket and title; none while the page is looked at."""
    context = browser.new_context()
    context.add_init_script(ELSEWHERE)
    page = context.new_page()
    page.goto(product.login_link())
    ticket = demo(product, "Needs a word")
    page.goto(GATEWAY)
    waits = page.locator(f'.column.waiting .ticket[data-ticket="{ticket}"]')

    def told() -> list[str]:
        return [text for text in page.evaluate("told") if text.startswith(f"#{ticket} ")]

    for count in (1, 2):
        product.send(ticket, "permission")
        expect(waits).to_be_visible(timeout=20_000)
        assert told() == [f"#{ticket} Needs a word: waiting permission"] * count
        product.send(ticket, f"later {count}")  # the queue changes; the wait is the same one
        page.wait_for_timeout(1500)
        assert len(told()) == count
        product.machine.run(["tmux", "send-keys", "-t", f"=ticket-{ticket}:", "Escape"])
        expect(waits).not_to_be_visible(timeout=20_000)
    page.evaluate("looksElsewhere = false")
    product.send(ticket, "permission")
    expect(waits).to_be_visible(timeout=20_000)
    assert len(told()) == 2
    context.close()


def test_offline_is_said(product: Product, page: Page, browser: Browser) -> None:
    """The page says that it lost its connection, and comes back by itself with all there is."""
    ticket = command(product, "echo ready; read _; echo meanwhile; exec cat")
    look(page, ticket)
    product.systemctl("stop", "mc-webgate.socket", "mc-webgate.service")
    expect(page.locator("#connection")).to_contain_text("connection lost", timeout=10_000)
    product.machine.run(["tmux", "send-keys", "-t", f"=ticket-{ticket}:", "Enter"])
    product.systemctl("start", "mc-webgate.socket")
    expect(page.locator("#connection")).to_have_text("live", timeout=20_000)
    assert_same(page, product, ticket)
    assert "meanwhile" in "".join(pane_of(product, ticket))


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_it_looks_right_and_axe_finds_nothing(
    product: Product, browser: Browser, axe: str, scheme: str, tmp_path: Path
) -> None:
    """Board and ticket, on a desk and on a phone: pictures for a person, rules for the rest."""
    folder = PICTURES if os.environ.get("MC_PICTURES") else tmp_path
    folder.mkdir(parents=True, exist_ok=True)
    ticket = demo(product, f"A ticket in the {scheme}")
    product.new("Draft the release notes", "--driver", "demo")
    for name, size in (("desktop", (1280, 900)), ("phone", (390, 844))):
        context = browser.new_context(
            viewport={"width": size[0], "height": size[1]},
            color_scheme="dark" if scheme == "dark" else "light",
        )
        page = context.new_page()
        page.goto(product.login_link())
        for what in ("board", "ticket"):
            if what == "ticket":
                look(page, ticket)
                assert_same(page, product, ticket)
            page.screenshot(path=folder / f"{what}-{name}-{scheme}.png")
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (
                "it scrolls sideways"
            )
            page.evaluate(axe)
            found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")[
                "violations"
            ]
            faults = [v for v in found if v["impact"] in {"serious", "critical"}]
            told = [(v["id"], [n["html"][:200] for n in v["nodes"]]) for v in faults]
            assert not faults, json.dumps(told, indent=1)
        context.close()
